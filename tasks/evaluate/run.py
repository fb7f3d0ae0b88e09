"""How good a model is: videos of clips it has never seen, and numbers with labels.

Two videos per clip (the protocol of LatentSync, section 4): *reconstruction* gives the
clip's own speech back to it, *cross* gives it the speech of another test clip. Some clips get a
third one, from *silence*, which shows what lips take from the input. Each clip is decoded,
generated, measured and drawn before the next one. Generated frames are kept until all numbers are
there, so an interrupted evaluation goes on.
"""

import json
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np

from datasets.errors import UserError
from datasets.faces.landmarks import FaceMeshDetector, head_pose, mouth_opening
from datasets.faces.points import SHAPE
from datasets.media import FPS, SAMPLE_RATE, SAMPLES_PER_FRAME, VideoWriter, write_flac
from datasets.shards.clips import ClipStore
from datasets.store.atomic import replacing, write_atomic
from datasets.store.manifest import config_digest
from models.latentsync.sampling import bf16_pays
from tasks.evaluate.baselines import BASELINES, Baseline, baseline_video
from tasks.evaluate.clips import (
    CLIP_LIST,
    ClipList,
    Kind,
    OpenClip,
    freeze,
    open_clip,
    open_test_clips,
    read_clip_list,
    write_clip_list,
)
from tasks.evaluate.metrics import ClipScores
from tasks.evaluate.plots import SheetRow, contact_sheet, evaluation_page, sheet_frames
from tasks.evaluate.scores import Scores
from tasks.evaluate.transcripts import Transcripts
from tasks.lipsync.generator import FaceGenerator
from tasks.lipsync.references import check_reference, make_references
from tasks.recipes.evaluation import PROTOCOL, EvaluationConfig
from tasks.registry.metric import Evaluation
from tasks.runtime.device import resolve_device
from tasks.weights.bundle import bundle_digest, read_bundle
from tasks.weights.by_name import weights_digest

EVALUATION = "evaluation.json"
DETAILS = "details.json"
CONTACT_SHEET = "contact_sheet.png"
PLOTS = "plots.png"
WORK = ".generated"
"""Folder of frames that are not judged yet; hidden, since its content is deleted."""
SHEET_CLIPS = 6
"""Clips on the contact sheet."""

Line = Callable[[str], None]


