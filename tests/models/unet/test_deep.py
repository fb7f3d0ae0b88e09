"""Deep features that are used again: what runs, and what comes out."""

import math
from typing import Any

import pytest
import torch

from models.unet.deep import DeepFeatures
from tests.support.small_models import count_runs, shaken, small_model, small_unet, unet_inputs


@pytest.mark.parametrize("layers", [1, 2])
def test_of_the_same_inputs_the_same_comes_out(layers: int) -> None:
    unet = small_unet(layers_per_block=layers)
    inputs, deep = unet_inputs(), DeepFeatures(2)
    with torch.no_grad():
        whole = unet(*inputs)
        assert torch.equal(unet(*inputs, deep), whole)
        *between, last = unet.up_blocks
        inner = count_runs([*unet.down_blocks, unet.mid_block, *between])
        outer = count_runs([unet.conv_in, *last.get_submodule("resnets").children(), unet.conv_out])
        assert torch.equal(unet(*inputs, deep), whole)
    assert set(inner) == {0}
    assert outer == [1, *[0] * layers, 1, 1]


def test_between_whole_passes_the_deep_features_stay_and_the_rest_is_new() -> None:
    unet, deep = small_unet(), DeepFeatures(2)
    sample, time, audio = unet_inputs()
    with torch.no_grad():
        first = unet(sample, time, audio, deep)
        kept = deep.kept
        second = unet(sample + 0.1, time, audio, deep)
        assert deep.kept is kept
        assert not torch.allclose(first, second)
        deep.begin(1)
        assert deep.kept is kept
        deep.begin(2)
        assert deep.kept is None
        third = unet(sample + 0.1, time, audio, deep)
        assert torch.equal(third, unet(sample + 0.1, time, audio))
        assert not torch.equal(third, second)


def window() -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(2)
    pixels, reference = torch.rand(2, 1, 4, 3, 64, 64, generator=generator) * 2 - 1
    return pixels, reference, torch.randn(1, 4, 10, 384, generator=generator)


@pytest.mark.parametrize("guidance", [1.0, 1.5])
@pytest.mark.parametrize(("steps", "reuse"), [(7, 1), (7, 2), (6, 3), (4, 10)])
def test_every_so_manieth_step_of_a_sampler_is_a_whole_pass(
    steps: int, reuse: int, guidance: float
) -> None:
    model = small_model()
    shaken(model.unet)
    pixels, reference, tokens = window()
    tokens = tokens[:, :, : model.audio_encoder.tokens_per_frame, : model.audio_encoder.width]
    options: dict[str, Any] = {"steps": steps, "guidance": guidance}
    options["noise"] = torch.zeros(1, 8, 1, *model.latent_mask.shape[-2:])
    exact = model.generate(pixels, reference, tokens, **options)
    counts = count_runs([model.unet.mid_block, model.unet.conv_out])
    found = model.generate(pixels, reference, tokens, **options, reuse=reuse)
    assert counts == [math.ceil(steps / reuse), steps]
    assert torch.equal(found, exact) == (reuse == 1)


def test_a_whole_pass_is_needed_now_and_then() -> None:
    with pytest.raises(ValueError, match="at least 1, got 0"):
        DeepFeatures(0)
