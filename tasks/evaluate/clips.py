"""The frozen list of test clips: which they are, and whose speech each one gets."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from datasets.errors import UserError
from datasets.faces.landmarks import mouth_opening
from datasets.media import SAMPLES_PER_FRAME
from datasets.shards.clips import Clip, ClipStore
from datasets.shards.index import check_crop
from datasets.shards.leaks import refuse_leaks
from datasets.store.atomic import write_atomic
from tasks.evaluate.closure import Spoken
from tasks.evaluate.transcripts import NO_TRANSCRIPT, Transcripts

Kind = Literal["reconstruction", "cross", "silence"]
MIN_FRAMES = 48
"""Fewest frames of a clip: a search over +-15 frames needs windows on either side."""
CLIP_LIST = "clips.json"
RECORDINGS = "recordings"
"""What an index says of a dataset that holds each recording once, in whatever encoding."""


@dataclass(frozen=True)
class ChosenClip:
    """One clip of the frozen list."""

    clip_id: str
    speaker: str
    frames: int
    """How many of its frames are used, starting with the first."""
    driver: str
    """The clip whose speech it is given in the cross videos; the clip itself, with its
    sound turned by half its length, when there is no other."""
    cross_frames: int
    """Frames of the cross video, no more than the driver has."""
    silent_frames: int = 0
    """Frames of the video in silence; 0: there is none."""

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """Its videos: with its own speech, with another clip's, and perhaps in silence."""
        return ("reconstruction", "cross", *(("silence",) if self.silent_frames else ()))


@dataclass(frozen=True)
class ClipList:
    """The clips, and what one must know about them to compare numbers."""

    clips: tuple[ChosenClip, ...]
    split: str
    """`test`, or `train` if the dataset has no test speakers."""
    digest: str
    """Digest of the choice and of the clips' content."""
    duplicates: str = RECORDINGS
    """What the dataset holds only once."""

    @property
    def note(self) -> str:
        """What to append to every label; empty in the usual case."""
        return "" if self.split == "test" else " on TRAINING clips (no speaker is held out)"

    @property
    def title(self) -> str:
        """The beginning of lines of progress."""
        return "evaluation" if self.split == "test" else "evaluation on TRAINING clips"

    @property
    def turned(self) -> bool:
        """Whether the cross videos use the clip's own speech, since there is no other."""
        return any(clip.driver == clip.clip_id for clip in self.clips)

    @property
    def cross(self) -> str:
        """What labels call the speech of the cross videos."""
        return f"cross audio ({self._own_speech})" if self.turned else "cross audio"

    @property
    def _own_speech(self) -> str:
        which = "test" if self.split == "test" else "usable"
        return f"own speech shifted by half, since there is only one {which} clip"

    @property
    def warnings(self) -> tuple[str, ...]:
        """Sentences that every reader of the numbers must know; empty in the usual case."""
        found = []
        if self.split != "test":
            found.append(
                "the dataset has no test split, so these are TRAINING clips: the numbers say "
                "nothing about speakers the model has not seen; add videos of more speakers"
            )
        if self.turned:
            found.append(
                f"cross audio is the clip's {self._own_speech}: two or more clips are needed for "
                "another clip's speech"
            )
        if self.split == "test" and self.duplicates != RECORDINGS:
            found.append(
                "other encodings of these recordings may be among the training clips, since the "
                "dataset was not searched for them: refresh it with --duplicates recordings"
            )
        return tuple(found)


def open_test_clips(dataset: Path, resolution: int, crop: str) -> tuple[ClipStore, str]:
    """The clips to evaluate a model on, and their split.

    Args:
        dataset: folder with `index.json`.
        resolution: side of the model's faces.
        crop: name of their alignment.

    Raises:
        UserError: there is no dataset, it has no clips, its faces are aligned differently, or
            content of one split is also in the other.
    """
    everything = ClipStore(dataset, memory_bytes=0)
    check_crop(dataset, everything.index, crop)
    split = "test" if any(clip.split == "test" for clip in everything.clips) else "train"
    refuse_leaks(everything.files, everything.clips)
    # Each clip is decoded once, so none is kept in memory.
    return ClipStore(dataset, split=split, resolution=resolution, memory_bytes=0), split


def freeze(
    store: ClipStore,
    split: str,
    count: int,
    frames_per_clip: int,
    wanted: list[str] | None = None,
    silent_clips: int = 0,
    silent_frames: int = 0,
) -> ClipList:
    """Choose clips by a hash of their ids, so that the choice does not depend on their order.

    Args:
        store: clips of one split.
        split: its name.
        count: most clips to choose.
        frames_per_clip: most frames to use of each.
        wanted: ids of an earlier list to use instead of choosing.
        silent_clips: how many of them, the first ones, get a video in silence, too.
        silent_frames: most frames of it.

    Raises:
        UserError: no clip is long enough, or a wanted one is missing.
    """
    usable = {clip.clip_id: clip for clip in store.clips if clip.num_frames >= MIN_FRAMES}
    if not usable:
        raise UserError(
            f"no clip of the {split} split has {MIN_FRAMES} frames or more: refresh the dataset "
            "with longer videos"
        )
    missing = [clip_id for clip_id in wanted or [] if clip_id not in usable]
    if missing:
        raise UserError(
            f"{len(missing)} clips of the list are not in the {split} split, the first being "
            f"{missing[0]}: use the dataset that the list was made for"
        )
    names = wanted or sorted(usable, key=_rank)[:count]
    chosen = [usable[name] for name in names]
    clips = tuple(
        _with_driver(chosen, index, frames_per_clip, silent_frames if index < silent_clips else 0)
        for index in range(len(chosen))
    )
    return ClipList(clips, split, _digest(store, clips), store.index.get("duplicates", ""))


