"""The benchmark of the networks measures what it says, at a size for tests."""

import pytest
import torch

from benchmarks.models import seam_jumps
from models.whisper_tokens import WhisperTokens


def test_only_the_reference_jumps_at_30_s() -> None:
    torch.manual_seed(0)
    exact, overlapping, through_blocks = seam_jumps(WhisperTokens(16, 2, 2), 32).values()
    assert exact > 1.25
    assert overlapping == pytest.approx(1, abs=0.1)
    assert through_blocks == pytest.approx(1, abs=0.1)
