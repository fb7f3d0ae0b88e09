"""Clips are cut where something is wrong, and nothing is lost without a row."""

import io
import json
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import av
import numpy as np
import pytest
import soundfile

from datasets.shards.records import ClipRow
from tasks.faces.tracks import Sighting
from tasks.ingest import held_clips
from tasks.ingest.clip_writer import TrackClip, TrackWriter
from tasks.ingest.config import RECORDED, IngestConfig, Tools
from tasks.ingest.frame_facts import frame_facts
from tasks.ingest.held_clips import HeldClip, HeldClips, Members
from tasks.sync.mouth_audio import MouthAudioScorer
from tasks.sync.signals import MAX_LAG, ClipSignals, OffsetScore
from tests.support.mouths import loudness, mouth, sound

SIDE, FRAMES = 64, 200
CONFIG = IngestConfig(resolution=SIDE, min_frames=50, max_clip_frames=250)
NOBODY: Any = None


def picture(index: int) -> np.ndarray:
    """A grey level for each frame, so that its place shows in the clip."""
    return np.full((240, 240, 3), 20 + index, np.uint8)


def encoded(landmarks: np.ndarray) -> TrackClip:
    made: list[TrackClip] = []
    writer = TrackWriter(
        0, resolution=SIDE, min_frames=50, max_frames=250, crf=10, on_clip=made.append
    )
    for index, points in enumerate(landmarks):
        writer.add(Sighting(0, index, points, True), picture(index))
    writer.close()
    (clip,) = made
    return clip


@pytest.fixture(scope="module")
def clip() -> TrackClip:
    return encoded(mouth(loudness(FRAMES + 2 * MAX_LAG, 6)[MAX_LAG:-MAX_LAG]))


def own_sound(late: int = 0) -> np.ndarray:
    return sound(np.roll(loudness(FRAMES + 2 * MAX_LAG, 6), late))


class Fixture:
    """What comes out of clips that are held."""

    def __init__(self, config: IngestConfig = CONFIG) -> None:
        self.good: list[tuple[ClipRow, Members]] = []
        self.refused: list[ClipRow] = []
        self.held = HeldClips(
            config,
            Tools(NOBODY, MouthAudioScorer(), lips=True),
            lambda row, members: self.good.append((row, members)),
            self.refused.append,
        )

    def add(self, clip: TrackClip, audio: np.ndarray, start: int = 25) -> None:
        row = ClipRow(
            "a.mp4",
            f"a-{start:05d}",
            track=0,
            shot=0,
            start_s=start / 25,
            end_s=(start + clip.frames) / 25,
            num_frames=clip.frames,
            scorer="mouth-audio",
        )
        facts = frame_facts(clip.landmarks, audio, None, lips=True)
        self.held.add(HeldClip(row, clip, audio, facts, start))

    def spans(self) -> list[tuple[int, int, str]]:
        """First and last (excluded) frames in the file, and the reason, of all rows."""
        rows = [*(row for row, _ in self.good), *self.refused]
        spans = [(round(row.start_s * 25), round(row.end_s * 25), row.reason) for row in rows]
        return sorted(spans)


def levels(video: bytes) -> list[int]:
    with av.open(io.BytesIO(video), "r") as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    return [round(float(frame[24:40, 24:40].mean())) for frame in frames]


def test_a_good_clip_stays_as_it_is(clip: TrackClip) -> None:
    made = Fixture()
    made.add(clip, own_sound())
    assert made.good == []
    made.held.release(float("inf"))
    assert made.spans() == [(25, 225, "")]
    ((row, members),) = made.good
    assert members["mp4"] == clip.video
    assert (row.clip_id, row.num_frames, row.bad_share) == ("a-00025", FRAMES, 0)
    assert row.worst_second > 0
    assert 1 <= row.offset_uncertainty < 1.5
    facts = json.loads(members["json"])
    assert len(facts["by_second"]) == 8
    assert facts["moved_frames"] == 0, "an offset within its uncertainty is not corrected"


def test_another_voice_is_cut_out_to_the_frame(clip: TrackClip) -> None:
    audio = own_sound()
    edge = (MAX_LAG + 90) * 640
    audio[:edge] = sound(loudness(FRAMES + 2 * MAX_LAG, 77))[:edge]
    made = Fixture()
    made.add(clip, audio)
    made.held.release(float("inf"))
    spans = made.spans()
    assert [reason for *_, reason in spans] == ["other_voice", ""]
    assert spans[0][:2] == (25, spans[1][0])
    assert spans[1][1] == 225
    first = spans[1][0] - 25
    assert abs(first - 90) <= 18
    ((row, members),) = made.good
    assert row.clip_id == f"a-00025-{first:03d}"
    assert row.num_frames == FRAMES - first
    assert row.sync_confidence > 3
    # Pictures, landmarks and sound are those of the same frames.
    assert clip.video is not None
    assert levels(members["mp4"]) == pytest.approx(levels(clip.video)[first:], abs=1)
    assert (np.load(io.BytesIO(members["npy"])) == clip.aligned[first:]).all()
    heard, _ = soundfile.read(io.BytesIO(members["flac"]), dtype="float32")
    assert np.abs(heard - audio[(MAX_LAG + first) * 640 : -MAX_LAG * 640]).max() < 1e-4
    assert made.refused[0].bad_share > 0.8
    assert "0.0 to" in made.refused[0].detail


