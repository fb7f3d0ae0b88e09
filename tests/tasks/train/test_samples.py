"""What a U-Net makes while it is trained, as videos and as scores."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from datasets.media import probe, read_frames
from models.latentsync.config import PoseConfig
from models.latentsync.model import LatentSync
from tasks.recipes.recipe import recipe
from tasks.sync.network_files import LoadedSyncNet, build_syncnet
from tasks.train.context import StageContext, Stores
from tasks.train.loop import train
from tasks.train.objective import Rank
from tasks.train.pixel_losses import PixelLosses
from tasks.train.samples import AWAY, CHAIN_FRAMES, FOLDER, WINDOWS, Samples
from tasks.train.stages import PrintReporter
from tasks.train.unet import UNetObjective
from tests.support.talking_boxes import make_dataset

CPU = torch.device("cpu")
DEBUG = recipe("debug")
SIZE, SIDE = DEBUG.model.num_frames, DEBUG.resolution


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Stores:
    folder = tmp_path_factory.mktemp("data") / "d"
    return Stores(make_dataset(folder, clips=2, frames=[70, 75], test=(0, 1)))


def model() -> LatentSync:
    torch.manual_seed(0)
    return LatentSync(DEBUG.model).eval()


def syncnet() -> LoadedSyncNet:
    torch.manual_seed(0)
    network = build_syncnet(DEBUG.syncnet.network, DEBUG.syncnet.options).eval()
    return LoadedSyncNet(network.requires_grad_(False), DEBUG.syncnet, 0.5)


def test_two_clips_with_their_own_and_with_the_others_speech(
    stores: Stores, tmp_path: Path
) -> None:
    clips, _ = stores.held_out(SIDE)
    samples = Samples(model(), clips, tmp_path, syncnet())
    scores = samples.write(7)
    assert set(scores) == {"sample_sync_own", "sample_sync_foreign"}
    assert scores["sample_sync_own"] != scores["sample_sync_foreign"]
    paths = sorted(tmp_path.iterdir())
    assert [path.name for path in paths] == ["step-000007-0.mp4", "step-000007-1.mp4"]
    assert len({content.clip.speaker for content in samples.contents}) == 2
    for path, content in zip(paths, samples.contents, strict=True):
        info = probe(path)
        assert (info.width, info.height) == (3 * SIDE, SIDE)
        assert info.has_audio
        pictures = np.stack([frame.picture.rgb for frame in read_frames(path, fps=None)])
        assert len(pictures) == WINDOWS * SIZE
        source, own, foreign = np.split(pictures.astype(int), 3, axis=2)
        given = content.frames(np.arange(WINDOWS * SIZE)).astype(int)
        assert np.abs(source - given).mean() < 4
        # The upper rows are the clip's own, the mouth is new, and follows another speech.
        assert np.abs(own[:, :8] - given[:, :8]).mean() < 4
        assert np.abs(own - given).mean() > np.abs(source - given).mean() + 1
        assert np.abs(own - foreign).max() > 0


def test_the_same_weights_make_the_same_videos(stores: Stores, tmp_path: Path) -> None:
    clips, _ = stores.held_out(SIDE)
    made: list[list[bytes]] = []
    for name in ("a", "b"):
        torch.manual_seed(len(made))
        samples = Samples(model(), clips, tmp_path / name, None)
        assert samples.write(1) == {}
        made.append([path.read_bytes() for path in sorted((tmp_path / name).iterdir())])
    assert made[0] == made[1]


def test_clips_that_are_too_short_are_left_out(tmp_path: Path) -> None:
    clips, _ = Stores(make_dataset(tmp_path / "d", frames=2 * SIZE - 1)).held_out(SIDE)
    assert Samples(model(), clips, tmp_path / "s", None).write(1) == {}
    clips, _ = Stores(make_dataset(tmp_path / "e", frames=2 * SIZE)).held_out(SIDE)
    Samples(model(), clips, tmp_path / "s", None).write(1)
    (path,) = (tmp_path / "s").iterdir()
    assert len(list(read_frames(path, fps=None))) == SIZE
    # Nobody else speaks: there is no third picture.
    assert probe(path).width == 2 * SIDE


def test_a_model_that_paints_a_chain_shows_one(stores: Stores, tmp_path: Path) -> None:
    clips, _ = stores.held_out(SIDE)
    torch.manual_seed(0)
    pose = PoseConfig(kind="full")
    chained = LatentSync(replace(DEBUG.model, num_frames=1, pose=pose)).eval()
    samples = Samples(chained, clips, tmp_path, syncnet())
    assert (samples.frames, samples.away) == (CHAIN_FRAMES, AWAY)
    poses: list[torch.Tensor | None] = []
    true = chained.generate

    def generate(*given: Any, **options: Any) -> torch.Tensor:
        poses.append(options["pose"])
        return true(*given, **options)

    chained.generate = generate  # type: ignore[method-assign]
    # One frame is no window of the sync network.
    assert samples.write(1) == {}
    assert len(poses) == 4 * CHAIN_FRAMES
    for first in range(0, len(poses), CHAIN_FRAMES):
        assert poses[first] is None
        assert all(each is not None for each in poses[first + 1 : first + CHAIN_FRAMES])
    frames = [len(list(read_frames(path, fps=None))) for path in tmp_path.iterdir()]
    assert frames == [CHAIN_FRAMES] * 2


def test_training_is_the_same_with_videos(stores: Stores, tmp_path: Path) -> None:
    curves: list[list[float]] = []
    for every in (0, 2):
        folder = tmp_path / str(every)
        torch.manual_seed(0)
        network = model()
        network.requires_grad_(False)
        network.unet.requires_grad_(True)
        config = replace(DEBUG.stage1, steps=4, sample_every=every, log_every=1)
        stage = StageContext("stage1", folder, "d", DEBUG, stores, Rank(CPU), PrintReporter())
        losses = PixelLosses.load(config, None, CPU)
        train(UNetObjective(network, config, stage, losses), config, stage.run)
        lines = (stage.folder / "metrics.jsonl").read_text().splitlines()
        curves.append([json.loads(line)["loss"] for line in lines])
        videos = sorted(path.name for path in (stage.folder / FOLDER).glob("*.mp4"))
        steps = [2, 4] if every else []
        assert videos == [f"step-{step:06d}-{number}.mp4" for step in steps for number in (0, 1)]
    assert len(curves[0]) == 4
    assert curves[0] == curves[1]
