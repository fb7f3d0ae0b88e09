"""The finished parts of an output, kept next to it until it is complete, so jobs can be resumed.

The folder `.NAME.parts` holds a video every few seconds of output, and the first reading's result.
They are only valid for the same job, so the folder names it by a digest of everything that decides
what comes out; another job for the same output starts from scratch.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self
from zipfile import BadZipFile

import numpy as np
from filelock import FileLock, Timeout

from datasets.errors import UserError
from tasks.lipsync.chain import ChainMemory
from tasks.lipsync.face_scan import FaceTrack, VideoScan

PART = 250
"""Frames in a part of the output."""
VERSION = 3
"""Raised when the same job would give something else."""
JOB, SCAN, LOCK = "job.json", "scan.npz", "lock"
CHAINS = "chain-*.npz"
"""What the faces hand on after so many frames of output."""


@dataclass(frozen=True)
class Part:
    """A finished one."""

    path: Path
    frames: int
    repainted: int
    """How many of its frames show a new mouth."""


class Parts:
    """The folder of a job; a context manager.

    It is removed when the output is in place, or when nothing was finished; what an interruption or
    an error leaves is taken up by the next call.

    Args:
        output: of the job.
        facts: everything that decides the output: `job_facts` of the inputs, and all options.

    Raises:
        UserError: another process is making the same output, or something else has the folder's
            name.
    """

    def __init__(self, output: Path, facts: Sequence[object]) -> None:
        self.output = output
        self.folder = output.with_name(f".{output.name}.parts")
        self.done: list[Part] = []
        self._key = hashlib.sha256(repr((VERSION, *facts)).encode()).hexdigest()
        self._lock = FileLock(self.folder / LOCK, timeout=0)

    def __enter__(self) -> Self:
        if self.folder.exists() and not (self.folder / LOCK).is_file():
            raise UserError(
                f"unfinished parts of {self.output} are kept in {self.folder}, but something "
                "else has that name: move it away or choose another name for the output"
            )
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire()
        except Timeout as error:
            raise UserError(
                f"another process is making {self.output}: wait for it, or choose another name"
            ) from error
        self._take_up()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._lock.release()
        if kind is None or (not self.done and issubclass(kind, UserError)):
            shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def frames(self) -> int:
        """How many frames are finished."""
        return sum(part.frames for part in self.done)

    def path(self) -> Path:
        """Path to write the next part to."""
        return self.folder / f"part-{len(self.done):05d}{self.output.suffix}"

    def add(self, frames: int, repainted: int, chain: ChainMemory | None = None) -> None:
        """Record that the next part has been written, and what its faces hand on."""
        self.done.append(Part(self.path(), frames, repainted))
        if chain is not None:
            _put_arrays(self._chain_file(), chain.arrays())
        self._write_job()
        for path in self.folder.glob(CHAINS):
            if path != self._chain_file():
                path.unlink()

    def _chain_file(self) -> Path:
        """Where what the finished parts hand on is kept."""
        return self.folder / CHAINS.replace("*", f"{self.frames:08d}")

    def chain(self) -> ChainMemory:
        """What the finished parts hand on; nothing, if that is not known."""
        try:
            with np.load(self._chain_file()) as file:
                return ChainMemory.of_arrays(dict(file))
        except (OSError, ValueError, EOFError, KeyError, BadZipFile):
            return ChainMemory()

    def numbered(self) -> Iterator[tuple[int, Part]]:
        """Each part and the position of its first frame in the output."""
        first = 0
        for part in self.done:
            yield first, part
            first += part.frames

    @property
    def whole(self) -> Path:
        """Path of the output before it is put in place."""
        return self.folder / f"whole{self.output.suffix}"

    def put_in_place(self) -> None:
        """Record that the output is complete."""
        os.replace(self.whole, self.output)

    def _take_up(self) -> None:
        for frames, repainted in self._read_job() or ():
            if not self.path().is_file():
                break
            self.done.append(Part(self.path(), frames, repainted))
        kept = {part.path.name for part in self.done} | {LOCK}
        if self._read_job() is not None:
            kept |= {JOB, SCAN, self._chain_file().name}
        for path in self.folder.iterdir():
            if path.name not in kept:
                path.unlink()
        self._write_job()

    def _read_job(self) -> list[tuple[int, int]] | None:
        """Frames of the parts that belong to this job."""
        try:
            job = json.loads((self.folder / JOB).read_text(encoding="utf-8"))
            if job["key"] != self._key:
                return None
            return [(int(frames), int(repainted)) for frames, repainted in job["parts"]]
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _write_job(self) -> None:
        parts = [(part.frames, part.repainted) for part in self.done]
        _put(self.folder / JOB, json.dumps({"key": self._key, "parts": parts}).encode("ascii"))

    def save_scan(self, scan: VideoScan) -> None:
        """Store the first reading."""
        arrays = {
            "times_s": scan.times_s,
            "lengths_s": np.array([scan.duration_s, scan.video_s]),
            "shots": np.array(scan.shots),
            "people": np.array([len(person) for person in scan.people], int),
            "members": np.array([index for person in scan.people for index in person], int),
        }
        for number, track in enumerate(scan.tracks):
            arrays[f"shot{number}"] = np.array(track.shot)
            arrays[f"frames{number}"] = track.frames
            arrays[f"values{number}"] = track.values
            arrays[f"look{number}"] = track.look
        _put_arrays(self.folder / SCAN, arrays)

    def scan(self) -> VideoScan | None:
        """The first reading, if it was finished."""
        try:
            with np.load(self.folder / SCAN) as file:
                arrays = dict(file)
        except (OSError, ValueError, EOFError, KeyError):
            return None
        members = iter(arrays["members"].tolist())
        count = sum(name.startswith("look") for name in arrays)
        return VideoScan(
            times_s=arrays["times_s"],
            duration_s=float(arrays["lengths_s"][0]),
            video_s=float(arrays["lengths_s"][1]),
            shots=arrays["shots"].tolist(),
            tracks=[
                FaceTrack(
                    int(arrays[f"shot{number}"]),
                    arrays[f"frames{number}"],
                    arrays[f"values{number}"],
                    arrays[f"look{number}"],
                )
                for number in range(count)
            ],
            people=[[next(members) for _ in range(size)] for size in arrays["people"].tolist()],
        )


def job_facts(files: Sequence[Path], bundle: Path) -> tuple[object, ...]:
    """Facts that tell inputs apart without reading them whole: sizes and times of files, and what a
    bundle says about itself."""
    found: list[object] = []
    for path in files:
        about = path.stat()
        found.append((str(path.resolve()), about.st_size, about.st_mtime_ns))
    for path in sorted(bundle.glob("*.json")):
        found.append((path.name, path.read_bytes()))
    for path in sorted(bundle.rglob("*.safetensors")):
        found.append((path.relative_to(bundle).as_posix(), path.stat().st_size))
    return tuple(found)


def _put_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    temporary = path.with_name(f"{path.stem}.tmp.npz")
    np.savez(temporary, **arrays)
    os.replace(temporary, path)


def _put(path: Path, content: bytes) -> None:
    temporary = path.with_name(f"{path.name}.tmp")
    temporary.write_bytes(content)
    os.replace(temporary, path)
