"""Pages: whole, and whatever a text holds, it stays text."""

import pytest
from jinja2 import DictLoader, UndefinedError

from tasks.pages import html
from tests.support.html_balance import Balance

BODY = """
{% extends "pages/page.html" %}
{% from "pages/parts.html" import bars, cards, image, section, table %}
{% block body %}
{% call section(name, name) %}
{{ cards([(name, "x")]) }}
{{ bars(lengths) }}
{{ table(("h", name), rows, (1,)) }}
{{ image(picture, name) }}
{% endcall %}
{% endblock %}
"""
SCRIPT = "<script>alert('1')</script> & \"more\""


@pytest.fixture
def body(monkeypatch: pytest.MonkeyPatch) -> str:
    """A template with every part."""
    loader = html._TEMPLATES.loader
    assert loader is not None
    found = {name: loader.get_source(html._TEMPLATES, name)[0] for name in loader.list_templates()}
    monkeypatch.setattr(html._TEMPLATES, "loader", DictLoader({**found, "body.html": BODY}))
    return "body.html"


def test_parts_are_well_formed_and_texts_stay_texts(body: str) -> None:
    page = html.render(
        body,
        title=SCRIPT,
        name=SCRIPT,
        lengths=[(SCRIPT, 2.0, "2", "good"), ("m", 1.0, SCRIPT, "")],
        rows=[(SCRIPT, "<1>")],
        picture=b"png",
    )
    shown = Balance(page)
    assert "script" not in shown.tags
    assert sum(text == SCRIPT for text in shown.texts) == 8
    assert '<td class="number">&lt;1&gt;</td>' in page
    assert "width:100.0%" in page
    assert "width:50.0%" in page
    assert shown.sources == ["data:image/png;base64,cG5n"]


def test_what_is_empty_is_nothing(body: str) -> None:
    page = html.render(body, title="t", name="n", lengths=[], rows=[], picture=b"")
    tags = Balance(page).tags
    assert {"table", "img"}.isdisjoint(tags)
    assert 'class="bars"' not in page


def test_a_name_that_is_missing_is_an_error() -> None:
    with pytest.raises(UndefinedError, match="title"):
        html.render("pages/page.html")
