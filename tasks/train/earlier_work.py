"""What earlier runs left in an output folder, and what becomes of it: nothing is ever overwritten.

Every stage's folder has a `stage.json` with the facts that its checkpoint depends on. Before a
run starts, these are compared with the facts of now:

- nothing changed: the stage goes on, or is done;
- more steps: it goes on, as if it had been so from the start;
- a newer dataset: refused, or taken over on request;
- anything else: refused by name, or on request kept aside as `STAGE.before-N` and begun again.

A stage whose earlier stages will still change is kept aside and begun again in any case.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypedDict, cast, get_args

from datasets.errors import UserError
from datasets.store.atomic import write_atomic
from tasks.recipes.config import Recipe
from tasks.train.context import DONE
from tasks.train.facts import Facts, facts_digest, stage_facts
from tasks.train.kept import checkpoint_step, newest

RECORD = "stage.json"
OnNewData = Literal["refuse", "continue"]
SHOWN = 4
"""Changes of a stage that a message names."""


class StageRecord(TypedDict):
    """The content of `stage.json`."""

    digest: str
    facts: Facts
    goes_on_from: list[str]
    """Digests of the trainings whose checkpoints this one goes on from."""
    same_result: list[str]
    """Those among them whose result is this stage's result, too."""


@dataclass(frozen=True)
class Settled:
    """What was decided."""

    lines: list[str]
    """What a person should know, one sentence each."""
    again: list[str]
    """Stages that begin again; their earlier work is kept aside."""


def check_on_new_data(text: str) -> OnNewData:
    """The value of an option.

    Raises:
        UserError: it is none of the values.
    """
    for each in get_args(OnNewData):
        if text == each:
            return cast(OnNewData, each)
    raise UserError(f"on-new-data must be one of {', '.join(get_args(OnNewData))}, got {text!r}")


def read_record(folder: Path) -> StageRecord | None:
    """The record of a stage's folder; None if there is none."""
    try:
        content = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    known = isinstance(content, dict) and "facts" in content
    return cast(StageRecord, content) if known else None


def settle(
    output: Path,
    chosen: Recipe,
    dataset_digest: str,
    stages: Sequence[str],
    *,
    restart: bool = False,
    on_new_data: OnNewData = "refuse",
) -> Settled:
    """Decide what becomes of earlier work in `output`, and prepare its folders.

    Args:
        stages: the stages of this run.
        restart: begin changed stages again instead of refusing.
        on_new_data: what happens to a stage whose dataset has changed.

    Raises:
        UserError: something has changed and neither was asked for; nothing was touched.
        ModelFileError: a checkpoint is damaged.
    """
    plan = _Plan(output, stage_facts(chosen, dataset_digest), on_new_data)
    for name in stages:
        plan.look_at(name)
    if plan.refused and not restart:
        raise UserError(plan.refusal())
    lines = list(plan.lines)
    again = [*plan.refused, *plan.outdated]
    for name in sorted(again, key=list(plan.facts).index):
        kept = _keep_aside(output / name)
        why = "has changed" if name in plan.refused else "builds on a stage that will change"
        lines.append(f"{name} {why} and is trained again; its earlier work is kept in {kept}")
        plan.records.pop(name, None)
    for name in stages:
        digest = facts_digest(plan.facts[name])
        record = plan.records.get(name) or _new_record(plan.facts[name])
        if record != read_record(output / name):
            (output / name).mkdir(parents=True, exist_ok=True)
            write_atomic(output / name / RECORD, json.dumps(record, indent=1))
        _adopt(output / name / DONE, record, digest)
    return Settled(lines, again)


