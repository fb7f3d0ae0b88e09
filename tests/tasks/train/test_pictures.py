"""Pictures on a device: what `Colours.apply` makes of the same bytes."""

import numpy as np
import torch

from tasks.train.augment import PLAIN, draw_colours
from tasks.train.pictures import Pictures

CPU = torch.device("cpu")


def test_colours_are_those_of_each_window() -> None:
    rng = np.random.default_rng(3)
    windows = [rng.integers(0, 256, (4, 6, 8, 3), np.uint8) for _ in range(6)]
    colours = [draw_colours(rng, 1.0) for _ in range(5)] + [PLAIN]
    orders = {each.channels for each in colours}
    assert len(orders) > 2
    made = Pictures.of(windows, colours)
    shown = made.to(CPU)
    assert shown.shape == (6, 4, 3, 6, 8)
    for each, window, known in zip(shown, windows, colours, strict=True):
        assert torch.equal(each, torch.from_numpy(known.apply(window)))
    assert len(made) == 6
    assert torch.equal(made.part(2, 5).to(CPU), shown[2:5])


def test_plain_colours_are_the_bytes_from_minus_one_to_one() -> None:
    levels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1).repeat(3, 3)
    shown = Pictures.of([levels], [PLAIN]).to(CPU)[0, 0]
    expected = torch.linspace(-1, 1, 256).view(16, 16).expand(3, 16, 16)
    torch.testing.assert_close(shown, expected)
