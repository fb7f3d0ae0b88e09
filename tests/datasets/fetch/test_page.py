"""yt-dlp against a local page: what it fetches, and what its errors become."""

import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import av
import pytest
from yt_dlp.utils import DownloadError, ExtractorError, GeoRestrictedError

from datasets.errors import Reason, SourceError, UserError
from datasets.fetch import page as page_module
from datasets.fetch.item import discard, fetch
from datasets.fetch.page import ffmpeg_program
from datasets.fetch.policy import DownloadSettings, PassingError
from datasets.sources.addresses import AddressPolicy
from datasets.sources.items import How, SourceItem
from tests.support.fake_clock import FakeClock
from tests.support.file_server import Files, file_server

SETTINGS = DownloadSettings(
    attempts=3, timeout_s=20.0, keep_free_bytes=0, addresses=AddressPolicy(allow_private=True)
)
MANIFEST = """<?xml version="1.0"?>
<MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" mediaPresentationDuration="PT1S"
 profiles="urn:mpeg:dash:profile:isoff-on-demand:2011"><Period>
<AdaptationSet mimeType="video/mp4">
<Representation id="low" codecs="avc1.64001f" width="160" height="120" bandwidth="50000">
<BaseURL>low.mp4</BaseURL></Representation>
<Representation id="high" codecs="avc1.64001f" width="320" height="240" bandwidth="100000">
<BaseURL>high.mp4</BaseURL></Representation></AdaptationSet>
<AdaptationSet mimeType="audio/mp4">
<Representation id="sound" codecs="mp4a.40.2" bandwidth="60000">
<BaseURL>sound.m4a</BaseURL></Representation></AdaptationSet></Period></MPD>"""


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """A second of moving picture and sound, together and apart."""
    folder = tmp_path_factory.mktemp("media")
    picture = "testsrc=s={}:r=25:d=1"

    def make(name: str, *arguments: str) -> None:
        program = ffmpeg_program()
        assert program
        command = [program, "-v", "error", *arguments, "-c:v", "libx264", "-c:a", "aac"]
        subprocess.run([*command, str(folder / name)], check=True)

    sound = ("-f", "lavfi", "-i", "sine=d=1")
    make("talk.mp4", "-f", "lavfi", "-i", picture.format("320x240"), *sound)
    make("low.mp4", "-f", "lavfi", "-i", picture.format("160x120"))
    make("high.mp4", "-f", "lavfi", "-i", picture.format("320x240"))
    make("sound.m4a", *sound)
    pieces = ("-g", "5", "-f", "hls", "-hls_time", "0.2", "-hls_list_size", "0")
    make("live.m3u8", "-f", "lavfi", "-i", picture.format("160x120"), *sound, *pieces)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def site(media: dict[str, bytes]) -> Iterator[Files]:
    with file_server() as files:
        files.content = dict(media)
        files.content_type = "video/mp4"
        pages = {
            "watch": "<video src='/talk.mp4'></video>",
            "two": "<video src='/talk.mp4'></video><video src='/high.mp4'></video>",
            "none": "<p>No video.</p>",
        }
        for name, body in pages.items():
            text = f"<html><head><title>A talk</title></head><body>{body}</body></html>"
            files.content[name] = text.encode()
            files.types[name] = "text/html"
        files.content["talk.mpd"] = MANIFEST.encode()
        files.types["talk.mpd"] = "application/dash+xml"
        yield files


def page(site: Files, name: str = "watch") -> SourceItem:
    return SourceItem(name, f"{site.address}/{name}", name, "ann", How.PAGE)


def streams(path: Path) -> tuple[int, int]:
    """Height of the picture and number of audio streams."""
    with av.open(str(path)) as container:
        return container.streams.video[0].height, len(container.streams.audio)


def refused(site: Files, name: str, folder: Path, time: FakeClock) -> SourceError:
    with pytest.raises(SourceError) as caught:
        fetch(page(site, name), folder, SETTINGS, time.clock)
    return caught.value


def test_the_video_of_a_page_comes_with_its_sound(site: Files, tmp_path: Path) -> None:
    done = fetch(page(site), tmp_path, SETTINGS)
    assert done.path.read_bytes() == site.content["talk.mp4"]
    assert done.path.name.startswith("watch-")
    assert done.path.suffix == ".mp4"
    assert done.sha256
    assert streams(done.path) == (240, 1)
    asked = len(site.requests)
    assert fetch(page(site), tmp_path, SETTINGS) == done
    assert len(site.requests) == asked
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".json", ".lock", ".mp4"]
    discard(page(site), tmp_path, SETTINGS)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("max_height", "height"), [(1080, 240), (240, 240), (200, 120), (50, 120)])
