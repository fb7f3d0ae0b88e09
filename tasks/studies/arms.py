"""The trainings of a study: what each is, what another has done for it already, what it found."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets.errors import UserError
from datasets.store.atomic import write_atomic
from datasets.store.manifest import config_digest
from tasks.pages.curves import read_curve
from tasks.recipes.config import Recipe
from tasks.recipes.recipe import parse_overrides, recipe
from tasks.studies.results import Outcome, numbers_of
from tasks.studies.study import Arm, Study, folder_name
from tasks.train.context import DONE
from tasks.train.curves import METRICS
from tasks.train.facts import facts_digest, stage_facts
from tasks.train.reuse import reuse_stages
from tasks.train.stages import dataset_digest

OUTCOME, TAKEN = "outcome.json", "taken.txt"
HELDOUT = "heldout_"
"""Beginning of the names of held-out values in curves."""


@dataclass(frozen=True)
class Training:
    """One arm with one seed."""

    arm: Arm
    seed: int
    recipe_name: str
    dataset: Path | None
    """None if the arm's dataset was not given."""
    overrides: list[str]
    folder: Path

    @property
    def recipe(self) -> Recipe:
        """With all overrides."""
        return recipe(self.recipe_name, parse_overrides(self.overrides))

    def obstacle(self) -> str:
        """Why this cannot be trained; empty if it can."""
        if self.arm.needs:
            return self.arm.needs
        if self.dataset is None:
            name = self.arm.dataset
            return f"the dataset {name!r} was not given: --datasets {name}=FOLDER"
        return ""


def plan(
    study: Study,
    output: Path,
    dataset: Path,
    others: Mapping[str, Path],
    recipe_name: str = "",
    overrides: Sequence[str] = (),
    seeds: int = 0,
) -> list[Training]:
    """All trainings, seed by seed, so that arms can be compared as early as possible.

    Args:
        study: the study.
        output: its folder.
        dataset: for arms that name none.
        others: name -> dataset, for arms that name one.
        recipe_name: instead of the study's recipe; empty for that.
        overrides: changes for all arms, after the study's own.
        seeds: instead of the study's number; 0 for that.

    Raises:
        UserError: an override does not fit the recipe; it names the arm.
    """
    found = []
    for seed in range(1, (seeds or study.seeds) + 1):
        for arm in study.arm:
            changes = [*study.overrides, *arm.overrides, *overrides, f"seed={seed}"]
            found.append(
                Training(
                    arm,
                    seed,
                    recipe_name or study.recipe,
                    others.get(arm.dataset) if arm.dataset else dataset,
                    changes,
                    output / folder_name(arm.name) / f"seed-{seed}",
                )
            )
    for training in found:
        try:
            training.recipe  # noqa: B018 - it raises for a mistake that would show hours later
        except UserError as error:
            raise UserError(f"arm {training.arm.name!r}: {error}") from error
    return found


def take_over_stages(training: Training, others: Iterable[Training]) -> list[str]:
    """Copy finished stages that would come out the same from trainings of other arms.

    Returns:
        The names of the stages that were copied, now or before an interruption.
    """
    assert training.dataset is not None
    facts = stage_facts(training.recipe, dataset_digest(training.dataset))
    record = training.folder / TAKEN
    taken = record.read_text(encoding="utf-8").split() if record.is_file() else []
    for other in others:
        for name, wanted in facts.items():
            if not (training.folder / name).exists() and _is_done(other, name, wanted):
                reuse_stages(other.folder, training.folder, (name,))
                taken.append(name)
                write_atomic(record, " ".join(taken))
    return taken


def _is_done(other: Training, stage: str, wanted: Mapping[str, Any]) -> bool:
    try:
        done = json.loads((other.folder / stage / DONE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(done, dict) and done.get("digest") == facts_digest(dict(wanted))


def outcome_of(
    study: Study,
    training: Training,
    metrics: Mapping[str, Mapping[str, Any]],
    seconds: Mapping[str, float],
    taken: Sequence[str],
    run_id: str,
) -> Outcome:
    """What a finished training found.

    Args:
        metrics: stage, or `evaluation` -> what was measured.
        seconds: of every stage and of the evaluation.
        taken: stages that another arm had trained already, which cost nothing.
        run_id: of the MLflow run.
    """
    curves: dict[str, list[tuple[int, float]]] = {}
    for stage in study.stages or [*training_stages(training.recipe)]:
        for point in read_curve(training.folder / stage / METRICS):
            for name, value in point.items():
                if name.startswith(HELDOUT):
                    curves.setdefault(f"{stage}.{name}", []).append((int(point["step"]), value))
    parts = {name: each for name, each in seconds.items() if name != "total"}
    return Outcome(
        training.arm.name,
        training.seed,
        numbers_of(study, metrics),
        sum(each for name, each in parts.items() if name not in taken),
        curves,
        run_id,
    )


def training_stages(chosen: Recipe) -> list[str]:
    """The stages of a recipe."""
    return [*stage_facts(chosen, "")]


def keep_outcome(training: Training, outcome: Outcome, names: Sequence[str]) -> None:
    """Remember what a training found."""
    content = {"key": _key(training, names), "outcome": outcome.as_record()}
    training.folder.mkdir(parents=True, exist_ok=True)
    write_atomic(training.folder / OUTCOME, json.dumps(content, indent=1))


def known_outcome(training: Training, names: Sequence[str]) -> Outcome | None:
    """What the same training has found before; None if it was not finished."""
    try:
        content = json.loads((training.folder / OUTCOME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if content.get("key") != _key(training, names):
        return None
    found = Outcome.from_record(content["outcome"])
    # What was missing then may be there now.
    return None if found.reason else found


def _key(training: Training, names: Sequence[str]) -> str:
    """Digest of everything that an outcome depends on."""
    digest = "" if training.dataset is None else dataset_digest(training.dataset)
    facts = stage_facts(training.recipe, digest)
    return config_digest({"facts": facts, "metrics": list(names), "needs": training.arm.needs})
