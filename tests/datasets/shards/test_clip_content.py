"""Parts of a clip: the same as in the whole clip, and cheaper."""

import io
from pathlib import Path

import av
import numpy as np
import pytest

from datasets.errors import UserError
from datasets.media import VideoWriter
from datasets.media.video import to_rgb
from datasets.shards.clip_content import ClipContent
from datasets.shards.clip_index import Clip
from datasets.shards.clips import ClipStore
from tests.support.talking_boxes import make_dataset, talking_box

FRAMES = 83


def encoded(**options: object) -> bytes:
    """A clip of 83 frames with grain, 64 pixels wide."""
    face, _, _ = talking_box(3, FRAMES)
    rng = np.random.default_rng(0)
    noisy = np.clip(face + rng.normal(0, 6, face.shape), 0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    with VideoWriter(buffer, 64, 64, 25, crf=15, preset="superfast", **options) as writer:  # type: ignore[arg-type]
        for frame in noisy:
            writer.write(frame)
    return buffer.getvalue()


def content(video: bytes, side: int = 64, frames: int = FRAMES) -> ClipContent:
    clip = Clip("a", "s", "train", frames, "a.mp4", 64)
    return ClipContent(clip, lambda extension: video, side, "the dataset")


KINDS = [{}, {"seek_frames": 25, "cheap_to_read": True}, {"seek_frames": 1}]


@pytest.mark.parametrize("options", KINDS, ids=["one chain", "as ingested", "only key frames"])
def test_some_frames_are_those_of_the_whole_clip(options: dict[str, object]) -> None:
    video = encoded(**options)
    with av.open(io.BytesIO(video), "r") as container:
        whole = np.stack([to_rgb(frame) for frame in container.decode(video=0)])
    clip = content(video)
    assert np.array_equal(clip.frames(), whole)
    rng = np.random.default_rng(1)
    for count in (1, 16, 40, 200):
        wanted = rng.integers(0, FRAMES, count)
        assert np.array_equal(clip.frames(wanted), whole[wanted])
        assert np.array_equal(clip.frames(wanted, lower=True), whole[wanted, 32:])
    for start in (0, 24, 25, FRAMES - 16):
        window = np.arange(start, start + 16)
        assert np.array_equal(clip.frames(window), whole[window])
    assert clip.frames(np.array([], int)).shape == (0, 64, 64, 3)


def test_scaled_frames_are_those_of_the_whole_clip_scaled() -> None:
    video = encoded()
    half = content(video, side=32)
    # Each pixel is the mean of four, of the whole picture.
    whole = content(video).frames().astype(float)
    means = whole.reshape(len(whole), 32, 2, 32, 2, 3).mean(axis=(2, 4))
    assert np.abs(half.frames() - means).max() <= 0.5
    wanted = np.array([70, 3, 3])
    assert np.array_equal(half.frames(wanted), half.frames()[wanted])
    assert np.array_equal(half.frames(wanted, lower=True), half.frames()[wanted, 16:])


def test_a_window_does_not_decode_what_is_before_its_key_frame(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    decoded: list[int] = []

    def counting(context: object, packets: list[object], needed: set[int]) -> object:
        decoded.append(len(packets))
        return real(context, packets, needed)

    from datasets.shards import clip_content

    real = clip_content._decoded
    monkeypatch.setattr(clip_content, "_decoded", counting)
    clip = content(encoded(seek_frames=25, cheap_to_read=True))
    clip.frames(np.arange(52, 60))
    assert sum(decoded) <= 25
    decoded.clear()
    clip.frames(np.array([2, 80]))
    assert sum(decoded) <= 50


def test_clips_as_ingested_have_a_key_frame_every_second_and_no_arithmetic_coding() -> None:
    video = encoded(seek_frames=25, cheap_to_read=True)
    with av.open(io.BytesIO(video), "r") as container:
        stream = container.streams.video[0]
        keys = [packet.pts for packet in container.demux(stream) if packet.is_keyframe]
        assert stream.time_base is not None
        frame = 1 / (25 * stream.time_base)
    places = [int(pts / frame) for pts in sorted(pts for pts in keys if pts is not None)]
    assert places[0] == 0
    assert np.diff([*places, FRAMES]).max() <= 25
    assert arithmetic(encoded())
    assert not arithmetic(encoded(cheap_to_read=True))
    plain = content(encoded()).frames().astype(int)
    ours = content(encoded(cheap_to_read=True)).frames().astype(int)
    assert np.abs(plain - ours).mean() < 1


def arithmetic(video: bytes) -> bool:
    """entropy_coding_mode_flag of the picture parameter set, after its two numbers, both zero."""
    with av.open(io.BytesIO(video), "r") as container:
        header = container.streams.video[0].codec_context.extradata
    assert header is not None
    length = int.from_bytes(header[6:8], "big")
    picture_set = header[8 + length + 3 :]
    assert picture_set[0] & 31 == 8
    assert picture_set[1] >> 6 == 3
    return bool(picture_set[1] & 32)


def test_numbers_outside_of_the_clip_and_other_lengths_are_refused() -> None:
    video = encoded()
    for wrong in ([FRAMES], [-1, 2]):
        with pytest.raises(IndexError):
            content(video).frames(np.array(wrong))
    for frames in (FRAMES - 1, FRAMES + 1):
        with pytest.raises(UserError, match=f"83 frames, but its record says {frames}"):
            content(video, frames=frames).frames(np.array([0]))
    with pytest.raises(UserError, match="clip a of the dataset cannot be decoded"):
        content(bytes(500)).frames()


def test_parts_of_sound_and_landmarks(tmp_path: Path) -> None:
    store = ClipStore(make_dataset(tmp_path / "d", frames=60), resolution=32)
    clip = store.content(store.clips[0].clip_id)
    sound, points = clip.audio(), clip.landmarks()
    assert sound.shape == (60 * 640,)
    assert points.shape == (60, 478, 2)
    assert points.max() <= 32
    for first, count in ((0, 16), (13, 7), (44, 16), (59, 1)):
        assert np.array_equal(clip.audio(first, count), sound[first * 640 :][: count * 640])
        assert np.array_equal(clip.landmarks(first, count), points[first : first + count])
    beyond = clip.audio(55, 10)
    assert len(beyond) == 10 * 640
    assert not beyond[5 * 640 :].any()
    assert np.array_equal(clip.audio(50), sound[50 * 640 :])


def test_a_store_that_keeps_clips_and_one_that_does_not_give_the_same(tmp_path: Path) -> None:
    folder = make_dataset(tmp_path / "d", frames=60)
    keeps, forgets = ClipStore(folder), ClipStore(folder, memory_bytes=1000)
    assert keeps.fits
    assert not forgets.fits
    wanted = np.array([50, 3, 4, 50])
    for clip in keeps.clips:
        for lower in (False, True):
            kept = keeps.content(clip.clip_id).frames(wanted, lower)
            assert np.array_equal(kept, forgets.content(clip.clip_id).frames(wanted, lower))
    assert not forgets._kept
