"""Puts moving people in front of a backdrop, frame by frame."""

from dataclasses import dataclass

import cv2
import numpy as np

from datasets.sample.backdrops import BACKDROPS, CUTAWAYS, paint
from datasets.sample.face import Face
from datasets.sample.looks import Look
from datasets.sample.plan import Shot
from datasets.sample.portrait import FACE_WIDTH, ZOOM, Portrait, colour_matrix, portrait

_CELL = 4
"""Motion is computed once per this many pixels and interpolated, since it is smooth."""


@dataclass(frozen=True)
class Wander:
    """A slow, smooth, random curve around 0 that stays within -1..1."""

    waves: tuple[tuple[float, float, float], ...]

    @classmethod
    def draw(cls, rng: np.random.Generator, fastest_hz: float = 0.6) -> "Wander":
        rates = rng.uniform((0.06, 0.15, 0.3), (0.15, 0.3, fastest_hz))
        return cls(
            tuple(
                (float(rate), float(phase), share)
                for rate, phase, share in zip(
                    rates, rng.uniform(0, 2 * np.pi, 3), (0.5, 0.3, 0.2), strict=True
                )
            )
        )

    def __call__(self, time_s: float) -> float:
        return sum(a * np.sin(2 * np.pi * f * time_s + p) for f, p, a in self.waves)


