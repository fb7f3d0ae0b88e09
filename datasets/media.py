"""Video and audio files, read and written by timestamps.

Everything after ingestion is 25 frames and 16000 samples per second. Time zero of a source
is its first video frame: containers often start audio and video at different times, and
only a common zero keeps them in sync. Reading streams; a video is never in memory whole.
"""

from datasets._media_audio import (
    AudioWindow,
    fitted,
    flac_bytes,
    loud_frames,
    read_audio,
    write_flac,
)
from datasets._media_open import FPS, SAMPLE_RATE, SAMPLES_PER_FRAME, MediaInfo, probe
from datasets._media_video import Frame, read_frames, to_rgb
from datasets._media_write import VideoWriter
from datasets.picture import Picture

__all__ = [
    "FPS",
    "SAMPLES_PER_FRAME",
    "SAMPLE_RATE",
    "AudioWindow",
    "Frame",
    "MediaInfo",
    "Picture",
    "VideoWriter",
    "fitted",
    "flac_bytes",
    "loud_frames",
    "probe",
    "read_audio",
    "read_frames",
    "to_rgb",
    "write_flac",
]
