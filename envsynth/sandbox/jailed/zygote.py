"""The process that forks workers: preloads the standard library, confines itself for good, then serves fork requests.

Two processes: a guard, child of the host, ends when the host ends; the zygote, child of the guard, is killed by the
kernel when the guard ends; workers are killed when the zygote ends. So nothing outlives the host, even after `kill -9`.
The guard is there because "kill with parent" follows the parent's thread, and a host may start us from a short one.
"""

from __future__ import annotations

import errno
import gc
import importlib
import io
import json
import os
import select
import signal
import socket
import sys
import time
import types
import zoneinfo
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from envsynth.sandbox.jailed import confine, syscalls
from envsynth.sandbox.jailed.frames import EXIT_BROKEN
from envsynth.sandbox.jailed.session import Session

PRELOADED: tuple[str, ...] = (
    "__future__", "_strptime", "abc", "array", "ast", "base64", "binascii", "bisect", "calendar", "cmath", "codecs",
    "collections", "collections.abc", "colorsys", "contextlib", "contextvars", "copy", "copyreg", "csv",
    "dataclasses", "datetime", "decimal", "difflib", "encodings.ascii", "encodings.cp1252", "encodings.cp437",
    "encodings.idna", "encodings.iso8859_15", "encodings.latin_1", "encodings.punycode", "encodings.raw_unicode_escape",
    "encodings.unicode_escape", "encodings.utf_16", "encodings.utf_16_be", "encodings.utf_16_le", "encodings.utf_32",
    "encodings.utf_32_be", "encodings.utf_32_le", "encodings.utf_7", "encodings.utf_8_sig", "enum", "errno", "fractions", "functools", "graphlib", "hashlib",
    "heapq", "hmac", "html", "inspect", "io", "itertools", "json", "keyword", "locale", "logging", "math", "numbers",
    "operator", "os", "pathlib", "pprint", "queue", "random", "re", "reprlib", "secrets", "shlex", "signal",
    "sqlite3", "statistics", "string", "stringprep", "struct", "sys", "textwrap", "threading", "time", "timeit",
    "traceback", "types", "typing", "unicodedata", "urllib.parse", "uuid", "warnings", "weakref",
    "zlib", "zoneinfo",
)  # fmt: skip
"""Modules that code in the jail may import; none can be loaded later."""

_OWN = ("envsynth", "ctypes", "_ctypes", "orjson")
"""Modules that vanish from `sys.modules` once the jail is closed; hygiene, not a boundary."""

_STEP_BYTES, _LARGEST_BYTES, _POOL_BYTES = 16, 512, 16 << 10
"""Sizes that CPython allocates from pools, and the size of a pool; a build with others is left with some gaps."""
_MOST_FILLERS = 4_000
"""Objects of one size that fill gaps at most."""
_FILLERS: list[object] = []

