"""A report with every section filled, for tests of the page."""

from pathlib import Path

import numpy as np

from datasets.media import VideoWriter
from tasks.demo.plots import loss_curves, mouth_curves, offset_histogram
from tasks.demo.report_page import Report
from tasks.pages.funnel import funnel
from tasks.registry.metric import metric


def make_video(path: Path, colour: int) -> Path:
    with VideoWriter(path, 160, 120, 25) as writer:
        for index in range(12):
            writer.write(np.full((120, 160, 3), (colour + 5 * index) % 256, np.uint8))
    return path


def make_report(folder: Path) -> Report:
    rng = np.random.default_rng(1)
    times = np.arange(100) / 25
    curve = [{"step": step, "loss": 1 / (1 + step)} for step in range(30)]
    decision = {
        "model": "latentsync",
        "candidate": 2,
        "champion_before": 1,
        "verdict": "refused",
        "reasons": ["sync_c (by <somebody>) is 1.000, the champion's 3.000"],
        "comparisons": [
            {"metric": "sync_c", "candidate": 1.0, "champion": 3.0, "holds": False},
            {"metric": "ssim", "candidate": None, "champion": 0.9, "holds": True},
        ],
    }
    return Report(
        title="LatentSync & friends",
        lead="Made in 9 minutes",
        cards=[("97 %", "offsets within a frame"), ("0.95", "sync accuracy")],
        videos=[
            ("input", make_video(folder / "in.mp4", 40)),
            ("output", make_video(folder / "out.mp4", 120)),
        ],
        mouth_plot=mouth_curves(times, {"mouth": np.sin(times), "speech": np.cos(times)}),
        funnel=funnel([("input files", 48)], 44, {"no_face": 4}),
        offsets=offset_histogram(rng.integers(-9, 10, 40), rng.integers(-9, 10, 40)),
        curves=loss_curves({"autoencoder": curve, "syncnet": curve}),
        metrics={
            "fid": metric(12.3, "seeded-inception (not the official weights)", 200),
            "lmd": metric(float("nan"), "FaceMesh", 0, "the clips are <short>"),
        },
        decisions=[decision],
        seconds={"ingest": 80.0, "train": 400.0},
        paths=[("summary", "runs/demo/summary.json")],
    )
