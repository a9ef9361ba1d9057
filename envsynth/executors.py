"""Map a function over items, in this process or in a pool of processes: every item exactly once in the results.

The pool is our own, not `concurrent.futures`, because there one killed worker breaks the whole pool and nobody knows
whose item it was. Here each process holds one item at a time, so a dead worker names its item, and only that item is
tried again. Processes are spawned, never forked: a forked copy would share jails, locks and random state.

Randomness belongs into the items (a seed each), never into the workers: then results do not depend on their number.
"""

from __future__ import annotations

import contextlib
import copy
import multiprocessing
import signal
import traceback
from collections import deque
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from multiprocessing.reduction import ForkingPickler
from types import FrameType, TracebackType
from typing import Any, Generic, Self, TypeVar

from envsynth.errors import WorkError

T = TypeVar("T")
R = TypeVar("R")

GRACE_S = 2.0
"""Seconds that a worker gets to end by itself before it is terminated, and again before it is killed."""


def run_all(
    function: Callable[[T], R],
    items: Sequence[T],
    *,
    workers: int = 1,
    initializer: Callable[[], None] | None = None,
    on_result: Callable[[int, R], None] | None = None,
    retries: int = 1,
    collect: bool = True,
) -> list[R]:
    """Apply a function to every item.

    With one worker everything runs in this process, in order. With more, `function`, `initializer`, items and results
    must be picklable, and a script that calls this needs the usual `if __name__ == "__main__":` guard.

    Only the death of a worker process is retried: an exception would come again. On an exception or Ctrl-C no new item
    starts, the workers end, every result that has arrived is handed to `on_result`, and then the error is raised; so a
    caller who persists in `on_result` loses nothing that was finished.

    Args:
        function: What to apply.
        items: The items, in order.
        workers: Processes (count, >= 1).
        initializer: Called once in every process before its first item.
        on_result: Called in this process as `on_result(index, result)`, once for each item, in order of completion.
        retries: How often an item is tried again after its worker died (count, >= 0).
        collect: Whether results are returned; without, each is forgotten after `on_result`, so that memory does not grow
            with the number of items.

    Returns:
        Results in the order of `items`; none without `collect`.

    Raises:
        WorkError: the function raised (the exception is the cause), a result cannot be pickled, or an item's worker
            died more than `retries` times; `.index` and `.item` say whose.
        ValueError: `workers` < 1 or `retries` < 0.
        KeyboardInterrupt: Ctrl-C, after the results so far were delivered.
    """
    if workers < 1 or retries < 0:
        raise ValueError(f"workers must be >= 1 and retries >= 0, got workers={workers} and retries={retries}")
    if workers == 1 or not items:
        return _run_serial(function, items, initializer, on_result, collect=collect)
    with _Pool(function, items, initializer, on_result, retries, collect) as pool:
        return pool.run(min(workers, len(items)))


def _run_serial(
    function: Callable[[T], R],
    items: Sequence[T],
    initializer: Callable[[], None] | None,
    on_result: Callable[[int, R], None] | None,
    *,
    collect: bool,
) -> list[R]:
    results: list[R] = []
    if items and initializer is not None:
        initializer()
    for index, item in enumerate(items):
        with _Boundary() as boundary:
            results.append(function(item))
        if boundary.error is not None:
            raise _failed(index, item, boundary.error) from boundary.error
        if on_result is not None:
            on_result(index, results[-1])
        if not collect:
            results.clear()
    return results


def _failed(index: int, item: object, error: BaseException) -> WorkError:
    shown = repr(item)
    return WorkError(f"item {index} ({shown[:120]}) failed: {type(error).__name__}: {error}", index, item)


class _Boundary:
    """Catches any `Exception` of foreign code; interrupts and exits pass through."""

    error: Exception | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        if isinstance(value, Exception):
            self.error = value
            return True
        return False


# ------------------------------------------------------------------------------------------------ in the worker process


@dataclass(frozen=True)
class _Reply:
    """What a worker sends back for one item."""

    index: int
    value: Any = None
    error: Exception | None = None


def _work(connection: Connection, function: Callable[[Any], Any], initializer: Callable[[], None] | None) -> None:
    """Serve one pool: receive `(index, item)`, send a `_Reply`, until the connection closes."""
    # Ctrl-C reaches the whole process group; the parent decides what happens to the workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _terminated)
    try:
        _serve(connection, function, initializer)
    finally:
        # From here on the process ends by itself and runs its `atexit` functions. The parent may not have seen that yet
        # and ask a worker to end that it takes for busy: the request must not break off what puts children away.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)


def _serve(connection: Connection, function: Callable[[Any], Any], initializer: Callable[[], None] | None) -> None:
    with _Boundary() as started:
        if initializer is not None:
            initializer()
    while True:
        try:
            index, item = connection.recv()
        except EOFError:
            return
        reply = _Reply(index)
        with _Boundary() as boundary:
            if started.error is not None:
                raise started.error
            reply = _Reply(index, value=function(item))
        if boundary.error is not None:
            reply = _Reply(index, error=_portable(boundary.error))
        try:
            _send(connection, reply)
        except OSError:  # the parent is gone, nobody waits for this result
            return


def _terminated(number: int, frame: FrameType | None) -> None:
    # An orderly exit runs `atexit`, which closes the jail of this process; a second signal must not break that off.
    signal.signal(number, signal.SIG_IGN)
    raise SystemExit(128 + number)