_REMEMBERED = 1024
"""Dead workers whose exit status is kept until the host asks."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """What the host asks for."""

    host: int
    """Process number of the host."""
    namespaces: bool
    """Whether to enter namespaces when the kernel permits it."""
    landlock: bool
    """Whether to apply Landlock when the kernel has it."""
    extra_modules: list[str]
    """Modules to preload besides."""
    cpu_s: int
    """Processor seconds of a worker."""
    memory_mb: int
    """Memory of a worker beyond what it starts with, MiB."""
    frame_bytes: int
    """Longest JSON text of a reply."""
    blob_bytes: int
    """Largest blob of a reply."""
    stdout_bytes: int
    """Output kept per request."""


@dataclass(kw_only=True)
class _Zygote:
    """What the zygote knows after it is confined."""

    control: socket.socket
    options: Options
    worker_filter: confine.Filter
    space: int
    finished: dict[int, tuple[int, float]] = field(default_factory=dict[int, tuple[int, float]])


def run(control_fd: int, options: dict[str, Any]) -> NoReturn:
    """Set up the jail and serve; ends the process when the host closes the control socket.

    Args:
        control_fd: Descriptor of a sequenced-packet socket to the host.
        options: The fields of `Options`.
    """
    control = socket.socket(fileno=control_fd)
    try:
        _prepare(control, Options(**options))
    except (OSError, ImportError, RuntimeError) as error:
        control.send(json.dumps({"error": f"{type(error).__name__}: {error}"[:1000]}).encode())
        os._exit(1)


def _prepare(control: socket.socket, options: Options) -> NoReturn:
    confine.keep_freed_memory()
    for name in (*PRELOADED, *options.extra_modules):
        importlib.import_module(name)
    _keep_time_zones()
    zygote = _Zygote(
        control=control,
        options=options,
        worker_filter=confine.build_filter(syscalls.WORKER_CALLS),
        space=confine.address_space() + (options.memory_mb << 20),
    )
    layers: dict[str, str] = {"out of memory": "killed first"}
    try:
        confine.prefer_when_out_of_memory()
    except OSError as error:
        layers["out of memory"] = f"off: {error}"
    host = _open_process(options.host)
    if os.getppid() != options.host:
        os._exit(0)
    refused = confine.namespaces_work() if options.namespaces else "not asked for"
    layers["namespaces"] = f"off: {refused}" if refused else confine.enter_namespaces()
    guard_alive, guard_end = os.pipe()
    null = os.open("/dev/null", os.O_RDWR)
    child = os.fork()
    if child:
        control.close()
        _guard(child, host, options.host, null)
    os.close(guard_end)
    if host is not None:
        os.close(host)
    _confine(zygote, layers, guard_alive)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    os.close(null)
    control.send(json.dumps({"layers": layers}).encode())
    _serve(zygote)


def _open_process(pid: int) -> int | None:
    try:
        return os.pidfd_open(pid)
    except OSError as error:
        if error.errno in (errno.ENOSYS, errno.EPERM):
            return None
        raise


def _guard(child: int, host: int | None, host_pid: int, null: int) -> NoReturn:
    """Wait for the host or the zygote to end; ending here makes the kernel kill the zygote and its workers."""
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    confine.drop_privileges()
    zygote = _open_process(child)
    if host is not None and zygote is not None:
        poll = select.poll()
        poll.register(host, select.POLLIN)
        poll.register(zygote, select.POLLIN)
        poll.poll()
        os._exit(0)
    while os.waitpid(child, os.WNOHANG) == (0, 0) and os.getppid() == host_pid:
        time.sleep(0.05)
    os._exit(0)


def _confine(zygote: _Zygote, layers: dict[str, str], guard_alive: int) -> None:
    options = zygote.options
    layers["root"] = "the host's, unreachable by seccomp"
    if not layers["namespaces"].startswith("off"):
        confine.enter_empty_root()
        layers["root"] = "empty, read-only"
    os.environ.clear()
    sys.argv[:] = [""]
    sys.orig_argv[:] = [""]
    layers["user"] = confine.drop_privileges()
    confine.die_with_parent()
    if select.select([guard_alive], [], [], 0)[0]:  # the guard ended before the line above
        os._exit(0)
    os.close(guard_alive)
    confine.limit_files()
    layers["limits"] = f"{options.memory_mb} MiB and {options.cpu_s} processor seconds per worker, no files"
    layers["kill"] = "by descriptor" if _open_own_descriptor() else "by the zygote (no pidfd_open here)"
    layers["landlock"] = _landlock(options.landlock)
    sys.path.clear()
    sys.path_importer_cache.clear()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    confine.apply_filter(confine.build_filter(syscalls.WORKER_CALLS + syscalls.ZYGOTE_CALLS))
    layers["seccomp"] = f"{len(syscalls.WORKER_CALLS)} system calls allowed in workers"
    _forget_modules(options.extra_modules)
    gc.collect()
    _FILLERS.extend(_gap_fillers())
    gc.freeze()


def _gap_fillers() -> list[object]:
    """Objects that take the gaps between living ones, of each size that Python allocates from pools.

    A page that a worker writes to is copied for it. What it makes lies on pages of its own then, close together, instead of
    between objects that it shares with the zygote: a tenth less memory for each worker.
    """
    made: list[object] = []
    empty = sys.getsizeof(b"")
    for size in range(_STEP_BYTES, _LARGEST_BYTES + 1, _STEP_BYTES):
        in_line, last = 0, 0
        # Objects in one line over nearly a pool: it was empty, so there are no gaps left.
        for _ in range(_MOST_FILLERS):
            filler = bytes(size - empty) if size >= empty else 0.5 * size if size > _STEP_BYTES else object()
            made.append(filler)
            in_line = in_line + 1 if id(filler) - last == size else 0
            last = id(filler)
            if in_line > 0.9 * _POOL_BYTES // size:
                break
    return made


def _open_own_descriptor() -> bool:
    descriptor = _open_process(os.getpid())
    if descriptor is None:
        return False
    os.close(descriptor)
    return True


def _landlock(wanted: bool) -> str:
    if not wanted:
        return "off: not asked for"
    try:
        abi = confine.apply_landlock()
    except OSError as error:
        return f"off: {error}"
    return f"version {abi}" if abi else "off: the kernel has none"


def _keep_time_zones() -> None:
    """Hold the time zone files in memory and serve them from there: no file can be opened later."""
    held: dict[str, bytes] = {}
    for key in sorted(zoneinfo.available_timezones()):
        for folder in zoneinfo.TZPATH:
            path = Path(folder, key)
            if path.is_file():
                held[key] = path.read_bytes()
                break

    def load(key: str) -> io.BytesIO:
        if key not in held:
            raise zoneinfo.ZoneInfoNotFoundError(f"No time zone found with key {key}")
        return io.BytesIO(held[key])

    common: Any = importlib.import_module("zoneinfo._common")
    common.load_tzdata = load
    zoneinfo.reset_tzpath(())


def _forget_modules(wanted: list[str]) -> None:
    for name in list(sys.modules):
        if name.partition(".")[0] in _OWN and name not in wanted and name.partition(".")[0] not in wanted:
            del sys.modules[name]
    sys.modules["__main__"] = types.ModuleType("__main__")


# ------------------------------------------------------------------------------------------------------------ service


def _serve(zygote: _Zygote) -> NoReturn:
    def reap(*_: object) -> None:
        _reap(zygote.finished)

    signal.signal(signal.SIGCHLD, reap)
    while True:
        data, descriptors, _, _ = socket.recv_fds(zygote.control, 4096, 1)
        if not data:
            os._exit(0)
        _forget(zygote.finished)
        request = json.loads(data)
        if request["op"] == "fork":
            _fork(zygote, descriptors[0])
        elif request["op"] == "status":
            reply = _status(zygote.finished, request["pid"])
            zygote.control.send(json.dumps(reply).encode())
        else:
            _kill(zygote.finished, request["pid"])
            zygote.control.send(b"{}")


def _reap(finished: dict[int, tuple[int, float]]) -> None:
    while True:
        try:
            pid, status, usage = os.wait4(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        _remember(finished, pid, status, usage.ru_utime + usage.ru_stime)


def _remember(finished: dict[int, tuple[int, float]], pid: int, status: int, cpu_s: float) -> None:
    finished[pid] = (status, cpu_s)  # one step: the signal handler comes between any two, even into itself


def _forget(finished: dict[int, tuple[int, float]]) -> None:
    """Drop the oldest entries; `list` copies in one step, and an entry may be gone by the time its turn comes."""
    if len(finished) > 2 * _REMEMBERED:
        for pid in list(finished)[:_REMEMBERED]:
            finished.pop(pid, None)


def _status(finished: dict[int, tuple[int, float]], pid: int) -> dict[str, Any]:
    """Wait for a worker that the host has seen dead, and tell how it ended."""
    if pid not in finished:
        try:
            _, status, usage = os.wait4(pid, 0)
            _remember(finished, pid, status, usage.ru_utime + usage.ru_stime)
        except ChildProcessError:  # the signal handler was first
            pass
    status, cpu_s = finished.get(pid, (0, 0.0))
    return {"status": status, "cpu_s": cpu_s}


def _kill(finished: dict[int, tuple[int, float]], pid: int) -> None:
    if pid not in finished:  # a child that is not yet waited for keeps its number
        os.kill(pid, signal.SIGKILL)


def _fork(zygote: _Zygote, session_fd: int) -> None:
    parent = os.getpid()
    # Not to be reaped before its descriptor is open, and before the status of an older worker of that number is gone.
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGCHLD,))
    try:
        pid = os.fork()
        if pid == 0:
            _become_worker(zygote, session_fd, parent)
        zygote.finished.pop(pid, None)
        reply, descriptor = {"pid": pid}, _open_process(pid)
    except OSError as error:
        reply, descriptor = {"error": f"fork: {error}"}, None
    finally:
        os.close(session_fd)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGCHLD,))
    message = json.dumps(reply).encode()
    if descriptor is None:
        zygote.control.send(message)
    else:
        socket.send_fds(zygote.control, [message], [descriptor])
        os.close(descriptor)


def _become_worker(zygote: _Zygote, fd: int, parent: int) -> NoReturn:
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        zygote.control.close()
        confine.die_with_parent()
        if os.getppid() != parent:
            os._exit(0)
        options = zygote.options
        confine.limit_worker(options.cpu_s, zygote.space)
        confine.apply_filter(zygote.worker_filter)
        Session(fd, options.frame_bytes, options.blob_bytes, options.stdout_bytes, options.memory_mb).serve()
    finally:
        os._exit(EXIT_BROKEN)
