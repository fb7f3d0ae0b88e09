"""Backgrounds of the sample clips: out-of-focus rooms and views.

Each function paints a float32 (height, width, 3) RGB picture, 0..255. Nothing in them looks
like a face.
"""

from collections.abc import Callable

import cv2
import numpy as np

Colour = tuple[int, int, int]


def _canvas(height: int, width: int, top: Colour, bottom: Colour) -> np.ndarray:
    share = np.linspace(0, 1, height, dtype=np.float32)[:, None, None]
    picture = (1 - share) * np.array(top, np.float32) + share * np.array(bottom, np.float32)
    return np.ascontiguousarray(np.broadcast_to(picture, (height, width, 3)))


def _clouds(height: int, width: int, rng: np.random.Generator, cells: int) -> np.ndarray:
    """(height, width, 1) smooth random values around 0, about -1..1."""
    total = np.zeros((height, width), np.float32)
    for octave in range(3):
        side = cells * 2**octave
        coarse = rng.standard_normal((side, side)).astype(np.float32) / 2**octave
        total += cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    return total[..., None] / 2


def _blur(picture: np.ndarray, share: float) -> np.ndarray:
    return cv2.GaussianBlur(picture, (0, 0), share * picture.shape[0])


def _box(picture: np.ndarray, x0: float, y0: float, x1: float, y1: float, colour: Colour) -> None:
    """Fills a rectangle given in shares of width and height."""
    height, width = picture.shape[:2]
    first, last = (round(x0 * width), round(y0 * height)), (round(x1 * width), round(y1 * height))
    cv2.rectangle(picture, first, last, colour, cv2.FILLED)


def studio(h: int, w: int, rng: np.random.Generator, top: Colour, bottom: Colour) -> np.ndarray:
    """A painted studio wall with a pool of light."""
    picture = _canvas(h, w, top, bottom)
    y, x = np.mgrid[0:h, 0:w].astype(np.float32)
    light = np.exp(-(((x / w - 0.55) / 0.45) ** 2) - ((y / h - 0.4) / 0.5) ** 2)
    return picture * (0.75 + 0.45 * light[..., None]) + 10 * _clouds(h, w, rng, 5)


def books(h: int, w: int, rng: np.random.Generator, top: Colour, bottom: Colour) -> np.ndarray:
    """Shelves of books."""
    picture = _canvas(h, w, top, bottom)
    for shelf in range(4):
        base = (shelf + 1) * 0.27
        x = -0.02
        while x < 1.0:
            thick = rng.uniform(0.012, 0.035)
            tall = rng.uniform(0.14, 0.23)
            colour = tuple(int(v) for v in 40 + 70 * rng.random() + rng.integers(0, 50, 3))
            _box(picture, x, base - tall, x + thick * 0.92, base, colour)  # type: ignore[arg-type]
            x += thick + (0.05 if rng.random() < 0.06 else 0.0)
        _box(picture, 0, base, 1, base + 0.02, top)
    return _blur(picture, 0.008)


def window(h: int, w: int, rng: np.random.Generator, top: Colour, bottom: Colour) -> np.ndarray:
    """A bright window next to a wall."""
    picture = _canvas(h, w, top, bottom) + 8 * _clouds(h, w, rng, 4)
    left = float(rng.uniform(0.02, 0.12))
    for column in range(2):
        for row in range(2):
            x, y = left + 0.15 * column, 0.06 + 0.36 * row
            _box(picture, x, y, x + 0.135, y + 0.34, (216, 228, 235))
            _box(picture, x, y + 0.22, x + 0.135, y + 0.34, (150, 178, 150))
    _box(picture, left - 0.02, 0.8, left + 0.32, 0.84, (205, 200, 190))
    return _blur(picture, 0.01)


def curtain(h: int, w: int, rng: np.random.Generator, top: Colour, bottom: Colour) -> np.ndarray:
    """Folds of cloth."""
    x = np.arange(w, dtype=np.float32) / w
    folds = sum(
        np.sin(2 * np.pi * (f * x + rng.random())) / n for n, f in ((1, 9), (1.6, 17), (2.4, 29))
    )
    shade = 0.85 + 0.16 * np.asarray(folds, np.float32)
    return _canvas(h, w, top, bottom) * shade[None, :, None] + 4 * _clouds(h, w, rng, 12)


