"""Overlapping windows over long sequences."""


def window_starts(total: int, length: int, overlap: int) -> list[int]:
    """Where windows begin that cover `total` frames or steps, neighbours sharing >= `overlap`.

    The last one ends with the sequence, so the frames it is used for have their whole past around
    them.
    """
    last = max(0, total - length)
    return [*range(0, last, length - overlap), last]
