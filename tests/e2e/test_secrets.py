"""A refresh that is given secrets everywhere: none of them is in anything that it leaves."""

import gzip
import io
import os
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet
import pytest

from datasets.shards.index import read_index
from tests.e2e.conftest import RunFlow
from tests.support.file_server import file_server

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

NAMES = (
    *("amz-signature", "amz-session", "amz-credential", "goog", "azure", "cloudfront", "token"),
    *("other-token", "fragment", "page", "page-gone", "userinfo", "gone", "refused", "redirect"),
    *("list", "hf", "mlflow", "aws", "postgres", "path-outside", "s3"),
)
CANARIES = {name: f"c4n4ry{number:02d}{'zQ7' * 5}" for number, name in enumerate(NAMES)}


def lines_of(address: str) -> list[str]:
    """Addresses with a secret each, of files that come and of some that do not."""
    c, host = CANARIES, address.removeprefix("http://")
    return [
        f"{address}/0.mp4?X-Amz-Signature={c['amz-signature']}"
        f"&X-Amz-Security-Token={c['amz-session']}&X-Amz-Credential={c['amz-credential']}",
        f"{address}/1.mp4?X-Goog-Signature={c['goog']}",
        f"{address}/2?sv=1&se=2&sig={c['azure']}",
        f"{address}/3.mp4?Key-Pair-Id=K&Signature={c['cloudfront']}",
        f"{address}/4.mp4?id=7&token={c['token']}",
        f"{address}/5.mp4?access_token={c['other-token']}#secret={c['fragment']}",
        f"{address}/page?password={c['page']}",
        f"{address}/none?v=7&api_key={c['page-gone']}",
        f"http://ann:{c['userinfo']}@{host}/6.mp4",
        f"{address}/gone.mp4?sig={c['gone']}",
        f"ftp://host/a.mp4?token={c['refused']}",
        f"{address}/on.mp4",
        f"/etc/passwd?token={c['path-outside']}",
        f"s3://no-such-bucket/b.mp4?X-Amz-Signature={c['s3']}",
    ]


def texts_below(folder: Path) -> Iterator[tuple[str, bytes]]:
    """All that is in a folder, as it is and unpacked."""
    for path in sorted(folder.rglob("*")):
        yield str(path), str(path).encode()
        if not path.is_file():
            continue
        content = path.read_bytes()
        yield str(path), content
        if path.suffix == ".parquet":
            yield f"{path}, unpacked", repr(pyarrow.parquet.read_table(path).to_pylist()).encode()
        elif path.suffix == ".gz":
            yield f"{path}, unpacked", gzip.decompress(content)
        elif path.suffix == ".tar":
            with tarfile.open(fileobj=io.BytesIO(content)) as archive:
                for member in archive:
                    yield f"{path}: {member.name}", member.name.encode()


