import io

import numpy as np
import pytest

from tasks.publish.card_plots import histogram
from tasks.publish.card_scores import Distribution


def distribution(accepted: list[int], refused: list[int], log: bool = False) -> Distribution:
    edges = np.geomspace(1, 100, 5) if log else np.linspace(0, 4, 5)
    return Distribution(
        name="face_px",
        title="Face size",
        unit="pixels",
        edges=tuple(float(edge) for edge in edges),
        accepted=tuple(accepted),
        refused=tuple(refused),
        limits=(2.0,),
        outside=0,
        unmeasured=0,
        quantiles_accepted=None,
        quantiles_refused=None,
        log=log,
    )


def shares(content: bytes) -> tuple[float, float]:
    """How much of the picture is blue and how much orange."""
    from PIL import Image

    pixels = np.asarray(Image.open(io.BytesIO(content)).convert("RGB")).astype(int)
    blue = (np.abs(pixels - (0x2F, 0x6F, 0xDE)).sum(-1) < 12).mean()
    orange = (np.abs(pixels - (0xE0, 0x70, 0x2F)).sum(-1) < 12).mean()
    return float(blue), float(orange)


@pytest.mark.parametrize("log", [False, True])
def test_areas_are_in_proportion_to_counts(log: bool) -> None:
    blue, orange = shares(histogram(distribution([30, 60, 0, 30], [10, 20, 0, 10], log)))
    assert blue / orange == pytest.approx(3, rel=0.15)
    # The legend is all that is left of a kind that is not there.
    assert shares(histogram(distribution([0] * 4, [5] * 4)))[0] < 0.01
    assert shares(histogram(distribution([5] * 4, [0] * 4)))[1] < 0.01


def test_equal_distributions_are_equal_bytes() -> None:
    first, second = (histogram(distribution([1, 2, 3, 4], [4, 3, 2, 1])) for _ in range(2))
    assert first == second
    assert b"Matplotlib" not in first
    assert histogram(distribution([0] * 4, [0] * 4)) != first
