"""What the pages share: jinja2's environment, which escapes every value, and texts without invisible characters."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

SHOWN_CHARS: Final = 160
_JOINERS: Final = "\u200c\u200d"
"""Invisible characters that some scripts need."""
_IN_HTML: Final = str.maketrans({"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"})


@cache
def templates() -> Environment:
    """The templates of the pages, with their filters."""
    made = Environment(
        loader=FileSystemLoader(Path(__file__).with_name("templates")),
        autoescape=True,
        finalize=visible,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"short": short}
    return made


def visible(value: object) -> object:
    """A value as text without invisible characters; markup is not changed."""
    return value if isinstance(value, Markup) else visible_text(str(value))


def visible_text(text: str) -> str:
    """A text with a dot in place of each invisible character, and a space in place of each that is some kind of space."""
    return text if _is_visible(text) else "".join(map(_visible, text))


def visible_json(value: Any) -> Any:
    """The same in every text of a JSON value."""
    if isinstance(value, str):
        return visible_text(value)
    if isinstance(value, dict):
        return {visible_text(name): visible_json(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        # The long lists, of tokens, are looked at as a whole first.
        kinds = set(map(type, value))
        if kinds <= {int, float} or (kinds == {str} and _is_visible("".join(value))):
            return value
        return [visible_json(each) for each in value]
    return value


def json_in_html(value: Any) -> Markup:
    """A JSON value as the content of a ``<script type="application/json">``: no character of it can end the element."""
    # The escapes are JSON's own, and the characters stand in JSON within texts only.
    return Markup(json.dumps(visible_json(value), ensure_ascii=False, separators=(",", ":"), allow_nan=False).translate(_IN_HTML))


def short(value: object) -> str:
    """The beginning of a value, as text."""
    text = str(value)
    return text[:SHOWN_CHARS] + ("…" if len(text) > SHOWN_CHARS else "")


def _is_visible(text: str) -> bool:
    return text.isprintable() or text.replace("\n", "").isprintable()


def _visible(char: str) -> str:
    if char == "\n" or char.isprintable() or char in _JOINERS:
        return char
    return " " if char.isspace() else "·"
