"""From one video file to its aligned clips and ledger rows, decoding it once.

    decode -> shots -> faces -> tracks -> aligned faces, encoded at once -> sync -> quality

Scores are stored and thresholds applied later; only what no threshold could admit is refused
here. Every file gives at least one row, whatever is wrong with it. What is held in memory
does not grow with the length of the video: frames and sound pass through, and clips are
handed on once it is known which of several faces speaks.
"""

import hashlib
import logging
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from math import ceil
from pathlib import Path

import numpy as np

from datasets.errors import Reason, SourceError
from datasets.media import FPS, SAMPLES_PER_FRAME, Picture, probe, read_frames
from datasets.media.audio import AudioWindow, loud_frames
from datasets.media.prints import PrintMaker
from datasets.media.sound_choice import SILENCE
from datasets.shards.records import ClipRow
from datasets.sources.items import How, Part, SourceItem
from datasets.store.atomic import content_digest
from tasks.ingest.clip_writer import TrackClip, TrackWriter
from tasks.ingest.config import IngestConfig, Tools
from tasks.ingest.face_pass import FacePass
from tasks.ingest.frame_facts import frame_facts
from tasks.ingest.held_clips import HeldClip, HeldClips, Members
from tasks.ingest.source_state import content_of, readable_digest
from tasks.ingest.speaker_choice import refuse_other_faces
from tasks.sync.signals import MAX_LAG

log = logging.getLogger(__name__)

LOUD_SHARE = 0.05
"""A clip with a smaller share of frames with sound counts as silent."""
MAX_WAITING = 16
"""Clips that may wait for the decision which of several faces speaks; about 2 MB each."""
PRINTED_AT_ONCE = 250
"""Frames whose sound is taken into the print at once."""
WHOLE = Part("", 0.0, float("inf"))


@dataclass
class _Waiting:
    """A clip that only waits for the choice between faces."""

    row: ClipRow
    members: Members


