"""HDTF as a source: one item per video, one part per annotated interval.

The lists name videos, not people. A speaker here is a name without its trailing digits, so
`JohnKasich0` to `JohnKasich3` are one, in whichever subset; names that share a video are one
as well (as `WhipJimClyburn` and `JamesClyburn1` do). RD's videos are called `Radio1` to `Radio59`
and nothing says which of them show the same person, so all are one speaker. That may put two
people under one name, but it never puts one person into both training and testing.
"""

import re
from pathlib import Path

from datasets.errors import Reason
from datasets.sources.hdtf_lists import HdtfClip, read_hdtf, video_urls, youtube_id
from datasets.sources.items import How, Part, SourceItem

WATCH = "https://www.youtube.com/watch?v="


def list_hdtf(folder: Path | str) -> list[SourceItem]:
    """Every listed video, sorted by key, whether or not any part of it can be used.

    Keys are `WDA_DebbieDingell1`; with an underscore and a part's name they are the names that
    clips commonly have. Videos without an interval, and intervals without a crop, carry
    `Reason.NOT_ANNOTATED`.

    Raises:
        UserError: there is no list, or a line cannot be read.
    """
    clips: dict[tuple[str, str], list[HdtfClip]] = {}
    for clip in read_hdtf(folder):
        clips.setdefault((clip.subset, clip.name), []).append(clip)
    urls = video_urls(folder)
    people = _people(urls)
    return [
        _item(f"{subset}_{name}", url, people[subset, name], clips.get((subset, name), []))
        for (subset, name), url in sorted(urls.items())
    ]


def _item(key: str, url: str, speaker: str, clips: list[HdtfClip]) -> SourceItem:
    parts = tuple(_part(clip) for clip in clips)
    return SourceItem(
        key=key,
        # Addresses may have start times, which would make one video look like two.
        location=WATCH + youtube_id(url),
        relative=key,
        speaker=speaker,
        how=How.PAGE,
        parts=parts,
        expected_seconds=sum(part.end_s - part.start_s for part in parts if not part.reason),
        reason=Reason.NONE if parts else Reason.NOT_ANNOTATED,
        detail="" if parts else "the lists give no interval",
    )


def _part(clip: HdtfClip) -> Part:
    missing = clip.crop is None
    return Part(
        name=f"{clip.index:03d}",
        start_s=clip.start_s,
        end_s=clip.end_s,
        region=clip.crop,
        reason=Reason.NOT_ANNOTATED if missing else Reason.NONE,
        detail="the lists give no crop" if missing else "",
    )


def _people(urls: dict[tuple[str, str], str]) -> dict[tuple[str, str], str]:
    """The speaker of every (subset, name)."""
    base = {video: re.sub(r"\d+$", "", video[1]) for video in urls}
    same = {name: name for name in base.values()}

    def first(name: str) -> str:
        while same[name] != name:
            name = same[name]
        return name

    shown_in: dict[str, str] = {}
    for video, url in sorted(urls.items()):
        other = shown_in.setdefault(youtube_id(url), base[video])
        low, high = sorted((first(other), first(base[video])))
        same[high] = low
    return {video: first(name) for video, name in base.items()}
