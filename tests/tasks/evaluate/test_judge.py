"""Which network judges an evaluation."""

from pathlib import Path

import pytest
import torch

from datasets.errors import UserError
from models.syncnet.syncnet_v2 import SyncNet
from tasks.evaluate.judge import load_sync_judge
from tests.support.real_bundle import make_real_bundle

CPU = torch.device("cpu")


def test_the_bundles_own_network_is_labelled_so(tmp_path: Path) -> None:
    made = load_sync_judge("", make_real_bundle(tmp_path / "b"), CPU)
    assert made.label == "the bundle's own FrameSyncNet (not syncnet_v2)"


def test_the_published_one_judges_where_it_is_given(tmp_path: Path) -> None:
    path = tmp_path / "syncnet_v2.model"
    torch.save(SyncNet().state_dict(), path)
    assert load_sync_judge(str(path), tmp_path / "b", CPU).label == "syncnet_v2 on aligned crops"
    with pytest.raises(UserError, match="there is no file nothing"):
        load_sync_judge("nothing.model", tmp_path / "b", CPU)
