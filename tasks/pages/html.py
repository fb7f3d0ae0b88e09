"""Parts of a web page that needs nothing else: its pictures are inside, it has no scripts."""

import base64
from collections.abc import Sequence
from html import escape

STYLE = """
:root { --ink: #1d2733; --soft: #5b6875; --line: #dde3ea; --paper: #ffffff; --back: #f4f6f9;
  --accent: #2f6fde; --good: #2c8a5c; --bad: #c2452d; }
* { box-sizing: border-box; }
body { margin: 0; background: var(--back); color: var(--ink);
  font: 15px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
main { max-width: 1080px; margin: 0 auto; padding: 32px 20px 64px; }
h1 { font-size: 28px; margin: 0 0 4px; letter-spacing: -0.01em; }
h2 { font-size: 19px; margin: 0 0 6px; }
p.lead, p.note { color: var(--soft); margin: 0 0 14px; max-width: 75ch; }
section { background: var(--paper); border: 1px solid var(--line); border-radius: 10px;
  padding: 22px 24px; margin-top: 18px; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 12px;
  margin-top: 18px; }
.card { background: var(--paper); border: 1px solid var(--line); border-radius: 10px;
  padding: 14px 16px; }
.card b { display: block; font-size: 24px; letter-spacing: -0.01em; }
.card span { color: var(--soft); font-size: 13px; }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(290px, 1fr)); gap: 18px; }
figure { margin: 0; }
figcaption { color: var(--soft); font-size: 13px; margin-top: 6px; }
img, video { max-width: 100%; height: auto; border-radius: 6px; display: block; }
video { width: 100%; background: #000; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: 14px; }
th, td { text-align: left; padding: 6px 10px 6px 0; border-bottom: 1px solid var(--line);
  vertical-align: top; }
th { color: var(--soft); font-weight: 600; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
td.label { color: var(--soft); }
.bars { display: grid; grid-template-columns: max-content 1fr max-content; gap: 7px 12px;
  align-items: center; font-size: 14px; }
.bar { height: 14px; border-radius: 4px; background: var(--accent); min-width: 2px; }
.bar.good { background: var(--good); } .bar.bad { background: var(--bad); }
.verdict { display: inline-block; padding: 1px 10px; border-radius: 99px; color: #fff;
  font-size: 13px; background: var(--bad); }
.verdict.promoted { background: var(--good); }
ul { margin: 8px 0 14px; padding-left: 20px; }
code { font-size: 13px; background: var(--back); padding: 1px 5px; border-radius: 4px;
  overflow-wrap: anywhere; }
"""


def page(title: str, body: str) -> str:
    """A whole page.

    Args:
        title: as text.
        body: as HTML.
    """
    return (
        "<!doctype html>\n<html lang='en'><head><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width, initial-scale=1'>"
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>"
        f"<body><main>{body}</main></body></html>\n"
    )


def section(title: str, note: str, body: str) -> str:
    """A box with a title, a remark and HTML; nothing without a body."""
    if not body:
        return ""
    remark = f"<p class='note'>{escape(note)}</p>" if note else ""
    return f"<section><h2>{escape(title)}</h2>{remark}{body}</section>"


def data_uri(content: bytes, kind: str) -> str:
    """A file, such as of kind `image/png`, as its own address."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def image(content: bytes, alt: str) -> str:
    """A PNG, and what it shows in words."""
    if not content:
        return ""
    return (
        f"<div class='wide'><img alt='{escape(alt)}' src='{data_uri(content, 'image/png')}'></div>"
    )


def cards(numbers: Sequence[tuple[str, str]]) -> str:
    """Large numbers side by side, as (number, what it is)."""
    items = "".join(
        f"<div class='card'><b>{escape(number)}</b><span>{escape(what)}</span></div>"
        for number, what in numbers
    )
    return f"<div class='cards'>{items}</div>" if items else ""


def bars(rows: Sequence[tuple[str, float, str, str]]) -> str:
    """Bars (name, length, text, class), the longest one filling the width."""
    if not rows:
        return ""
    longest = max(max(value for _, value, _, _ in rows), 1e-9)
    items = "".join(
        f"<span>{escape(name)}</span>"
        f"<div class='bar {kind}' style='width:{100 * value / longest:.1f}%'></div>"
        f"<span>{escape(text)}</span>"
        for name, value, text, kind in rows
    )
    return f"<div class='bars'>{items}</div>"


def table(head: Sequence[str], rows: Sequence[Sequence[str]], numbers: Sequence[int] = ()) -> str:
    """A table of texts.

    Args:
        head: of the columns; empty: no line for it.
        rows: cells.
        numbers: positions of the columns that hold numbers.
    """
    if not rows:
        return ""

    def line(cells: Sequence[str], tag: str) -> str:
        marks = [" class='number'" if place in numbers else "" for place in range(len(cells))]
        inner = "".join(
            f"<{tag}{mark}>{escape(cell)}</{tag}>" for cell, mark in zip(cells, marks, strict=True)
        )
        return f"<tr>{inner}</tr>"

    top = line(head, "th") if head else ""
    body = "".join(line(cells, "td") for cells in rows)
    return f"<div class='wide'><table>{top}{body}</table></div>"
