"""Overlapping windows over long sequences, and how their results are put together."""

from collections.abc import Callable

import torch
from torch import Tensor


def window_starts(total: int, length: int, overlap: int) -> list[int]:
    """Where windows begin that cover `total` frames or steps, neighbours sharing >= `overlap`.

    The last one ends with the sequence, so the frames it is used for have their whole past around
    them. Windows no longer than the overlap share all frames but one.
    """
    last = max(0, total - length)
    return [*range(0, last, max(1, length - overlap)), last]


def encode_in_windows(
    encode: Callable[[int, int], Tensor], total: int, length: int, overlap: int, fade: int
) -> Tensor:
    """The results of overlapping windows as one sequence, each fading shortly into the next.

    Args:
        encode: start and stop of a window -> (stop - start, ...).
        total: steps of the sequence.
        length: steps of a window.
        overlap: least steps that neighbours share, so that each has its surroundings there.
        fade: steps in the middle of what two share over which one fades into the other.

    Returns:
        (total, ...).
    """
    starts = window_starts(total, length, overlap)
    found: Tensor | None = None
    weights: Tensor | None = None
    for number, start in enumerate(starts):
        part = encode(start, min(start + length, total))
        place = slice(start, start + len(part))
        before = starts[number - 1] + length - start if number else 0
        after = start + length - starts[number + 1] if start < starts[-1] else 0
        weight = _weight(part, before, after, fade)
        if found is None or weights is None:
            found = part.new_zeros(total, *part.shape[1:])
            weights = part.new_zeros(total, *[1] * (part.ndim - 1))
        found[place] += part * weight
        weights[place] += weight
    assert found is not None
    assert weights is not None
    return found / weights


def _weight(part: Tensor, before: int, after: int, fade: int) -> Tensor:
    """Weight of each step of a window, (steps, 1, ...): from 0 to 1 in the middle of the steps
    that it shares with the window before, and back in those with the window after.

    Args:
        part: the window's result (steps, ...).
        before, after: how many steps it shares with its neighbours; 0 where there is none.
    """
    position = torch.arange(len(part), device=part.device) + 0.5
    weight = torch.ones_like(position)
    for shared, inside in ((before, position), (after, len(part) - position)):
        if shared:
            reach = min(fade, shared)
            rising = (inside - (shared - reach) / 2) / reach
            weight = torch.minimum(weight, rising.clamp(0, 1))
    return weight.reshape(-1, *[1] * (part.ndim - 1))