def read_evaluation(output: Path) -> Evaluation:
    """Read what `evaluate` wrote: metrics, clips, configuration and digests.

    Raises:
        UserError: there is no evaluation.
    """
    try:
        content = json.loads((output / EVALUATION).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(
            f"{output} does not hold an evaluation: run evaluate_latentsync first"
        ) from error
    if not isinstance(content, dict) or "metrics" not in content:
        raise UserError(f"{output / EVALUATION} is not an evaluation: delete it and run again")
    return cast(Evaluation, content)


def evaluate(
    bundle_dir: Path,
    dataset: Path,
    output: Path,
    config: EvaluationConfig,
    device: str = "cpu",
    progress: Line | None = None,
) -> Evaluation:
    """Generate, measure, and write videos, plots and `evaluation.json` to `output`.

    If the same evaluation was done before, its result is read back.

    Args:
        bundle_dir: a trained bundle.
        dataset: folder with `index.json`.
        output: folder of the results.
        config: which clips to use, and how.
        device: cpu, cuda, cuda:N or mps.
        progress: called with lines of progress.

    Returns:
        What `evaluation.json` holds.

    Raises:
        UserError: there is no usable clip, or a file of weights is missing.
        ModelFileError: the bundle or weights are damaged.
    """

    say = progress or (lambda line: None)
    began = time.monotonic()
    about = read_bundle(bundle_dir)
    # Resolved to a name: numbers made with a face's own mouth as reference compare only among
    # themselves.
    config = replace(config, reference=config.reference or about["reference"])
    check_reference(config.reference)
    store, split = open_test_clips(dataset, int(about["resolution"]), about["crop"])
    wanted = read_clip_list(Path(config.clip_list)) if config.clip_list else None
    transcripts = Transcripts(Path(config.transcripts) if config.transcripts else None)
    tests = freeze(
        store,
        split,
        config.clips,
        config.frames_per_clip,
        wanted,
        config.silent_clips,
        min(config.silent_frames, config.frames_per_clip),
    )
    judge_bundle = Path(config.judge_bundle) if config.judge_bundle else bundle_dir
    said = transcripts.digest(clip.clip_id for clip in tests.clips)
    protocol = _protocol(config, tests.digest, judge_bundle, said)
    model = bundle_digest(bundle_dir)
    for warning in tests.warnings:
        say(f"{tests.title}: {warning}")
    if (done := _read_finished(output, protocol, model)) is not None:
        say(f"{tests.title}: {len(tests.clips)} clips are already done, and nothing has changed")
        return done
    output.mkdir(parents=True, exist_ok=True)
    (output / EVALUATION).unlink(missing_ok=True)
    write_clip_list(output / CLIP_LIST, tests)
    key = config_digest({"tests": tests.digest, "model": model, "config": _settings(config)})
    work = _make_work_folder(output, key)
    with FaceMeshDetector(max_faces=1) as detector:
        # Before hours of generating: a file that is not a judge must be reported now.
        place = resolve_device(device)
        scores = Scores(judge_bundle, config, place, tests, detector)

        def load() -> FaceGenerator:
            return FaceGenerator(
                bundle_dir,
                device,
                config.steps,
                config.guidance,
                config.seed,
                reference=config.reference,
            )

        generated = GeneratedFrames(work, tests, load, say)
        trivial: dict[Baseline, Scores] = {name: scores.sibling() for name in BASELINES}
        compared = Compared(scores, trivial, config.reference)
        details, rows = evaluate_clips(store, tests, generated, compared, output, say, transcripts)
    say(f"{tests.title}: drawing intervals")
    metrics = scores.metrics()
    baselines = {str(name): each.metrics() for name, each in trivial.items()}
    contact_sheet(output / CONTACT_SHEET, rows)
    which = "test" if tests.split == "test" else "TRAINING"
    heading = f"{len(details)} {which} clip{'s' * (len(details) != 1)}"
    evaluation_page(output / PLOTS, metrics, details, heading, baselines)
    content: Evaluation = {
        "protocol_digest": protocol,
        "model_digest": model,
        "metrics": metrics,
        "baselines": baselines,
        "split": tests.split,
        "warnings": list(tests.warnings),
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
    return content


def _settings(config: EvaluationConfig) -> dict[str, object]:
    """The part of a configuration that the generated frames depend on."""
    return {name: getattr(config, name) for name in ("steps", "guidance", "seed", "reference")}


def _protocol(
    config: EvaluationConfig, tests: str, judge_bundle: Path, transcripts: str = ""
) -> str:
    """Digest of everything that must be equal for two models' numbers to be compared."""
    files = ("syncnet", "stable_syncnet", "inception", "i3d", "lpips")
    given = {name: getattr(config, f"{name}_weights") for name in files}
    used = {name: weights_digest(weights) if weights else "" for name, weights in given.items()}
    if not config.syncnet_weights:
        folder = judge_bundle / "syncnet"
        used["judge"] = bundle_digest(folder) if folder.is_dir() else ""
    limits = {name: getattr(config, name) for name in ("image_frames", "video_windows")}
    return config_digest(
        {
            "version": PROTOCOL,
            "tests": tests,
            "transcripts": transcripts,
            **_settings(config),
            **limits,
            **used,
        }
    )


def _read_finished(output: Path, protocol: str, model: str) -> Evaluation | None:
    """The earlier evaluation of the same model by the same protocol, if there is one."""
    try:
        content = read_evaluation(output)
    except UserError:
        return None
    same = content.get("protocol_digest") == protocol and content.get("model_digest") == model
    return content if same else None


def _make_work_folder(output: Path, key: str) -> Path:
    """The folder for generated frames; those of another model or setting are removed."""
    folder = output / WORK / key[:16]
    for other in (output / WORK).glob("*"):
        if other != folder:
            shutil.rmtree(other, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


class GeneratedFrames:
    """The videos of all clips as arrays, kept in a folder until they are judged.

    The model is loaded when frames are first missing and released after the last ones.

    Args:
        folder: that of this model and these settings; frames in it are used again.
        tests: the frozen list.
        load: loads the model.
        say: called with lines about what was generated.
    """

    def __init__(
        self, folder: Path, tests: ClipList, load: Callable[[], FaceGenerator], say: Line
    ) -> None:
        self.folder, self.tests = folder, tests
        self._load, self._say = load, say
        self._generator: FaceGenerator | None = None
        paths = {
            self._path(number, kind)
            for number, clip in enumerate(tests.clips)
            for kind in clip.kinds
        }
        self._missing = {path for path in paths if not path.is_file()}

    def _path(self, number: int, kind: Kind) -> Path:
        return self.folder / f"{number:03d}-{kind}.npy"

    def video(self, number: int, clip: OpenClip, kind: Kind) -> np.ndarray:
        """uint8 (t, R, R, 3): read if it exists, otherwise generated.

        Args:
            number: index of the clip in the list.
            clip: the clip.
            kind: which of its videos to make.
        """
        path = self._path(number, kind)
        if path not in self._missing:
            return np.asarray(np.load(path))
        if self._generator is None:
            self._generator = self._load()
        count = clip.length(kind)
        painted = generate(
            self._generator, clip.frames[:count], clip.heard(kind), clip.landmarks[:count]
        )
        with replacing(path) as file:
            np.save(file, painted)
        self._missing.remove(path)
        if not self._missing:
            self._generator = None
        done = f"{number + 1}/{len(self.tests.clips)}"
        self._say(f"{self.tests.title}: {kind} {done}, {len(painted)} frames")
        return painted


def generate(
    generator: Any, frames: np.ndarray, audio: np.ndarray, landmarks: np.ndarray
) -> np.ndarray:
    """Repaint the lips of a whole clip of aligned faces, uint8 (t, R, R, 3), as in lip-sync.

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
        landmarks[:, SHAPE],
    )
    times = np.arange(len(frames)) / FPS
    stream = generator.stream(iter(frames), times, generator.speech(audio), references)
    return np.stack(list(stream))


@dataclass(frozen=True)
class Compared:
    """The scores of the model and of trivial ones, side by side."""

    model: Scores
    trivial: Mapping[Baseline, Scores]
    reference: str
    """How references are chosen."""

    def add(self, clip: OpenClip, videos: Mapping[Kind, np.ndarray]) -> ClipScores:
        """Measure a clip's videos of all of them; returns the model's measurements."""
        found = self.model.add(
            clip, videos["reconstruction"], videos["cross"], videos.get("silence")
        )
        for name, scores in self.trivial.items():
            made = {
                kind: baseline_video(name, clip, kind, frames, self.reference)
                for kind, frames in videos.items()
            }
            scores.add(clip, made["reconstruction"], made["cross"], made.get("silence"))
        return found


def evaluate_clips(
    store: ClipStore,
    tests: ClipList,
    generated: GeneratedFrames,
    scores: Compared,
    output: Path,
    say: Line,
    transcripts: Transcripts | None = None,
) -> tuple[list[ClipScores], list[SheetRow]]:
    """Generate, measure and draw one clip after another.

    Returns:
        The measurements of each, and rows for the contact sheet.
    """
    details: list[ClipScores] = []
    rows: list[SheetRow] = []
    for number, chosen in enumerate(tests.clips):
        clip = open_clip(store, chosen, transcripts)
        found, shown = _evaluate_clip(number, clip, generated, scores, output)
        say(f"{tests.title}: measured {number + 1}/{len(tests.clips)} clips")
        details.append(found)
        if number < SHEET_CLIPS:
            rows += shown
    return details, rows


def _evaluate_clip(
    number: int, clip: OpenClip, generated: GeneratedFrames, scores: Compared, output: Path
) -> tuple[ClipScores, list[SheetRow]]:
    """Process one clip; afterwards only the frames on the contact sheet are held."""
    name = clip.chosen.clip_id
    videos = {kind: generated.video(number, clip, kind) for kind in clip.chosen.kinds}
    found = scores.add(clip, videos)
    for kind, frames in videos.items():
        path = output / kind / f"{name}.mp4"
        write_video(path, frames, clip.heard(kind), generated.folder)
    shown = [("input", clip.frames), *videos.items()]
    return found, [(name, what, sheet_frames(frames)) for what, frames in shown]


def write_video(path: Path, frames: np.ndarray, audio: np.ndarray, scratch: Path) -> None:
    """Write a video with sound.

    Args:
        path: the mp4 to write.
        frames: uint8 (t, R, R, 3) at 25 fps.
        audio: float32 (samples,) at 16 kHz; anything after the last frame is left out.
        scratch: folder for temporary files.
    """
    path.parent.mkdir(exist_ok=True)
    sound = scratch / "sound.flac"
    write_flac(sound, audio[: len(frames) * SAMPLES_PER_FRAME], SAMPLE_RATE)
    side = frames.shape[1]
    with VideoWriter(path, side, side, FPS, crf=16, audio=sound) as writer:
        for frame in frames:
            writer.write(frame)
