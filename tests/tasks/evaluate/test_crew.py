"""However often an evaluation is interrupted, and whoever works on it: the same bytes."""

import json
from pathlib import Path

import pytest

from datasets.errors import Reason, UserError
from tasks.evaluate import clip_stage
from tasks.evaluate import crew as crew_module
from tasks.evaluate.crew import Crew
from tasks.evaluate.measurement import ClipRecord
from tasks.evaluate.run import evaluate, read_evaluation
from tasks.evaluate.scores import Scores
from tasks.evaluate.table import MEASUREMENTS
from tasks.recipes.evaluation import EvaluationConfig
from tasks.runtime.stage import Outcome
from tests.support.real_bundle import make_real_bundle
from tests.support.small_dataset import write_small_dataset

CONFIG = EvaluationConfig(clips=3, frames_per_clip=16, steps=1, silent_clips=1)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset, a bundle and an evaluation that nobody disturbed."""
    folder = tmp_path_factory.mktemp("place")
    write_small_dataset(folder / "dataset", speakers=6, clips_per_speaker=2)
    make_real_bundle(folder / "bundle")
    evaluate(folder / "bundle", folder / "dataset", folder / "calm", CONFIG)
    return folder


def numbers(output: Path) -> tuple[bytes, str]:
    content = read_evaluation(output)
    chosen = {name: content[name] for name in ("metrics", "baselines", "strata", "clips")}
    return (output / MEASUREMENTS).read_bytes(), json.dumps(chosen)


@pytest.mark.parametrize("kept", [0, 2])
def test_a_stopped_evaluation_goes_on_to_the_same_bytes(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: int
) -> None:
    write, written, measured = clip_stage.write_record, list[str](), list[str]()

    def stopping(path: Path, record: ClipRecord) -> None:
        if len(written) == kept:
            raise KeyboardInterrupt
        write(path, record)
        written.append(record.clip_id)

    with monkeypatch.context() as patched:
        patched.setattr(clip_stage, "write_record", stopping)
        with pytest.raises(KeyboardInterrupt):
            evaluate(place / "bundle", place / "dataset", tmp_path, CONFIG)
    assert len(written) == kept
    measure = Scores.measure

    def noted(self: Scores, clip, *others):  # type: ignore[no-untyped-def]
        measured.append(clip.chosen.clip_id)
        return measure(self, clip, *others)

    monkeypatch.setattr(Scores, "measure", noted)
    if kept == 2:
        # The last clip's frames are there, too; only its record is not.
        fail = "generated again"
        monkeypatch.setattr(clip_stage.ClipStage, "_load", lambda _: pytest.fail(fail))
    evaluate(place / "bundle", place / "dataset", tmp_path, CONFIG)
    assert not set(measured) & set(written)
    assert numbers(tmp_path) == numbers(place / "calm")


def test_a_record_that_cannot_be_read_is_made_again(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = clip_stage.write_record

    def torn(path: Path, record: ClipRecord) -> None:
        write(path, record)
        path.write_bytes(path.read_bytes()[:1000])

    with monkeypatch.context() as patched:
        patched.setattr(clip_stage, "write_record", torn)
        with pytest.raises(UserError, match="the records of 3 clips, the first being speaker_"):
            evaluate(place / "bundle", place / "dataset", tmp_path, CONFIG)
    evaluate(place / "bundle", place / "dataset", tmp_path, CONFIG)
    assert numbers(tmp_path) == numbers(place / "calm")


@pytest.mark.e2e
def test_rays_workers_give_the_same_bytes(place: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    crew = Crew(workers=2)
    evaluate(
        place / "bundle", place / "dataset", tmp_path, CONFIG, progress=lines.append, crew=crew
    )
    assert numbers(tmp_path) == numbers(place / "calm")
    assert "evaluation: starting 2 workers for 3 clips" in lines
    assert sum("measured 3/3" in line for line in lines) == 1
    assert sum("silence 1/3, 16 frames" in line for line in lines) == 1


def test_a_clip_that_a_worker_cannot_do_is_named(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(stage, items, *, on_outcome, **_):  # type: ignore[no-untyped-def]
        on_outcome(Outcome(items[0][0], None, Reason.INTERNAL, "out of memory", 1, 1.0))

    monkeypatch.setattr(crew_module, "run_stage", fails)
    with pytest.raises(UserError, match=r"clip speaker_.* could not be evaluated: out of memory"):
        evaluate(place / "bundle", place / "dataset", tmp_path, CONFIG, crew=Crew(workers=2))


def test_a_processor_has_several_workers_and_a_gpu_one(monkeypatch: pytest.MonkeyPatch) -> None:
    for cores, clips, workers in ((2, 4, 2), (64, 30, 4), (8, 1, 1), (None, 9, 1), (8, 0, 1)):
        monkeypatch.setattr("os.cpu_count", lambda cores=cores: cores)
        assert Crew.of_machine("cpu", clips) == Crew(workers)
        assert Crew.of_machine("cuda:0", clips) == Crew()
