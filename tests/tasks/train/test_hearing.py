"""The last blocks of the audio encoder learn with the U-Net: which weights, where they are kept."""

from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from datasets.errors import UserError
from models.audio.avhubert_files import write_avhubert
from models.audio.avhubert_tokens import AVHubertTokens
from models.files.errors import ModelFileError
from models.latentsync.config import PoseConfig
from models.latentsync.model import LatentSync
from tasks.lipsync.generator import FaceGenerator
from tasks.recipes.config import Recipe
from tasks.recipes.recipe import recipe
from tasks.train.adapt import refuse_shares
from tasks.train.assemble import build_model, load_trained_model
from tasks.train.checkpoints import load_state
from tasks.train.context import StageContext, Stores
from tasks.train.export import save_bundle
from tasks.train.facts import stage_facts
from tasks.train.hearing import KEPT, LearnedTokens, check_hearing, load_hearing
from tasks.train.kept import trained_weights
from tasks.train.loop import train
from tasks.train.objective import Paused, Rank
from tasks.train.pixel_losses import PixelLosses
from tasks.train.stages import PrintReporter, TrainingJob, check, run_stages
from tasks.train.tokens import Heard, Hearing, TokenCache
from tasks.train.unet import UNetObjective, choose_trained
from tests.support.talking_boxes import make_dataset

CPU = torch.device("cpu")
DEBUG = recipe("debug")
SIZES = {"width": 32, "layers": 4, "heads": 2, "inner": 40}
LEARNED = ("encoder.layers.2.", "encoder.layers.3.", "encoder.layer_norm.")


def small(**options: Any) -> AVHubertTokens:
    torch.manual_seed(3)
    return AVHubertTokens(**{**SIZES, **options})


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_dataset(tmp_path_factory.mktemp("data") / "d", speakers=3, clips=2)


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("avhubert")
    encoder = small()
    write_avhubert(folder, encoder.sizes(), encoder.state_dict(), "0")
    return folder


def hearing(published: Path, **changes: Any) -> Recipe:
    """The debug recipe as a chain of single frames, whose encoder's last two blocks learn."""
    model = replace(
        DEBUG.model,
        num_frames=1,
        pose=PoseConfig(),
        audio="avhubert",
        audio_encoder={**SIZES, "neighbours": 1},
    )
    values = {
        "steps": 4,
        "batch_size": 8,
        "windows_per_clip": 4,
        "frame_step": 1,
        "schedule": "constant",
        "warmup": 0,
        "log_every": 1,
        "sample_every": 0,
        "sound_augment": 0.0,
        "audio_blocks": 2,
        "audio_lr": 1e-3,
        **changes,
    }
    return replace(
        DEBUG,
        model=model,
        audio_weights=str(published),
        stage1=replace(DEBUG.stage1, **values),
        stage2=None,
    )


def objective(chosen: Recipe, dataset: Path, folder: Path, **options: Any) -> UNetObjective:
    torch.manual_seed(0)
    model = LatentSync(chosen.model).eval().requires_grad_(False)
    model.audio_encoder.load_state_dict(small().state_dict())  # type: ignore[attr-defined]
    choose_trained(model.unet, "all")
    stage = StageContext(
        "stage1", folder, "d", chosen, Stores(dataset), Rank(CPU), PrintReporter(), **options
    )
    losses = PixelLosses.load(chosen.stage1, None, CPU)
    return UNetObjective(model, chosen.stage1, stage, losses)


def trained(
    chosen: Recipe,
    dataset: Path,
    folder: Path,
    must_pause: Callable[[], bool] | None = None,
) -> UNetObjective:
    goal = objective(chosen, dataset, folder)
    stage = StageContext(
        "stage1",
        folder,
        "d",
        chosen,
        Stores(dataset),
        Rank(CPU),
        PrintReporter(),
        must_pause=must_pause,
    )
    train(goal, chosen.stage1, stage.run)
    return goal


def sound(frames: int) -> np.ndarray:
    noise = np.random.default_rng(0).standard_normal(640 * frames)
    return (0.1 * noise).astype(np.float32)


