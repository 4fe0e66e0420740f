"""What is printed arrives, whatever the terminal can show, and a reader that goes away is no error of the program."""

from __future__ import annotations

import codecs
import contextlib
import io
import os
import signal
import sys

PLAIN = {"±": "+-", "×": "x", "−": "-", "–": "-", "²": "^2", "…": "...", "█": "#"}
HANDLER = "probsym.plain"
CLOSED_PIPE = 128 + getattr(signal, "SIGPIPE", 13)  # the exit code of tools whose reader went away, as shells tell it


def _plain(error: UnicodeError) -> tuple[str, int]:
    """What stands for signs that an encoding lacks: ASCII that reads alike, else a question mark."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    signs = error.object[error.start : error.end]
    return "".join(PLAIN.get(sign, "?") for sign in signs), error.end


codecs.register_error(HANDLER, _plain)


def degrade() -> None:
    """Lets standard output and error replace signs that their encoding lacks, as in a locale without UTF-8."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=HANDLER)


def flush() -> None:
    """Writes what is still buffered, so that a closed pipe or a full disk is met here and not after the program."""
    if sys.stdout is not None:
        sys.stdout.flush()


def discard() -> None:
    """Sends what is still buffered to nowhere if it cannot be written: else the interpreter complains at its end."""
    try:
        flush()
    except OSError:
        with contextlib.suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, sys.stdout.fileno())
            os.close(nowhere)
