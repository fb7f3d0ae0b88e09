"""Web pages that need nothing else: their pictures are inside, they have no scripts.

A page is a template, a file `.html` beside the code that fills it. It extends `pages/page.html`,
which has the looks, and imports its parts from `pages/parts.html`.
"""

import base64
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined


def data_uri(content: bytes, kind: str) -> str:
    """A file, such as of kind `image/png`, as its own address."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


_TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).parents[1]),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)
_TEMPLATES.filters["data_uri"] = data_uri


def render(template: str, **values: Any) -> str:
    """A page.

    Args:
        template: path below `tasks`, such as `publish/card.html`.
        values: what the template names; every text stays text, whatever marks are in it. A name
            that is missing is an error.
    """
    return _TEMPLATES.get_template(template).render(values)
