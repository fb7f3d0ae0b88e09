"""A first reading that is given instead of made."""

import numpy as np
import pytest

from tasks.lipsync import video as lipsync_video
from tasks.lipsync.choice import Choice
from tasks.lipsync.face_scan import FaceScan, VideoScan


def give_scan(monkeypatch: pytest.MonkeyPatch, faces: FaceScan) -> None:
    """Let lip-sync find this face, and nobody else."""
    scan = VideoScan(
        np.asarray(faces.times_s), faces.duration_s, faces.duration_s, faces.shots, [], [[]]
    )
    monkeypatch.setattr(lipsync_video, "scan_video", lambda *_: scan)
    monkeypatch.setattr(lipsync_video, "choose_person", lambda *_: Choice(0, 1, ""))
    monkeypatch.setattr(lipsync_video, "faces_of", lambda *_: faces)