def test_picture_and_sound_that_come_apart_are_put_together(
    site: Files, tmp_path: Path, max_height: int, height: int
) -> None:
    done = fetch(page(site, "talk.mpd"), tmp_path, replace(SETTINGS, max_height=max_height))
    assert streams(done.path) == (height, 1)


def test_without_ffmpeg_only_what_comes_together_is_taken(
    site: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page_module, "ffmpeg_program", lambda: None)
    assert streams(fetch(page(site), tmp_path, SETTINGS).path) == (240, 1)
    problem = refused(site, "talk.mpd", tmp_path, FakeClock())
    assert problem.reason is Reason.DOWNLOAD_FAILED
    assert "format is not available" in problem.detail


def test_a_video_that_breaks_off_is_gone_on_with(site: Files, tmp_path: Path) -> None:
    body = site.content["talk.mp4"] * 30  # What follows the first file's end is ignored.
    site.content["talk.mp4"] = body

    def begin(path: str) -> None:
        if path == "talk.mp4" and not any(path == "talk.mp4" for path, _ in site.requests[:-1]):
            site.break_after = [200_000]

    site.on_request = begin
    done = fetch(page(site), tmp_path, SETTINGS, FakeClock().clock)
    assert done.path.read_bytes() == body
    *_, begun = [int(asked[6:-1]) for _, asked in site.requests if asked]
    assert 0 < begun <= 200_000


def test_a_video_in_pieces_is_gone_on_with_and_has_no_holes(site: Files, tmp_path: Path) -> None:
    pieces = sorted(name for name in site.content if name.endswith(".ts"))
    assert len(pieces) == 5
    site.types["live.m3u8"] = "application/vnd.apple.mpegurl"

    def refuse_once(path: str) -> None:
        if path == pieces[2] and [asked for asked, _ in site.requests].count(path) == 1:
            site.statuses = [503]

    site.on_request = refuse_once
    time = FakeClock()
    done = fetch(page(site, "live.m3u8"), tmp_path, SETTINGS, time.clock)
    with av.open(str(done.path)) as container:
        assert sum(1 for _ in container.decode(video=0)) == 25
    assert len(time.sleeps) == 1
    asked = [path for path, _ in site.requests if path.endswith(".ts")]
    assert sorted(set(asked)) == pieces
    assert asked.count(pieces[0]) == 1


def test_a_video_whose_piece_is_gone_is_not_taken_with_a_hole(site: Files, tmp_path: Path) -> None:
    site.types["live.m3u8"] = "application/vnd.apple.mpegurl"
    del site.content["live2.ts"]
    problem = refused(site, "live.m3u8", tmp_path, FakeClock())
    assert "404" in problem.detail
    assert not list(tmp_path.glob("*.mp4"))


@pytest.mark.parametrize("status", [403, 429, 503])
def test_refusals_that_pass(site: Files, tmp_path: Path, status: int) -> None:
    time = FakeClock()
    site.statuses = [status, status]
    site.retry_after = "33"
    assert streams(fetch(page(site), tmp_path, SETTINGS, time.clock).path) == (240, 1)
    assert time.sleeps == [33.0, 33.0]


def test_a_server_that_stays_busy_is_given_up(site: Files, tmp_path: Path) -> None:
    site.statuses = [503] * 9
    problem = refused(site, "watch", tmp_path, FakeClock())
    assert problem.reason is Reason.DOWNLOAD_FAILED
    assert "HTTP 503" in problem.detail
    assert "given up after 3" in problem.detail
    assert len(site.requests) == 3


def test_connections_that_are_dropped(site: Files, tmp_path: Path) -> None:
    site.drops = 2
    assert streams(fetch(page(site), tmp_path, SETTINGS, FakeClock().clock).path) == (240, 1)


def test_a_server_that_falls_silent(site: Files, tmp_path: Path) -> None:
    def begin(path: str) -> None:
        if path == "talk.mp4" and sum(path == "talk.mp4" for path, _ in site.requests) == 1:
            site.stall_after = [1000]

    site.on_request = begin
    quick = replace(SETTINGS, timeout_s=1.0)
    done = fetch(page(site), tmp_path, quick, FakeClock().clock)
    assert done.path.read_bytes() == site.content["talk.mp4"]


