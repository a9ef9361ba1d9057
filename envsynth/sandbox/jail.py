"""The process jail: starts the zygote, forks workers from it, ends it. Fails closed where it cannot confine."""

from __future__ import annotations

import atexit
import json
import os
import select
import socket
import subprocess
import sys
import sysconfig
import threading
import weakref
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn, Self

from pydantic import JsonValue

from envsynth.errors import SandboxError
from envsynth.sandbox.channel import Channel
from envsynth.sandbox.result import Limits
from envsynth.sandbox.worker import Role, Worker

_BOOT = Path(__file__).with_name("jailed") / "boot.py"

START_S, ANSWER_S, END_S = 60.0, 20.0, 5.0
"""Seconds that the zygote has to start, to answer a request, and to end."""


class Jail:
    """One zygote process from which confined workers are forked; a context manager, not picklable.

    Several workers may live at once; `worker` may be called from several threads.

    Args:
        limits: What each worker may use.
        namespaces: Whether to use namespaces where the kernel permits it.
        landlock: Whether to use Landlock where the kernel has it.
        pin: Whether to bind this process and all workers to one processor while the jail is open; a synchronous loop
            is then several times faster, because nothing has to be woken on another processor.
        extra_modules: Modules of the standard library to preload besides the usual ones.

    Raises:
        SandboxError: The jail could not be started or could not confine itself.
    """

    layers: dict[str, str]
    """Which layers hold, for people: layer to state; a state that starts with `off` is missing."""

    def __init__(
        self,
        limits: Limits | None = None,
        *,
        namespaces: bool = True,
        landlock: bool = True,
        pin: bool = False,
        extra_modules: tuple[str, ...] = (),
    ) -> None:
        self._limits = limits or Limits()
        self._owner = os.getpid()
        self._closed = False
        self._lock = threading.RLock()
        self._workers: weakref.WeakSet[Worker] = weakref.WeakSet()
        self._affinity: set[int] | None = None
        if pin:
            self._pin()
        options = {
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
        try:
            self._control, self._process = _start_process(options)
            self.layers = self._await_ready()
        except BaseException:
            self._unpin()
            raise

    @property
    def limits(self) -> Limits:
        """What each worker may use."""
        return self._limits

    @property
    def alive(self) -> bool:
        """Whether workers can be forked."""
        return not self._closed and self._process.poll() is None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if hasattr(self, "layers"):
            self.close()

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Jail is a process and cannot be pickled; call shared_jail() in the other process")

    def worker(self, role: Role, seed: int = 0) -> Worker:
        """Fork a worker with a fresh namespace.

        Args:
            role: Who wrote the code that will run in it.
            seed: Seed of its `random` module.

        Returns:
            The worker, confined and ready.

        Raises:
            SandboxError: The jail is closed or broken, or belongs to another process.
        """
        if os.getpid() != self._owner:
            raise SandboxError("this jail belongs to another process: call shared_jail() here")
        ours, theirs = socket.socketpair()
        try:
            answer, descriptors = self._exchange({"op": "fork"}, [theirs.fileno()])
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        if "error" in answer:
            ours.close()
            raise SandboxError(f"no worker could be forked: {answer['error']}")
        channel = Channel(ours, self._limits.frame_bytes, self._limits.blob_bytes)
        pidfd = descriptors[0] if descriptors else None
        worker = Worker(channel, int(answer["pid"]), pidfd, role, self._limits, self._ask)
        self._workers.add(worker)
        started = worker.start(seed)
        if not started.ok:
            worker.close()
            raise SandboxError(f"a fresh worker failed: {started.status.value}: {started.message}")
        return worker

    def close(self) -> None:
        """End the zygote and all of its workers; may be called again."""
        if self._closed:
            return
        self._closed = True
        if os.getpid() != self._owner:  # a fork of the owner: drop our copy of the socket, leave the processes alone
            self._control.close()
            self._process.returncode = 0  # not a child of this process; keeps Popen from looking for it
            return
        for worker in list(self._workers):
            worker.close()
        self._control.close()
        try:
            self._process.wait(END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._unpin()

    # -------------------------------------------------------------------------------------------- zygote

    def _ask(self, request: dict[str, JsonValue]) -> dict[str, Any]:
        return self._exchange(request, [])[0]

    def _exchange(self, request: dict[str, JsonValue], descriptors: list[int]) -> tuple[dict[str, Any], list[int]]:
        with self._lock:
            if self._closed:
                raise SandboxError("this jail is closed: make a new one, or call shared_jail()")
            try:
                socket.send_fds(self._control, [json.dumps(request).encode()], descriptors)
                return self._receive(ANSWER_S)
            except OSError as error:
                raise SandboxError(f"the jail is gone ({error}): make a new one, or call shared_jail()") from error
            except SandboxError:
                raise
            except BaseException:  # interrupted before the answer: later answers would be taken for this one
                self._process.kill()
                raise

    def _receive(self, seconds: float) -> tuple[dict[str, Any], list[int]]:
        poll = select.poll()
        poll.register(self._control, select.POLLIN)
        if not poll.poll(seconds * 1000):
            self._process.kill()
            raise SandboxError(f"the jail did not answer within {seconds:g} s and was ended")
        data, descriptors, _, _ = socket.recv_fds(self._control, 8192, 1)
        if not data:
            raise SandboxError("the jail has ended: make a new one, or call shared_jail()")
        return json.loads(data), descriptors

    def _await_ready(self) -> dict[str, str]:
        try:
            answer, _ = self._receive(START_S)
            problem = str(answer.get("error", ""))
        except SandboxError as error:
            answer, problem = {}, str(error)
        if not problem:
            if self._process.stderr is not None:
                self._process.stderr.close()
            return dict(answer["layers"])
        self._control.close()
        self._process.kill()
        _, said = self._process.communicate()
        detail = said.decode(errors="replace").strip()[-500:]
        raise SandboxError(
            f"the sandbox is not available: {problem}{' | ' + detail if detail else ''}; untrusted code needs Linux with "
            "seccomp on x86_64 or aarch64, see `envsynth doctor sandbox`"
        )

    def _pin(self) -> None:
        self._affinity = os.sched_getaffinity(0)
        processors = sorted(self._affinity)
        os.sched_setaffinity(0, {processors[self._owner % len(processors)]})

    def _unpin(self) -> None:
        if self._affinity is not None:
            os.sched_setaffinity(0, self._affinity)
            self._affinity = None


def _start_process(options: dict[str, Any]) -> tuple[socket.socket, subprocess.Popen[bytes]]:
    if sys.platform != "linux":
        raise SandboxError(f"the process jail needs Linux, this is {sys.platform}")
    if not sys.executable:
        raise SandboxError("the jail needs a Python interpreter to start, and sys.executable is empty")
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    command = [sys.executable, "-S", "-s", "-P", str(_BOOT), str(theirs.fileno()), json.dumps(options)]
    try:
        process = subprocess.Popen(  # a fresh interpreter: nothing of this process's memory is in it
            command,
            pass_fds=[theirs.fileno()],
            env=_environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            cwd="/",
            start_new_session=True,  # Ctrl-C in a terminal is for the host alone
        )
    except OSError as error:
        ours.close()
        raise SandboxError(f"the jail's interpreter {sys.executable} could not be started: {error}") from error
    finally:
        theirs.close()
    return ours, process


def _environment() -> dict[str, str]:
    """Return the zygote's whole environment; a fixed hash seed makes the order of sets repeatable."""
    found = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1"}
    if sysconfig.get_config_var("Py_ENABLE_SHARED"):
        folders = (f"{sys.base_prefix}/lib", str(sysconfig.get_config_var("LIBDIR") or ""))
        found["LD_LIBRARY_PATH"] = ":".join(dict.fromkeys(folder for folder in folders if folder))
    return found


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
