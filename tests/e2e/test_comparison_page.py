"""The page about several models in a real browser: it opens, fits, and its videos play."""

from pathlib import Path

import pytest

from tasks.evaluate.comparison import read_models
from tasks.evaluate.comparison_page import PAGE, write_comparison
from tests.e2e.test_report_page import browse, chromium
from tests.tasks.evaluate.test_comparison import write_model

__all__ = ["chromium"]

PROBE = (
    "<script>addEventListener('load', () => {"
    "const videos = [...document.querySelectorAll('video')];"
    "document.body.dataset.videos ="
    " videos.filter(v => v.error === null && v.videoWidth === 3 * v.videoHeight).length;"
    "document.body.dataset.fits = document.documentElement.scrollWidth <= innerWidth;"
    "});</script></body>"
)


@pytest.mark.e2e
@pytest.mark.parametrize("width", [1280, 500])
def test_the_browser_shows_the_whole_page(chromium: str, tmp_path: Path, width: int) -> None:
    names = ("good", "same", "x" * 120)
    folders = {name: write_model(tmp_path / name[:9], 0.1 * n, n) for n, name in enumerate(names)}
    write_comparison(tmp_path, read_models(folders))
    page = tmp_path / PAGE
    page.write_text(page.read_text().replace("</body>", PROBE), encoding="utf-8")
    size = f"--window-size={width},2000"
    shown = browse(chromium, tmp_path / "profile", size, "--dump-dom", page.as_uri()).stdout
    assert 'data-videos="8"' in shown
    assert 'data-fits="true"' in shown
    for title in ("Videos side by side, worst first", "All numbers", "By speaker"):
        assert f">{title}<" in shown
