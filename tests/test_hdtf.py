"""HDTF's lists: every trap of the real files, and the counts that must come out."""

from collections import Counter
from pathlib import Path

import pytest

from datasets.errors import UserError
from datasets.hdtf import Crop, read_hdtf, video_urls, youtube_id


def test_counts_of_the_real_lists(shared: Path) -> None:
    clips = read_hdtf(shared / "hdtf")
    urls = video_urls(shared / "hdtf")
    assert len(urls) == 370
    assert Counter(subset for subset, _ in urls) == {"RD": 57, "WDA": 183, "WRA": 130}
    assert len({youtube_id(url) for url in urls.values()}) == 369
    assert len(clips) == 436
    cropped = [clip for clip in clips if clip.crop]
    assert len(cropped) == 421
    assert len({(clip.subset, clip.name) for clip in cropped}) == 356
    hours = sum(clip.end_s - clip.start_s for clip in cropped) / 3600
    assert hours == pytest.approx(16.35, abs=0.005)
    assert Counter(clip.subset for clip in cropped) == {"RD": 64, "WDA": 189, "WRA": 168}


def test_traps_of_the_real_lists(shared: Path) -> None:
    clips = read_hdtf(shared / "hdtf")
    names = {clip.name for clip in clips}
    assert "CarolynMaloney2" in names  # behind a byte order mark
    assert "Radio24" not in names  # has no interval
    too_high = {
        f"{clip.name}_{clip.index}"
        for clip in clips
        if clip.crop
        and clip.crop.measured_at
        and clip.crop.y + clip.crop.height > clip.crop.measured_at
    }
    assert too_high == {"MaggieHassan_0", "MazieHirono1_0", "PeterKing_0"}
    assert len({clip.key for clip in clips}) == len(clips)


def test_intervals_and_crops(tmp_path: Path) -> None:
    files = {
        "url": "\ufeffA https://www.youtube.com/watch?v=abc&t=6s\n",
        "time": "A.mp4 00:05-01:30 02:00-02:10 \n",
        "resolution": "A.mp4 720\n",
        "wh": "A_0.mp4 100 400 20 400\n",
        "ratio": "A_0.mp4 1.2\n",
    }
    names = ("video_url", "annotion_time", "resolution", "crop_wh", "crop_ratio")
    for name, text in zip(names, files.values(), strict=True):
        (tmp_path / f"RD_{name}.txt").write_text(text, encoding="utf-8")
    first, second = read_hdtf(tmp_path)
    assert (first.start_s, first.end_s, first.key) == (5.0, 90.0, "RD_A_000")
    assert first.crop == Crop(100, 20, 400, 400, 720)
    assert (first.video_id, first.crop_ratio) == ("abc", 1.2)
    assert second.crop is None
    assert second.crop_ratio is None


def test_crops_are_scaled_to_what_was_fetched() -> None:
    crop = Crop(100, 20, 400, 400, 720)
    assert crop.scaled_to(640, 360) == Crop(50, 10, 200, 200, 360)
    assert Crop(500, 300, 400, 500, 720).scaled_to(1280, 720) == Crop(500, 300, 400, 420, 720)
    with pytest.raises(ValueError, match="outside"):
        Crop(2000, 0, 10, 10, 720).scaled_to(1280, 720)


def test_a_folder_without_lists_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no HDTF list"):
        read_hdtf(tmp_path)


def test_a_url_without_an_id_is_said() -> None:
    with pytest.raises(ValueError, match="no video id"):
        youtube_id("https://www.youtube.com/playlist")
