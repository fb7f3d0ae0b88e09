"""Encoding H.264 in mp4, with another file's sound if wanted, and FLAC."""

import logging
import os
import uuid
from collections.abc import Generator
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import av
import numpy as np
import soundfile
from numpy.typing import NDArray

from datasets._media_read import SAMPLES_PER_FRAME, _video_zero, decoded, fitted, opened
from datasets.errors import Reason, SourceError

log = logging.getLogger(__name__)

CLOCK = 90000
"""Ticks per second of the video's timestamps."""
COPIED = ("aac", "mp3", "alac", "ac3", "eac3")
"""Audio codecs that an mp4 holds as they are."""
LAYOUTS = {1: "mono", 2: "stereo", 3: "3.0", 4: "4.0", 5: "5.0", 6: "5.1"}
AAC_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 64000, 88200, 96000)


class VideoWriter:
    """Writes pictures to an mp4 file that exists only once it is complete.

    Sizes with an odd side are stored without chroma subsampling (yuv444p), because 4:2:0
    cannot express them; all others as yuv420p. Bytes are the same on every run.

    Args:
        path: the file to make. Nothing of it is seen before the writer is closed.
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
        path: Path,
        width: int,
        height: int,
        fps: float,
        crf: int = 18,
        audio: Path | None = None,
        preset: str = "medium",
    ) -> None:
        self.path = path
        self.size = (height, width)
        self.rate = Fraction(fps).limit_denominator(1001)
        self.count = 0
        self.end_s = 0.0
        path.parent.mkdir(parents=True, exist_ok=True)
        self.temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
        self.container = av.open(
            str(self.temporary), "w", format="mp4", options={"fflags": "+bitexact"}
        )
        try:
            self.stream = self._video_stream(crf, preset)
            self.sound = _Sound(audio, self.container) if audio else None
        except BaseException:
            self._abandon()
            raise

    def _video_stream(self, crf: int, preset: str) -> Any:
        odd = self.size[0] % 2 or self.size[1] % 2
        stream: Any = self.container.add_stream("libx264", rate=self.rate)
        stream.width, stream.height = self.size[1], self.size[0]
        stream.pix_fmt = "yuv444p" if odd else "yuv420p"
        stream.time_base = Fraction(1, CLOCK)
        stream.codec_context.time_base = Fraction(1, CLOCK)
        # More threads would split the picture differently from machine to machine.
        stream.codec_context.thread_count = 1
        stream.codec_context.options = {"crf": str(crf), "preset": preset}
        # Tagged and converted as BT.709, what players assume when they are not told.
        stream.codec_context.colorspace = 1
        stream.codec_context.color_primaries = 1
        stream.codec_context.color_trc = 1
        stream.codec_context.color_range = 1
        return stream

    def __enter__(self) -> Self:
        return self

    def write(self, rgb: NDArray[np.uint8], time_s: float | None = None) -> None:
        """Add a picture (h, w, 3), at a time in seconds if the rate is not constant.

        Raises:
            ValueError: it has another size than the video.
        """
        if rgb.shape != (*self.size, 3):
            expected = (*self.size, 3)
            raise ValueError(f"a frame of shape {rgb.shape} does not fit a video of {expected}")
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format="rgb24")
        frame = frame.reformat(
            format=self.stream.pix_fmt, dst_colorspace="ITU709", dst_color_range="MPEG"
        )
        time = Fraction(self.count) / self.rate if time_s is None else Fraction(time_s)
        frame.pts = round(time * CLOCK)
        frame.time_base = Fraction(1, CLOCK)
        self.count += 1
        self.end_s = float(time + 1 / self.rate)
        self.container.mux(self.stream.encode(frame))
        if self.sound:
            self.sound.write_until(float(time))

    def close(self) -> None:
        """Finish the file and put it in place."""
        try:
            self.container.mux(self.stream.encode(None))
            if self.sound:
                self.sound.write_until(self.end_s)
                self.sound.close()
            self.container.close()
            handle = os.open(self.temporary, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)
            self.temporary.replace(self.path)
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
            if getattr(self, "sound", None):
                self.sound.close()  # type: ignore[union-attr]
            self.container.close()
        except (av.error.FFmpegError, ValueError, OSError) as error:
            log.debug("closing an unfinished file: %s", error)
        self.temporary.unlink(missing_ok=True)


class _Sound:
    """Another file's audio as packets for our container, pulled in step with the video."""

    def __init__(self, path: Path, output: Any) -> None:
        self.output = output
        self.opening = opened(path)
        self.container = self.opening.__enter__()
        try:
            if not self.container.streams.audio:
                raise SourceError(Reason.NO_AUDIO, f"no audio stream in {path.name}")
            self.source = self.container.streams.audio[0]
            zero = _video_zero(path) if self.container.streams.video else None
            self.zero = zero
            codec = self.source.codec_context.name
            if codec in COPIED:
                self.stream = output.add_stream_from_template(self.source)
                self.packets = self._copied()
            else:
                # WAV files often leave open which speaker each of their channels is for.
                layout = LAYOUTS.get(self.source.codec_context.channels, "stereo")
                self.stream = output.add_stream("aac", rate=self._rate(), layout=layout)
                self.packets = self._encoded()
        except BaseException:
            self.opening.__exit__(None, None, None)
            raise
        self.waiting: tuple[float, Any] | None = None

    def _rate(self) -> int:
        own = self.source.codec_context.sample_rate
        return min(AAC_RATES, key=lambda rate: (rate < own, abs(rate - own)))

    def write_until(self, time: float) -> None:
        """Mux what is heard before `time`, seconds."""
        while True:
            if self.waiting is None:
                self.waiting = next(self.packets, None)
            if self.waiting is None or self.waiting[0] >= time:
                return
            self.output.mux(self.waiting[1])
            self.waiting = None

    def close(self) -> None:
        """Let go of the source."""
        self.packets.close()
        self.opening.__exit__(None, None, None)

    def _copied(self) -> Generator[tuple[float, Any], None, None]:
        offset: int | None = None
        base = self.source.time_base or Fraction(1, self.source.codec_context.sample_rate)
        for packet in self.container.demux(self.source):
            if packet.pts is None or packet.dts is None:
                continue
            if offset is None:
                offset = round(self.zero / base) if self.zero is not None else packet.pts
            if packet.pts < offset:
                continue
            packet.pts -= offset
            packet.dts = min(packet.dts - offset, packet.pts)
            packet.stream = self.stream
            yield float(packet.pts * base), packet

    def _encoded(self) -> Generator[tuple[float, Any], None, None]:
        resampler = av.AudioResampler(
            format="fltp", layout=self.stream.codec_context.layout.name, rate=self.stream.rate
        )
        done = 0
        skip: int | None = None
        for frame in decoded(self.container, self.source):
            if skip is None:
                start = frame.time or 0.0
                zero = self.zero if self.zero is not None else start
                skip = round((zero - start) * self.stream.rate)
            frame.pts = None
            for part in resampler.resample(frame):
                if skip > 0:
                    skip -= part.samples
                    continue
                part.pts = done - min(skip, 0)
                part.time_base = Fraction(1, self.stream.rate)
                done += part.samples
                for packet in self.stream.encode(part):
                    packet.stream = self.stream
                    yield float(packet.pts * packet.time_base), packet
        for packet in self.stream.encode(None):
            packet.stream = self.stream
            yield float(packet.pts * packet.time_base), packet


def write_flac(path: Path, audio: NDArray[np.float32], rate: int) -> None:
    """16-bit PCM, losslessly packed. `audio` is (n,) in [-1, 1]."""
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.clip(audio, -1, 1), rate, format="FLAC", subtype="PCM_16")


def shift_audio(
    audio: NDArray[np.float32], frames: float, per_frame: int = SAMPLES_PER_FRAME
) -> NDArray[np.float32]:
    """Undo a delay of the audio by moving its samples; the length stays.

    Args:
        audio: (n,).
        frames: how late the audio is, in frames at 25 fps; negative: early.
        per_frame: samples per frame.
    """
    late = round(frames * per_frame)
    if late >= 0:
        return fitted(audio[late:], len(audio))
    return fitted(np.concatenate([np.zeros(-late, audio.dtype), audio]), len(audio))
