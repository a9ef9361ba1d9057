"""Tasks of a Ray cluster, one item each: the only door to Ray, which is loaded when it is first asked for.

Ray itself retries nothing here: its tasks die with their worker, and the account that the pool keeps as well decides
whether the item is tried again. So both executors count deaths alike, and an item never runs again after an exception.
"""

from __future__ import annotations

import contextlib
import importlib
import itertools
import os
import signal
import socket
import threading
from collections import deque
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from types import ModuleType, TracebackType
from typing import Any, Generic, Self, TypeVar

from envsynth.errors import MissingExtra, WorkError
from envsynth.executors.interrupts import uninterrupted
from envsynth.executors.replies import Account, Reply, answer, start, unsendable

T = TypeVar("T")
R = TypeVar("R")

REACH_S = 5.0
"""Seconds that the head of a cluster has to accept a connection; Ray itself would try for minutes."""
STORE_BYTES = 256 << 20
"""Shared memory of a cluster of our own: results are fetched as soon as they are there."""

_SHOWN = 300
"""Characters of what Ray says."""
_calls = itertools.count()
_started: dict[int, Exception | None] = {}
"""In a worker: what the initializer of each call raised."""


def load_ray() -> ModuleType:
    """Load Ray.

    Returns:
        The library.

    Raises:
        MissingExtra: it is not installed.
    """
    # Our runs are reproducible and offline; nothing is reported to anybody unless the user asks for it.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        return importlib.import_module("ray")
    except ImportError as error:
        raise MissingExtra(
            "the executor 'ray' needs Ray, which is not installed: pip install 'envsynth[ray]'"
        ) from error


def _serve(
    call: int, initializer: Callable[[], None] | None, function: Callable[[Any], Any], index: int, item: Any
) -> Reply:
    """Answer one item in a worker of Ray, which serves many items one after the other."""
    if call not in _started:
        _started[call] = start(initializer)
    return answer(function, index, item, _started[call])


@dataclass
class RayTasks(Generic[T, R]):
    """The caller's half; a context manager that cancels what runs and ends a cluster of its own."""

    function: Callable[[T], R]
    """What to apply."""
    initializer: Callable[[], None] | None
    """Called once in every worker."""
    account: Account[T, R]
    """What is done."""
    address: str | None
    """Of the cluster; `$RAY_ADDRESS` or a cluster of its own when None."""
    n_seats: int
    """Tasks at a time."""
    tasks: dict[Any, int] = field(default_factory=dict[Any, int])
    """Running tasks with their items."""
    owned: bool = False
    """Whether the connection to Ray was made here."""

    def __enter__(self) -> Self:
        self._ray: Any = load_ray()
        if not self._ray.is_initialized():
            self._connect(self.address or os.environ.get("RAY_ADDRESS") or "local")
            self.owned = True
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if isinstance(value, (WorkError, KeyboardInterrupt)):
                self._deliver_arrived()
        finally:
            with uninterrupted():
                for task in self.tasks:
                    self._ray.cancel(task, force=True)
                if self.owned:
                    self._ray.shutdown()

    def run(self) -> None:
        """Work on all items.

        Raises:
            WorkError: as `run_all` says.
        """
        call = next(_calls)
        remote = self._ray.remote(num_cpus=1, max_retries=0)(_serve)
        # Sent once, not with every task.
        common = [self._ray.put(part) for part in (self.initializer, self.function)]
        waiting = deque(range(len(self.account.items)))
        while not self.account.done:
            while waiting and len(self.tasks) < self.n_seats:
                index = waiting.popleft()
                self.tasks[remote.remote(call, *common, index, self.account.items[index])] = index
            ready, _ = self._ray.wait(list(self.tasks), num_returns=1)
            for task in ready:
                index = self.tasks.pop(task)
                reply = self._receive(task, index)
                if isinstance(reply, str):
                    self.account.died(index, reply)
                    waiting.appendleft(index)
                elif reply.error is not None:
                    raise self.account.failed(reply, reply.error) from reply.error
                else:
                    self.account.deliver(reply)

    def _receive(self, task: Any, index: int) -> Reply | str:
        """Fetch the reply of a task that has ended, or what Ray says of the death of its worker."""
        errors = self._ray.exceptions
        deaths = (errors.WorkerCrashedError, errors.NodeDiedError, errors.OutOfMemoryError, errors.ObjectLostError)
        try:
            reply: Reply = self._ray.get(task)
        except deaths as error:
            return f"Ray says {type(error).__name__}: {' '.join(str(error).split())[:_SHOWN]}"
        except errors.RayTaskError as error:
            # `answer` raises nothing: this is Ray at work on the item or on the reply.
            return unsendable(index, error.cause)
        except errors.RayError as error:
            return Reply(index, error=WorkError(f"Ray failed: {type(error).__name__}: {error}", index))
        return reply

    def _deliver_arrived(self) -> None:
        """Deliver the results that are there already, without waiting for others."""
        if not self.tasks:
            return
        ready, _ = self._ray.wait(list(self.tasks), num_returns=len(self.tasks), timeout=0)
        for task in ready:
            reply = self._receive(task, self.tasks.pop(task))
            if isinstance(reply, Reply) and reply.error is None:
                self.account.deliver(reply)

    def _connect(self, address: str) -> None:
        """Join a cluster, or make one on this machine.

        Raises:
            WorkError: there is none at that address, or Ray does not start.
        """
        options: dict[str, Any] = {"logging_level": "ERROR", "configure_logging": True}
        if address == "local":
            options |= {"num_cpus": self.n_seats, "include_dashboard": False, "object_store_memory": STORE_BYTES}
        else:
            _reach(address)
        try:
            with _own_signals():
                self._ray.init(address=address, **options)
        except (ConnectionError, OSError, RuntimeError, ValueError, TimeoutError) as error:
            raise WorkError(
                f"Ray at {address!r} cannot be used: {error}: check the address with `ray status`"
            ) from error


def _reach(address: str) -> None:
    """Refuse an address at which nobody listens.

    Raises:
        WorkError: it is malformed, or no connection is accepted.
    """
    if address == "auto":
        return
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not (host and colon and port.isdigit()):
        raise WorkError(f"{address!r} is no address of Ray: give HOST:PORT, or auto for a cluster on this machine")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=REACH_S).close()
    except (OSError, OverflowError) as error:
        raise WorkError(
            f"no Ray cluster at {address!r}: {error}: start one there with `ray start --head`, or give another address"
        ) from error


@contextlib.contextmanager
def _own_signals() -> Generator[None]:
    """Keep what this process does on SIGTERM, which Ray replaces when it starts."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)
