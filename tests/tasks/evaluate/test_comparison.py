"""What is told of several models: sure differences, and clips where one of them fails."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from datasets.errors import UserError
from datasets.media import SAMPLES_PER_FRAME, probe, read_audio, read_frames
from tasks.evaluate.clip_stage import write_video
from tasks.evaluate.comparison import paired_differences, rank_clips, read_models
from tasks.evaluate.comparison_page import FACTS, PAGE, short_names, write_comparison
from tasks.evaluate.measurement import MODEL, ClipRecord, Labels, Measurement
from tasks.evaluate.side_by_side import SIDE, side_by_side
from tasks.evaluate.strata import stratify
from tasks.evaluate.summary import STATISTICS, summarise
from tasks.evaluate.table import MEASUREMENTS, write_measurements
from tests.support.fake_bundle import whole_evaluation

LABELS = Labels("judge <by us>", "judge", "lpips", "mouth", "")
CLIPS, FRAMES = 12, 10
HARD = np.linspace(0, 5, CLIPS)
"""How hard each clip is, for every model alike."""


def write_model(
    folder: Path, loss: float, seed: int, protocol: str = "p" * 32, level: int = 100
) -> Path:
    """An evaluation whose numbers are how hard the clips are, a loss, and little noise."""
    noise = 0.05 * np.random.default_rng(seed).standard_normal(CLIPS)
    records = []
    for clip in range(CLIPS):
        values = {number: 9 - HARD[clip] - loss + noise[clip] for number, _ in STATISTICS.values()}
        values["psnr_db"] = math.nan if clip else 30.0
        found = {MODEL: Measurement(values, {}, {}, {}, {})}
        records.append(ClipRecord(f"clip{clip}", f"speaker{clip // 2}", LABELS, found))
        video = np.full((FRAMES, 64, 64, 3), level + clip, np.uint8)
        sound = np.full(FRAMES * SAMPLES_PER_FRAME, 0.1, np.float32)
        (folder / "cross").mkdir(parents=True, exist_ok=True)
        write_video(folder / "cross" / f"clip{clip}.mp4", video, sound, folder / "sound.flac")
    speakers = [each.speaker for each in records]
    summary = summarise(LABELS, speakers, [r.models[MODEL] for r in records], "", "cross")
    content = whole_evaluation(
        summary.of_clips(),
        protocol_digest=protocol,
        strata=stratify(records, {"clip1": {"language": "<b>en</b>"}}, "", "cross"),
        clips=[each.clip_id for each in records],
        warnings=["beware of <dogs>"],
    )
    (folder / "evaluation.json").write_text(json.dumps(content))
    write_measurements(folder / MEASUREMENTS, records, {})
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("models")
    return {
        "good": write_model(place / "good", 0, 1),
        "same": write_model(place / "same", 0, 2),
        "<worse>": write_model(place / "worse", 0.3, 3, level=180),
    }


def test_small_differences_are_sure_where_both_find_the_same_clips_hard(
    folders: dict[str, Path],
) -> None:
    good, same, worse = read_models(folders)
    found = {each.metric: each for each in paired_differences(good, worse)}
    entry = found["sync_c"].entry
    assert entry["value"] == pytest.approx(-0.3, abs=0.05)
    assert entry["low"] < -0.2 < -0.1 < 0
    assert entry["high"] < -0.2
    assert entry["n"] == CLIPS
    # By their own intervals nothing could be said.
    ours, theirs = (each.evaluation["metrics"]["sync_c"] for each in (good, worse))
    assert ours["low"] < theirs["high"]
    assert found["sync_c"].verdict == "worse"
    assert found["sync_d"].verdict == "better"
    assert found["flicker"].verdict == ""
    assert not any(name.endswith("_real") for name in found)
    equal = {each.metric: each.verdict for each in paired_differences(good, same)}
    assert equal["sync_c"] == equal["mouth_z"] == "undecided"
    # Only one clip has it: a difference, and no interval.
    assert found["psnr_db"].entry["n"] == 1
    assert found["psnr_db"].verdict == "undecided"


def test_clips_are_ranked_by_the_worst_of_any_model(folders: dict[str, Path]) -> None:
    models = read_models(folders)
    metric, ranked = rank_clips(models)
    assert metric == "sync_c"
    assert [clip for clip, _ in ranked] == [f"clip{number}" for number in range(CLIPS)][::-1]
    assert ranked[0][1] == [model.rows["clip11"]["sync_c_cross"] for model in models]
    rows: Any = {clip: dict(values) for clip, values in models[2].rows.items()}
    for values in rows.values():
        values["sync_c_cross"] = math.nan
    rows["clip3"]["sync_c_cross"] = 7.0
    models[2].rows.update(rows)  # type: ignore[attr-defined]
    # A clip without a number is worst.
    assert rank_clips(models)[1][-1][0] != "clip0"
    for model in models:
        for values in model.rows.values():
            values |= {"sync_c_cross": math.nan, "mouth_z_cross": math.nan}  # type: ignore[operator]
    assert rank_clips(models)[0] == "ssim_mouth"


def test_models_that_were_not_evaluated_alike_are_not_compared(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    other = write_model(tmp_path / "other", 0, 1, protocol="q" * 32)
    with pytest.raises(UserError, match="good and other were not evaluated on the same clips"):
        read_models({"good": folders["good"], "other": other})
    with pytest.raises(UserError, match="does not hold an evaluation"):
        read_models({"good": folders["good"], "none": tmp_path / "none"})
    (other / MEASUREMENTS).unlink()
    with pytest.raises(UserError, match="is not the table of an evaluation"):
        read_models({"other": other})


def test_videos_stand_side_by_side_with_the_firsts_sound(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    short = tmp_path / "short.mp4"
    large = np.full((4, 300, 300, 3), 20, np.uint8)
    large[-1] = 250
    write_video(short, large, np.zeros(4 * SAMPLES_PER_FRAME, np.float32), tmp_path / "s.flac")
    path = tmp_path / "both.mp4"
    first = folders["good"] / "cross" / "clip0.mp4"
    path.write_bytes(side_by_side([first, short]))
    about = probe(path)
    assert (about.width, about.height) == (128, 64)
    shown = [frame.rgb for frame in read_frames(path)]
    assert len(shown) == FRAMES
    assert abs(float(shown[0][:, :60].mean()) - 100) < 4
    assert abs(float(shown[0][:, 70:].mean()) - 20) < 4
    # What has ended stands still.
    assert abs(float(shown[-1][:, 70:].mean()) - 250) < 4
    assert np.abs(read_audio(path)).max() > 0.05
    alone = tmp_path / "alone.mp4"
    alone.write_bytes(side_by_side([short]))
    assert probe(alone).height == SIDE
    with pytest.raises(UserError, match="cannot be shown"):
        side_by_side([first, tmp_path / "absent.mp4"])


def test_the_page_holds_everything_and_escapes_it(folders: dict[str, Path], tmp_path: Path) -> None:
    facts = write_comparison(tmp_path, read_models(folders))
    assert json.loads((tmp_path / FACTS).read_text()) == facts
    assert facts["differences"]["<worse>"]["sync_c"]["verdict"] == "worse"
    page = (tmp_path / PAGE).read_text()
    assert page.count("data:video/mp4;base64,") == 8
    assert "http" not in page.replace("http-equiv", "")
    for text in ("&lt;worse&gt; against good", "beware of &lt;dogs&gt;", "&lt;b&gt;en&lt;/b&gt;"):
        assert text in page
    for text in ("<worse>", "<b>", "<dogs>", "<by us>", "<script"):
        assert text not in page
    # Worst first.
    assert page.index("clip11: sync_c") < page.index("clip10: sync_c") < page.index("clip4: sync_c")
    assert "clip3: sync_c" not in page


@pytest.mark.parametrize(
    ("names", "short"),
    [
        (["good", "worse"], ["good", "worse"]),
        (["models:/latentsync/3", "models:/latentsync/4"], None),
        (
            ["/a/long/place/runs/train/evaluation", "/a/long/place/runs/worse/evaluation"],
            ["train", "worse"],
        ),
        (
            ["/a/long/place/runs/train/evaluation", "s3://bucket/models/of/others/bundle"],
            ["/a/long/place/runs/train/evaluation", "s3://bucket/models/of/others/bundle"],
        ),
        (["/a/long/place/for/runs/one", "/a/long/place/for/runs/one/two"], ["one", "one/two"]),
        (["/a/long/place/for/runs/one/", "/a/long/place/for/runs/two"], ["one", "two"]),
        (
            ["/long/place/x/1/of/bundle", "/long/place/y/1/of/bundle", "/long/place/x/2/of/bundle"],
            ["x/1", "y/1", "x/2"],
        ),
    ],
)
def test_models_go_by_what_tells_them_apart(names: list[str], short: list[str] | None) -> None:
    assert short_names(names) == (short or names)
