"""Which videos get whose speech, for LSE: the field's tables name pairs of a video and a sound."""

from dataclasses import dataclass
from pathlib import Path

from datasets.errors import UserError

SUFFIXES = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg")
COLUMNS = 2


@dataclass(frozen=True)
class Pair:
    """A video, and the file whose sound it gets."""

    name: str
    """Unique, and fit for a file name."""
    speaker: str
    video: Path
    audio: Path


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
