"""HDTF as its authors publish it: text lists of videos, intervals and crops.

For each of the subsets RD, WDA and WRA there are five files, joined by name: video
URLs, annotated intervals, the height that the crops were measured at, square crops in
pixels, and crop ratios for a second cropping method. Intervals without a crop cannot be
used and are counted, not lost. (Zhang et al., Flow-guided One-shot Talking Face
Generation with a High-resolution Audio-visual Dataset, CVPR 2021.)
"""

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar
from urllib.parse import parse_qs, urlparse

from datasets.errors import UserError
from datasets.sources.items import Region
from datasets.sources.locations import exists, join, read_text

Value = TypeVar("Value")

SUBSETS = ("RD", "WDA", "WRA")
UNSTATED_HEIGHT = 720
"""Used if the list of heights has a 0 (once, KevinMcCarthy1): the crops there are centred at
x = 645 and 651, near half the width of a 1280x720 picture."""


@dataclass(frozen=True)
class HdtfClip:
    """One annotated interval of one video."""

    subset: str
    name: str
    index: int
    """0-based index of the interval in its video."""
    url: str
    video_id: str
    start_s: float
    end_s: float
    crop: Region | None
    """Square, in pixels of the picture height at which it was measured."""
    crop_ratio: float | None

    @property
    def key(self) -> str:
        """Common name of the clip, e.g. `WDA_DebbieDingell1_000`."""
        return f"{self.subset}_{self.name}_{self.index:03d}"


def read_hdtf(folder: Path | str) -> list[HdtfClip]:
    """All annotated intervals of the subsets whose lists are in `folder` (or at an address).

    Raises:
        UserError: there is no list, or a line cannot be read.
    """
    subsets = [name for name in SUBSETS if exists(_list(folder, name, "video_url"))]
    if not subsets:
        raise UserError(
            f"there is no HDTF list in {folder}: expected files such as RD_video_url.txt and "
            "RD_annotion_time.txt; download the lists of the data set into that folder"
        )
    return [clip for subset in subsets for clip in _read_subset(folder, subset)]


def video_urls(folder: Path | str) -> dict[tuple[str, str], str]:
    """URL of every listed video by (subset, name), annotated or not."""
    return {
        (subset, name): url
        for subset in SUBSETS
        if exists(_list(folder, subset, "video_url"))
        for name, url in _rows(_list(folder, subset, "video_url"), _url)
    }


def youtube_id(url: str) -> str:
    """The video id in a `watch?v=` URL.

    Raises:
        ValueError: the URL has no video id.
    """
    ids = parse_qs(urlparse(url).query).get("v", [])
    if not ids:
        raise ValueError(f"no video id in {url!r}")
    return ids[0]


def _read_subset(folder: Path | str, subset: str) -> list[HdtfClip]:
    def table(kind: str, parse: Callable[[list[str]], Value]) -> dict[str, Value]:
        return dict(_rows(_list(folder, subset, kind), parse))

    urls = table("video_url", _url)
    heights = table("resolution", lambda fields: int(fields[0]))
    crops = table("crop_wh", _square)
    ratios = table("crop_ratio", lambda fields: float(fields[0]))
    clips: list[HdtfClip] = []
    for name, intervals in table("annotion_time", _intervals).items():
        if name not in urls:
            raise UserError(f"{subset}_annotion_time.txt names {name}, which has no URL")
        for index, (start_s, end_s) in enumerate(intervals):
            crop = crops.get(f"{name}_{index}")
            if crop:
                crop = replace(crop, height=heights.get(name, 0) or UNSTATED_HEIGHT)
            clips.append(
                HdtfClip(
                    subset=subset,
                    name=name,
                    index=index,
                    url=urls[name],
                    video_id=youtube_id(urls[name]),
                    start_s=start_s,
                    end_s=end_s,
                    crop=crop,
                    crop_ratio=ratios.get(f"{name}_{index}"),
                )
            )
    return clips


def _list(folder: Path | str, subset: str, kind: str) -> str:
    return join(os.fspath(folder), f"{subset}_{kind}.txt")


def _rows(location: str, parse: Callable[[list[str]], Value]) -> list[tuple[str, Value]]:
    """(name without suffix, parsed other fields) of every line that is not blank."""
    # One of the lists begins with a byte order mark; others have lines that end in spaces.
    text = read_text(location, missing=": HDTF's lists come as five files for each subset")
    rows = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        name, *fields = line.split()
        try:
            rows.append((name.removesuffix(".mp4"), parse(fields)))
        except (ValueError, IndexError) as error:
            raise UserError(f"line {number} of {location} is {line!r}: {error}") from error
    return rows


def _url(fields: list[str]) -> str:
    youtube_id(fields[0])
    return fields[0]


def _square(fields: list[str]) -> Region:
    # The list's order is min_x, width, min_y, height.
    x, width, y, height = (int(value) for value in fields)
    return Region(x, y, x + width, y + height, UNSTATED_HEIGHT)


def _intervals(fields: list[str]) -> list[tuple[float, float]]:
    found = []
    for field in fields:
        start_s, end_s = (_seconds(clock) for clock in field.split("-"))
        if end_s <= start_s:
            raise ValueError(f"{field} ends before it begins")
        found.append((start_s, end_s))
    return found


def _seconds(clock: str) -> float:
    minutes, seconds = clock.split(":")
    return int(minutes) * 60.0 + float(seconds)
