"""Stable Diffusion's U-Net as a start: the same picture network, and notes on the rest."""

import pytest
import torch
from diffusers import UNet2DConditionModel

from models.convert.stable_diffusion import (
    config_for,
    is_stable_diffusion,
    start_from_stable_diffusion,
)
from models.files.errors import ModelFileError
from models.unet import LipSyncUNet


def two_dimensional(width: int = 384) -> UNet2DConditionModel:
    torch.manual_seed(0)
    return UNet2DConditionModel(
        block_out_channels=(32, 64),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=width,
        attention_head_dim=8,
    ).eval()


def ours(state: dict[str, torch.Tensor], **options: object) -> LipSyncUNet:
    torch.manual_seed(1)
    return LipSyncUNet(**{**config_for(state), **options}).eval()


def test_one_frame_of_equal_width_is_the_same_network() -> None:
    theirs = two_dimensional()
    state = theirs.state_dict()
    unet = ours(state)
    notes = start_from_stable_diffusion(unet, state)
    assert len(notes) == 1
    assert "9 channels" in notes[0]
    sample = torch.randn(2, 13, 1, 8, 8)
    audio = torch.randn(2, 1, 5, 384)
    timesteps = torch.tensor([3, 700])
    with torch.no_grad():
        expected = theirs(sample[:, :4, 0], timesteps, audio[:, 0]).sample
        got = unet(sample, timesteps, audio)[:, :, 0]
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


def test_text_width_and_motion_start_fresh_and_are_said() -> None:
    state = two_dimensional(width=768).state_dict()
    unet = ours(state, motion_resolutions=[1, 2])
    fresh = {key: value.clone() for key, value in unet.state_dict().items()}
    notes = start_from_stable_diffusion(unet, state)
    assert any("384 wide, text tokens 768" in note for note in notes)
    assert any("motion-module entries are fresh" in note for note in notes)
    for key, value in unet.state_dict().items():
        if key.endswith(("attn2.to_k.weight", "attn2.to_v.weight")) or "motion_modules" in key:
            assert torch.equal(value, fresh[key]), key
        elif key != "conv_in.weight":
            assert torch.equal(value, state[key]), key


def test_what_is_not_stable_diffusion() -> None:
    state = two_dimensional().state_dict()
    unet = ours(state)
    assert is_stable_diffusion(state)
    assert not is_stable_diffusion(unet.state_dict())
    with pytest.raises(ModelFileError, match="not the weights of a Stable Diffusion"):
        start_from_stable_diffusion(unet, unet.state_dict())
    wider = LipSyncUNet(**{**config_for(state), "block_out_channels": [64, 64]})
    with pytest.raises(ModelFileError, match="does not fit"):
        start_from_stable_diffusion(wider, state)
    with pytest.raises(ModelFileError, match="is missing"):
        config_for({"conv_in.weight": state["conv_in.weight"]})
