"""Chains: each window is shown the frame that lies `lag` frames before it, as it was painted."""

from typing import Any

import pytest
import torch

from models.latentsync.chain import PoseChain
from models.latentsync.config import PoseConfig
from models.latentsync.model import LatentSync
from tests.support.small_models import shaken, small_config


def chain_model(frames: int = 1, lag: int = 1) -> LatentSync:
    torch.manual_seed(0)
    pose = PoseConfig(kind="full", lag=lag)
    model = LatentSync(small_config(num_frames=frames, pose=pose)).eval()
    shaken(model.unet)
    return model


def inputs(model: LatentSync, shots: int, frames: int) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(1)
    pixels, reference = torch.rand(2, shots, frames, 3, 64, 64, generator=generator) * 2 - 1
    tokens = [model.tokens(torch.randn(16_000, generator=generator), frames) for _ in range(shots)]
    return pixels, reference, torch.stack(tokens)


def paint_all(chain: PoseChain, given: tuple[torch.Tensor, ...], size: int) -> torch.Tensor:
    noise = torch.randn(1, 8, 1, 8, 8, generator=torch.Generator().manual_seed(2))
    parts = zip(*(each.split(size, dim=1) for each in given), strict=True)
    return torch.cat([chain.paint(*part, steps=2, noise=noise) for part in parts], dim=1)


@pytest.mark.parametrize(("size", "lag"), [(1, 1), (1, 3), (2, 1), (2, 3)])
def test_poses_are_what_was_painted(size: int, lag: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model = chain_model(size, lag)
    poses: list[torch.Tensor | None] = []
    made: list[torch.Tensor] = []
    true = model.generate

    def generate(*given: Any, pose: Any, on_step: Any, **options: Any) -> torch.Tensor:
        poses.append(pose)

        def keep(done: int, steps: int, latents: torch.Tensor) -> None:
            if done == steps:
                made.extend(latents.unbind(2))
            on_step(done, steps, latents)

        return true(*given, pose=pose, on_step=keep, **options)

    monkeypatch.setattr(model, "generate", generate)
    paint_all(PoseChain(model), inputs(model, 1, 8), size)
    for number, pose in enumerate(poses):
        before = number * size - lag
        if before < 0:
            assert pose is None
        else:
            assert pose is not None
            assert torch.equal(pose, made[before])


def test_the_first_window_is_shown_its_reference() -> None:
    model = chain_model()
    pixels, reference, tokens = inputs(model, 1, 1)
    noise = torch.zeros(1, 8, 1, 8, 8)
    first = PoseChain(model).paint(pixels, reference, tokens, steps=1, noise=noise)
    own = model.encode_window(reference)[:, :, 0]
    assert torch.equal(
        first, model.generate(pixels, reference, tokens, steps=1, noise=noise, pose=own)
    )
    other = model.generate(pixels, reference, tokens, steps=1, noise=noise, pose=own + 1)
    assert not torch.equal(first, other)


def test_a_chain_goes_on_from_its_past() -> None:
    model = chain_model(1, 2)
    given = inputs(model, 1, 6)
    whole = paint_all(PoseChain(model), given, 1)
    first = PoseChain(model)
    paint_all(first, tuple(each[:, :3] for each in given), 1)
    assert len(first.past) == 2
    rest = paint_all(PoseChain(model, first.past), tuple(each[:, 3:] for each in given), 1)
    assert torch.equal(rest, whole[:, 3:])


def test_shots_side_by_side_are_each_as_alone() -> None:
    model = chain_model()
    given = inputs(model, 3, 4)
    together = paint_all(PoseChain(model), given, 1)
    for shot in range(3):
        alone = paint_all(PoseChain(model), tuple(each[shot : shot + 1] for each in given), 1)
        torch.testing.assert_close(together[shot : shot + 1], alone, rtol=0, atol=1e-4)
    assert not torch.allclose(together[0], together[1], atol=1e-2)


def test_a_model_without_a_pose_has_no_chain() -> None:
    with pytest.raises(ValueError, match="windows overlap instead"):
        PoseChain(LatentSync(small_config()))
