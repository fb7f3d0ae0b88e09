from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from datasets.errors import UserError
from tasks.recipes import SyncNetConfig
from tasks.sync_judge import BundleJudge, SyncCurve, sync_judge
from tasks.train_syncnet import LoadedSyncNet
from tests.real_bundle import make_real_bundle


class Bars(nn.Module):
    """Sees brightness, hears loudness: unit vectors of their courses over 16 frames."""

    def forward(self, frames: Tensor, mel: Tensor) -> tuple[Tensor, Tensor]:
        seen = frames.mean((2, 3, 4))
        heard = nn.functional.interpolate(mel.mean(2), 16, mode="linear", align_corners=False)
        return self._unit(seen), self._unit(heard[:, 0])

    @staticmethod
    def _unit(course: Tensor) -> Tensor:
        centred = course - course.mean(1, keepdim=True)
        return nn.functional.normalize(nn.functional.relu(centred), dim=1)


@pytest.fixture
def judge() -> BundleJudge:
    made = BundleJudge.__new__(BundleJudge)
    config = SyncNetConfig(steps=1, batch_size=1, lr=1.0, network="frame", resolution=16)
    made.loaded = LoadedSyncNet(Bars(), config, 0.5)
    made.device = torch.device("cpu")
    return made


def blinking(frames: int) -> tuple[np.ndarray, np.ndarray]:
    """Pictures whose brightness follows a sound."""
    rng = np.random.default_rng(3)
    level = np.convolve(rng.uniform(0, 1, frames + 4), np.ones(3) / 3, "same")[2:-2]
    pictures = (level[:, None, None, None] * 255 * np.ones((1, 16, 16, 3))).astype(np.uint8)
    noise = rng.standard_normal(frames * 640) * 0.1
    return pictures, (np.repeat(level**3, 640) * noise).astype(np.float32)


@pytest.mark.parametrize("late", [0, 4, -3])
def test_the_offset_is_found_and_positive_when_the_audio_is_late(
    judge: BundleJudge, late: int
) -> None:
    frames, audio = blinking(110)
    curve = judge.curve(frames, np.roll(audio, late * 640))
    assert curve.offset == pytest.approx(late, abs=1)
    assert curve.distance < 0.8
    assert curve.confidence > 0.2
    assert (curve.agreement > 0.5) == (abs(late) < 2)


def test_another_sound_fits_less(judge: BundleJudge) -> None:
    frames, audio = blinking(110)
    foreign = judge.curve(frames, np.roll(audio, 50 * 640))
    assert foreign.confidence < judge.curve(frames, audio).confidence / 2


def test_a_clip_that_is_too_short_has_no_numbers(judge: BundleJudge) -> None:
    curve = judge.curve(*blinking(24))
    assert all(np.isnan(each) for each in (curve.offset, curve.distance, curve.confidence))


def test_numbers_follow_from_the_curve() -> None:
    distances = np.full(31, 7.0)
    distances[18] = 2.0
    curve = SyncCurve(distances, 1.0)
    assert (curve.offset, curve.distance, curve.confidence) == (3, 2.0, 5.0)


def test_the_bundles_own_network_is_labelled_so(tmp_path: Path) -> None:
    made = sync_judge("", make_real_bundle(tmp_path / "b"), torch.device("cpu"))
    assert made.label == "the bundle's own FrameSyncNet (not syncnet_v2)"
    with pytest.raises(UserError, match="there is no file nothing"):
        sync_judge("nothing.model", tmp_path / "b", torch.device("cpu"))
