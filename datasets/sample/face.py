"""Opening a portrait's mouth and closing its eyes, by warping.

Every column of pixels through the lower face is cut by a few curves (nose, upper lip, lower
lip, chin, collar). For a mouth shape each curve gets a new height, and the pixels between two
curves are stretched. Between the lips are the portrait's own upper teeth, a tongue and
darkness. Eyelids work the same way. Coordinates are pixels of `Portrait.rgba`.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from datasets.sample.portrait import ZOOM, Portrait, over

MAX_OPENING = 0.42
"""Gap between the lips of a fully open mouth, as a share of the mouth's width at rest."""
_REST_WIDTH = 0.88
"""The portrait smiles: at rest the mouth is this much narrower."""
_DARK = (38.0, 14.0, 14.0)
_TONGUE = (134.0, 62.0, 60.0)


def _at(points: np.ndarray, x: np.ndarray) -> np.ndarray:
    return np.interp(x, points[:, 0], points[:, 1]).astype(np.float32)


def _stretch(rows: np.ndarray, targets: list[np.ndarray], sources: list[np.ndarray]) -> np.ndarray:
    """(h, w) source row of every pixel: curve `targets[k]` (w,) shows `sources[k]` (w,)."""
    last = np.maximum.accumulate(np.stack(targets), axis=0).astype(np.float32)
    first = np.stack(sources).astype(np.float32)
    row = np.minimum(rows, last[0]) - last[0] + first[0]
    for k in range(len(targets) - 1):
        span = np.maximum(last[k + 1] - last[k], 1e-3)
        row += np.clip((rows - last[k]) / span, 0, 1) * (first[k + 1] - first[k])
    return row + np.maximum(rows - last[-1], 0)


@dataclass
class _Lips:
    """Source curves over the columns of the patch, for a given horizontal stretch."""

    side: np.ndarray
    """-1 at one mouth corner, 1 at the other, larger in magnitude outside."""
    curves: list[np.ndarray]
    """Outer top, inner top, inner bottom, outer bottom: source rows."""


