"""HDTF as its authors publish it: text lists of videos, intervals and crops.

For each of the subsets RD, WDA and WRA there are five files, joined by name: video
URLs, annotated intervals, the height that the crops were measured at, square crops in
pixels, and crop ratios for a second cropping method. Intervals without a crop cannot be
used and are counted, not lost. (Zhang et al., Flow-guided One-shot Talking Face
Generation with a High-resolution Audio-visual Dataset, CVPR 2021.)
"""

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, urlparse

from datasets.errors import UserError

SUBSETS = ("RD", "WDA", "WRA")


@dataclass(frozen=True)
class Crop:
    """A square region, in pixels of a video `height` pixels high."""

    x: int
    y: int
    width: int
    height: int
    measured_at: int
    """Height of the video that the numbers belong to, pixels; 0 where the list has none."""

    def scaled_to(self, video_width: int, video_height: int) -> "Crop":
        """The same region in a video of another size, clipped to the picture.

        Raises:
            ValueError: when nothing of the region lies inside.
        """
        scale = video_height / self.measured_at if self.measured_at else 1.0
        left, top = max(round(self.x * scale), 0), max(round(self.y * scale), 0)
        right = min(round((self.x + self.width) * scale), video_width)
        bottom = min(round((self.y + self.height) * scale), video_height)
        if right <= left or bottom <= top:
            raise ValueError(f"crop {self} lies outside a {video_width}x{video_height} video")
        return Crop(left, top, right - left, bottom - top, video_height)


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
    crop: Crop | None
    crop_ratio: float | None

    @property
    def key(self) -> str:
        """Name of the clip as it is used in the wild, e.g. `WDA_DebbieDingell1_000`."""
        return f"{self.subset}_{self.name}_{self.index:03d}"


def read_hdtf(folder: Path) -> list[HdtfClip]:
    """All annotated intervals of the subsets whose lists are in `folder`.

    Raises:
        UserError: when no list is there, or a line cannot be read.
    """
    subsets = [name for name in SUBSETS if (folder / f"{name}_video_url.txt").is_file()]
    if not subsets:
        raise UserError(
            f"no HDTF list in {folder}: expected files such as RD_video_url.txt and "
            "RD_annotion_time.txt; download the lists of the data set into that folder"
        )
    return [clip for subset in subsets for clip in _read_subset(folder, subset)]


def video_urls(folder: Path) -> dict[tuple[str, str], str]:
    """URL of every listed video by (subset, name), annotated or not."""
    return {
        (subset, name): fields[0]
        for subset in SUBSETS
        if (folder / f"{subset}_video_url.txt").is_file()
        for name, fields in _rows(folder / f"{subset}_video_url.txt")
    }


def youtube_id(url: str) -> str:
    """The video id in a `watch?v=` URL.

    Raises:
        ValueError: when there is none.
    """
    ids = parse_qs(urlparse(url).query).get("v", [])
    if not ids:
        raise ValueError(f"no video id in {url!r}")
    return ids[0]


def _read_subset(folder: Path, subset: str) -> list[HdtfClip]:
    urls = {name: fields[0] for name, fields in _rows(folder / f"{subset}_video_url.txt")}
    heights = {n: int(f[0]) for n, f in _rows(folder / f"{subset}_resolution.txt")}
    crops = dict(_rows(folder / f"{subset}_crop_wh.txt"))
    ratios = {n: float(f[0]) for n, f in _rows(folder / f"{subset}_crop_ratio.txt")}
    clips: list[HdtfClip] = []
    for name, intervals in _rows(folder / f"{subset}_annotion_time.txt"):
        if name not in urls:
            raise UserError(f"{subset}_annotion_time.txt names {name}, which has no URL")
        for index, interval in enumerate(intervals):
            start, end = (_seconds(part) for part in interval.split("-"))
            part = f"{name}_{index}"
            crop = None
            if part in crops:
                # The list's order is min_x, width, min_y, height.
                x, width, y, height = (int(value) for value in crops[part])
                crop = Crop(x, y, width, height, heights.get(name, 0))
            clips.append(
                HdtfClip(
                    subset=subset,
                    name=name,
                    index=index,
                    url=urls[name],
                    video_id=youtube_id(urls[name]),
                    start_s=start,
                    end_s=end,
                    crop=crop,
                    crop_ratio=ratios.get(part),
                )
            )
    return clips


def _rows(path: Path) -> list[tuple[str, list[str]]]:
    """(name without suffix, other fields) of every line that is not blank."""
    if not path.is_file():
        raise UserError(f"{path} is missing: HDTF's lists come as five files for each subset")
    # One of the lists begins with a byte order mark; others have lines that end in spaces.
    lines = path.read_text(encoding="utf-8-sig").splitlines()
    split = [line.split() for line in lines if line.strip()]
    return [(fields[0].removesuffix(".mp4"), fields[1:]) for fields in split]


def _seconds(clock: str) -> float:
    minutes, seconds = clock.split(":")
    return int(minutes) * 60.0 + float(seconds)
