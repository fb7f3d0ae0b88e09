"""Recipes of one's own, as TOML: the name of a recipe they are based on, and what is different.

    base = "tiny"
    seed = 3

    [syncnet]
    steps = 400

    [model.unet]
    layers_per_block = 2

A run writes its complete recipe in the same form into its folder, so that it can be read, changed
and trained again.
"""

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import tomli_w

from datasets.errors import UserError
from tasks.recipes.config import Recipe

BASE = "base"
ENDING = ".toml"
RECIPE_FILE = "recipe.toml"
"""A run's complete recipe, in its folder."""


def read_recipe_file(path: Path) -> tuple[str, dict[str, Any]]:
    """The name of the recipe that a file is based on, and its changes by dotted path.

    Raises:
        UserError: the file is missing, is not TOML, or does not name a recipe.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"there is no recipe file {path}") from None
    except (OSError, ValueError) as error:
        raise UserError(f"the recipe file {path} cannot be read: {error}") from error
    base = content.pop(BASE, None)
    if not isinstance(base, str):
        raise UserError(
            f'the recipe file {path} does not say what it is based on: begin it with base = "tiny"'
        )
    return base, dict(_leaves(content))


def write_recipe(recipe: Recipe, base: str) -> str:
    """The complete recipe as TOML. What is None is left out: the base has none of it either."""
    values = _without_none(asdict(recipe))
    # Its name comes from the file.
    del values["name"]
    return tomli_w.dumps({**values, BASE: base})


def _leaves(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _without_none(values: Mapping[str, Any]) -> dict[str, Any]:
    kept: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            kept[name] = _without_none(value)
        elif value is not None:
            kept[name] = list(value) if isinstance(value, tuple) else value
    return kept
