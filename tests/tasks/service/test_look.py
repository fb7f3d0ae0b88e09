"""Looking into files in a process that may die of them."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.batch import make_jobs
from tasks.service import look as module
from tasks.service.look import Look, Looker


@pytest.fixture(scope="module")
def looker() -> Iterator[Looker]:
    made = Looker(1.0)
    yield made
    made.close()


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = make_jobs(tmp_path_factory.mktemp("files"), 1).parent
    video, audio = folder / "ein Gesicht.mp4", folder / "0.25.flac"
    return {"video": str(video), "audio": str(audio), "output": "out.mp4"}


def test_frames_are_counted(looker: Looker, job: dict[str, Any]) -> None:
    assert looker(job) == Look(frames=5)
    assert looker(job | {"length": "keep"}) == Look(frames=8)


def test_what_is_wrong_with_files_is_said(
    looker: Looker, job: dict[str, Any], tmp_path: Path
) -> None:
    noise = tmp_path / "noise.mp4"
    noise.write_bytes(os.urandom(5000))
    assert looker(job | {"video": str(noise)}).problem
    assert "no audio" in looker(job | {"audio": job["video"]}).problem
    long = module.look(job, 0.3)
    assert (long.too_long, "at most 0.3 s" in long.problem) == (True, True)


def test_a_file_that_kills_the_process_is_refused_and_the_next_is_seen(
    looker: Looker, job: dict[str, Any]
) -> None:
    looker(job)
    assert looker._pool is not None
    for process in looker._pool._processes.values():
        process.kill()
        process.join()
    assert "died" in looker(job).problem
    assert looker(job) == Look(frames=5)
