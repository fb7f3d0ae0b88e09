"""Opening containers and decoding them, one stream at a time, as timestamps say."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from datasets.errors import Reason, SourceError

log = logging.getLogger(__name__)

FPS = 25
SAMPLE_RATE = 16000
SAMPLES_PER_FRAME = SAMPLE_RATE // FPS

FORMATS = (
    "mov,mp4,m4a,3gp,mj2,matroska,webm,avi,mpeg,mpegts,mpegvideo,m4v,flv,asf,ogg,mxf,nut,dv,rm,"
    "h264,hevc,ivf,yuv4mpegpipe,wav,w64,flac,mp3,aac,ac3,aiff,au,caf,amr"
)
"""Demuxers that may be used. Left out are playlists, which would open other files, and
those that see pictures or plain text as video."""
GAP_S = 0.02
"""A hole in the audio's timestamps that is longer is filled with silence."""


@dataclass(frozen=True)
class MediaInfo:
    """What a container says of itself, and the time of its first video frame."""

    path: Path
    duration_s: float
    """Length of the video from its first frame; estimated where the container has none."""
    width: int
    """After rotation, pixels."""
    height: int
    fps: float
    """Average frame rate."""
    video_codec: str
    start_s: float
    """Container time of the first video frame: zero of our timeline."""
    has_audio: bool
    audio_codec: str
    audio_rate: int
    audio_channels: int


@dataclass(frozen=True)
class Frame:
    """A decoded picture."""

    index: int
    """Position in the sequence that was asked for."""
    time_s: float
    """Seconds after the first video frame: of the sequence at a constant rate, of the
    source otherwise."""
    rgb: NDArray[np.uint8]
    """(h, w, 3)."""


@contextmanager
def opened(path: Path) -> Iterator[av.container.InputContainer]:
    """A container for reading.

    Raises:
        SourceError: the file is missing, empty or no media.
    """
    if not path.is_file():
        raise SourceError(Reason.UNREADABLE, "no regular file")
    if path.stat().st_size == 0:
        raise SourceError(Reason.EMPTY_FILE, "0 bytes")
    options = {"protocol_whitelist": "file", "format_whitelist": FORMATS}
    try:
        container = av.open(str(path), options=options, metadata_errors="replace")
    except (av.error.FFmpegError, ValueError) as error:
        raise SourceError(_open_reason(path), _one_line(error)) from error
    with container:
        yield container


def _open_reason(path: Path) -> Reason:
    """Whether a file that does not open is damaged media or something else."""
    head = path.open("rb").read(12)
    known = head[4:8] == b"ftyp" or head[:4] in (b"RIFF", b"\x1aE\xdf\xa3", b"OggS", b"fLaC")
    known = known or head[:4] in (b"\x00\x00\x01\xba", b"\x00\x00\x01\xb3")
    return Reason.UNREADABLE if known else Reason.NOT_MEDIA


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]


def video_stream(container: av.container.InputContainer) -> Any:
    """The first video stream that is no cover picture.

    Raises:
        SourceError: there is none.
    """
    for stream in container.streams.video:
        if not stream.disposition & av.stream.Disposition.attached_pic:
            stream.thread_type = "AUTO"
            return stream
    kinds = sorted({stream.type for stream in container.streams})
    if not kinds:
        raise SourceError(Reason.NOT_MEDIA, "no stream")
    raise SourceError(Reason.NO_VIDEO, f"only {', '.join(kinds)} streams")


def decoded(container: av.container.InputContainer, stream: Any) -> Iterator[Any]:
    """Frames of a stream, in order of presentation, as far as the file can be decoded."""
    damaged = 0
    try:
        for packet in container.demux(stream):
            try:
                yield from packet.decode()
            except av.error.FFmpegError:
                damaged += 1
    except av.error.FFmpegError as error:
        log.debug("%s ends early: %s", container.name, _one_line(error))
    if damaged:
        log.debug("%s: %d damaged packets", container.name, damaged)


def timed(frames: Iterator[Any], rate: float) -> Iterator[tuple[float, Any]]:
    """(container time, frame) with times that strictly increase.

    MPEG program streams and old AVI files may lack timestamps; those frames follow the
    one before by the stream's frame duration.
    """
    last = -float("inf")
    step = 1 / rate
    for frame in frames:
        time = frame.time
        if time is None:
            time = 0.0 if last == -float("inf") else last + step
        if time <= last:
            continue
        last = time
        yield time, frame


