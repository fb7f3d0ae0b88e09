"""The content of one clip, of which only what is asked for is decoded.

The pictures of a clip are chains that begin at key frames, and a picture needs those before it
in its chain. So a window costs its own pictures and those from the last key frame on, without the
ones that nothing else depends on; and only what is shown is converted to RGB.
"""

import io
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from fractions import Fraction
from typing import Any

import av
import numpy as np
import soundfile
from av.video.reformatter import VideoReformatter
from numpy.lib import format as npy_format
from numpy.typing import NDArray

from datasets.errors import UserError
from datasets.media import FPS, SAMPLES_PER_FRAME
from datasets.media.audio import fit_length
from datasets.media.colour import Colours, Tags, colours_of, to_rgb
from datasets.shards.clip_index import Clip

FAR = 50
"""Frames; reading on over fewer is as quick as entering the file at another place."""


class ClipContent:
    """Pictures, sound and landmarks of a clip.

    Args:
        clip: what it is.
        member: gives the bytes of a member by its extension.
        side: side to which pictures and landmarks are scaled.
        where: the dataset, for messages.
    """

    def __init__(self, clip: Clip, member: Callable[[str], bytes], side: int, where: str) -> None:
        self.clip, self.member, self.side, self.where = clip, member, side, where

    def frames(
        self, wanted: NDArray[np.int64] | None = None, lower: bool = False
    ) -> NDArray[np.uint8]:
        """Aligned faces (n, side, side, 3).

        Args:
            wanted: their numbers, in any order, also repeated; None: all of the clip.
            lower: only the lower half, (n, side / 2, side, 3).

        Raises:
            UserError: the video is damaged, or has another length than its record says.
            IndexError: a number is not in the clip.
        """
        count, side = self.clip.num_frames, self.side
        numbers = range(count) if wanted is None else wanted.tolist()
        slots: dict[int, list[int]] = {}
        for slot, number in enumerate(numbers):
            slots.setdefault(number, []).append(slot)
        if slots and not 0 <= min(slots) <= max(slots) < count:
            raise IndexError(f"frames {min(slots)} to {max(slots)} of a clip of {count}")
        pictures = np.empty((len(numbers), side // 2 if lower else side, side, 3), np.uint8)
        try:
            for number, picture in self._decode(slots):
                shown = _scaled(picture, side)[side // 2 if lower else 0 :]
                for slot in slots[number]:
                    pictures[slot] = shown
        except (OSError, ValueError, IndexError) as error:
            raise UserError(
                f"clip {self.clip.clip_id} of {self.where} cannot be decoded ({error}): refresh "
                "the dataset again"
            ) from error
        return pictures

    def _decode(self, wanted: Iterable[int]) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        """Number and picture of each of the wanted frames, as stored."""
        left = set(wanted)
        with av.open(io.BytesIO(self.member("mp4")), "r", format="mp4") as container:
            stream = container.streams.video[0]
            context: Any = stream.codec_context
            # Every core has a clip of its own.
            context.thread_type, context.thread_count = "NONE", 1
            if stream.frames != self.clip.num_frames:
                raise UserError(
                    f"clip {self.clip.clip_id} of {self.where} has {stream.frames} frames, but its "
                    f"record says {self.clip.num_frames}: refresh the dataset again"
                )
            ticks = float(1 / (FPS * (stream.time_base or Fraction(1))))
            tags, reformatter = Tags.of(context), VideoReformatter()
            colours: Colours | None = None
            for chain in _chains(container, stream, left, ticks):
                needed = [at for at, packet in enumerate(chain) if _number(packet, ticks) in left]
                if not needed:
                    continue
                for frame in _decoded(context, chain[: needed[-1] + 1], set(needed)):
                    number = _number(frame, ticks)
                    if number in left:
                        left.remove(number)
                        # One encoder made them all.
                        colours = colours or colours_of(frame, tags)
                        yield number, to_rgb(frame, colours, reformatter)
            if left:
                raise ValueError(f"{len(left)} frames are damaged")

    def audio(self, first: int = 0, count: int | None = None) -> NDArray[np.float32]:
        """Sound at 16 kHz, corrected for the offset: (frames * 640,) of some video frames.

        Args:
            first: the first frame.
            count: how many; None: to the clip's end. Beyond what is stored there is silence.
        """
        count = self.clip.num_frames - first if count is None else count
        with soundfile.SoundFile(io.BytesIO(self.member("flac"))) as file:
            start = min(first * SAMPLES_PER_FRAME, file.frames)
            if start:
                file.seek(start)
            sound: NDArray[np.float32] = file.read(count * SAMPLES_PER_FRAME, dtype="float32")
        return fit_length(sound, count * SAMPLES_PER_FRAME)

    def landmarks(self, first: int = 0, count: int | None = None) -> NDArray[np.float32]:
        """(t, 478, 2) of some frames, in pixels of the aligned face at `side`."""
        content = io.BytesIO(self.member("npy"))
        shape, _, kind = _npy_header(content)
        last = shape[0] if count is None else min(first + count, shape[0])
        each = int(np.prod(shape[1:]))
        points = np.frombuffer(
            content.getbuffer(), kind, (last - first) * each, content.tell() + first * each * 4
        ).reshape(last - first, *shape[1:])
        return (points * (self.side / self.clip.resolution)).astype(np.float32)


def _npy_header(content: io.BytesIO) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = npy_format.read_magic(content)
    read = (
        npy_format.read_array_header_1_0
        if version == (1, 0)
        else (npy_format.read_array_header_2_0)
    )
    return read(content)


def _number(thing: Any, ticks: float) -> int:
    """Which frame of its clip a packet or a frame is."""
    return -1 if thing.pts is None else round(thing.pts / ticks)


def _chains(container: Any, stream: Any, left: Set[int], ticks: float) -> Iterator[list[Any]]:
    """Packets from one key frame to before the next, of the chains that hold what is left.

    Args:
        container: an open mp4.
        stream: its video.
        left: numbers of the frames that are wanted; whoever takes a chain removes those in it.
        ticks: of the stream's clock for each frame.
    """
    while left:
        before = len(left)
        container.seek(round(min(left) * ticks), stream=stream)
        chain: list[Any] = []
        for packet in container.demux(stream):
            if packet.is_keyframe and chain:
                yield chain
                chain = []
                if not left or min(left) > _number(packet, ticks) + FAR:
                    break
            chain.append(packet)
        else:
            yield chain
        if len(left) == before:
            # What is damaged does not come by asking again.
            return


def _decoded(context: Any, packets: Sequence[Any], needed: set[int]) -> Iterator[Any]:
    """Frames of a chain's beginning, without those that are neither needed nor depended on."""
    for at, packet in enumerate(packets):
        context.skip_frame = "DEFAULT" if at in needed else "NONREF"
        yield from context.decode(packet)
    yield from context.decode(None)
    context.flush_buffers()


def _scaled(picture: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    if picture.shape[0] == side:
        return picture
    import cv2

    method = cv2.INTER_AREA if side < picture.shape[0] else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(picture, (side, side), interpolation=method))
