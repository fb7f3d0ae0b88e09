"""Setuptools' build backend for editable installs, and for nothing else.

The packages are called `flows`, `tasks`, `models` and `datasets`. In somebody's environment a wheel
would write them over other packages of these names, Hugging Face's `datasets` first of all. An
editable install only adds this folder to the end of the path.
"""

from typing import Any, NoReturn

from setuptools.build_meta import (
    build_editable,
    get_requires_for_build_editable,
    prepare_metadata_for_build_editable,
)

__all__ = [
    "build_editable",
    "build_sdist",
    "build_wheel",
    "get_requires_for_build_editable",
    "get_requires_for_build_sdist",
    "get_requires_for_build_wheel",
    "prepare_metadata_for_build_editable",
]
REFUSAL = (
    "latentsync-flows cannot be packed or copied into an environment, since its package `datasets` "
    "would overwrite Hugging Face's: run `pip install -e .` in a clone of the repository"
)


def build_wheel(*given: Any, **options: Any) -> NoReturn:
    """Refuse to build."""
    raise SystemExit(REFUSAL)


# The frontend calls these first, before it fetches anything for the build.
get_requires_for_build_wheel = build_wheel
get_requires_for_build_sdist = build_wheel
build_sdist = build_wheel
