"""Whether a registry stays whole when many use it at once.

    python -m benchmarks.races [--rounds 50] [--json FILE]

In every round nine processes begin at the same moment, on one model of one SQLite store: four
register a version and record its evaluation, three fetch the champion's files, two promote the
candidate. Nothing may end in anything but a result or a sentence for the user. After each round
every version must have the evaluation that its own process recorded, every version that was decided
to be promoted must have been champion, and nobody else.
"""

import argparse
import json
import multiprocessing
import random
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing.synchronize import Barrier
from pathlib import Path

from datasets.errors import UserError
from models.files.errors import ModelFileError
from models.latentsync.config import CROP, MASK
from tasks.registry.history import read_moves
from tasks.registry.metric import Measured
from tasks.registry.policy import Policy, Rule
from tasks.registry.promotion import promote
from tasks.registry.tracking import RunTracker
from tasks.registry.versions import (
    CHAMPION,
    DECISION_TAG,
    Registry,
    record_evaluation,
    register,
    resolve,
)
from tasks.weights.bundle import ABOUT, CONFIG, REQUIRED

NAME = "raced"
JOBS = ("register",) * 4 + ("fetch",) * 3 + ("promote",) * 2
RULES = Policy((Rule("sync_c", "higher", 0.1, relative=True, bar=1.0),))

_together: Barrier | None = None
"""Where the processes of a round wait for each other."""


@dataclass
class Outcome:
    """How an attempt ended."""

    job: str
    version: int = 0
    value: float = 0.0
    """What a registration recorded."""
    sentence: str = ""
    traceback: str = ""


@dataclass
class Found:
    """All rounds together."""

    rounds: int = 0
    attempts: Counter[str] = field(default_factory=Counter)
    sentences: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)


def make_bundle(folder: Path, content: str) -> Path:
    """The form of a bundle, without networks."""
    folder.mkdir(parents=True)
    facts: dict[str, object] = dict.fromkeys(REQUIRED, "debug")
    facts |= {"resolution": 64, "mask": MASK, "crop": CROP, "reference": "frame", "audio": "mel"}
    (folder / ABOUT).write_text(json.dumps(facts))
    (folder / CONFIG).write_text(json.dumps({}))
    (folder / "weights.bin").write_text(content)
    return folder


def evaluation(value: float) -> Measured:
    """An evaluation with one number."""
    metrics = {"sync_c": {"value": value, "label": "made", "n": 4}}
    return {"protocol_digest": "same", "metrics": metrics}  # type: ignore[typeddict-item]


def attempt(job: str, uri: str, folder: str, value: float) -> Outcome:
    """One job of a round, begun together with the others."""
    assert _together is not None
    outcome = Outcome(job, value=value)
    place = Path(folder)
    if job == "register":
        make_bundle(place, f"{value}")
    _together.wait()
    try:
        if job == "register":
            tracker = RunTracker(uri, NAME)
            run = tracker.start_run("train")
            outcome.version = register(place, NAME, uri, run)
            record_evaluation(NAME, outcome.version, uri, evaluation(value))
            tracker.end_run()
        elif job == "fetch":
            resolve(f"models:/{NAME}@{CHAMPION}", uri)
        else:
            promote(NAME, uri, policy=RULES)
    except (UserError, ModelFileError) as error:
        outcome.sentence = str(error)
    except BaseException:
        outcome.traceback = traceback.format_exc()
    return outcome


def set_barrier(barrier: Barrier) -> None:
    """Called in every process as it starts."""
    global _together
    _together = barrier


def check_registry(uri: str, recorded: dict[int, float]) -> list[str]:
    """What is wrong with the registry.

    Args:
        recorded: version -> the number that its process recorded.
    """
    registry, wrong = Registry(uri), []
    decided = set()
    for version in registry.versions(NAME):
        kept = version.evaluation
        value = kept["metrics"]["sync_c"]["value"] if kept else None
        if value != recorded.get(version.version):
            wrong.append(
                f"version {version.version} has {value}, not {recorded.get(version.version)}"
            )
        if (version.json_tag(DECISION_TAG) or {}).get("promoted"):
            decided.add(version.version)
    champions = {move.version for move in read_moves(registry, NAME)}
    if decided != champions:
        wrong.append(f"decided to be promoted: {sorted(decided)}, champions: {sorted(champions)}")
    if registry.alias(NAME, CHAMPION) not in champions:
        wrong.append(f"the champion is {registry.alias(NAME, CHAMPION)}")
    missing = set(recorded) - {each.version for each in registry.versions(NAME)}
    return wrong + [f"version {each} is gone" for each in sorted(missing)]


def race(folder: Path, rounds: int, seed: int = 0) -> Found:
    """Run the rounds.

    Args:
        folder: an empty folder.
        rounds: how many.
        seed: of the numbers that are recorded.
    """
    uri, rng = f"sqlite:///{folder}/mlflow.db", random.Random(seed)
    found, recorded = Found(), {}
    first = RunTracker(uri, NAME)
    number = register(make_bundle(folder / "first", "0"), NAME, uri, first.start_run("train"))
    record_evaluation(NAME, number, uri, evaluation(2.0))
    recorded[number] = 2.0
    promote(NAME, uri, policy=RULES)
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(len(JOBS))
    with ProcessPoolExecutor(
        len(JOBS), mp_context=context, initializer=set_barrier, initargs=(barrier,)
    ) as pool:
        for turn in range(rounds):
            tasks = []
            for place, job in enumerate(JOBS):
                value = round(rng.uniform(1.5, 3.0) + turn / 10, 4)
                tasks.append(pool.submit(attempt, job, uri, str(folder / f"{turn}-{place}"), value))
            for task in tasks:
                outcome = task.result()
                found.attempts[outcome.job] += 1
                if outcome.version:
                    recorded[outcome.version] = outcome.value
                if outcome.sentence:
                    found.sentences[f"{outcome.job}: {outcome.sentence[:100]}"] += 1
                if outcome.traceback:
                    found.problems.append(f"round {turn}: {outcome.job}: {outcome.traceback}")
            found.rounds += 1
            found.problems += [f"round {turn}: {each}" for each in check_registry(uri, recorded)]
            print(f"round {turn + 1}/{rounds}: {len(found.problems)} problems", flush=True)
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Run the rounds and print what went wrong; exit code 1 if anything did."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.races",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--json", type=Path, default=None, help="write the counts to a file")
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="races-") as folder:
        found = race(Path(folder), options.rounds)
    for job, count in found.attempts.items():
        print(f"{count:5d} x {job}")
    for sentence, count in found.sentences.most_common():
        print(f"{count:5d} x said: {sentence}")
    for problem in found.problems:
        print(problem)
    print(f"{found.rounds} rounds, {len(found.problems)} problems")
    if options.json is not None:
        content = {
            "rounds": found.rounds,
            "attempts": found.attempts,
            "sentences": found.sentences,
            "problems": found.problems,
        }
        options.json.write_text(json.dumps(content, indent=1))
    return 1 if found.problems else 0


if __name__ == "__main__":
    sys.exit(main())
