"""A limit over all workers of a jail together, by a control group of the kernel, where this process may make one."""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import dataclass
from pathlib import Path

_ROOT = Path("/sys/fs/cgroup")
_PREFIX = "envsynth-"
_MIB = 1 << 20
_OWN_PROCESSES = 8
"""Guards and zygotes: those in use, and those that end."""


@dataclass(frozen=True)
class _Limit:
    """One setting of a group: the folder of the group that holds it, the file, the value."""

    folder: Path
    file: str
    value: int


class ControlGroup:
    """A control group for one jail; does nothing where the kernel or its policy forbids it, and says so in `state`.

    Args:
        memory_mb: Memory of all processes in it, MiB; half of the machine's when None.
        workers: Workers at most.
    """

    state: str
    """For people; starts with `off` when there is none."""

    def __init__(self, memory_mb: int | None, workers: int) -> None:
        self._owner = os.getpid()
        memory = (memory_mb or _half_of_memory_mb()) * _MIB
        self._folders: list[Path] = []
        name = f"{_PREFIX}{self._owner}-{time.monotonic_ns()}"
        try:
            for limit in _limits(name, memory, workers + _OWN_PROCESSES):
                _sweep(limit.folder.parent)
                limit.folder.mkdir(exist_ok=True)
                if limit.folder not in self._folders:
                    self._folders.append(limit.folder)
                (limit.folder / limit.file).write_text(str(limit.value), encoding="ascii")
        except OSError as error:
            self.close()
            self.state = f"off: {error.strerror}"
        else:
            self.state = (
                f"{memory // _MIB} MiB and {workers} workers together" if self._folders else "off: there are none"
            )

    def add(self, pid: int) -> None:
        """Move a process into the group, so that all its children are in it."""
        try:
            for folder in self._folders:
                (folder / "cgroup.procs").write_text(str(pid), encoding="ascii")
        except OSError as error:
            self.close()
            self.state = f"off: {error.strerror}"

    def close(self) -> None:
        """Remove the group once its processes have ended; may be called again."""
        if os.getpid() != self._owner:
            return
        deadline = time.monotonic() + 1.0
        while self._folders and time.monotonic() < deadline:
            _remove(self._folders)
            if self._folders:
                time.sleep(0.005)
        self._folders.clear()


def _remove(folders: list[Path]) -> None:
    for folder in list(folders):
        with contextlib.suppress(OSError):  # its processes are still ending
            folder.rmdir()
        if not folder.exists():
            folders.remove(folder)


def _sweep(parent: Path) -> None:
    """Remove groups whose host was killed; one that is still in use cannot be removed."""
    for folder in parent.glob(f"{_PREFIX}*"):
        pid = folder.name.removeprefix(_PREFIX).partition("-")[0]
        if not Path("/proc", pid).exists():
            with contextlib.suppress(OSError):
                folder.rmdir()


def _limits(name: str, memory: int, processes: int) -> list[_Limit]:
    """The settings, in the version of control groups that this machine has."""
    own = _own_groups()
    if "" in own and (_ROOT / "cgroup.controllers").exists():
        folder = _ROOT / own[""].lstrip("/") / name
        return [_Limit(folder, "memory.max", memory), _Limit(folder, "pids.max", processes)]
    found: list[_Limit] = []
    for controller, file, value in (("memory", "memory.limit_in_bytes", memory), ("pids", "pids.max", processes)):
        if controller in own and (_ROOT / controller).is_dir():
            found.append(_Limit(_ROOT / controller / own[controller].lstrip("/") / name, file, value))
    return found


def _own_groups() -> dict[str, str]:
    """This process's group by controller; the empty name is the unified hierarchy."""
    found: dict[str, str] = {}
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines():
            _, controllers, path = line.split(":", 2)
            for controller in controllers.split(","):
                found[controller] = path
    return found


def _half_of_memory_mb() -> int:
    pages, size = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    return max(256, pages * size // 2 // _MIB)