class FileRun:
    """One file while it is being ingested.

    Args:
        item: what it is.
        path: its file; None for an item that states why it cannot be used.
        sound: the file with its audio, if that comes separately.
        config: configuration of the clips.
        tools: the loaded tools.
        keep: takes every clip that no other face excludes, in order of time.
        whole: refuse a file that ends earlier than its container says, since half of it would
            replace the clips that the whole file gave.
    """

    def __init__(
        self,
        item: SourceItem,
        path: Path | None,
        sound: Path | None,
        config: IngestConfig,
        tools: Tools,
        keep: Callable[[ClipRow, Members], None],
        whole: bool = False,
    ) -> None:
        self.item, self.path, self.config = item, path, config
        self.sound = sound or path
        self.tools, self.keep, self.whole = tools, keep, whole
        self.digest = ""
        self.content = ""
        """Equal for sources with the same content."""
        self.print = PrintMaker()
        self.frames = 0
        """Number of frames that were looked at, at 25 fps."""
        self.cuts_s: list[float] = []
        self.rows: list[ClipRow] = []
        self.note = ""
        """A note on a file that was used although something is wrong with it."""
        self.heard = ""
        """Which of several streams of sound was taken."""
        self.language = ""
        """What its language is, if the container says so."""
        self.failed = False
        """Whether the whole file was refused, which voids the clips that it gave before."""
        self._waiting: list[_Waiting] = []
        self._chosen: list[ClipRow] = []
        self._shots = self._tracks = 0
        self.held = HeldClips(config, tools, self.wait, self.rows.append)

    def ingest(self) -> None:
        """Fill `rows` and hand on clips."""
        step = "source"
        try:
            if self.item.reason:
                raise SourceError(self.item.reason, self.item.detail)
            if self.path is None or self.sound is None:
                for part in self.item.parts:
                    self._refuse_part(part, part.reason, part.detail)
                return
            step = "download"
            if self.item.how is not How.LOCAL and not self.path.is_file():
                text = f"the fetched file is not at {self.path}, or this machine does not see it"
                raise SourceError(Reason.DOWNLOAD_FAILED, text)
            step = "probe"
            self.digest = readable_digest(self.path, self.sound)
            separate = content_digest(self.sound) if self.sound != self.path else ""
            self.content = content_of(self.digest, separate, self.item.parts)
            info = probe(self.path)
            step = "audio"
            if not info.has_audio and self.sound == self.path:
                raise SourceError(Reason.NO_AUDIO, "no audio stream")
            # Fewer frames than a single clip needs, however long the silence around them is.
            enough = ceil(LOUD_SHARE * self.config.min_frames)
            if loud_frames(self.sound, SILENCE, enough) < enough:
                raise SourceError(Reason.SILENT, "the whole file is silent")
            step = "decode"
            for part in self.item.parts or (WHOLE,):
                self._read_part(self.path, self.sound, part)
            if self.whole and self.note:
                raise SourceError(Reason.UNREADABLE, self.note)
        except SourceError as error:
            self._refuse(error, step)
        self.rows.sort(key=lambda row: (row.start_s, row.track, row.clip_id))

    def _refuse(self, error: SourceError, step: str) -> None:
        """Record in one row why the whole file gives nothing."""
        row = ClipRow(path=self.item.relative, speaker=self.item.speaker)
        _mark(row, error.reason, step, error.detail)
        self.rows, self.failed = [row], True
        log.debug("%s: %s", self.item.relative, error)

    def _read_part(self, path: Path, audio: Path, part: Part) -> None:
        if part.reason:
            self._refuse_part(part, part.reason, part.detail)
            return
        end = part.end_s if np.isfinite(part.end_s) else None
        work: _PartRun | None = None
        with AudioWindow(audio) as sound:
            self.heard, self.language = sound.about, sound.language
            try:
                # Workers divide the cores among files: threads of one decoder would only get in the
                # way of the others.
                for frame in read_frames(
                    path, start_s=part.start_s, end_s=end, threads=1, on_cut_off=self._cut_off
                ):
                    if work is None:
                        work = _PartRun(self, part, sound, frame.index, frame.picture)
                    work.add(frame.picture)
                if work is None:
                    raise SourceError(Reason.OUTSIDE_PICTURE, "the video ends before it")
                work.finish()
            except BaseException as error:
                if work is not None:
                    work.abandon()
                if not isinstance(error, SourceError) or error.reason != Reason.OUTSIDE_PICTURE:
                    raise
                self._refuse_part(part, error.reason, error.detail)

    def _cut_off(self, end_s: float, promised_s: float) -> None:
        self.note = f"ends at {end_s:.1f} s of {promised_s:.1f} s: is it half copied?"

    def _refuse_part(self, part: Part, reason: Reason, detail: str) -> None:
        row = ClipRow(path=self.item.relative, speaker=self.item.speaker)
        row.start_s, row.end_s = part.start_s, part.end_s
        _mark(row, reason, "source", f"{part.name}: {detail}")
        self.rows.append(row)

    @property
    def recording(self) -> str:
        """Text of the recording's print; empty if the file gives nothing."""
        return "" if self.failed or not self.print.frames else self.print.made().text()

    def settle(self, before_s: float) -> None:
        """Choose between faces and hand on the chosen clips.

        Args:
            before_s: only clips that end by then are decided; all others may still be
                excluded by a clip that is not complete.
        """
        # Decided on copies: the choice of later clips is not final.
        copies = [replace(waiting.row) for waiting in self._waiting]
        refuse_other_faces(copies, self._chosen, policy=self.config.face_choice)
        still: list[_Waiting] = []
        done: list[_Waiting] = []
        for waiting, copy in zip(self._waiting, copies, strict=True):
            if copy.end_s > before_s:
                still.append(waiting)
            elif copy.reason:
                row = waiting.row
                row.reason, row.stage, row.detail = copy.reason, copy.stage, copy.detail
            else:
                done.append(waiting)
        # In the order of their ends, which no later call can precede: one order for the whole file.
        for waiting in sorted(done, key=lambda each: _order(each.row)):
            self._chosen.append(waiting.row)
            self.keep(waiting.row, waiting.members)
        self._waiting = still
        reach_s = 2 * self.config.reach / FPS
        self._chosen = [row for row in self._chosen if row.end_s > before_s - reach_s]

    def wait(self, row: ClipRow, members: Members) -> None:
        """Take a clip that may be handed on once its rivals are known."""
        self.rows.append(row)
        if self._waiting and self._waiting[-1].row.shot != row.shot:
            self.settle(float("inf"))
        self._waiting.append(_Waiting(row, members))
        if len(self._waiting) > MAX_WAITING:
            self.settle(row.end_s - self.config.reach / FPS)

    def end_part(self, shots: int, tracks: int, frames: int) -> None:
        """End a part, whose clips are all complete."""
        self.held.release(float("inf"))
        self.settle(float("inf"))
        self._shots, self._tracks = self._shots + shots, self._tracks + tracks
        self.frames += frames

    @property
    def numbered_from(self) -> tuple[int, int]:
        """Number of the next part's first shot and first track."""
        return self._shots, self._tracks


