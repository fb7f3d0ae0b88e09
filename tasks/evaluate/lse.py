"""LSE-C and LSE-D as tables of LRS2 and LRS3 state them, beside Sync-C and Sync-D as we measure.

Both are SyncNet's confidence and distance. The program behind those tables scales whole frames of
the finished video to 224 x 224, without looking for a face, since an LRS video shows little else;
ours looks at aligned crops. So whole videos are made, as lip-sync makes them, and seen in both
ways. The sound's features are zero beyond both ends of a clip, as published: on clips of a second
or two that is in most of the distances, and such numbers compare with those tables alone.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from datasets.errors import SourceError, UserError
from datasets.faces.alignment import Aligner, align
from datasets.faces.landmarks import FaceMeshDetector
from datasets.media import FPS, read_audio, read_frames
from datasets.store.atomic import content_digest, write_atomic
from datasets.store.manifest import config_digest
from tasks.evaluate.leakage import MIN_FACES, no_face
from tasks.evaluate.lse_pairs import Pair, read_clip_pairs, read_pairs
from tasks.evaluate.protocol import settings
from tasks.evaluate.row import Row
from tasks.lipsync.playback import CUT
from tasks.lipsync.video import lip_sync_video
from tasks.recipes.evaluation import EvaluationConfig
from tasks.registry.intervals import with_interval
from tasks.registry.metric import Metric, metric
from tasks.runtime.device import resolve_device
from tasks.sync.networks import SyncNetV2, load_third_party_syncnet
from tasks.weights.bundle import bundle_digest, read_bundle
from tasks.weights.by_name import weights_digest

SIDE = 224
"""Height and width to which whole frames are scaled, whatever their shape."""
RESULT = "lse.json"
Say = Callable[[str], None]
WHOLE = (
    "syncnet_v2, whole frames of the finished video at 224 x 224 without face detection, clips "
    "from 21 frames, search of 15 frames either way; compares with LSE in tables of LRS2 and LRS3 "
    "if the pairs are theirs"
)
CROPS = "syncnet_v2 on aligned crops of the same videos; compares with evaluations by this program"
LABELS = {"lse_c": WHOLE, "lse_d": WHOLE, "sync_c": CROPS, "sync_d": CROPS}


@dataclass(frozen=True)
class PairResult:
    """What was measured on one pair."""

    pair: Pair
    row: Row


def evaluate_lse(
    bundle: Path,
    source: Path,
    output: Path,
    config: EvaluationConfig,
    device: str,
    say: Say,
    clip_pairs: Path | None = None,
) -> dict[str, Any]:
    """Lip-sync pairs and judge the finished videos in both ways.

    Args:
        bundle: the model.
        source: see `read_pairs`.
        output: folder of the videos, one JSON file per pair, and `lse.json`. Pairs that are done
            are not done again.
        config: `clips` is the most pairs; `syncnet_weights` must be given.
        device: cpu, cuda, cuda:N or mps.
        say: called with lines of progress.
        clip_pairs: a list of clips of LRS2 or LRS3 below `source`, see `read_clip_pairs`.

    Returns:
        What `lse.json` holds: metrics with labels and intervals, and the pairs.

    Raises:
        UserError: there are no pairs, or no weights of SyncNet.
        ModelFileError: weights are damaged.
    """
    if not config.syncnet_weights:
        raise UserError(
            "--lse needs --syncnet-weights: LSE is what syncnet_v2 says, and no other network's "
            "numbers compare with it"
        )
    about = read_bundle(bundle)
    config = replace(config, reference=config.reference or about["reference"])
    if clip_pairs is None:
        pairs = read_pairs(source, config.clips)
    else:
        pairs = read_clip_pairs(clip_pairs, source, config.clips)
    judge = load_third_party_syncnet(config.syncnet_weights, resolve_device(device))
    made_by = {
        **settings(config),
        "model": bundle_digest(bundle),
        "syncnet": weights_digest(config.syncnet_weights),
        "resolution": about["resolution"],
    }
    results = []
    with FaceMeshDetector(max_faces=1) as detector:
        look = Look(judge, detector, int(about["resolution"]))
        for number, pair in enumerate(pairs, 1):
            if pair.reason:
                row = _lacking(pair.reason)
                say(f"LSE: left out: {pair.reason}")
            else:
                row = _measured(pair, bundle, output, config, device, made_by, look)
            results.append(PairResult(pair, row))
            say(f"LSE: {number}/{len(pairs)} pairs")
    content = {
        "metrics": summarise_pairs(results),
        "pairs": [
            {
                "name": each.pair.name,
                "video": str(each.pair.video),
                "audio": str(each.pair.audio),
                "values": {k: v if math.isfinite(v) else None for k, v in each.row.values.items()},
                "reasons": each.row.reasons,
            }
            for each in results
        ],
    }
    write_atomic(output / RESULT, json.dumps(content, indent=2, ensure_ascii=False) + "\n")
    return content


def _measured(
    pair: Pair,
    bundle: Path,
    output: Path,
    config: EvaluationConfig,
    device: str,
    made_by: Mapping[str, Any],
    look: "Look",
) -> Row:
    """The numbers of a pair: read back if nothing has changed, otherwise measured."""
    key = config_digest(
        {**made_by, "video": content_digest(pair.video), "audio": content_digest(pair.audio)}
    )
    kept = output / "pairs" / f"{pair.name}.json"
    try:
        found = json.loads(kept.read_text(encoding="utf-8"))
        if found["key"] == key:
            return Row(found["values"], found["reasons"])
    except (OSError, ValueError, KeyError, TypeError):
        pass
    made = output / "videos" / f"{pair.name}.mp4"
    row = Row()
    try:
        lip_sync_video(
            pair.video,
            pair.audio,
            made,
            bundle,
            device=device,
            steps=config.steps,
            guidance=config.guidance,
            seed=config.seed,
            reference=config.reference,
            # As the published program converts them first, and lips that end with the sound.
            fps=FPS,
            length=CUT,
        )
        look.note(row, made)
    except (UserError, SourceError) as error:
        return _lacking(str(error))
    write_atomic(kept, json.dumps({"key": key, "values": row.values, "reasons": row.reasons}))
    return row


def _lacking(reason: str) -> Row:
    """A pair that fails is a row with a reason."""
    row = Row()
    for name in LABELS:
        row.lack(name, reason)
    return row


class Look:
    """Sees a finished video in both ways.

    Args:
        judge: SyncNet.
        detector: finds the face for the crops.
        resolution: side of the crops.
    """

    def __init__(self, judge: SyncNetV2, detector: FaceMeshDetector, resolution: int) -> None:
        self.judge, self.detector, self.resolution = judge, detector, resolution

    def note(self, row: Row, video: Path) -> None:
        """Take the numbers of a video with its own sound.

        Raises:
            SourceError: it cannot be read.
        """
        wave = read_audio(video)
        whole, crops, seen = [], list[np.ndarray](), list[bool]()
        aligner = Aligner(self.resolution)
        self.detector.reset()
        for frame in read_frames(video, fps=FPS):
            whole.append(cv2.resize(frame.rgb, (SIDE, SIDE)))
            faces = self.detector.detect(frame.picture)
            seen.append(bool(faces))
            if faces:
                matrix = aligner.matrix(faces[0].landmarks)
            if any(seen):
                # Where the face is lost, it is looked for where it was.
                crops.append(align(frame.picture, matrix, self.resolution))
        found = self.judge.curve(np.stack(whole), wave)
        short = f"videos of {len(whole)} frames are too short: {self.judge.min_frames} are needed"
        self._take(row, "lse", found.confidence, found.distance, short)
        share = float(np.mean(seen))
        if share < MIN_FACES:
            row.lack("sync_c", no_face(share))
            row.lack("sync_d", no_face(share))
            return
        late = len(whole) - len(crops)
        crops = [crops[0]] * late + crops
        found = self.judge.curve(np.stack(crops), wave)
        self._take(row, "sync", found.confidence, found.distance, short)

    @staticmethod
    def _take(row: Row, name: str, confidence: float, distance: float, short: str) -> None:
        for letter, value in (("c", confidence), ("d", distance)):
            row.note(f"{name}_{letter}", value, "" if math.isfinite(value) else short)


def summarise_pairs(results: Sequence[PairResult]) -> dict[str, Metric]:
    """Means over the pairs, with intervals over speakers."""
    found = {}
    for name, label in LABELS.items():
        known = [each for each in results if math.isfinite(each.row.values[name])]
        values = np.array([each.row.values[name] for each in known])
        reasons = [each.row.reasons[name] for each in results if name in each.row.reasons]
        value = float(values.mean()) if len(values) else math.nan
        entry = metric(value, label, len(values), reasons[-1] if reasons else "")

        def of(chosen: np.ndarray, values: np.ndarray = values) -> float:
            return float(values[chosen].mean())

        found[name] = with_interval(entry, name, [each.pair.speaker for each in known], of)
    return found
