from tasks.pages.html import bars, cards, image, page, section, table
from tests.tasks.demo.test_report_page import Balance


def test_parts_are_well_formed_and_texts_stay_texts() -> None:
    body = section(
        "a <b>",
        "a & b",
        cards([("1 <", "x")])
        + bars([("<n>", 2.0, "2", "good"), ("m", 1.0, "1", "")])
        + table(("h", "<n>"), [("a", "<1>")], (1,))
        + image(b"png", "it's"),
    )
    text = page("t < u", body)
    parser = Balance()
    parser.feed(text)
    assert parser.open == []
    assert "<title>t &lt; u</title>" in text
    assert "<td class='number'>&lt;1&gt;</td>" in text
    assert "width:100.0%" in text
    assert "width:50.0%" in text


def test_what_is_empty_is_nothing() -> None:
    empty = section("t", "n", ""), cards([]), bars([]), table(("h",), []), image(b"", "x")
    assert empty == ("", "", "", "", "")
