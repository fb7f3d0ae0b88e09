"""The whole model: what it keeps, what it repaints, and that it can be loaded again."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from models.latentsync.config import LatentSyncConfig
from models.latentsync.model import LatentSync
from models.latentsync.sampling import bf16_pays
from tests.support.small_models import shaken, small_config, small_model


def window(seed: int, frames: int = 4) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(1, frames, 3, 64, 64, generator=generator) * 2 - 1


def speech(model: LatentSync, frames: int = 4) -> torch.Tensor:
    generator = torch.Generator().manual_seed(2)
    return model.tokens(0.3 * torch.randn(16_000, generator=generator), frames)[None]


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(3)


def first_guess(model: LatentSync, masked: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """What an untrained U-Net predicts: the latents that a residual one starts from."""
    tokens = torch.zeros_like(speech(model, masked.shape[2]))
    return model.predict(masked, torch.tensor([500]), tokens, masked, reference)


def test_windows_and_frames_keep_their_places() -> None:
    model = small_model()
    pixels = torch.cat([window(0), window(1)])
    latents = model.encode_window(pixels)
    assert latents.shape == (2, 8, 4, 8, 8)
    torch.testing.assert_close(latents[1, :, 2], model.encode(pixels[1, 2:3])[0])
    torch.testing.assert_close(
        model.decode_window(latents)[1, 2], model.decode(latents[1:, :, 2])[0]
    )


def test_the_autoencoder_takes_a_few_frames_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model = small_model()
    shaken(model.autoencoder)
    pixels = window(0, frames=5)
    latents = model.encode_window(pixels)
    decoded = model.decode_window(latents)
    sizes: list[int] = []

    def watched(code: Callable[[torch.Tensor], torch.Tensor]) -> Callable:
        return lambda frames: sizes.append(len(frames)) or code(frames)  # type: ignore[func-returns-value]

    for name in ("encode", "decode"):
        monkeypatch.setattr(model.autoencoder, name, watched(getattr(model.autoencoder, name)))
    monkeypatch.setattr("models.latentsync.model.PART_PIXELS", 2 * 64 * 64)
    with torch.no_grad():
        torch.testing.assert_close(model.encode_window(pixels), latents, rtol=0, atol=1e-5)
        torch.testing.assert_close(model.decode_window(latents), decoded, rtol=0, atol=1e-5)
    assert sizes == [2, 2, 1, 2, 2, 1]
    model.decode_window(latents)
    assert sizes[6:] == [5]


def test_masked_picture_is_grey_where_repainted() -> None:
    model = small_model()
    masked = model.masked(window(0))
    covered = (model.mask[0] == 0).expand_as(masked)
    assert (masked[covered] == 0).all()
    kept = (model.mask[0] == 1).expand_as(masked)
    assert torch.equal(masked[kept], window(0)[kept])


def test_untrained_it_pastes_the_reference() -> None:
    model = small_model()
    pixels, reference = window(0), window(1)
    painted = model.generate(pixels, reference, speech(model), steps=2, generator=seeded())
    guess = first_guess(
        model, model.encode_window(model.masked(pixels)), model.encode_window(reference)
    )
    expected = model.blend(pixels, model.decode_window(guess))
    torch.testing.assert_close(painted, expected, rtol=0, atol=1e-5)


def test_no_grey_of_the_mask_is_in_the_first_guess() -> None:
    """Cells on the mask's edge are partly masked: they come from the reference."""
    model = small_model(resolution=128)
    same = torch.full((1, 1, 3, 128, 128), 0.6)
    latents = model.encode_window(same)
    guess = first_guess(model, model.encode_window(model.masked(same)), latents)
    torch.testing.assert_close(guess, latents, rtol=0, atol=1e-5)
    kept = model.masked(same) == same
    assert 0.3 < float(kept.float().mean()) < 0.9
    # Where nothing is masked the picture itself is the guess, not the reference.
    other = first_guess(model, latents, model.encode_window(-same))
    assert float((other == latents).float().mean()) > 0.3


def test_kept_pixels_are_untouched_and_hidden_ones_unseen() -> None:
    model = small_model()
    shaken(model.unet)
    pixels, reference = window(0), window(1)
    other = torch.where(model.mask[0] > 0, pixels, window(5))
    results = [
        model.generate(each, reference, speech(model), steps=2, generator=seeded())
        for each in (pixels, other)
    ]
    kept = (model.mask[0] == 1).expand_as(pixels)
    assert torch.equal(results[0][kept], pixels[kept])
    assert not torch.equal(results[0][~kept], pixels[~kept])
    deep = (model.alpha[0] == 1).expand_as(pixels)
    assert deep.any()
    torch.testing.assert_close(results[0][deep], results[1][deep], rtol=0, atol=1e-5)


