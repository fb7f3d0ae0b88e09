"""The whole demo, small: one run, what it leaves behind, and a second one with nothing to do."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from datasets.media import probe
from tasks.demo.summary import KEYS

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]
ROOT = Path(__file__).resolve().parents[2]


def run_demo(output: Path) -> str:
    """Run the command as a user does; returns its output."""
    command = [sys.executable, "-m", "flows.demo", "--output", str(output)]
    command += ["--recipe", "debug", "--clips", "8"]
    environment = os.environ | {"PREFECT_HOME": str(output / "prefect")}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=580, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "Traceback" not in done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo") / "out"
    printed = run_demo(folder)
    (folder / "printed.txt").write_text(printed, encoding="utf-8")
    return folder


def test_the_summary_has_exactly_the_promised_keys(output: Path) -> None:
    summary = json.loads((output / "summary.json").read_text(encoding="utf-8"))
    assert list(summary) == list(KEYS)
    for name, keys in KEYS.items():
        assert not keys or list(summary[name]) == list(keys)
    for name, entry in summary["evaluation"].items():
        assert set(entry) - {"reason"} == {"value", "label", "n"}, name
        assert ("reason" in entry) == (entry["value"] is None), name
    ingest = summary["ingest"]
    assert ingest["inputs"] == 8
    assert ingest["clips_accepted"] >= 5
    assert ingest["offset_within_1"] >= 0.8
    assert ingest["cut_error_frames_max"] is None or ingest["cut_error_frames_max"] <= 2
    stages = {"ingest", "autoencoder", "syncnet", "stage1", "stage2", "lip_sync", "total"}
    assert stages <= set(summary["seconds"])


def test_the_registry_holds_two_versions_and_their_decisions(output: Path) -> None:
    from tasks.registry.versions import DECISION_TAG, Registry

    summary = json.loads((output / "summary.json").read_text(encoding="utf-8"))
    registry = Registry(f"sqlite:///{output}/mlflow.db", must_exist=True)
    versions = registry.versions("latentsync")
    assert [each.version for each in versions] == [1, 2]
    assert summary["registry"]["candidate"] == 2
    for each, recorded in zip(versions, summary["registry"]["decisions"], strict=True):
        decision = each.json_tag(DECISION_TAG)
        assert decision is not None
        assert decision["candidate"] == recorded["candidate"] == each.version
        assert recorded["verdict"] in ("promoted", "refused")
        assert recorded["reasons"]


def test_the_video_and_the_report_are_there(output: Path) -> None:
    about = probe(output / "lip_sync.mp4")
    assert about.has_audio
    assert about.duration_s == pytest.approx(15.0, abs=0.1)
    page = (output / "report.html").read_text(encoding="utf-8")
    assert page.count("data:video/mp4;base64,") == 2
    for title in ("Ingestion", "Training", "Evaluation", "Decisions"):
        assert f"<h2>{title}</h2>" in page
    assert "not the official weights" in page


def test_a_second_run_finds_everything_done(output: Path) -> None:
    before = (output / "summary.json").read_bytes()
    written = {path: path.stat().st_mtime_ns for path in output.rglob("*.safetensors")}
    printed = run_demo(output)
    assert printed.count("] already done (") == 7
    assert (output / "summary.json").read_bytes() == before
    assert {path: path.stat().st_mtime_ns for path in output.rglob("*.safetensors")} == written
    assert "Ingestion" in (output / "printed.txt").read_text(encoding="utf-8")
    assert str(output / "report.html") in printed