class Person:
    """A portrait at a place in the picture, whose head moves on its neck.

    Args:
        look: the person's look.
        width, height: size of the picture.
        face_px: width of the face in the picture.
        x, y: centre of the face as shares of the picture.
        rng: draws the motion and the blinks.
        liveliness: factor of all motion.
    """

    def __init__(
        self,
        look: Look,
        width: int,
        height: int,
        face_px: float,
        x: float,
        y: float,
        rng: np.random.Generator,
        liveliness: float = 1.0,
    ) -> None:
        source = portrait(look)
        self._face = Face(source)
        self._rgba = source.rgba.copy()
        self._size = width, height
        step = np.float32(ZOOM * FACE_WIDTH / face_px)
        nose = _face_centre(source)
        self._columns = (_coarse(width) - np.float32(x * width))[None, :] * step
        self._rows = (_coarse(height) - np.float32(y * height))[:, None] * step
        self._nose = nose
        chin = float(source.jaw[len(source.jaw) // 2][1] - nose[1])
        neck = np.clip((chin + 62 * ZOOM - self._rows) / (58 * ZOOM), 0, 1)
        self._head = neck * neck * (3 - 2 * neck)
        self._pivot = chin + 25 * ZOOM
        depth = 1 - (self._columns / (52 * ZOOM)) ** 2 - (self._rows / (66 * ZOOM)) ** 2
        self._depth = np.clip(depth, 0, 1).astype(np.float32)
        self._moves = [Wander.draw(rng) for _ in range(8)]
        self._liveliness = liveliness
        self._blinks = np.cumsum(rng.uniform(1.6, 4.5, 12))

    def render(self, time_s: float, opening: float, spread: float) -> np.ndarray:
        """uint8 (height, width, 4) at this moment, colours multiplied by alpha."""
        blink = float(np.clip(1.4 - np.abs(self._blinks - time_s).min() / 0.1, 0, 1))
        self._face.patch(opening, spread, blink, self._rgba)
        turn, grow, right, down, yaw, pitch, sway, rise = (
            np.float32(self._liveliness * move(time_s)) for move in self._moves
        )
        angle, scale = 0.065 * turn, 1 / (1 + 0.03 * grow)
        cos, sin = np.float32(np.cos(angle) * scale - 1), np.float32(np.sin(angle) * scale)
        x, y = self._columns, self._rows - np.float32(self._pivot)
        shift = np.float32(5 * ZOOM)
        to_x = self._head * (cos * x - sin * y + shift * right)
        to_x += self._depth * (4.5 * ZOOM * yaw) + (x + self._nose[0] + 2.5 * ZOOM * sway)
        to_y = self._head * (sin * x + cos * y + 0.7 * shift * down)
        to_y += self._depth * (3 * ZOOM * pitch) + (self._rows + self._nose[1] + ZOOM * rise)
        maps = self._fine(to_x), self._fine(to_y)
        return cv2.remap(self._rgba, *maps, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)

    def _fine(self, coarse: np.ndarray) -> np.ndarray:
        """(height, width) from values at `_coarse` positions."""
        width, height = self._size
        rows, columns = coarse.shape
        big = cv2.resize(coarse, (columns * _CELL, rows * _CELL), interpolation=cv2.INTER_LINEAR)
        return big[_CELL : _CELL + height, _CELL : _CELL + width]


def _coarse(length: int) -> np.ndarray:
    """Centres of cells of _CELL pixels that cover 0..length with one more at each end."""
    cells = -(-length // _CELL)
    return ((np.arange(-1, cells + 1) + 0.5) * _CELL - 0.5).astype(np.float32)


def _face_centre(source: Portrait) -> np.ndarray:
    """float32 (2,): between the cheeks, half way from brow to chin."""
    middle = source.jaw[len(source.jaw) // 2]
    eyes = np.concatenate([*source.lids[0], *source.lids[1]]).mean(axis=0)
    across = (source.jaw[0, 0] + source.jaw[-1, 0]) / 2
    return np.array([across, (eyes[1] * 2 + middle[1]) / 3], np.float32)


class Camera:
    """One shot's backdrop, light, colour and grain: `expose` makes the final picture."""

    def __init__(self, shot: Shot, look: Look, width: int, height: int, seed: int) -> None:
        rng = np.random.default_rng([seed, shot.first, 5])
        scene = CUTAWAYS[shot.cutaway] if shot.cutaway >= 0 else BACKDROPS[look.backdrop]
        wide, tall = round(width * shot.zoom), round(height * shot.zoom)
        picture = paint(scene, wide, tall, look.backdrop)
        left, top = round(shot.pan * (wide - width)), round(0.4 * (tall - height))
        picture = picture[top : top + height, left : left + width]
        picture = cv2.transform(picture, colour_matrix(look))
        self._backdrop = np.clip(picture, 0, 255).astype(np.uint8)
        self._side = np.linspace(-1, 1, width, dtype=np.float32)[:, None]
        self._exposure = float(rng.uniform(0.92, 1.03))
        self._light, self._warmth, self._lamp = (Wander.draw(rng, 0.9) for _ in range(3))
        grain = rng.standard_normal((height + 48, width + 48, 1)).astype(np.float32)
        grain = cv2.GaussianBlur(grain, (0, 0), 0.6) * np.float32(1.7 * look.grain)
        self._grain = cv2.merge([grain] * 3)
        self._rng = rng

    def expose(self, people: list[np.ndarray], time_s: float) -> np.ndarray:
        """uint8 (h, w, 3) RGB with `people` (h, w, 4), of whom the first is farthest back."""
        picture = self._backdrop
        for person in people:
            *colours, alpha = cv2.split(person)
            rest = cv2.bitwise_not(alpha)
            behind = cv2.multiply(picture, cv2.merge([rest] * 3), scale=1 / 255)
            picture = cv2.add(cv2.merge(colours), behind)
        warm = 0.035 * self._warmth(time_s)
        tint = np.array([1 + warm, 1.0, 1 - 1.4 * warm], np.float32)
        light = self._exposure * (1 + 0.07 * self._light(time_s))
        gain = ((light + 0.1 * self._lamp(time_s) * self._side) * tint).astype(np.float32)
        row, column = self._rng.integers(48, size=2)
        height, width = picture.shape[:2]
        lit = cv2.multiply(picture, np.tile(gain, (height, 1, 1)), dtype=cv2.CV_32F)
        grain = self._grain[row : row + height, column : column + width]
        return cv2.add(lit, grain, dtype=cv2.CV_8U)
