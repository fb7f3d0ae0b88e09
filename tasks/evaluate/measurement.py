"""What is measured on the videos of one clip, and the file that keeps it until all clips are there.

A record is complete or absent, so an evaluation that was killed measures only the clips without
one; numbers are computed from records alone, whoever wrote them and when.
"""

import json
import math
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from datasets.store.atomic import replacing
from tasks.evaluate.metrics import ClipScores

MODEL = "model"
"""Name of the judged model among the trivial ones."""
ABOUT = "about"


@dataclass(frozen=True)
class SetLabel:
    """Who describes the pictures or windows of a set."""

    label: str
    """Names the network."""
    dim: int
    """Length of its feature vectors."""


@dataclass(frozen=True)
class Labels:
    """The names of what measures, as they stand in the numbers' labels."""

    judge: str
    classifier: str
    lpips: str
    mouth: str
    identity: str
    """Empty: no face embedding was given."""
    sets: Mapping[str, SetLabel] = field(default_factory=dict)
    """Name of a set -> its network."""


@dataclass(frozen=True, eq=False)
class Measurement:
    """What was measured on one model's videos of a clip."""

    values: Mapping[str, float]
    """NaN, or infinite, where there is no number."""
    reasons: Mapping[str, str]
    """Why there is none."""
    distances: Mapping[str, list[float]]
    """Kind of video -> distance of lips and sound at each of 31 shifts."""
    fake: Mapping[str, np.ndarray]
    """Name of a set -> features of generated pictures, float64 (n, dim)."""
    real: Mapping[str, np.ndarray]
    """The same of the real pictures; shared by all models."""

    def scores(self, clip_id: str) -> ClipScores:
        """As JSON has it."""
        values = {
            name: value if math.isfinite(value) else None for name, value in self.values.items()
        }
        return {"clip_id": clip_id, "values": values, "distances": dict(self.distances)}


@dataclass(frozen=True, eq=False)
class ClipRecord:
    """All that is known of one clip."""

    clip_id: str
    speaker: str
    labels: Labels
    models: Mapping[str, Measurement]
    """`MODEL`, and the names of trivial models."""
    sheet: Mapping[str, np.ndarray] = field(default_factory=dict)
    """Row of the contact sheet -> its frames, uint8 (columns, R, R, 3); empty beyond the first
    clips."""
    bf16: bool = False
    """Whether its videos were made in bf16."""


def write_record(path: Path, record: ClipRecord) -> None:
    """Write a record, durably."""
    arrays: dict[str, Any] = {f"sheet/{name}": each for name, each in record.sheet.items()}
    models = {}
    for name, found in record.models.items():
        arrays |= {f"fake/{name}/{each}": array for each, array in found.fake.items()}
        models[name] = [dict(found.values), dict(found.reasons), dict(found.distances)]
    real = next(iter(record.models.values())).real
    arrays |= {f"real/{each}": array for each, array in real.items()}
    about = {
        "clip_id": record.clip_id,
        "speaker": record.speaker,
        "labels": asdict(record.labels),
        "models": models,
        "bf16": record.bf16,
    }
    arrays[ABOUT] = np.frombuffer(json.dumps(about).encode(), np.uint8)
    with replacing(path) as file:
        np.savez(file, **arrays)


def read_record(path: Path) -> ClipRecord | None:
    """A record; None if there is none that can be read."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return _record(json.loads(arrays[ABOUT].tobytes()), arrays)
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile):
        return None


def _record(about: Mapping[str, Any], arrays: Any) -> ClipRecord:
    def below(prefix: str) -> dict[str, np.ndarray]:
        names = [name for name in arrays.files if name.startswith(prefix)]
        return {name.removeprefix(prefix): arrays[name] for name in names}

    real = below("real/")
    models = {
        name: Measurement(values, reasons, distances, below(f"fake/{name}/"), real)
        for name, (values, reasons, distances) in about["models"].items()
    }
    labels = about["labels"]
    sets = {name: SetLabel(**each) for name, each in labels.pop("sets").items()}
    return ClipRecord(
        about["clip_id"],
        about["speaker"],
        Labels(**labels, sets=sets),
        models,
        below("sheet/"),
        about["bf16"],
    )
