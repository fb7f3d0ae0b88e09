"""The steps of `benchmarks.convert` on a small checkpoint, and what they would notice."""

from pathlib import Path

import pytest
import torch

from benchmarks import convert as steps
from models.convert.unet import unet_to_reference
from models.unet import LipSyncUNet
from tests.support.small_models import PUBLISHED, shaken


def test_a_checkpoint_goes_there_and_back(tmp_path: Path) -> None:
    unet = LipSyncUNet(**{**PUBLISHED, "cross_attention_dim": 384})
    shaken(unet)
    torch.save(unet_to_reference(unet), tmp_path / "unet.pt")
    count = len(unet.state_dict())
    assert f"{count} entries" in steps.convert(tmp_path)
    assert f"{count} entries" in steps.back(tmp_path)
    assert steps.compare(tmp_path) == f"{count} entries are equal"
    assert "(1, 4, 16, 32, 32)" in steps.forward(tmp_path)
    content = torch.load(tmp_path / "back.pt", weights_only=True)
    content["state_dict"]["conv_in.bias"][0] += 1
    torch.save(content, tmp_path / "back.pt")
    with pytest.raises(ValueError, match=r"1 entries differ, such as conv_in\.bias"):
        steps.compare(tmp_path)


def test_a_step_that_fails_says_why(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"the step convert failed: .*unet\.pt is not there"):
        steps.run_step("convert", tmp_path)
