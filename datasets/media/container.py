"""Opening containers, and decoding their streams as far as possible."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import av
from av.container import InputContainer

from datasets.errors import Reason, SourceError
from datasets.media.form import ALPHA_MODE

log = logging.getLogger(__name__)

FPS = 25
SAMPLE_RATE = 16000
SAMPLES_PER_FRAME = SAMPLE_RATE // FPS

FORMATS = (
    "mov,mp4,m4a,3gp,mj2,matroska,webm,avi,mpeg,mpegts,mpegvideo,m4v,flv,asf,ogg,mxf,nut,dv,rm,"
    "h264,hevc,ivf,yuv4mpegpipe,wav,w64,flac,mp3,aac,ac3,aiff,au,caf,amr"
)
"""Permitted demuxers, without playlists, which would open other files, and
without those that take pictures or plain text for video."""
BEGINNINGS = (b"RIFF", b"\x1aE\xdf\xa3", b"OggS", b"fLaC", b"\0\0\x01\xba", b"\0\0\x01\xb3")
"""First bytes of containers other than mp4."""
LONGEST_GAP_S = 60.0
"""Seconds; timestamps that jump further ahead count as broken, and the stream just goes on."""
LONGEST_REPEAT_S = 1.0
"""The same for timestamps that jump back."""
SLOWEST, FASTEST = 1.0, 1000.0
"""Higher frame rates are not rates but clocks."""
MOST_OBLONG = 4.0
"""No recording has pixels that are more than this many times longer than wide."""
MAX_PIXELS = 8192 * 4352
"""Most pixels of a picture: 8K in whole macroblocks. A header that claims more would cost
gigabytes."""
AUDIO_RATES = (4000, 768_000)
"""Samples per second that a sound may claim; a second of it at 1 Hz would become hours."""
MAX_CHANNELS = 64
"""Most channels, which is the resampler's limit."""
DECODERS_OF_ALPHA = {"vp8": "libvpx", "vp9": "libvpx-vp9"}
"""Decoders that read transparency, which FFmpeg's own decoders leave out."""
TAGS_OF_LENGTHS = "_STATISTICS_WRITING_APP"
"""A tag of mkvmerge's, which writes lengths of streams where FFmpeg writes their ends."""
BROKEN = (av.FFmpegError, OSError, ValueError)
"""What PyAV raises on damaged files: some of its errors are neither of the last two."""


@contextmanager
def open_container(path: Path) -> Iterator[InputContainer]:
    """Open a container for reading. Only this file is touched.

    Raises:
        SourceError: EMPTY_FILE, NOT_MEDIA or UNREADABLE.
    """
    if not path.is_file():
        raise SourceError(Reason.UNREADABLE, "not a regular file")
    if path.stat().st_size == 0:
        raise SourceError(Reason.EMPTY_FILE, "0 bytes")
    # The last one is for the decoders, since opening already decodes a little.
    options = {
        "format_whitelist": FORMATS,
        "protocol_whitelist": "file",
        "max_pixels": str(MAX_PIXELS),
    }
    try:
        # An absolute path, since `name:rest.mp4` would be taken for a protocol.
        container = av.open(str(path.absolute()), options=options, metadata_errors="replace")
    except BROKEN as error:
        raise _why_not_opened(path, error) from error
    with container:
        yield container


def _why_not_opened(path: Path, error: Exception) -> SourceError:
    """The error that distinguishes damaged media from other files."""
    try:
        with path.open("rb") as file:
            head = file.read(12)
    except OSError as denied:
        return SourceError(Reason.UNREADABLE, problem_text(denied))
    if head[4:8] == b"ftyp" or head.startswith(BEGINNINGS):
        return SourceError(Reason.UNREADABLE, f"the container is damaged: {problem_text(error)}")
    return SourceError(Reason.NOT_MEDIA, f"no video or audio format, begins with {head[:8]!r}")