def frame_rate(stream: Any) -> float:
    """Average frames per second; 25 where the container does not say."""
    rate = stream.average_rate or stream.guessed_rate or stream.base_rate
    return float(rate) if rate else float(FPS)


def to_rgb(frame: Any) -> NDArray[np.uint8]:
    """(h, w, 3), turned as the display matrix says."""
    rgb = frame.to_ndarray(format="rgb24")
    turns = round(frame.rotation / 90) % 4
    return np.ascontiguousarray(np.rot90(rgb, turns)) if turns else rgb


def probe(path: Path) -> MediaInfo:
    """Look at a file without decoding more than one frame.

    Raises:
        SourceError: EMPTY_FILE, NOT_MEDIA, NO_VIDEO or UNREADABLE.
    """
    with opened(path) as container:
        stream = video_stream(container)
        rate = frame_rate(stream)
        first = next(timed(decoded(container, stream), rate), None)
        if first is None:
            raise SourceError(Reason.UNREADABLE, "no frame of the video can be decoded")
        start, frame = first
        turned = round(frame.rotation / 90) % 2 == 1
        size = (frame.height, frame.width) if turned else (frame.width, frame.height)
        audio = container.streams.audio[0] if container.streams.audio else None
        return MediaInfo(
            path=path,
            duration_s=_duration(container, stream, start),
            width=size[0],
            height=size[1],
            fps=rate,
            video_codec=stream.codec_context.name,
            start_s=start,
            has_audio=audio is not None,
            audio_codec=audio.codec_context.name if audio else "",
            audio_rate=audio.codec_context.sample_rate if audio else 0,
            audio_channels=audio.codec_context.channels if audio else 0,
        )


def _duration(container: av.container.InputContainer, stream: Any, start: float) -> float:
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    if container.duration:
        first = (container.start_time or 0) / av.time_base
        return max(0.0, container.duration / av.time_base - (start - first))
    return 0.0


def read_frames(
    path: Path, fps: float | None = FPS, start_s: float = 0.0, end_s: float | None = None
) -> Iterator[Frame]:
    """Decode a video as a stream of pictures; never more than two are held.

    Args:
        path: the file.
        fps: constant rate to resample to, by timestamps: at each moment the nearest frame
            of the source is shown. None gives every frame of the source with its own time.
        start_s, end_s: part of the video, in seconds after its first frame.

    Raises:
        SourceError: nothing can be decoded. A damaged end only ends the stream.
    """
    with opened(path) as container:
        stream = video_stream(container)
        rate = frame_rate(stream)
        frames = timed(decoded(container, stream), rate)
        first = next(frames, None)
        if first is None:
            raise SourceError(Reason.UNREADABLE, "no frame of the video can be decoded")
        zero = first[0]
        if start_s > 0:
            # One frame early, since the nearest frame may lie before the start.
            target = zero + start_s - 2 / rate
            if target > zero:
                container.seek(int(target / stream.time_base), stream=stream, backward=True)
                frames = timed(decoded(container, stream), rate)
                first = next(frames, None)
        source = _chain(first, frames, zero)
        chosen = _native(source) if fps is None else _resampled(source, fps, 1 / rate)
        for frame in chosen:
            if frame.time_s < start_s - 1e-6:
                continue
            if end_s is not None and frame.time_s >= end_s - 1e-6:
                return
            yield Frame(frame.index, frame.time_s, frame.rgb())


def _chain(first: Any, rest: Iterator[Any], zero: float) -> Iterator[tuple[float, Any]]:
    if first is not None:
        yield first[0] - zero, first[1]
    for time, frame in rest:
        yield time - zero, frame


class _Lazy:
    """A frame that is converted at most once, and only when it is wanted."""

    def __init__(self, frame: Any) -> None:
        self.frame = frame
        self.converted: NDArray[np.uint8] | None = None

    def rgb(self) -> NDArray[np.uint8]:
        if self.converted is None:
            self.converted = to_rgb(self.frame)
            self.frame = None
        return self.converted


@dataclass(frozen=True)
class _Chosen:
    index: int
    time_s: float
    lazy: _Lazy

    def rgb(self) -> NDArray[np.uint8]:
        return self.lazy.rgb()


