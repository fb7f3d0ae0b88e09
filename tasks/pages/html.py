"""Self-contained web pages: their pictures are inside, and they have no scripts.

A page is a template, an `.html` file next to the code that fills it. It extends `pages/page.html`,
which has the looks, and imports its parts from `pages/parts.html`.
"""

import base64
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined


def data_uri(content: bytes, kind: str) -> str:
    """A file, for example of type `image/png`, as a data address."""
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
    """Fill a template.

    Args:
        template: path below `tasks`, such as `publish/card.html`.
        values: values for the template's names; texts are escaped. A name
            that is missing is an error.
    """
    return _TEMPLATES.get_template(template).render(values)
