"""The data card in a real browser: every plot is decoded and nothing sticks out."""

from pathlib import Path

import pytest

from tasks.publish.card import data_card
from tasks.publish.card_page import card_page
from tests.e2e.test_report_page import browse, chromium
from tests.support.card_rows import make_index, make_rows

__all__ = ["chromium"]

PROBE = (
    "<script>addEventListener('load', () => {"
    "const images = [...document.images];"
    "document.body.dataset.images = "
    "images.filter(each => each.complete && each.naturalWidth > 100).length;"
    "document.body.dataset.fits = document.documentElement.scrollWidth <= innerWidth;"
    "});</script></body>"
)


@pytest.mark.e2e
@pytest.mark.parametrize("width", [1280, 500])
def test_the_browser_shows_the_whole_card(chromium: str, tmp_path: Path, width: int) -> None:
    rows = [row | {"speaker": f"{row['speaker']}-{'x' * 80}"} for row in make_rows(300)]
    changes = {"previous": "a" * 64, "new": ["folder/" + "y" * 120 + ".mp4"]}
    page = tmp_path / "card.html"
    content = card_page(data_card(rows, make_index(rows), changes))
    page.write_text(content.replace("</body>", PROBE), encoding="utf-8")
    size = f"--window-size={width},2000"
    shown = browse(chromium, tmp_path / "profile", size, "--dump-dom", page.as_uri()).stdout
    assert 'data-images="8"' in shown
    assert 'data-fits="true"' in shown
    for title in ("Splits", "What changed", "Scores", "Speakers", "Thresholds"):
        assert f">{title}<" in shown