def _send(connection: Connection, reply: _Reply) -> None:
    data = memoryview(b"")
    with _Boundary() as boundary:
        data = ForkingPickler.dumps(reply)
    if boundary.error is not None:
        message = f"its result cannot be pickled ({boundary.error}): return plain records"
        data = ForkingPickler.dumps(_Reply(reply.index, error=WorkError(message, reply.index)))
    connection.send_bytes(data)


def _portable(error: Exception) -> Exception:
    """Return the error if it survives pickling with its message, else a `WorkError` that tells the same."""
    text = "".join(traceback.format_exception(error))
    with _Boundary() as boundary:
        ForkingPickler.dumps(error)
        twin = copy.copy(error)  # rebuilt the way unpickling does it
        if type(twin) is type(error) and str(twin) == str(error):
            error.__cause__ = None
            error.add_note(f"in a worker process:\n{text}")
            return error
    why = "" if boundary.error is None else f" ({boundary.error})"
    substitute = WorkError(f"{type(error).__name__}: {error} [the exception cannot be pickled{why}]")
    substitute.add_note(f"in a worker process:\n{text}")
    return substitute


# ------------------------------------------------------------------------------------------------ in the calling process


@dataclass
class _Seat:
    """One process and the item that it holds."""

    process: BaseProcess
    connection: Connection
    index: int | None = None


@dataclass
class _Pool(Generic[T, R]):
    """The parent's half of the pool."""

    function: Callable[[T], R]
    items: Sequence[T]
    initializer: Callable[[], None] | None
    on_result: Callable[[int, R], None] | None
    retries: int
    collect: bool
    seats: list[_Seat] = field(default_factory=list[_Seat])
    results: dict[int, R] = field(default_factory=dict[int, R])
    done: int = 0
    deaths: dict[int, int] = field(default_factory=dict[int, int])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if isinstance(value, (WorkError, KeyboardInterrupt)):
            self._deliver_arrived()
        self._close()

    def run(self, n_seats: int) -> list[R]:
        """Work on all items with that many processes; raises `WorkError` as `run_all` says."""
        waiting = deque(range(len(self.items)))
        for _ in range(n_seats):
            self.seats.append(self._spawn())
        while self.done < len(self.items):
            self._hand_out(waiting)
            ready = wait([seat.connection for seat in self.seats if seat.index is not None])
            for seat in [seat for seat in self.seats if seat.connection in ready]:
                reply = self._receive(seat)
                if reply is None:
                    waiting.appendleft(self._bury(seat))
                elif reply.error is not None:
                    item = self.items[reply.index]
                    error = _failed(reply.index, item, reply.error)
                    raise error from reply.error
        return [self.results[index] for index in range(len(self.items))] if self.collect else []

    def _spawn(self) -> _Seat:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(
            target=_work,
            args=(theirs, self.function, self.initializer),
            name="envsynth-worker",
            daemon=True,
        )
        process.start()
        theirs.close()  # else the death of the worker would never show as end of file
        return _Seat(process, ours)

    def _hand_out(self, waiting: deque[int]) -> None:
        for position, seat in enumerate(self.seats):
            while self.seats[position].index is None and waiting:
                seat = self.seats[position]
                index = waiting.popleft()
                seat.index = index
                try:
                    seat.connection.send((index, self.items[index]))
                except OSError:  # it died while idle, or under this item
                    waiting.appendleft(self._bury(seat))

    def _receive(self, seat: _Seat) -> _Reply | None:
        """Take one reply and deliver it; None when the worker died instead."""
        try:
            reply: _Reply = seat.connection.recv()
        except (EOFError, OSError):
            return None
        seat.index = None
        if reply.error is None:
            self.done += 1
            if self.collect:
                self.results[reply.index] = reply.value
            if self.on_result is not None:
                self.on_result(reply.index, reply.value)
        return reply

    def _bury(self, seat: _Seat) -> int:
        """Replace a dead worker and return its item, which is to be tried again.

        Raises:
            WorkError: the item has killed more workers than the retries allow.
        """
        index = seat.index
        seat.connection.close()
        _end(seat.process)
        if index is None:
            raise WorkError("a worker process died without an item")
        self.deaths[index] = self.deaths.get(index, 0) + 1
        if self.deaths[index] > self.retries:
            shown = repr(self.items[index])[:120]
            raise WorkError(
                f"item {index} ({shown}) killed its worker process {self.deaths[index]} times "
                f"(last exit code {seat.process.exitcode}): look for exhausted memory or a crash in native code",
                index,
                self.items[index],
            )
        self.seats[self.seats.index(seat)] = self._spawn()
        return index

    def _deliver_arrived(self) -> None:
        """Deliver the results that lie in the pipes already, without waiting for others."""
        for seat in self.seats:
            if seat.index is not None and not seat.connection.closed and seat.connection.poll():
                self._receive(seat)

    def _close(self) -> None:
        with _uninterrupted():
            for seat in self.seats:
                seat.connection.close()
            for seat in self.seats:
                if seat.index is not None:  # busy: it would not look at its connection soon
                    seat.process.terminate()
            for seat in self.seats:
                _end(seat.process)


def _end(process: BaseProcess) -> None:
    process.join(GRACE_S)
    if process.is_alive():
        process.terminate()
        process.join(GRACE_S)
    if process.is_alive():
        process.kill()
        process.join()


@contextlib.contextmanager
def _uninterrupted() -> Generator[None]:
    """Hold Ctrl-C back while processes are put away; only the main thread receives it.

    Raises:
        KeyboardInterrupt: afterwards, when Ctrl-C came meanwhile.
    """
    pending: list[int] = []
    try:
        before = signal.signal(signal.SIGINT, lambda number, frame: pending.append(number))
    except ValueError:  # not the main thread
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if pending:
        raise KeyboardInterrupt