@pytest.mark.parametrize("options", [{}, {"pre_norm": False}, {"layer": 3}, {"exact": True}])
@pytest.mark.parametrize("frames", [3, 950])
def test_first_and_last_blocks_are_the_encoder(options: dict[str, Any], frames: int) -> None:
    encoder, wave = small(**options), sound(frames)
    whole = encoder.outputs(wave, frames)
    for learned in (0, 1, 3):
        first = encoder.first_blocks(wave, frames, learned)
        assert torch.equal(encoder.last_blocks(first, frames, learned), whole)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, LEARNED),
        ({"pre_norm": False}, LEARNED[:2]),
        ({"layer": 3}, ("encoder.layers.1.", "encoder.layers.2.")),
    ],
)
def test_the_last_blocks_that_are_used_learn(
    options: dict[str, Any], expected: tuple[str, ...]
) -> None:
    encoder = small(**options)
    found = encoder.learning(2)
    # 16 weights a block, 2 of the norm.
    assert len(found) == 32 + 2 * (len(expected) > 2)
    assert {name for name in encoder.state_dict() if name.startswith(expected)} == found.keys()
    assert encoder.learning(0) == {}


def test_gradients_are_where_they_should_be_and_nowhere_else(
    dataset: Path, published: Path, tmp_path: Path
) -> None:
    goal = objective(hearing(published, audio_dropout=0.0), dataset, tmp_path)
    with torch.no_grad():
        for weight in goal.model.unet.parameters():
            weight.add_(0.05 * torch.randn_like(weight))
    goal.network.train()
    goal.loss(goal.batch(0))[0].backward()
    encoder: Any = goal.model.audio_encoder
    for name, weight in encoder.named_parameters():
        moved = weight.grad is not None and bool(weight.grad.abs().max() > 0)
        # A bias of keys shifts all of a query's scores alike, which changes nothing.
        if not name.endswith("k_proj.bias"):
            assert moved == name.startswith(LEARNED), name
        assert weight.requires_grad == name.startswith(LEARNED), name
    assert all(each.grad is None for each in goal.model.autoencoder.parameters())
    # Dropout is for pre-training: the encoder computes as it does when it is used.
    assert not any(each.training for each in encoder.modules())
    assert goal.model.unet.training


def test_the_encoder_learns_at_a_rate_of_its_own(
    dataset: Path, published: Path, tmp_path: Path
) -> None:
    """AdamW's steps are about as long as the learning rate, whatever the gradient. The encoder has
    one from the second step on: before, the U-Net does not listen yet."""
    chosen = hearing(published, steps=2, lr=1e-3, audio_lr=1e-4, weight_decay=0.0, ema=0.0)
    before = objective(chosen, dataset, tmp_path / "before").network.state_dict()
    after = trained(chosen, dataset, tmp_path / "after").network.state_dict()
    moved = {name: float((after[name] - before[name]).abs().max()) for name in before}
    longest = {
        part: max(size for name, size in moved.items() if name.startswith(part))
        for part in ("unet.", "audio_encoder.")
    }
    assert 1e-3 < longest["unet."] < 2.1e-3
    assert 0.5e-4 < longest["audio_encoder."] < 1.1e-4


def test_a_dropped_sound_gives_no_gradient(dataset: Path, published: Path, tmp_path: Path) -> None:
    goal = objective(hearing(published, audio_dropout=1.0), dataset, tmp_path)
    goal.loss(goal.batch(0))[0].backward()
    encoder: Any = goal.model.audio_encoder
    gradients = [each.grad for each in encoder.parameters() if each.grad is not None]
    assert all(float(each.abs().max()) == 0 for each in gradients)


def heard(wave: np.ndarray, start: int, clip: str = "a") -> Heard:
    return Heard(wave, start, 2, 1, clip)


