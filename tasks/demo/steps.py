"""The demo's memory: which steps are done, with which inputs and results.

A step is done if its inputs still have the same digest and its outputs still
exist. The inputs of all steps include the program's own source, so a changed program runs
its flows again; these know themselves what they need not repeat.
"""

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypedDict

from datasets.errors import UserError
from datasets.store.atomic import write_atomic
from datasets.store.manifest import config_digest
from tasks.runtime.processes import ROOT

STATE, VIDEOS = "state.json", "videos.json"
PACKAGES = ("flows", "tasks", "models", "datasets")


def source_digest() -> str:
    """Digest of the program's source files."""
    total = hashlib.sha256()
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            total.update(path.relative_to(ROOT).as_posix().encode() + b"\0" + path.read_bytes())
    return total.hexdigest()


def folder_digest(folder: Path) -> str:
    """Digest of names, sizes and times of all files below a folder."""
    entries = []
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            about = path.stat()
            entries.append([path.relative_to(folder).as_posix(), about.st_size, about.st_mtime_ns])
    return config_digest(entries)


class StepRecord(TypedDict):
    """A step that is done."""

    digest: str
    """Digest of everything it depends on, including the program's source."""
    inputs: str
    """Digest without the source."""
    seconds: float
    result: Any
    """JSON."""


class Steps:
    """Runs steps that are not done yet and remembers their results.

    Args:
        folder: holds `state.json`.
        say: takes lines for the person who waits.
    """

    def __init__(self, folder: Path, say: Callable[[str], None]) -> None:
        self.folder, self.say = folder, say
        self.seconds: dict[str, float] = {}
        """Seconds that each step took when it was actually done."""
        self._source = source_digest()
        self._state = self._read()

    def keep_to(self, videos: str) -> None:
        """Refuse to go on in a folder whose demo was made from other videos, which would be mixed.

        Args:
            videos: the user's folder; empty for generated ones.

        Raises:
            UserError: this folder is for others.
        """
        path = self.folder / VIDEOS
        try:
            before = str(json.loads(path.read_text(encoding="utf-8"))["videos"])
        except (OSError, ValueError, KeyError, TypeError):
            self.folder.mkdir(parents=True, exist_ok=True)
            write_atomic(path, json.dumps({"videos": videos}) + "\n")
            return
        if before != videos:
            raise UserError(
                f"{self.folder} holds a demo of {before or 'generated videos'}, and "
                f"{videos or 'generated videos'} would be mixed in: choose another --output"
            )

    def _read(self) -> dict[str, StepRecord]:
        try:
            content = json.loads((self.folder / STATE).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return content if isinstance(content, dict) else {}

    def run(
        self,
        name: str,
        title: str,
        inputs: Any,
        work: Callable[[], Any],
        outputs: Sequence[Path] = (),
    ) -> Any:
        """Do a step unless it is done.

        Args:
            name: name of the step in the state and in `seconds`.
            title: what it does and about how long it takes.
            inputs: everything it depends on, as JSON values.
            work: does the step and returns JSON values.
            outputs: files and folders that must exist for the step to be done.

        Returns:
            What `work` returned, now or earlier.
        """
        digest = config_digest({"source": self._source, "inputs": inputs})
        known = self._state.get(name)
        if known and known["digest"] == digest and all(path.exists() for path in outputs):
            self.seconds[name] = float(known["seconds"])
            self.say(f"[{name}] already done ({known['seconds']:.0f} s), nothing has changed")
            return known["result"]
        self.say(f"[{name}] {title}")
        began = time.monotonic()
        result = json.loads(json.dumps(work()))
        seconds = time.monotonic() - began
        if known and known["digest"] != digest and known["inputs"] == config_digest(inputs):
            # Only the program changed: the time that counts is the longer one, in which the
            # work was actually done.
            seconds = max(seconds, float(known["seconds"]))
        self.seconds[name] = seconds
        self._state[name] = {
            "digest": digest,
            "inputs": config_digest(inputs),
            "seconds": seconds,
            "result": result,
        }
        self.folder.mkdir(parents=True, exist_ok=True)
        write_atomic(self.folder / STATE, json.dumps(self._state, indent=1) + "\n")
        self.say(f"[{name}] {seconds:.0f} s")
        return result
