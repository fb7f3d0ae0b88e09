"""Run every parity case of a folder: `python -m tests.parity DIR`.

A case is `NAME.npz` with an optional `NAME.json`. The module `case_*.py` whose `PREFIX`
is the longest start of NAME runs it and returns its relative error. Prints one line per
case and `N passed, N failed`; the exit code is 1 when a case fails or nobody knows it.
"""

import argparse
import importlib
import math
import pkgutil
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import torch

from tests import parity

BAR = 1e-4
"""Largest relative error that passes, in float32; a case module may define its own."""


def case_modules() -> list[ModuleType]:
    """All case modules, the longest prefix first."""
    names = [info.name for info in pkgutil.iter_modules(parity.__path__)]
    modules = [
        importlib.import_module(f"tests.parity.{name}")
        for name in names
        if name.startswith("case_")
    ]
    return sorted(modules, key=lambda module: len(module.PREFIX), reverse=True)


def case_names(folder: Path) -> list[str]:
    """The cases of a folder; a description without numbers is an (unrunnable) case too."""
    files = [*folder.glob("*.npz"), *folder.glob("*.json")]
    return sorted({file.stem for file in files} - {"mask_rows"})


def run_case(folder: Path, name: str, modules: Sequence[ModuleType]) -> tuple[float, float]:
    """Relative error of a case and the largest one that passes.

    Raises:
        LookupError: no case module has a prefix of this name.
    """
    module = next((module for module in modules if name.startswith(module.PREFIX)), None)
    if module is None:
        raise LookupError(f"no module in tests/parity knows a case of this name: {name}")
    with torch.no_grad():
        return float(module.run(folder, name)), float(getattr(module, "BAR", BAR))


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.parity", description=__doc__)
    parser.add_argument("folder", type=Path, help="folder with NAME.npz and NAME.json files")
    folder = parser.parse_args(argv).folder
    names = case_names(folder) if folder.is_dir() else []
    if not names:
        print(f"no case in {folder}: expected NAME.npz files")
        return 1
    modules = case_modules()
    passed = 0
    for name in names:
        try:
            error, bar = run_case(folder, name, modules)
        except Exception as problem:  # one broken case must not hide the others
            print(f"{name:28s} {'-':>12s}  fail  {type(problem).__name__}: {problem}", flush=True)
            continue
        good = math.isfinite(error) and error <= bar
        passed += good
        print(f"{name:28s} {error:12.3e}  {'pass' if good else 'fail'}", flush=True)
    print(f"{passed} passed, {len(names) - passed} failed")
    return 0 if passed == len(names) else 1


if __name__ == "__main__":
    raise SystemExit(main())