def test_a_page_that_is_gone_is_asked_for_once(site: Files, tmp_path: Path) -> None:
    time = FakeClock()
    problem = refused(site, "missing", tmp_path, time)
    assert problem.reason is Reason.UNAVAILABLE
    assert "HTTP 404" in problem.detail
    assert len(site.requests) == 1
    assert time.sleeps == []


def test_a_video_that_is_gone_from_its_page(site: Files, tmp_path: Path) -> None:
    del site.content["talk.mp4"]
    problem = refused(site, "watch", tmp_path, FakeClock())
    assert problem.reason is Reason.UNAVAILABLE
    assert "404" in problem.detail


@pytest.mark.parametrize(
    ("name", "words"), [("none", "Unsupported URL"), ("two", "list of videos")]
)
def test_pages_without_one_video(site: Files, tmp_path: Path, name: str, words: str) -> None:
    time = FakeClock()
    problem = refused(site, name, tmp_path, time)
    assert problem.reason is Reason.DOWNLOAD_FAILED
    assert words in problem.detail
    assert time.sleeps == []


def test_cookies_are_sent_and_their_file_is_left_as_it_is(site: Files, tmp_path: Path) -> None:
    cookies = tmp_path / "cookies.txt"
    line = "127.0.0.1\tFALSE\t/\tFALSE\t0\tsession\tabc\n"
    cookies.write_text(f"# Netscape HTTP Cookie File\n{line}")
    before = cookies.read_bytes()
    fetch(page(site), tmp_path / "cache", replace(SETTINGS, cookies=str(cookies)))
    assert "session=abc" in site.cookies
    assert cookies.read_bytes() == before
    with pytest.raises(UserError, match=r"none\.txt is missing"):
        fetch(page(site, "two"), tmp_path / "cache", replace(SETTINGS, cookies="none.txt"))


def test_the_deadline_ends_a_download_in_progress(site: Files, tmp_path: Path) -> None:
    time = FakeClock()
    site.content["talk.mp4"] *= 30

    def late(path: str) -> None:
        if path == "talk.mp4":
            time.time += 100.0

    site.on_request = late
    with pytest.raises(SourceError, match="within 50 s") as caught:
        fetch(page(site), tmp_path, replace(SETTINGS, deadline_s=50.0), time.clock)
    assert caught.value.reason is Reason.TIMED_OUT


def wrapped(make: Callable[[], Exception]) -> DownloadError:
    """An error as yt-dlp hands it on."""
    problem = make()
    return DownloadError(f"ERROR: [youtube] abc: {problem}", (type(problem), problem, None))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("Private video. Sign in if you've been granted access to this video", Reason.UNAVAILABLE),
        ("Video unavailable. This video has been removed by the uploader", Reason.UNAVAILABLE),
        ("Sign in to confirm your age. This video may be inappropriate", Reason.UNAVAILABLE),
        ("Join this channel to get access to members-only content", Reason.UNAVAILABLE),
        ("Requested format is not available. Use --list-formats", Reason.DOWNLOAD_FAILED),
        ("Sign in to confirm you\u2019re not a bot. Use --cookies", None),
        ("This content isn't available, try again later. Your session is rate-limited", None),
    ],
)
def test_what_a_site_says(text: str, reason: Reason | None) -> None:
    problem = page_module._judged(wrapped(lambda: ExtractorError(text, expected=True)), False)
    if reason is None:
        assert isinstance(problem, PassingError)
    else:
        assert isinstance(problem, SourceError)
        assert problem.reason is reason
        assert problem.detail.startswith(f"[youtube] abc: {text[:20]}")
        assert "--" not in problem.detail


def test_a_video_that_is_not_shown_here() -> None:
    problem = page_module._judged(
        wrapped(lambda: GeoRestrictedError("not in your country", countries=["US"])), False
    )
    assert isinstance(problem, SourceError)
    assert problem.reason is Reason.UNAVAILABLE


def test_an_error_of_the_page_reader_itself_is_tried_again() -> None:
    problem = page_module._judged(wrapped(lambda: ExtractorError("Unable to extract x")), True)
    assert isinstance(problem, PassingError)
    assert problem.progress
    assert "report this issue" not in problem.detail


def test_a_full_disk_is_told_apart() -> None:
    problem = page_module._judged(wrapped(lambda: OSError(28, "No space left on device")), False)
    assert isinstance(problem, OSError)
