"""How good a model is: videos of clips it has never seen, and numbers with labels.

Two videos per clip (the protocol of LatentSync, section 4): *reconstruction* gives the
clip's own speech back to it, *cross* gives it the speech of another test clip. Some clips get a
third one, from *silence*, which shows what lips take from the input. Clips are worked on one by one
or by Ray's workers, and each is kept when it is done, so an interrupted evaluation goes on.
"""

import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, cast

from datasets.errors import UserError
from datasets.shards.clip_facts import read_facts
from datasets.store.atomic import write_atomic
from datasets.store.manifest import config_digest
from tasks.evaluate.clip_stage import ClipStage
from tasks.evaluate.clips import (
    CLIP_LIST,
    ClipList,
    freeze,
    open_test_clips,
    read_clip_list,
    write_clip_list,
)
from tasks.evaluate.crew import Crew, work_on_clips
from tasks.evaluate.generated import Line
from tasks.evaluate.measurement import MODEL, ClipRecord
from tasks.evaluate.plots import contact_sheet, evaluation_page
from tasks.evaluate.protocol import protocol_digest, settings
from tasks.evaluate.published import PROTOCOLS
from tasks.evaluate.strata import COLUMNS, stratify
from tasks.evaluate.summary import Summary, summarise
from tasks.evaluate.table import MEASUREMENTS, Facts, write_measurements
from tasks.evaluate.transcripts import Transcripts
from tasks.lipsync.references import check_reference
from tasks.recipes.evaluation import EvaluationConfig
from tasks.registry.metric import Evaluation
from tasks.runtime.device import resolve_device
from tasks.runtime.stage import Resources
from tasks.weights.bundle import bundle_digest, read_bundle

EVALUATION = "evaluation.json"
DETAILS = "details.json"
CONTACT_SHEET = "contact_sheet.png"
PLOTS = "plots.png"
WORK = ".generated"
"""Folder of what is not finished yet; hidden, since its content is deleted."""
GPU_WINDOWS = 16
"""Windows that go through the model at once on a GPU, unless asked for otherwise."""


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
    crew: Crew | None = None,
) -> Evaluation:
    """Generate, measure, and write videos, plots and `evaluation.json` to `output`.

    If the same evaluation was done before, its result is read back; of one that was interrupted,
    finished clips are.

    Args:
        bundle_dir: a trained bundle.
        dataset: folder with `index.json`.
        output: folder of the results.
        config: which clips to use, and how.
        device: cpu, cuda, cuda:N or mps.
        progress: called with lines of progress.
        crew: who works on the clips; None: this process.

    Returns:
        What `evaluation.json` holds.

    Raises:
        UserError: there is no usable clip, or a file of weights is missing.
        ModelFileError: the bundle or weights are damaged.
    """

    say = progress or (lambda line: None)
    crew = crew or Crew()
    began = time.monotonic()
    about = read_bundle(bundle_dir)
    config = _checked(config, device, about["reference"])
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
    protocol = protocol_digest(config, tests.digest, judge_bundle, said)
    model = bundle_digest(bundle_dir)
    for warning in tests.warnings:
        say(f"{tests.title}: {warning}")
    if (done := _read_finished(output, protocol, model)) is not None:
        say(f"{tests.title}: {len(tests.clips)} clips are already done, and nothing has changed")
        return done
    output.mkdir(parents=True, exist_ok=True)
    (output / EVALUATION).unlink(missing_ok=True)
    write_clip_list(output / CLIP_LIST, tests)
    made_by = {**settings(config), "windows_at_once": config.windows_at_once}
    key = config_digest({"tests": tests.digest, "model": model, "config": made_by})
    work = _only_folder(output / WORK, key[:16]).resolve()
    if crew.ray_address is None:
        resolve_device(device)
    stage = ClipStage(
        bundle_dir.resolve(),
        judge_bundle.resolve(),
        dataset.resolve(),
        int(about["resolution"]),
        tests,
        config,
        device,
        output.resolve(),
        work / "frames",
        _only_folder(work / "records", protocol[:16]),
        _resources(device),
    )
    records = work_on_clips(stage, crew, say)
    say(f"{tests.title}: drawing intervals")
    facts = read_facts(store.files, store.index, [each.clip_id for each in tests.clips], COLUMNS)
    content: Evaluation = {
        "protocol_digest": protocol,
        "model_digest": model,
        **_numbers(records, tests, facts),  # type: ignore[typeddict-item]
        "split": tests.split,
        "warnings": list(tests.warnings),
        "clips": [clip.clip_id for clip in tests.clips],
        "config": asdict(config),
        "device": device,
        "bf16": records[0].bf16,
        "mask": about["mask"],
        "crop": about["crop"],
        "reference": config.reference,
        "seconds": time.monotonic() - began,
    }
    _write(output, content, records, facts)
    shutil.rmtree(output / WORK, ignore_errors=True)
    return content


