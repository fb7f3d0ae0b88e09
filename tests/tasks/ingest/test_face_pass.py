"""One pass over frames: shots and tracks with a detector that reads what was painted."""

import numpy as np
import pytest

from datasets.faces.landmarks import Face
from datasets.media import Picture
from tasks.faces.tracks import MAX_GAP, Sighting
from tasks.ingest.face_pass import FacePass

BLUE = 2


class PaintedFaces:
    """A detector that finds bright blue squares, in place of a network."""

    def __init__(self) -> None:
        self.resets = 0

    def detect(self, image: np.ndarray | Picture) -> list[Face]:
        rgb = Picture.of(image).rgb
        columns = np.flatnonzero((rgb[..., BLUE] > 250).any(axis=0))
        faces = []
        for run in np.split(columns, np.flatnonzero(np.diff(columns) > 1) + 1):
            if len(run):
                box = (float(run[0]), 20.0, float(run[-1]), 60.0)
                faces.append(Face(box, np.full((478, 2), run[0], np.float32)))
        return faces

    def reset(self) -> None:
        self.resets += 1

    def close(self) -> None:
        return None


class Recorder:
    """A writer that notes which frames it was given, by the number painted into them."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, int]] = []
        self.closed = self.discarded = False

    def add(self, sighting: Sighting, image: np.ndarray | Picture) -> None:
        assert not self.closed
        self.seen.append((sighting.index, int(Picture.of(image).rgb[0, 0, 0])))

    def close(self) -> None:
        self.closed = True

    def discard(self) -> None:
        self.discarded = True


def picture(number: int, background: int, *faces: int) -> np.ndarray:
    rgb = np.full((90, 160, 3), background, np.uint8)
    rgb[40:, :, 1] = 255 - background
    for x in faces:
        rgb[20:60, x : x + 40, BLUE] = 255
    rgb[0, 0, 0] = number
    return rgb


class Pass:
    def __init__(self) -> None:
        self.detector = PaintedFaces()
        self.writers: dict[tuple[int, int], Recorder] = {}
        self.work = FacePass(self.detector, self.make)  # type: ignore[arg-type]

    def make(self, track: int, shot: int) -> Recorder:
        self.writers[track, shot] = Recorder()
        return self.writers[track, shot]

    def run(self, frames: list[np.ndarray]) -> None:
        for frame in frames:
            self.work.add(frame)
        self.work.finish()


@pytest.fixture
def made() -> Pass:
    return Pass()


def test_tracks_never_span_a_cut(made: Pass) -> None:
    frames = [picture(i, 40 if i < 15 else 200, 30) for i in range(40)]
    made.run(frames)
    assert [(shot.start, shot.stop) for shot in made.work.shots] == [(0, 15), (15, 40)]
    assert list(made.writers) == [(0, 0), (1, 1)]
    assert made.writers[0, 0].seen == [(i, i) for i in range(15)]
    assert made.writers[1, 1].seen == [(i, i) for i in range(15, 40)]
    assert made.detector.resets == 2
    assert all(writer.closed for writer in made.writers.values())


def test_gaps_are_filled_with_the_frames_themselves(made: Pass) -> None:
    missing = range(10, 10 + MAX_GAP)
    frames = [picture(i, 90) if i in missing else picture(i, 90, 50) for i in range(30)]
    made.run(frames)
    assert list(made.writers) == [(0, 0)]
    assert made.writers[0, 0].seen == [(i, i) for i in range(30)]
    assert made.work.shots[0].faces == 30 - MAX_GAP


def test_two_faces_and_one_that_leaves(made: Pass) -> None:
    frames = [picture(i, 90, 10, *([100] if i < 12 else [])) for i in range(30)]
    made.run(frames)
    first, second = made.writers[0, 0], made.writers[1, 0]
    assert sorted((len(first.seen), len(second.seen))) == [12, 30]


def test_shots_without_faces(made: Pass) -> None:
    made.run([picture(i, 40 if i < 12 else 200, *([30] if i < 12 else [])) for i in range(24)])
    assert [bool(shot.faces) for shot in made.work.shots] == [True, False]


def test_few_frames_are_held(made: Pass) -> None:
    for index in range(50):
        made.work.add(picture(index, 90, 50))
        assert len(made.work._frames) <= 8


def test_no_frames_at_all(made: Pass) -> None:
    made.run([])
    assert made.work.count == 0
    assert made.writers == {}


def test_abandoning_discards_what_is_open(made: Pass) -> None:
    for index in range(10):
        made.work.add(picture(index, 90, 50))
    made.work.abandon()
    assert made.writers[0, 0].discarded


def test_a_file_that_is_one_shot_is_not_searched_for_cuts() -> None:
    """Pictures as different as before and after a cut."""
    for cuts, shots in ((True, 2), (False, 1)):
        made: list[Recorder] = []

        def make(track: int, shot: int, made: list[Recorder] = made) -> Recorder:
            made.append(Recorder())
            return made[-1]

        work = FacePass(PaintedFaces(), make, cuts)  # type: ignore[arg-type]
        for number in range(60):
            work.add(picture(number, 20 if number < 30 else 200, 40))
        work.finish()
        assert len(work.shots) == shots
        assert len(made) == shots
        seen = [frame for each in made for frame, _ in each.seen]
        assert seen == list(range(60))
