from pathlib import Path

import numpy as np
import pytest

from datasets.errors import Reason, SourceError, UserError
from tasks.lipsync import choice as module
from tasks.lipsync.choice import Face, choose_person, parse_face
from tasks.lipsync.face_scan import FaceTrack, VideoScan
from tests.support.mouths import loudness, mouth, sound
from tests.support.tracks_of_faces import face_track

VIDEO = Path("v.mp4")
FRAMES = 250


@pytest.fixture
def two_people() -> tuple[VideoScan, np.ndarray]:
    """A large one who listens, on the left, and a small one who speaks; and what is heard."""
    speech = loudness(FRAMES, 1)
    tracks = [
        face_track(mouth(loudness(FRAMES, 2), 3), x=100, size=200),
        face_track(mouth(speech, 4), x=500, size=60),
    ]
    return scan_of(tracks), sound(speech, 5)


def scan_of(tracks: list[FaceTrack]) -> VideoScan:
    return VideoScan(
        np.arange(FRAMES) / 25, FRAMES / 25, 60.0, [0] * FRAMES, tracks, [[0], [1]][: len(tracks)]
    )


def hear(monkeypatch: pytest.MonkeyPatch, wave: np.ndarray) -> None:
    monkeypatch.setattr(module, "read_audio", lambda *_, **__: wave)


@pytest.mark.parametrize(
    ("text", "face"),
    [
        ("auto", Face("auto")),
        ("largest", Face("largest")),
        ("2", Face("number", number=2)),
        ("320,180@2.5", Face("point", x=320, y=180, at_s=2.5)),
        ("320, 180.5 @ 2", Face("point", x=320, y=180.5, at_s=2)),
    ],
)
def test_faces_are_named_in_four_ways(text: str, face: Face) -> None:
    assert parse_face(text) == face


@pytest.mark.parametrize("text", ["", "0", "-1", "left", "1,2", "1,2@", "1.2.3,4@5", "²"])
def test_other_names_are_refused(text: str) -> None:
    with pytest.raises(UserError, match="--face must be auto, largest, a point such as"):
        parse_face(text)


def test_who_speaks_is_chosen_though_another_face_is_larger(
    two_people: tuple[VideoScan, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    scan, wave = two_people
    hear(monkeypatch, wave)
    chosen = choose_person(scan, parse_face("auto"), VIDEO)
    assert (chosen.person, chosen.among) == (1, 2)
    assert chosen.note.startswith("2 people were seen: number 2 was repainted, who speaks for 10.0")
    assert choose_person(scan, parse_face("largest"), VIDEO).person == 0


def test_the_largest_is_so_by_its_area_and_not_by_how_often_it_is_seen() -> None:
    often = face_track(mouth(loudness(FRAMES, 2), 3), x=500, size=60)
    large = face_track(mouth(loudness(100, 1), 4), x=100, size=200)
    assert choose_person(scan_of([often, large]), parse_face("largest"), VIDEO).person == 1
    # A glimpse of a large face does not outweigh one that is there all the time.
    glimpse = face_track(mouth(loudness(15, 1), 4), x=100, size=200)
    assert choose_person(scan_of([often, glimpse]), parse_face("largest"), VIDEO).person == 0


def test_without_a_speaker_the_largest_is_chosen_and_it_is_said(
    two_people: tuple[VideoScan, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    scan, _ = two_people
    hear(monkeypatch, sound(loudness(FRAMES, 9), 9))
    chosen = choose_person(scan, parse_face("auto"), VIDEO)
    assert chosen.person == 0
    assert "nobody's lips clearly follow the video's own sound" in chosen.note

    def silent(*_: object, **__: object) -> np.ndarray:
        raise SourceError(Reason.NO_AUDIO, "no audio stream")

    monkeypatch.setattr(module, "read_audio", silent)
    chosen = choose_person(scan, parse_face("auto"), VIDEO)
    assert chosen.person == 0
    assert "the video has no sound" in chosen.note


def test_one_person_alone_is_not_worth_a_word(two_people: tuple[VideoScan, np.ndarray]) -> None:
    scan = scan_of(two_people[0].tracks[1:])
    chosen = choose_person(scan, parse_face("auto"), VIDEO)
    assert (chosen.person, chosen.note) == (0, "")


def test_a_number_and_a_point_choose_the_same_person(
    two_people: tuple[VideoScan, np.ndarray],
) -> None:
    scan, _ = two_people
    assert choose_person(scan, parse_face("2"), VIDEO).person == 1
    box = scan.tracks[1].boxes[50]
    inside = f"{(box[0] + box[2]) / 2:.0f},{(box[1] + box[3]) / 2:.0f}@2"
    assert choose_person(scan, parse_face(inside), VIDEO).person == 1
    near = f"{box[2] + 0.3 * (box[2] - box[0]):.0f},{box[1]:.0f}@2"
    assert choose_person(scan, parse_face(near), VIDEO).person == 1


@pytest.mark.parametrize(
    ("face", "said"),
    [
        ("3", "--face 3: only 2 people were seen in the part of the video that is shown"),
        ("5000,50@2", "there is no face; at that moment there is number 1 at"),
        ("500,50@11", "only 10.00 s of the video are shown, choose an earlier moment"),
    ],
)
def test_nobody_there_is_a_sentence_with_what_is(
    face: str, said: str, two_people: tuple[VideoScan, np.ndarray]
) -> None:
    with pytest.raises(UserError) as error:
        choose_person(two_people[0], parse_face(face), VIDEO)
    assert said in str(error.value)
