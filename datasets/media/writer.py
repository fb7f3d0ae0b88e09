"""Encoding pictures, with another file's sound if requested."""

import io
import logging
from fractions import Fraction
from math import ceil
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import av
import numpy as np
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from datasets.media.canvas import Canvas
from datasets.media.colour import swscale_matrix
from datasets.media.form import H264, HEVC, PRORES, VP9, Form, plain_form
from datasets.media.output import container_of
from datasets.media.rates import exact_rate
from datasets.media.sound_track import SoundTrack
from datasets.store.atomic import make_folder, move_atomic, unfinished_name

log = logging.getLogger(__name__)

CLOCK = 90000
"""Ticks per second of the video's timestamps."""
ENCODERS = {H264: "libx264", HEVC: "libx265", VP9: "libvpx-vp9", PRORES: "prores_ks"}
FURTHEST_BACK = 1000
"""Most pictures by which decoding runs ahead of showing, for any encoder."""
X265 = "log-level=error:info=0:pools=none:frame-threads=1:wpp=0"
"""The same bytes on every run, and nothing printed."""


class VideoWriter:
    """Writes pictures to a file that exists only once it is complete, or to memory.

    A context manager; leaving it with an exception removes what was written. The bytes are the same
    on every run: one thread, no times, no names. The file's suffix decides: .mp4, .m4v, .mov and
    .mkv hold H.264, or HEVC for 10 bits; .webm holds VP9. Transparency makes it VP9 in .mkv and
    ProRes 4444 in .mov.

    Args:
        target: the file to write, or a buffer that holds an mp4 after `close`.
        width, height: size of the pictures, pixels.
        fps: frame rate; with explicit times only the nominal one. If it does not divide the
            usual clock (23.976, 59.94), times count in ticks of its own.
        crf: quality on x264's scale; lower is better.
        audio: a file whose sound is added, from its own first video frame (or start) on,
            cut to the video's length. It is copied if the container allows it, otherwise encoded as
            AAC (in WebM as Opus) at its own rate with its own channels.
        preset: x264's and x265's speed.
        seek_frames: most frames from one key frame to the next, for readers that enter in the
            middle; 0 leaves it to the encoder. Only for H.264.
        cheap_to_read: H.264 without arithmetic coding: the same pictures in a tenth more bytes and
            with a third less time to decode them.
        form: how pictures are stored, see `datasets.media.form`; by default 8 bits in BT.709.

    Raises:
        SourceError: `audio` has no sound.
        UserError: no video can be written with this suffix.
    """

    def __init__(
        self,
        target: Path | io.BytesIO,
        width: int,
        height: int,
        fps: float | Fraction,
        crf: int = 18,
        audio: Path | None = None,
        preset: str = "medium",
        seek_frames: int = 0,
        cheap_to_read: bool = False,
        form: Form | None = None,
    ) -> None:
        self.target = target
        self.width, self.height = width, height
        self.rate = exact_rate(float(fps))
        self.end_s = 0.0
        self.count = 0
        self._last_pts = -1
        # Its tables are built once; more threads would only wait for each other.
        self._reformatter = VideoReformatter()
        self._temporary: Path | None = None
        self._kind = "mp4"
        if isinstance(target, Path):
            self._kind = container_of(target)
            make_folder(target.parent)
            self._temporary = unfinished_name(target)
        self._seek_frames, self._cheap_to_read = seek_frames, cheap_to_read
        self.form = form or plain_form(width, height, self._kind)
        self._base = self._time_base()
        self._sound: SoundTrack | None = None
        options = {"fflags": "+bitexact"}
        if self._kind in ("mp4", "mov"):
            # The sound's start is stored in the movie's clock, whose milliseconds are too coarse.
            options["movie_timescale"] = str(CLOCK)
        opened: Any = str(self._temporary.absolute()) if self._temporary else target
        self._container = av.open(opened, "w", format=self._kind, options=options)
        try:
            self._stream = self._video_stream(crf, preset)
            self._sound = SoundTrack(audio, self._container, self._kind) if audio else None
        except BaseException:
            self._abandon()
            raise

    def _time_base(self) -> Fraction:
        """The usual clock, or one as fine in which a frame lasts whole ticks."""
        if (CLOCK / self.rate).denominator == 1:
            return Fraction(1, CLOCK)
        return Fraction(1, self.rate.numerator * ceil(CLOCK / self.rate.numerator))

    def _video_stream(self, crf: int, preset: str) -> Any:
        encoder = self._encoder()
        stream: Any = self._container.add_stream(encoder, rate=self.rate)
        stream.width, stream.height = self.width, self.height
        stream.pix_fmt = self.form.pix_fmt
        stream.time_base = self._base
        context = stream.codec_context
        context.time_base = self._base
        # More threads divide the picture differently from machine to machine, and so do
        # algorithms chosen by what the processor can do.
        context.thread_count = 1
        context.options = self._options(encoder, crf, preset)
        if encoder == "libx265" and self._kind in ("mp4", "mov"):
            # Apple's players know HEVC only by this name.
            context.codec_tag = "hvc1"
        if encoder == "libvpx-vp9":
            stream.bit_rate = 0
        # What players assume by default, or what the source says.
        colours = self.form.colours
        context.colorspace = colours.matrix
        context.color_primaries = colours.primaries
        context.color_trc = colours.transfer
        context.color_range = colours.range
        return stream

    def _encoder(self) -> str:
        if self.form.codec:
            return ENCODERS[self.form.codec]
        if self._kind == "webm" or self.form.pix_fmt == "yuva420p":
            return "libvpx-vp9"
        if self.form.alpha:
            return "prores_ks"
        return "libx265" if self.form.bits > 8 else "libx264"

    def _options(self, encoder: str, crf: int, preset: str) -> dict[str, str]:
        if encoder == "libx264":
            params = "cpu-independent=1" + ":cabac=0" * self._cheap_to_read
            options = {"crf": str(crf), "preset": preset, "x264-params": params}
            return options | ({"g": str(self._seek_frames)} if self._seek_frames else {})
        if encoder == "prores_ks":
            return {"profile": "4444", "vendor": "apl0", "alpha_bits": "16"}
        if encoder == "libvpx-vp9":
            # Frames that are shown later cannot have transparency.
            later = "0" if self.form.alpha else "1"
            return {"crf": str(crf), "cpu-used": "2", "row-mt": "0", "auto-alt-ref": later}
        hdr = ""
        if self.form.mastering:
            hdr += f":master-display={self.form.mastering}"
        if self.form.light:
            hdr += f":max-cll={self.form.light}"
        return {"crf": str(crf), "preset": preset, "x265-params": X265 + hdr}

    def __enter__(self) -> Self:
        return self

    def write(
        self, picture: NDArray[np.uint8] | Canvas, time_s: float | Fraction | None = None
    ) -> None:
        """Add a picture.

        Args:
            picture: RGB, (height, width, 3), or a canvas of this writer's form.
            time_s: when it is shown, if the rate is not constant; times must increase.

        Raises:
            ValueError: the picture has another size or type than the video's, or is not
                later than the previous one.
        """
        frame = self._frame_of(picture)
        time = Fraction(self.count) / self.rate if time_s is None else Fraction(time_s)
        pts = round(time / self._base)
        if pts <= self._last_pts:
            raise ValueError(f"a picture at {float(time)} s is not later than the previous one")
        frame.pts, frame.time_base = pts, self._base
        self._mux(self._stream.encode(frame))
        self.count += 1
        self._last_pts = pts
        self.end_s = float(time + 1 / self.rate)
        if self._sound:
            self._sound.write_until(float(time))

    def _frame_of(self, picture: NDArray[np.uint8] | Canvas) -> Any:
        expected = (self.height, self.width, 3)
        if isinstance(picture, Canvas):
            if (picture.height, picture.width) != expected[:2] or picture.form != self.form:
                raise ValueError(
                    f"a picture of {picture.width}x{picture.height} in {picture.form} does not fit "
                    f"a video of {self.width}x{self.height} in {self.form}"
                )
            return picture.frame()
        if picture.shape != expected or picture.dtype != np.uint8:
            raise ValueError(
                f"a picture of {picture.dtype} {picture.shape} does not fit a video of uint8 "
                f"{expected}"
            )
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
        return self._reformatter.reformat(
            frame,
            format=self._stream.pix_fmt,
            dst_colorspace=swscale_matrix(self.form.colours.matrix),
            dst_color_range=self.form.colours.range,
            threads=1,
        )

    def _mux(self, packets: list[Any]) -> None:
        for packet in packets:
            # x264 does not know durations; without one the last picture would flash by.
            packet.duration = round(1 / (self.rate * packet.time_base))
            if not packet.pts - FURTHEST_BACK * packet.duration <= packet.dts <= packet.pts:
                # For videos of one or two pictures x265 leaves this time unset.
                packet.dts = packet.pts
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
