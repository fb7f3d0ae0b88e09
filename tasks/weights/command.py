"""The command line of `tasks.weights.store`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from datasets.errors import UserError
from datasets.redact import redact
from models.files.errors import ModelFileError
from tasks.weights import store
from tasks.weights.licences import LICENCES
from tasks.weights.trust import trust

INTERRUPTED = 130
"""Exit status that shells give to a command ended by Ctrl-C."""


def _megabytes(size: int | None) -> str:
    return "?" if size is None else f"{size / 1e6:,.1f} MB"


def _list(folder: Path, names: Sequence[str]) -> int:
    """Print the rows with these names, or all without names; returns 1 if a file is damaged."""
    table = [store.find(name) for name in dict.fromkeys(names)] or store.WEIGHTS
    rows = store.status(folder, table)
    print(f"weights in {folder}")
    for row in rows:
        state = "damaged" if row.problem else "present" if row.present else "missing"
        weight = row.weight
        print(f"{weight.name:24s} {state:8s} {_megabytes(row.size):>12s}  {weight.licence}")
        print(f"{'':24s} for {weight.needed_by}" + (f"; {row.problem}" if row.problem else ""))
    present = sum(row.present for row in rows)
    print(f"{present} present, {len(rows) - present} missing")
    return 1 if any(row.problem for row in rows) else 0


def _show(done: int, total: int | None) -> None:
    if sys.stderr.isatty():
        print(f"\r{_megabytes(done)} of {_megabytes(total)}", end="", file=sys.stderr, flush=True)


def _fetch(folder: Path, names: Sequence[str]) -> int:
    # An unknown name is reported before gigabytes are fetched for the others.
    table = [store.find(name) for name in dict.fromkeys(names)]
    for weight in table:
        print(f"{weight.name}: licence {weight.licence}", flush=True)
        if weight.binds:
            print(f"{weight.name} {LICENCES[weight.binds].terms}", flush=True)
        print(f"{weight.name}: {store.fetch(weight.name, folder, progress=_show)}", flush=True)
    return 0


def _trust(folder: Path, files: Sequence[str]) -> int:
    for file in files:
        print(f"{file}: sha256 {trust(file, folder)} is trusted from now on")
    return 0


def main(argv: Sequence[str] | None = None, prog: str = "python -m tasks.weights") -> int:
    """Run the command line; the exit status."""
    parser = argparse.ArgumentParser(
        prog=prog,
        description=store.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("action", nargs="?", choices=("list", "fetch", "trust"), default="list")
    parser.add_argument(
        "names",
        nargs="*",
        help="weights to fetch or to list (by default all), or TorchScript files to trust",
    )
    parser.add_argument(
        "--folder", type=Path, default=None, help="weights folder, instead of WEIGHTS_DIR"
    )
    options = parser.parse_args(argv)
    folder = options.folder or store.weights_folder()
    fetching = options.action == "fetch"
    actions = {"fetch": _fetch, "trust": _trust, "list": _list}
    if options.action != "list" and not options.names:
        parser.error(f"name the {'weights' if fetching else 'files'} to {options.action}")
    try:
        return actions[options.action](folder, options.names)
    except KeyboardInterrupt:
        rest = ": what was fetched so far is kept, and the next fetch goes on from there"
        print(f"\ninterrupted{rest if fetching else ''}", file=sys.stderr)
        return INTERRUPTED
    except (ModelFileError, UserError, OSError) as problem:
        print(redact(str(problem)), file=sys.stderr)
        return 2
