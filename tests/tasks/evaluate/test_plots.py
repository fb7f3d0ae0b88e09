import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tasks.demo.plots import loss_curves, mouth_curves, offset_histogram
from tasks.evaluate.metrics import ClipScores
from tasks.evaluate.plots import contact_sheet, evaluation_page, sheet_frames
from tasks.pages.curves import read_curve
from tasks.registry.metric import metric


def picture(content: bytes) -> np.ndarray:
    from PIL import Image

    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))


def test_a_contact_sheet_shows_the_frames_in_order(tmp_path: Path) -> None:
    red, blue = (np.zeros((20, 16, 16, 3), np.uint8) for _ in range(2))
    red[:, ..., 0] = 255
    blue[10:, ..., 2] = 255
    path = tmp_path / "sheet.png"
    rows = [("clip", "input", sheet_frames(red, 4)), ("clip", "cross", sheet_frames(blue, 4))]
    contact_sheet(path, rows)
    shown = picture(path.read_bytes())
    height, width = shown.shape[:2]
    assert shown[height // 4, width * 3 // 4].tolist() == [255, 0, 0]
    # The second row turns from black to blue half way.
    row = shown[height * 3 // 4]
    assert ((row == (0, 0, 255)).all(1)).argmax() > ((row == (0, 0, 0)).all(1)).argmax()
    again = path.read_bytes()
    contact_sheet(path, rows)
    assert path.read_bytes() == again


def test_a_sheet_keeps_no_video_alive() -> None:
    video = np.arange(100, dtype=np.uint8)[:, None, None, None].repeat(3, 3)
    frames = sheet_frames(video, 4)
    assert frames[:, 0, 0, 0].tolist() == [0, 33, 66, 99]
    assert frames.base is None
    assert frames.nbytes == 4 * 3


def detail(value: float | None) -> ClipScores:
    kinds = ("real", "reconstruction", "cross")
    values: dict[str, float | None] = {"ssim": value, "ssim_mouth": value}
    values |= dict.fromkeys(("flicker", "identity_real", "identity_cross"), value)
    values |= {f"leak_{name}": value for name in ("opening", "moving", "correlation")}
    for name in ("sync_c", "mouth_z", "closure_gap"):
        values |= {f"{name}_{kind}": value for kind in kinds}
    return {"clip_id": "c", "values": values, "distances": dict.fromkeys(kinds, [1.0] * 31)}


@pytest.mark.parametrize("count", [1, 4])
def test_the_page_of_an_evaluation_takes_missing_numbers(tmp_path: Path, count: int) -> None:
    details = [detail(0.5)] * (count - 1) + [detail(None)]
    evaluation_page(tmp_path / "page.png", {"sync_c": metric(1, "judge", 1)}, details)
    assert picture((tmp_path / "page.png").read_bytes()).std() > 0


def test_panels_without_a_value_say_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figures: list[Any] = []

    def kept(figure: Any) -> bytes:
        figures.append(figure)
        return b""

    monkeypatch.setattr("tasks.evaluate.plots.png", kept)
    empty = detail(None)
    empty["distances"] = dict.fromkeys(empty["distances"], [np.nan] * 31)
    why = "clips of 20 frames are too short"
    missing = (
        "sync_c",
        "sync_d",
        "mouth_z",
        "leak_correlation",
        "closure_gap",
        "flicker",
        "identity",
    )
    metrics = {name: metric(np.nan, "judge", 0, why) for name in missing}
    evaluation_page(tmp_path / "page.png", metrics, [empty], "1 TRAINING clip")
    (figure,) = figures
    shown = [" ".join(text.get_text() for text in axis.texts) for axis in figure.axes]
    assert all(text.startswith("no value for any clip") for text in shown)
    assert [why in text for text in shown] == [*[True] * 5, False, True, True]
    assert all(not len(axis.get_xticks()) for axis in figure.axes)
    evaluation_page(tmp_path / "page.png", metrics, [detail(0.5)])
    clips = figures[1].axes[1:]
    assert [list(axis.get_xticks()) for axis in clips] == [[0]] * 7
    assert figure.get_suptitle().startswith("1 TRAINING clip. Judge of sync: judge")


def test_leaks_are_bars_of_each_clip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figures: list[Any] = []

    def kept(figure: Any) -> bytes:
        figures.append(figure)
        return b""

    monkeypatch.setattr("tasks.evaluate.plots.png", kept)
    first, second = detail(0.5), detail(0.25)
    # The second clip has no video in silence.
    second["values"] |= {"leak_opening": None, "leak_moving": None}
    evaluation_page(tmp_path / "page.png", {"sync_c": metric(1, "judge", 1)}, [first, second])
    axis = figures[0].axes[2]
    named = dict(zip([t.get_text() for t in axis.get_legend().texts], axis.containers, strict=True))
    heights = {name: [bar.get_height() for bar in bars] for name, bars in named.items()}
    assert heights["correlation"] == [0.5, 0.25]
    assert heights["opening"][0] == heights["moving"][0] == 0.5
    assert np.isnan([heights["opening"][1], heights["moving"][1]]).all()


def test_curves_are_read_up_to_where_the_run_was_killed(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text(json.dumps({"step": 1, "loss": 2.0}) + "\n" + '{"step": 2, "lo')
    assert read_curve(path) == [{"step": 1, "loss": 2.0}]
    assert read_curve(tmp_path / "absent") == []


def test_plots_are_pictures() -> None:
    points: list[dict[str, float]] = [{"step": 1, "loss": 0.7, "heldout_loss": 0.69}]
    for content in (
        loss_curves({"syncnet": points, "stage1": points}),
        loss_curves({"stage1": []}),
        offset_histogram([1.0, float("nan")]),
        offset_histogram([1, 2, 3], [1, 2, 4]),
        mouth_curves(np.arange(10) / 25, {"a": np.arange(10.0), "b": np.ones(8)}),
    ):
        assert picture(content).std() > 0