def _native(source: Iterator[tuple[float, Any]]) -> Iterator[_Chosen]:
    for index, (time, frame) in enumerate(source):
        yield _Chosen(index, time, _Lazy(frame))


def _resampled(source: Iterator[tuple[float, Any]], fps: float, step: float) -> Iterator[_Chosen]:
    """For each k the source frame nearest to k / fps; the last one lasts one `step`."""
    previous: tuple[float, _Lazy] | None = None
    index = 0
    for time, frame in source:
        lazy = _Lazy(frame)
        if previous is None:
            index = max(0, int(np.ceil(time * fps - 1e-6)))
        else:
            middle = (previous[0] + time) / 2
            while index / fps < middle:
                yield _Chosen(index, index / fps, previous[1])
                index += 1
        previous = (time, lazy)
    if previous is not None:
        end = round((previous[0] + step) * fps)
        for last in range(index, max(end, index + (index == 0))):
            yield _Chosen(last, last / fps, previous[1])


def read_audio(
    path: Path, rate: int = SAMPLE_RATE, duration_s: float | None = None
) -> NDArray[np.float32]:
    """Mono audio whose first sample belongs to the first video frame.

    Args:
        path: a video or audio file; without video, time zero is the audio's own start.
        rate: samples per second of the result.
        duration_s: exact length wanted: cut, or filled with silence.

    Returns:
        (n,) float32 in [-1, 1].

    Raises:
        SourceError: NO_AUDIO where there is none or none of it can be decoded.
    """
    with opened(path) as container:
        if not container.streams.audio:
            raise SourceError(Reason.NO_AUDIO, "no audio stream")
        zero = _video_zero(path) if container.streams.video else None
        stream = container.streams.audio[0]
        resampler = av.AudioResampler(format="flt", layout="mono", rate=rate)
        chunks: list[NDArray[np.float32]] = []
        start: float | None = None
        fed = 0
        for frame in decoded(container, stream):
            if not frame.samples:
                continue
            time = frame.time
            if start is None:
                start = time if time is not None else 0.0
            elif time is not None:
                gap = round((time - start - fed / frame.sample_rate) * frame.sample_rate)
                if gap > GAP_S * frame.sample_rate:
                    chunks += _resample(resampler, _silence(frame, gap))
                    fed += gap
            fed += frame.samples
            frame.pts = None
            chunks += _resample(resampler, frame)
        chunks += _resample(resampler, None)
    if start is None:
        raise SourceError(Reason.NO_AUDIO, "the audio stream cannot be decoded")
    audio = np.concatenate(chunks) if chunks else np.zeros(0, np.float32)
    audio = np.clip(_from_zero(audio, round(((zero or start) - start) * rate)), -1, 1)
    return audio if duration_s is None else fitted(audio, round(duration_s * rate))


def _video_zero(path: Path) -> float | None:
    """Container time of the first video frame; None for a file with only a cover picture."""
    with opened(path) as container:
        try:
            stream = video_stream(container)
        except SourceError:
            return None
        first = next(timed(decoded(container, stream), frame_rate(stream)), None)
        return first[0] if first else None


def _resample(resampler: Any, frame: Any) -> list[NDArray[np.float32]]:
    return [each.to_ndarray().reshape(-1) for each in resampler.resample(frame)]


def _silence(like: Any, samples: int) -> Any:
    frame = av.AudioFrame(format=like.format.name, layout=like.layout.name, samples=samples)
    for plane in frame.planes:
        # Unsigned 8-bit audio is silent at its middle.
        value = b"\x80" if like.format.name.startswith("u8") else b"\0"
        plane.update(value * plane.buffer_size)
    frame.sample_rate = like.sample_rate
    frame.time_base = Fraction(1, like.sample_rate)
    return frame


def _from_zero(audio: NDArray[np.float32], skip: int) -> NDArray[np.float32]:
    """Drop `skip` samples at the start, or put silence there when it is negative."""
    if skip >= 0:
        return audio[skip:]
    return np.concatenate([np.zeros(-skip, np.float32), audio])


def fitted(audio: NDArray[np.float32], length: int) -> NDArray[np.float32]:
    """Cut to `length` samples, or filled with silence."""
    if len(audio) >= length:
        return audio[:length]
    return np.concatenate([audio, np.zeros(length - len(audio), np.float32)])
