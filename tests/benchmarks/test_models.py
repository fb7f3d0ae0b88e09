"""The benchmark of the networks measures what it says, at a size for tests."""

import json
from pathlib import Path

import pytest
import torch

from benchmarks.denoise import SMALL, measure
from benchmarks.models import main, seam_jumps
from models.audio.whisper_tokens import WhisperTokens


def test_only_the_reference_jumps_at_30_s() -> None:
    torch.manual_seed(0)
    exact, overlapping, through_blocks = seam_jumps(WhisperTokens(16, 2, 2), 32).values()
    assert exact > 1.25
    assert overlapping == pytest.approx(1, abs=0.1)
    assert through_blocks == pytest.approx(1, abs=0.1)


def test_a_window_is_repainted_and_its_work_counted() -> None:
    device = torch.device("cpu")
    one, two, three = (
        measure(SMALL[0], device, steps=steps, rounds=1).flops for steps in (1, 2, 3)
    )
    assert 0 < two - one == three - two
    plain = measure(SMALL[0], device, steps=1, guidance=1.0, rounds=1)
    # Without guidance the U-Net sees one window instead of two; encoder and decoder the same.
    assert one - plain.flops == pytest.approx((two - one) / 2, rel=0.01)
    assert not plain.bf16
    assert plain.peak_bytes > 0
    assert plain.share(1e-12 * plain.flops / plain.seconds) == pytest.approx(1)


def test_the_command_prints_and_writes_a_line_per_size(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "speeds.json"
    assert main(["--denoise", "--steps", "1", "--rounds", "1", "--output", str(path)]) == 0
    written = json.loads(path.read_text())
    assert list(written) == ["64", "128"]
    assert written["64"]["frames_per_second"] > written["128"]["frames_per_second"] > 0
    assert "random weights; share of a peak of 989" in capsys.readouterr().out