def test_no_secret_is_left_anywhere(tmp_path: Path, sample_videos: Path, run_flow: RunFlow) -> None:
    videos = {
        number: path.read_bytes()
        for number, path in zip((0, 2), sorted(sample_videos.rglob("*.mp4")), strict=False)
    }
    output, home = tmp_path / "dataset", tmp_path / "prefect"
    with file_server() as files:
        signed = lines_of(files.address)
        for number, line in enumerate(signed[:6]):
            # The server knows files by their whole address, as signed ones are.
            place = line.removeprefix(f"{files.address}/").partition("#")[0]
            files.content[place] = videos.get(number, b"no video")
            files.types[place] = "video/mp4"
        page = f"page?password={CANARIES['page']}"
        files.content[page] = b"<html><title>no video</title></html>"
        files.types[page] = "text/html"
        files.redirects["on.mp4"] = f"{files.address}/none.mp4?token={CANARIES['redirect']}"
        listing = f"list.txt?X-Amz-Signature={CANARIES['list']}"
        files.content[listing] = "\n".join(signed).encode()
        env = {
            "PREFECT_HOME": str(home),
            "PREFECT_LOGGING_LEVEL": "DEBUG",
            "HF_TOKEN": CANARIES["hf"],
            "MLFLOW_TRACKING_PASSWORD": CANARIES["mlflow"],
            "AWS_SECRET_ACCESS_KEY": CANARIES["aws"],
            "AWS_ACCESS_KEY_ID": "AKIAC4N4RYC4N4RYC4N4",
            "AWS_ENDPOINT_URL": "http://127.0.0.1:1",
            "MLFLOW_TRACKING_URI": f"postgresql://ann:{CANARIES['postgres']}@127.0.0.1:1/runs",
        }
        arguments = (
            "--source=urls",
            f"--input={files.address}/{listing}",
            f"--output={output}",
            f"--work={tmp_path / 'work'}",
            "--resolution=128",
            "--allow-private",
            "--download-deadline-s=200",
        )
        done = run_flow("refresh_dataset", *arguments, env=env)
        assert done.code == 0, done.err
        # Two flows that fail, for what libraries and Prefect say of that.
        failed = run_flow(
            "promote_model",
            "--model-name=none",
            f"--tracking-uri={env['MLFLOW_TRACKING_URI']}",
            env=env,
        )
        wrong = files.address + f"/no-list.txt?token={CANARIES['list']}"
        other = f"--output={tmp_path / 'other'}"
        missing = run_flow("refresh_dataset", "--source=urls", f"--input={wrong}", other, env=env)
        assert failed.code != 0
        assert missing.code == 2
    rows = pyarrow.parquet.read_table(output / "ledger.parquet").to_pylist()
    reasons = {row["path"].partition("/")[2]: row["reason"] for row in rows}
    assert reasons["0.mp4"] == reasons["2"] == "", "they came, and are named by their path"
    assert reasons["1.mp4"] == reasons["3.mp4"] == reasons["5.mp4"] == "not_media"
    assert reasons["6.mp4"] == reasons["a.mp4"] == "not_allowed"
    assert read_index(output)["counts"]
    told = "\n".join([done.out, done.err, failed.out, failed.err, missing.out, missing.err])
    seen = [("printed", told.encode()), *texts_below(tmp_path)]
    assert any(name.startswith(str(home)) and name.endswith(".db") for name, _ in seen)
    leaks = {
        (name, canary)
        for name, content in seen
        for canary, value in CANARIES.items()
        if value.encode() in content
    }
    assert not leaks


FAILING_FLOW = """
import sys

from prefect import flow, task

from flows.support.cli import run
from flows.support.secrets import keep_secrets

if "--as-it-is" in sys.argv:
    import datasets.redact

    originals = (datasets.redact.redact, datasets.redact.redact_all)
    for module in list(sys.modules.values()):
        for name in ("redact", "redact_all"):
            if getattr(module, "__dict__", {}).get(name) in originals:
                setattr(module, name, lambda text: text)


@task
@keep_secrets
def ask(address: str) -> None:
    print(f"asking {address}")
    raise RuntimeError(f"nobody foresaw {address}")


@flow(name="failing", log_prints=True)
@keep_secrets
def failing(address: str = "") -> None:
    ask(address)


sys.exit(run(failing, ["--address", sys.argv[1]]))
"""


@pytest.mark.parametrize("redacted", [True, False])
def test_an_unforeseen_error_reaches_the_server_without_secrets(
    tmp_path: Path, redacted: bool
) -> None:
    """And the search finds them where nothing removes them."""
    script, home, canary = tmp_path / "failing.py", tmp_path / "prefect", CANARIES["amz-signature"]
    script.write_text(FAILING_FLOW)
    command = [sys.executable, str(script), f"https://host/a.mp4?X-Amz-Signature={canary}"]
    if not redacted:
        command.append("--as-it-is")
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        command,
        cwd=root,
        env={**os.environ, "PREFECT_HOME": str(home), "PYTHONPATH": str(root)},
        capture_output=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 1
    assert b"nobody foresaw" in done.stdout + done.stderr
    databases = [path for path in home.rglob("*") if ".db" in path.name]
    assert any(b"nobody foresaw" in path.read_bytes() for path in databases)
    seen = [("printed", done.stdout + done.stderr), *texts_below(home)]
    leaks = {name for name, content in seen if canary.encode() in content}
    assert bool(leaks) is not redacted, leaks
    if not redacted:
        assert "printed" in leaks
        assert any(".db" in name for name in leaks)
