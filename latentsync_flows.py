"""The command `latentsync-flows`, and which packages belong to it.

    latentsync-flows refresh-dataset --source folder --input VIDEOS

does the same as `python -m flows.refresh_dataset --source folder --input VIDEOS`, from any folder.
Nothing but the standard library is imported before a command is chosen.
"""

import importlib
import importlib.util
import sys
import tomllib
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import NamedTuple

NAME = "latentsync-flows"
ROOT = Path(__file__).resolve().parent
PACKAGES = ("flows", "tasks", "models", "datasets")
MISTAKE = 2


class Command(NamedTuple):
    """A sub-command: the module whose `main` it is, and what it does."""

    module: str
    about: str


COMMANDS = {
    "demo": Command("flows.demo", "The whole loop in one command, on a sample or your videos."),
    "refresh-dataset": Command("flows.refresh_dataset", "Turn videos into a dataset or extend it."),
    "relabel-dataset": Command("flows.relabel_dataset", "Judge clips again by other thresholds."),
    "train-latentsync": Command("flows.train_latentsync", "Train a model on a dataset."),
    "adapt-model": Command("flows.adapt_model", "Adapt a model to one person by a small adapter."),
    "evaluate-latentsync": Command("flows.evaluate_latentsync", "Measure it on unseen speakers."),
    "ablate": Command("flows.ablate", "Compare trainings that differ in one thing each."),
    "promote-model": Command("flows.promote_model", "Decide whether the candidate is champion."),
    "approve-promotion": Command("flows.approve_promotion", "Let a promotion that waits go on."),
    "rollback-model": Command("flows.rollback_model", "Make an earlier champion champion again."),
    "sign-model": Command("flows.sign_model", "Sign a model that you trust with your key."),
    "lip-sync": Command("flows.lip_sync", "Make the person in a video say something else."),
    "lip-sync-batch": Command("flows.lip_sync_batch", "Lip-sync a table of videos on workers."),
    "serve": Command("tasks.service.command", "Serve lip-sync over HTTP, with a queue on disk."),
    "import-weights": Command("flows.import_weights", "Make a model from published weights."),
    "weights": Command("tasks.weights.command", "List and fetch published weights."),
    "convert": Command("models.convert.command", "Convert published checkpoints, and back."),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a sub-command.

    Args:
        argv: its name and arguments; None: those of this process.

    Returns:
        Exit code: the sub-command's own; 2 where there is no such sub-command.
    """
    given = list(sys.argv[1:] if argv is None else argv)
    first = given[0] if given else "--help"
    if first in ("--help", "-h"):
        print(usage())
        return 0
    if first == "--version":
        print(f"{NAME} {version()}")
        return 0
    if first not in COMMANDS:
        kind = "option" if first.startswith("-") else "command"
        meant = first.replace("_", "-")
        near = [meant] if meant in COMMANDS else get_close_matches(meant, COMMANDS)
        hint = f"did you mean {' or '.join(near)}? " if near else ""
        print(f"{NAME}: there is no {kind} {first!r}: {hint}--help lists all", file=sys.stderr)
        return MISTAKE
    refuse_foreign_packages()
    module = importlib.import_module(COMMANDS[first].module)
    return int(module.main(given[1:], prog=f"{NAME} {first}"))


def usage() -> str:
    """The help text, with a line for each sub-command."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:{width}s}  {command.about}" for name, command in COMMANDS.items()]
    return "\n".join(
        [
            f"usage: {NAME} COMMAND ...",
            "",
            "LatentSync lip-sync as a workflow. Relative paths start at the current folder,",
            "where `runs` holds whatever no other place is given for.",
            "",
            *lines,
            "",
            f"`{NAME} COMMAND --help` explains a command.",
        ]
    )


def refuse_foreign_packages() -> None:
    """Check which packages Python would import under our names, without importing them.

    Raises:
        SystemExit: 2, after a sentence, where one of them is somebody else's.
    """
    for name in PACKAGES:
        spec = importlib.util.find_spec(name)
        expected = ROOT / name / "__init__.py"
        if spec and spec.origin and Path(spec.origin).resolve() == expected:
            continue
        found = "nothing"
        if spec:
            found = spec.origin or ", ".join(spec.submodule_search_locations or [])
        print(
            f"the package {name!r} of {NAME} is {expected}, but Python finds {found} first: take "
            "that off PYTHONPATH, run from another folder, uninstall it, or install "
            f"{NAME} into an environment of its own",
            file=sys.stderr,
        )
        raise SystemExit(MISTAKE)


def version() -> str:
    """The version in the source itself, since it always runs from its own folder."""
    about = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    return str(about["project"]["version"])


if __name__ == "__main__":
    raise SystemExit(main())
