"""Clips of a file between being encoded and being handed on: judged together, cut, scored.

They are held until it is known what else is seen and heard at their time. The good stretches of
each become clips of their own, and every other frame is in a row with its reason. A stretch is cut
out of the encoded clip (`datasets.media.trim`), of which at most half a second before a key frame
is encoded again: pictures, landmarks and sound keep to the same frames.
"""

import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from datasets.errors import Reason
from datasets.media import FPS, SAMPLE_RATE, SAMPLES_PER_FRAME
from datasets.media.audio import flac_bytes
from datasets.media.trim import Trimmed, trim
from datasets.shards.records import ClipRow
from models.latentsync.config import MASK
from tasks.ingest.clip_writer import TrackClip, encode_faces
from tasks.ingest.config import CORRECTED, IngestConfig, Tools
from tasks.ingest.frame_facts import SPEECH, FrameFacts, same
from tasks.ingest.stretches import Judged, SharedLag, judge
from tasks.sync.pooling import LEAST_JUMP, OffsetPool, correction, name_drift
from tasks.sync.signals import MAX_LAG, ClipSignals, OffsetScore

MAX_HELD, MAX_HELD_WITH_FACES = 16, 4
"""Clips that are held at most before some are judged: about 4 MB each, and 50 MB with the faces
that some scorers look at."""
SURE = 1.5
"""Nats of evidence for the file's offset, less what that offset costs, that count as the least
confidence of a scorer."""
STAGE = "seconds"
TOGETHER = 0.5
"""A clip of which a larger share does not belong to the sound says nothing of its file's offset."""
FACTS = (
    "clip_id",
    "path",
    "speaker",
    "num_frames",
    "start_s",
    "end_s",
    "av_offset_frames",
    "offset_uncertainty",
    "sync_confidence",
    "scorer",
    "bad_share",
    "worst_second",
    "speech_share",
    "language",
)
"""Columns that a clip's json takes from its row."""
DETAILS = {
    Reason.OTHER_VOICE: "these lips do not follow what is heard",
    Reason.NOT_THE_SPEAKER: "another face follows what is heard",
    Reason.NO_SOUND: "nothing is heard",
    Reason.STILL_LIPS: "somebody speaks, and the lips are still",
    Reason.UPSIDE_DOWN: "the face hangs upside down",
    Reason.FROZEN: "the picture stands still",
}

Members = Mapping[str, bytes]
"""Files of a clip by suffix: mp4, flac, npy, json."""


@dataclass(eq=False)
class HeldClip:
    """A clip with what is needed to cut and score it."""

    row: ClipRow
    clip: TrackClip
    sound: np.ndarray
    """float32 ((t + 30) * 640,), from 15 frames before the first one on."""
    facts: FrameFacts
    start: int
    """Its first frame in the file."""


@dataclass(frozen=True)
class _Piece:
    """A stretch of a clip: frames `first` to before `stop` of it."""

    held: HeldClip
    judged: Judged
    first: int
    stop: int
    video: bytes
    row: ClipRow

    def signals(self) -> ClipSignals:
        clip, part = self.held.clip, slice(self.first, self.stop)
        faces = None if clip.faces is None else clip.faces[part]
        return ClipSignals(clip.landmarks[part], self.sound(0), faces)

    def sound(self, late: float) -> np.ndarray:
        """Its sound if that is `late` frames late."""
        begin = (MAX_LAG + self.first) * SAMPLES_PER_FRAME + round(late * SAMPLES_PER_FRAME)
        return self.held.sound[begin : begin + (self.stop - self.first) * SAMPLES_PER_FRAME]