def test_every_frame_is_in_one_row(clip: TrackClip) -> None:
    audio = own_sound()
    for first, stop in ((60, 100), (130, 170)):
        audio[(MAX_LAG + first) * 640 : (MAX_LAG + stop) * 640] = 0
    made = Fixture()
    made.add(clip, audio)
    made.held.release(float("inf"))
    spans = made.spans()
    assert spans[0][0] == 25
    assert spans[-1][1] == 225
    assert all(one[1] == other[0] for one, other in pairwise(spans))
    reasons = [reason for *_, reason in spans]
    assert reasons[:4] == ["", "no_sound", "too_short", "no_sound"]
    assert all(stop - first >= 50 for first, stop, reason in spans if not reason)
    ids = [row.clip_id for row in [*(row for row, _ in made.good), *made.refused]]
    assert len(set(ids)) == len(ids)


def test_a_stranger_is_scored_as_a_whole(clip: TrackClip) -> None:
    made = Fixture()
    made.add(clip, sound(loudness(FRAMES + 2 * MAX_LAG, 77)))
    made.held.release(float("inf"))
    ((row, _),) = made.good
    assert row.bad_share > 0.5
    assert row.num_frames == FRAMES
    assert np.isfinite(row.sync_confidence)


class Unsure(MouthAudioScorer):
    """Finds an offset that is wrong, and says that it is not sure."""

    def score(self, clips: Sequence[ClipSignals]) -> list[OffsetScore]:
        return [
            replace(each, offset_frames=9.0, confidence=0.1, uncertainty=1.0)
            for each in super().score(clips)
        ]


def test_evidence_frame_by_frame_is_enough_where_the_scorer_is_unsure(clip: TrackClip) -> None:
    made, other = Fixture(), Fixture()
    for each, audio in (
        (made, own_sound()),
        (other, sound(loudness(FRAMES + 2 * MAX_LAG, 77))),
    ):
        each.held.tools = replace(each.held.tools, scorer=Unsure())
        each.add(clip, audio)
        each.held.release(float("inf"))
    ((row, members),) = made.good
    assert row.sync_confidence > MouthAudioScorer.min_confidence
    assert abs(row.av_offset_frames) <= 1
    assert json.loads(members["json"])["moved_frames"] == 0
    ((stranger, _),) = other.good
    assert (stranger.sync_confidence, stranger.av_offset_frames) == (0.1, 9)


@pytest.mark.parametrize(("late", "moved"), [(6, 6), (-4, -4)])
def test_sound_is_moved_by_more_than_the_uncertainty(
    clip: TrackClip, late: int, moved: int
) -> None:
    made, kept = Fixture(), Fixture(replace(CONFIG, offsets=RECORDED))
    for each in (made, kept):
        each.add(clip, own_sound(late))
        each.held.release(float("inf"))
    ((row, members),) = made.good
    assert row.av_offset_frames == pytest.approx(moved, abs=0.5)
    heard, _ = soundfile.read(io.BytesIO(members["flac"]), dtype="float32")
    begin = MAX_LAG * 640 + round(row.av_offset_frames * 640)
    assert np.abs(heard - own_sound(late)[begin : begin + len(heard)]).max() < 1e-4
    ((_, as_recorded),) = kept.good
    assert json.loads(as_recorded["json"])["moved_frames"] == 0


def test_clips_wait_until_their_rivals_are_known(
    clip: TrackClip, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(held_clips, "MAX_HELD", 2)
    made = Fixture()
    starts = [at * FRAMES for at in range(5)]
    for start in starts:
        made.add(clip, own_sound(), start)
    ready = [row.start_s * 25 for row, _ in made.good]
    assert ready == starts[: len(ready)]
    assert 0 < len(ready) < 5
    # Of a track that is not complete, this may be the beginning.
    assert all(row.end_s * 25 <= starts[-1] + FRAMES - CONFIG.reach for row, _ in made.good)
    made.held.release(float("inf"))
    assert [row.start_s * 25 for row, _ in made.good] == starts
