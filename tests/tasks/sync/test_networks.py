"""Sync networks on clips whose offset is known, from files of the published formats."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from datasets.media import SAMPLES_PER_FRAME
from models.audio.mel import mel_spectrogram, mel_window
from models.files.errors import ModelFileError
from models.syncnet.syncnet_v2 import SyncNet
from tasks.sync.networks import (
    MAX_SHIFT,
    NetworkScorer,
    SyncCurve,
    SyncNetV2,
    WindowSyncNet,
    _accuracy,
    load_window_syncnet,
)
from tasks.sync.signals import ClipSignals, OffsetScore
from tests.support.real_bundle import make_real_bundle
from tests.support.small_models import small_stable, write_converted

CPU = torch.device("cpu")
NO_FACE = np.zeros((0, 478, 2), np.float32)


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


def window_net(network: nn.Module, resolution: int = 16) -> WindowSyncNet:
    return WindowSyncNet(
        network,
        num_frames=16,
        columns=52,
        resolution=resolution,
        threshold=0.5,
        label="bars",
        device=CPU,
    )


def blinking(frames: int, side: int = 16) -> tuple[np.ndarray, np.ndarray]:
    """Pictures whose brightness follows the level of a sound."""
    rng = np.random.default_rng(3)
    level = np.convolve(rng.uniform(0, 1, frames + 4), np.ones(3) / 3, "same")[2:-2]
    pictures = (level[:, None, None, None] * 255 * np.ones((1, side, side, 3))).astype(np.uint8)
    noise = rng.standard_normal(frames * SAMPLES_PER_FRAME) * 0.1
    return pictures, (np.repeat(level**3, SAMPLES_PER_FRAME) * noise).astype(np.float32)


def signals(frames: np.ndarray, audio: np.ndarray, late: int = 0) -> ClipSignals:
    return ClipSignals(NO_FACE, np.roll(audio, late * SAMPLES_PER_FRAME), frames)


@pytest.mark.parametrize("late", [0, 4, -3, -9, 9])
def test_the_offset_is_found_and_positive_when_the_audio_is_late(late: int) -> None:
    frames, audio = blinking(110)
    curve = window_net(Bars()).curve(frames, np.roll(audio, late * SAMPLES_PER_FRAME))
    assert curve.offset == pytest.approx(late, abs=1)
    assert curve.distance < 0.8
    assert curve.confidence > 0.2
    assert (curve.in_sync_share > 0.5) == (abs(late) < 2)


class Yes(nn.Module):
    """Finds that every sound fits."""

    def forward(self, frames: Tensor, mel: Tensor) -> tuple[Tensor, Tensor]:
        return torch.ones(len(frames), 1), torch.ones(len(mel), 1)


def test_who_always_says_yes_is_right_half_the_time() -> None:
    frames, audio = blinking(110)
    blind, seeing = (window_net(network).curve(frames, audio) for network in (Yes(), Bars()))
    assert (blind.in_sync_share, blind.accuracy) == (1.0, 0.5)
    assert seeing.accuracy > 0.65
    foreign = window_net(Bars()).curve(frames, np.roll(audio, 25 * SAMPLES_PER_FRAME))
    assert foreign.accuracy < 0.55


class Sure(nn.Module):
    """Every pair has a cosine of 0.6."""

    def forward(self, frames: Tensor, mel: Tensor) -> tuple[Tensor, Tensor]:
        count = len(frames)
        return torch.tensor([[1.0, 0.0]] * count), torch.tensor([[0.6, 0.8]] * count)


@pytest.mark.parametrize(("threshold", "share"), [(0.3, 1.0), (0.59, 1.0), (0.61, 0.0)])
def test_a_window_is_in_sync_by_the_networks_own_threshold(threshold: float, share: float) -> None:
    net = window_net(Sure())
    net.threshold = threshold
    curve = net.curve(*blinking(60))
    assert curve.in_sync_share == share
    assert curve.accuracy == 0.5
    # Unit vectors at a cosine of 0.6 are the root of 0.8 apart, whatever the shift.
    np.testing.assert_allclose(curve.distances, 0.8**0.5, rtol=1e-4)


@pytest.mark.parametrize("count", [16, 17, 20, 32, 33, 110])
def test_negatives_share_no_frame_with_their_window(count: int) -> None:
    first = torch.arange(count)
    # The sound fits every window that shares a frame with its own, and no other.
    fitting = ((first[:, None] - first).abs() < 16).float()
    accuracy = _accuracy(torch.eye(count), fitting, 16, 0.1)
    assert accuracy == pytest.approx(1.0 if count > 16 else float("nan"), nan_ok=True)


def test_another_sound_fits_less() -> None:
    frames, audio = blinking(110)
    foreign = window_net(Bars()).curve(frames, np.roll(audio, 50 * SAMPLES_PER_FRAME))
    assert foreign.confidence < window_net(Bars()).curve(frames, audio).confidence / 2


def test_a_clip_that_is_too_short_has_no_numbers() -> None:
    frames, audio = blinking(24)
    curve = window_net(Bars()).curve(frames, audio)
    assert all(np.isnan(each) for each in (curve.offset, curve.distance, curve.confidence))
    scorer = NetworkScorer("stable-syncnet", 0.1, window_net(Bars()))
    (score,) = scorer.score([signals(frames, audio)])
    assert (score.offset_frames, score.confidence) == (0.0, 0.0)
    assert np.isnan(score.distance)


def test_numbers_follow_from_the_curve() -> None:
    distances = np.full(31, 7.0)
    distances[18] = 2.0
    curve = SyncCurve(distances, 1.0)
    assert (curve.offset, curve.distance, curve.confidence) == (3, 2.0, 5.0)


def test_a_scorer_gives_the_curves_numbers_for_each_clip() -> None:
    scorer = NetworkScorer("stable-syncnet", 0.1, window_net(Bars()))
    assert (scorer.name, scorer.needs_frames, scorer.min_confidence) == (
        "stable-syncnet",
        True,
        0.1,
    )
    long, short = blinking(110), blinking(60)
    first, second = scorer.score([signals(*long, late=4), signals(*short, late=-2)])
    curve = scorer.network.curve(long[0], np.roll(long[1], 4 * SAMPLES_PER_FRAME))
    assert first == OffsetScore(curve.offset, curve.confidence, curve.distance)
    assert second.offset_frames == pytest.approx(-2, abs=1)
    with pytest.raises(ValueError, match="needs the aligned faces"):
        scorer.score([ClipSignals(NO_FACE, long[1])])


def brightness_and_energy() -> SyncNet:
    """SyncNet's own layers with weights that pass the mean brightness of a window of frames and
    its log energy on to the first number of each embedding, on one scale."""
    network = SyncNet().eval()
    with torch.no_grad():
        for weight in network.parameters():
            weight.zero_()
        for module in network.modules():
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                module.weight.fill_(1)
        lips = [layer for layer in network.netcnnlip if isinstance(layer, nn.Conv3d)]
        sounds = [layer for layer in network.netcnnaud if isinstance(layer, nn.Conv2d)]
        lips[0].weight[0] = 1 / 255 / lips[0].weight[0].numel()
        for layer in lips[1:]:
            middle = [size // 2 for size in layer.kernel_size]
            layer.weight[0, 0, middle[0], middle[1], middle[2]] = 1
        for sound in sounds[:-1]:
            sound.weight[0, 0, 1, 1] = 1
        # The first coefficient is the log energy; pooling brings it to the first row.
        sounds[-1].weight[0, 0, 0] = 1 / 4
        for head in (network.netfcaud, network.netfclip):
            first, last = head[0], head[3]
            assert isinstance(first, nn.Linear)
            assert isinstance(last, nn.Linear)
            first.weight[0, 0] = last.weight[0, 0] = 1
        # Both from -0.5 to 0.5, log energies of 10 to 20; zeros beyond the ends say nothing.
        last_sound, last_lip = network.netfcaud[3], network.netfclip[3]
        assert isinstance(last_sound, nn.Linear)
        assert isinstance(last_lip, nn.Linear)
        last_sound.weight[0, 0], last_sound.bias[0], last_lip.bias[0] = 1 / 10, -1.5, -0.5
    return network


def speaking_lamp(frames: int) -> tuple[np.ndarray, np.ndarray]:
    """Pictures whose brightness is the log energy of the sound, in the scale of above."""
    rng = np.random.default_rng(5)
    level = np.repeat(rng.random(frames // 4 + 1) > 0.5, 4)[:frames].astype(float)
    pictures = (level[:, None, None, None] * 255 * np.ones((1, 32, 32, 3))).astype(np.uint8)
    # A window of 400 samples of deviation s in 16 bits has the log energy log(388 s^2).
    spread = np.sqrt(np.exp(10 + 10 * level) / 388) / 32768
    noise = rng.standard_normal(frames * SAMPLES_PER_FRAME)
    return pictures, np.clip(noise * np.repeat(spread, SAMPLES_PER_FRAME), -1, 1).astype(np.float32)


def test_syncnet_v2_finds_a_known_shift_with_our_sign(tmp_path: Path) -> None:
    path = tmp_path / "syncnet_v2.model"
    torch.save(brightness_and_energy().state_dict(), path)
    scorer = NetworkScorer("syncnet-v2", 3.0, SyncNetV2(path, CPU))
    frames, audio = speaking_lamp(40)
    (score,) = scorer.score([signals(frames, audio, late=5)])
    # Pooling favours the louder steps, which is worth half a frame.
    assert score.offset_frames == pytest.approx(5, abs=1)
    assert score.distance < 0.2
    assert score.confidence > 0.2


@torch.no_grad()
def test_a_converted_stable_syncnet_is_searched_as_it_should(tmp_path: Path) -> None:
    network = small_stable()
    loaded = load_window_syncnet(str(write_converted(tmp_path / "converted", network)), CPU)
    assert loaded.label == "StableSyncNet of model.safetensors"
    assert (loaded.num_frames, loaded.columns, loaded.resolution) == (16, 52, 256)
    rng = np.random.default_rng(1)
    frames = rng.integers(0, 256, (36, 256, 256, 3), dtype=np.uint8)
    audio = (rng.standard_normal(36 * SAMPLES_PER_FRAME) * 0.1).astype(np.float32)
    curve = loaded.curve(frames, audio)
    half = torch.from_numpy(frames).permute(0, 3, 1, 2)[:, :, 128:].float() / 127.5 - 1
    mel = mel_spectrogram(audio)
    seen = torch.cat([network.encode_frames(half[at : at + 16][None]) for at in range(21)])
    heard = torch.cat([network.encode_mel(mel_window(mel, at)[None, None]) for at in range(21)])
    for shift in (-15, -2, 0, 7, 15):
        # A positive shift pairs lips with sound that comes later: the audio is late.
        pairs = [
            float((seen[at] - heard[at + shift]).norm()) for at in range(21) if 0 <= at + shift < 21
        ]
        assert curve.distances[MAX_SHIFT + shift] == pytest.approx(np.mean(pairs), abs=1e-4)


def test_bundles_are_taken_and_labelled_so(tmp_path: Path) -> None:
    bundle = make_real_bundle(tmp_path / "bundle")
    for path in (bundle, bundle / "syncnet"):
        loaded = load_window_syncnet(str(path), CPU)
        assert loaded.label == "the bundle's own FrameSyncNet (not syncnet_v2)"
    frames, audio = blinking(50, 32)
    assert np.isfinite(loaded.curve(frames, audio).distances).all()


def test_what_is_no_sync_network_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="does not hold a sync network"):
        load_window_syncnet(str(tmp_path), CPU)
    (tmp_path / "config.json").write_text("[]", encoding="utf-8")
    with pytest.raises(ModelFileError, match="is not a JSON object"):
        load_window_syncnet(str(tmp_path), CPU)
    broken = write_converted(tmp_path / "broken", small_stable())
    (broken / "model.safetensors").write_bytes(b"\0" * 100)
    with pytest.raises(ModelFileError, match="truncated"):
        load_window_syncnet(str(broken), CPU)
    latent = write_converted(tmp_path / "latent", small_stable())
    about = json.loads((latent / "config.json").read_text(encoding="utf-8"))
    about["visual_encoder"]["in_channels"] = 64
    (latent / "config.json").write_text(json.dumps(about), encoding="utf-8")
    with pytest.raises(ModelFileError, match="not latents"):
        load_window_syncnet(str(latent), CPU)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_a_gpu(tmp_path: Path) -> None:
    folder = str(write_converted(tmp_path / "converted", small_stable()))
    frames, audio = blinking(60, 64)
    cpu = load_window_syncnet(folder, CPU).curve(frames, audio)
    gpu = load_window_syncnet(folder, torch.device("cuda")).curve(frames, audio)
    assert np.allclose(cpu.distances, gpu.distances, atol=1e-2)
