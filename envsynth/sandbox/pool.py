"""Workers forked, warmed and loaded before anybody needs them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from envsynth.errors import SandboxError
from envsynth.sandbox.result import Failure
from envsynth.sandbox.worker import Worker

_KILLED = (Failure.MEMORY.value, Failure.SANDBOX_UNAVAILABLE.value)
"""How an idle worker ends that was killed from outside, as when memory runs out: no fault of its code."""


def started(worker: Worker) -> Worker:
    """Wait until a worker has started; it is closed when it fails to.

    Raises:
        SandboxError: As `Worker.await_start`.
    """
    try:
        worker.await_start()
    except BaseException:
        worker.close()
        raise
    return worker


class WorkerPool:
    """Idle workers of one family.

    Refilled in lumps, without waiting: the zygote forks and the workers warm up while the host does something else. The
    lump doubles each time that somebody had to wait, and is nothing the first time: a family that is asked for once pays
    for one worker.

    Args:
        spawn: Asks for one worker without waiting; it has its code and posts the start.
        size: Most idle workers.
        room: How many more workers the jail may have.
    """

    def __init__(self, spawn: Callable[[], Worker], size: int, room: Callable[[], int]) -> None:
        self._spawn = spawn
        self.size = size
        """Most idle workers."""
        self._room = room
        self._lump = 0
        self._asked = False
        self._idle: deque[Worker] = deque()
        self._closed = False

    def __len__(self) -> int:
        """Idle workers."""
        return len(self._idle)

    def take(self) -> Worker:
        """Hand out a worker: loaded, never used, now the caller's to close.

        Raises:
            SandboxError: None could be forked, or its code does not load; `failure` says which.
        """
        if self._closed:
            raise SandboxError("this pool of workers is closed")
        if len(self._idle) <= self._lump // 2 and self._idle:
            self.fill(self._lump)
        while self._idle:
            worker = self._idle.popleft()
            try:
                if started(worker).running:
                    return worker
            except SandboxError as error:
                if error.failure not in _KILLED:
                    raise
            worker.close()
        worker = self._spawn()
        if self._asked:
            self._lump = min(max(1, 2 * self._lump), self.size)
            self.fill(self._lump)
        self._asked = True
        return started(worker)

    def fill(self, count: int) -> None:
        """Ask for workers until so many are idle, or the jail has as many as it may have.

        Raises:
            SandboxError: The jail is gone.
        """
        while len(self._idle) < min(count, self.size) and self._room() > 0:
            self._idle.append(self._spawn())

    def drop_one(self) -> bool:
        """End an idle worker, if there is one, to make room for another family's."""
        if not self._idle:
            return False
        self._idle.pop().close()
        return True

    def close(self) -> None:
        """End the idle workers; may be called again."""
        self._closed = True
        while self._idle:
            self._idle.popleft().close()
