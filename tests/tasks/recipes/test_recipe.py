"""Recipes are what METHOD says, and overrides are checked."""

import dataclasses
import inspect

import pytest
import torch

from datasets.errors import UserError
from tasks.recipes import config
from tasks.recipes.config import Recipe, StageConfig
from tasks.recipes.recipe import parse_overrides, recipe
from tasks.recipes.values import RECIPES
from tasks.train.facts import stage_names
from tasks.train.memory import estimate_memory


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_carries_its_name_and_all_stages(name: str) -> None:
    made = recipe(name)
    assert (made.name, made.base) == (name, "")
    assert made.resolution in (64, 128, 256, 512)
    assert isinstance(made.syncnet, StageConfig)
    assert (made.autoencoder is None) == bool(made.autoencoder_weights)
    assert (made.model.audio == "mel") != bool(made.audio_weights)
    assert (made.stage2 is None) == (made.model.pose is not None) == name.startswith("syncdiff")
    assert made.seed == 1247


def test_the_paper_recipes_have_the_papers_values() -> None:
    paper = recipe("paper-256")
    stages = [paper.stage(name) for name in ("syncnet", "stage1", "stage2")]
    assert [each.lr for each in stages if each] == [1e-5] * 3
    assert paper.stage1.batch_size == 24
    assert paper.syncnet.batch_size == 256
    losses = paper.unet("stage2").losses
    assert (losses.noise, losses.sync, losses.lpips, losses.trepa) == (1, 0.05, 0.1, 10)
    assert not paper.stage1.losses.decodes
    assert paper.unet("stage2").motion["motion_resolutions"] == [1, 2, 4, 8]
    assert (paper.stage1.trains, paper.unet("stage2").trains) == ("all", "motion+attention")
    assert (paper.unet("stage2").min_distance, paper.model.num_frames) == (16, 16)
    assert recipe("paper-512").resolution == 512
    assert recipe("paper-512").syncnet.resolution == 256
    efficient = recipe("stage2-efficient")
    assert efficient.unet("stage2").losses.trepa == 0
    assert efficient.unet("stage2").trains == "motion+attn2"
    assert efficient.unet("stage2").motion["motion_decoder_only"] is True


