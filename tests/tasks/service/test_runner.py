"""The whole service but for its web server: real workers, a restart, and a cancelled job."""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.batch import make_jobs
from datasets.fetch.policy import DownloadSettings
from datasets.media import probe
from datasets.sources.addresses import AddressPolicy
from tasks.runtime.ray_session import ray_session
from tasks.service.queue import DONE, FAILED, RUNNING, JobQueue
from tasks.service.runner import Runner
from tasks.service.service import Service, ServiceSettings
from tasks.service.stage import Place, ServiceItem, ServiceStage

LIMIT_S = 240.0


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a bundle, a video and speech."""
    return make_jobs(tmp_path_factory.mktemp("files"), 1).parent


@pytest.fixture
def queue(tmp_path: Path) -> Iterator[JobQueue]:
    made = JobQueue(f"sqlite:///{tmp_path}/q.db")
    yield made
    made.close()


@pytest.fixture
def service(tmp_path: Path, queue: JobQueue) -> Service:
    downloads = DownloadSettings(addresses=AddressPolicy(), keep_free_bytes=1)
    return Service(ServiceSettings(tmp_path / "s", most_s=5.0, downloads=downloads), queue)


def uploaded(service: Service, path: Path) -> str:
    target = service.new_upload(path.name)
    target.write_bytes(path.read_bytes())
    return f"upload:{target.name}"


def job(service: Service, files: Path, **options: Any) -> str:
    given = {
        "video": uploaded(service, files / "ein Gesicht.mp4"),
        "audio": uploaded(service, files / "0.25.flac"),
        "steps": 1,
    }
    return service.add(given | options).id


def run_until(runner: Runner, reached: Callable[[], bool]) -> None:
    """Let a runner work until something is so."""

    def watch() -> None:
        end = time.monotonic() + LIMIT_S
        while not reached() and time.monotonic() < end:
            time.sleep(0.05)
        runner.stop()

    thread = threading.Thread(target=watch)
    thread.start()
    runner.run()
    thread.join()
    assert reached()


def state(service: Service, identity: str) -> str:
    found = service.queue.get(identity)
    assert found is not None
    return found.state


def stage(files: Path) -> ServiceStage:
    return ServiceStage(files / "bundle", downloads=DownloadSettings(), most_s=5.0)


@pytest.mark.timeout(900)
def test_jobs_are_worked_on_over_a_restart_and_a_cancellation(
    files: Path, service: Service
) -> None:
    first = job(service, files)
    bad = job(service, files, face="7")
    long = job(service, files, length="loop", audio_end_s=0.2)
    with ray_session(num_cpus=1):
        run_until(Runner(service, stage(files), 1), lambda: state(service, first) == DONE)
        # As if the service had been ended in the middle of the next one.
        taken = service.queue.get(bad)
        assert taken is not None
        if taken.state != FAILED:
            service.queue.take()
            assert state(service, bad) == RUNNING
        service.cancel(long)
        last = job(service, files, output="x.mkv")
        run_until(Runner(service, stage(files), 1), lambda: state(service, last) == DONE)
    found = service.queue.get(first)
    assert found is not None
    assert (found.result["frames"], found.result["faces_found"]) == (5, 5)
    assert probe(service.place(first).output(found.job)).duration_s == pytest.approx(0.25, abs=0.02)
    refused = service.queue.get(bad)
    assert refused is not None
    assert (refused.state, refused.result["reason"]) == (FAILED, "refused")
    assert "--face 7: only 1 person was seen" in refused.result["detail"]
    assert not service.place(long).folder.exists()
    assert (service.place(last).folder / "out.mkv").is_file()


class Working(ServiceStage):
    """Does nothing but what is around the work."""

    def setup(self) -> None:
        return

    def _done(self, item: Any) -> Any:
        raise AssertionError("it was done already")


def test_what_was_done_before_a_kill_is_not_done_again(files: Path, tmp_path: Path) -> None:
    place = Place(tmp_path / "job", tmp_path)
    place.folder.mkdir()
    place.receipt.write_text('{"status": "done", "frames": 7, "notes": []}')
    working = Working(files / "bundle")
    assert working.process(ServiceItem({}, place)).frames == 7


def test_files_that_last_too_long_are_refused_by_the_worker(files: Path, tmp_path: Path) -> None:
    (tmp_path / "v.mp4").write_bytes((files / "ein Gesicht.mp4").read_bytes())
    (tmp_path / "a.flac").write_bytes((files / "0.25.flac").read_bytes())
    values = {"video": "upload:v.mp4", "audio": "upload:a.flac"}
    place = Place(tmp_path / "job", tmp_path)
    working = Working(files / "bundle", most_s=0.3)
    result = working.process(ServiceItem(values, place))
    assert (result.status, result.reason) == ("failed", "not_allowed")
    assert "at most 0.3 s are taken" in result.detail


def test_addresses_that_lead_inside_are_refused_by_the_worker(files: Path, tmp_path: Path) -> None:
    place = Place(tmp_path / "job", tmp_path)
    place.folder.mkdir()
    working = Working(files / "bundle")
    values = {"video": "http://127.0.0.1:9/v.mp4", "audio": "http://127.0.0.1:9/a.wav"}
    result = working.process(ServiceItem(values, place))
    assert (result.status, result.reason) == ("failed", "not_allowed")
    assert "loopback" in result.detail
