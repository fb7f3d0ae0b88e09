"""The video of a web page, with its sound, by yt-dlp.

yt-dlp makes one attempt at a time and keeps what it fetched; `datasets.fetch.policy` decides about
further ones, as for any download. Picture and sound that come separately are put into one file
by ffmpeg, without encoding again.
"""

import io
import logging
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

from datasets.errors import Reason, SourceError
from datasets.fetch.policy import DISK_FULL, Deadline, DownloadSettings, PassingError, http_problem
from datasets.redact import redact
from datasets.sources.addresses import checked_names
from datasets.sources.locations import read_text

log = logging.getLogger(__name__)

MAX_FPS = 30
"""Higher frame rates are not requested, since clips have 25 frames per second."""
BUSY = re.compile(r"not a bot|rate.?limit|try again later|too many requests", re.IGNORECASE)
"""Phrases that sites use instead of a status code to ask for fewer requests."""
STATUS = re.compile(r"HTTP Error (\d{3})(?:: (.*?))?(?:$| \(|\.)")


def fetch_page(url: str, folder: Path, settings: DownloadSettings, deadline: Deadline) -> Path:
    """Fetch the video of a page into `folder`, in one attempt; returns the complete file.

    Raises:
        PassingError: another attempt may help and goes on from what is in `folder`.
        SourceError: UNAVAILABLE if the site says that the video is gone, private or not
            available here; DOWNLOAD_FAILED if the page does not have a single video; NOT_ALLOWED if
            it leads to an address that may not be fetched from, or the video is too large.
        OSError: the disk is full.
        UserError: the file with cookies cannot be read.
    """
    from yt_dlp import YoutubeDL
    from yt_dlp.utils import YoutubeDLError

    folder.mkdir(parents=True, exist_ok=True)
    before = _size(folder)
    messages = _Messages()
    refused: list[SourceError] = []
    try:
        with (
            checked_names(settings.addresses) as refused,
            YoutubeDL(_options(folder, settings, deadline, messages)) as loader,
        ):
            info = loader.extract_info(url, download=False)
            _check_single(info)
            done = loader.process_ie_result(info, download=True)
        path = Path(done["requested_downloads"][0]["filepath"])
    except YoutubeDLError as problem:
        deadline.check()
        if refused:
            raise refused[0] from problem
        raise _judged(problem, _size(folder) > before) from problem
    except (KeyError, IndexError) as problem:
        if refused:
            raise refused[0] from problem
        text = messages.last or "yt-dlp fetched nothing"
        raise PassingError(text, progress=_size(folder) > before) from problem
    if not path.is_file() or not path.stat().st_size:
        raise PassingError("yt-dlp left no file")
    return path


def _options(
    folder: Path, settings: DownloadSettings, deadline: Deadline, messages: "_Messages"
) -> dict[str, Any]:
    ffmpeg = ffmpeg_program()

    def in_time(state: dict[str, Any]) -> None:
        settings.check_size(max(state.get("total_bytes") or 0, state.get("downloaded_bytes") or 0))
        if deadline.left_s <= 0:
            from yt_dlp.utils import DownloadCancelled

            raise DownloadCancelled("no time is left")

    return {
        # The parts of a format carry its id, so that an attempt that chooses
        # another format does not go on with bytes of this one.
        "outtmpl": {"default": "video.%(format_id)s.%(ext)s"},
        "paths": {"home": str(folder)},
        "format": "bestvideo*+bestaudio/best" if ffmpeg else "best",
        "format_sort": [f"res:{settings.max_height}", f"fps:{MAX_FPS}", "vcodec:h264"],
        "merge_output_format": "mp4/mkv",
        "ffmpeg_location": ffmpeg,
        "ratelimit": settings.own_rate or None,
        "socket_timeout": min(settings.timeout_s, max(deadline.left_s, 0.001)),
        "retries": 0,
        "fragment_retries": 0,
        # A video with gaps would be out of sync with its sound.
        "skip_unavailable_fragments": False,
        "noplaylist": True,
        "extract_flat": "in_playlist",
        # yt-dlp writes cookies back to the file they came from, which is the user's.
        "cookiefile": io.StringIO(read_text(settings.cookies)) if settings.cookies else None,
        "cachedir": str(Path(tempfile.gettempdir()) / "latentsync-flows-yt-dlp"),
        "js_runtimes": {"deno": {}, "node": {}, "bun": {}},
        "updatetime": False,
        "noprogress": True,
        "quiet": True,
        "logger": messages,
        "progress_hooks": [in_time],
        "postprocessor_hooks": [in_time],
    }


