"""What decides the content of clips, and what a worker loads for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np

from datasets.faces.alignment import CROP
from datasets.faces.landmarks import FaceDetector
from tasks.ingest.speaker_choice import IN_SYNC, POLICIES
from tasks.sync.signals import MOUTH_AUDIO, OffsetScorer

if TYPE_CHECKING:
    # It imports torch, which costs every worker 200 MB and some seconds.
    from tasks.ingest.image_quality import QualityScorer


CORRECTED, RECORDED = "corrected", "as-recorded"
OFFSETS = (CORRECTED, RECORDED)


@dataclass(frozen=True)
class IngestConfig:
    """What decides the content of clips."""

    resolution: int = 256
    """Side of the aligned faces."""
    scorer: str = MOUTH_AUDIO
    """Name of the scorer that measures the offset between lips and audio."""
    scorer_weights: str = ""
    """Weights of a scorer that needs some: a file, a folder, or a name in the weights table."""
    weights_digest: str = ""
    """Their `tasks.weights.by_name.weights_digest`."""
    quality: bool = False
    """Whether HyperIQA's score of the faces is measured."""
    min_frames: int = 50
    """Shortest clip, frames at 25 fps."""
    max_clip_frames: int = 250
    """Longest clip; longer tracks become several."""
    min_face_px: float = 48.0
    """Smaller faces have no detail to learn from, whatever the thresholds say."""
    max_faces: int = 2
    """Most faces followed at once."""
    face_choice: str = IN_SYNC
    """Which of several faces is used: the one in sync with the sound, or the largest."""
    crf: int = 15
    """x264's quality of the aligned faces."""
    crop: str = CROP
    """Name of their alignment."""
    offsets: str = CORRECTED
    """Whether the sound of clips is moved by the measured offset, or stays as it was recorded."""
    shots: bool = True
    """Whether files are searched for cuts; not where each is one shot."""
    speech: bool = True
    """Whether speech is told from other sound."""

    def __post_init__(self) -> None:
        if self.face_choice not in POLICIES:
            raise ValueError(
                f"there is no face choice {self.face_choice!r}: choose {' or '.join(POLICIES)}"
            )
        if self.offsets not in OFFSETS:
            raise ValueError(f"offsets can be {' or '.join(OFFSETS)}, got {self.offsets!r}")
        if not 1 <= self.min_frames <= self.max_clip_frames / 2:
            raise ValueError(
                f"clips of {self.min_frames} to {self.max_clip_frames} frames are not possible: "
                "the longest must be at least twice the shortest"
            )

    def key(self) -> dict[str, object]:
        """The key of stored results: everything but the place of the weights."""
        key = {name: value for name, value in asdict(self).items() if name != "scorer_weights"}
        # What was stored before there was a choice stays valid.
        if self.offsets == CORRECTED:
            del key["offsets"]
        if self.shots:
            del key["shots"]
        if self.speech:
            del key["speech"]
        return key

    @property
    def reach(self) -> int:
        """Most frames since the start of a clip that is not complete yet."""
        return self.max_clip_frames + max(self.min_frames, self.max_clip_frames // 2) + 10


@dataclass(frozen=True)
class Tools:
    """What a worker loads once."""

    detector: FaceDetector
    scorer: OffsetScorer
    quality: QualityScorer | None = None
    voice: Callable[[np.ndarray], np.ndarray] | None = None
    """Probability of speech (frames,) in sound, float32 (frames * 640,) at 16 kHz; None: speech is
    not told from other sound, and still lips are no fault."""
    lips: bool = False
    """Whether lips and sound are compared frame by frame."""

    @property
    def need_faces(self) -> bool:
        """Whether any of the tools looks at the aligned faces."""
        return self.scorer.needs_frames or self.quality is not None
