"""Why a clip or a file is refused, as data.

A `Reason` ends up in the ledger's `reason` column. `SourceError` carries one from the
code that noticed it to the row that records it. `UserError` is for what the user at
the command line must change; its text is the whole message. Neither error's text holds a
secret: libraries quote addresses, and their messages are often part of it.
"""

from enum import StrEnum

from datasets.redact import redact


class Reason(StrEnum):
    """Why a row of the ledger is not accepted. The empty string means nothing is wrong."""

    NONE = ""
    """Accepted."""
    NOT_MEDIA = "not_media"
    """The file is not a container that the decoder knows."""
    EMPTY_FILE = "empty_file"
    """The file has no bytes."""
    UNREADABLE = "unreadable"
    """The file is a damaged container: the decoder gave up."""
    NOT_READ = "not_read"
    """The file could not be read now, or was written to meanwhile; a later run may have more
    luck."""
    NO_VIDEO = "no_video"
    """There is no video stream, or it has no frames."""
    NO_AUDIO = "no_audio"
    """There is no audio stream, so nothing to learn lips from."""
    SILENT = "silent"
    """The audio of this clip has no speech energy."""
    NO_FACE = "no_face"
    """No face was found in any frame of this shot."""
    FACE_TOO_SMALL = "face_too_small"
    """The face is smaller than the smallest allowed size in pixels."""
    TOO_SHORT = "too_short"
    """The track is shorter than the shortest allowed clip."""
    NOT_THE_SPEAKER = "not_the_speaker"
    """The track policy chose another face for the same time span."""
    OTHER_VOICE = "other_voice"
    """What is heard is not said by these lips, nor by others in the picture."""
    NO_SOUND = "no_sound"
    """The sound stops for longer than a pause."""
    STILL_LIPS = "still_lips"
    """Somebody speaks, and these lips do not move."""
    UPSIDE_DOWN = "upside_down"
    """The face hangs upside down."""
    FROZEN = "frozen"
    """The picture stands still."""
    LOW_CONFIDENCE = "low_confidence"
    """The sync scorer is not confident of the offset."""
    OFFSET_TOO_LARGE = "offset_too_large"
    """The audio is off by more than the largest offset worth correcting."""
    LOW_COVERAGE = "low_coverage"
    """The face was found on too few frames of the track."""
    BLURRY = "blurry"
    """The face is too blurry to learn from."""
    TURNED_AWAY = "turned_away"
    """The head is turned too far to the side."""
    DARK = "dark"
    """The face is under- or overexposed."""
    LOW_QUALITY = "low_quality"
    """The image quality score of the face is below the threshold."""
    TIMED_OUT = "timed_out"
    """The item's deadline passed while it was processed."""
    WORKER_DIED = "worker_died"
    """The process that worked on the item died in every permitted attempt."""
    DOWNLOAD_FAILED = "download_failed"
    """The file could not be fetched now; a later run may succeed."""
    UNAVAILABLE = "unavailable"
    """The file is gone, private, or not available here: trying again is useless."""
    NOT_ALLOWED = "not_allowed"
    """The address may not be fetched from, or the file is larger than allowed."""
    NOT_ANNOTATED = "not_annotated"
    """The data set lists the file, but gives no interval or crop for it."""
    OUTSIDE_PICTURE = "outside_picture"
    """The data set's crop or interval is outside the fetched video."""
    DUPLICATE = "duplicate"
    """The same content is published from another source; `duplicate_of` names it."""
    INTERNAL = "internal_error"
    """An error of this program; `detail` has the exception."""


class SourceError(Exception):
    """A source, or one clip of it, cannot be used.

    Args:
        reason: what is wrong.
        detail: what exactly was found, in one line.
    """

    def __init__(self, reason: Reason, detail: str) -> None:
        self.reason, self.detail = reason, redact(detail)
        super().__init__(f"{reason.value}: {self.detail}")

    def __reduce__(self) -> tuple[type["SourceError"], tuple[Reason, str]]:
        return (type(self), (self.reason, self.detail))


class UserError(Exception):
    """Something that the user can fix: the text says what was given, what was
    expected and what to do next. Command lines print it alone and exit with 2."""

    def __init__(self, text: str = "") -> None:
        super().__init__(redact(text))


class StoreError(OSError):
    """Object storage failed in every attempt; the text is the whole message."""

    def __init__(self, text: str = "") -> None:
        super().__init__(redact(text))