def _rank(clip_id: str) -> str:
    return hashlib.sha256(clip_id.encode()).hexdigest()


def _with_driver(
    chosen: list[Clip], index: int, frames_per_clip: int, silent_frames: int
) -> ChosenClip:
    """The next clip of another speaker drives; with only one speaker, simply the next clip."""
    clip = chosen[index]
    others = chosen[index + 1 :] + chosen[:index]
    foreign = [other for other in others if other.speaker != clip.speaker]
    driver = (foreign or others or [clip])[0]
    frames = min(clip.num_frames, frames_per_clip)
    return ChosenClip(
        clip.clip_id,
        clip.speaker,
        frames,
        driver.clip_id,
        min(frames, driver.num_frames),
        min(frames, silent_frames),
    )


@dataclass(frozen=True, eq=False)
class OpenClip:
    """A clip of the list, with the data needed to generate from it, compare with it and show it."""

    chosen: ChosenClip
    frames: np.ndarray
    """uint8 (frames, R, R, 3)."""
    landmarks: np.ndarray
    """float32 (frames, 478, 2) in pixels of R."""
    speech: np.ndarray
    """The speech of the whole clip, float32 (samples,) at 16 kHz."""
    driving: np.ndarray
    """The speech of its cross video, float32 (cross_frames * 640,)."""
    driver_opening: np.ndarray = field(default_factory=lambda: np.empty(0))
    """How far the driver's own mouth is open while it says that, (cross_frames,) of
    `datasets.faces.landmarks.mouth_opening`; empty: not known."""
    spoken: Mapping[Kind, Spoken] = field(default_factory=dict)
    """What is said in a kind of video, where that is known."""

    def heard(self, kind: Kind) -> np.ndarray:
        """The speech that a kind of video is generated from, judged by and shown with."""
        if kind == "silence":
            return np.zeros(self.chosen.silent_frames * SAMPLES_PER_FRAME, np.float32)
        return self.driving if kind == "cross" else self.speech

    def said(self, kind: Kind) -> Spoken:
        """What is said in a kind of video."""
        return self.spoken.get(kind, Spoken(reason=NO_TRANSCRIPT))

    def length(self, kind: Kind) -> int:
        """Number of frames of a kind of video."""
        lengths: dict[Kind, int] = {
            "cross": self.chosen.cross_frames,
            "silence": self.chosen.silent_frames,
        }
        return lengths.get(kind, self.chosen.frames)


def open_clip(
    store: ClipStore, chosen: ChosenClip, transcripts: Transcripts | None = None
) -> OpenClip:
    """Decode a clip, and the speech and the mouth of its driver.

    Args:
        store: the clips.
        chosen: the clip.
        transcripts: what is said in clips; None: not known.

    Raises:
        UserError: it cannot be decoded.
    """
    speech = store.audio(chosen.clip_id)
    driving = store.audio(chosen.driver)
    opening = mouth_opening(store.landmarks(chosen.driver))
    words = transcripts or Transcripts()
    spoken: dict[Kind, Spoken] = {
        "reconstruction": words.spoken(chosen.clip_id, speech),
        "cross": words.spoken(chosen.driver, driving),
    }
    if chosen.driver == chosen.clip_id:
        driving = np.roll(speech, len(speech) // 2)
        opening = np.roll(opening, len(opening) // 2)
        spoken["cross"] = Spoken(reason="the foreign speech is the clip's own, shifted by half")
    return OpenClip(
        chosen,
        # A copy, since torch warns about read-only arrays.
        np.array(store.frames(chosen.clip_id)[: chosen.frames]),
        store.landmarks(chosen.clip_id)[: chosen.frames],
        speech,
        driving[: chosen.cross_frames * SAMPLES_PER_FRAME],
        opening[: chosen.cross_frames],
        spoken,
    )


def _digest(store: ClipStore, clips: tuple[ChosenClip, ...]) -> str:
    """Digest of the clips' ids, lengths, drivers, sound and landmarks."""
    total = hashlib.sha256()
    for clip in clips:
        total.update(repr(clip).encode())
        total.update(np.ascontiguousarray(store.audio(clip.clip_id)).tobytes())
        total.update(np.ascontiguousarray(store.landmarks(clip.clip_id)).tobytes())
    return total.hexdigest()


def write_clip_list(path: Path, test_set: ClipList) -> None:
    """Write the list, for people and for later evaluations on the same clips."""
    content = {
        "split": test_set.split,
        "digest": test_set.digest,
        "clips": [vars(clip) for clip in test_set.clips],
    }
    write_atomic(path, json.dumps(content, indent=1) + "\n")


def read_clip_list(path: Path) -> list[str]:
    """Read the ids of an earlier list.

    Raises:
        UserError: the file is not such a list.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return [str(clip["clip_id"]) for clip in content["clips"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is not a list of clips ({error}): give a clips.json") from error
