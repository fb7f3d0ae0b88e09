"""A decoded picture on its way into another file, of which only a patch is repainted.

The picture never goes through RGB: its planes are brought upright and kept, so that every sample
outside a patch is the decoder's own. A patch is blended into luma at full resolution and into
chroma at its own resolution, as a difference from the earlier content.
"""

from dataclasses import dataclass
from typing import Any

import av
import cv2
import numpy as np
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from datasets.media.colour import (
    BT2020,
    FULL,
    RGB,
    can_scale,
    is_grey,
    is_rgb,
    levels,
    matrix_of,
    planes_of,
    swscale_matrix,
)
from datasets.media.form import Form
from datasets.media.hdr import backward, forward
from datasets.media.picture import FittedPicture, Picture, placed

STEEPEST = 2.0
"""Largest change of a bright picture's signal per change of the ordinary picture's; in the light of
faces it is 0.4 to 1."""


@dataclass(frozen=True)
class Patch:
    """RGB that is mixed into a picture."""

    left: int
    top: int
    rgb: NDArray[np.float32]
    """(h, w, 3) levels of 0 to 255."""
    weights: NDArray[np.float32]
    """(h, w) weight of it in [0, 1]; nothing changes where it is 0."""

    @property
    def box(self) -> tuple[slice, slice]:
        """Rows and columns of the picture."""
        height, width = self.weights.shape
        return slice(self.top, self.top + height), slice(self.left, self.left + width)

    def mixed(self, under: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(h, w, 3) the picture's part `under` it with the patch, in whole levels."""
        before = under.astype(np.float32)
        mixed = before + self.weights[..., None] * (self.rgb - before)
        return np.clip(np.rint(mixed), 0, 255)


class Canvas:
    """One picture.

    Args:
        picture: an upright picture of the output's size.
        form: form of the output.
        by: swscale's set-up, shared by the pictures of a video.
    """

    def __init__(self, picture: Picture, form: Form, by: VideoReformatter | None = None) -> None:
        self.picture, self.form = picture, form
        self.width, self.height = picture.width, picture.height
        self._by = by or VideoReformatter()
        self._rgb: NDArray[np.uint8] | None = None
        self._planes: list[NDArray[Any]] | None = None

    @property
    def rgb(self) -> NDArray[np.uint8]:
        """uint8 (h, w, 3): the picture as networks see it, including what was painted."""
        return self.picture.rgb if self._rgb is None else self._rgb

    @property
    def planes(self) -> list[NDArray[Any]]:
        """Luma, both chroma planes, and transparency if the form has it; uint8 or uint16."""
        if self._planes is None:
            self._planes = [np.ascontiguousarray(plane) for plane in self._stored(self.picture)]
        return self._planes

    def frame(self) -> av.VideoFrame:
        """The frame for an encoder."""
        frame = av.VideoFrame(self.width, self.height, self.form.pix_fmt)
        for into, plane in zip(planes_of(frame), self.planes, strict=True):
            into[:] = plane
        colours = self.form.colours
        frame.colorspace, frame.color_range = colours.matrix, colours.range
        frame.color_trc, frame.color_primaries = colours.transfer, colours.primaries
        return frame

    def paint(self, patch: Patch) -> None:
        """Mix in a patch. Luma samples with weight 0 do not change, nor do samples of
        chroma whose pixels all have weight 0."""
        if not patch.weights.size:
            return
        before = self.rgb[patch.box].copy()
        after = patch.mixed(before)
        # The exact mixture, since whole levels would leave steps in 10 bits.
        exact = before + patch.weights[..., None] * (patch.rgb - before)
        change = (np.clip(exact, 0, 255) - before) / np.float32(255)
        self._add(change, patch.box)
        rgb = self.rgb.copy() if self._rgb is None else self._rgb
        rgb[patch.box] = after.astype(np.uint8)
        self._rgb = rgb

    def _add(self, change: NDArray[np.float32], box: tuple[slice, slice]) -> None:
        """Add a change of the shown signals (h, w, 3) to the planes."""
        colours, planes = self.form.colours, self._own_planes()
        matrix = matrix_of(colours.matrix).astype(np.float32)
        if colours.is_hdr:
            wide = colours.primaries == BT2020
            shown = forward(self._signals(box), colours.transfer, wide)
            # In lights that the ordinary picture hardly shows, a level would become a leap.
            most = STEEPEST * np.abs(change).max(axis=-1, keepdims=True)
            change = backward(shown + change, colours.transfer, wide) - backward(
                shown, colours.transfer, wide
            )
            change = np.clip(change, -most, most)
        _, white, _, reach = levels(colours.full, self.form.bits)
        luma, *chroma = np.moveaxis(change @ matrix.T, -1, 0)
        _add_rounded(planes[0], box, luma * np.float32(white))
        for plane, part in zip(planes[1:3], chroma, strict=True):
            if self.form.halved:
                where, part = _halved(part, box, planes[0].shape)
                _add_rounded(plane, where, part * np.float32(reach))
            else:
                _add_rounded(plane, box, part * np.float32(reach))

    def _own_planes(self) -> list[NDArray[Any]]:
        """The planes as writable copies, since the decoder's memory is not ours."""
        self._planes = [
            plane if plane.flags.writeable and plane.flags.owndata else plane.copy()
            for plane in self.planes
        ]
        return self._planes

    def _signals(self, box: tuple[slice, slice]) -> NDArray[np.float32]:
        """R'G'B' (h, w, 3) of a part of the planes, in [0, 1]."""
        black, white, middle, reach = levels(self.form.colours.full, self.form.bits)
        rows, columns = box
        luma = (self.planes[0][box].astype(np.float32) - black) / white
        step = 2 if self.form.halved else 1
        there = np.ix_(
            np.arange(rows.start, rows.stop) // step, np.arange(columns.start, columns.stop) // step
        )
        chroma = [(plane[there].astype(np.float32) - middle) / reach for plane in self.planes[1:3]]
        back = np.linalg.inv(matrix_of(self.form.colours.matrix)).astype(np.float32)
        return np.clip(np.stack([luma, *chroma], axis=-1) @ back.T, 0, 1)

    def _stored(self, picture: Picture) -> list[NDArray[Any]]:
        """The planes of a picture in the form's format, upright."""
        if isinstance(picture, FittedPicture):
            inside = self._stored(picture.picture)
            return [
                _fitted(plane, number, picture, self.form) for number, plane in enumerate(inside)
            ]
        frame = self._converted(picture)
        if frame is None:
            return self._from_rgb(picture.rgb)
        return [picture.turn(plane) for plane in planes_of(frame)]

    def _converted(self, picture: Picture) -> Any:
        """The decoder's frame in the form's format, not rotated; None if that needs RGB."""
        frame, own, wanted = picture.frame, picture.colours, self.form.colours
        if frame is None or own.is_hdr != wanted.is_hdr:
            return None
        if is_grey(frame.format):
            # Luma as it is, since swscale knows grey only in full range.
            return self._reformat(frame, dst_color_range=FULL)
        to = {
            "dst_colorspace": swscale_matrix(wanted.matrix),
            "dst_color_range": wanted.range,
        }
        if is_rgb(frame.format):
            return self._reformat(frame, **to) if own.full else None
        if own.matrix == RGB or not can_scale(own):
            return None
        return self._reformat(
            frame,
            src_colorspace=swscale_matrix(own.matrix),
            src_color_range=own.range,
            **to,
        )

    def _reformat(self, frame: Any, **how: int) -> Any:
        return self._by.reformat(frame, format=self.form.pix_fmt, threads=1, **how)

    def _from_rgb(self, rgb: NDArray[np.uint8]) -> list[NDArray[Any]]:
        colours = self.form.colours
        if colours.is_hdr:
            signal = backward(rgb / np.float32(255), colours.transfer, colours.primaries == BT2020)
            deep = np.rint(signal * 65535).astype(np.uint16)
            frame = av.VideoFrame.from_ndarray(deep, format="rgb48le")
        else:
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format="rgb24")
        stored = self._reformat(
            frame,
            dst_colorspace=swscale_matrix(colours.matrix),
            dst_color_range=colours.range,
        )
        return planes_of(stored)


