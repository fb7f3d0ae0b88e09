"""The model of a run: earlier stages and published weights fit or are refused."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from models.files.errors import ModelFileError
from models.latentsync.config import PoseConfig
from models.latentsync.model import LatentSync
from models.unet import LipSyncUNet
from tasks.recipes.recipe import recipe
from tasks.train.assemble import load_earlier, model_config, start_weights
from tasks.train.context import StageContext, Stores
from tasks.train.objective import Rank
from tasks.train.stages import PrintReporter
from tests.support.small_models import shaken

DEBUG = recipe("debug")


def model(stage: str) -> LatentSync:
    return LatentSync(model_config(DEBUG, stage))


def stage_run(folder: Path) -> StageContext:
    worker = Rank(torch.device("cpu"))
    return StageContext("stage1", folder, "d", DEBUG, Stores(folder), worker, PrintReporter())


def test_stage_2_adds_motion_modules_that_change_nothing_yet() -> None:
    first, second = model("stage1"), model("stage2")
    with torch.no_grad():
        first.unet.conv_out.weight.normal_(std=0.1)
    load_earlier(second.unet, first.unet.state_dict(), "stage1")
    assert any("motion_modules." in name for name in second.unet.state_dict())
    sample, audio = torch.randn(1, 25, 16, 8, 8), torch.randn(1, 16, 7, 88)
    with torch.no_grad():
        before = first.unet(sample, torch.tensor([500]), audio)
        after = second.unet(sample, torch.tensor([500]), audio)
    torch.testing.assert_close(before, after, atol=1e-5, rtol=1e-4)


def test_weights_of_another_size_are_refused() -> None:
    unet = model("stage1").unet
    weights = dict(unet.state_dict())
    weights.pop("conv_in.weight")
    with pytest.raises(ModelFileError, match=r"1 weights are missing .* such as conv_in\.weight"):
        load_earlier(unet, weights, "there")
    with pytest.raises(ModelFileError, match="1 do not fit"):
        load_earlier(unet, unet.state_dict() | {"foreign": torch.zeros(1)}, "there")


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """A checkpoint with motion modules that do something."""
    path = tmp_path / "latentsync_unet.pt"
    unet = shaken(model("stage2").unet)
    torch.save({"global_step": 1, "state_dict": unet.state_dict()}, path)
    return path


def entries(path: Path) -> dict[str, torch.Tensor]:
    return dict(torch.load(path, weights_only=True)["state_dict"])


def test_motion_modules_that_a_stage_has_not_are_said_to_be_left(
    published: Path, tmp_path: Path
) -> None:
    target = model("stage1")
    config = replace(DEBUG.stage1, weights=str(published))
    (note,) = start_weights(stage_run(tmp_path), config, target)
    theirs = entries(published)
    left = theirs.keys() - target.unet.state_dict().keys()
    assert left
    assert note.startswith(f"{len(left)} motion-module entries in {published}")
    for name, value in target.unet.state_dict().items():
        assert torch.equal(value, theirs[name]), name


def second_stage(folder: Path, weights: Path, learned: LatentSync) -> StageContext:
    """Stage 2 of a run whose stage 1 began with `weights` and ended with `learned`."""
    chosen = replace(DEBUG, stage1=replace(DEBUG.stage1, weights=str(weights)))
    (folder / "stage1").mkdir()
    torch.save({"network": learned.unet.state_dict()}, folder / "stage1" / "checkpoint.pt")
    return replace(stage_run(folder), name="stage2", recipe=chosen)


def test_stage_2_takes_the_published_motion_modules(published: Path, tmp_path: Path) -> None:
    learned, target, theirs = model("stage1"), model("stage2"), entries(published)
    stage = second_stage(tmp_path, published, learned)
    (note,) = start_weights(stage, stage.recipe.unet("stage2"), target)
    motion = [name for name in target.unet.state_dict() if "motion_modules." in name]
    assert note == f"{len(motion)} motion-module entries are from {published}"
    for name, value in target.unet.state_dict().items():
        expected = theirs[name] if name in motion else learned.unet.state_dict()[name]
        assert torch.equal(value, expected), name


def test_motion_modules_that_stage_1_has_learned_stay(published: Path, tmp_path: Path) -> None:
    learned, target = model("stage2"), model("stage2")
    stage = second_stage(tmp_path, published, learned)
    assert start_weights(stage, stage.recipe.unet("stage2"), target) == []
    for name, value in target.unet.state_dict().items():
        assert torch.equal(value, learned.unet.state_dict()[name]), name


def test_motion_modules_that_nobody_has_are_fresh(tmp_path: Path) -> None:
    path = tmp_path / "stage1_unet.pt"
    torch.save(model("stage1").unet.state_dict(), path)
    stage = second_stage(tmp_path, path, model("stage1"))
    (note,) = start_weights(stage, stage.recipe.unet("stage2"), model("stage2"))
    assert "are fresh, with output zero" in note


def test_motion_modules_of_another_size_are_refused(published: Path, tmp_path: Path) -> None:
    content = {"state_dict": entries(published)}
    key = next(name for name in content["state_dict"] if "motion_modules." in name)
    content["state_dict"][key] = torch.zeros(1)
    torch.save(content, published)
    stage = second_stage(tmp_path, published, model("stage1"))
    with pytest.raises(ModelFileError, match=r"latentsync_unet\.pt have another size: 1 entr"):
        start_weights(stage, stage.recipe.unet("stage2"), model("stage2"))


def test_stable_diffusion_is_widened_and_says_what_is_fresh(tmp_path: Path) -> None:
    options = {**model("stage1").unet_options(), "in_channels": 8, "residual": False}
    torch.manual_seed(1)
    picture = LipSyncUNet(**{**options, "cross_attention_dim": 48})
    path = tmp_path / "sd.pt"
    torch.save(dict(picture.state_dict()), path)
    target = model("stage1")
    notes = start_weights(stage_run(tmp_path), replace(DEBUG.stage1, weights=str(path)), target)
    assert any("zero" in note for note in notes)
    assert torch.equal(target.unet.conv_in.weight[:, :8], picture.conv_in.weight)
    assert target.unet.conv_in.weight[:, 8:].abs().max() == 0


def test_the_full_size_models_can_be_built_without_storage() -> None:
    for name, stage in (("paper-256", "stage1"), ("paper-512", "stage2")):
        chosen = recipe(name)
        with torch.device("meta"):
            unet = LipSyncUNet(**{"cross_attention_dim": 384, **model_config(chosen, stage).unet})
        count = sum(weight.numel() for weight in unet.parameters())
        assert count > (1.2e9 if stage == "stage2" else 0.8e9)


def test_a_model_with_a_pose_and_other_speech_starts_from_published_weights(
    published: Path, tmp_path: Path
) -> None:
    """Its pose and its cross-attentions are its own; all else is theirs."""
    pose = PoseConfig(kind="vector", width=2)
    wider = {**DEBUG.model.audio_encoder, "width": 96}
    posed = replace(DEBUG.model, pose=pose, audio_encoder=wider)
    stage1 = replace(DEBUG.stage1, weights=str(published))
    chosen = replace(DEBUG, model=posed, stage1=stage1, stage2=None)
    stage = replace(stage_run(tmp_path), recipe=chosen)
    target, theirs = LatentSync(posed), entries(published)
    before = dict(target.unet.state_dict())
    notes = start_weights(stage, stage1, target)
    assert "2 channels are zero" in notes[0]
    assert "audio tokens are 96 wide, those that these weights know 88" in notes[1]
    assert notes[2].endswith("are not used in this stage")
    for key, value in target.unet.state_dict().items():
        if key == "conv_in.weight":
            assert torch.equal(value[:, :-2], theirs[key])
            assert (value[:, -2:] == 0).all()
        elif key.startswith("bottleneck.") or key.endswith(("attn2.to_k.weight", "to_v.weight")):
            assert value.shape == before[key].shape
        else:
            assert torch.equal(value, theirs[key]), key
