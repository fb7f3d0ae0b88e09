"""A model that is shown an earlier frame begins as the very model that is not, to the last bit."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from models.convert.command import convert
from models.convert.unet import infer_config, shapes_of, unet_from_reference, with_pose_inputs
from models.files.errors import ModelFileError
from models.files.state_dict import read_state_dict
from models.latentsync.config import LatentSyncConfig, PoseConfig, config_values
from models.latentsync.model import LatentSync
from models.unet import LipSyncUNet
from models.unet.pose import pose_channels
from tasks.recipes.recipe import recipe
from tests.parity import CASES
from tests.parity.draw import draw_weights, read_case
from tests.support.small_models import PUBLISHED, shaken, small_config

POSES = [PoseConfig(kind="full"), PoseConfig(kind="vector", width=2), PoseConfig(kind="outside")]
PLAIN = {**small_config().unet, "residual": False}


def generated(config: LatentSyncConfig, **options: Any) -> torch.Tensor:
    """Pictures of a fresh model of a seed; all but the input's new weights are moved."""
    torch.manual_seed(0)
    model = LatentSync(config).eval()
    generator = torch.Generator().manual_seed(1)
    side, frames = config.resolution, config.num_frames
    pixels, reference = torch.rand(2, 1, frames, 3, side, side, generator=generator) * 2 - 1
    tokens = model.tokens(torch.randn(16_000, generator=generator), frames)[None]
    with torch.no_grad():
        model.unet.conv_out.weight += 0.05 * torch.randn(
            model.unet.conv_out.weight.shape, generator=generator
        )
    return model.generate(
        pixels, reference, tokens, steps=2, generator=torch.Generator().manual_seed(2), **options
    )


@pytest.mark.parametrize("pose", POSES)
@pytest.mark.parametrize("frames", [1, 4])
@pytest.mark.parametrize("changes", [{}, {"unet": PLAIN, "prediction_type": "epsilon"}])
def test_fresh_models(pose: PoseConfig, frames: int, changes: dict[str, Any]) -> None:
    config = small_config(num_frames=frames, **changes)
    expected = generated(config)
    shown = torch.randn(1, 8, 8, 8, generator=torch.Generator().manual_seed(5))
    for given in ({}, {"pose": shown}):
        assert torch.equal(generated(replace(config, pose=pose), **given), expected)


def test_the_tiny_recipes_model() -> None:
    posed = recipe("syncdiff-tiny").model
    assert posed.pose is not None
    assert torch.equal(generated(posed), generated(replace(posed, pose=None)))


def whole_checkpoint(folder: Path) -> tuple[Path, dict[str, torch.Tensor]]:
    """A file with all names of LatentSync's stage 2, its weights drawn, its widths small."""
    case, _ = read_case(CASES, "unet_stage2")
    with torch.device("meta"):
        network = LipSyncUNet(
            **{
                **PUBLISHED,
                "block_out_channels": [32, 64, 128, 128],
                "layers_per_block": 2,
                "attention": ["full", "full", "full", "none"],
                "motion_resolutions": [1, 2, 4, 8],
            }
        )
    state = network.state_dict()
    assert state.keys() == case["full_state_dict"].keys()
    shapes = {key: list(value.shape) for key, value in state.items()}
    drawn = draw_weights(0, shapes)
    path = folder / "latentsync_unet.pt"
    torch.save({"global_step": 1, "state_dict": drawn}, path)
    return path, drawn


@pytest.mark.parametrize("pose", POSES)
def test_a_latentsync_checkpoint_with_all_its_names(pose: PoseConfig, tmp_path: Path) -> None:
    path, drawn = whole_checkpoint(tmp_path)
    convert(path, tmp_path / "converted")
    folder = tmp_path / "converted" / "diffusion_pytorch_model.safetensors"
    plain = unet_from_reference(drawn).eval()
    count = pose_channels(pose.kind, pose.width, 4)
    options = infer_config(shapes_of(drawn))
    options |= {"in_channels": 13 + count, "pose": pose.kind, "pose_width": pose.width}
    generator = torch.Generator().manual_seed(1)
    sample = torch.randn(1, 17, 2, 16, 16, generator=generator)
    audio = torch.randn(1, 2, 5, 12, generator=generator)
    for source in (path, folder):
        own = LipSyncUNet(**options).eval()
        weights, (note,) = with_pose_inputs(read_state_dict(source), own, str(source))
        own.load_state_dict(weights)
        assert f"the pose's {count} channels are zero" in note
        with torch.no_grad():
            found = own(sample, torch.tensor([500]), audio)
            assert torch.equal(found, plain(sample[:, :13], torch.tensor([500]), audio))


def test_a_checkpoint_with_another_pose_is_refused_by_name() -> None:
    three = LipSyncUNet(**{**PUBLISHED, "in_channels": 16, "pose": "channel", "pose_width": 3})
    two = LipSyncUNet(**{**PUBLISHED, "in_channels": 15, "pose": "vector", "pose_width": 2})
    plain = LipSyncUNet(**PUBLISHED)
    for own, count in ((two, 2), (plain, 0)):
        with pytest.raises(
            ModelFileError, match=f"with 3 input channels .* this model has {count}"
        ):
            with_pose_inputs(dict(three.state_dict()), own, "x.pt")
    assert with_pose_inputs(dict(two.state_dict()), two, "x.pt")[1] == []
    with pytest.raises(ModelFileError, match=r"2 input channels for the pose.*use the bundle"):
        unet_from_reference(two.state_dict())


def test_models_without_a_pose_are_stored_as_before(tmp_path: Path) -> None:
    assert "pose" not in config_values(small_config())
    config = small_config(num_frames=1, pose=PoseConfig(kind="channel", width=2, lag=3))
    model = LatentSync(config).eval()
    shaken(model.unet)
    model.save(tmp_path)
    loaded = LatentSync.load(tmp_path)
    assert loaded.config == config
    for key, value in model.unet.state_dict().items():
        assert torch.equal(loaded.unet.state_dict()[key], value)


@pytest.mark.parametrize(
    ("values", "said"),
    [({"kind": "lips"}, "'lips'"), ({"lag": 0}, "at least 1 frame"), ({"depth": 1}, "depth")],
)
def test_a_stored_pose_that_is_none_of_ours(
    tmp_path: Path, values: dict[str, Any], said: str
) -> None:

    LatentSync(small_config()).save(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "pose": values}))
    with pytest.raises(ModelFileError, match=said):
        LatentSync.load(tmp_path)


def test_a_model_with_a_pose_asks_for_one() -> None:
    model = LatentSync(small_config(pose=PoseConfig(kind="full")))
    latents = torch.zeros(1, 8, 4, 8, 8)
    tokens = model.tokens(torch.zeros(16_000), 4)[None]
    with pytest.raises(ValueError, match="give its latents as pose"):
        model.predict(latents, torch.tensor([5]), tokens, latents, latents)
