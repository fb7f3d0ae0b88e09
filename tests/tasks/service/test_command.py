"""The command itself: a process that is killed and started again goes on with its jobs."""

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from benchmarks.batch import make_jobs
from datasets.media import probe
from tasks.runtime.processes import ROOT

LIMIT_S = 240.0


@contextmanager
def served(folder: Path, bundle: Path) -> Iterator[tuple["subprocess.Popen[str]", str]]:
    """The command as a process, and its address."""
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "latentsync_flows", "serve", str(folder)),
            *("--model", str(bundle), "--port", "0", "--workers", "1"),
        ],
        cwd=folder.parent,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if found := re.match(r"serving at (http://127.0.0.1:\d+),", line):
                yield process, found[1]
                return
        pytest.fail("it ended before it served")
    finally:
        process.kill()
        process.wait()


def ask(method: str, url: str, body: bytes | None = None) -> Any:
    request = urllib.request.Request(url, body, method=method)
    with urllib.request.urlopen(request, timeout=120) as answer:
        return json.load(answer)


@pytest.mark.timeout(900)
def test_jobs_outlive_the_service(tmp_path: Path) -> None:
    files = make_jobs(tmp_path, 1).parent
    folder, names = tmp_path / "my service", []
    with served(folder, files / "bundle") as (process, url):
        video = ask("POST", f"{url}/uploads?name=a.mp4", (files / "ein Gesicht.mp4").read_bytes())
        audio = ask("POST", f"{url}/uploads?name=a.flac", (files / "0.25.flac").read_bytes())
        job = {"video": video["source"], "audio": audio["source"], "steps": 1}
        names = [
            ask("POST", f"{url}/jobs", json.dumps(job | {"seed": seed}).encode())["id"]
            for seed in range(2)
        ]
        process.send_signal(signal.SIGKILL)
        process.wait()
    with served(folder, files / "bundle") as (process, url):
        end = time.monotonic() + LIMIT_S
        while time.monotonic() < end:
            told = [ask("GET", f"{url}/jobs/{name}") for name in names]
            if all(each["state"] == "done" for each in told):
                break
            time.sleep(0.2)
        assert [each["state"] for each in told] == ["done", "done"]
        for name in names:
            result, _ = urllib.request.urlretrieve(
                f"{url}/jobs/{name}/result", tmp_path / f"{name}.mp4"
            )
            assert probe(Path(result)).duration_s == pytest.approx(0.25, abs=0.02)
        process.send_signal(signal.SIGTERM)
        assert process.stdout is not None
        assert process.stdout.read().startswith("ended: jobs that were running go on")
        assert process.wait(60) == 0
