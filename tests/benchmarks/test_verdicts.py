"""The benchmark of verdicts counts what is published against what is known."""

from pathlib import Path
from typing import cast

import numpy as np
import pytest

from benchmarks.verdict_cases import (
    KINDS,
    LEAST_BAD,
    LEAST_GOOD,
    STILL_FRAMES,
    Case,
    Face,
    Maker,
    Person,
    quietest,
)
from benchmarks.verdicts import figures, judge, runs, whose
from datasets.shards.records import ClipRow, LedgerRow
from tests.support.mouths import loudness, mouth, sound

FRAMES = 150


class Painted(Person):
    """Somebody whose pictures are numbered by their grey level."""

    def pictures(self) -> list[np.ndarray]:
        return [np.full((60, 80, 3), index, np.uint8) for index in range(self.frames)]


def people() -> list[Person]:
    made: list[Person] = []
    for seed in range(3):
        curve = loudness(FRAMES, seed)
        landmarks = mouth(curve, seed)
        made.append(Painted(f"p{seed}", Path("none.mp4"), landmarks, sound(curve, seed), 1.0))
    return made


def row(start: int, stop: int, verdict: str = "accepted", face_px: float = 100.0) -> LedgerRow:
    made = ClipRow("a.mp4", "a", start_s=start / 25, end_s=stop / 25, verdict=verdict)
    made.face_px = face_px
    return made.as_row()


def case(*faces: Face) -> Case:
    return Case("kind", "", [np.zeros((4, 4, 3), np.uint8)] * FRAMES, np.zeros(0), list(faces))


def test_bad_and_good_frames_are_counted() -> None:
    half = case(Face(0, FRAMES, ((0, 70),)))
    outcome = judge(half, 1, [row(60, 150)], shortest=50)
    assert (outcome.bad_frames, outcome.bad_published, outcome.longest_bad) == (70, 10, 10)
    assert (outcome.good_frames, outcome.good_lost) == (80, 0)
    refused = judge(half, 1, [row(60, 150, "rejected")], shortest=50)
    assert (refused.bad_published, refused.good_lost) == (0, 80)
    assert judge(half, 1, [row(60, 150)], shortest=90).good_frames == 0
    total = figures([outcome, refused])
    assert total["bad_share_published"] == pytest.approx(10 / 140)
    assert total["good_share_lost"] == pytest.approx(80 / 160)
    assert total["longest_bad_s"] == 0.4


def test_faces_are_told_apart_by_time_and_size() -> None:
    small, large = Face(0, FRAMES, face_px=80.0), Face(0, FRAMES, face_px=100.0)
    assert whose([small, large], 0, 50, 97.0) == 1
    assert whose([small, large], 0, 50, 82.0) == 0
    assert whose([Face(0, 60, face_px=100.0), Face(60, FRAMES)], 70, 120, 100.0) == 1
    turns = case(
        Face(0, FRAMES, ((75, 150),), face_px=80.0), Face(0, FRAMES, ((0, 75),), face_px=100.0)
    )
    rows = [row(0, 75, face_px=81.0), row(75, 150, face_px=99.0)]
    outcome = judge(turns, 1, rows, shortest=50)
    assert (outcome.bad_published, outcome.good_lost) == (0, 0)
    assert judge(turns, 1, rows[:1], shortest=50).good_lost == 75


@pytest.mark.parametrize("kind", KINDS)
def test_a_case_is_drawn_by_its_seed_and_has_its_truth(kind: str) -> None:
    maker = Maker(people())
    for seed in range(3):
        made, again = maker.make(kind, seed), Maker(people()).make(kind, seed)
        assert made.kind == kind
        assert made.about == again.about
        assert np.array_equal(made.sound, again.sound)
        assert all((a == b).all() for a, b in zip(made.pictures, again.pictures, strict=True))
        frames = len(made.pictures)
        assert len(made.sound) == frames * 640
        assert len({picture.shape for picture in made.pictures}) == 1
        bad = [face.is_bad(frames) for face in made.faces]
        lengths = [stop - first for each in bad for first, stop in runs(each)]
        assert all(length >= LEAST_BAD for length in lengths)
        assert bool(lengths) is (kind != "clean")
        if len(made.faces) == 2 and kind != "cut":
            assert (bad[0] | bad[1]).all(), "never do both speak"
        if kind in ("voice-over", "dropout", "frozen", "still lips"):
            assert (~bad[0]).sum() >= LEAST_GOOD


def test_what_is_wrong_is_where_it_is_said() -> None:
    maker = Maker(people())
    silent = maker.make("dropout", 1)
    ((first, stop),) = silent.faces[0].bad
    quiet = np.square(silent.sound.reshape(-1, 640)).mean(axis=1) == 0
    assert quiet[first:stop].all()
    frozen = maker.make("frozen", 1)
    ((first, stop),) = frozen.faces[0].bad
    assert len({int(picture[0, 0, 0]) for picture in frozen.pictures[first:stop]}) == 1
    still = maker.make("still lips", 1)
    ((first, stop),) = still.faces[0].bad
    shown = [int(picture[0, 0, 0]) for picture in still.pictures[first:stop]]
    assert max(shown) - min(shown) == STILL_FRAMES - 1
    assert np.abs(np.diff(shown)).max() == 1


def test_the_quietest_frames_are_found() -> None:
    landmarks = mouth(loudness(FRAMES, 1))
    landmarks[:, [14, 87, 317, 178, 402], 1] += np.where(np.arange(FRAMES) % 2, 8.0, 0.0).astype(
        np.float32
    )[:, None]
    landmarks[60:80] = landmarks[60]
    assert 60 <= quietest(landmarks) <= 70


def test_rows_need_a_known_verdict() -> None:
    broken = cast(LedgerRow, {**row(0, 60), "verdict": "duplicate"})
    assert judge(case(Face(0, FRAMES)), 1, [broken], shortest=50).good_lost == FRAMES
