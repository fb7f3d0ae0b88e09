"""VoxCeleb2 as a source: clips as files, clips in zip archives, or boxes of YouTube videos.

The files decide: clips (`dev|test/mp4/idXXXXX/VIDEO/00001.mp4`, unpacked or in archives
such as `vox2_mp4_partaa`...) come first; a folder without clips may hold box files
(`txt/idXXXXX/VIDEO/00001.txt`), and then each YouTube video is an item with one part per file.

The official split is kept: dev is for training, test for testing. It is read from the path,
otherwise from the archive's name, otherwise from `vox2_meta.csv`.
"""

import os
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from datasets.errors import Reason, UserError
from datasets.progress import Progress
from datasets.sources.items import How, Member, Part, Region, SourceItem
from datasets.sources.locations import HTTP, exists, file_system, join, scheme, shown
from datasets.sources.voxceleb2_layout import BoxTrack, Speaker, parse_boxes, parse_speakers
from datasets.sources.zip_parts import archives, list_members, parts_of

WATCH = "https://www.youtube.com/watch?v="
SPLITS = {"dev": "train", "test": "test"}
CLIP = re.compile(
    r"(?:.*?/)??(?:(?P<split>dev|test)/)?(?P<kind>mp4|aac|m4a)/(?P<speaker>id\d+)/"
    r"(?P<video>[^/]+)/(?P<number>\d+)\.(?P<suffix>mp4|m4a)"
)
BOXES = re.compile(
    r"(?:.*?/)??(?:(?P<split>dev|test)/)?(?:txt/)?(?P<speaker>id\d+)/(?P<video>[^/]+)/"
    r"(?P<number>\d+)\.txt"
)
ARCHIVE = re.compile(r"\.zip$|[._-]part(aa|0*1|0)$|\.zip\.0*1$")
MARGIN = 0.4
"""How far a region reaches beyond the faces on each side, in widths and heights of a face: what
the authors' own pipeline cuts around a face (`crop_scale` of SyncNet's run_pipeline.py)."""


def list_voxceleb2(folder: Path | str, progress: Progress | None = None) -> list[SourceItem]:
    """Every clip, or every video of the box files, sorted by key.

    Args:
        folder: path or address of a folder, or of one archive (or its first part), which may
            be on a web server.
        progress: called while box files are read.

    Raises:
        UserError: no part of the data set is there, an archive is incomplete, or a speaker is
            in both halves of the official split.
    """
    root = os.fspath(folder)
    # Local paths become absolute, since workers may have another working folder.
    root = root if scheme(root) else os.path.abspath(root)
    if ARCHIVE.search(root) and exists(root):
        parts = parts_of(root)
        folder_of_parts = parts[0].rpartition("/")[0]
        names = {part.rpartition("/")[2]: 0 for part in parts}
        return _unique(_members(folder_of_parts, names))
    files, base = file_system(root)
    base = base.rstrip("/")
    if scheme(root) in HTTP or not files.isdir(base):
        raise UserError(
            f"{shown(root)} is neither a folder nor an archive: give VoxCeleb2's folder "
            "or the first part of an archive"
        )
    sizes = {
        path.removeprefix(base).lstrip("/"): int(info.get("size") or 0)
        for path, info in files.find(base, detail=True).items()
    }
    tables = sorted(name for name in sizes if re.fullmatch(r"(.*/)?vox2_meta[^/]*\.csv", name))
    speakers = parse_speakers(_read(files, base, tables[0]), tables[0]) if tables else {}
    items = [*_clips(root, sizes), *_members(root, sizes)]
    if not items:
        items = list(_box_videos(files, base, sizes, progress))
    if not items:
        raise UserError(
            f"there is nothing of VoxCeleb2 in {shown(root)}: expected "
            "dev/mp4/idXXXXX/VIDEO/00001.mp4 (or test), the zip archives of these with all "
            "their parts, or txt/idXXXXX/VIDEO/00001.txt"
        )
    return _with_splits(_unique(items), speakers)


def _read(files: Any, base: str, name: str) -> str:
    data: bytes = files.cat_file(f"{base}/{name}")
    return data.decode("utf-8-sig", "replace")


def _clips(root: str, sizes: dict[str, int]) -> Iterator[SourceItem]:
    """Clip files, with their audio if that is in a separate file."""
    local = not scheme(root)
    found = {name: match for name in sizes if (match := CLIP.fullmatch(f"{root}/{name}"))}
    sounds = {_clip_key(match): name for name, match in found.items() if match["suffix"] == "m4a"}

    def item(name: str, match: re.Match[str], sound: SourceItem | None = None) -> SourceItem:
        return SourceItem(
            key=name,
            location=join(root, name),
            relative=name,
            speaker=match["speaker"],
            how=How.LOCAL if local else How.FILE,
            split=SPLITS.get(match["split"] or "", ""),
            expected_bytes=sizes[name],
            sound=sound,
        )

    for name, match in found.items():
        if match["suffix"] == "mp4":
            sound = sounds.get(_clip_key(match))
            yield item(name, match, item(sound, found[sound]) if sound else None)


def _clip_key(match: re.Match[str]) -> str:
    return f"{match['speaker']}/{match['video']}/{match['number']}"


