"""What runs in a worker's process: the stage, and the handling of its errors."""

import errno
import math
import os
import time
from dataclasses import dataclass
from typing import Any

from datasets.errors import Reason, SourceError
from models.files.errors import is_disk_full
from tasks.runtime.failures import causes, describe, for_the_user, one_line, redact_logs
from tasks.runtime.processes import die_with_parent
from tasks.runtime.stage import Stage, StageError, StageSetupError


@dataclass(frozen=True)
class Reply:
    """What a worker sends back for an item."""

    value: Any
    reason: Reason
    detail: str
    seconds: float
    fatal: Exception | None = None


class Worker:
    """Lives in the worker's process and holds the stage."""

    def __init__(self) -> None:
        die_with_parent()
        self.stage: Stage | None = None

    def hello(self) -> None:
        """Answer as soon as the process runs, however long it had to wait for room."""

    def setup(self, stage: Stage) -> Exception | None:
        self.stage = stage
        redact_logs()
        try:
            stage.setup()
        except Exception as error:
            return _fatal(error) or StageSetupError(describe(error))
        return None

    def extra_seconds(self, item: Any) -> float:
        """The stage's answer; 0 if it fails, since `process` will report why."""
        assert self.stage is not None
        try:
            seconds = float(self.stage.extra_seconds(item))
        except Exception:
            return 0.0
        return seconds if 0 < seconds < math.inf else 0.0

    def process(self, group: str, item: Any, first: bool) -> Reply:
        assert self.stage is not None
        began = time.monotonic()
        try:
            if first:
                self.stage.begin(group)
            value = self.stage.process(item)
        except SourceError as error:
            return Reply(None, error.reason, error.detail, time.monotonic() - began)
        except Exception as error:
            seconds = time.monotonic() - began
            return Reply(None, Reason.INTERNAL, describe(error), seconds, _fatal(error))
        return Reply(value, Reason.NONE, "", time.monotonic() - began)

    def finish(self, group: str) -> Reply:
        assert self.stage is not None
        began = time.monotonic()
        try:
            value = self.stage.finish(group)
        except Exception as error:
            fatal = _fatal(error) or StageError(f"{group} could not be finished: {describe(error)}")
            return Reply(None, Reason.INTERNAL, "", time.monotonic() - began, fatal)
        return Reply(value, Reason.NONE, "", time.monotonic() - began)


def _fatal(error: Exception) -> Exception | None:
    """The cause that would also fail every further item, in a form that can be pickled."""
    for each in causes(error):
        if for_the_user(each):
            return type(each)(one_line(each))  # type: ignore[return-value]
        if is_disk_full(each):
            name = getattr(each, "filename", None)
            return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), name)
    return None