def lights(h: int, w: int, rng: np.random.Generator, top: Colour, bottom: Colour) -> np.ndarray:
    """City lights, far out of focus."""
    picture = _canvas(h, w, top, bottom)
    for _ in range(60):
        radius = max(int(rng.uniform(0.015, 0.05) * h), 1)
        glow = np.zeros((2 * radius + 1, 2 * radius + 1, 3), np.float32)
        warm = rng.random()
        colour = (250 - 60 * warm, 190 - 20 * warm, 110 + 130 * warm)
        cv2.circle(glow, (radius, radius), radius, colour, cv2.FILLED)
        x = int(rng.uniform(0, w - len(glow)))
        y = int(rng.uniform(0.08, 0.92) * h - radius)
        patch = picture[max(y, 0) : y + len(glow), x : x + len(glow)]
        patch += glow[: len(patch)] * float(rng.uniform(0.1, 0.4))
    return _blur(picture, 0.006)


def planks(h: int, w: int, rng: np.random.Generator, top: Colour, bottom: Colour) -> np.ndarray:
    """Wooden boards."""
    picture = _canvas(h, w, top, bottom)
    grain = cv2.resize(rng.standard_normal((h, 12)).astype(np.float32), (w, h))
    picture += 9 * cv2.GaussianBlur(grain, (0, 0), sigmaX=8, sigmaY=1)[..., None]
    for board in range(8):
        y = board / 8
        picture[round(y * h) : round((y + 0.125) * h)] *= float(rng.uniform(0.86, 1.12))
        _box(picture, 0, y - 0.004, 1, y + 0.003, (40, 30, 24))
    return _blur(picture, 0.004)


def pictures(h: int, w: int, rng: np.random.Generator, top: Colour, bottom: Colour) -> np.ndarray:
    """A wall with framed prints."""
    picture = _canvas(h, w, top, bottom) + 6 * _clouds(h, w, rng, 6)
    for x in (0.04, 0.3, 0.62, 0.84):
        y, high = float(rng.uniform(0.05, 0.2)), float(rng.uniform(0.25, 0.4))
        _box(picture, x, y, x + 0.16, y + high, (52, 44, 38))
        _box(picture, x + 0.01, y + 0.018, x + 0.15, y + high - 0.018, (224, 220, 210))
        tone = tuple(int(v) for v in rng.integers(60, 200, 3))
        _box(picture, x + 0.035, y + 0.06, x + 0.125, y + high - 0.06, tone)  # type: ignore[arg-type]
    return _blur(picture, 0.009)


def outdoors(h: int, w: int, rng: np.random.Generator, top: Colour, bottom: Colour) -> np.ndarray:
    """Sky above, hills and trees below."""
    picture = _canvas(h, w, top, (226, 232, 236))
    x = np.arange(w)
    rows = np.arange(h)[:, None]
    for level, dim in ((0.5, 1.0), (0.62, 0.8), (0.76, 0.62)):
        waves = rng.uniform(0, 2 * np.pi, 3)
        ridge = level + sum(
            0.035 / n * np.sin(n * 5 * x / w + p) for n, p in enumerate(waves, start=1)
        )
        picture[rows > ridge[None, :] * h] = np.array(bottom, np.float32) * dim
    leaves = 1 + 0.22 * _clouds(h, w, rng, 24) * (rows > 0.45 * h)[..., None]
    return _blur(picture * leaves, 0.01)


Painter = Callable[[int, int, np.random.Generator, Colour, Colour], np.ndarray]

BACKDROPS: tuple[tuple[Painter, Colour, Colour], ...] = (
    (studio, (176, 172, 178), (150, 140, 140)),
    (books, (72, 52, 40), (50, 38, 30)),
    (window, (196, 190, 176), (160, 150, 138)),
    (curtain, (96, 116, 150), (66, 80, 112)),
    (pictures, (208, 196, 172), (190, 176, 150)),
    (outdoors, (120, 164, 212), (98, 132, 74)),
    (planks, (176, 140, 102), (140, 106, 76)),
    (lights, (42, 40, 66), (70, 48, 52)),
    (curtain, (186, 182, 170), (140, 136, 128)),
    (studio, (120, 126, 132), (84, 88, 94)),
    (window, (132, 156, 150), (100, 122, 118)),
    (books, (168, 150, 122), (120, 104, 84)),
)
"""One per look."""
CUTAWAYS: tuple[tuple[Painter, Colour, Colour], ...] = (
    (outdoors, (92, 150, 220), (70, 120, 60)),
    (lights, (18, 20, 40), (36, 26, 34)),
    (planks, (206, 176, 140), (180, 150, 116)),
    (outdoors, (226, 170, 130), (60, 74, 66)),
)
"""Backgrounds shown while nobody is in the picture."""


def paint(scene: tuple[Painter, Colour, Colour], width: int, height: int, seed: int) -> np.ndarray:
    """float32 (height, width, 3) RGB of one of the tables' entries."""
    painter, top, bottom = scene
    picture = painter(height, width, np.random.default_rng([seed, 11]), top, bottom)
    return np.clip(picture, 0, 255).astype(np.float32)
