"""The clips of a dataset, by name: random access into its shards.

Training draws windows from many clips in any order, so members are found once by their
offsets in the tar files and decoded when wanted; the last decoded ones stay in memory.
"""

import io
import json
import tarfile
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import soundfile
from numpy.typing import NDArray

from datasets.errors import UserError
from datasets.media import SAMPLES_PER_FRAME
from datasets.media.audio import fit_length
from datasets.media.video import to_rgb
from datasets.shards.index import FOLDER, read_index


@dataclass(frozen=True)
class Clip:
    """One accepted clip."""

    clip_id: str
    speaker: str
    split: str
    num_frames: int
    path: str
    """The source video, relative to the input folder."""
    resolution: int
    """Side of the stored frames in pixels."""


@dataclass(frozen=True)
class _Member:
    shard: Path
    offset: int
    size: int


class ClipStore:
    """Decoded clips of a dataset.

    Args:
        dataset_dir: folder with `index.json`.
        split: `train`, `test`, or None for both.
        resolution: side to which frames (and landmarks) are scaled; None keeps the stored size.
        memory_bytes: bytes of decoded frames kept in memory, at least one clip.

    Raises:
        UserError: there is no dataset, a shard is missing, or the split has no clips.
    """

    def __init__(
        self,
        dataset_dir: Path,
        split: str | None = None,
        resolution: int | None = None,
        memory_bytes: int = 2 << 30,
    ) -> None:
        self.dataset_dir = Path(dataset_dir)
        index = read_index(self.dataset_dir)
        self.digest: str = index["digest"]
        self.index = index
        self._members: dict[str, dict[str, _Member]] = {}
        self._clips: dict[str, Clip] = {}
        for entry in index["shards"]:
            if split is None or entry["split"] == split:
                self._scan(self.dataset_dir / FOLDER / entry["name"], entry["split"])
        self.clips = [clip for _, clip in sorted(self._clips.items())]
        if not self.clips:
            which = f"the {split} split of " if split else ""
            raise UserError(
                f"there is no clip in {which}{self.dataset_dir}: see its ledger for the "
                "reasons of refusals, or add videos"
            )
        self.resolution: int = resolution or self.clips[0].resolution
        self.memory_bytes = memory_bytes
        self._kept: OrderedDict[str, NDArray[np.uint8]] = OrderedDict()

    def _scan(self, shard: Path, split: str) -> None:
        """Record where each member of a shard begins, and its clips."""
        try:
            with tarfile.open(shard, "r:") as tar:
                for member in tar:
                    key, _, extension = member.name.partition(".")
                    place = _Member(shard, member.offset_data, member.size)
                    self._members.setdefault(key, {})[extension] = place
                    if extension == "json":
                        content = tar.extractfile(member)
                        facts = json.load(content) if content else {}
                        self._clips[key] = Clip(
                            key,
                            facts["speaker"],
                            split,
                            facts["num_frames"],
                            facts["path"],
                            facts["resolution"],
                        )
        except KeyError as error:
            raise UserError(
                f"the shard {shard} cannot be read (its clip {key} does not have a "
                f"{error.args[0]}): refresh the dataset again"
            ) from error
        except (OSError, tarfile.TarError, ValueError) as error:
            raise UserError(
                f"the shard {shard} cannot be read ({error}): refresh the dataset again"
            ) from error

    def _bytes(self, clip_id: str, extension: str) -> bytes:
        try:
            member = self._members[clip_id][extension]
        except KeyError:
            raise KeyError(f"no member {clip_id}.{extension} in {self.dataset_dir}") from None
        with member.shard.open("rb") as file:
            file.seek(member.offset)
            return file.read(member.size)

    def frames(self, clip_id: str) -> NDArray[np.uint8]:
        """(t, R, R, 3) aligned face. The array is shared: do not write into it."""
        if clip_id not in self._kept:
            self._keep(clip_id, self._decode(clip_id))
        self._kept.move_to_end(clip_id)
        return self._kept[clip_id]

    def _decode(self, clip_id: str) -> NDArray[np.uint8]:
        content = io.BytesIO(self._bytes(clip_id, "mp4"))
        expected = self._clips[clip_id].num_frames
        side = self.resolution
        frames = np.empty((expected, side, side, 3), np.uint8)
        count = 0
        try:
            with av.open(content, "r") as container:
                stream = container.streams.video[0]
                stream.thread_type = "AUTO"
                for count, frame in enumerate(container.decode(stream), start=1):
                    if count <= expected:
                        frames[count - 1] = _scale(to_rgb(frame), side)
        except (OSError, ValueError, IndexError) as error:
            raise UserError(
                f"clip {clip_id} of {self.dataset_dir} cannot be decoded ({error}): refresh the "
                "dataset again"
            ) from error
        if count != expected:
            raise UserError(
                f"clip {clip_id} of {self.dataset_dir} has {count} frames, but its record says "
                f"{expected}: refresh the dataset again"
            )
        return frames

    def _keep(self, clip_id: str, frames: NDArray[np.uint8]) -> None:
        frames.setflags(write=False)
        self._kept[clip_id] = frames
        while len(self._kept) > 1 and sum(f.nbytes for f in self._kept.values()) > (
            self.memory_bytes
        ):
            self._kept.popitem(last=False)

    def audio(self, clip_id: str) -> NDArray[np.float32]:
        """(t * 640,) at 16 kHz, corrected for the offset."""
        audio, _ = soundfile.read(io.BytesIO(self._bytes(clip_id, "flac")), dtype="float32")
        return fit_length(audio, self._clips[clip_id].num_frames * SAMPLES_PER_FRAME)

    def landmarks(self, clip_id: str) -> NDArray[np.float32]:
        """(t, 478, 2) in pixels of the aligned face at `resolution`."""
        points = np.load(io.BytesIO(self._bytes(clip_id, "npy")), allow_pickle=False)
        scale = self.resolution / self._clips[clip_id].resolution
        return (points * scale).astype(np.float32)


def _scale(frame: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    if frame.shape[0] == side:
        return frame
    import cv2

    method = cv2.INTER_AREA if side < frame.shape[0] else cv2.INTER_CUBIC
    return cv2.resize(frame, (side, side), interpolation=method)