class Face:
    """The moving face of one portrait: `patch(...)` renders it into `rgba`."""

    def __init__(self, portrait: Portrait) -> None:
        self.portrait = portrait
        self._shape: tuple[float, float] | None = None
        outer_top, inner_top, _, _ = portrait.lips
        z = ZOOM
        self._left, self._right = float(outer_top[0, 0]), float(outer_top[-1, 0])
        self._centre = (self._left + self._right) / 2
        self._half = (self._right - self._left) / 2
        self._lip_row = float(inner_top[len(inner_top) // 2, 1] + 1.6 * z)
        chin = portrait.jaw[len(portrait.jaw) // 2]
        self._chin_row = float(chin[1])
        self.box = (
            round(self._centre - 54 * z), round(self._lip_row - 22 * z),
            round(self._centre + 54 * z), round(self._chin_row + 36 * z),
        )  # fmt: skip
        x0, y0, x1, y1 = self.box
        self._x = np.arange(x0, x1, dtype=np.float32)
        self._y = np.arange(y0, y1, dtype=np.float32)[:, None]
        beside = np.abs(self._x - self._centre)
        self._narrow_x = np.exp(-((beside / (1.55 * self._half)) ** 3))
        above = (self._y - self._lip_row) / (13 * z)
        self._narrow_y = np.exp(-(above**4))
        self._jaw_moves = np.cos(np.clip(beside / (54 * z), 0, 1) * np.pi / 2) ** 2
        self._chin_source = self._chin_row - 0.0085 / z * beside**2
        self._source = np.ascontiguousarray(portrait.rgba[y0:y1, x0:x1])
        colours = np.array([[_DARK, _TONGUE]], np.float32)
        self._dark, self._tongue = cv2.transform(colours, portrait.colours)[0]
        self._eyes = _Eyes(portrait)

    def patch(self, opening: float, spread: float, blink: float, rgba: np.ndarray) -> None:
        """Writes the face with this mouth (opening 0..1, spread -1..1) and these eyelids
        (blink 0 open .. 1 closed) into `rgba`, always the same copy of the portrait's."""
        self._eyes.draw(blink, rgba)
        if (opening, spread) == self._shape:
            return
        self._shape = opening, spread
        x0, y0, x1, y1 = self.box
        width = _REST_WIDTH * (1 + (0.1 if spread > 0 else 0.17) * spread)
        squeeze = 1 / width - 1
        along = self._x - self._centre
        columns = self._centre + along * (1 + squeeze * self._narrow_x)
        lips = self._lips(columns)
        gap_px = MAX_OPENING * 2 * self._half * _REST_WIDTH * opening
        targets = self._targets(lips, gap_px, spread)
        top, bottom = targets[1], targets[2]
        nose = np.full_like(top, self._lip_row - 16 * ZOOM)
        collar = np.full_like(top, self._chin_row + 34 * ZOOM)
        chin = self._chin_source + 0.78 * gap_px * self._jaw_moves
        hide = 0.6 * ZOOM
        sources = [lips.curves[0], lips.curves[1] - hide, lips.curves[2] + hide, lips.curves[3]]
        row = _stretch(
            self._y,
            [nose, *targets, chin, collar],
            [nose, *sources, np.maximum(self._chin_source, sources[-1] + ZOOM), collar],
        )
        teeth_row = lips.curves[1] + 0.5 * ZOOM + (self._y - top)
        row = np.where((self._y > top) & (self._y < bottom), teeth_row, row) - y0
        column = self._centre - x0 + along * (1 + squeeze * self._narrow_x * self._narrow_y)
        face = cv2.remap(
            self._source, column.astype(np.float32), row.astype(np.float32),
            cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE,
        )  # fmt: skip
        self._paint_mouth(face, top, bottom, lips.side, gap_px)
        rgba[y0:y1, x0:x1] = face

    def _lips(self, columns: np.ndarray) -> _Lips:
        side = (columns - self._centre) / self._half
        return _Lips(side, [_at(points, columns) for points in self.portrait.lips])

    def _targets(self, lips: _Lips, gap_px: float, spread: float) -> list[np.ndarray]:
        """Rows of outer top, inner top, inner bottom and outer bottom for a mouth shape."""
        z = ZOOM
        across = np.clip(np.abs(lips.side), 0, 1)
        beyond = np.exp(-((np.maximum(np.abs(lips.side) - 1, 0) / 0.9) ** 2))
        middle = (lips.curves[1] + lips.curves[2]) / 2
        corner = np.interp(
            np.clip(lips.side, -1, 1), (-1, 1),
            (self.portrait.lips[0][0, 1], self.portrait.lips[0][-1, 1]),
        )  # fmt: skip
        smile = 2.4 * z + 0.6 * z * min(spread, 0.0) + 0.2 * gap_px
        corner = corner.astype(np.float32)
        rest = corner + smile + (1 - across**2) * (self._lip_row - corner - 1.2 * z)
        rest = middle + (rest - middle) * beyond
        shape = np.sqrt(np.clip(1 - across**2.4, 0, 1))
        gap = gap_px * shape
        full = 1 - 0.16 * spread
        lip = (1 - across**3) ** 0.6
        upper = np.maximum(lips.curves[1] - lips.curves[0], 3.2 * z * lip) * full
        lower = (lips.curves[3] - lips.curves[2]) * full
        lower = np.maximum(lower, 4.2 * z * lip)
        top, bottom = rest - 0.22 * gap, rest + 0.78 * gap
        return [top - upper, top, bottom, bottom + lower]

    def _paint_mouth(
        self,
        face: np.ndarray,
        top: np.ndarray,
        bottom: np.ndarray,
        side: np.ndarray,
        gap_px: float,
    ) -> None:
        """Teeth at the top, tongue at the bottom, darkness around, into `face` in place."""
        wide = np.flatnonzero(np.abs(side) < 1.0)
        cols = slice(wide[0], wide[-1] + 1)
        side, top, bottom = side[cols], top[cols], bottom[cols]
        reach = 2 * ZOOM
        first = max(int(top.min() - reach - self.box[1]), 0)
        rows = slice(first, int(bottom.max() + reach - self.box[1]))
        y = self._y[rows]
        bite = 4.3 * ZOOM * np.clip(1 - 0.75 * side**2, 0, 1)
        teeth = np.clip((top + bite - y) / (0.9 * ZOOM) + 0.5, 0, 1) * (gap_px > 1.2 * ZOOM)
        shadow = (0.52 + 0.3 * np.clip((y - top) / (2.5 * ZOOM), 0, 1)) * (1 - 0.6 * side**2)
        tongue_top = bottom - 0.42 * (bottom - top) * np.clip(1.1 - side**2, 0, 1)
        tongue = np.clip((y - tongue_top) / (2.2 * ZOOM), 0, 1) * min(gap_px / (12 * ZOOM), 1.0)
        tongue = tongue * np.clip(1.15 - side**2, 0, 1) * 0.75
        cavity = self._dark + tongue[..., None] * (self._tongue - self._dark)
        region = face[rows, cols, :3]
        cavity = cavity + teeth[..., None] * (region * shadow[..., None] - cavity)
        blended = region + _inside(y, top, bottom, side)[..., None] * (cavity - region)
        face[rows, cols, :3] = np.clip(blended, 0, 255).astype(np.uint8)


def _inside(y: np.ndarray, top: np.ndarray, bottom: np.ndarray, side: np.ndarray) -> np.ndarray:
    """(h, w) how much of each pixel is mouth cavity, with soft edges and at least a thin
    shadow where the lips touch."""
    edge = 0.5 * ZOOM
    depth = np.clip((y - top) / edge + 0.5, 0, 1)
    depth = depth * np.clip((bottom - y) / edge + 0.5, 0, 1)
    line = 0.5 * np.exp(-(((y - (top + bottom) / 2) / (0.55 * ZOOM)) ** 2))
    return np.maximum(depth, line) * np.clip((1.0 - np.abs(side)) * 9, 0, 1)


class _Eyes:
    """Blinking: the skin above each eye is pulled down over it."""

    def __init__(self, portrait: Portrait) -> None:
        self._portrait = portrait
        self._closed = False
        points = np.concatenate([*portrait.lids[0], *portrait.lids[1]])
        low, high = points.min(axis=0), points.max(axis=0)
        z = ZOOM
        self._box = (
            int(low[0] - 5 * z), int(low[1] - 9 * z), int(high[0] + 5 * z), int(high[1] + 7 * z)
        )  # fmt: skip

    def draw(self, blink: float, rgba: np.ndarray) -> None:
        """Writes the eyes into `rgba`; does nothing while they are open."""
        x0, y0, x1, y1 = self._box
        if blink < 0.02:
            if self._closed:
                rgba[y0:y1, x0:x1] = self._portrait.rgba[y0:y1, x0:x1]
                self._closed = False
            return
        x = np.arange(x0, x1, dtype=np.float32)
        y = np.arange(y0, y1, dtype=np.float32)[:, None]
        row = np.broadcast_to(y, (len(y), len(x))).astype(np.float32)
        for top, bottom in self._portrait.lids:
            ends = float(top[0, 0]), float(top[-1, 0])
            middle, half = (ends[0] + ends[1]) / 2, (ends[1] - ends[0]) / 2
            weight = np.clip((1.25 - np.abs(x - middle) / half) / 0.25, 0, 1)
            upper, lower = _at(top, x), _at(bottom, x)
            lid = upper + blink * weight * (lower - upper) * 0.92
            brow, cheek = np.full_like(upper, y0), np.full_like(upper, y1)
            shown = _stretch(y, [brow, lid, lower, cheek], [brow, upper, lower, cheek])
            row = row + (np.abs(x - middle) < 1.3 * half) * (shown - y)
        column = np.broadcast_to(x - x0, row.shape).astype(np.float32)
        source = np.ascontiguousarray(self._portrait.bare[y0:y1, x0:x1])
        eyes = cv2.remap(source, column, (row - y0).astype(np.float32), cv2.INTER_LINEAR)
        if self._portrait.glasses is not None:
            eyes = over(self._portrait.glasses[y0:y1, x0:x1], eyes)
        rgba[y0:y1, x0:x1] = eyes
        self._closed = True
