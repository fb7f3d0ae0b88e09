"""Videos of several models in one picture, side by side, so that they cannot get out of sync."""

import io
from collections.abc import Iterator, Sequence
from itertools import zip_longest
from pathlib import Path

import cv2
import numpy as np

from datasets.errors import SourceError, UserError
from datasets.media import FPS, VideoWriter, read_frames

SIDE = 256
"""Most pixels of a model's side: pages hold several videos."""
CRF = 23


def side_by_side(videos: Sequence[Path]) -> bytes:
    """An mp4 with one video beside the other and the first one's sound.

    Args:
        videos: square videos at 25 fps; one that ends earlier stands still.

    Raises:
        UserError: one cannot be read.
    """
    buffer, rows = io.BytesIO(), _rows(videos)
    try:
        first = next(rows)
        height, width = first.shape[:2]
        with VideoWriter(buffer, width, height, FPS, crf=CRF, audio=videos[0]) as writer:
            writer.write(first)
            for row in rows:
                writer.write(row)
    except (OSError, SourceError) as error:
        names = ", ".join(str(each) for each in videos)
        raise UserError(f"the videos {names} cannot be shown ({error}): evaluate again") from error
    return buffer.getvalue()


def _rows(videos: Sequence[Path]) -> Iterator[np.ndarray]:
    last: list[np.ndarray] = []
    for frames in zip_longest(*(read_frames(path, fps=FPS, threads=1) for path in videos)):
        if not last:
            # Even, as H.264 wants it.
            side = min(SIDE, *(len(frame.rgb) for frame in frames)) // 2 * 2
            last = [np.zeros((side, side, 3), np.uint8) for _ in videos]
        last = [
            before if frame is None else _scaled(frame.rgb, len(before))
            for frame, before in zip(frames, last, strict=True)
        ]
        yield np.concatenate(last, axis=1)


def _scaled(picture: np.ndarray, side: int) -> np.ndarray:
    if picture.shape[:2] == (side, side):
        return picture
    return np.asarray(cv2.resize(picture, (side, side), interpolation=cv2.INTER_AREA))
