"""Check that the tests notice faults: inserts them, one at a time, and prints those that survive.

    python -m benchmarks.mutants                    every fault of benchmarks/mutants.toml
    python -m benchmarks.mutants --sample 6         six of them, always the same
    python -m benchmarks.mutants --table my.toml    faults of your own
    python -m benchmarks.mutants --jobs 4 --json mutants.json

A table is TOML with one `[[fault]]` per fault:

    [[fault]]
    file = "tasks/**/*.py"                  a path or a glob, from the repository's root
    text = "goal = clean if sample"         the present text
    instead = "goal = noise if sample"      the text with the fault
    wrong = "the target is the noise"       for people

The text is searched in all files that match. If one file has it, it is replaced there, at every
place if there are several; if no file has it, the fault is "not found", if several do, "ambiguous",
and the command fails. It also fails for a fault that is not valid Python.

Each fault goes into a fresh copy of the repository without compiled files, where the tests run
that import the changed file (`mutants_tests.py`), up to the first failure. They first run without
the fault: tests that fail then are left out and reported. Tests that hang count as having noticed,
since nobody would miss it. No fault touches the repository itself.

mutmut and cosmic-ray were considered: both make every possible small change of syntax, thousands
for this repository and hours of tests, most of them meaningless. Neither can express "the
reference window is the target itself" or "no cross-fade", which are the faults that people make,
and a list of those can be read, argued about and compared from one month to the next.
"""

import argparse
import json
import os
import queue
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from benchmarks.mutants_table import Fault, locate, read_table
from benchmarks.mutants_tests import ImportGraph

ROOT = Path(__file__).resolve().parents[1]
TABLE = Path(__file__).with_name("mutants.toml")
BAR = 0.95
"""Share of faults that the tests must notice."""
SAMPLE_SEED = 0
LEFT_OUT = ("runs", "mlruns", "__pycache__")
"""Folders that are not copied, besides hidden ones."""
SLACK_S = 60.0
"""Seconds that tests get, in addition to three times their usual time, before they count as
hanging."""
CAUGHT, SURVIVED, NOT_FOUND, AMBIGUOUS, NO_PYTHON = (
    "caught",
    "survived",
    "not found",
    "ambiguous",
    "no Python",
)


@dataclass
class Result:
    """The outcome of a fault."""

    fault: Fault
    outcome: str
    """caught, survived, or why it could not be inserted."""
    reason: str = ""
    """The test that noticed it, or why no test did."""
    path: str = ""
    """The file that was changed."""
    tests: list[str] = field(default_factory=list)
    """The test files that ran, in order."""
    seconds: float = 0.0

    @property
    def applied(self) -> bool:
        return self.outcome in (CAUGHT, SURVIVED)


@dataclass
class _Run:
    """pytest's output."""

    failed: list[str]
    passed: int
    finished: bool
    seconds: float


class Interrupted(Exception):
    """The run was stopped from outside."""


