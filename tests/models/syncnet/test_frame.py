"""The small sync network learns what goes together and forgets who it sees."""

import pytest
import torch

from models.syncnet.frame import FrameSyncNet
from models.syncnet.loss import cosine_loss


def pairs(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Windows in which a dark spot grows with the loudness; half get another's sound."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(count, 1, 22, generator=generator)
    course = torch.nn.functional.avg_pool1d(noise, 7, 1)[:, 0].mul(2).tanh()
    frames = torch.rand(count, 1, 3, 16, 32, generator=generator).expand(-1, 16, -1, -1, -1).clone()
    frames[:, :, :, 4:12, 10:22] -= 0.5 * course[:, :, None, None, None]
    sound = torch.nn.functional.interpolate(course[:, None], 52, mode="linear")
    y = (torch.arange(count) % 2).float()
    sound[y == 0] = sound[y == 0].roll(1, 0)
    mel = sound[:, None].expand(-1, -1, 80, -1) + 0.1 * torch.randn(
        count, 1, 80, 52, generator=generator
    )
    return frames, mel, y


def test_embeddings_are_unit_and_non_negative() -> None:
    network = FrameSyncNet().eval()
    frames = torch.rand(2, 16, 3, 64, 128) * 2 - 1
    vision, audio = network(frames, torch.randn(2, 1, 80, 52))
    for embedding in (vision, audio):
        assert embedding.shape == (2, network.embedding_dim)
        assert (embedding >= 0).all()
        assert torch.allclose(embedding.norm(dim=1), torch.ones(2), atol=1e-5)


def test_a_still_picture_behind_the_motion_does_not_matter() -> None:
    network = FrameSyncNet().eval()
    motion = torch.rand(1, 16, 3, 64, 128)
    other = motion + torch.rand(1, 1, 3, 64, 128)
    assert torch.allclose(network.encode_frames(motion), network.encode_frames(other), atol=1e-4)


def test_gradient_reaches_the_frames() -> None:
    network = FrameSyncNet().eval()
    frames = torch.rand(1, 16, 3, 64, 128, requires_grad=True)
    vision, audio = network(frames, torch.randn(1, 1, 80, 52))
    cosine_loss(vision, audio, torch.ones(1)).backward()
    assert frames.grad is not None
    assert torch.isfinite(frames.grad).all()
    assert float(frames.grad.abs().max()) > 0


def test_motionless_windows_stay_finite() -> None:
    network = FrameSyncNet().eval()
    vision, audio = network(torch.zeros(1, 16, 3, 64, 128), torch.full((1, 1, 80, 52), -4.0))
    assert torch.isfinite(vision).all()
    assert torch.isfinite(audio).all()


def test_it_learns() -> None:
    torch.manual_seed(0)
    network = FrameSyncNet(features=8, width=8, size=(16, 32))
    optimizer = torch.optim.AdamW(network.parameters(), lr=5e-3)
    frames, mel, y = pairs(128, seed=0)
    for _ in range(60):
        optimizer.zero_grad()
        vision, audio = network(frames, mel)
        cosine_loss(vision, audio, y).backward()
        optimizer.step()
    network.eval()
    frames, mel, y = pairs(128, seed=1)
    with torch.no_grad():
        cosine = torch.cosine_similarity(*network(frames, mel))
    assert float(cosine[y == 1].mean()) > float(cosine[y == 0].mean()) + 0.2


def test_wrong_shape_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\(2, 48, 64, 128\)"):
        FrameSyncNet()(torch.zeros(2, 48, 64, 128), torch.zeros(2, 1, 80, 52))
