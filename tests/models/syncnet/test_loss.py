"""The cosine loss, its threshold and the accuracy counted with it."""

import math

import pytest
import torch

from models.syncnet.loss import calibrate_threshold, cosine_loss, sync_accuracy


def test_loss_of_known_cosines() -> None:
    vision = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    audio = torch.tensor([[0.6, 0.8], [0.6, 0.8]])
    losses = cosine_loss(vision, audio, torch.tensor([1.0, 0.0]), reduction="none")
    assert losses.tolist() == pytest.approx([-math.log(0.6), -math.log(0.4)], rel=1e-5)
    assert float(cosine_loss(vision, audio, torch.tensor([1.0, 0.0]))) == pytest.approx(
        float(losses.mean())
    )


def test_identical_embeddings_do_not_leave_the_range() -> None:
    embedding = torch.rand(64, 33)
    loss = cosine_loss(embedding, embedding, torch.ones(64, 1))
    assert 0 <= float(loss) < 1e-5


def test_gradient_pulls_positives_together() -> None:
    vision = torch.rand(4, 8, requires_grad=True)
    audio = torch.rand(4, 8)
    cosine_loss(vision, audio, torch.ones(4)).backward()
    assert vision.grad is not None
    moved = vision.detach() - 0.1 * vision.grad
    before = torch.cosine_similarity(vision, audio).mean()
    assert torch.cosine_similarity(moved, audio).mean() > before


def test_half_precision_is_taken() -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = cosine_loss(torch.rand(4, 8).bfloat16(), torch.rand(4, 8), torch.ones(4))
    assert loss.dtype == torch.float32


def test_threshold_parts_what_can_be_parted() -> None:
    cosine = torch.tensor([0.1, 0.2, 0.3, 0.7, 0.8])
    y = torch.tensor([0, 0, 0, 1, 1])
    assert calibrate_threshold(cosine, y) == pytest.approx(0.5)


def test_threshold_errs_least_on_overlapping_classes() -> None:
    generator = torch.Generator().manual_seed(0)
    y = (torch.rand(400, generator=generator) > 0.5).float()
    cosine = 0.3 * torch.randn(400, generator=generator) + 0.4 * y
    best = calibrate_threshold(cosine, y)
    reached = sync_accuracy(cosine, y, best)
    others = [sync_accuracy(cosine, y, float(value)) for value in torch.linspace(-1, 2, 200)]
    assert reached >= max(others)


def test_no_threshold_parts_equal_cosines() -> None:
    cosine, y = torch.tensor([0.4, 0.4, 0.2, 0.4]), torch.tensor([0.0, 1, 1, 1])
    best = calibrate_threshold(cosine, y)
    assert best == pytest.approx(0.3)
    assert calibrate_threshold(torch.full((4,), 0.5), y) == pytest.approx(0.5)


def test_one_class_cannot_be_calibrated() -> None:
    with pytest.raises(ValueError, match="only one kind"):
        calibrate_threshold(torch.rand(4), torch.ones(4))


def test_accuracy_counts_both_kinds() -> None:
    cosine = torch.tensor([0.9, 0.4, 0.6, 0.1])
    y = torch.tensor([1.0, 1.0, 0.0, 0.0])
    assert sync_accuracy(cosine, y) == 0.5
    assert sync_accuracy(cosine, y, threshold=0.7) == 0.75
