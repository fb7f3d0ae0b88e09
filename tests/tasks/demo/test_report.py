from pathlib import Path
from typing import Any

import numpy as np

from datasets.media import write_flac
from datasets.store.local import LocalStore
from tasks.demo.lipsync_score import LipSyncScore
from tasks.demo.report import RunFiles, write_report
from tasks.demo.summary import KEYS, build
from tasks.evaluate.run import CONTACT_SHEET, PLOTS
from tasks.publish.ledger import read_ledger
from tasks.registry.metric import metric
from tests.support.fake_report import make_video
from tests.support.small_dataset import write_small_dataset


def test_the_page_is_gathered_from_what_a_run_leaves(tmp_path: Path) -> None:
    dataset = write_small_dataset(tmp_path / "data", speakers=2, resolution=32)
    evaluation = tmp_path / "train/evaluation"
    evaluation.mkdir(parents=True)
    for name in (CONTACT_SHEET, PLOTS):
        (evaluation / name).write_bytes(b"png")
    stage = tmp_path / "train/stage1"
    stage.mkdir()
    (stage / "metrics.jsonl").write_text('{"step": 1, "loss": 0.5}\n{"step": 2, "loss": 0.4}\n')
    driving = tmp_path / "driving.flac"
    write_flac(driving, np.zeros(16000, np.float32), 16000)
    files = RunFiles(
        dataset,
        tmp_path / "train",
        make_video(tmp_path / "in.mp4", 10),
        driving,
        make_video(tmp_path / "out.mp4", 90),
    )
    content: dict[str, Any] = {name: dict.fromkeys(keys, 1.0) for name, keys in KEYS.items()}
    content["ingest"]["offset_within_1"] = None
    content["evaluation"] = {"fid": metric(2.0, "seeded", 3)}
    content["seconds"] = {"ingest": 3.0, "total": 60.0}
    decision = {
        "model": "m",
        "candidate": 1,
        "champion_before": None,
        "verdict": "promoted",
        "reasons": ["good enough"],
        "comparisons": [],
    }
    score = LipSyncScore(0.1, 6.0, 1.0, np.ones(12), np.ones(12))
    path = tmp_path / "report.html"
    write_report(path, build(**content), [decision], None, score, files)
    page = path.read_text(encoding="utf-8")
    assert page.count("<video") == 2
    for text in ("clips accepted", "good enough", "seeded", "no champion yet"):
        assert text in page
    # One plot each for mouths, offsets and curves, and the two pictures of the evaluation.
    assert page.count("<img") == 5
    assert len(read_ledger(LocalStore(dataset))) == 4