def test_repeats_with_its_generator_and_shares_noise_over_frames() -> None:
    # Without motion modules, frames of the same picture and sound differ by noise alone.
    unet = {**small_config().unet, "residual": False, "motion_resolutions": []}
    model = small_model(prediction_type="epsilon", unet=unet)
    shaken(model.unet)
    pixels = window(0)[:, :1].expand(-1, 4, -1, -1, -1)
    tokens = speech(model)[:, :1].expand(-1, 4, -1, -1)
    first, second = (
        model.generate(pixels, pixels, tokens, steps=3, generator=seeded()) for _ in range(2)
    )
    assert torch.equal(first, second)
    torch.testing.assert_close(first[:, 0], first[:, 3], rtol=0, atol=1e-4)
    other = model.generate(
        pixels, pixels, tokens, steps=3, generator=torch.Generator().manual_seed(9)
    )
    assert not torch.equal(first, other)


def test_guidance_scales_what_audio_changes() -> None:
    model = small_model()
    shaken(model.unet)
    pixels, reference, tokens = window(0), window(1), speech(model)
    masked = model.encode_window(model.masked(pixels))
    other = model.encode_window(reference)
    noise = torch.randn(1, 8, 1, 8, 8, generator=seeded())
    start = noise.expand(masked.shape)
    timestep = torch.tensor([999])
    with torch.no_grad():
        heard = model.predict(start, timestep, tokens, masked, other)
        deaf = model.predict(start, timestep, torch.zeros_like(tokens), masked, other)
        expected = model.blend(pixels, model.decode_window(deaf + 3 * (heard - deaf)))
    painted = model.generate(pixels, reference, tokens, steps=1, guidance=3, noise=noise)
    assert (heard - deaf).abs().max() > 1e-3
    torch.testing.assert_close(painted, expected, rtol=0, atol=1e-3)
    plain = model.generate(pixels, reference, tokens, steps=1, guidance=1, noise=noise)
    torch.testing.assert_close(
        plain, model.blend(pixels, model.decode_window(heard)), rtol=0, atol=1e-3
    )


def test_bf16_is_close_to_float32_and_not_the_default_on_a_processor() -> None:
    model = small_model(prediction_type="epsilon", unet={**small_config().unet, "residual": False})
    shaken(model)
    arguments = (window(0), window(1), speech(model))
    plain, default, lower = (
        model.generate(*arguments, steps=3, guidance=1.5, generator=seeded(), bf16=bf16)
        for bf16 in (False, None, True)
    )
    assert torch.equal(default, plain)
    assert lower.dtype == torch.float32
    assert 0 < (lower - plain).abs().mean() < 0.01
    assert (lower - plain).abs().max() < 0.1


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_makes_the_same_pictures_in_bf16() -> None:
    model = small_model()
    shaken(model)
    arguments = (window(0), window(1), speech(model))
    expected = model.generate(*arguments, steps=3, generator=seeded())
    device = torch.device("cuda")
    model.to(device)
    default, plain, lower = (
        model.generate(*arguments, steps=3, generator=seeded(), bf16=bf16)
        for bf16 in (None, False, True)
    )
    torch.testing.assert_close(plain, expected, rtol=0, atol=1e-2)
    assert (lower - expected).abs().max() < 0.1
    assert torch.equal(default, lower if bf16_pays(device) else plain)


def test_flat_areas_leave_latents_exact_on_a_processor() -> None:
    """The masked part of a picture is one colour, whose sums a channels-last GroupNorm rounds."""
    part = {"block_out_channels": [16, 16], "layers_per_block": 1, "norm_num_groups": 8}
    kinds = {"down_block_types": ["DownEncoderBlock2D"] * 2}
    kinds |= {"up_block_types": ["UpDecoderBlock2D"] * 2}
    model = small_model(resolution=256, autoencoder={"kind": "kl", **part, **kinds})
    pixels = torch.rand(1, 256, 256, 3, generator=seeded()).permute(0, 3, 1, 2) * 2 - 1
    masked = model.masked(pixels)
    with torch.no_grad():
        latents = model.encode(masked)
        exact = model.double().encode(masked.double())
    assert (latents - exact).abs().max() < 1e-5 * exact.abs().max()