class MutationCheck:
    """Runs faults in copies of a repository.

    Args:
        root: the repository; it is only read.
        scratch: an empty folder for the copies.
        jobs: copies that work at once.
        reach: see `ImportGraph.tests_of`.
        own: run only the nearest test file of each fault.
        most_s: the most seconds that one run of tests may take.
    """

    def __init__(
        self,
        root: Path,
        scratch: Path,
        jobs: int = 1,
        reach: int = 1,
        own: bool = False,
        most_s: float = 900.0,
    ) -> None:
        self.jobs, self.reach, self.own, self.most_s = jobs, reach, own, most_s
        self._copies: queue.Queue[Path] = queue.Queue()
        self._running: set[int] = set()
        self._lock = threading.RLock()
        self._stopped = False
        self._usual: dict[Path, Future[_Run]] = {}
        for number in range(jobs):
            self._copies.put(_copy(root, scratch / f"copy{number}"))
        self.root = scratch / "copy0"
        self.graph = ImportGraph(self.root)
        self.broken: dict[str, list[str]] = {}
        """Test file -> tests that fail without any fault."""

    def run(self, faults: Sequence[Fault], tell: Callable[[Result, int], None]) -> list[Result]:
        """Every fault's result; `tell` is called with each as it arrives, and with the number so
        far."""
        results: list[Result] = []
        places = [locate(self.root, fault) for fault in faults]
        pool = ThreadPoolExecutor(self.jobs)
        waiting = [pool.submit(self._one, *each) for each in zip(faults, places, strict=True)]
        try:
            with self._stopping_at_once():
                for future in as_completed(waiting):
                    results.append(future.result())
                    tell(results[-1], len(results))
        except (KeyboardInterrupt, Interrupted):
            print("interrupted: only the results so far follow", flush=True)
        finally:
            self.stop()
            pool.shutdown(wait=True, cancel_futures=True)
        return results

    @contextmanager
    def _stopping_at_once(self) -> Iterator[None]:
        """Let Ctrl-C itself end the runs of tests: its exception alone is lost where it comes up in
        a callback of Python's own, and then everything would go on."""

        def interrupt(number: int, frame: object) -> None:
            self.stop()
            raise KeyboardInterrupt

        mine = threading.current_thread() is threading.main_thread()
        numbers = (signal.SIGINT, signal.SIGTERM)
        before = {each: signal.getsignal(each) for each in numbers} if mine else {}
        changed = [each for each in before if before[each] is signal.default_int_handler]
        for each in changed:
            signal.signal(each, interrupt)
        try:
            yield
        finally:
            for each in changed:
                signal.signal(each, before[each])

    def stop(self) -> None:
        """End every run of tests."""
        with self._lock:
            self._stopped = True
            for group in self._running:
                _kill(group)

    def _one(self, fault: Fault, places: list[Path]) -> Result:
        if len(places) != 1:
            reason = ", ".join(str(each) for each in places)
            return Result(fault, AMBIGUOUS if places else NOT_FOUND, reason)
        began = time.monotonic()
        copy = self._copies.get()
        path = copy / places[0]
        before = path.read_bytes()
        changed = before.decode().replace(fault.text, fault.instead)
        result = Result(fault, SURVIVED, path=str(places[0]))
        try:
            compile(changed, str(path), "exec")
            self._noticed(result, copy, path, changed)
        except SyntaxError as error:
            result.outcome, result.reason = NO_PYTHON, str(error)
        finally:
            path.write_bytes(before)
            self._copies.put(copy)
        result.seconds = round(time.monotonic() - began, 1)
        return result

    def _noticed(self, result: Result, copy: Path, path: Path, changed: str) -> None:
        """Run the tests of a changed file, the nearest one alone and then the others."""
        tests = self.graph.tests_of(Path(result.path), self.reach)
        result.reason = "no test imports it" if not tests else "every test passes"
        before = path.read_bytes()
        for part in (tests[:1], [] if self.own else tests[1:]):
            if not part:
                continue
            usual = self._usually(part, copy)
            result.tests += [str(each) for each in part]
            limit = min(self.most_s, SLACK_S + 3 * sum(each.seconds for each in usual))
            skipped = [test for each in usual for test in each.failed]
            path.write_text(changed, encoding="utf-8")
            found = self._pytest(copy, part, limit, "-x", *(f"--deselect={x}" for x in skipped))
            path.write_bytes(before)
            if found.failed:
                result.outcome, result.reason = CAUGHT, found.failed[0]
                return
            if not found.finished:
                result.outcome, result.reason = CAUGHT, f"timed out after {limit:.0f} s"
                return

    def _usually(self, tests: list[Path], copy: Path) -> list[_Run]:
        """The results of the test files without any fault; each is run only once."""
        runs = []
        for test in tests:
            with self._lock:
                mine = test not in self._usual
                future = self._usual.setdefault(test, Future())
            if mine:
                try:
                    future.set_result(self._baseline(test, copy))
                except BaseException as error:
                    future.set_exception(error)
            runs.append(future.result())
        return runs

    def _baseline(self, test: Path, copy: Path) -> _Run:
        run = self._pytest(copy, [test], self.most_s)
        if not run.finished:
            run.failed = [str(test)]
        if run.failed:
            self.broken[str(test)] = run.failed
            print(f"without any fault: {', '.join(run.failed)} fails, and is left out", flush=True)
        return run

    def _pytest(self, copy: Path, tests: list[Path], limit_s: float, *options: str) -> _Run:
        report = copy / "report.xml"
        report.unlink(missing_ok=True)
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
        command += ["-p", "no:xdist", "-o", "junit_family=xunit1", f"--junitxml={report}"]
        command += [*options, *(str(each) for each in tests)]
        # Otherwise a file that changes twice within a second would be read from its compiled
        # version.
        environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": str(copy)}
        began = time.monotonic()
        with self._lock:
            if self._stopped:
                raise Interrupted
            process = subprocess.Popen(
                command,
                cwd=copy,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
            self._running.add(process.pid)
        finished = True
        try:
            process.wait(limit_s)
        except subprocess.TimeoutExpired:
            finished = False
        finally:
            # This also ends servers that a test left behind.
            _kill(process.pid)
            process.wait()
            with self._lock:
                self._running.discard(process.pid)
        if self._stopped:
            raise Interrupted
        seconds = time.monotonic() - began
        if not finished:
            return _Run([], 0, False, seconds)
        failed, passed = _read_report(report)
        if process.returncode not in (0, 1, 5) and not failed:
            # Not even started, or killed from within.
            failed = [f"{tests[0]} (pytest ended with {process.returncode})"]
        return _Run(failed, passed, True, seconds)


def _copy(root: Path, folder: Path) -> Path:
    def left_out(_: str, names: list[str]) -> list[str]:
        return [name for name in names if name.startswith(".") or name in LEFT_OUT]

    return Path(shutil.copytree(root, folder, ignore=left_out))


def _kill(group: int) -> None:
    try:
        os.killpg(group, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return


def _read_report(report: Path) -> tuple[list[str], int]:
    """Tests that failed, as pytest names them, and how many passed."""
    failed, passed = [], 0
    try:
        cases = list(ElementTree.parse(report).iter("testcase"))
    except (OSError, ElementTree.ParseError):
        return [], 0
    for case in cases:
        bad = case.find("failure") is not None or case.find("error") is not None
        if bad and case.get("file"):
            failed.append(f"{case.get('file')}::{case.get('name')}")
        elif bad:
            failed.append(str(case.get("name")).replace(".", "/") + ".py")
        elif case.find("skipped") is None:
            passed += 1
    return failed, passed


def summary(results: Sequence[Result], total: int) -> dict[str, object]:
    """The content that `--json` writes."""
    applied = [each for each in results if each.applied]
    caught = [each for each in applied if each.outcome == CAUGHT]
    return {
        "faults": total,
        "tried": len(applied),
        "caught": len(caught),
        "share": round(len(caught) / len(applied), 4) if applied else None,
        "bar": BAR,
        "survivors": [asdict(each) for each in applied if each.outcome == SURVIVED],
        "not_applied": [asdict(each) for each in results if not each.applied],
        "results": [asdict(each) for each in results],
    }


def _print_end(results: Sequence[Result], total: int) -> int:
    """Print the results; returns the exit code."""
    applied = [each for each in results if each.applied]
    caught = sum(each.outcome == CAUGHT for each in applied)
    for each in results:
        if each.outcome != CAUGHT:
            print(f"{each.outcome}: {each.fault.wrong}  [{each.path or each.fault.file}]")
            print(f"    {' '.join(each.fault.text.split())}")
            print(f"    -> {' '.join(each.fault.instead.split())}")
            print(f"    {each.reason}")
    share = caught / len(applied) if applied else 0.0
    print(f"{caught} of {len(applied)} faults were caught: {share:.1%}, at least {BAR:.0%} wanted")
    complete = len(applied) == total
    if not complete:
        print(f"{total - len(applied)} of {total} faults were not tried")
    return 0 if complete and share >= BAR else 1


def main(arguments: Sequence[str] | None = None, root: Path = ROOT) -> int:
    parser = argparse.ArgumentParser(
        "benchmarks.mutants", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--table", type=Path, default=TABLE, help="faults in TOML")
    parser.add_argument("--sample", type=int, help="try only that many, chosen by a fixed seed")
    parser.add_argument("--only", help="try only faults whose file or description has this")
    parser.add_argument("--jobs", type=int, default=1, help="copies of the repository at once")
    parser.add_argument("--reach", type=int, default=1, help="imports between a test and a file")
    parser.add_argument("--own", action="store_true", help="run only a file's own tests")
    parser.add_argument("--limit", type=float, default=900.0, help="seconds a run may take at most")
    parser.add_argument("--json", type=Path, help="write results there")
    chosen = parser.parse_args(arguments)
    try:
        faults = read_table(chosen.table)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    if chosen.only:
        faults = [each for each in faults if chosen.only in f"{each.file} {each.wrong}"]
    if chosen.sample is not None and chosen.sample < len(faults):
        faults = random.Random(SAMPLE_SEED).sample(faults, chosen.sample)
    count = len(faults)

    def tell(result: Result, done: int) -> None:
        print(
            f"{done}/{count}  {result.outcome:9} {result.seconds:5.0f} s  {result.fault.wrong}"
            f"  ({result.reason})",
            flush=True,
        )

    with tempfile.TemporaryDirectory(prefix="mutants-") as scratch:
        check = MutationCheck(
            root, Path(scratch), max(1, chosen.jobs), chosen.reach, chosen.own, chosen.limit
        )
        results = check.run(faults, tell)
    if chosen.json:
        text = json.dumps(summary(results, count) | {"broken": check.broken}, indent=1)
        chosen.json.write_text(text + "\n", encoding="utf-8")
    return _print_end(results, count)


if __name__ == "__main__":
    # Programs that a shell starts in the background ignore Ctrl-C, but it must end this one.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    sys.exit(main())
