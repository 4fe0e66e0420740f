"""An mkdocs hook: formulas become MathML when the site is built, so that a page needs no script and no network.

The extension arithmatex has found the formulas in the Markdown and left `\\(...\\)` and `\\[...\\]` in elements of the
class "arithmatex". Every current browser draws MathML by itself.
"""

from __future__ import annotations

import html
import re
from typing import Any

from latex2mathml.converter import convert

INLINE = re.compile(r'<span class="arithmatex">\\\((.*?)\\\)</span>', re.DOTALL)
DISPLAY = re.compile(r'<div class="arithmatex">\\\[(.*?)\\\]</div>', re.DOTALL)
TAG = re.compile(r"\\tag\{(\w+)\}")


def on_page_content(content: str, **_: Any) -> str:
    """Called by mkdocs with the HTML of a page."""
    content = INLINE.sub(_inline, content)
    return DISPLAY.sub(_display, content)


def _inline(found: re.Match[str]) -> str:
    return convert(html.unescape(found.group(1)))


def _display(found: re.Match[str]) -> str:
    latex = html.unescape(found.group(1))
    tag = TAG.search(latex)
    formula = convert(TAG.sub("", latex), display="block")
    if tag is None:
        return f'<div class="equation">{formula}</div>'
    number = tag.group(1)
    return f'<div class="equation" id="eq-{number}">{formula}<span class="equation-number">({number})</span></div>'
