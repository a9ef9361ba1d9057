"""What others pay for a call into another process: each is a context that gives a function which makes one call."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

from benchmarks.containers import idle_container

Call = Callable[[], Any]

_SERVER = """
import json, os, socket, sys
sock = socket.socket(fileno=int(sys.argv[1]))
while data := sock.recv(65536):
    request = json.loads(data)
    sock.send(json.dumps({"id": request["id"], "value": request["arguments"]["x"]}).encode())
"""

_LOOP = """
import sys, json
for line in sys.stdin:
    request = json.loads(line)
    print(json.dumps({"id": request["id"], "value": request["arguments"]["x"]}), flush=True)
"""


def _ask(sock: socket.socket) -> Call:
    def once() -> Any:
        sock.send(json.dumps({"id": 1, "function": "echo", "arguments": {"x": 1}}).encode())
        return json.loads(sock.recv(65536))

    return once


@contextlib.contextmanager
def raw_pair() -> Iterator[Call]:
    """JSON over a socket pair to a program of its own and back: the floor of a worker that has nothing of the host."""
    ours, theirs = socket.socketpair()
    command = [sys.executable, "-S", "-s", "-P", "-c", _SERVER, str(theirs.fileno())]
    with subprocess.Popen(command, pass_fds=[theirs.fileno()]):
        theirs.close()
        yield _ask(ours)
        ours.close()


@contextlib.contextmanager
def forked_pair() -> Iterator[Call]:
    """The same with a copy of this process, whose code lies at the same addresses: faster, and nothing to confine."""
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        ours.close()
        while data := theirs.recv(65536):
            request = json.loads(data)
            theirs.send(json.dumps({"id": request["id"], "value": request["arguments"]["x"]}).encode())
        os._exit(0)
    theirs.close()
    yield _ask(ours)
    ours.close()
    os.waitpid(pid, 0)


def echo(x: int) -> int:
    """The call."""
    return x


@contextlib.contextmanager
def pool() -> Iterator[Call]:
    """A `multiprocessing.Pool` of one process."""
    with multiprocessing.get_context("fork").Pool(1) as made:
        yield lambda: made.apply(echo, (1,))


def bubblewrap() -> list[str] | None:
    """The command that runs this Python in bubblewrap, without network and with a read-only root; None without it."""
    if shutil.which("bwrap") is None:
        return None
    return ["bwrap", "--ro-bind", "/", "/", "--proc", "/proc", "--dev", "/dev", "--unshare-all", "--die-with-parent",
            "--new-session", sys.executable, "-S", "-s", "-P"]  # fmt: skip


@contextlib.contextmanager
def wrapped(command: list[str]) -> Iterator[Call]:
    """JSON lines to a long-lived process in bubblewrap and back.

    Raises:
        SystemExit: the process has no pipes.
    """
    with subprocess.Popen([*command, "-c", _LOOP], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        given, taken = process.stdin, process.stdout
        if given is None or taken is None:
            raise SystemExit("the process has no pipes")

        def once() -> Any:
            given.write('{"id": 1, "function": "echo", "arguments": {"x": 1}}\n')
            given.flush()
            return json.loads(taken.readline())

        yield once
        given.close()


@contextlib.contextmanager
def slow_peers() -> Iterator[dict[str, Call]]:
    """A process in bubblewrap for each call, and `docker exec`, where they are."""
    found: dict[str, Call] = {}
    command = bubblewrap()
    if command is not None:
        started = [*command, "-c", "print(1)"]
        found["bubblewrap, a process per call"] = lambda: subprocess.run(started, capture_output=True, check=True)
    with idle_container() as inside:
        if inside is not None:
            executed = [*inside, "/bin/true"]
            found["docker exec"] = lambda: subprocess.run(executed, capture_output=True, check=True)
        yield found
