"""Video and audio files, read and written by timestamps.

Everything after ingestion is 25 frames and 16000 samples per second. Time zero of a source
is its first video frame: containers often start audio and video at different times, and
only a common zero keeps them in sync. Reading streams; a video is never in memory whole.
"""

from datasets.media.audio import read_audio, write_flac
from datasets.media.container import FPS, SAMPLE_RATE, SAMPLES_PER_FRAME
from datasets.media.info import MediaInfo, probe
from datasets.media.picture import Picture
from datasets.media.video import read_frames
from datasets.media.writer import VideoWriter

__all__ = [
    "FPS",
    "SAMPLES_PER_FRAME",
    "SAMPLE_RATE",
    "MediaInfo",
    "Picture",
    "VideoWriter",
    "probe",
    "read_audio",
    "read_frames",
    "write_flac",
]