class _PartRun:
    """Process one annotated part of a file, or all of it."""

    def __init__(
        self, run: FileRun, part: Part, sound: AudioWindow, first: int, picture: Picture
    ) -> None:
        self.run, self.part, self.sound, self.first = run, part, sound, first
        self.config = run.config
        self.box = _box(part, picture)
        self.first_shot, self.first_track = run.numbered_from
        named = f"{run.item.relative}/{part.name}" if part.name else run.item.relative
        self.prefix = clip_prefix(named)
        self.tracks = 0
        self.work = FacePass(run.tools.detector, self._make_writer, self.config.shots)

    def add(self, picture: Picture) -> None:
        if self.box is not None:
            picture = self._inside(picture, self.box)
        self.run.print.picture(picture.small)
        self.work.add(picture)

    def _inside(self, picture: Picture, box: tuple[int, int, int, int]) -> Picture:
        """The part's region of a picture."""
        left, top, right, bottom = box
        piece = picture.piece(box)
        rows = slice(top - piece.top, bottom - piece.top)
        columns = slice(left - piece.left, right - piece.left)
        return Picture.of(np.ascontiguousarray(piece.rgb[rows, columns]))

    def finish(self) -> None:
        self.work.finish()
        run = self.run
        self._print_sound()
        run.cuts_s += [(self.first + shot.start) / FPS for shot in self.work.shots[1:]]
        for shot in self.work.shots:
            if not shot.faces:
                row = self._row(shot.number, shot.start, shot.stop - shot.start)
                _mark(row, Reason.NO_FACE, "faces", f"none in {row.num_frames} frames")
                run.rows.append(row)
        run.end_part(len(self.work.shots), self.tracks, self.work.count)

    def _print_sound(self) -> None:
        """Take the part's sound into the print; read again, since clips keep a window of it."""
        assert self.run.sound is not None
        with AudioWindow(self.run.sound) as sound:
            for first in range(0, self.work.count, PRINTED_AT_ONCE):
                begin = (self.first + first) * SAMPLES_PER_FRAME
                count = min(PRINTED_AT_ONCE, self.work.count - first) * SAMPLES_PER_FRAME
                sound.forget(begin)
                self.run.print.sound(sound.part(begin, count))

    def abandon(self) -> None:
        self.work.abandon()

    def _make_writer(self, track: int, shot: int) -> TrackWriter:
        self.tracks = max(self.tracks, track + 1)
        return TrackWriter(
            track,
            resolution=self.config.resolution,
            min_frames=self.config.min_frames,
            max_frames=self.config.max_clip_frames,
            crf=self.config.crf,
            crop=self.config.crop,
            keep_faces=self.run.tools.need_faces,
            on_clip=lambda clip: self._clip_done(shot, clip),
        )

    def _row(self, shot: int, start: int, frames: int) -> ClipRow:
        begin = self.first + start
        return ClipRow(
            path=self.run.item.relative,
            speaker=self.run.item.speaker,
            shot=self.first_shot + shot,
            start_s=begin / FPS,
            end_s=(begin + frames) / FPS,
            num_frames=frames,
            scorer=self.config.scorer,
            language=self.run.language,
        )

    def _clip_done(self, shot: int, clip: TrackClip) -> None:
        """Score a clip, and hand it on with all its files."""
        row = self._row(shot, clip.start, clip.frames)
        row.track = self.first_track + clip.track
        row.clip_id = f"{self.prefix}-s{row.shot:02d}-t{row.track:02d}-{clip.number:02d}"
        for name, value in vars(clip.quality).items():
            setattr(row, name, value)
        if clip.video is None:
            limit = self.config.min_frames
            text = f"{clip.frames} frames, at least {limit} needed"
            self._refuse(row, Reason.TOO_SHORT, "faces", text)
            return
        begin = (self.first + clip.start) * SAMPLES_PER_FRAME
        count = clip.frames * SAMPLES_PER_FRAME
        # Clips that are not complete yet did not begin earlier than that.
        reach = (self.config.reach + 2 * MAX_LAG) * SAMPLES_PER_FRAME
        self.sound.forget(begin + count - reach)
        margin = MAX_LAG * SAMPLES_PER_FRAME
        sound = self.sound.part(begin - margin, count + 2 * margin)
        heard = sound[margin : margin + count]
        if row.face_px < self.config.min_face_px:
            text = f"{row.face_px:.0f} px, at least {self.config.min_face_px:g} needed"
            self._refuse(row, Reason.FACE_TOO_SMALL, "faces", text)
        elif is_silent(heard):
            self._refuse(row, Reason.SILENT, "audio", "no speech during this clip")
        else:
            tools = self.run.tools
            # With what comes before, or the model would not know yet how the place sounds.
            speech = tools.voice(sound)[MAX_LAG : MAX_LAG + clip.frames] if tools.voice else None
            facts = frame_facts(clip.landmarks, sound, speech, tools.lips)
            self.run.held.add(HeldClip(row, clip, sound, facts, self.first + clip.start))

    def _refuse(self, row: ClipRow, reason: Reason, stage: str, detail: str) -> None:
        _mark(row, reason, stage, detail)
        self.run.rows.append(row)


