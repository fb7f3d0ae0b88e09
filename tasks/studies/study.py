"""A study: one question, asked by trainings that differ in one thing each.

    about = "does the sync network need large batches?"
    recipe = "tiny"
    stages = ["syncnet"]
    seeds = 3

    [[metric]]
    name = "syncnet.accuracy"
    better = "higher"

    [[arm]]
    name = "batch 48"

    [[arm]]
    name = "batch 6"
    overrides = ["syncnet.batch_size=6"]

    [[claim]]
    text = "a larger batch is better"
    metric = "syncnet.accuracy"
    better = "batch 48"
    than = "batch 6"

An arm is a set of overrides of the recipe, so a study of one's own is a file of ten lines. Ours are
the `.toml` files of this folder, known by name.
"""

import dataclasses
import difflib
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from datasets.errors import UserError
from tasks.recipes.config import STAGES

ENDING = ".toml"
HERE = Path(__file__).parent
Better = Literal["higher", "lower"]
T = TypeVar("T")


@dataclass(frozen=True)
class MetricOfStudy:
    """A held-out number that arms are compared by."""

    name: str
    """`STAGE.METRIC`, or `evaluation.METRIC`."""
    better: Better
    """Which way is better."""


@dataclass(frozen=True)
class Arm:
    """One way to train."""

    name: str
    overrides: list[str] = field(default_factory=list)
    """Changes to the recipe, each like `stage2.losses.sync=0`."""
    dataset: str = ""
    """Name of another dataset, which is given when the study is run; empty: the study's own."""
    about: str = ""
    """What is different, for the table."""
    needs: str = ""
    """Why the arm cannot be trained yet; a row says so instead of numbers."""


@dataclass(frozen=True)
class Claim:
    """Something that somebody says about the arms."""

    text: str
    metric: str
    better: str
    """Name of the arm that should be better."""
    than: str
    """Name of the other one."""


@dataclass(frozen=True)
class Study:
    """A question and the arms that answer it."""

    name: str
    about: str
    arm: list[Arm]
    metric: list[MetricOfStudy]
    recipe: str = "tiny"
    stages: list[str] = field(default_factory=list)
    """Stages to train; empty: all of them, and the evaluation."""
    seeds: int = 3
    """Trainings of every arm."""
    overrides: list[str] = field(default_factory=list)
    """Changes to the recipe for all arms."""
    claim: list[Claim] = field(default_factory=list)

    def find_arm(self, name: str) -> Arm:
        """The arm of this name."""
        return next(arm for arm in self.arm if arm.name == name)


def known_studies() -> list[str]:
    """Names of our own studies."""
    return sorted(path.stem for path in HERE.glob(f"*{ENDING}"))


def read_study(name: str) -> Study:
    """A study by its name, or from a file.

    Args:
        name: one of `known_studies`, or the path of a file that ends in `.toml`.

    Raises:
        UserError: there is no such study, or its file is not one; the message names the field.
    """
    path = Path(name) if name.endswith(ENDING) else HERE / f"{name}{ENDING}"
    if not name.endswith(ENDING) and name not in known_studies():
        raise UserError(
            f"there is no study {name!r}: choose one of {', '.join(known_studies())}, or give the "
            f"path of a file that ends in {ENDING}"
        )
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"there is no study file {path}") from None
    except (OSError, ValueError) as error:
        raise UserError(f"the study file {path} cannot be read: {error}") from error
    study: Study = _typed(Study, {"name": path.stem, **content}, f"the study file {path}")
    _check(study, f"the study file {path}")
    return study


def _check(study: Study, where: str) -> None:
    names = [arm.name for arm in study.arm]
    if len(names) < 2:
        raise UserError(f"{where} has {len(names)} arms: a comparison needs two")
    repeated = sorted({name for name in names if names.count(name) > 1})
    same_folder = len({folder_name(name) for name in names}) < len(names)
    if repeated or same_folder:
        raise UserError(f"{where}: every arm needs a name of its own, but {names} are given")
    if not study.metric:
        raise UserError(f"{where} has no metric: give one to compare the arms by")
    unknown = [each for each in study.stages if each not in STAGES]
    if unknown:
        raise UserError(
            f"{where}: there is no stage {unknown[0]!r}: choose from {', '.join(STAGES)}"
        )
    if study.seeds < 1:
        raise UserError(f"{where}: seeds must be at least 1, got {study.seeds}")
    metrics = [each.name for each in study.metric]
    for claim in study.claim:
        for arm in (claim.better, claim.than):
            if arm not in names:
                raise UserError(f"{where}: the claim {claim.text!r} names no arm {arm!r}: {names}")
        if claim.metric not in metrics:
            raise UserError(
                f"{where}: the claim {claim.text!r} names no metric {claim.metric!r}: {metrics}"
            )


def folder_name(arm: str) -> str:
    """The folder of an arm."""
    return re.sub(r"[^A-Za-z0-9]+", "-", arm).strip("-").lower()


def _typed(kind: type[T], values: Mapping[str, Any], where: str) -> T:
    """A dataclass from what a TOML file has; tables become dataclasses as well."""
    hints = get_type_hints(kind)
    known = {each.name: each for each in dataclasses.fields(kind)}  # type: ignore[arg-type]
    for name in values:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise UserError(
                f"{where} has an unknown field {name!r}: {hint}known: {', '.join(known)}"
            )
    missing = [
        name
        for name, each in known.items()
        if name not in values
        and each.default is dataclasses.MISSING
        and each.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise UserError(f"{where} does not have {missing[0]!r}")
    return kind(**{name: _value(hints[name], given, name, where) for name, given in values.items()})


def _value(hint: Any, given: Any, name: str, where: str) -> Any:
    if get_origin(hint) is list:
        (inner,) = get_args(hint)
        if not isinstance(given, list):
            raise UserError(f"{where}: {name} must be a list, got {given!r}")
        return [_value(inner, each, name, where) for each in given]
    if get_origin(hint) is Literal:
        if given not in get_args(hint):
            choices = " or ".join(map(repr, get_args(hint)))
            raise UserError(f"{where}: {name} must be {choices}, got {given!r}")
        return given
    if dataclasses.is_dataclass(hint):
        if not isinstance(given, Mapping):
            raise UserError(f"{where}: {name} must be a table, got {given!r}")
        return _typed(hint, given, f"{where}, [[{name}]]")  # type: ignore[arg-type]
    if not isinstance(given, hint) or (hint is int and isinstance(given, bool)):
        raise UserError(f"{where}: {name} must be {hint.__name__}, got {given!r}")
    return given
