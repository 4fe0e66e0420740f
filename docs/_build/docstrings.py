"""A griffe extension: docstrings, which are plain text with a few marks, become Markdown.

Three things differ. `>>>` starts an example, where Markdown sees three nested quotations. Asterisks and underscores are
themselves, as in K*B rows, (*shape, B) or (g x)_i, where Markdown sees emphasis. A page
that is named becomes a link.
"""

from __future__ import annotations

import re
import textwrap
from typing import Any

import griffe

PAGE = re.compile(r"docs/([\w/-]+\.md)")
CODE_SPAN = re.compile(r"(`[^`]*`)")
EMPHASIS = re.compile(r"(?<=[\w(\[, ])\*(?=\w)|(?<!\w)_|_(?!\w)")


class Docstrings(griffe.Extension):
    """Rewrites every docstring before it is parsed."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        """Called by griffe with every module, class, function and attribute."""
        if obj.docstring is not None:
            obj.docstring.value = as_markdown(obj.docstring.value)


def as_markdown(text: str) -> str:
    """The docstring with fences around its examples and without emphasis.

    >>> as_markdown("K*B rows.")
    'K\\\\*B rows.'
    >>> as_markdown("Sums:\\n\\n>>> 1 + 1\\n2")
    'Sums:\\n\\n```python\\n>>> 1 + 1\\n2\\n```'
    """
    return "\n\n".join(_block(block) for block in textwrap.dedent(text).split("\n\n"))


def _block(block: str) -> str:
    if block.lstrip().startswith(">>>"):
        return f"```python\n{textwrap.dedent(block)}\n```"
    if block.startswith("    "):  # a formula, shown as code
        return block
    return "\n".join(_line(line) for line in block.split("\n"))


def _line(line: str) -> str:
    """Odd parts of a line cut at its code spans are code."""
    parts = CODE_SPAN.split(line)
    for i in range(0, len(parts), 2):
        escaped = EMPHASIS.sub(r"\\\g<0>", parts[i])
        parts[i] = PAGE.sub(r"[\g<0>](../\1)", escaped)
    return "".join(parts)