class HeldClips:
    """Holds the clips of a file until they can be judged.

    Args:
        config: configuration of the clips.
        tools: the loaded tools.
        hand_on: takes every clip that is good, with its files, in order of time.
        refuse: takes the row of everything that was cut out.
    """

    def __init__(
        self,
        config: IngestConfig,
        tools: Tools,
        hand_on: Callable[[ClipRow, Members], None],
        refuse: Callable[[ClipRow], None],
    ) -> None:
        self.config, self.tools = config, tools
        self.hand_on, self.refuse = hand_on, refuse
        self._held: list[HeldClip] = []
        self._sure: list[tuple[ClipRow, float, OffsetScore]] = []
        """Clips that are sure of their own offset, with their times."""
        self._lag = SharedLag()
        self._pool = OffsetPool(tools.scorer.min_confidence if tools else 0.0)

    def add(self, held: HeldClip) -> None:
        """Take a clip; some that end long before it may be handed on."""
        self._lag.add(held.facts)
        self._held.append(held)
        if len(self._held) > (MAX_HELD_WITH_FACES if self.tools.need_faces else MAX_HELD):
            self.release(held.row.end_s - self.config.reach / FPS)

    def release(self, before_s: float) -> None:
        """Judge and hand on the clips that end by then, all of whose rivals are known."""
        ready = sorted(
            (each for each in self._held if each.row.end_s <= before_s),
            key=lambda each: (each.row.end_s, each.row.track),
        )
        # Those that are not complete may speak at the same time, but begin after it.
        judged = [
            Judged(
                each.row.track,
                each.start,
                each.row.face_px,
                each.facts,
                self.config.min_frames,
            )
            for each in self._held
        ]
        judge(judged, self._lag, self.config.face_choice)
        by_clip = {id(each): about for each, about in zip(self._held, judged, strict=True)}
        self._held = [each for each in self._held if each.row.end_s > before_s]
        pieces = [piece for each in ready for piece in self._cut(each, by_clip[id(each)])]
        # One by one: a network's faces of many clips would not fit into memory.
        scores = [self.tools.scorer.score([piece.signals()])[0] for piece in pieces]
        for piece, score in zip(pieces, scores, strict=True):
            if not piece.row.bad_share > TOGETHER:
                self._pool.add(score, piece.stop - piece.first)
        for piece, score in zip(pieces, scores, strict=True):
            self._finish(piece, score)
        if not self._held and (drifts := name_drift([each[1:] for each in self._sure])):
            for row, _, _ in self._sure:
                row.detail = row.detail or drifts

    def _cut(self, held: HeldClip, judged: Judged) -> list[_Piece]:
        """The good stretches of a clip; the others go to `refuse`."""
        frames, video = held.clip.frames, held.clip.video
        assert video is not None
        whole = [Reason.NONE] * frames
        if judged.strange and Reason.NOT_THE_SPEAKER not in judged.reasons:
            return [self._piece(held, judged, 0, frames, video)]
        pieces = []
        named = list(judged.reasons)
        for first, stop in same(judged.reasons):
            if judged.reasons[first]:
                continue
            if stop - first == frames:
                return [self._piece(held, judged, 0, frames, video)]
            found = (
                self._trim(video, first, stop) if stop - first >= self.config.min_frames else None
            )
            if found is None or found.stop - found.first < self.config.min_frames:
                named[first:stop] = [Reason.TOO_SHORT] * (stop - first)
                continue
            # What could not be cut off exactly belongs to what was cut.
            named[first : found.first] = [named[first - 1]] * (found.first - first)
            after = named[stop] if stop < frames else Reason.TOO_SHORT
            named[found.stop : stop] = [after] * (stop - found.stop)
            pieces.append(self._piece(held, judged, found.first, found.stop, found.video))
        assert len(named) == len(whole)
        for first, stop in same(named):
            if named[first]:
                self._refuse(held, judged, first, stop, named[first])
        return pieces

    def _trim(self, video: bytes, first: int, stop: int) -> Trimmed | None:
        def encode(faces: Sequence[np.ndarray]) -> bytes:
            return encode_faces(faces, self.config.resolution, self.config.crf)

        return trim(video, first, stop, encode)

    def _refuse(
        self, held: HeldClip, judged: Judged, first: int, stop: int, reason: Reason
    ) -> None:
        row = self._row(held, judged, first, stop)
        row.reason, row.stage = reason.value, STAGE
        seconds = f"{first / FPS:.1f} to {stop / FPS:.1f} s of {held.row.clip_id}"
        if reason is Reason.TOO_SHORT:
            row.detail = f"{stop - first} frames are left, at least {self.config.min_frames} needed"
        else:
            row.detail = f"{DETAILS[reason]}, {seconds}"
        self.refuse(row)

    def _piece(self, held: HeldClip, judged: Judged, first: int, stop: int, video: bytes) -> _Piece:
        row = self._row(held, judged, first, stop)
        return _Piece(held, judged, first, stop, video, row)

    def _row(self, held: HeldClip, judged: Judged, first: int, stop: int) -> ClipRow:
        """The row of a stretch, with all that is known before it is scored."""
        frames = stop - first
        whole = frames == held.clip.frames
        row = replace(
            held.row,
            clip_id=held.row.clip_id if whole else f"{held.row.clip_id}-{first:03d}",
            start_s=(held.start + first) / FPS,
            end_s=(held.start + stop) / FPS,
            num_frames=frames,
        )
        if held.facts.by_lag is not None:
            row.bad_share = judged.bad_share(first, stop)
            row.worst_second = min(judged.by_second(first, stop))
        if np.isfinite(held.facts.speech).all():
            row.speech_share = float((held.facts.speech[first:stop] >= SPEECH).mean())
        for name, value in vars(held.clip.meter.result(first, stop)).items():
            setattr(row, name, value)
        return row

    def _finish(self, piece: _Piece, own: OffsetScore) -> None:
        """Write a clip's scores into its row, and hand it on."""
        row = piece.row
        strange = row.bad_share > TOGETHER
        pooled = self._pool.of(own)
        score = own if strange else self._by_evidence(piece, pooled.score)
        row.av_offset_frames, row.sync_confidence = score.offset_frames, score.confidence
        row.sync_distance, row.offset_uncertainty = score.distance, score.uncertainty
        if not strange:
            row.detail = pooled.note
            if own.confidence >= self.tools.scorer.min_confidence:
                self._sure.append((row, row.start_s, own))
        if self.tools.quality is not None and piece.held.clip.faces is not None:
            faces = piece.held.clip.faces[piece.first : piece.stop]
            (row.quality,) = self.tools.quality.score([faces])
        measured = np.isfinite(row.sync_confidence) and self.config.offsets == CORRECTED
        late = correction(score) if measured else 0.0
        self.hand_on(row, self._members(piece, late))

    def _by_evidence(self, piece: _Piece, score: OffsetScore) -> OffsetScore:
        """The score, or what the evidence frame by frame says if that is surer.

        A scorer looks for the offset among all. That lips and sound belong together at the one
        offset that the file has, or at none, is known after fewer seconds.
        """
        found = piece.judged.at_lag(piece.first, piece.stop)
        confidence = self.tools.scorer.min_confidence * np.sqrt(max(found.nats, 0.0) / SURE)
        if not confidence > score.confidence:
            return score
        if abs(score.offset_frames - found.offset_frames) <= LEAST_JUMP:
            return replace(score, confidence=float(confidence))
        return replace(
            score,
            offset_frames=found.offset_frames,
            confidence=float(confidence),
            uncertainty=max(score.uncertainty, LEAST_JUMP),
        )

    def _members(self, piece: _Piece, late: float) -> Members:
        points = io.BytesIO()
        np.save(points, piece.held.clip.aligned[piece.first : piece.stop])
        known = {name: _plain(getattr(piece.row, name)) for name in FACTS}
        known |= {"resolution": self.config.resolution, "crop": self.config.crop, "mask": MASK}
        known |= {
            "moved_frames": late,
            "by_second": piece.judged.by_second(piece.first, piece.stop),
        }
        return {
            "mp4": piece.video,
            "flac": flac_bytes(piece.sound(late), SAMPLE_RATE),
            "npy": points.getvalue(),
            "json": json.dumps(known, sort_keys=True).encode("ascii"),
        }


def _plain(value: object) -> object:
    """As JSON has it: there is no NaN."""
    return None if isinstance(value, float) and np.isnan(value) else value
