"""The download stage over a real Ray: files and reasons, one outcome per item."""

import pickle
from collections.abc import Iterator
from pathlib import Path

import pytest

from datasets.errors import Reason, SourceError
from datasets.fetch.policy import DownloadSettings
from datasets.sources.addresses import AddressPolicy
from datasets.sources.items import How, SourceItem, local_item
from tasks.ingest.download_stage import Downloaded, DownloadStage
from tasks.runtime.executor import run_stage
from tasks.runtime.ray_session import ray_session
from tasks.runtime.stage import Outcome
from tests.support.file_server import Files, file_server

SETTINGS = DownloadSettings(
    attempts=2, backoff_s=0.01, keep_free_bytes=0, addresses=AddressPolicy(allow_private=True)
)


@pytest.fixture
def server() -> Iterator[Files]:
    with file_server() as files:
        files.content = {f"{n}.mp4": bytes([n]) * 100_000 for n in range(6)}
        yield files


def item(server: Files, name: str, sound: SourceItem | None = None) -> SourceItem:
    return SourceItem(name, f"{server.address}/{name}", name, "ann", How.FILE, sound=sound)


def test_one_item(server: Files, tmp_path: Path) -> None:
    stage = pickle.loads(pickle.dumps(DownloadStage(tmp_path, SETTINGS)))
    done = stage.process(item(server, "1.mp4"))
    assert done.path.read_bytes() == b"\1" * 100_000
    assert (done.bytes, len(done.sha256), done.sound) == (100_000, 64, None)
    assert done.seconds > 0
    assert stage.executor_deadline_s > SETTINGS.deadline_s
    assert stage.resources.cpus < 0.5


def test_audio_of_its_own_comes_along(server: Files, tmp_path: Path) -> None:
    server.content["1.m4a"] = b"sound"
    stage = DownloadStage(tmp_path, SETTINGS)
    done = stage.process(item(server, "1.mp4", sound=item(server, "1.m4a")))
    assert done.sound is not None
    assert done.sound.read_bytes() == b"sound"
    with pytest.raises(SourceError) as caught:
        stage.process(item(server, "2.mp4", sound=item(server, "2.m4a")))
    assert caught.value.reason is Reason.UNAVAILABLE


def test_a_local_item_costs_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"1234")
    done = DownloadStage(tmp_path / "cache").process(local_item(tmp_path / "a.mp4", "a", "a"))
    assert done.path == tmp_path / "a.mp4"
    assert not (tmp_path / "cache").exists()


def test_many_items_on_workers_that_share_a_core(server: Files, tmp_path: Path) -> None:
    names = [*(f"{n}.mp4" for n in range(6)), "gone.mp4"]
    outcomes: dict[str, Outcome] = {}

    def keep(outcome: Outcome) -> None:
        outcomes[outcome.key] = outcome

    with ray_session(num_cpus=1):
        run_stage(
            DownloadStage(tmp_path, SETTINGS),
            [(name, item(server, name)) for name in names],
            on_outcome=keep,
            workers=3,
        )
    assert outcomes.pop("gone.mp4").reason is Reason.UNAVAILABLE
    assert len(outcomes) == 6
    for name, outcome in outcomes.items():
        assert isinstance(outcome.value, Downloaded)
        assert outcome.value.path.read_bytes() == server.content[name]
