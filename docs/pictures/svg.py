"""The frame of a drawing: its size, and the words that a screen reader gets for it."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape


def document(width: float, height: float, title: str, description: str, content: Iterable[str]) -> str:
    """The whole text of an SVG file."""
    size = f'viewBox="0 0 {width:g} {height:g}" width="{width:g}" height="{height:g}"'
    spaces = 'xml:space="preserve"'  # blanks in a row are drawn as they are
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" {spaces} {size} role="img" aria-labelledby="title desc">',
            words(title, description),
            *content,
            "</svg>\n",
        ]
    )


def words(title: str, description: str) -> str:
    """What `aria-labelledby="title desc"` refers to."""
    return f'<title id="title">{text(title)}</title>\n<desc id="desc">{text(description)}</desc>'


def text(plain: str) -> str:
    """Plain text as content of an element."""
    return escape(plain, quote=False)
