"""The loss and accuracy of a sync network (LatentSync, section 3.3)."""

import torch
from torch.nn import functional as F


def cosine_loss(
    vision: torch.Tensor, audio: torch.Tensor, y: torch.Tensor, reduction: str = "mean"
) -> torch.Tensor:
    """Binary cross-entropy on the cosine similarity of non-negative embeddings.

    Args:
        vision: (b, d).
        audio: (b, d).
        y: (b,) or (b, 1); 1 where the two belong together, 0 where they do not.
        reduction: "mean", "sum" or "none" (then (b,)).

    Returns:
        The loss; ln 2 = 0.693 is that of a network that knows nothing.
    """
    # Autocast refuses a cross-entropy of probabilities in half precision.
    with torch.autocast(vision.device.type, enabled=False):
        cosine = F.cosine_similarity(vision.float(), audio.float()).clamp(0.0, 1.0)
        return F.binary_cross_entropy(cosine, y.reshape(-1).to(cosine), reduction=reduction)


def calibrate_threshold(cosine: torch.Tensor, y: torch.Tensor) -> float:
    """The cosine that separates positives from negatives with the fewest errors.

    To be computed on training clips and then used on others. Among equally good thresholds
    the middle of the widest gap is taken.

    Args:
        cosine: (n,).
        y: (n,) 0 or 1, at least one of each.

    Raises:
        ValueError: a class is missing.
    """
    labels = y.reshape(-1) > 0.5
    if labels.all() or not labels.any():
        raise ValueError("calibration needs positive and negative pairs, got only one kind")
    values, order = cosine.detach().reshape(-1).double().sort()
    positive = labels[order].double()
    # Candidate k calls the k lowest values negative.
    right = torch.cat([positive.new_zeros(1), (1 - positive).cumsum(0)]) + torch.cat(
        [positive.flip(0).cumsum(0).flip(0), positive.new_zeros(1)]
    )
    gaps = values.diff()
    # No threshold separates equal values.
    inner = torch.where(gaps > 0, right[1:-1], -1.0)
    best = int(torch.where(inner == inner.max(), gaps, -1.0).argmax())
    return float((values[best] + values[best + 1]) / 2)


def sync_accuracy(cosine: torch.Tensor, y: torch.Tensor, threshold: float = 0.5) -> float:
    """Share of pairs on the right side of the threshold (0.5 is the paper's)."""
    return float(((cosine.reshape(-1) > threshold) == (y.reshape(-1) > 0.5)).double().mean())