def test_overrides_are_of_the_fields_type() -> None:
    made = recipe(
        "tiny",
        {
            "stage1.steps": "20",
            "stage1.lr": "1",
            "stage2.losses.sync": "0.1",
            "syncnet.calibrate": "False",
            "stage1.schedule": "constant",
            "stage1.weights": "some/file.pt",
            "model.unet.block_out_channels": "[16, 32]",
            "seed": "3",
        },
    )
    assert made.stage1.steps == 20
    assert made.stage1.lr == 1.0
    assert isinstance(made.stage1.lr, float)
    assert made.unet("stage2").losses.sync == 0.1
    assert made.syncnet.calibrate is False
    assert made.stage1.schedule == "constant"
    assert made.stage1.weights == "some/file.pt"
    assert made.model.unet["block_out_channels"] == [16, 32]
    assert made.seed == 3
    assert recipe("tiny").stage1.steps != 20


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("stage1.stepz", "20", "Instead of 'stepz'"),
        ("stage3.steps", "20", "Instead of 'stage3'"),
        ("stage1.steps", "many", r"stage1\.steps must be of type int, got 'many'"),
        ("stage1.steps", "2.5", "must be of type int"),
        ("stage1.steps", "true", "must be of type int"),
        ("stage1.lr", "true", "must be of type float"),
        ("syncnet.calibrate", "3", "must be of type bool"),
        ("stage1.schedule", "linear", "one of constant, cosine"),
        ("stage1.losses", "1", "group of fields"),
        (
            "model.mask",
            "round",
            r"override 'model\.mask' is not possible: there is no mask 'round'",
        ),
        ("model.crop", "wide", r"override 'model\.crop' is not possible: there is no crop 'wide'"),
        ("stage1.steps.more", "1", "goes deeper"),
        ("model.unet.no_such_option", "1", "instead of 'no_such_option'"),
        ("stage1.batch_size", "0", r"stage1\.batch_size must be at least 1, got 0"),
        ("stage2.log_every", "0", r"stage2\.log_every must be at least 1, got 0"),
        ("syncnet.checkpoint_every", "-1", r"checkpoint_every must be at least 1, got -1"),
        ("autoencoder.micro_batch", "2", r"autoencoder\.micro_batch must be 0, got 2"),
        ("stage1.micro_batch", "-2", r"micro_batch must be at least 0, got -2"),
        ("stage1.step", "3", r"the recipe: did you mean 'stage1\.steps'\? Instead of 'step' it"),
        ("stag1.steps", "3", r"did you mean 'stage1\.steps'\?"),
        ("model.unet.layer_per_block", "1", r"did you mean 'model\.unet\.layers_per_block'\?"),
    ],
)
def test_wrong_overrides_end_in_a_sentence(path: str, value: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        recipe("tiny", {path: value})


def test_an_unknown_recipe_lists_those_that_exist() -> None:
    with pytest.raises(UserError, match="choose one of tiny, debug, paper-256"):
        recipe("huge")


def test_overrides_are_taken_apart_at_the_first_sign() -> None:
    assert parse_overrides(["a.b=1", " c = x=y "]) == {"a.b": "1", "c": "x=y"}
    with pytest.raises(UserError, match=r"stage1\.steps=20"):
        parse_overrides(["stage1.steps"])


def test_every_field_says_what_it_means() -> None:
    """Field docstrings follow their field; a field without one would be nobody's to explain."""
    source = inspect.getsource(config)
    for kind in vars(config).values():
        if dataclasses.is_dataclass(kind) and kind.__module__ == config.__name__:
            for each in kind.__annotations__:
                _, _, after = source.partition(f"    {each}: ")
                assert after.partition("\n")[2].lstrip().startswith('"""'), (kind, each)


def test_a_recipe_without_a_stage_says_so() -> None:
    assert recipe("paper-256").stage("autoencoder") is None
    assert isinstance(recipe("tiny"), Recipe)


@pytest.mark.parametrize(
    ("name", "changes", "text"),
    [
        ("tiny", {"syncnet.sees": "latents"}, "syncnet.sees must be pixels"),
        ("stage2-efficient", {"stage2.losses.sync_on": "latents"}, "syncnet.steps is 0"),
        ("paper-512", {"stage2.losses.sync_on": "latents"}, "takes faces of 256 pixels"),
    ],
)
def test_a_sync_loss_on_latents_that_cannot_be_is_refused(
    name: str, changes: dict[str, str], text: str
) -> None:
    with pytest.raises(UserError, match=text):
        recipe(name, changes)


def test_a_sync_network_on_latents_trains_as_the_other_one() -> None:
    assert recipe("tiny").syncnet_latents is None
    chosen = recipe("paper-256", {"stage2.losses.sync_on": "latents", "syncnet.lr": "0.001"})
    found = chosen.stage("syncnet_latents")
    assert found == chosen.syncnet_latents
    assert chosen.syncnet_latents is not None
    assert (chosen.syncnet_latents.lr, chosen.syncnet_latents.resolution) == (0.001, 256)
    assert chosen.syncnet_latents.options["config"] == "16_latent"
    tiny = recipe("tiny", {"stage2.losses.sync_on": "latents"}).syncnet_latents
    assert tiny is not None
    assert tiny.options == {"channels": 32, "size": [16, 16]}


@pytest.mark.parametrize("name", ["taesd-256", "syncdiff-taesd"])
def test_recipes_in_stable_diffusions_latents_fit_a_small_machine(name: str) -> None:
    chosen = recipe(name)
    assert (chosen.autoencoder, chosen.autoencoder_weights) == (None, "taesd")
    assert (chosen.resolution, chosen.model.latent_channels) == (256, 4)
    # Its latents need no scale.
    assert chosen.model.scaling_factor == 1.0
    for stage in stage_names(chosen):
        assert estimate_memory(chosen, stage, torch.device("cpu")).total < 7
