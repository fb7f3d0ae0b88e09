"""The card's files: whole, safe for any name, and byte for byte the same every time."""

import re

import pytest

from tasks.publish.card import data_card
from tasks.publish.card_page import card_files, card_markdown, card_page
from tests.support.card_rows import make_index, make_rows
from tests.support.html_balance import Balance

NASTY = "<b>|`x_y*\nz`&<script>"


def test_files_are_the_same_for_rows_in_any_order() -> None:
    rows = make_rows(300)
    index = make_index(rows)
    files = card_files(data_card(rows, index))
    assert set(files) == {"card/README.md", "card/card.html"}
    assert card_files(data_card(rows[::-1], index)) == files
    assert card_files(data_card(rows[1:], make_index(rows[1:]))) != files


@pytest.mark.parametrize("count", [0, 1, 200])
def test_the_page_is_well_formed_and_needs_nothing_else(count: int) -> None:
    rows = make_rows(count)
    page = card_page(data_card(rows, make_index(rows)))
    sources = Balance(page).sources
    assert all(source.startswith("data:image/png") for source in sources)
    assert len(sources) == (8 if count > 1 else len(sources))
    assert "http" not in re.sub(r"base64,[^\"]*", "", page)


def test_none_accepted_is_told_plainly() -> None:
    rows = [row for row in make_rows(100) if row["verdict"] == "rejected"]
    card = data_card(rows, make_index(rows))
    assert "| 0% | of the clips found were accepted |" in card_markdown(card)
    assert "0.0 min" in card_page(card)


def test_names_of_users_are_text() -> None:
    rows = [row | {"speaker": NASTY, "path": NASTY} for row in make_rows(60)]
    card = data_card(rows, make_index(rows, source=NASTY), {"previous": NASTY, "new": [NASTY]})
    page, text = card_page(card), card_markdown(card)
    assert "<b>|" not in page
    assert "&lt;b&gt;|" in page
    assert "\\<b\\>\\|\\`x\\_y\\* z\\`&" in text
    tables = [line for line in text.splitlines() if line.startswith("|")]
    for line in tables:
        assert line.endswith(" |")
    assert {"b", "script"} & Balance(page).tags == {"b"}


def test_both_files_tell_the_same_numbers() -> None:
    rows = make_rows(2000)
    card = data_card(rows, make_index(rows), {"previous": "a" * 64, "new": 3})
    page, text = card_page(card), card_markdown(card)
    for number in (card.digest, f"{card.clips_accepted:,}", "low", "a" * 64):
        assert number in page
        assert number in text
    for line in card.top_speakers:
        assert line.speaker in page
        assert line.speaker in text
    assert "<li>new input files: 3</li>" in page
    assert "| new input files | 3 |" in text


def test_what_is_not_known_is_not_claimed() -> None:
    rows = make_rows(100)
    index = make_index(rows)
    assert "No speaker is in two splits" in card_page(data_card(rows, index))
    bare = [{name: row[name] for name in row if name != "split"} for row in rows]
    assert "two splits" not in card_page(data_card(bare, index))
    mixed = [row | {"speaker": "one"} for row in rows]
    assert "which must not be: 1." in card_page(data_card(mixed, index))
    assert "This is the first version." in card_markdown(data_card(rows, index))
