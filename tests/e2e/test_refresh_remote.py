"""A refresh whose videos come from a web server and whose dataset goes to S3."""

from pathlib import Path

import pyarrow.parquet
import pytest

from datasets.shards.index import read_index, verify
from tests.e2e.conftest import RunFlow
from tests.support.file_server import file_server
from tests.support.s3_server import S3Server, failing_proxy

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]


def test_addresses_in_and_s3_out(
    tmp_path: Path, sample_videos: Path, run_flow: RunFlow, s3_server: S3Server
) -> None:
    """With puts that fail, a video that is gone and one that is torn off; then once more
    locally: the same dataset."""
    videos = sorted(sample_videos.rglob("*.mp4"))[:3]
    url = f"s3://{s3_server.bucket()}/data set"
    with file_server() as files, failing_proxy(s3_server.endpoint) as proxy:
        files.content |= {path.name: path.read_bytes() for path in videos}
        files.reset_after = [20_000]
        address = files.address
        listed = tmp_path / "videos.txt"
        lines = [f"{address}/{path.name} {path.parent.name}" for path in videos]
        listed.write_text("\n".join([*lines, f"{address}/gone.mp4 nobody"]))
        proxy.faults = ["503", "drop", "500", "half"]
        shared = ("--source=urls", f"--input={listed}", "--resolution=128", "--allow-private")
        remote = (*shared, f"--output={url}", f"--work={tmp_path / 'work'}")
        env = s3_server.env | {"AWS_ENDPOINT_URL": proxy.address}
        done = run_flow("refresh_dataset", *remote, env=env)
        assert (done.code, done.err) == (0, "")
        assert not proxy.faults, "all faults were met"
        again = run_flow("refresh_dataset", *remote, env=env)
        assert "nothing has changed" in again.out
        local = run_flow("refresh_dataset", *shared, f"--output={tmp_path / 'local'}")
        assert local.code == 0
    assert read_index(url) == read_index(tmp_path / "local")
    assert verify(url) == verify(tmp_path / "local") == []
    rows = pyarrow.parquet.read_table(tmp_path / "local" / "ledger.parquet").to_pylist()
    gone = [row for row in rows if row["path"].endswith("gone.mp4")]
    assert [(row["reason"], row["stage"]) for row in gone] == [("unavailable", "download")]
    assert {row["reason"] for row in rows} >= {"", "unavailable"}
    bucket, _, prefix = url.removeprefix("s3://").partition("/")
    stored = s3_server.objects(bucket)
    ledger = stored[f"{prefix}/ledger.parquet"]
    assert ledger == (tmp_path / "local" / "ledger.parquet").read_bytes()
    assert s3_server.unfinished(bucket) == []


def test_a_store_that_always_fails_is_one_sentence(
    tmp_path: Path, sample_videos: Path, run_flow: RunFlow, s3_server: S3Server
) -> None:
    url = f"s3://{s3_server.bucket()}/data"
    with failing_proxy(s3_server.endpoint) as proxy:
        proxy.always = "503"
        done = run_flow(
            "refresh_dataset",
            "--source=folder",
            f"--input={sample_videos}",
            f"--output={url}",
            f"--work={tmp_path / 'work'}",
            env=s3_server.env | {"AWS_ENDPOINT_URL": proxy.address},
        )
    assert done.code == 2
    assert len(done.err.splitlines()) == 1
    assert url in done.err