def _checked(config: EvaluationConfig, device: str, reference: str) -> EvaluationConfig:
    """The configuration with what it leaves open resolved.

    The reference by its name: numbers made with a face's own mouth as reference compare only among
    themselves.
    """
    if config.protocol not in PROTOCOLS:
        raise UserError(f"--protocol must be {' or '.join(PROTOCOLS)}, got {config.protocol!r}")
    if config.windows_at_once < 0:
        raise UserError(
            f"--windows-at-once must be 0 or more, got {config.windows_at_once}: 0 chooses"
        )
    config = replace(config, reference=config.reference or reference)
    check_reference(config.reference)
    at_once = config.windows_at_once or (GPU_WINDOWS if device.startswith("cuda") else 1)
    return replace(config, windows_at_once=at_once)


def _resources(device: str) -> Resources:
    """Of a worker: a core, and a GPU of its own on cuda."""
    return Resources(cpus=1.0, gpus=1.0 if device.startswith("cuda") else 0.0)


def _read_finished(output: Path, protocol: str, model: str) -> Evaluation | None:
    """The earlier evaluation of the same model by the same protocol, if there is one."""
    try:
        content = read_evaluation(output)
    except UserError:
        return None
    same = content.get("protocol_digest") == protocol and content.get("model_digest") == model
    # Evaluations of earlier releases have no table, and fewer numbers.
    return content if same and (output / MEASUREMENTS).is_file() else None


def _only_folder(parent: Path, name: str) -> Path:
    """A folder for what is not finished; those of other models or settings are removed."""
    folder = parent / name
    for other in parent.glob("*"):
        if other != folder:
            shutil.rmtree(other, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _numbers(records: Sequence[ClipRecord], tests: ClipList, facts: Facts) -> dict[str, Any]:
    """All that is computed from records: metrics, baselines and strata."""
    speakers = [record.speaker for record in records]

    def of(model: str) -> Summary:
        found = [record.models[model] for record in records]
        return summarise(records[0].labels, speakers, found, tests.note, tests.cross)

    own, others = of(MODEL), [name for name in records[0].models if name != MODEL]
    return {
        "metrics": own.metrics(),
        "baselines": {name: of(name).metrics() for name in others},
        "clip_values": own.clip_values([record.clip_id for record in records]),
        "strata": stratify(records, facts, tests.note, tests.cross),
    }


def _write(output: Path, content: Evaluation, records: Sequence[ClipRecord], facts: Facts) -> None:
    """Write tables and pictures, and last what says that the evaluation is complete."""
    details = [record.models[MODEL].scores(record.clip_id) for record in records]
    contact_sheet(
        output / CONTACT_SHEET,
        [(each.clip_id, what, frames) for each in records for what, frames in each.sheet.items()],
    )
    which = "test" if content["split"] == "test" else "TRAINING"
    heading = f"{len(details)} {which} clip{'s' * (len(details) != 1)}"
    evaluation_page(output / PLOTS, content["metrics"], details, heading, content["baselines"])
    write_measurements(output / MEASUREMENTS, records, facts)
    write_atomic(output / DETAILS, json.dumps(details) + "\n")
    write_atomic(output / EVALUATION, json.dumps(content, indent=2, ensure_ascii=False) + "\n")
