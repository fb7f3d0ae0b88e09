"""HDR shown as SDR: the published transfer curves, where lights end up, and the way back."""

from pathlib import Path

import numpy as np
import pytest

from datasets.media import Picture, read_frames
from datasets.media.hdr import HLG, KNEE, PQ, backward, forward, to_sdr
from tests.support.coded_video import flat_frame, stored, write_coded

PQ_SIGNALS = {0.1: 0.0623, 1: 0.1499, 10: 0.2997, 100: 0.5081, 203: 0.5807, 1000: 0.7518}
"""Light in nits and its signal: SMPTE ST 2084; 58 % and 75 % are the levels in ITU-R BT.2408."""
HLG_SIGNALS = {203: 0.75, 1000: 1.0}
"""ITU-R BT.2408: reference white, and the peak of its display."""


def expected(nits: float) -> float:
    """The signal that a light gets, up to paper white."""
    return 0.86 * (nits / 203) ** (1 / 2.4)


def grey(signal: float) -> np.ndarray:
    return np.full((1, 3), signal, np.float32)


@pytest.mark.parametrize("nits", [1, 10, 100, 203])
def test_light_up_to_paper_white_is_only_scaled(nits: float) -> None:
    assert forward(grey(PQ_SIGNALS[nits]), PQ)[0] == pytest.approx([expected(nits)] * 3, abs=2e-3)


def test_hlg_has_its_white_in_the_same_place() -> None:
    assert forward(grey(HLG_SIGNALS[203]), HLG)[0] == pytest.approx([KNEE] * 3, abs=2e-3)
    same = forward(grey(PQ_SIGNALS[1000]), PQ)[0]
    assert forward(grey(HLG_SIGNALS[1000]), HLG)[0] == pytest.approx(same, abs=2e-3)


def test_highlights_are_pressed_together_and_none_is_cut() -> None:
    levels = forward(np.linspace(0, 1, 200)[:, None].repeat(3, 1), PQ)[:, 0]
    assert (np.diff(levels) > 0).all()
    assert levels[-1] == pytest.approx(1, abs=1e-4)
    assert forward(grey(PQ_SIGNALS[1000]), PQ)[0, 0] == pytest.approx(0.98, abs=0.01)


@pytest.mark.parametrize("transfer", [PQ, HLG])
@pytest.mark.parametrize("wide", [True, False])
def test_the_way_back(transfer: int, wide: bool) -> None:
    top = 0.75 if transfer == PQ else 1.0
    signal = np.random.default_rng(0).uniform(0, top, (5000, 3)).astype(np.float32)
    back = backward(forward(signal, transfer, wide), transfer, wide)
    assert np.abs(back - signal).max() < 0.5 / 255


def test_wide_primaries_become_those_of_bt709() -> None:
    """BT.2020's red is out of BT.709's reach: green and blue would have to be below 0."""
    red = forward(np.array([[0.5, 0.0, 0.0]], np.float32), PQ)[0]
    assert red[0] > 0.3
    assert red[1] < 0
    assert red[2] < 0
    light = np.array([0.2, 0.1, 0.05]) / 0.2
    # ITU-R BT.2087's matrix, by hand for one colour.
    linear = np.array(
        [
            1.6605 * light[0] - 0.5876 * light[1] - 0.0728 * light[2],
            -0.1246 * light[0] + 1.1329 * light[1] - 0.0083 * light[2],
            -0.0182 * light[0] - 0.1006 * light[1] + 1.1187 * light[2],
        ]
    )
    signal = [0.5081, 0.4403, 0.3765]  # 100, 50 and 25 nits by ST 2084
    shown = forward(np.array([signal], np.float32), PQ)[0]
    assert shown == pytest.approx(0.86 * (linear * 100 / 203) ** (1 / 2.4), abs=4e-3)


@pytest.mark.parametrize(("transfer", "signal"), [(PQ, 0.5807), (HLG, 0.75)])
@pytest.mark.parametrize("size", [(64, 48), (1280, 720)])
@pytest.mark.parametrize("form", ["yuv420p10le", "yuv420p"])
def test_files_are_read_as_sdr(
    tmp_path: Path, transfer: int, signal: float, size: tuple[int, int], form: str
) -> None:
    values = stored((255 * signal,) * 3, 9, bits=10 if "10" in form else 8)
    frame = flat_frame(values, *size, form)
    path = write_coded(
        tmp_path / "a.mkv", [frame], matrix=9, full=False, transfer=transfer, primaries=9
    )
    picture = next(read_frames(path)).picture
    assert picture.colours.is_hdr
    for rgb in (picture.piece((8, 8, 20, 20)).rgb, picture.small(), picture.rgb):
        # A number of 8 bits stands for two levels there.
        near = 2 if "10" in form else 4
        assert np.abs(rgb.astype(int) - round(255 * 0.86)).max() <= near


def test_a_face_is_neither_flat_nor_dark() -> None:
    """Skin of 100 nits in light of 203 nits is seen as in an SDR picture."""
    frame = flat_frame(stored((255 * 0.5081,) * 3, 9, bits=10), 64, 48, "yuv420p10le")
    frame.colorspace, frame.color_trc, frame.color_primaries = 9, 16, 9
    level = float(Picture(frame).rgb.mean())
    assert level == pytest.approx(255 * expected(100), abs=2)
    assert level > 255 * 0.5081 + 30


def test_numbers_in_16_bits_are_those_in_floats() -> None:
    rng = np.random.default_rng(1)
    signal = rng.uniform(0, 0.8, (40, 50, 3))
    whole = to_sdr(np.rint(signal * 65535).astype(np.uint16), PQ)
    single = np.clip(np.rint(255 * forward(signal, PQ)), 0, 255)
    assert np.abs(whole.astype(int) - single).max() <= 1
