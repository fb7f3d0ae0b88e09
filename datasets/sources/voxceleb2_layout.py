"""VoxCeleb2 as it is published: folder layout, box files and the speaker table.

- `dev|test/mp4/idXXXXX/VIDEO/00001.mp4`: cropped clips, 224 x 224 at 25 fps; many share
  a base name, so a clip is known by its whole path.
- `txt/idXXXXX/VIDEO/00001.txt`: header, then one box for each frame, as fractions of
  the picture (VoxCeleb1: pixels). FRAME / 25 is seconds of the original video.
- `vox2_meta.csv`: speakers and the official split, in two spellings.

(Chung, Nagrani, Zisserman: VoxCeleb2: Deep Speaker Recognition, 2018.)
"""

import csv
from dataclasses import dataclass

from datasets.errors import UserError

BOX_FPS = 25.0
"""Frame rate that the frame numbers of box files count in."""


@dataclass(frozen=True)
class Box:
    """Top-left corner and size of a face at one frame."""

    frame: int
    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True)
class BoxTrack:
    """One box file: where a speaker's face is in a video."""

    speaker: str
    video_id: str
    offset: int | None
    fv_confidence: float | None
    asd_confidence: float | None
    boxes: tuple[Box, ...]

    @property
    def start_s(self) -> float:
        """Seconds into the original video."""
        return self.boxes[0].frame / BOX_FPS

    @property
    def end_s(self) -> float:
        """Seconds into the original video, after the last frame."""
        return (self.boxes[-1].frame + 1) / BOX_FPS

    @property
    def fractional(self) -> bool:
        """Whether boxes are fractions of the picture (VoxCeleb2) and not pixels."""
        return all(box.width <= 1.0 and box.height <= 1.0 for box in self.boxes)


@dataclass(frozen=True)
class Speaker:
    """A row of the speaker table."""

    speaker: str
    gender: str
    split: str
    """`dev` or `test`, the official split."""


def parse_boxes(text: str, path: str) -> BoxTrack:
    """Parse the text of a box file; `path` is for messages.

    Raises:
        UserError: header or rows do not have this format.
    """
    header: dict[str, str] = {}
    boxes: list[Box] = []
    in_rows = False
    for number, raw in enumerate(text.splitlines(), start=1):
        fields = [field.strip() for field in raw.split("\t") if field.strip()]
        if not fields:
            continue
        try:
            if in_rows:
                boxes.append(Box(int(fields[0]), *(float(value) for value in fields[1:5])))
            elif fields[0].split()[0] == "FRAME":
                in_rows = True
            else:
                header[fields[0].rstrip(" :").strip()] = fields[1] if len(fields) > 1 else ""
        except (ValueError, TypeError) as error:
            raise UserError(
                f"line {number} of {path} is {raw!r}: expected FRAME X Y W H separated by tabs"
            ) from error
    if not boxes or "Identity" not in header or "Reference" not in header:
        raise UserError(
            f"{path} is not a VoxCeleb box file: Identity, Reference or rows are missing"
        )
    try:
        return BoxTrack(
            speaker=header["Identity"],
            video_id=header["Reference"],
            offset=int(header["Offset"]) if "Offset" in header else None,
            fv_confidence=float(header["FV Conf"]) if "FV Conf" in header else None,
            asd_confidence=float(header["ASD Conf"]) if "ASD Conf" in header else None,
            boxes=tuple(sorted(boxes, key=lambda box: box.frame)),
        )
    except ValueError as error:
        raise UserError(f"the header of {path} cannot be read: {error}") from error


def parse_speakers(text: str, path: str) -> dict[str, Speaker]:
    """Parse the text of the speaker table; `path` is for messages.

    Raises:
        UserError: the columns are not those of the table.
    """
    rows = [[field.strip() for field in row] for row in csv.reader(text.splitlines()) if row]
    # "VoxCeleb2ID" and "VoxCeleb2 ID" are both in use, and columns come in any order.
    names = [name.replace(" ", "").lower() for name in rows[0]] if rows else []
    wanted = ("voxceleb2id", "gender", "set")
    missing = [name for name in wanted if name not in names]
    if missing:
        raise UserError(f"{path} has the columns {names}; {missing} are missing")
    ids, genders, splits = ([row[names.index(name)] for row in rows[1:]] for name in wanted)
    return {
        speaker: Speaker(speaker, gender, split)
        for speaker, gender, split in zip(ids, genders, splits, strict=True)
    }
