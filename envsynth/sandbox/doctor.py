"""What the sandbox is like on this machine: layers that hold, a few attacks tried, and what stays possible."""

from __future__ import annotations

import os
import sys
from typing import Any

from envsynth.errors import SandboxError
from envsynth.sandbox.jail import Jail
from envsynth.sandbox.jailed.syscalls import SYSCALLS, WORKER_CALLS
from envsynth.sandbox.result import Failure, Limits

REMAINING: tuple[str, ...] = (
    "It can use a processor until its time limits end, and memory until its memory limit. All workers together are "
    "limited by number, and in memory only where a control group could be made; many of them keep a machine busy.",
    "It can read the clock, so side channels in processors and caches are open to it.",
    f"It can make {len(WORKER_CALLS)} kinds of system calls; a kernel bug in one of them could let it out.",
    "It shares its process with its own database and results, and can forge those; so solutions, tools and verifiers "
    "run in separate workers, and only a verifier's worker can give a reward.",
    "Tools of one environment share a process, and with reset by reload so do its episodes: a hostile tool can carry "
    "something from one episode into another of the same environment.",
    "It can see which Python this is and where it is installed, but cannot open any file there.",
)
"""What code in the jail can still do, in plain words."""

_LIMITS = Limits(soft_s=0.3, hard_s=0.8, memory_mb=128)

_ATTACKS: tuple[tuple[str, str, str], ...] = (
    ("file", "read a file of the host", "def attack(path):\n    return open(path).read(100)\n"),
    (
        "network",
        "open a network socket",
        "def attack(path):\n    import _socket\n    return str(_socket.socket(_socket.AF_INET, _socket.SOCK_STREAM))\n",
    ),
    (
        "program",
        "start a program",
        "def attack(path):\n    import os\n    return os.posix_spawn('/bin/true', ['true'], {})\n",
    ),
    ("memory", "take 4 GiB of memory", "def attack(path):\n    return len(bytearray(4 << 30))\n"),
    (
        "time",
        "run on after its time limit",
        "def attack(path):\n    while True:\n        try:\n            sum(range(10**5))\n        except BaseException: pass\n",
    ),
)
"""Name, what it tries, source. Each must end with one of `_CONTAINED`."""

_CONTAINED = {
    "file": (Failure.POLICY_VIOLATION,),
    "network": (Failure.POLICY_VIOLATION,),
    "program": (Failure.POLICY_VIOLATION,),
    "memory": (Failure.MEMORY,),
    "time": (Failure.HARD_TIMEOUT, Failure.SOFT_TIMEOUT),
}


def inspect_sandbox() -> dict[str, Any]:
    """Start a jail, try a few attacks in it, and tell what was found.

    Returns:
        Plain data. `available`: whether untrusted code can run at all. `ok`: whether, besides, every attack was
        contained. `problem`: why not, else empty. `kernel`: release, machine, state of its system call table.
        `layers`: layer to state; one that starts with `off` is missing. `attacks`: for each its `name`, `attempt`,
        whether it was `contained`, and `evidence`. `remaining`: what code can still do, as sentences.
    """
    report: dict[str, Any] = {
        "available": False,
        "ok": False,
        "problem": "",
        "kernel": _kernel(),
        "layers": {},
        "attacks": [],
        "remaining": list(REMAINING),
    }
    try:
        with Jail(_LIMITS, extra_modules=("socket",)) as jail:
            report["available"] = True
            report["layers"] = jail.layers
            report["attacks"] = [_attack(jail, *attack) for attack in _ATTACKS]
    except SandboxError as error:
        report["problem"] = str(error)
        return report
    escaped = [attack["name"] for attack in report["attacks"] if not attack["contained"]]
    report["ok"] = not escaped
    if escaped:
        report["problem"] = f"not contained: {', '.join(escaped)}; do not run untrusted code here"
    return report


def _kernel() -> dict[str, str]:
    system = os.uname()
    tables = {"x86_64": "tested", "aarch64": "present, never tested on such a machine"}
    return {
        "system": system.sysname,
        "release": system.release,
        "machine": system.machine,
        "system call table": tables.get(system.machine, "none") if system.machine in SYSCALLS else "none",
        "python": sys.version.split()[0],
    }


def _attack(jail: Jail, name: str, attempt: str, source: str) -> dict[str, Any]:
    with jail.worker("tools") as worker:
        result = worker.load(source, "attack")
        if result.ok:
            result = worker.call("attack", {"path": __file__})
    evidence = f"{result.status.value}: {result.message}"[:200]
    return {"name": name, "attempt": attempt, "contained": result.status in _CONTAINED[name], "evidence": evidence}
