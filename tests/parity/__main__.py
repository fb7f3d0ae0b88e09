"""Run every parity case of a folder: `python -m tests.parity DIR`.

A case is `NAME.npz` with an optional `NAME.json`. The module `case_*.py` whose `PREFIX`
is the longest start of NAME runs it and returns its relative error, or the error and the
bar of each array. Prints one line per case, with the array that is worst by its own bar, and
`N passed, N failed`; the exit code is 1 when a case fails or nobody knows it.
"""

import argparse
import importlib
import pkgutil
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import torch

from tests import parity
from tests.parity import case_mask
from tests.parity.outcome import Outcome


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
    """The cases of a folder; a description without numbers is an (unrunnable) case too.

    The rows of the mask belong to the case `mask`.
    """
    files = [*folder.glob("*.npz"), *folder.glob("*.json")]
    return sorted({file.stem for file in files} - {Path(case_mask.ROWS).stem})


def run_case(folder: Path, name: str, modules: Sequence[ModuleType]) -> Outcome:
    """How far a case is from the reference, without gradients but where the case wants them.

    Raises:
        LookupError: no case module has a prefix of this name.
    """
    module = next((module for module in modules if name.startswith(module.PREFIX)), None)
    if module is None:
        raise LookupError(f"no module in tests/parity knows a case of this name: {name}")
    with torch.no_grad():
        return Outcome.of(module.run(folder, name))


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
            outcome = run_case(folder, name, modules)
        except Exception as problem:  # one broken case must not hide the others
            print(f"{name:28s} {'-':>12s}  fail  {type(problem).__name__}: {problem}", flush=True)
            continue
        passed += outcome.passed
        print(f"{name:28s} {outcome}", flush=True)
    print(f"{passed} passed, {len(names) - passed} failed")
    return 0 if passed == len(names) else 1


if __name__ == "__main__":
    raise SystemExit(main())
