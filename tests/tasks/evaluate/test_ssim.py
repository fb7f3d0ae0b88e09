import numpy as np
import pytest
from skimage.metrics import structural_similarity

from tasks.evaluate.ssim import ssim, ssim_map


def pictures() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(5)
    first = rng.integers(0, 256, (2, 40, 36, 3)).astype(np.uint8)
    noise = rng.normal(0, 30, first.shape)
    return first, np.clip(first + noise, 0, 255).astype(np.uint8)


def test_agrees_with_scikit_image() -> None:
    first, second = pictures()
    (ours,) = ssim(first, second)
    for index in range(2):
        theirs = structural_similarity(
            first[index],
            second[index],
            channel_axis=-1,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
            data_range=255,
        )
        assert ours[index] == pytest.approx(theirs, abs=2e-4)


def test_equal_pictures_score_one_and_flat_ones_too() -> None:
    first, _ = pictures()
    assert ssim(first, first) == pytest.approx(1.0, abs=1e-6)
    flat = np.full((1, 20, 20, 3), 200, np.uint8)
    assert ssim(flat, flat) == pytest.approx(1.0, abs=1e-6)


def test_a_mask_confines_the_judgement() -> None:
    first, _ = pictures()
    second = first.copy()
    second[:, 20:] = 255 - second[:, 20:]
    upper = np.zeros((40, 36), bool)
    upper[:14] = True
    _, above, below = ssim(first, second, upper, ~upper)
    assert above == pytest.approx(1.0, abs=1e-6)
    assert (below < 0.7).all()
    assert ssim_map(first, second).shape == (2, 30, 26)


def test_the_map_is_made_once_for_a_few_frames_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(6)
    first, second = rng.integers(0, 256, (2, 37, 16, 16, 3)).astype(np.uint8)
    mask = np.zeros((16, 16), bool)
    mask[8:] = True
    whole, part = ssim_map(first, second).mean((1, 2)), ssim_map(first, second)[:, 3:].mean((1, 2))
    counts: list[int] = []

    def counted(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        counts.append(len(a))
        return ssim_map(a, b)

    monkeypatch.setattr("tasks.evaluate.ssim.ssim_map", counted)
    assert np.allclose(ssim(first, second, mask), [whole, part], atol=1e-6)
    assert counts == [16, 16, 5]


def test_shapes_that_do_not_fit_are_refused() -> None:
    first, _ = pictures()
    with pytest.raises(ValueError, match="of one shape"):
        ssim(first, first[:, :-1])
    with pytest.raises(ValueError, match="of one shape"):
        ssim(first[:1], first)
    with pytest.raises(ValueError, match="leaves nothing"):
        ssim(first, first, np.zeros((40, 36), bool))
