"""Motion modules: nothing until trained, frames only, positions known."""

import pytest
import torch
from diffusers.models.embeddings import SinusoidalPositionalEmbedding

from models.unet.motion import FramePosition, MotionModule
from tests.support.small_models import shaken


def module(frames: int = 8) -> MotionModule:
    torch.manual_seed(0)
    return MotionModule(16, heads=4, groups=4, max_frames=frames)


def test_does_nothing_at_first() -> None:
    hidden = torch.randn(6, 16, 4, 4)
    assert torch.equal(module()(hidden, 3), hidden)


def test_position_table_is_the_usual_one() -> None:
    expected = SinusoidalPositionalEmbedding(16, max_seq_length=24).pe
    torch.testing.assert_close(FramePosition(16, 24).pe, expected)


def test_attends_over_frames_at_one_place_only() -> None:
    trained = shaken(module())
    hidden = torch.randn(4, 16, 4, 4)
    changed = hidden.clone()
    # A change that leaves the norm's statistics alone: two channels of one group swapped.
    changed[1, [0, 1], 2, 3] = hidden[1, [1, 0], 2, 3]
    moved = (trained(changed, 4) - trained(hidden, 4)).abs().amax(1) > 1e-6
    assert moved[:, 2, 3].all()
    moved[:, 2, 3] = False
    assert not moved.any()


def test_order_of_frames_matters() -> None:
    trained = shaken(module())
    hidden = torch.randn(4, 16, 2, 2)
    backwards = trained(hidden.flip(0), 4).flip(0)
    assert (trained(hidden, 4) - backwards).abs().max() > 1e-3


def test_too_long_a_window() -> None:
    with pytest.raises(ValueError, match=r"9 frames was given.*8 positions"):
        module(8)(torch.randn(9, 16, 2, 2), 9)