class _Messages:
    """yt-dlp's own log, kept off the terminal."""

    def __init__(self) -> None:
        self.last = ""

    def debug(self, text: str) -> None:
        log.debug("%s", redact(text))

    info = debug

    def warning(self, text: str) -> None:
        log.debug("%s", redact(text))
        self.last = text

    error = warning


def ffmpeg_program() -> str | None:
    """The system's ffmpeg, otherwise imageio-ffmpeg's; None if there is neither."""
    found = shutil.which("ffmpeg")
    if found:
        return found
    try:
        import imageio_ffmpeg

        return str(imageio_ffmpeg.get_ffmpeg_exe())
    except (ImportError, RuntimeError):
        return None


def _check_single(info: dict[str, Any]) -> None:
    if info.get("_type") in ("playlist", "multi_video"):
        text = "the page is a list of videos: give the address of each one"
        raise SourceError(Reason.DOWNLOAD_FAILED, text)
    if info.get("is_live") or info.get("live_status") in ("is_live", "is_upcoming"):
        raise SourceError(Reason.DOWNLOAD_FAILED, "the video is a live stream")


def _judged(problem: Exception, progress: bool) -> Exception:
    """The error that says what an error of yt-dlp means for further attempts."""
    from yt_dlp.networking.exceptions import HTTPError, TransportError
    from yt_dlp.utils import ExtractorError, GeoRestrictedError, UnsupportedError

    chain = _causes(problem)
    text = _plain(str(problem))
    for cause in chain:
        if isinstance(cause, SourceError):
            return cause
        if isinstance(cause, OSError) and cause.errno in DISK_FULL:
            return cause
    for cause in chain:
        if isinstance(cause, HTTPError):
            wait = cause.response.headers.get("Retry-After")
            return http_problem(cause.status, wait, cause.reason or "")
    if BUSY.search(text):
        return PassingError(text, progress=progress)
    if any(isinstance(cause, GeoRestrictedError) for cause in chain):
        return SourceError(Reason.UNAVAILABLE, text)
    # Some errors of a download in progress reach us only as text.
    status = STATUS.search(text)
    if status:
        return http_problem(int(status[1]), None, status[2] or "")
    if any(isinstance(cause, TransportError | OSError) for cause in chain):
        return PassingError(text, progress=progress)
    if any(isinstance(cause, UnsupportedError) for cause in chain) or "format is not" in text:
        return SourceError(Reason.DOWNLOAD_FAILED, text)
    if any(isinstance(cause, ExtractorError) and cause.expected for cause in chain):
        # In the site's own words: private, removed, members only, not in this country, age limit.
        return SourceError(Reason.UNAVAILABLE, text)
    return PassingError(text, progress=progress)


def _causes(problem: BaseException) -> list[BaseException]:
    """An error and everything that caused it, however yt-dlp has linked them."""
    found: list[BaseException] = []
    waiting: list[Any] = [problem]
    while waiting:
        error = waiting.pop(0)
        if not isinstance(error, BaseException) or error in found:
            continue
        found.append(error)
        info = getattr(error, "exc_info", None) or (None, None, None)
        waiting += [info[1], getattr(error, "cause", None), error.__cause__, error.__context__]
    return found


def _plain(text: str) -> str:
    """An error in one line, without colours and without yt-dlp's advice on reporting bugs."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", text)
    text = re.split(r"; please report this issue on|\. Use --|\. See  ?https", text)[0]
    return re.sub(r"^ERROR: ", "", " ".join(text.split()))[:300]


def _size(folder: Path) -> int:
    """Total bytes of the files in a folder."""
    return sum(path.stat().st_size for path in folder.iterdir() if path.is_file())
