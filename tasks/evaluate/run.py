"""How good a model is: videos of clips it has never seen, and numbers with labels.

Two videos per clip (the protocol of LatentSync, section 4): *reconstruction* gives the
clip's own speech back to it, *cross* gives it the speech of another test clip. Generated
frames are kept until all numbers are there, so an interrupted evaluation goes on.
"""

import json
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from datasets.errors import UserError
from datasets.faces.landmarks import FaceMeshDetector, head_pose, mouth_opening
from datasets.media import FPS, SAMPLE_RATE, VideoWriter, write_flac
from datasets.store.atomic import replacing, write_atomic
from datasets.store.manifest import config_digest
from models.latentsync.sampling import bf16_pays
from tasks.evaluate.clips import (
    CLIP_LIST,
    ClipList,
    driving_audio,
    freeze,
    open_test_clips,
    read_clip_list,
    write_clip_list,
)
from tasks.evaluate.plots import contact_sheet, evaluation_page, sheet_frames
from tasks.evaluate.scores import Scores
from tasks.lipsync.generator import FaceGenerator
from tasks.lipsync.references import check_reference, make_references
from tasks.recipes.evaluation import PROTOCOL, EvaluationConfig
from tasks.registry.metric import Metric
from tasks.runtime.device import resolve_device
from tasks.weights.bundle import bundle_digest, read_bundle
from tasks.weights.by_name import weights_digest

EVALUATION = "evaluation.json"
DETAILS = "details.json"
CONTACT_SHEET = "contact_sheet.png"
PLOTS = "plots.png"
WORK = ".generated"
"""Frames that are not judged yet; hidden, since whatever lies there goes."""
SHEET_CLIPS = 6
"""Clips on the contact sheet."""

Line = Callable[[str], None]


