"""What a container says about itself."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import av
from av.container import InputContainer

from datasets.errors import SourceError
from datasets.media.colour import Tags
from datasets.media.container import (
    first_frame,
    frame_rate,
    open_container,
    pixel_shape,
    promised_s,
    start_s,
    video_stream,
)
from datasets.media.form import Kind
from datasets.media.picture import size_of
from datasets.media.sound_choice import audio_stream


@dataclass(frozen=True)
class MediaInfo:
    """What a container says about itself, and the time of its first video frame."""

    path: Path
    duration_s: float
    """Length of the video from its first frame, seconds; 0 if the container does not say."""
    width: int
    """Pixels, after rotation and as square ones: as `read_frames` gives them."""
    height: int
    fps: float
    """Average frame rate."""
    video_codec: str
    start_s: float
    """Container time of the first video frame: zero of our timeline."""
    has_audio: bool
    audio_rate: int
    """Samples per second; 0 without audio."""
    audio_channels: int
    audio_codec: str
    """Empty without audio."""
    kind: Kind = field(default_factory=Kind)
    """Properties of the first picture."""


def probe(path: Path) -> MediaInfo:
    """Inspect a file, decoding only its first frame, and its sound if it has
    several streams of it.

    Raises:
        SourceError: EMPTY_FILE, NOT_MEDIA, NO_VIDEO or UNREADABLE.
    """
    with open_container(path) as container:
        stream = video_stream(container)
        tags = Tags.of(stream.codec_context)
        start, frame = first_frame(container)
        width, height = size_of(frame, pixel_shape(stream), tags)
        context = _sound(container)
        return MediaInfo(
            path=path,
            duration_s=_duration(container, stream, start),
            width=width,
            height=height,
            fps=frame_rate(stream),
            video_codec=stream.codec_context.name,
            start_s=start,
            has_audio=bool(container.streams.audio),
            audio_rate=context.sample_rate if context else 0,
            audio_channels=context.channels if context else 0,
            audio_codec=context.name if context else "",
            kind=Kind.of(frame, tags),
        )


def _duration(container: InputContainer, stream: Any, start: float) -> float:
    promised = promised_s(stream)
    if promised:
        # Some streams claim to begin before they have a picture.
        return max(0.0, promised - (start - start_s(stream)))
    if container.duration:
        first = (container.start_time or 0) / av.time_base
        return max(0.0, container.duration / av.time_base - (start - first))
    return 0.0


def _sound(container: InputContainer) -> Any:
    """Decoder of the sound that is heard; None if nothing decodes it or there is no sound."""
    try:
        return audio_stream(container).codec_context
    except SourceError:
        return None
