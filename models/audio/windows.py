"""Windows over something long."""


def window_starts(total: int, length: int, overlap: int) -> list[int]:
    """Where windows begin that cover `total` frames or steps, neighbours sharing >= `overlap`.

    The last one ends with the whole, so what it is used for has all its past around it.
    """
    last = max(0, total - length)
    return [*range(0, last, length - overlap), last]