def test_frozen_blocks_run_once_for_a_clip_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder, wave = small(), sound(20)
    ran: list[int] = []
    for number, block in enumerate(encoder.encoder.layers):
        block.register_forward_pre_hook(lambda *_, number=number: ran.append(number))
    batch = Hearing.of([heard(wave, 3), heard(wave, 7), heard(sound(30)[640:], 1, "b")])
    first = LearnedTokens(encoder, 2, tmp_path).encode(batch)
    # Every block once for each of two clips, whatever was drawn of them.
    assert sorted(ran) == [0, 0, 1, 1, 2, 2, 3, 3]
    ran.clear()
    again = LearnedTokens(encoder, 2, tmp_path).encode(batch)
    assert sorted(ran) == [2, 2, 3, 3]
    assert torch.equal(first, again)
    # Kept in half precision.
    exact = TokenCache(encoder).encode(batch)
    torch.testing.assert_close(first, exact, rtol=0, atol=5e-3)
    (folder,) = tmp_path.iterdir()
    names = {
        f"{sha256(each.tobytes()).hexdigest()}.safetensors" for each in (wave, sound(30)[640:])
    }
    assert {path.name for path in folder.iterdir()} == names
    assert all(1280 < path.stat().st_size < 2500 for path in folder.iterdir())


def test_what_is_kept_belongs_to_the_encoder_and_may_be_damaged(tmp_path: Path) -> None:
    batch, encoder = Hearing.of([heard(sound(20), 3)]), small()
    found = LearnedTokens(encoder, 2, tmp_path).encode(batch)
    (kept,) = tmp_path.rglob("*.safetensors")
    kept.write_bytes(b"damaged")
    assert torch.equal(LearnedTokens(encoder, 2, tmp_path).encode(batch), found)
    assert len(kept.read_bytes()) > 1000
    # The blocks that learn do not matter, other ones and their number do.
    with torch.no_grad():
        encoder.encoder.layers[3].layer_norm.weight.add_(1)
    LearnedTokens(encoder, 2, tmp_path).encode(batch)
    assert len(list(tmp_path.iterdir())) == 1
    with torch.no_grad():
        encoder.encoder.layers[1].layer_norm.weight.add_(1)
    other = LearnedTokens(encoder, 2, tmp_path).encode(batch)
    LearnedTokens(encoder, 3, tmp_path).encode(batch)
    assert len(list(tmp_path.iterdir())) == 3
    torch.testing.assert_close(other, TokenCache(encoder).encode(batch), rtol=0, atol=5e-3)


def test_sound_that_was_changed_is_heard_and_not_kept(tmp_path: Path) -> None:
    encoder, wave = small(), sound(20)
    changed = Hearing.of([heard(wave, 3, ""), replace(heard(wave, 4, ""), dropped=True)])
    found = LearnedTokens(encoder, 2, tmp_path).encode(changed)
    assert torch.equal(found, TokenCache(encoder).encode(changed))
    assert (found[1] == 0).all()
    assert list(tmp_path.rglob("*.safetensors")) == []


def test_numbers_beyond_half_precision_are_refused(tmp_path: Path) -> None:
    encoder = small()
    with torch.no_grad():
        encoder.merge.bias.add_(1e6)
    with pytest.raises(UserError, match="check the file that audio_weights names"):
        LearnedTokens(encoder, 2, tmp_path).encode(Hearing.of([heard(sound(5), 0)]))


def test_training_goes_on_bit_for_bit_with_a_rate_of_its_own(
    dataset: Path, published: Path, tmp_path: Path
) -> None:
    chosen = hearing(published, ema=0.5)
    trained(chosen, dataset, tmp_path / "whole")
    asked = iter([False, True])
    with pytest.raises(Paused):
        trained(chosen, dataset, tmp_path / "parts", lambda: next(asked))
    half = load_state(tmp_path / "parts" / "stage1" / "checkpoint.pt")
    assert half["step"] == 2
    trained(chosen, dataset, tmp_path / "parts")
    whole, parts = (
        load_state(tmp_path / name / "stage1" / "checkpoint.pt") for name in ("whole", "parts")
    )
    assert whole["network"].keys() == parts["network"].keys()
    for part in ("network", "average"):
        for name, value in whole[part].items():
            assert torch.equal(parts[part][name], value), name
    learned = [name for name in whole["network"] if name.startswith("audio_encoder.")]
    # Only what learns: the rest is in its file.
    assert len(learned) == 34
    assert all(name.removeprefix("audio_encoder.").startswith(LEARNED) for name in learned)
    rates = [group["lr"] for group in whole["optimizer"]["param_groups"]]
    assert rates == pytest.approx([chosen.stage1.lr, 1e-3])
    # AdamW's first steps are as long as the rate.
    before = small().state_dict()
    moves = [
        float((whole["network"][name] - before[name.removeprefix("audio_encoder.")]).abs().max())
        for name in learned
    ]
    assert 1e-3 < max(moves) < 6e-3


