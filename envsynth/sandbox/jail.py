"""The process jail: workers on demand or from warm pools, over a zygote that is replaced when it is old or has died."""

from __future__ import annotations

import atexit
import os
import socket
import threading
import weakref
from collections import OrderedDict
from types import TracebackType
from typing import Any, ClassVar, NoReturn, Self

from envsynth.errors import SandboxError
from envsynth.sandbox.channel import Channel
from envsynth.sandbox.control_group import ControlGroup
from envsynth.sandbox.families import Family, Source
from envsynth.sandbox.pool import WorkerPool, started
from envsynth.sandbox.process import WorkerProcess
from envsynth.sandbox.result import Limits, Role
from envsynth.sandbox.worker import Worker
from envsynth.sandbox.zygote import Zygote

MAX_WORKERS = 2_000
"""Living workers of one jail, idle ones of its pools included."""

FORKS_PER_ZYGOTE = 20_000
"""Workers after which a fresh zygote takes over, so that nothing can pile up in one."""

MAX_POOLS = 16
"""Pools of idle workers that one jail keeps; the one that was used longest ago leaves first."""

MAX_CODE_BYTES = 32 << 20
"""Bytecode that one jail keeps, by hash of its sources."""


class Jail:
    """Where confined workers come from; a context manager, not picklable.

    Several workers may live at once; `worker` and `ready_worker` may be called from several threads. A zygote that died is
    replaced at the next request; its workers are dead, and say so.

    Args:
        limits: What each worker may use.
        namespaces: Whether to use namespaces where the kernel permits it.
        landlock: Whether to use Landlock where the kernel has it.
        pin: Whether to bind this process and all workers to one processor while the jail is open; a synchronous loop
            is then several times faster, because nothing has to be woken on another processor. A number says which of
            the processors that this process may use (modulo their count): give each rollout process another one.
        extra_modules: Modules of the standard library to preload besides the usual ones.
        max_workers: Living workers at most.
        total_memory_mb: Memory of all workers together, MiB, where the host may make control groups; half of the
            machine's when None.
        forks_per_zygote: Workers after which a fresh zygote takes over.

    Raises:
        SandboxError: The jail could not be started or could not confine itself.
    """

    _HASH_SEED: ClassVar[int] = 0
    """Seed of the workers' hashes of texts, which order sets."""

    def __init__(
        self,
        limits: Limits | None = None,
        *,
        namespaces: bool = True,
        landlock: bool = True,
        pin: bool | int = False,
        extra_modules: tuple[str, ...] = (),
        max_workers: int = MAX_WORKERS,
        total_memory_mb: int | None = None,
        forks_per_zygote: int = FORKS_PER_ZYGOTE,
    ) -> None:
        self._limits = limits or Limits()
        self._owner = os.getpid()
        self._closed = False
        self._lock = threading.RLock()
        self._workers: weakref.WeakSet[Worker] = weakref.WeakSet()
        self._max_workers = max_workers
        self._forks_per_zygote = forks_per_zygote
        self._retired: list[Zygote] = []
        self._pools: OrderedDict[str, WorkerPool] = OrderedDict()
        self._code: OrderedDict[str, bytes] = OrderedDict()
        self._total_memory_mb = total_memory_mb
        self._reseeded: Jail | None = None
        self._affinity: set[int] | None = None
        if pin is not False:
            self._pin(self._owner if pin is True else pin)
        self._options: dict[str, Any] = {
            "host": self._owner,
            "namespaces": namespaces,
            "landlock": landlock,
            "extra_modules": list(extra_modules),
            "cpu_s": self._limits.cpu_s,
            "memory_mb": self._limits.memory_mb,
            "frame_bytes": self._limits.frame_bytes,
            "blob_bytes": self._limits.blob_bytes,
            "stdout_bytes": self._limits.stdout_bytes,
        }
        self._group = ControlGroup(total_memory_mb, max_workers)
        try:
            self._zygote = self._start_zygote()
        except BaseException:
            self._group.close()
            self._unpin()
            raise

    @property
    def layers(self) -> dict[str, str]:
        """Which layers hold, for people: layer to state; a state that starts with `off` is missing."""
        return {**self._zygote.layers, "control group": self._group.state}

    @property
    def limits(self) -> Limits:
        """What each worker may use."""
        return self._limits

    @property
    def alive(self) -> bool:
        """Whether it is open."""
        return not self._closed

    def reseeded(self) -> Jail:
        """Return a jail of the same limits whose workers hash texts with another seed: their sets have other orders.

        It is started on first use and closed with this one.

        Raises:
            SandboxError: It could not be started, or this one is closed or belongs to another process.
        """
        with self._lock:
            self._check_owner()
            if self._reseeded is None or not self._reseeded.alive:
                self._reseeded = _Reseeded(
                    self,
                    self._limits,
                    namespaces=bool(self._options["namespaces"]),
                    landlock=bool(self._options["landlock"]),
                    extra_modules=tuple(self._options["extra_modules"]),
                    max_workers=self._max_workers,
                    total_memory_mb=self._total_memory_mb,
                    forks_per_zygote=self._forks_per_zygote,
                )
            return self._reseeded

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if hasattr(self, "_zygote"):
            self.close()

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Jail is a process and cannot be pickled; call shared_jail() in the other process")

    # -------------------------------------------------------------------------------------------- workers

    def worker(self, role: Role, seed: int = 0, sources: tuple[Source, ...] = ()) -> Worker:
        """Fork a worker with a fresh namespace.

        Args:
            role: Who wrote the code that will run in it.
            seed: Seed of its `random` module.
            sources: What it loads at once; compiled only the first time that they are asked for.

        Returns:
            The worker, confined and ready.

        Raises:
            SandboxError: The jail is closed or broken, belongs to another process, or has too many workers. Or a source
                does not compile or load, and `failure` says how it ended.
        """
        return started(self._spawn(role, self.compiled(sources) if sources else b"", seed, warm=False))

    def ready_worker(self, family: Family, idle: int = 4) -> Worker:
        """Hand out a worker that was forked, warmed and loaded with its family's code before; never a used one.

        Args:
            family: What it has loaded.
            idle: Most workers that wait for later calls.

        Returns:
            The worker, the caller's to close.

        Raises:
            SandboxError: As `worker`; or the code does not compile or load, and `failure` says how it ended.
        """
        with self._lock:
            return self._pool(family, idle).take()

    def fill(self, family: Family, count: int) -> None:
        """Ask for workers of a family until so many are idle, without waiting for them.

        Raises:
            SandboxError: As `ready_worker`.
        """
        with self._lock:
            self._pool(family, count).fill(count)

    def _pool(self, family: Family, idle: int) -> WorkerPool:
        self._check_owner()
        pool = self._pools.pop(family.key, None)
        if pool is None:
            code = self.compiled(family.sources) if family.sources else b""
            pool = WorkerPool(lambda: self._spawn(family.role, code, 0, True, family.image), idle, self._room)
        pool.size = max(pool.size, idle)
        self._pools[family.key] = pool
        while len(self._pools) > MAX_POOLS:
            self._pools.popitem(last=False)[1].close()
        return pool

    def compiled(self, sources: tuple[Source, ...]) -> bytes:
        """Compile sources in a worker that does nothing else; the result is kept and never read here.

        Args:
            sources: What to compile.

        Returns:
            Bytecode for `Worker.load_code`.

        Raises:
            SandboxError: A source does not compile; the message says which and where. Or as `worker`.
        """
        key = Family("compiler", sources).key
        with self._lock:
            found = self._code.pop(key, None)
            if found is None:
                with self.worker("compiler") as worker:
                    result = worker.compile(sources)
                if not result.ok:
                    text = f"{result.error_type}: {result.message}" if result.error_type else result.message
                    raise SandboxError(text, result.status.value)
                found = result.blob
            self._code[key] = found
            while sum(map(len, self._code.values())) > MAX_CODE_BYTES and len(self._code) > 1:
                self._code.popitem(last=False)
        return found

    def _spawn(self, role: Role, code: bytes, seed: int, warm: bool, image: bytes = b"") -> Worker:
        """Ask for a worker and post its start, without waiting for either.

        Raises:
            SandboxError: The jail is closed or broken, belongs to another process, or has too many workers.
        """
        with self._lock:
            zygote = self._current()
            if self._room() <= 0 and not any(pool.drop_one() for pool in self._pools.values()):
                raise SandboxError(
                    f"{len(self._workers)} workers are alive, at most {self._max_workers} may be: close some, or give the "
                    "jail a larger max_workers"
                )
            ours, theirs = socket.socketpair()
            try:
                ticket = zygote.fork(theirs.fileno())
            except BaseException:
                ours.close()
                raise
            finally:
                theirs.close()
            zygote.living += 1
            channel = Channel(ours, self._limits.frame_bytes, self._limits.blob_bytes)
            process = WorkerProcess(zygote, ticket, self._limits.cpu_s)
            worker = Worker(channel, process, role, self._limits, self._ended)
            self._workers.add(worker)
        worker.post_start(seed, code, warm, image)
        return worker

    def _room(self) -> int:
        return self._max_workers - len(self._workers)

    def _start_zygote(self) -> Zygote:
        return Zygote(self._options, self._group.add, self._HASH_SEED)

    def _ended(self, worker: Worker) -> None:
        if os.getpid() != self._owner:  # in a fork another thread may have held the lock, for ever
            return
        with self._lock:
            self._workers.discard(worker)
            for zygote in [old for old in self._retired if old.living <= 0]:
                self._retired.remove(zygote)
                zygote.close()

    def _check_owner(self) -> None:
        if os.getpid() != self._owner:
            raise SandboxError("this jail belongs to another process: call shared_jail() here")
        if self._closed:
            raise SandboxError("this jail is closed: make a new one, or call shared_jail()")

    def _current(self) -> Zygote:
        """The zygote to fork from: a new one when the last is old or dead."""
        self._check_owner()
        old = self._zygote
        if not old.alive or old.forks >= self._forks_per_zygote:
            self._zygote = self._start_zygote()
            if old.alive and old.living > 0:
                self._retired.append(old)
            else:
                old.close()
        return self._zygote

    def close(self) -> None:
        """End the zygotes and all workers; may be called again."""
        if self._closed:
            return
        self._closed = True
        if self._reseeded is not None:
            self._reseeded.close()
        zygotes = [self._zygote, *self._retired]
        if os.getpid() != self._owner:  # a fork of the owner: drop our copies of the sockets, leave the processes alone
            for zygote in zygotes:
                zygote.forget()
            return
        for worker in list(self._workers):
            worker.close()
        for zygote in zygotes:
            zygote.close()
        self._group.close()
        self._unpin()

    # -------------------------------------------------------------------------------------------- processors

    def _pin(self, number: int) -> None:
        self._affinity = os.sched_getaffinity(0)
        processors = sorted(self._affinity)
        os.sched_setaffinity(0, {processors[number % len(processors)]})

    def _unpin(self) -> None:
        if self._affinity is not None:
            os.sched_setaffinity(0, self._affinity)
            self._affinity = None