def test_progress_is_told_with_the_latents() -> None:
    model, told, seen = small_model(), [], []

    def note(done: int, steps: int, latents: torch.Tensor) -> None:
        told.append((done, steps))
        seen.append(latents)

    pixels = window(0)
    painted = model.generate(pixels, window(1), speech(model), steps=3, on_step=note)
    assert told == [(1, 3), (2, 3), (3, 3)]
    assert not torch.equal(seen[0], seen[1])
    with torch.no_grad():
        decoded = model.decode_window(seen[-1])
    assert torch.equal(model.blend(pixels, decoded), painted)


def test_saved_model_gives_the_same_pictures(tmp_path: Path) -> None:
    model = small_model()
    shaken(model)
    model.save(tmp_path / "bundle")
    loaded = LatentSync.load(tmp_path / "bundle")
    assert loaded.config == model.config
    assert not loaded.training
    arguments = (window(0), window(1), speech(model))
    expected = model.generate(*arguments, steps=2, generator=seeded())
    assert torch.equal(loaded.generate(*arguments, steps=2, generator=seeded()), expected)


@pytest.mark.parametrize("steps", [4, 6])
def test_the_last_step_is_the_prediction(steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also if 1000 is not a multiple of the steps."""
    model = small_model()
    fixed = torch.randn(1, 8, 4, 8, 8, generator=seeded())
    monkeypatch.setattr(model, "predict", lambda noisy, *_: fixed.expand_as(noisy))
    pixels = window(0)
    painted = model.generate(pixels, window(1), speech(model), steps=steps, generator=seeded())
    expected = model.blend(pixels, model.decode_window(fixed))
    torch.testing.assert_close(painted, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"pixels": window(0)[..., :32]}, "pixels must be"),
        ({"reference": window(0, frames=3)}, "differ"),
        ({"tokens": torch.zeros(1, 3, 7, 88)}, "tokens must be for"),
        ({"steps": 0}, "steps must be between 1 and 500, got 0"),
    ],
)
def test_inputs_that_do_not_fit(change: dict, match: str) -> None:
    model = small_model()
    arguments = {
        "pixels": window(0),
        "reference": window(1),
        "tokens": speech(model),
        "steps": 1,
        **change,
    }
    with pytest.raises(ValueError, match=match):
        model.generate(**arguments)


def test_parts_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match="prediction_type must be 'sample', got 'epsilon'"):
        LatentSyncConfig(unet={"residual": True})
    with pytest.raises(ValueError, match="60 is not a multiple of 8"):
        LatentSync(small_config(resolution=60))


def test_blending_mixes_by_the_soft_edge_and_stays_in_range() -> None:
    model = small_model()
    pixels = torch.full((1, 2, 3, 64, 64), 0.5)
    generated = torch.full_like(pixels, -0.5)
    generated[:, 1] = 3.0
    mixed = model.blend(pixels, generated)
    alpha = model.alpha[0, 0]
    assert {0.0, 1.0} < set(alpha.flatten().tolist())
    for frame, painted in ((0, -0.5), (1, 1.0)):
        # What leaves the range is cut before it is mixed, not after.
        expected = (1 - alpha) * 0.5 + alpha * painted
        torch.testing.assert_close(mixed[0, frame], expected.expand(3, -1, -1))
    wild = torch.full_like(pixels, 1.5)
    kept = (alpha == 0).expand_as(pixels)
    assert torch.equal(model.blend(wild, generated)[kept], wild[kept])


def test_the_network_sees_noise_mask_picture_and_reference_in_this_order(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As the published weights have them: the mask is one channel between the others."""
    model = small_model()
    seen: list[torch.Tensor] = []

    def forward(*given: torch.Tensor) -> torch.Tensor:
        seen.extend(given)
        return given[0]

    monkeypatch.setattr(model.unet, "forward", forward)
    noisy, masked, reference = (torch.full((2, 8, 4, 8, 8), value) for value in (0.1, 0.2, 0.3))
    tokens, timesteps = torch.rand(2, 4, 7, 88), torch.tensor([3, 700])
    own = model.latent_mask[0, 0]
    other = torch.rand(2, 1, 4, 8, 8)
    for mask in (None, other, other[:1, :, :1]):
        seen.clear()
        model.predict(noisy, timesteps, tokens, masked, reference, mask)
        shown, steps, heard = seen
        assert shown.shape == (2, 25, 4, 8, 8)
        expected = own.expand(2, 4, 8, 8) if mask is None else mask.expand(2, 1, 4, 8, 8)[:, 0]
        assert torch.equal(shown[:, :8], noisy)
        assert torch.equal(shown[:, 8], expected)
        assert torch.equal(shown[:, 9:17], masked)
        assert torch.equal(shown[:, 17:], reference)
        assert torch.equal(steps, timesteps)
        assert torch.equal(heard, tokens)
