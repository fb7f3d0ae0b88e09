import base64
import re
from pathlib import Path

from tasks.demo.report_page import Report, number_text, render
from tests.support.fake_report import make_report
from tests.support.html_balance import Balance


def test_the_page_is_well_formed_and_needs_nothing_else(tmp_path: Path) -> None:
    page = render(make_report(tmp_path))
    sources = Balance(page).sources
    assert len(sources) == 5
    assert all(source.startswith("data:") for source in sources)
    assert "http" not in re.sub(r"base64,[^\"]*", "", page)
    video = re.search(r'data:video/mp4;base64,([^"]*)', page)
    assert video
    assert base64.b64decode(video[1]) == (tmp_path / "in.mp4").read_bytes()


def test_numbers_labels_and_reasons_are_shown_as_text(tmp_path: Path) -> None:
    page = render(make_report(tmp_path))
    assert "seeded-inception (not the official weights)" in page
    assert "sync_c (by &lt;somebody&gt;) is 1.000" in page
    assert "FaceMesh (no value: the clips are &lt;short&gt;)" in page
    assert "LatentSync &amp; friends" in page
    assert "against champion version 1" in page


def test_the_name_of_a_clip_is_text(tmp_path: Path) -> None:
    report = make_report(tmp_path)
    name = "<script>alert('1')</script>"
    report.videos = [(name, report.videos[0][1])]
    report.paths = [(name, name)]
    shown = Balance(render(report))
    assert "script" not in shown.tags
    assert shown.texts.count(name) == 3


def test_what_is_empty_is_left_out() -> None:
    page = render(Report("title", "lead"))
    assert "<section>" not in page


def test_numbers_read_well() -> None:
    assert [number_text(value) for value in (None, 1.23456, 1234.5, -0.5)] == [
        "–",
        "1.235",
        "1234.5",
        "-0.500",
    ]