def _order(row: ClipRow) -> tuple[float, int, float]:
    return row.end_s, row.track, row.start_s


def _box(part: Part, picture: Picture) -> tuple[int, int, int, int] | None:
    """Left, top, right, bottom of the part's region in pictures of this size."""
    if part.region is None:
        return None
    try:
        return part.region.pixels(picture.width, picture.height)
    except ValueError as error:
        raise SourceError(Reason.OUTSIDE_PICTURE, str(error)) from error


def _mark(row: ClipRow, reason: Reason, stage: str, detail: str) -> None:
    row.reason, row.stage, row.detail = reason.value, stage, detail


def clip_prefix(relative: str) -> str:
    """Prefix of a file's clip ids: its path as plain text, and a hash of the exact path."""
    stem = relative.rsplit(".", 1)[0] if "." in relative.rsplit("/", 1)[-1] else relative
    plain = re.sub(r"[^A-Za-z0-9_]+", "-", stem).strip("-")[:60] or "clip"
    exact = hashlib.sha1(relative.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    return f"{plain}-{exact}"


def is_silent(audio: np.ndarray) -> bool:
    """Whether hardly any frame carries sound."""
    frames = len(audio) // SAMPLES_PER_FRAME
    if frames == 0:
        return True
    pieces = audio[: frames * SAMPLES_PER_FRAME].reshape(frames, SAMPLES_PER_FRAME)
    power = np.einsum("fs,fs->f", pieces, pieces) / SAMPLES_PER_FRAME
    return bool((power >= SILENCE**2).mean() < LOUD_SHARE)
