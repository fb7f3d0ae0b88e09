"""The U-Net: numbers of the reference, shapes of the full size, and the tiny recipe's options."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from models.unet import LipSyncUNet
from tests.parity import CASES, case_unet
from tests.support.small_models import count_runs, small_unet, unet_inputs

OPTIONS: dict[str, dict[str, Any]] = {
    "unet_stage1": {"motion_resolutions": []},
    "unet_stage2": {},
    "unet_stage2_efficient": {"motion_decoder_only": True},
}


@pytest.mark.parametrize("name", OPTIONS)
def test_parity(name: str) -> None:
    with torch.no_grad():
        assert case_unet.run(CASES, name) < 1e-4


@pytest.mark.parametrize("name", OPTIONS)
def test_full_size_has_exactly_the_reference_entries(name: str) -> None:
    expected = json.loads((CASES / f"{name}.json").read_text())["full_state_dict"]
    with torch.device("meta"):
        unet = LipSyncUNet(**OPTIONS[name])
    assert {key: list(value.shape) for key, value in unet.state_dict().items()} == expected


def test_save_and_load(tmp_path: Path) -> None:
    unet = small_unet()
    unet.save_pretrained(tmp_path)
    loaded = LipSyncUNet.from_pretrained(tmp_path).eval()
    inputs = unet_inputs()
    torch.testing.assert_close(loaded(*inputs), unet(*inputs), rtol=0, atol=0)


def test_gradient_checkpointing_changes_no_gradient() -> None:
    gradients = []
    for checkpointing in (False, True):
        unet = small_unet().train()
        if checkpointing:
            unet.enable_gradient_checkpointing()
        blocks = [block for stage in unet.modules() for block in getattr(stage, "resnets", [])]
        runs = count_runs(blocks)
        output = unet(*unet_inputs())
        assert runs == [1] * len(blocks)
        assert len(runs) == 8
        output.square().mean().backward()
        assert runs == [1 + checkpointing] * len(blocks)
        gradients.append({name: weight.grad for name, weight in unet.named_parameters()})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, msg=name)


def test_batch_entries_are_independent() -> None:
    unet = small_unet()
    sample, timesteps, audio = unet_inputs()
    both = unet(sample, timesteps, audio)
    one = unet(sample[1:], timesteps[1:], audio[1:])
    torch.testing.assert_close(both[1:], one, rtol=1e-4, atol=1e-5)


def test_audio_of_a_frame_reaches_it_first() -> None:
    unet = small_unet(motion_resolutions=[])
    sample, timesteps, audio = unet_inputs()
    changed = audio.clone()
    changed[:, 1] += 1
    moved = (unet(sample, timesteps, changed) - unet(sample, timesteps, audio)).abs()
    per_frame = moved.mean(dim=(0, 1, 3, 4))
    assert per_frame[1] > 2 * per_frame[0]


def test_one_number_is_a_timestep_for_all() -> None:
    unet = small_unet()
    sample, _, audio = unet_inputs()
    assert torch.equal(unet(sample, 5, audio), unet(sample, torch.tensor([5, 5]), audio))


def test_residual_starts_as_the_guess_and_learns() -> None:
    torch.manual_seed(0)
    unet = LipSyncUNet(**{**small_unet().config, "residual": True})
    sample, timesteps, audio = unet_inputs()
    sample[:, 4] = (sample[:, 4] > 0).float()
    keep, masked, reference = sample[:, 4:5], sample[:, 5:9], sample[:, 9:]
    guess = torch.where(keep > 0, masked, reference)
    output = unet(sample, timesteps, audio)
    torch.testing.assert_close(output, guess)
    output.square().mean().backward()
    assert unet.conv_out.weight.grad.abs().max() > 0
    assert unet.conv_in.weight[:, :4].abs().max() == 0


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"attention": ["full"]}, "one entry per resolution"),
        ({"attention": ["full", "self"]}, "unknown attention 'self'"),
        ({"in_channels": 9, "residual": True}, "13, got 9"),
    ],
)
def test_contradictory_options(options: dict, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        small_unet(**options)


@pytest.mark.parametrize(
    ("which", "shape", "match"),
    [
        (0, (2, 12, 3, 8, 8), r"sample must be \(b, 13"),
        (0, (2, 13, 3, 8, 7), "divide by 2, got 8x7"),
        (2, (2, 4, 5, 12), r"b, f = \(2, 3\)"),
        (2, (2, 3, 5, 13), "must be 12 wide, got 13"),
    ],
)
def test_inputs_that_do_not_fit(which: int, shape: tuple[int, ...], match: str) -> None:
    inputs = list(unet_inputs())
    inputs[which] = torch.zeros(shape)
    with pytest.raises(ValueError, match=match):
        small_unet()(*inputs)
