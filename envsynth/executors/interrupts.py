"""Ctrl-C and SIGTERM during a map: none is lost, and none breaks off what must not stop half-way.

Python raises KeyboardInterrupt wherever it is at that moment. Where native code has called back into Python and drops
whatever is raised there, as serializers do when they look at a value, the interruption is gone and the program goes on.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Generator
from types import FrameType
from typing import Any

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextlib.contextmanager
def _handled_by(make: Callable[[Any], Callable[[int, FrameType | None], None]]) -> Generator[None]:
    """Replace handlers by what is made of them; outside of the main thread, and where a signal is ignored, none."""
    before: dict[signal.Signals, Any] = {}
    if threading.current_thread() is threading.main_thread():
        for number in _SIGNALS:
            handler = signal.getsignal(number)
            if handler not in (signal.SIG_IGN, None):  # None: native code has it, and Python could not give it back
                before[number] = handler
                signal.signal(number, make(handler))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def uninterrupted() -> Generator[None]:
    """Hold Ctrl-C and SIGTERM back until the end of the block; then they do what they always do.

    Raises:
        KeyboardInterrupt: afterwards, when Ctrl-C came meanwhile.
    """
    pending: dict[int, None] = {}

    def hold(handler: Any) -> Callable[[int, FrameType | None], None]:
        del handler
        return lambda number, frame: pending.update({number: None})

    with _handled_by(hold):
        yield
    for number in pending:
        signal.raise_signal(number)


class Noticed:
    """Remembers that Ctrl-C or SIGTERM came, while they do what they always do."""

    def __init__(self) -> None:
        self._came = False

    @contextlib.contextmanager
    def listening(self) -> Generator[None]:
        """Listen during the block."""

        def note(handler: Any) -> Callable[[int, FrameType | None], None]:
            def noted(number: int, frame: FrameType | None) -> None:
                self._came = True
                if callable(handler):
                    handler(number, frame)
                else:  # the default of SIGTERM ends the process
                    signal.signal(number, handler)
                    signal.raise_signal(number)

            return noted

        with _handled_by(note):
            yield

    def raise_lost(self) -> None:
        """Raise what was dropped.

        Raises:
            KeyboardInterrupt: a signal came, and yet we are here.
        """
        if self._came:
            raise KeyboardInterrupt
