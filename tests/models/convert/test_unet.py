"""LatentSync's checkpoints and ours: one to one, both ways, nothing left over."""

import json

import pytest
import torch

from models.convert.unet import (
    config_from_reference,
    differences,
    infer_config,
    unet_from_reference,
    unet_to_reference,
)
from models.files.errors import ModelFileError
from models.unet import LipSyncUNet
from tests.parity import CASES
from tests.support.small_models import PUBLISHED, UNET, small_unet, unet_inputs

NAMES = ("unet_stage1", "unet_stage2", "unet_stage2_efficient")


@pytest.mark.parametrize("name", NAMES)
def test_full_size_checkpoints_convert_both_ways(name: str) -> None:
    case = json.loads((CASES / f"{name}.json").read_text())
    with torch.device("meta"):
        state = {key: torch.empty(shape) for key, shape in case["full_state_dict"].items()}
    unet = unet_from_reference({f"module.{key}": value for key, value in state.items()})
    config = config_from_reference(case["full_config"])
    assert {key: unet.config[key] for key in config} == {
        key: list(value) if isinstance(value, list) else value for key, value in config.items()
    }
    back = unet_to_reference(unet, global_step=7)
    assert back["global_step"] == 7
    assert {key: value.shape for key, value in back["state_dict"].items()} == {
        key: value.shape for key, value in state.items()
    }


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"motion_resolutions": []},
        {"motion_decoder_only": True},
        {"motion_mid_block": True, "motion_max_frames": 32, "motion_layers": 2},
        {"layers_per_block": 2, "attention": ["full", "full"], "motion_resolutions": [2]},
    ],
)
def test_configuration_is_told_from_shapes(options: dict) -> None:
    with torch.device("meta"):
        unet = LipSyncUNet(**{**UNET, **options})
    config = infer_config({key: tuple(value.shape) for key, value in unet.state_dict().items()})
    found = {key: unet.config[key] for key in config}
    if not unet.config.motion_resolutions:
        config.pop("motion_decoder_only"), found.pop("motion_decoder_only")
    assert config == found


def test_weights_are_taken_over_unchanged() -> None:
    unet = small_unet()
    state = unet_to_reference(unet)["state_dict"]
    loaded = unet_from_reference(state, UNET).eval()
    inputs = unet_inputs()
    assert torch.equal(loaded(*inputs), unet(*inputs))


def changed_shape(state: dict[str, torch.Tensor]) -> None:
    state["time_embedding.linear_1.weight"] = torch.zeros(3, 3)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda state: state.pop("conv_norm_out.bias"), "1 entries are missing.*conv_norm_out"),
        (lambda state: state.update(extra=torch.zeros(1)), "1 entries are unknown.*extra"),
        (changed_shape, r"another shape.*linear_1.weight: \[3, 3\] where \[128, 32\]"),
        (lambda state: state.pop("conv_in.weight"), "cannot be inferred"),
        (lambda state: state.clear(), "cannot be inferred"),
    ],
)
def test_what_does_not_fit_is_said(change: object, match: str) -> None:
    state = dict(LipSyncUNet(**PUBLISHED).state_dict())
    change(state)  # type: ignore[operator]
    with pytest.raises(ModelFileError, match=match):
        unet_from_reference(state)


def test_equal_shapes_have_no_differences() -> None:
    assert differences({"a": (1,)}, {"a": (1,)}) == ""


@pytest.mark.parametrize(
    "change",
    [
        {"act_fn": "gelu"},
        {"add_audio_layer": False},
        {"motion_module_kwargs": {"attention_block_types": ["Temporal_Self"]}},
    ],
)
def test_unsupported_configurations(change: dict) -> None:
    case = json.loads((CASES / "unet_stage2.json").read_text())
    with pytest.raises(ValueError, match="not supported"):
        config_from_reference({**case["config"], **change})
