"""Ctrl-C and SIGTERM in a map: held back while a result is stored, and noticed although native code dropped them."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Generator
from types import FrameType

import pytest

from envsynth.executors import Executor, run_all
from envsynth.executors.interrupts import Noticed, uninterrupted

SIGNALS = [signal.SIGINT, signal.SIGTERM]


@pytest.fixture(autouse=True)
def as_the_cli_does() -> Generator[None]:
    """Both signals raise KeyboardInterrupt, as the command line arranges it."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, interrupt)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def same(value: int) -> int:
    return value


def dropped(value: int) -> int:
    """What a serializer does that calls back into Python: an interruption there is lost."""
    if value == 1:
        with contextlib.suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    return value


@pytest.mark.parametrize("number", SIGNALS)
def test_it_waits_for_the_end_of_the_block(number: signal.Signals) -> None:
    reached = []

    def block() -> None:
        with uninterrupted():
            signal.raise_signal(number)
            reached.append(number)

    with pytest.raises(KeyboardInterrupt):
        block()
    assert reached == [number]
    assert signal.getsignal(number) in (signal.default_int_handler, interrupt), "the handlers are back"


def test_an_error_of_the_block_goes_on() -> None:
    def block() -> None:
        with uninterrupted():
            signal.raise_signal(signal.SIGINT)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        block()


def test_who_ignores_a_signal_goes_on_ignoring_it() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    noticed = Noticed()
    with noticed.listening(), uninterrupted():
        signal.raise_signal(signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    noticed.raise_lost()


def test_another_thread_leaves_the_handlers_alone() -> None:
    found: list[object] = []

    def look() -> None:
        with uninterrupted(), Noticed().listening():
            found.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert found == [signal.default_int_handler]


def test_nothing_came() -> None:
    noticed = Noticed()
    with noticed.listening():
        noticed.raise_lost()


def test_a_dropped_interruption_of_an_item_ends_the_map() -> None:
    delivered: list[int] = []
    with pytest.raises(KeyboardInterrupt):
        run_all(dropped, [0, 1, 2, 3], on_result=lambda index, value: delivered.append(value))
    assert delivered == [0, 1], "the item under way is kept"


@pytest.mark.parametrize("executor", ["serial", "pool"])
@pytest.mark.parametrize("number", SIGNALS)
def test_a_result_is_stored_whole_and_then_the_map_ends(executor: Executor, number: signal.Signals) -> None:
    delivered: list[int] = []

    def store(index: int, value: int) -> None:
        with contextlib.suppress(KeyboardInterrupt):  # dropped there, too
            signal.raise_signal(number)
        delivered.append(value)

    with pytest.raises(KeyboardInterrupt):
        run_all(same, list(range(40)), executor=executor, workers=2, on_result=store)
    assert 1 <= len(delivered) < 40