class _Plan:
    """Looks at one stage after the other, those that are built upon first."""

    def __init__(self, output: Path, facts: dict[str, Facts], on_new_data: OnNewData) -> None:
        self.output, self.facts, self.on_new_data = output, facts, on_new_data
        self.refused: dict[str, list[str]] = {}
        """Stage -> what has changed."""
        self.outdated: list[str] = []
        """Stages whose earlier stages will change."""
        self.records: dict[str, StageRecord] = {}
        """Stage -> the record it will have, where it goes on."""
        self.lines: list[str] = []
        self.new_data = False

    def look_at(self, name: str) -> None:
        folder, digest = self.output / name, facts_digest(self.facts[name])
        done = _read_done(folder / DONE)
        record = read_record(folder)
        started = done is not None or newest(folder) is not None
        if record and record["digest"] == digest:
            self.records[name] = record
        elif started and not (done and done["digest"] == digest):
            if changes := self._changes(name, record):
                self.refused[name] = changes
            elif record and not self._built_otherwise(name, record):
                # A stage with raised steps still has the file of when it was done with fewer.
                finished = {record["digest"], *record["same_result"]}
                self._go_on(name, record, bool(done and done["digest"] in finished))
            else:
                self.outdated.append(name)

    def _changes(self, name: str, record: StageRecord | None) -> list[str]:
        """What speaks against going on, as texts."""
        if record is None:
            return ["it was trained by an earlier version of this program"]
        now, then = self.facts[name], record["facts"]
        found = []
        for field in sorted(now.keys() | then.keys()):
            if field.startswith("upstream.") or now.get(field) == then.get(field):
                continue
            if field == f"{name}.steps" and self._may_train_to(name, now[field], then[field]):
                continue
            if field == "dataset":
                self.new_data = True
                if self.on_new_data == "continue":
                    continue
            found.append(_change(field, then, now))
        return found

    def _may_train_to(self, name: str, steps: int, before: int) -> bool:
        path = newest(self.output / name)
        trained = checkpoint_step(path) if path else before
        return steps >= trained

    def _built_otherwise(self, name: str, record: StageRecord) -> bool:
        """Whether an earlier stage is, or will be, trained again or further."""
        known = {*record["facts"], *self.facts[name]}
        for field in sorted(each for each in known if each.startswith("upstream.")):
            each = field.removeprefix("upstream.")
            then, now = record["facts"].get(field), self.facts[name].get(field)
            if then == now:
                continue
            above = self.records.get(each) or read_record(self.output / each)
            if above is None or then not in above["same_result"]:
                return True
        return False

    def _go_on(self, name: str, record: StageRecord, done: bool) -> None:
        now, then = self.facts[name], record["facts"]
        further = now[f"{name}.steps"] != then[f"{name}.steps"]
        same = [] if further or not done else [*record["same_result"], record["digest"]]
        self.records[name] = {
            "digest": facts_digest(now),
            "facts": now,
            "goes_on_from": [*record["goes_on_from"], record["digest"]],
            "same_result": same,
        }
        if further:
            self.lines.append(self._about_steps(name, then, now))
        if now["dataset"] != then["dataset"]:
            self.lines.append(
                f"{name} was trained on the dataset {_short(then['dataset'])} and "
                + (
                    "keeps its result: raise its steps to train on with the new one"
                    if done and not further
                    else f"goes on with {_short(now['dataset'])}"
                )
            )

    def _about_steps(self, name: str, then: Facts, now: Facts) -> str:
        before, after = then[f"{name}.steps"], now[f"{name}.steps"]
        line = f"{name} goes on: {name}.steps was {before} and is {after}"
        if now[f"{name}.schedule"] == "cosine":
            line += (
                f". Its learning rate fell along a cosine over {before} steps and follows one over "
                f"{after} from here, so the result is not that of {after} steps from the start"
            )
        return line

    def refusal(self) -> str:
        parts = []
        for name, changes in self.refused.items():
            more = f" and {len(changes) - SHOWN} more" if len(changes) > SHOWN else ""
            parts.append(f"{name}: {'; '.join(changes[:SHOWN])}{more}")
        data = "--on-new-data continue to go on with the new data, " if self.new_data else ""
        return (
            f"{self.output} holds a training that differs from this one ({'. '.join(parts)}): "
            f"give {data}--restart to begin changed stages again, with their earlier work kept "
            "aside, or choose another output folder"
        )


def _new_record(facts: Facts) -> StageRecord:
    return {
        "digest": facts_digest(facts),
        "facts": facts,
        "goes_on_from": [],
        "same_result": [],
    }


def _read_done(path: Path) -> dict[str, Any] | None:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) and "digest" in content else None


def _adopt(path: Path, record: StageRecord, digest: str) -> None:
    """Let a finished stage count as this one's where the result is the same."""
    done = _read_done(path)
    if done and done["digest"] in record["same_result"]:
        write_atomic(path, json.dumps({**done, "digest": digest}, indent=1))


def _keep_aside(folder: Path) -> Path:
    """Rename a folder to the first free `NAME.before-N`."""
    number = 1
    while (kept := folder.with_name(f"{folder.name}.before-{number}")).exists():
        number += 1
    return folder.rename(kept)


def _change(field: str, then: Facts, now: Facts) -> str:
    before, after = then.get(field, "not there"), now.get(field, "not there")
    if field == "code":
        return f"it was trained by version {before} of the training code, which is {after} now"
    if field == "dataset":
        before, after = _short(before), _short(after)
    return f"{field} was {before!r} and is {after!r}"


def _short(digest: str) -> str:
    return str(digest)[:12]
