"""What a Markdown document says, as far as it can be checked: headings, links and commands."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"`([^`\n]+)`")
LINK = re.compile(r"!?\[(?:[^\[\]]|\[[^\]]*\])*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
SHELLS = ("bash", "sh", "console")
PLACEHOLDER = re.compile(r"[A-Z][A-Z0-9_]*(\.[a-z0-9]+)?")
"""A word in capitals stands for a value: VIDEO, OUT.mp4."""
OMITTED = ("…", "...")
"""What a reader is to fill in."""


@dataclass(frozen=True)
class Command:
    """A command line, or one of several that `&&` joins."""

    words: tuple[str, ...]
    """As a shell splits it, without variables set before it."""
    whole: bool
    """Whether it stands in a block of commands and so can be copied; otherwise in a sentence,
    where the name alone will do."""

    def __str__(self) -> str:
        return shlex.join(self.words)

    @property
    def arguments(self) -> list[str]:
        """Those behind the program, with 1 for what is a placeholder: text and number alike."""
        words = [word for word in self.words[1:] if word not in OMITTED]
        return ["1" if PLACEHOLDER.fullmatch(word) else word for word in words]


class Document:
    """A Markdown file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.text = path.read_text(encoding="utf-8")

    @cached_property
    def prose(self) -> str:
        """The text without blocks of code."""
        return FENCE.sub("", self.text)

    @cached_property
    def anchors(self) -> set[str]:
        """What `#` may name, as GitHub makes it of the headings."""
        found: set[str] = set()
        for heading in HEADING.findall(self.prose):
            # Of a link the text counts.
            shown = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).strip().lower()
            anchor = re.sub(r"[^\w\- ]", "", shown).replace(" ", "-")
            number, name = 0, anchor
            while name in found:
                number += 1
                name = f"{anchor}-{number}"
            found.add(name)
        return found

    @cached_property
    def links(self) -> list[str]:
        """Targets of links and pictures."""
        return LINK.findall(self.prose)

    @cached_property
    def spans(self) -> list[str]:
        """Pieces of code within sentences and tables."""
        return [span.replace("\\|", "|") for span in SPAN.findall(self.prose)]

    def section(self, heading: str) -> str:
        """The text below a heading of the second level, up to the next one."""
        _, found, rest = f"\n{self.text}".partition(f"\n## {heading}\n")
        assert found, f"{self.path} has no section {heading!r}"
        return rest.partition("\n## ")[0]

    def commands(self) -> Iterator[Command]:
        """Command lines of blocks, and pieces of code that can be ones."""
        for kind, block in FENCE.findall(self.text):
            if kind in SHELLS:
                for line in block.replace("\\\n", " ").splitlines():
                    yield from _split(line, True)
        for span in self.spans:
            yield from _split(span, False)


def _split(line: str, whole: bool) -> Iterator[Command]:
    try:
        words = shlex.split(line.removeprefix("$ "), comments=True)
    except ValueError:
        # A piece of code with a single quotation mark is no command.
        assert not whole, f"no shell reads {line!r}"
        return
    words = [*words, "&&"]
    while words:
        end = words.index("&&")
        part, words = words[:end], words[end + 1 :]
        while part and re.fullmatch(r"[A-Z_]+=.*", part[0]):
            part = part[1:]
        if part:
            yield Command(tuple(part), whole)
