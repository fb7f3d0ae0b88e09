"""Which videos get whose speech, for LSE: the field's tables name pairs of a video and a sound.

The field's own lists for LRS2 and LRS3 name clips of the data by id, the sound first, and are under
the data's terms: whoever holds them gives them by `--pairs`, and none comes with this program.
"""

import re
from dataclasses import dataclass, replace
from pathlib import Path

from datasets.errors import SourceError, UserError
from datasets.media import probe

SUFFIXES = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg")
COLUMNS = 2
CLIP = re.compile(r"(?:[0-9A-Za-z_-]+/)+[0-9A-Za-z_-]+")
"""A clip's name in the field's lists, below the data's folder and without its suffix."""
BELOW = ("", "main", "test", "mvlrs_v1/main", "pretrain", "trainval", "mvlrs_v1/pretrain")
"""Where LRS2 and LRS3 have clips, those that the lists are made of first."""
EXPECTED = "expected an audio and a video id, each <folder>/<number>"
FRAME_S = 0.04


@dataclass(frozen=True)
class Pair:
    """A video, and the file whose sound it gets."""

    name: str
    """Unique, and fit for a file name."""
    speaker: str
    video: Path
    audio: Path
    reason: str = ""
    """Why it cannot be made; empty: it can."""


def read_pairs(source: Path, limit: int) -> list[Pair]:
    """The pairs of a list or of a folder.

    Args:
        source: a text file with a video and a sound in each line, relative to the file and
            separated by a tab or a space; or a folder, in which each video gets the sound of the
            next one of another speaker. A video's folder is its speaker.
        limit: most pairs, the first ones.

    Raises:
        UserError: there is nothing of the kind, or a file is missing.
    """
    if source.is_dir():
        found = _of_folder(source)
    elif source.is_file():
        found = _of_list(source)
    else:
        raise UserError(
            f"there is no {source}: --lse takes a folder of videos, or a text file with a video "
            "and a sound in each line"
        )
    if not found:
        raise UserError(f"{source} holds no videos ({', '.join(SUFFIXES)}): give another folder")
    return [
        Pair(f"{number:05d}-{video.stem}", video.parent.name, video, audio)
        for number, (video, audio) in enumerate(found[:limit])
    ]


def read_clip_pairs(path: Path, root: Path, limit: int) -> list[Pair]:
    """The pairs of a list of clips of LRS2 or LRS3, one for each line.

    Args:
        path: a line is `<audio id> <video id>`, such as `6331559613336179781/00018
            6330311066473698535/00011`; further columns are left out.
        root: the folder that holds the clips.
        limit: most lines, the first ones.

    Returns:
        A pair for each line; one that cannot be made says why.

    Raises:
        UserError: the list or the folder is not there, or no line of it can be made.
    """
    if not root.is_dir():
        raise UserError(
            f"there is no folder {root}: --pairs names clips below the folder that --lse gives"
        )
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        raise UserError(f"the list of pairs {path} cannot be read: {error}") from error
    texts = [(number, line) for number, line in enumerate(lines, 1) if line.strip()]
    if not texts:
        raise UserError(f"the list of pairs {path} is empty: give lines of an audio and a video id")
    found = [_clip_pair(number, line, root) for number, line in texts[:limit]]
    if all(each.reason for each in found):
        raise UserError(f"no line of {path} names a pair that can be made: {found[0].reason}")
    return found


def _clip_pair(number: int, line: str, root: Path) -> Pair:
    """The pair of a line."""
    where = f"line {number}"
    words = line.split()
    sound, video = (*words[:COLUMNS], "", "")[:COLUMNS]
    name = f"{number:05d}-{video.replace('/', '-')}" if CLIP.fullmatch(video) else f"{number:05d}"
    speaker = video.rpartition("/")[0]
    paths = [_clip(root, each) for each in (video, sound)]
    pair = Pair(name, speaker, paths[0] or root, paths[1] or root)
    if len(words) < COLUMNS:
        return replace(pair, reason=f"{where} has one name: {EXPECTED}")
    for text, path in zip((video, sound), paths, strict=True):
        if not CLIP.fullmatch(text):
            return replace(pair, reason=f"{where} has {text!r}: {EXPECTED}")
        if path is None:
            return replace(pair, reason=f"{where} names {text}, which is not below {root}")
    try:
        seen, heard = (probe(path).duration_s for path in (pair.video, pair.audio))
    except SourceError as error:
        return replace(pair, reason=f"{where} names a clip that cannot be read: {error}")
    if heard - seen > FRAME_S / 2:
        return replace(
            pair,
            reason=f"{where}: the video {video} ({seen:.2f} s) is shorter than the audio {sound} "
            f"({heard:.2f} s)",
        )
    return pair


def _clip(root: Path, name: str) -> Path | None:
    """The file of a clip."""
    if not CLIP.fullmatch(name):
        return None
    places = (root / below / f"{name}.mp4" for below in BELOW)
    return next((place for place in places if place.is_file()), None)


def _of_folder(folder: Path) -> list[tuple[Path, Path]]:
    videos = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    pairs = []
    for index, video in enumerate(videos):
        others = videos[index + 1 :] + videos[:index]
        foreign = [each for each in others if each.parent != video.parent]
        pairs.append((video, (foreign or others or [video])[0]))
    return pairs


def _of_list(path: Path) -> list[tuple[Path, Path]]:
    pairs = []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise UserError(f"the list {path} cannot be read: {error}") from error
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        names = line.split("\t") if "\t" in line else line.split()
        if len(names) != COLUMNS:
            raise UserError(
                f"line {number} of {path} has {len(names)} names: give a video and a sound, "
                "separated by a tab"
            )
        video, audio = (path.parent / name.strip() for name in names)
        for each in (video, audio):
            if not each.is_file():
                raise UserError(f"line {number} of {path} names {each}, which is not there")
        pairs.append((video, audio))
    return pairs
