"""Tables in Markdown."""

from collections.abc import Sequence


def table(head: Sequence[str], rows: Sequence[Sequence[str]], numbers: Sequence[int] = ()) -> str:
    """A table of texts, without a line break at its end; empty without rows.

    Args:
        head: headings of the columns.
        rows: cells.
        numbers: positions of the columns that hold numbers, which are aligned to the right.
    """
    if not rows:
        return ""
    rule = ["---:" if place in numbers else "---" for place in range(len(head))]
    lines = [head, rule, *([cell(each) for each in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def cell(text: str) -> str:
    """Text on one line, escaped for Markdown."""
    plain = " ".join(text.split())
    for mark in "\\`*_[]<>|":
        plain = plain.replace(mark, f"\\{mark}")
    return plain
