"""SIGINT and SIGTERM as one exception, which a training may put off until it can be taken up again."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(BaseException):
    """A signal has asked the program to end. Lightning ends it by itself on KeyboardInterrupt, so it is none."""

    def __init__(self, number: int):
        super().__init__(signal.Signals(number).name)
        self.code = 128 + number  # as shells tell it


def interrupt(number: int, frame: FrameType | None) -> None:
    """The handler that does not wait."""
    raise Interrupted(number)


def listen(handler: Callable[[int, FrameType | None], None]) -> None:
    """Hands the signals to `handler`, apart from those that are ignored, as in the background of a shell."""
    if threading.current_thread() is not threading.main_thread():
        return  # Python lets no other thread do so
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, handler)


@contextmanager
def interruptible() -> Iterator[None]:
    """Within it the signals raise Interrupted; afterwards they do what they did before."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    listen(interrupt)
    try:
        yield
    finally:
        for number, handler in before.items():
            if handler is not None and signal.getsignal(number) is not handler:
                signal.signal(number, handler)