def _halved(
    part: NDArray[np.float32], box: tuple[slice, slice], shape: tuple[int, ...]
) -> tuple[tuple[slice, slice], NDArray[np.float32]]:
    """Means over the pixels of each sample of chroma, and where these lie; the picture's shape
    says where an odd edge leaves fewer than four."""
    rows, columns = box
    # Past the last line or column there is nothing to preserve.
    padded = np.pad(part, [(each.start % 2, 0) for each in box])
    ends = [each.stop % 2 for each in box]
    for axis, end in enumerate(ends):
        side = [(0, 0), (0, 0)]
        side[axis] = (0, end)
        at_edge = box[axis].stop == shape[axis]
        padded = np.pad(padded, side, mode="edge" if at_edge else "constant")
    height, width = padded.shape
    means = padded.reshape(height // 2, 2, width // 2, 2).mean(axis=(1, 3))
    return (_half(rows), _half(columns)), means


def _half(each: slice) -> slice:
    return slice(each.start // 2, (each.stop + 1) // 2)


def _add_rounded(
    plane: NDArray[Any], box: tuple[slice, slice], change: NDArray[np.float32]
) -> None:
    most = 255 if plane.dtype == np.uint8 else 1023
    there = plane[box]
    there[:] = np.clip(np.rint(there + change), 0, most).astype(plane.dtype)


def _fitted(plane: NDArray[Any], number: int, picture: FittedPicture, form: Form) -> NDArray[Any]:
    """A plane of the picture inside, scaled and with black around it."""
    black, _, middle, _ = levels(form.colours.full, form.bits)
    around = {0: black, 3: 2**form.bits - 1}.get(number, middle)
    step = 2 if form.halved and number in (1, 2) else 1
    left, top, width, height = placed(picture.shape, (picture.width, picture.height))
    rows = slice(top // step, -(-(top + height) // step))
    columns = slice(left // step, -(-(left + width) // step))
    size = (-(-picture.height // step), -(-picture.width // step))
    framed = np.full(size, int(around), plane.dtype)
    framed[rows, columns] = cv2.resize(
        np.ascontiguousarray(plane),
        (columns.stop - columns.start, rows.stop - rows.start),
        interpolation=cv2.INTER_AREA,
    )
    return framed
