"""The content of one clip, of which only what is asked for is decoded.

The pictures of a clip are chains that begin at key frames, and a picture needs those before it
in its chain. So a window costs its own pictures and those from the last key frame on, without the
ones that nothing else depends on; and only what is shown is converted to RGB.
"""

import io
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import av
import numpy as np
import soundfile
from numpy.lib import format as npy_format
from numpy.typing import NDArray

from datasets.errors import UserError
from datasets.media import SAMPLES_PER_FRAME, Picture
from datasets.media.audio import fit_length
from datasets.media.colour import Tags
from datasets.media.picture import Converter
from datasets.shards.clip_index import Clip


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
        distinct = np.arange(count) if wanted is None else np.unique(wanted)
        if len(distinct) and not 0 <= distinct[0] <= distinct[-1] < count:
            raise IndexError(f"frames {distinct[0]} to {distinct[-1]} of a clip of {count}")
        pictures = np.empty((len(distinct), side // 2 if lower else side, side, 3), np.uint8)
        place = {int(number): index for index, number in enumerate(distinct)}
        try:
            for number, picture in self._decode(place):
                pictures[place[number]] = _shown(picture, side, lower)
        except (OSError, ValueError, IndexError) as error:
            raise UserError(
                f"clip {self.clip.clip_id} of {self.where} cannot be decoded ({error}): refresh "
                "the dataset again"
            ) from error
        if wanted is None or np.array_equal(distinct, wanted):
            return pictures
        return pictures[np.searchsorted(distinct, wanted)]

    def _decode(self, wanted: dict[int, int]) -> Iterator[tuple[int, Picture]]:
        """Number and picture of the wanted frames."""
        with av.open(io.BytesIO(self.member("mp4")), "r", format="mp4") as container:
            stream = container.streams.video[0]
            context: Any = stream.codec_context
            # Every core has a clip of its own.
            context.thread_type, context.thread_count = "NONE", 1
            converter = Converter(Tags.of(context))
            packets = [packet for packet in container.demux(stream) if packet.pts is not None]
            times = sorted(int(packet.pts or 0) for packet in packets)
            if len(times) != self.clip.num_frames:
                raise UserError(
                    f"clip {self.clip.clip_id} of {self.where} has {len(times)} frames, but its "
                    f"record says {self.clip.num_frames}: refresh the dataset again"
                )
            number = {time: index for index, time in enumerate(times)}
            left = len(wanted)
            for chain in _chains(packets):
                needed = [at for at, each in enumerate(chain) if number[each.pts] in wanted]
                if not needed:
                    continue
                for frame in _decoded(context, chain[: needed[-1] + 1], set(needed)):
                    if frame.pts is not None and number[frame.pts] in wanted:
                        left -= 1
                        yield number[frame.pts], Picture(frame, converter)
            if left:
                raise ValueError(f"{left} of {len(wanted)} frames are damaged")

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


def _chains(packets: Sequence[Any]) -> Iterator[list[Any]]:
    """Packets from one key frame to before the next."""
    chain: list[Any] = []
    for packet in packets:
        if packet.is_keyframe and chain:
            yield chain
            chain = []
        chain.append(packet)
    if chain:
        yield chain


def _decoded(context: Any, packets: Sequence[Any], needed: set[int]) -> Iterator[Any]:
    """Frames of a chain's beginning, without those that are neither needed nor depended on."""
    for at, packet in enumerate(packets):
        context.skip_frame = "DEFAULT" if at in needed else "NONREF"
        yield from context.decode(packet)
    yield from context.decode(None)
    context.flush_buffers()


def _shown(picture: Picture, side: int, lower: bool) -> NDArray[np.uint8]:
    # A part of so small a picture costs as much as all of it.
    shown = picture.rgb
    if shown.shape[0] != side:
        import cv2

        method = cv2.INTER_AREA if side < shown.shape[0] else cv2.INTER_CUBIC
        shown = np.asarray(cv2.resize(shown, (side, side), interpolation=method))
    return shown[side // 2 :] if lower else shown
