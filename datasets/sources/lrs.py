"""LRS2-BBC and LRS3-TED as sources, for those who hold them. Nothing is fetched.

Both need an agreement (LRS3 is no longer given out). Their clips are cut, face-centred and in sync:
`datasets.sources.lists.CUT` says so, and ingestion then neither looks for shots nor for offsets.

    LRS2  main/<broadcast>/<number>.mp4 and pretrain/...; lists train.txt, val.txt, test.txt and
          pretrain.txt beside them or above. A line's first word is <broadcast>/<number>.
    LRS3  pretrain|trainval|test/<YouTube id>/<number>.mp4; the folders are the split.

`val` counts as train, and test is exactly the official one. Speakers are not labelled: a folder is
a broadcast, or a video that nearly always shows one person. An LRS2 broadcast may be in several
lists, so its speakers carry the list's name.
"""

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from datasets.errors import Reason, UserError
from datasets.sources.items import SourceItem, local_item
from datasets.sources.locations import scheme, shown

LISTS = {"pretrain": "train", "train": "train", "val": "train", "test": "test"}
"""LRS2's lists, and the side of the split that each is on."""
HALVES = ("main", "pretrain")
"""LRS2's folders."""
FOLDERS = {"pretrain": "train", "trainval": "train", "test": "test"}
"""LRS3's folders likewise."""
LINE = re.compile(r"[0-9A-Za-z_-]+/\d+")


def list_lrs2(folder: Path | str) -> list[SourceItem]:
    """The clips that LRS2's lists name, sorted by key; one whose file is missing says so.

    Raises:
        UserError: there is no list, a line is not one, or a clip is in two lists.
    """
    root = _local(folder, "LRS2")
    places = (root, *sorted(root.glob("*")))
    videos = next((each for each in places if any((each / name).is_dir() for name in HALVES)), None)
    listed = [(name, path) for name in LISTS if (path := _list(root, videos, name)) is not None]
    if videos is None or not listed:
        raise UserError(
            f"there is nothing of LRS2 in {root}: expected main/<broadcast>/<number>.mp4 and at "
            f"least one of {', '.join(f'{name}.txt' for name in LISTS)}"
        )
    found: dict[str, tuple[str, SourceItem]] = {}
    for name, path in listed:
        below = "pretrain" if name == "pretrain" else "main"
        for line, clip in _lines(path):
            key = f"{below}/{clip}"
            speaker = f"lrs2/{name}/{clip.partition('/')[0]}"
            item = _item(videos / f"{key}.mp4", f"{key}.mp4", speaker, LISTS[name])
            other = found.setdefault(key, (name, item))[0]
            if other != name:
                raise UserError(
                    f"line {line} of {path} names {clip}, which {other}.txt has too: a clip is on "
                    "one side of the split, so leave one of the two lists out"
                )
    return [found[key][1] for key in sorted(found)]


def list_lrs3(folder: Path | str) -> list[SourceItem]:
    """Every clip below LRS3's folders, sorted by key.

    Raises:
        UserError: none of these folders has a clip.
    """
    root = _local(folder, "LRS3")
    items = []
    for name, split in FOLDERS.items():
        for path in sorted((root / name).glob("*/*.mp4")):
            if not path.name.startswith("."):
                speaker = f"lrs3/{path.parent.name}"
                items.append(_item(path, path.relative_to(root).as_posix(), speaker, split))
    if not items:
        raise UserError(
            f"there is nothing of LRS3 in {root}: expected pretrain/<id>/<number>.mp4, "
            "trainval/... or test/..."
        )
    return sorted(items, key=lambda item: item.key)


def _local(folder: Path | str, name: str) -> Path:
    if scheme(str(folder)):
        raise UserError(
            f"{shown(str(folder))} is an address: {name} is only read from a folder of this machine"
        )
    root = Path(folder).absolute()
    if not root.is_dir():
        raise UserError(f"there is no folder {root}: choose the one that holds {name}")
    return root


def _list(root: Path, videos: Path | None, name: str) -> Path | None:
    places = [place / f"{name}.txt" for place in (root, videos) if place is not None]
    return next((place for place in places if place.is_file()), None)


def _texts(path: Path) -> Iterator[tuple[int, str]]:
    """Lines of a small text that hold something, with their numbers."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read: {error}") from error
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip():
            yield number, line.strip()


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Number and clip of each line of a list; further columns are left out."""
    for number, text in _texts(path):
        clip = text.split()[0]
        if not LINE.fullmatch(clip):
            raise UserError(
                f"line {number} of {path} begins with {clip!r}: expected <folder>/<number>"
            )
        yield number, clip


def _item(path: Path, relative: str, speaker: str, split: str) -> SourceItem:
    item = replace(local_item(path, relative, speaker), split=split)
    if not path.is_file():
        return replace(item, reason=Reason.UNAVAILABLE, detail="the list names it, no file has it")
    return item
