"""The host's handle of a zygote: starts it, asks it for workers without waiting for each, ends it."""

from __future__ import annotations

import importlib.util
import json
import select
import socket
import subprocess
import sys
import sysconfig
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from envsynth.errors import SandboxError

_BOOT = Path(__file__).with_name("jailed") / "boot.py"

START_S, ANSWER_S, END_S = 60.0, 20.0, 5.0
"""Seconds that the zygote has to start, to answer a request, and to end."""

_UNDER_WAY = 4
"""Requests on their way at a time: a sequenced-packet socket may hold as few as ten, and both sides would wait for ever."""


@dataclass(eq=False)
class Ticket:
    """A request that the zygote has not answered yet."""

    answer: dict[str, Any] | None = None
    """What it said."""
    descriptors: list[int] = field(default_factory=list[int])
    """What it sent along."""
    problem: str = ""
    """Why there will be no answer."""


class Zygote:
    """One process from which workers are forked.

    Requests are answered in order, so several may be on their way; safe for several threads.

    Args:
        options: The fields of `envsynth.sandbox.jailed.zygote.Options`.
        on_start: Called with the process number at once, before it has forked or confined itself.
        hash_seed: Seed of the interpreter's hashes of texts, which order sets.

    Raises:
        SandboxError: It could not be started or could not confine itself.
    """

    layers: dict[str, str]
    """Which layers hold, for people: layer to state; a state that starts with `off` is missing."""

    def __init__(
        self, options: dict[str, Any], on_start: Callable[[int], None] = lambda _: None, hash_seed: int = 0
    ) -> None:
        self._lock = threading.RLock()
        self._open_tickets: deque[Ticket] = deque()
        self.forks = 0
        """Workers asked for so far."""
        self.living = 0
        """Workers that have not been closed."""
        self.closed = False
        self._control, self._process = _start_process(options, hash_seed)
        on_start(self._process.pid)
        self.layers = self._await_ready()

    @property
    def pid(self) -> int:
        """Process number of the guard above the zygote; the two end together."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether workers can be forked."""
        return not self.closed and self._process.poll() is None

    def fork(self, session_fd: int) -> Ticket:
        """Ask for a worker at the other end of a socket; `settle` the ticket to learn its number.

        Raises:
            SandboxError: The zygote is gone.
        """
        self.forks += 1
        return self._send({"op": "fork"}, [session_fd])

    def ask(self, request: dict[str, JsonValue]) -> dict[str, Any]:
        """Ask about a worker and wait for the answer.

        Raises:
            SandboxError: The zygote is gone or does not answer.
        """
        return self.settle(self._send(request, []))

    def settle(self, ticket: Ticket) -> dict[str, Any]:
        """Wait for the answer to a request.

        Raises:
            SandboxError: The zygote is gone or does not answer.
        """
        with self._lock:
            while ticket.answer is None and not ticket.problem:
                self._take_answer()
        if ticket.answer is None:
            raise SandboxError(ticket.problem)
        return ticket.answer

    def _take_answer(self) -> None:
        """Receive one answer, for the oldest open ticket."""
        try:
            answer, descriptors = self._receive(ANSWER_S)
            first = self._open_tickets.popleft()
            first.answer, first.descriptors = answer, descriptors
        except SandboxError as error:
            self._give_up(str(error))
        except BaseException:  # interrupted between an answer and its ticket: later ones would be mixed up
            self._process.kill()
            self._give_up("the host was interrupted while it waited for the jail")
            raise

    def _send(self, request: dict[str, JsonValue], descriptors: list[int]) -> Ticket:
        ticket = Ticket()
        with self._lock:
            if self.closed:
                raise SandboxError("this jail is closed: make a new one, or call shared_jail()")
            while len(self._open_tickets) >= _UNDER_WAY:
                self._take_answer()
            try:
                socket.send_fds(self._control, [json.dumps(request).encode()], descriptors)
            except OSError as error:
                self._give_up(f"the jail has ended ({error})")
                raise SandboxError(f"the jail has ended ({error}); the next worker comes from a new one") from error
            except BaseException:  # nobody knows whether it was sent
                self._process.kill()
                self._give_up("the host was interrupted while it asked the jail")
                raise
            self._open_tickets.append(ticket)
        return ticket

    def _give_up(self, problem: str) -> None:
        while self._open_tickets:
            self._open_tickets.popleft().problem = problem

    def _receive(self, seconds: float) -> tuple[dict[str, Any], list[int]]:
        poll = select.poll()
        poll.register(self._control, select.POLLIN)
        try:
            if not poll.poll(seconds * 1000):
                self._process.kill()
                raise SandboxError(f"the jail did not answer within {seconds:g} s and was ended")
            data, descriptors, _, _ = socket.recv_fds(self._control, 8192, 1)
        except OSError as error:
            raise SandboxError(f"the jail has ended ({error}); the next worker comes from a new one") from error
        if not data:
            raise SandboxError("the jail has ended; the next worker comes from a new one")
        return json.loads(data), descriptors

    def _await_ready(self) -> dict[str, str]:
        try:
            answer, _ = self._receive(START_S)
            problem = str(answer.get("error", ""))
        except SandboxError as error:
            answer, problem = {}, str(error)
        except BaseException:
            self.close()
            raise
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

    def forget(self) -> None:
        """Drop our copy of the socket in a fork of the host; the processes belong to the other one."""
        self.closed = True
        self._control.close()
        self._process.returncode = 0  # not a child of this process; keeps Popen from looking for it

    def close(self) -> None:
        """End the zygote, and with it all of its workers; may be called again."""
        if self.closed:
            return
        self.closed = True
        self._give_up("this jail is closed: make a new one, or call shared_jail()")
        self._control.close()
        if self._process.stderr is not None:
            self._process.stderr.close()
        try:
            self._process.wait(END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _start_process(options: dict[str, Any], hash_seed: int) -> tuple[socket.socket, subprocess.Popen[bytes]]:
    if sys.platform != "linux":
        raise SandboxError(f"the process jail needs Linux, this is {sys.platform}")
    if not sys.executable:
        raise SandboxError("the jail needs a Python interpreter to start, and sys.executable is empty")
    found = importlib.util.find_spec("orjson.orjson")
    library = None if found is None else found.origin
    if library is None:
        raise SandboxError("the jail needs the extension module of orjson: install orjson again")
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    command = [sys.executable, "-S", "-s", "-P", str(_BOOT), str(theirs.fileno()), json.dumps(options), library]
    try:
        process = subprocess.Popen(  # a fresh interpreter: nothing of this process's memory is in it
            command,
            pass_fds=[theirs.fileno()],
            env=_environment(hash_seed),
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


def _environment(hash_seed: int) -> dict[str, str]:
    """Return the zygote's whole environment; a fixed hash seed makes the order of sets repeatable."""
    seed = str(hash_seed)
    found = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "PYTHONHASHSEED": seed, "PYTHONDONTWRITEBYTECODE": "1"}
    if sysconfig.get_config_var("Py_ENABLE_SHARED"):
        folders = (f"{sys.base_prefix}/lib", str(sysconfig.get_config_var("LIBDIR") or ""))
        found["LD_LIBRARY_PATH"] = ":".join(dict.fromkeys(folder for folder in folders if folder))
    return found