def _members(root: str, sizes: dict[str, int]) -> list[SourceItem]:
    """Clips inside archives; their audio may be in another archive."""
    clips: list[SourceItem] = []
    sounds: dict[str, SourceItem] = {}
    odd: list[SourceItem] = []
    for parts in archives(sizes):
        locations = [join(root, part) for part in parts]
        named = re.search(r"(?:^|[_./-])(dev|test)(?=[_./-])", parts[0])
        for member in list_members(locations):
            if member.problem:
                odd.append(_odd_member(parts[0], locations[0], member))
                continue
            match = CLIP.fullmatch(member.name)
            if match is None:
                continue
            split = match["split"] or (named[1] if named else "")
            place = f"{match['kind']}/{_clip_key(match)}.{match['suffix']}"
            key = f"{split}/{place}" if split else place
            item = SourceItem(
                key=key,
                location=locations[0],
                relative=key,
                speaker=match["speaker"],
                how=How.MEMBER,
                split=SPLITS.get(split, ""),
                expected_bytes=member.bytes,
                version=f"crc32:{member.crc32:08x}",
                member=member,
            )
            if match["suffix"] == "m4a":
                sounds[_clip_key(match)] = item
            else:
                clips.append(item)
    if not sounds:
        return clips + odd
    names = ("/".join(item.key.removesuffix(".mp4").split("/")[-3:]) for item in clips)
    with_sounds = [
        replace(item, sound=sounds[name]) if name in sounds else item
        for item, name in zip(clips, names, strict=True)
    ]
    return with_sounds + odd


def _odd_member(archive: str, location: str, member: Member) -> SourceItem:
    """A member that is lost, under a key that no clip has, since its name may be a clip's."""
    key = f"{archive}: {member.name.encode('unicode_escape').decode('ascii')}"
    return SourceItem(
        key,
        location,
        key,
        key,
        How.MEMBER,
        version=f"crc32:{member.crc32:08x}",
        member=member,
        reason=Reason.UNREADABLE,
        detail=member.problem,
    )


def _box_videos(
    files: Any, base: str, sizes: dict[str, int], progress: Progress | None
) -> Iterator[SourceItem]:
    """One item per speaker and YouTube video, one part per box file."""
    videos: dict[tuple[str, str, str], list[str]] = {}
    found = {name: match for name in sizes if (match := BOXES.fullmatch(f"{base}/{name}"))}
    for name, match in sorted(found.items()):
        place = (match["split"] or "", match["speaker"], match["video"])
        videos.setdefault(place, []).append(name)
    done = 0
    for (split, speaker, video), tracks in videos.items():
        parts = tuple(_part(_read(files, base, name), name) for name in tracks)
        done += len(tracks)
        if progress:
            progress(done, len(found))
        key = "/".join(filter(None, (split, "txt", speaker, video)))
        yield SourceItem(
            key=key,
            location=WATCH + video,
            relative=key,
            speaker=speaker,
            how=How.PAGE,
            split=SPLITS.get(split, ""),
            parts=parts,
            expected_seconds=sum(part.end_s - part.start_s for part in parts if not part.reason),
        )


def _part(text: str, name: str) -> Part:
    """A box file as a span and region; one that cannot be used says why."""
    stem = PurePosixPath(name).stem
    try:
        track = parse_boxes(text, name)
    except UserError as error:
        return Part(stem, 0.0, 0.0, reason=Reason.NOT_ANNOTATED, detail=str(error))
    region = face_region(track)
    span = (stem, track.start_s, track.end_s)
    if not track.fractional:
        text = "its boxes are pixels of a picture of unknown size, as VoxCeleb1's are"
        return Part(*span, reason=Reason.NOT_ANNOTATED, detail=text)
    if not (region.right > region.left and region.bottom > region.top):
        text = f"its boxes hold no part of the picture: {region}"
        return Part(*span, reason=Reason.NOT_ANNOTATED, detail=text)
    return Part(*span, region)


def face_region(track: BoxTrack) -> Region:
    """The region that holds the face in every frame of a track, with `MARGIN` around it; in
    fractions of the picture, cut at its edges."""
    boxes = track.boxes
    across = MARGIN * max(box.width for box in boxes)
    down = MARGIN * max(box.height for box in boxes)
    return Region(
        max(min(box.x for box in boxes) - across, 0.0),
        max(min(box.y for box in boxes) - down, 0.0),
        min(max(box.x + box.width for box in boxes) + across, 1.0),
        min(max(box.y + box.height for box in boxes) + down, 1.0),
    )


def _unique(items: list[SourceItem]) -> list[SourceItem]:
    """One item per key: of a clip that is both unpacked and in an archive, the unpacked one is
    used."""
    by_key: dict[str, SourceItem] = {}
    for item in items:
        by_key.setdefault(item.key, item)
    return [by_key[key] for key in sorted(by_key)]


def _with_splits(items: list[SourceItem], speakers: dict[str, Speaker]) -> list[SourceItem]:
    """Items whose path does not give their split get it from the table."""
    done = []
    for item in items:
        row = speakers.get(item.speaker)
        official = SPLITS.get(row.split, "") if row else ""
        if item.split and official and item.split != official:
            raise UserError(
                f"{item.relative} is below {item.split}, but vox2_meta.csv puts speaker "
                f"{item.speaker} into {official}: correct the folder or the table"
            )
        # Of a million clips only those that change are copied.
        done.append(item if item.split or not official else replace(item, split=official))
    return done