class _Reseeded(Jail):
    """A jail whose workers hash texts with another seed; bytecode, which does not depend on it, comes from the first one."""

    _HASH_SEED = 1

    def __init__(self, first: Jail, limits: Limits, **options: Any) -> None:
        self._first = first
        super().__init__(limits, **options)

    def compiled(self, sources: tuple[Source, ...]) -> bytes:
        """Compile sources in the first jail, where they mostly are compiled already."""
        return self._first.compiled(sources)


# ------------------------------------------------------------------------------------------------------------- shared

_shared: dict[int, Jail] = {}
_shared_lock = threading.Lock()


def shared_jail() -> Jail:
    """Return this process's jail: started on first use, again if it has died, closed at exit.

    Returns:
        A jail with default limits.

    Raises:
        SandboxError: It could not be started.
    """
    pid = os.getpid()
    with _shared_lock:
        jail = _shared.get(pid)
        if jail is None or not jail.alive:
            if jail is not None:
                jail.close()
            jail = _shared[pid] = Jail()
        return jail


def _close_shared() -> None:
    jail = _shared.pop(os.getpid(), None)
    if jail is not None:
        jail.close()


def _after_fork_in_child() -> None:
    global _shared_lock
    # Another thread of the parent may have held the old one.
    _shared_lock = threading.Lock()
    for jail in _shared.values():
        jail.close()
    _shared.clear()


atexit.register(_close_shared)
os.register_at_fork(after_in_child=_after_fork_in_child)
