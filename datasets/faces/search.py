"""Finds faces in a picture that are not followed yet.

The short-range detector looks at the whole picture at once. It misses faces below an eighth of
the longer side, so the full-range one looks at tiles, coarse ones first; a picture's tiles
together find every face of `SMALLEST_FACE` pixels or more, wherever it is.
"""

import math
from dataclasses import replace

import cv2
import numpy as np

from datasets.faces.mediapipe_models import (
    FULL_RANGE,
    INPUT_SIDE,
    SHORT_RANGE,
    DetectionModel,
    Region,
    patch_of,
)
from datasets.media import Picture
from datasets.media.picture import Box

SMALLEST_FACE = 56.0
"""Width in pixels of faces that tiles are made for. Smaller ones are found sometimes."""
LEAST_SHARE = 14 / 192
"""Width of the smallest face that the full-range detector reliably finds, over the tile's side."""
CONTEXT = 1.33
"""Side of what a detector is shown of a face whose orientation is asked, over its region's."""
UPRIGHT, CLEARLY, SLANT = 0.8, 0.05, 1 / 3
"""Worth of an orientation that needs no comparison; difference of worth that turns a face; worth
that a right angle costs. In 11 videos upright faces have 0.84 to 0.97. Turned by 90, 180 and 270
degrees, they have at most 0.78 as they are found, and 0.75 to 0.94 turned back, 0.11 more at least
where landmarks would be invented."""
COARSER = 2.5
"""Tiles of one size are at most this many times larger than those of the next."""


class FaceSearch:
    """Searches for new faces."""

    def __init__(self) -> None:
        self._short = DetectionModel(SHORT_RANGE)
        self._full: DetectionModel | None = None
        self.reset()

    def reset(self) -> None:
        """Start again with the coarsest tile."""
        self._tile = 0

    def whole(self, picture: Picture) -> list[Region]:
        """Faces large enough to be seen in a small copy."""
        small = picture.small()
        return [_move(each, picture.width / small.shape[1]) for each in self._short.regions(small)]

    def sweep(self, picture: Picture, smallest: float = SMALLEST_FACE) -> list[Region]:
        """Faces in all tiles that are made for faces of `smallest` pixels or more."""
        boxes = tiles(picture.width, picture.height, smallest)
        return [region for box in boxes for region in self._in_tile(picture, box)]

    def next_tile(self, picture: Picture) -> list[Region]:
        """Faces in the next tile."""
        boxes = tiles(picture.width, picture.height)
        self._tile += 1
        return self._in_tile(picture, boxes[(self._tile - 1) % len(boxes)])

    def _in_tile(self, picture: Picture, box: Box) -> list[Region]:
        if self._full is None:
            # Most videos never need it.
            self._full = DetectionModel(FULL_RANGE)
        piece = picture.piece(box)
        left, top, right, bottom = (round(side) for side in box)
        part = piece.rgb[top - piece.top : bottom - piece.top, left - piece.left :]
        part = part[:, : right - left]
        scale = max(part.shape[:2]) / INPUT_SIDE
        size = tuple(max(1, round(side / scale)) for side in part.shape[1::-1])
        shrunk = cv2.resize(part, size, interpolation=cv2.INTER_AREA)
        found = self._full.regions(np.ascontiguousarray(shrunk))
        return [_move(each, part.shape[1] / size[0], left, top) for each in found]

    def upright(self, picture: Picture, region: Region) -> Region:
        """The region turned by quarters so that its face is upright, as a detector sees it.

        Detectors find faces that lie or hang and take them for upright, and the landmark model
        then invents a face.
        """
        own, _ = self._worth(picture, region)
        if own >= UPRIGHT:
            return region
        quarters = [replace(region, roll=region.roll + turn * math.pi / 2) for turn in (1, 2, 3)]
        best = max((self._worth(picture, each) for each in quarters), key=lambda each: each[0])
        return region if best[0] < own + CLEARLY else best[1]

    def _worth(self, picture: Picture, region: Region) -> tuple[float, Region]:
        """How upright a face is in a region: confidence of the detector, less for a slant;
        and the region with the face's own roll."""
        wide = replace(region, side=region.side * CONTEXT)
        piece = picture.piece(wide.box)
        here = replace(wide, x=wide.x - piece.left, y=wide.y - piece.top)
        found = self._short.scored(patch_of(piece.rgb, here))
        if not found:
            return 0.0, region
        score, face = found[0]
        slant = (face.roll + math.pi) % (2 * math.pi) - math.pi
        worth = score - SLANT * abs(slant) / (math.pi / 2)
        return worth, replace(region, roll=region.roll + slant)

    def close(self) -> None:
        """Free the models."""
        self._short.close()
        if self._full is not None:
            self._full.close()


def tiles(width: int, height: int, smallest: float = SMALLEST_FACE) -> list[Box]:
    """Squares (or what fits) that cover a picture: first the whole picture, then smaller ones.

    Tiles of one size overlap by the largest face that the next coarser ones might miss.
    """
    longest = max(width, height)
    ratio = max(longest * LEAST_SHARE / smallest, 1.0)
    steps = math.ceil(math.log(ratio) / math.log(COARSER) - 1e-9)
    boxes: list[Box] = [(0, 0, width, height)]
    for step in range(1, steps + 1):
        side = longest / ratio ** (step / steps)
        overlap = LEAST_SHARE * longest / ratio ** ((step - 1) / steps)
        boxes += [
            (x, y, min(x + side, width), min(y + side, height))
            for y in _starts(height, side, overlap)
            for x in _starts(width, side, overlap)
        ]
    return boxes


def _starts(length: float, side: float, overlap: float) -> list[float]:
    if length <= side:
        return [0.0]
    count = math.ceil((length - side) / (side - overlap)) + 1
    return [index * (length - side) / (count - 1) for index in range(count)]


def _move(region: Region, scale: float, left: float = 0.0, top: float = 0.0) -> Region:
    return Region(region.x * scale + left, region.y * scale + top, region.side * scale, region.roll)
