"""The report in a real browser: it opens, shows everything, and decodes its pictures."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from tasks.demo.report_page import render
from tests.support.fake_report import make_report

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--mute-audio",
)


@pytest.fixture(scope="module")
def chromium() -> str:
    found = shutil.which("chromium")
    if found is None:
        pytest.skip("chromium is not installed (Debian: apt install chromium)")
    return found


def browse(chromium: str, profile: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """One run of the browser with a profile of its own."""
    return subprocess.run(
        [chromium, *FLAGS, f"--user-data-dir={profile}", *arguments],
        capture_output=True,
        text=True,
        timeout=90,
        check=True,
    )


@pytest.mark.e2e
def test_the_browser_shows_the_whole_page(chromium: str, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    # The probe is only in the test's copy: the page itself has no scripts.
    probe = (
        "<script>addEventListener('load', () => {"
        "const good = [...document.images].every(i => i.complete && i.naturalWidth > 100);"
        "const wide = document.documentElement.scrollWidth <= innerWidth;"
        "document.body.dataset.images = good; document.body.dataset.fits = wide;"
        "document.body.dataset.videos = [...document.querySelectorAll('video')]"
        ".every(v => v.error === null);"
        "});</script></body>"
    )
    page.write_text(render(make_report(tmp_path)).replace("</body>", probe), encoding="utf-8")
    shown = browse(chromium, tmp_path / "profile", "--dump-dom", page.as_uri()).stdout
    for text in ("Ingestion", "Audio offset", "Evaluation", "Decisions", "refused", "Time"):
        assert f">{text}<" in shown
    for flag in ("images", "fits", "videos"):
        assert f'data-{flag}="true"' in shown


@pytest.mark.e2e
@pytest.mark.parametrize("width", [1280, 500])
def test_the_page_fits_large_and_small_windows(chromium: str, tmp_path: Path, width: int) -> None:
    from PIL import Image

    page = tmp_path / "report.html"
    page.write_text(render(make_report(tmp_path)), encoding="utf-8")
    picture = tmp_path / "page.png"
    browse(
        chromium,
        tmp_path / "profile",
        f"--window-size={width},2400",
        f"--screenshot={picture}",
        page.as_uri(),
    )
    pixels = np.asarray(Image.open(picture).convert("RGB"))
    assert pixels.shape[1] == width
    # White sections on a grey ground, with ink and colours in them.
    assert (pixels == 255).all(-1).mean() > 0.3
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 500