def test_the_bundle_speaks_with_the_blocks_that_learned(
    dataset: Path, published: Path, tmp_path: Path
) -> None:
    chosen = hearing(published)
    job = TrainingJob(dataset, tmp_path, chosen, accepted=("av-hubert",))
    assert "non-commercial" in check(job)[0]
    run_stages(job, Rank(CPU), PrintReporter())
    assert list((tmp_path / KEPT).rglob("*.safetensors"))
    bundle = save_bundle(job)
    model = LatentSync.load(bundle)
    own, before = model.audio_encoder.state_dict(), small().state_dict()  # type: ignore[attr-defined]
    for name, value in before.items():
        assert torch.equal(own[name], value) != name.startswith(LEARNED), name
    state = load_state(tmp_path / "stage1" / "checkpoint.pt")
    for name, value in {**state["network"], **state["average"]}.items():
        if name.startswith("audio_encoder."):
            assert torch.equal(own[name.removeprefix("audio_encoder.")], value)
    # Lip-sync and evaluation speak through the bundle.
    wave = sound(8)
    spoken = FaceGenerator(bundle, steps=1).model.tokens(torch.from_numpy(wave), 8)
    assert torch.equal(spoken, model.tokens(torch.from_numpy(wave), 8))
    published_model = build_model(chosen, "stage1", tmp_path)
    assert not torch.equal(spoken, published_model.tokens(torch.from_numpy(wave), 8))


def test_a_second_stage_begins_with_the_blocks_of_the_first(
    dataset: Path, published: Path, tmp_path: Path
) -> None:
    first = hearing(published)
    for frozen, again in ((True, 0), (False, 1)):
        folder = tmp_path / str(frozen)
        second = replace(first.stage1, steps=1, audio_blocks=again, audio_lr=0.0)
        chosen = replace(first, stage2=second)
        job = TrainingJob(dataset, folder, chosen, accepted=("av-hubert",))
        run_stages(job, Rank(CPU), PrintReporter())
        learned = trained_weights(folder / "stage1")
        model = load_trained_model(chosen, folder)
        own = model.audio_encoder.state_dict()  # type: ignore[attr-defined]
        for name in own:
            if name.startswith(LEARNED):
                assert torch.equal(own[name], learned[f"audio_encoder.{name}"]), name


def test_what_cannot_be_trained_is_refused_before_it_starts(published: Path) -> None:
    check_hearing(hearing(published), "stage1")
    for blocks in (5, -1):
        with pytest.raises(UserError, match="the encoder has 4 blocks, so give 0 to 4"):
            check_hearing(hearing(published, audio_blocks=blocks), "stage1")
    with pytest.raises(UserError, match=r"needs stage1\.parallel=ddp"):
        check_hearing(hearing(published, parallel="fsdp"), "stage1")
    mel = replace(hearing(published), model=DEBUG.model)
    with pytest.raises(UserError, match=r"hears by mel: set model\.audio=avhubert"):
        check_hearing(mel, "stage1")
    with pytest.raises(UserError, match="audio_blocks must be 0 for adaptations"):
        refuse_shares(hearing(published).stage1)


def test_blocks_of_another_encoder_are_refused(published: Path) -> None:
    model = LatentSync(hearing(published).model)
    weights = {"audio_encoder.encoder.layers.9.layer_norm.weight": torch.zeros(32)}
    with pytest.raises(ModelFileError, match="the audio encoder in here has another size"):
        load_hearing(model, weights, "here")


def test_the_recipe_trains_three_of_twelve_and_older_trainings_depend_on_no_new_field(
    published: Path,
) -> None:
    chosen = recipe("syncdiff-256")
    assert (chosen.stage1.audio_blocks, chosen.stage1.audio_lr) == (3, 1e-5)
    assert chosen.stage1.sound_augment == 0
    check_hearing(chosen, "stage1")
    names = {"stage1.audio_blocks", "stage1.audio_lr"}
    assert names <= stage_facts(hearing(published), "d")["stage1"].keys()
    assert not names & stage_facts(DEBUG, "d")["stage1"].keys()
