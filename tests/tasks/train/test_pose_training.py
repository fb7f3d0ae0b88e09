"""Training with an earlier frame: which one it is, how it is disturbed, and a whole run."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from datasets.shards.clips import ClipStore
from models.audio.mel_tokens import MelTokens
from models.latentsync.config import PoseConfig
from models.latentsync.model import LatentSync
from tasks.recipes.config import Recipe, UNetConfig
from tasks.recipes.recipe import recipe
from tasks.train.batches import UNetBatch, UNetWindows, unet_batch
from tasks.train.context import StageContext, Stores
from tasks.train.export import save_bundle
from tasks.train.facts import stage_facts
from tasks.train.objective import Rank, parts_of
from tasks.train.pixel_losses import PixelLosses
from tasks.train.stages import PrintReporter, TrainingJob, read_result, remaining, run_stages
from tasks.train.tokens import TokenCache
from tasks.train.unet import UNetObjective, draw_pose_noise, encode_batch
from tests.support.talking_boxes import make_dataset

CPU = torch.device("cpu")
DEBUG = recipe("debug")
PLAIN = replace(
    DEBUG.stage1, batch_size=16, windows_per_clip=8, frame_step=1, augment=0.0, sound_augment=0.0
)


def chained(**changes: Any) -> Recipe:
    """The debug recipe for single frames that are shown an earlier one."""
    pose = PoseConfig(kind="vector", width=2)
    return replace(
        DEBUG,
        model=replace(DEBUG.model, num_frames=1, pose=pose),
        stage1=replace(PLAIN, steps=2, sample_every=0, **changes),
        stage2=None,
    )


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_dataset(tmp_path_factory.mktemp("data") / "d", speakers=3, clips=2)


@pytest.fixture(scope="module")
def store(dataset: Path) -> ClipStore:
    return ClipStore(dataset, "train")


def windows(store: ClipStore, lag: int, steps: Sequence[int] = (0,), **changes: Any) -> UNetWindows:
    config: UNetConfig = replace(PLAIN, batch_size=16 * len(steps), **changes)
    return unet_batch(store, config, 1, 5, 0, lag=lag)


def places(store: ClipStore, picture: np.ndarray) -> tuple[str, set[int]]:
    """Clip and numbers of a frame (R, R, 3), of which a clip may have several."""
    for clip in store.clips:
        frames = store.frames(clip.clip_id)
        equal = np.flatnonzero((frames == picture).all(axis=(1, 2, 3)))
        if len(equal):
            return clip.clip_id, {*equal.tolist()}
    raise AssertionError("the picture is in no clip")


@pytest.mark.parametrize("lag", [1, 5])
def test_the_pose_is_the_true_frame_before_and_the_person_another_moment(
    store: ClipStore, lag: int
) -> None:
    batch = windows(store, lag)
    moved = 0
    for index in range(len(batch)):
        pictures = (batch.target, batch.pose, batch.reference)
        found = [places(store, each.grey[index, 0].numpy()) for each in pictures]
        (clip, at), (other, before), (same, away) = found
        assert clip == other == same
        assert before & {each - lag if each >= lag else each for each in at}
        far = [abs(there - each) >= PLAIN.min_distance for there in away for each in at]
        assert any(far)
        moved += not before & at
    assert moved > 0


def test_what_is_drawn_else_does_not_depend_on_the_pose(store: ClipStore) -> None:
    without, with_pose = windows(store, 0), windows(store, 1)
    # Only the first window of a clip, since later ones are drawn after its pose.
    for name in ("target", "reference"):
        first, second = getattr(without, name).grey, getattr(with_pose, name).grey
        assert torch.equal(first[0], second[0])
    assert len(without.pose_shown) == 0


def test_at_a_clips_beginning_half_see_themselves_and_half_zeros(store: ClipStore) -> None:
    batch = windows(store, 1000, range(8))
    shown = batch.pose_shown
    assert torch.equal(batch.pose.grey[:, 0], batch.target.grey[:, 0])
    assert 0.3 < float(shown.mean()) < 0.7


def test_poses_are_dropped_as_often_as_asked(store: ClipStore) -> None:
    assert windows(store, 1, pose_dropout=1.0).pose_shown.tolist() == [0.0] * 16
    share = float(windows(store, 1, range(8), pose_dropout=0.5).pose_shown.mean())
    assert 0.35 < share < 0.65


def test_noise_on_the_pose_is_drawn_for_each_sample_and_as_strong_as_asked() -> None:
    config = replace(PLAIN, pose_noise=2.0)
    stds = [float(draw_pose_noise(config, (4, 1, 16, 16), seed).std()) for seed in range(300)]
    assert max(stds) < 2.2
    assert float(np.mean(stds)) == pytest.approx(1.0, abs=0.1)
    assert np.quantile(stds, 0.2) < 0.5
    again = draw_pose_noise(config, (4, 1, 16, 16), 7)
    assert torch.equal(again, draw_pose_noise(config, (4, 1, 16, 16), 7))
    assert (draw_pose_noise(PLAIN, (4, 1, 16, 16), 7) == 0).all()


def on_device(batch: UNetWindows) -> UNetBatch:
    return batch.to(CPU, TokenCache(MelTokens()))


def test_the_pose_reaches_the_network_disturbed_and_zeroed(store: ClipStore) -> None:
    model = LatentSync(chained().model).eval()
    batch = on_device(windows(store, 1, pose_dropout=0.5))
    assert batch.pose is not None
    assert batch.pose_shown is not None
    noise = torch.randn(16, 8, 1, 8, 8)
    found = encode_batch(model, batch, noise).pose
    assert found is not None
    expected = model.encode_window(batch.pose) + noise
    shown = batch.pose_shown.bool()
    assert 0 < int(shown.sum()) < 16
    torch.testing.assert_close(found[shown], expected[shown])
    assert (found[~shown] == 0).all()


def objective(dataset: Path, folder: Path, **changes: Any) -> UNetObjective:
    chosen = chained(**changes)
    torch.manual_seed(0)
    model = LatentSync(chosen.model).eval()
    stage = StageContext("stage1", folder, "d", chosen, Stores(dataset), Rank(CPU), PrintReporter())
    losses = PixelLosses.load(chosen.stage1, None, CPU)
    return UNetObjective(model, chosen.stage1, stage, losses)


def test_a_batch_in_parts_is_the_batch(dataset: Path, tmp_path: Path) -> None:
    goal = objective(dataset, tmp_path, pose_noise=1.0, pose_dropout=0.3)
    whole = goal.batch(1)
    parts = [part for part, _ in parts_of(whole, 4)]
    assert [len(part.windows) for part in parts] == [4] * 4
    assert torch.equal(torch.cat([part.pose_noise for part in parts]), whole.pose_noise)
    together = torch.cat([on_device(part.windows).pose for part in parts])  # type: ignore[misc]
    assert torch.equal(together, on_device(whole.windows).pose)  # type: ignore[arg-type]
    losses = [float(goal.loss(part)[0].detach()) for part in parts]
    assert float(goal.loss(whole)[0].detach()) == pytest.approx(float(np.mean(losses)), rel=1e-4)


def test_the_bottleneck_learns_with_the_network(dataset: Path, tmp_path: Path) -> None:
    goal = objective(dataset, tmp_path)
    with torch.no_grad():
        for weight in goal.model.unet.parameters():
            weight.add_(0.05 * torch.randn_like(weight))
    goal.model.unet.train()
    goal.loss(goal.batch(0))[0].backward()
    gradients = {
        name: weight.grad
        for name, weight in goal.network.named_parameters()
        if name.startswith("bottleneck.")
    }
    assert len(gradients) == 4
    assert all(each is not None and bool(each.abs().max() > 0) for each in gradients.values())


def test_a_recipe_without_a_second_stage_gives_a_bundle_that_goes_in_a_chain(
    dataset: Path, tmp_path: Path
) -> None:
    job = TrainingJob(dataset, tmp_path, chained())
    run_stages(job, Rank(CPU), PrintReporter())
    assert remaining(job) == []
    assert job.wanted == ["autoencoder", "syncnet", "stage1"]
    assert read_result(job, "stage1") is not None
    model = LatentSync.load(save_bundle(job))
    assert model.config.pose == PoseConfig(kind="vector", width=2)
    assert model.unet.conv_in.weight[:, -2:].abs().max() > 0


def test_what_older_trainings_depend_on_has_not_changed() -> None:
    facts = stage_facts(DEBUG, "d")["stage1"]
    assert not [name for name in facts if "pose" in name]
    posed = stage_facts(chained(), "d")["stage1"]
    assert {"model.pose.kind", "stage1.pose_noise", "stage1.pose_dropout"} <= posed.keys()
