"""Processes of this machine, one item each at a time.

The pool is our own, not `concurrent.futures`, because there one killed worker breaks the whole pool and nobody knows
whose item it was. Here each process holds one item at a time, so a dead worker names its item, and only that item is
tried again. Processes are spawned, never forked: a forked copy would share jails, locks and random state.
"""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from multiprocessing.reduction import ForkingPickler
from types import FrameType, TracebackType
from typing import Any, Generic, Self, TypeVar

from envsynth.errors import WorkError
from envsynth.executors.interrupts import uninterrupted
from envsynth.executors.replies import Account, Boundary, Reply, answer, start, unsendable

T = TypeVar("T")
R = TypeVar("R")

GRACE_S = 2.0
"""Seconds that a worker gets to end by itself before it is terminated, and again before it is killed."""


# ------------------------------------------------------------------------------------------------ in the worker process


def _work(
    connection: Connection,
    function: Callable[[Any], Any],
    initializer: Callable[[], None] | None,
    processor: int | None,
) -> None:
    """Serve one pool: receive `(index, item)`, send a `Reply`, until the connection closes."""
    if processor is not None:
        with contextlib.suppress(OSError):  # where that is forbidden, it only takes longer
            os.sched_setaffinity(0, {processor})
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
    # What is imported by now lives as long as the process: to look through it again and again frees nothing.
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)
    broken = start(initializer)
    while True:
        try:
            index, item = connection.recv()
        except EOFError:
            return
        try:
            _send(connection, answer(function, index, item, broken))
        except OSError:  # the parent is gone, nobody waits for this result
            return


def _terminated(number: int, frame: FrameType | None) -> None:
    # An orderly exit runs `atexit`, which closes the jail of this process; a second signal must not break that off.
    signal.signal(number, signal.SIG_IGN)
    raise SystemExit(128 + number)


def _send(connection: Connection, reply: Reply) -> None:
    data = memoryview(b"")
    with Boundary() as boundary:
        data = ForkingPickler.dumps(reply)
    if boundary.error is not None:
        data = ForkingPickler.dumps(unsendable(reply.index, boundary.error))
    connection.send_bytes(data)


# ------------------------------------------------------------------------------------------------ in the calling process


def _processors(count: int) -> list[int | None]:
    """Which processor each of so many processes keeps to; none where they do not share them evenly.

    Nor where they are fewer: another program that does the same would take the same ones.
    """
    allowed = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    if not allowed or count % len(allowed):
        return [None] * count
    return [allowed[place % len(allowed)] for place in range(count)]


@dataclass
class _Seat:
    """One process and the item that it holds."""

    process: BaseProcess
    connection: Connection
    processor: int | None
    index: int | None = None


@dataclass
class Pool(Generic[T, R]):
    """The parent's half of the pool; a context manager that ends its processes."""

    function: Callable[[T], R]
    """What to apply."""
    initializer: Callable[[], None] | None
    """Called once in every process."""
    account: Account[T, R]
    """What is done."""
    bind: bool = False
    """Whether each process keeps to one processor, where they are as many."""
    seats: list[_Seat] = field(default_factory=list[_Seat])
    """The processes."""

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

    def run(self, n_seats: int) -> None:
        """Work on all items with that many processes.

        Args:
            n_seats: Processes.

        Raises:
            WorkError: as `run_all` says.
        """
        waiting = deque(range(len(self.account.items)))
        processors = _processors(n_seats) if self.bind else [None] * n_seats
        for processor in processors:
            self.seats.append(self._spawn(processor))
        while not self.account.done:
            self._hand_out(waiting)
            ready = wait([seat.connection for seat in self.seats if seat.index is not None])
            for seat in [seat for seat in self.seats if seat.connection in ready]:
                reply = self._receive(seat)
                if reply is None:
                    waiting.appendleft(self._bury(seat))
                elif reply.error is not None:
                    raise self.account.failed(reply, reply.error) from reply.error

    def _spawn(self, processor: int | None) -> _Seat:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(
            target=_work,
            args=(theirs, self.function, self.initializer, processor),
            name="envsynth-worker",
            daemon=True,
        )
        process.start()
        theirs.close()  # else the death of the worker would never show as end of file
        return _Seat(process, ours, processor)

    def _hand_out(self, waiting: deque[int]) -> None:
        for position, seat in enumerate(self.seats):
            while self.seats[position].index is None and waiting:
                seat = self.seats[position]
                index = waiting.popleft()
                seat.index = index
                try:
                    seat.connection.send((index, self.account.items[index]))
                except OSError:  # it died while idle, or under this item
                    waiting.appendleft(self._bury(seat))

    def _receive(self, seat: _Seat) -> Reply | None:
        """Take one reply and deliver it; None when the worker died instead."""
        try:
            reply: Reply = seat.connection.recv()
        except (EOFError, OSError):
            return None
        seat.index = None
        if reply.error is None:
            self.account.deliver(reply)
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
        self.account.died(index, f"last exit code {seat.process.exitcode}")
        self.seats[self.seats.index(seat)] = self._spawn(seat.processor)
        return index

    def _deliver_arrived(self) -> None:
        """Deliver the results that lie in the pipes already, without waiting for others."""
        for seat in self.seats:
            if seat.index is not None and not seat.connection.closed and seat.connection.poll():
                self._receive(seat)

    def _close(self) -> None:
        with uninterrupted():
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