def problem_text(error: BaseException) -> str:
    """An exception's text for a column of a table."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(text.split())[:200]


def video_stream(container: InputContainer, threads: int = 0) -> Any:
    """The first video stream that is not a cover picture, ready to be decoded.

    Args:
        threads: threads of the decoder; 0 uses all cores.

    Raises:
        SourceError: NO_VIDEO, or UNREADABLE if nothing decodes its codec.
    """
    for stream in container.streams.video:
        if not stream.disposition & av.stream.Disposition.attached_pic:
            context = stream.codec_context
            if context is None:
                raise SourceError(Reason.UNREADABLE, "no decoder for the video's codec")
            if context.width * context.height > MAX_PIXELS:
                size = f"{context.width}x{context.height}"
                raise SourceError(Reason.UNREADABLE, f"pictures of {size} pixels are claimed")
            context.options = {"max_pixels": str(MAX_PIXELS)}
            stream.thread_type = "AUTO"
            stream.codec_context.thread_count = threads
            return stream
    if not container.streams:
        raise SourceError(Reason.NOT_MEDIA, "no stream")
    kinds = {
        stream.type: "a cover picture" if stream.type == "video" else stream.type
        for stream in container.streams
    }
    raise SourceError(Reason.NO_VIDEO, f"no video stream, only {', '.join(kinds.values())}")


def is_sound(rate: int, channels: int) -> bool:
    """Whether a recording can have this size; 0 means unknown before decoding."""
    low, high = AUDIO_RATES
    return (not rate or low <= rate <= high) and channels <= MAX_CHANNELS


def decode(container: InputContainer, stream: Any, first_pts: int | None = None) -> Iterator[Any]:
    """Frames of a stream in order of presentation, as far as they can be decoded.

    Damaged parts are left out and logged.

    Args:
        first_pts: frames before the key frame of this time are also left out.
    """
    damaged = 0
    problem = ""
    other = _decoder_of_alpha(stream)
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
        except BROKEN as error:
            problem = problem_text(error)
            packet = None
        if packet is None:
            break
        if first_pts is not None:
            if not packet.is_keyframe or packet.pts != first_pts:
                continue
            first_pts = None
        try:
            frames = packet.decode() if other is None else _by(other, packet)
        except BROKEN:
            damaged += 1
            continue
        yield from frames
    if problem:
        yield from _kept_back(stream)
    if problem or damaged:
        log.warning(
            "%s is damaged: %d packets of its %s cannot be decoded%s",
            Path(container.name or "a file").name,
            damaged,
            stream.type,
            f", and it ends early ({problem})" if problem else "",
        )


def _decoder_of_alpha(stream: Any) -> Any:
    """A decoder that also reads transparency, if FFmpeg's own does not; None otherwise."""
    # The tag may be in capitals, in files that were copied from one container to another.
    marks = {name.lower(): value for name, value in stream.metadata.items()}
    if stream.type != "video" or marks.get(ALPHA_MODE) != "1":
        return None
    own = stream.codec_context
    if own is None or own.name not in DECODERS_OF_ALPHA:
        return None
    other: Any = av.CodecContext.create(DECODERS_OF_ALPHA[own.name], "r")
    if own.extradata:
        other.extradata = own.extradata
    other.options = {"max_pixels": str(MAX_PIXELS)}
    other.thread_count = own.thread_count
    return other


def _by(decoder: Any, packet: Any) -> list[Any]:
    return list(decoder.decode(packet if packet.size else None))


def _kept_back(stream: Any) -> list[Any]:
    """The frames that the decoder still holds at the end."""
    try:
        return list(stream.decode(None))
    except BROKEN:
        return []


def with_times(frames: Iterator[Any], rate: float) -> Iterator[tuple[float, Any]]:
    """(container time, frame) with times that strictly increase.

    MPEG streams and old AVI files may lack timestamps: such a frame follows the previous one
    by 1 / `rate`, and so it does where timestamps jump.
    """
    last: float | None = None
    shift = 0.0
    dropped = 0
    for frame in frames:
        if frame.time is None:
            time = 0.0 if last is None else last + 1 / rate
        else:
            time = frame.time + shift
        if last is not None:
            if not last - LONGEST_REPEAT_S <= time <= last + LONGEST_GAP_S:
                shift += last + 1 / rate - time
                time = last + 1 / rate
            elif time <= last:
                dropped += 1
                continue
        last = time
        yield time, frame
    if dropped:
        log.warning("%d frames without a time of their own are left out", dropped)


def frame_rate(stream: Any) -> float:
    """Average frames per second; 25 if the container does not say."""
    for rate in (stream.average_rate, stream.guessed_rate, stream.base_rate):
        if rate and SLOWEST <= rate <= FASTEST:
            return float(rate)
    return float(FPS)


def pixel_shape(stream: Any) -> float:
    """Width of a pixel over its height, as the container says; nonsense counts as 1."""
    ratio = float(stream.sample_aspect_ratio or 1)
    return ratio if 1 / MOST_OBLONG <= ratio <= MOST_OBLONG else 1.0


def first_of(frames: Iterator[tuple[float, Any]]) -> tuple[float, Any]:
    """Container time of the first video frame, and the frame.

    Raises:
        SourceError: UNREADABLE if there is no frame.
    """
    first = next(frames, None)
    if first is None:
        raise SourceError(Reason.UNREADABLE, "no frame of the video can be decoded")
    return first


def first_frame(container: InputContainer) -> tuple[float, Any]:
    """`first_of` the container's video stream."""
    stream = video_stream(container)
    return first_of(with_times(decode(container, stream), frame_rate(stream)))


def video_zero(path: Path) -> float | None:
    """Container time of the first video frame; None for a file with only sound."""
    with open_container(path) as container:
        try:
            return first_frame(container)[0]
        except SourceError:
            return None


def promised_s(stream: Any) -> float:
    """Seconds from the beginning of a video stream to its end according to the container; 0
    if it does not say."""
    if stream.container.format.name == "avi" and stream.frames:
        # Without an index, the length is estimated from the bytes that exist.
        return stream.frames / frame_rate(stream)
    if stream.duration:
        return float(stream.duration * stream.time_base)
    # Matroska's own length is that of the longest stream, and sound may be far longer.
    hours, _, rest = stream.metadata.get("DURATION", "").partition(":")
    minutes, _, seconds = rest.partition(":")
    try:
        said = 3600 * float(hours) + 60 * float(minutes) + float(seconds)
    except ValueError:
        return 0.0
    if TAGS_OF_LENGTHS in stream.metadata:
        return said
    # The moment on the container's clock at which the stream ends, which may begin late.
    return max(0.0, said - start_s(stream))


def start_s(stream: Any) -> float:
    """Container time at which a stream begins, as the container says."""
    return float((stream.start_time or 0) * stream.time_base)
