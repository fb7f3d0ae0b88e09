"""Encoding pictures as H.264 in mp4, with another file's sound if wanted."""

import io
import logging
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter
from numpy.typing import NDArray

from datasets.media.sound_track import SoundTrack
from datasets.store.atomic import make_folder, move_atomic, unfinished_name

log = logging.getLogger(__name__)

CLOCK = 90000
"""Ticks per second of the video's timestamps."""
BT709 = 1
LIMITED = 1


class VideoWriter:
    """Writes pictures to an mp4 file that exists only once it is complete, or to memory.

    A context manager; leaving it by an exception removes what was written. Sizes with an
    odd side are stored without chroma subsampling (yuv444p), because 4:2:0 cannot express
    them; all others as yuv420p. The bytes are the same on every run: one thread, no times,
    no names.

    Args:
        target: the file to make, or a buffer that has all of it after `close`.
        width, height: of the pictures, pixels.
        fps: frame rate; with explicit times only the nominal one.
        crf: x264's quality, lower is better.
        audio: a file whose sound goes along, from its own first video frame (or start) on,
            cut to the video's length. Copied where mp4 allows, otherwise encoded as AAC at
            its own rate with its own channels.
        preset: x264's speed.

    Raises:
        SourceError: `audio` has no sound.
    """

    def __init__(
        self,
        target: Path | io.BytesIO,
        width: int,
        height: int,
        fps: float,
        crf: int = 18,
        audio: Path | None = None,
        preset: str = "medium",
    ) -> None:
        self.target = target
        self.width, self.height = width, height
        self.rate = Fraction(fps).limit_denominator(1001)
        self.end_s = 0.0
        self.count = 0
        self._last_pts = -1
        # Its tables are made once; more threads would only wait for each other.
        self._reformatter = VideoReformatter()
        self._temporary: Path | None = None
        if isinstance(target, Path):
            make_folder(target.parent)
            self._temporary = unfinished_name(target)
        self._sound: SoundTrack | None = None
        # The sound's start is stored in the movie's clock, whose milliseconds are too coarse.
        options = {"fflags": "+bitexact", "movie_timescale": str(CLOCK)}
        opened: Any = str(self._temporary.absolute()) if self._temporary else target
        self._container = av.open(opened, "w", format="mp4", options=options)
        try:
            self._stream = self._video_stream(crf, preset)
            self._sound = SoundTrack(audio, self._container) if audio else None
        except BaseException:
            self._abandon()
            raise

    def _video_stream(self, crf: int, preset: str) -> Any:
        odd = self.width % 2 or self.height % 2
        stream: Any = self._container.add_stream("libx264", rate=self.rate)
        stream.width, stream.height = self.width, self.height
        stream.pix_fmt = "yuv444p" if odd else "yuv420p"
        stream.time_base = Fraction(1, CLOCK)
        context = stream.codec_context
        context.time_base = Fraction(1, CLOCK)
        # More threads divide the picture differently from machine to machine, and so do
        # algorithms chosen by what the processor can do.
        context.thread_count = 1
        context.options = {
            "crf": str(crf),
            "preset": preset,
            "x264-params": "cpu-independent=1",
        }
        # Tagged and converted as BT.709, what players assume when they are not told.
        context.colorspace = BT709
        context.color_primaries = BT709
        context.color_trc = BT709
        context.color_range = LIMITED
        return stream

    def __enter__(self) -> Self:
        return self

    def write(self, rgb: NDArray[np.uint8], time_s: float | None = None) -> None:
        """Add a picture.

        Args:
            rgb: (height, width, 3).
            time_s: when it is shown, for a rate that is not constant; times increase.

        Raises:
            ValueError: the picture has another size or type than the video's, or is not
                later than the one before.
        """
        expected = (self.height, self.width, 3)
        if rgb.shape != expected or rgb.dtype != np.uint8:
            raise ValueError(
                f"a picture of {rgb.dtype} {rgb.shape} does not fit a video of uint8 {expected}"
            )
        time = Fraction(self.count) / self.rate if time_s is None else Fraction(time_s)
        pts = round(time * CLOCK)
        if pts <= self._last_pts:
            raise ValueError(f"a picture at {float(time)} s is not later than the one before")
        picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format="rgb24")
        picture = self._reformatter.reformat(
            picture,
            format=self._stream.pix_fmt,
            dst_colorspace=Colorspace.ITU709,
            dst_color_range=ColorRange.MPEG,
            threads=1,
        )
        picture.pts, picture.time_base = pts, Fraction(1, CLOCK)
        self._mux(self._stream.encode(picture))
        self.count += 1
        self._last_pts = pts
        self.end_s = float(time + 1 / self.rate)
        if self._sound:
            self._sound.write_until(float(time))

    def _mux(self, packets: list[Any]) -> None:
        for packet in packets:
            # x264 knows no durations; without one the last picture would flash by.
            packet.duration = round(1 / (self.rate * packet.time_base))
            self._container.mux(packet)

    def close(self) -> None:
        """Finish the file and put it in place."""
        try:
            self._mux(self._stream.encode(None))
            if self._sound:
                self._sound.write_until(self.end_s)
                self._sound.close()
            self._container.close()
            if self._temporary is not None:
                assert isinstance(self.target, Path)
                move_atomic(self._temporary, self.target)
        except BaseException:
            self._abandon()
            raise

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self.close()
        else:
            self._abandon()

    def _abandon(self) -> None:
        """Remove what has been written so far."""
        try:
            if self._sound:
                self._sound.close()
            self._container.close()
        except (OSError, ValueError) as error:
            log.debug("closing an unfinished file: %s", error)
        finally:
            if self._temporary is not None:
                self._temporary.unlink(missing_ok=True)
