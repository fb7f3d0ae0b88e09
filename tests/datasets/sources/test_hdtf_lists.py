"""HDTF's lists: every trap of the real files, and the counts that must come out."""

from collections import Counter
from pathlib import Path

import fsspec
import pytest

from datasets.errors import UserError
from datasets.sources.hdtf_lists import read_hdtf, video_urls, youtube_id
from datasets.sources.items import Region


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
        if clip.crop and clip.crop.height and clip.crop.bottom > clip.crop.height
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
    assert first.crop == Region(100, 20, 500, 420, 720)
    assert (first.video_id, first.crop_ratio) == ("abc", 1.2)
    assert second.crop is None
    assert second.crop_ratio is None


def test_a_height_that_is_not_stated(shared: Path) -> None:
    crops = [clip.crop for clip in read_hdtf(shared / "hdtf") if clip.name == "KevinMcCarthy1"]
    assert [crop and crop.pixels(1280, 720) for crop in crops] == [
        (412, 0, 877, 465),
        (421, 14, 880, 473),
    ]


def test_lists_at_an_address() -> None:
    files = fsspec.filesystem("memory")
    files.pipe("/lists/RD_video_url.txt", b"A https://www.youtube.com/watch?v=abc\n")
    with pytest.raises(UserError, match=r"memory://lists/RD_resolution\.txt is missing"):
        read_hdtf("memory://lists")
    for kind, line in (
        ("resolution", b"A.mp4 720"),
        ("crop_wh", b""),
        ("crop_ratio", b""),
        ("annotion_time", b"A.mp4 00:05-00:10"),
    ):
        files.pipe(f"/lists/RD_{kind}.txt", line)
    assert [clip.key for clip in read_hdtf("memory://lists/")] == ["RD_A_000"]


def test_a_line_that_cannot_be_read_is_named() -> None:
    files = fsspec.filesystem("memory")
    files.pipe("/bad/WRA_video_url.txt", b"A https://www.youtube.com/watch?v=abc\n\nB nowhere\n")
    with pytest.raises(UserError, match=r"line 3 of .*WRA_video_url.txt is 'B nowhere'"):
        read_hdtf("memory://bad")


def test_a_folder_without_lists_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no HDTF list"):
        read_hdtf(tmp_path)


def test_a_url_without_an_id_is_said() -> None:
    with pytest.raises(ValueError, match="no video id"):
        youtube_id("https://www.youtube.com/playlist")