def read_evaluation(output: Path) -> dict[str, Any]:
    """What `evaluate` wrote: metrics, clips, configuration and digests.

    Raises:
        UserError: there is none.
    """
    try:
        content = json.loads((output / EVALUATION).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{output} holds no evaluation: run evaluate_latentsync first") from error
    if not isinstance(content, dict) or "metrics" not in content:
        raise UserError(f"{output / EVALUATION} is no evaluation: delete it and run again")
    return content


def evaluate(
    bundle_dir: Path,
    dataset: Path,
    output: Path,
    config: EvaluationConfig,
    device: str = "cpu",
    progress: Line | None = None,
) -> dict[str, Metric]:
    """Generate, measure, and write videos, plots and `evaluation.json` to `output`.

    When the same was done before, the numbers are read back.

    Args:
        bundle_dir: a trained bundle.
        dataset: folder with `index.json`.
        output: folder of the results.
        config: which clips and how.
        device: cpu, cuda, cuda:N or mps.
        progress: told in lines how far it is.

    Returns:
        name -> value, label, n.

    Raises:
        UserError: no usable clip, or a file of weights is missing.
        ModelFileError: the bundle or weights are damaged.
    """

    say = progress or (lambda line: None)
    began = time.monotonic()
    about = read_bundle(bundle_dir)
    # By its name, since numbers of faces that show their own mouth compare with no others.
    config = replace(config, reference=config.reference or about["reference"])
    check_reference(config.reference)
    store, split = open_test_clips(dataset, int(about["resolution"]), about["crop"])
    wanted = read_clip_list(Path(config.clip_list)) if config.clip_list else None
    tests = freeze(store, split, config.clips, config.frames_per_clip, wanted)
    judge_bundle = Path(config.judge_bundle) if config.judge_bundle else bundle_dir
    protocol = _protocol(config, tests.digest, judge_bundle)
    model = bundle_digest(bundle_dir)
    for warning in tests.warnings:
        say(f"{tests.title}: {warning}")
    if (done := _finished(output, protocol, model)) is not None:
        say(f"{tests.title}: {len(tests.clips)} clips were done before, nothing has changed")
        return done
    output.mkdir(parents=True, exist_ok=True)
    (output / EVALUATION).unlink(missing_ok=True)
    write_clip_list(output / CLIP_LIST, tests)
    key = config_digest({"tests": tests.digest, "model": model, "config": _settings(config)})
    work = _work_folder(output, key)
    with FaceMeshDetector(max_faces=1) as detector:
        # Before the hours of generating: a file that is no judge is a mistake to hear of now.
        place = resolve_device(device)
        scores = Scores(judge_bundle, config, place, tests, detector)
        _generate_all(bundle_dir, store, tests, work, config, device, say)
        details = _measure_all(store, tests, work, scores, say)
    metrics = scores.metrics()
    _write_pictures(output, store, tests, work, metrics, details)
    content = {
        "protocol_digest": protocol,
        "model_digest": model,
        "metrics": metrics,
        "split": tests.split,
        "warnings": tests.warnings,
        "clips": [clip.clip_id for clip in tests.clips],
        "config": asdict(config),
        "device": str(place),
        "bf16": bf16_pays(place),
        "mask": about["mask"],
        "crop": about["crop"],
        "reference": config.reference,
        "seconds": time.monotonic() - began,
    }
    write_atomic(output / DETAILS, json.dumps(details) + "\n")
    write_atomic(output / EVALUATION, json.dumps(content, indent=2, ensure_ascii=False) + "\n")
    shutil.rmtree(output / WORK, ignore_errors=True)
    return metrics


def _settings(config: EvaluationConfig) -> dict[str, Any]:
    """The part of a configuration that the generated frames depend on."""
    return {name: getattr(config, name) for name in ("steps", "guidance", "seed", "reference")}


def _protocol(config: EvaluationConfig, tests: str, judge_bundle: Path) -> str:
    """Digest of everything that must be equal for two models' numbers to be compared."""
    files = ("syncnet", "stable_syncnet", "inception", "i3d", "lpips")
    given = {name: getattr(config, f"{name}_weights") for name in files}
    used = {name: weights_digest(weights) if weights else "" for name, weights in given.items()}
    if not config.syncnet_weights:
        folder = judge_bundle / "syncnet"
        used["judge"] = bundle_digest(folder) if folder.is_dir() else ""
    limits = {name: getattr(config, name) for name in ("image_frames", "video_windows")}
    return config_digest(
        {"version": PROTOCOL, "tests": tests, **_settings(config), **limits, **used}
    )


def _finished(output: Path, protocol: str, model: str) -> dict[str, Metric] | None:
    """The metrics of an evaluation of the same model by the same protocol."""
    try:
        content = read_evaluation(output)
    except UserError:
        return None
    same = content.get("protocol_digest") == protocol and content.get("model_digest") == model
    return content["metrics"] if same else None


def _work_folder(output: Path, key: str) -> Path:
    """Where generated frames are kept; those of another model or setting are removed."""
    folder = output / WORK / key[:16]
    for other in (output / WORK).glob("*"):
        if other != folder:
            shutil.rmtree(other, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _generate_all(
    bundle: Path,
    store: Any,
    tests: ClipList,
    work: Path,
    config: EvaluationConfig,
    device: str,
    say: Line,
) -> None:
    """Write reconstruction and cross frames of every clip that are not there yet."""

    generator = None
    for number, clip in enumerate(tests.clips):
        for kind in ("reconstruction", "cross"):
            path = work / f"{number:03d}-{kind}.npy"
            if path.is_file():
                continue
            if generator is None:
                generator = FaceGenerator(
                    bundle,
                    device,
                    config.steps,
                    config.guidance,
                    config.seed,
                    reference=config.reference,
                )
            own = kind == "reconstruction"
            frames = store.frames(clip.clip_id)[: clip.frames if own else clip.cross_frames]
            audio = store.audio(clip.clip_id) if own else driving_audio(store, clip)
            landmarks = store.landmarks(clip.clip_id)[: len(frames)]
            painted = generate(generator, frames, audio, landmarks)
            with replacing(path) as file:
                np.save(file, painted)
            done = f"{number + 1}/{len(tests.clips)}"
            say(f"{tests.title}: {kind} {done}, {len(painted)} frames")


def generate(
    generator: Any, frames: np.ndarray, audio: np.ndarray, landmarks: np.ndarray
) -> np.ndarray:
    """A whole clip of aligned faces with new lips, uint8 (t, R, R, 3), made as in lip-sync.

    Args:
        generator: a `FaceGenerator`.
        frames: uint8 (t, R, R, 3).
        audio: float32 (samples,) at 16 kHz.
        landmarks: (t, 478, 2) of the frames.
    """

    references = make_references(
        generator.reference,
        head_pose(landmarks),
        mouth_opening(landmarks),
        lambda positions: frames[list(positions)],
    )
    times = np.arange(len(frames)) / FPS
    stream = generator.stream(iter(frames), times, generator.speech(audio), references)
    return np.stack(list(stream))


def _measure_all(
    store: Any, tests: ClipList, work: Path, scores: Any, say: Line
) -> list[dict[str, Any]]:
    """Give the generated frames of every clip to `scores`; what it found for each."""
    details = []
    for number, clip in enumerate(tests.clips):
        reconstruction = np.load(work / f"{number:03d}-reconstruction.npy")
        cross = np.load(work / f"{number:03d}-cross.npy")
        details.append(scores.add(store, clip, reconstruction, cross))
        say(f"{tests.title}: measured {number + 1}/{len(tests.clips)} clips")
    return details


def _write_pictures(
    output: Path,
    store: Any,
    tests: ClipList,
    work: Path,
    metrics: dict[str, Metric],
    details: list[dict[str, Any]],
) -> None:
    """Videos of every clip, the contact sheet and the page of plots."""

    rows = []
    for number, clip in enumerate(tests.clips):
        shown = [("input", store.frames(clip.clip_id)[: clip.frames])]
        for kind in ("reconstruction", "cross"):
            frames = np.load(work / f"{number:03d}-{kind}.npy")
            own = kind == "reconstruction"
            audio = store.audio(clip.clip_id) if own else driving_audio(store, clip)
            folder = output / kind
            folder.mkdir(exist_ok=True)
            sound = work / "sound.flac"
            write_flac(sound, audio[: len(frames) * SAMPLE_RATE // FPS], SAMPLE_RATE)
            side = frames.shape[1]
            path = folder / f"{clip.clip_id}.mp4"
            with VideoWriter(path, side, side, FPS, crf=16, audio=sound) as writer:
                for frame in frames:
                    writer.write(frame)
            shown.append((kind, frames))
        if number < SHEET_CLIPS:
            rows += [(clip.clip_id, kind, sheet_frames(frames)) for kind, frames in shown]
    contact_sheet(output / CONTACT_SHEET, rows)
    kind = "test" if tests.split == "test" else "TRAINING"
    heading = f"{len(details)} {kind} clip{'s' * (len(details) != 1)}"
    evaluation_page(output / PLOTS, metrics, details, heading)
