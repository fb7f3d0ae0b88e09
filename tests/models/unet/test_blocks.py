"""The U-Net's blocks against the plain formulas they stand for."""

import torch
from torch import nn

from models.unet.blocks import BlockConfig, ClipGroupNorm, ResnetBlock, SpatialTransformer
from tests.support.small_models import shaken

CONFIG = BlockConfig(
    time_channels=24,
    audio_width=12,
    heads=4,
    groups=4,
    eps=1e-5,
    motion_heads=4,
    motion_groups=4,
    motion_layers=1,
    motion_max_frames=8,
)


def test_clip_norm_is_group_norm_on_five_dimensions() -> None:
    norm = ClipGroupNorm(4, 16)
    shaken(norm)
    window = torch.randn(2, 16, 3, 4, 6)
    expected = nn.functional.group_norm(window, 4, norm.weight, norm.bias, norm.eps)
    flat = window.transpose(1, 2).flatten(0, 1)
    for memory in (torch.contiguous_format, torch.channels_last):
        normed = norm(flat.contiguous(memory_format=memory), 3)
        assert normed.is_contiguous(memory_format=torch.channels_last)
        back = normed.unflatten(0, (2, 3)).transpose(1, 2)
        torch.testing.assert_close(back, expected, rtol=1e-4, atol=1e-5)


def test_resnet_block_of_one_frame_is_diffusers() -> None:
    from diffusers.models.resnet import ResnetBlock2D

    theirs = ResnetBlock2D(
        in_channels=16, out_channels=32, temb_channels=24, groups=4, eps=1e-5, non_linearity="silu"
    )
    ours = ResnetBlock(16, 32, CONFIG)
    ours.load_state_dict(theirs.state_dict())
    hidden, time = torch.randn(2, 16, 4, 4), torch.randn(2, 24)
    torch.testing.assert_close(ours(hidden, time, 1), theirs(hidden, time), rtol=1e-4, atol=1e-5)


def test_spatial_transformer_is_diffusers() -> None:
    from diffusers.models.transformers.transformer_2d import Transformer2DModel

    theirs = Transformer2DModel(
        num_attention_heads=4,
        attention_head_dim=4,
        in_channels=16,
        norm_num_groups=4,
        cross_attention_dim=12,
    )
    ours = SpatialTransformer(16, CONFIG)
    ours.load_state_dict(theirs.state_dict())
    hidden, audio = torch.randn(2, 16, 4, 6), torch.randn(2, 5, 12)
    expected = theirs(hidden, encoder_hidden_states=audio, return_dict=False)[0]
    torch.testing.assert_close(ours(hidden, audio), expected, rtol=1e-4, atol=1e-5)


def test_without_self_attention_places_do_not_see_each_other() -> None:
    block = SpatialTransformer(16, CONFIG, self_attention=False)
    shaken(block)
    hidden, audio = torch.randn(1, 16, 4, 4), torch.randn(1, 5, 12)
    changed = hidden.clone()
    changed[0, [0, 1], 1, 2] = hidden[0, [1, 0], 1, 2]
    moved = (block(changed, audio) - block(hidden, audio)).abs().amax(1)[0] > 1e-6
    assert moved[1, 2]
    assert moved.sum() == 1
    assert (block(hidden, audio + 1) - block(hidden, audio)).abs().max() > 1e-4
