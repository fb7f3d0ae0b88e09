"""A recipe by its name, with overrides.

Overrides have the form `stage1.steps=20` or `model.unet.layers_per_block=1`: the path must
exist and the value must be of the field's type.
"""

import dataclasses
import difflib
import json
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from datasets.errors import UserError
from tasks.recipes.config import STAGES, AutoencoderConfig, Recipe, StageConfig
from tasks.recipes.files import ENDING, read_recipe_file
from tasks.recipes.values import RECIPES

STABLE_ON_LATENTS = 256
"""Side of the face whose latents the published configuration of StableSyncNet takes."""


def recipe(name: str, overrides: Mapping[str, str] | None = None) -> Recipe:
    """A recipe with the overrides applied.

    Args:
        name: one of `RECIPES`, or the path of a recipe file, see `tasks.recipes.files`.
        overrides: values as texts by their dotted paths.

    Raises:
        UserError: the name, a path or an override is unknown, or a value is of the wrong type.
    """
    chosen = _from_file(Path(name)) if name.endswith(ENDING) else _by_name(name)
    for path, text in (overrides or {}).items():
        chosen = _replace(chosen, path.split("."), text, path)
    for stage in STAGES:
        config = chosen.stage(stage)
        if config is not None:
            _check_numbers(stage, config)
    _check_sync_on_latents(chosen)
    return chosen


def _check_sync_on_latents(chosen: Recipe) -> None:
    if chosen.syncnet.sees != "pixels":
        raise UserError(
            f"syncnet.sees must be pixels, got {chosen.syncnet.sees}: this network judges "
            "pictures; for a loss on latents set stage2.losses.sync_on=latents"
        )
    latents = chosen.syncnet_latents
    if latents is None:
        return
    if not latents.steps:
        raise UserError(
            "losses.sync_on=latents needs a sync network that is trained on latents, but "
            "syncnet.steps is 0: set it to how long both sync networks shall train"
        )
    if latents.network == "stable" and chosen.resolution != STABLE_ON_LATENTS:
        raise UserError(
            f"losses.sync_on=latents takes faces of {STABLE_ON_LATENTS} pixels where "
            f"syncnet.network is stable, but model.resolution is {chosen.resolution}: the "
            "published configuration has latents of 32 x 32"
        )


def _by_name(name: str) -> Recipe:
    if name not in RECIPES:
        raise UserError(
            f"there is no recipe {name!r}: choose one of {', '.join(RECIPES)}, or give the path of "
            f"a recipe file that ends in {ENDING}"
        )
    return RECIPES[name]()


def _from_file(path: Path) -> Recipe:
    base, changes = read_recipe_file(path)
    chosen = _by_name(base)
    for field, value in changes.items():
        try:
            chosen = _replace(chosen, field.split("."), _Value(value), field)
        except UserError as error:
            raise UserError(f"in the recipe file {path}: {error}") from error
    return replace(chosen, name=path.stem, base=base)


@dataclass(frozen=True)
class _Value:
    """A value that has a type already."""

    value: object


def _check_numbers(stage: str, config: StageConfig) -> None:
    if isinstance(config, AutoencoderConfig) and config.micro_batch:
        raise UserError(
            f"{stage}.micro_batch must be 0, got {config.micro_batch}: this network gathers "
            "statistics over whole batches, so parts of them would train another one"
        )
    at_least = {
        "steps": 0,
        "batch_size": 1,
        "micro_batch": 0,
        "warmup": 0,
        "checkpoint_every": 1,
        "log_every": 1,
        "keep_last": 1,
        "patience": 1,
    }
    for name, least in at_least.items():
        if getattr(config, name) < least:
            raise UserError(f"{stage}.{name} must be at least {least}, got {getattr(config, name)}")


def parse_overrides(texts: Sequence[str]) -> dict[str, str]:
    """`["stage1.steps=20"]` as `{"stage1.steps": "20"}`.

    Raises:
        UserError: one of them has no `=`.
    """
    pairs = {}
    for text in texts:
        path, sign, value = text.partition("=")
        if not sign or not path.strip():
            raise UserError(f"the override {text!r} is not of the form stage1.steps=20")
        pairs[path.strip()] = value.strip()
    return pairs


def _replace(owner: Any, path: list[str], text: str | _Value, whole: str) -> Any:
    """`owner` with the value at `path` replaced by the one in `text`."""
    name, rest = path[0], path[1:]
    if isinstance(owner, dict):
        return _replace_in_dict(owner, path, text, whole)
    if not dataclasses.is_dataclass(owner) or isinstance(owner, type):
        raise UserError(
            f"the override {whole!r} goes deeper than the recipe: {name!r} is not a group of fields"
        )
    known = [each.name for each in dataclasses.fields(owner)]
    if name not in known:
        raise _unknown(name, known, len(path), whole)
    if rest:
        value = _replace(getattr(owner, name), rest, text, whole)
    else:
        value = _parse(text, get_type_hints(type(owner))[name], whole)
    try:
        return dataclasses.replace(owner, **{name: value})
    except ValueError as error:
        raise UserError(f"the override {whole!r} is not possible: {error}") from error


def _unknown(name: str, known: list[str], deep: int, whole: str) -> UserError:
    """The error that names the field probably meant, then all fields.

    Args:
        name: the part of `whole` that is not a field.
        known: the existing fields.
        deep: parts of `whole` from `name` on.
        whole: the override's path.
    """
    hint = "instead"
    if close := difflib.get_close_matches(name, known, n=1):
        parts = whole.split(".")
        parts[len(parts) - deep] = close[0]
        hint = f"did you mean {'.'.join(parts)!r}? Instead"
    fields = ", ".join(known)
    return UserError(f"{whole!r} is not in the recipe: {hint} of {name!r} it has {fields}")


def _replace_in_dict(
    owner: dict[str, Any], path: list[str], text: str | _Value, whole: str
) -> dict[str, Any]:
    name, rest = path[0], path[1:]
    if name not in owner:
        raise _unknown(name, [*owner], len(path), whole)
    old = owner[name]
    if rest:
        return {**owner, name: _replace(old, rest, text, whole)}
    kind = list if isinstance(old, tuple) else type(old)
    value = _parse(text, kind, whole)
    return {**owner, name: tuple(value) if isinstance(old, tuple) else value}


def _parse(text: str | _Value, kind: Any, whole: str) -> Any:
    """`text` as a value of type `kind`: numbers, bools, texts, choices, lists and None."""
    origin, options = get_origin(kind), get_args(kind)
    given = text.value if isinstance(text, _Value) else text
    if origin is Literal:
        if given in options:
            return given
        raise UserError(f"{whole} must be one of {', '.join(map(str, options))}, got {given!r}")
    if origin in (typing.Union, types.UnionType):
        if str(given).lower() in ("none", "null") and type(None) in options:
            return None
        return _parse(text, next(each for each in options if each is not type(None)), whole)
    if dataclasses.is_dataclass(kind):
        raise UserError(f"{whole} is a group of fields: override one of them")
    wanted = origin or kind
    value = given
    if isinstance(text, str) and wanted is not str:
        try:
            value = json.loads(text.lower() if wanted is bool else text)
        except json.JSONDecodeError:
            raise UserError(f"{whole} must be of type {_name(kind)}, got {text!r}") from None
    if wanted is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if wanted is tuple and isinstance(value, list):
        return tuple(value)
    if type(value) is not wanted:
        raise UserError(f"{whole} must be of type {_name(kind)}, got {given!r}")
    return value


def _name(kind: Any) -> str:
    return getattr(kind, "__name__", None) or str(kind)
