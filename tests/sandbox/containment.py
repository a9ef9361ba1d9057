"""Runs the hostile programs and looks for leaks: `python -m tests.sandbox.containment [--mode seccomp] [--json]`.

Uses the standard library and the sandbox only, so that it runs under any interpreter, as any user.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import secrets
import socket
import sqlite3
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from envsynth.sandbox import CallResult, Failure, Jail, Limits
from tests.sandbox.hostile_programs import HOSTILE, MORE, prepare
from tests.sandbox.stoppers import stopped_by

FILE_CANARY, ENV_CANARY, MEMORY_CANARY = "HOST-FILE-CANARY-77", "ENV-CANARY-88", "VERIFIER-ANSWER-99"
EVIDENCE_OF_ESCAPE = ("WROTE", "CONNECTED", "STARTED", "DONE", "SENT", "OPENED", "ESCAPE", "FILLED")
HOST_GROWTH_MB = 50

MODES: dict[str, dict[str, Any]] = {
    "default": {},
    "no namespaces": {"namespaces": False},
    "no landlock": {"landlock": False},
    "seccomp only": {"namespaces": False, "landlock": False},
    "exposed": {
        "namespaces": False,
        "landlock": False,
        "extra_modules": ("ctypes", "mmap", "subprocess", "socket", "multiprocessing", "glob", "resource", "pickle"),
    },
}
"""Ways to open the jail; "exposed" preloads dangerous modules, so that only the kernel answers."""

LIMITS = Limits(soft_s=0.3, hard_s=0.8)


@dataclass
class Canaries:
    """What the programs are after, planted in the host; a context manager."""

    answer: str = MEMORY_CANARY
    accepted: list[str] = field(default_factory=list)

    def __enter__(self) -> Self:
        self._stack = contextlib.ExitStack()
        self.folder = self._stack.enter_context(tempfile.TemporaryDirectory(prefix="envsynth-canary-"))
        Path(self.folder).chmod(0o777)
        self.file = Path(self.folder, "canary.txt")
        self.file.write_text(FILE_CANARY, encoding="ascii")
        self.file.chmod(0o666)
        self.shared = f"/dev/shm/pwned-{secrets.token_hex(6)}"
        os.environ["ENVSYNTH_CANARY"] = ENV_CANARY
        self._stack.callback(os.environ.pop, "ENVSYNTH_CANARY", None)
        tcp = self._stack.enter_context(socket.socket())
        tcp.bind(("127.0.0.1", 0))
        self.port = tcp.getsockname()[1]
        abstract = self._stack.enter_context(socket.socket(socket.AF_UNIX))
        abstract.bind("\0" + self.shared)
        for name, listener in (("tcp", tcp), ("abstract", abstract)):
            listener.listen(5)
            threading.Thread(target=self._accept, args=(listener, name), daemon=True).start()
        return self

    def _accept(self, listener: socket.socket, name: str) -> None:
        while True:
            try:
                listener.accept()[0].close()
            except OSError:
                return
            self.accepted.append(name)

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def touched(self) -> list[str]:
        """Return what changed on the host, and forget it."""
        found = [f"connection to the {name} listener" for name in self.accepted]
        self.accepted.clear()
        places = ((self.folder, "pwned*"), ("/dev/shm", f"{Path(self.shared).name}*"), ("/tmp", "pwned*"))
        for folder, pattern in places:
            for path in Path(folder).glob(pattern):
                found.append(f"file {path}")
                path.unlink()
        if self.file.read_text(encoding="ascii") != FILE_CANARY:
            found.append("the canary file was changed")
            self.file.write_text(FILE_CANARY, encoding="ascii")
        return found


def leaks_in(evidence: str) -> list[str]:
    """Return what a program's evidence gives away."""
    found = [f"canary {text}" for text in (FILE_CANARY, ENV_CANARY, MEMORY_CANARY) if text in evidence]
    if "root:x:0:" in evidence:
        found.append("the password file")
    return found + [f"evidence {text}" for text in EVIDENCE_OF_ESCAPE if f'"{text}' in evidence]


def pids(host: int) -> frozenset[int]:
    """The living processes of the jails that a host process started."""
    found: list[int] = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes()
            state = (folder / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
        except OSError:  # it has ended meanwhile
            continue
        if b"boot.py" in command and b'"host": %d,' % host in command and state not in "ZX":
            found.append(int(folder.name))
    return frozenset(found)


def processes(host: int, besides: frozenset[int] = frozenset()) -> int:
    """Count the living processes of a host's jails besides those: other tests' jails may be ending meanwhile."""
    return len(pids(host) - besides)


def wait_for_processes(host: int, expected: int, besides: frozenset[int] = frozenset(), seconds: float = 3.0) -> int:
    """Wait until so many processes are left besides those; return how many there are."""
    deadline = time.monotonic() + seconds
    while (count := processes(host, besides)) > expected and time.monotonic() < deadline:
        time.sleep(0.01)
    return count


def image() -> bytes:
    """Return a database with one row."""
    with contextlib.closing(sqlite3.connect(":memory:")) as db:
        db.execute("CREATE TABLE people (id INTEGER PRIMARY KEY, name TEXT)")
        db.execute("INSERT INTO people VALUES (1, 'ann')")
        db.commit()
        return db.serialize()


HEALTHY = """
import json, sqlite3
def healthy(db):
    return [len([1, 2]), json.loads(json.dumps({"name": db.execute("SELECT name FROM people").fetchone()["name"]}))]
"""


def fresh_worker_works(jail: Jail, database: bytes) -> bool:
    """Whether a new worker of the same jail is unharmed."""
    with jail.worker("tools") as worker:
        if not (worker.load(HEALTHY).ok and worker.open(database).ok):
            return False
        return worker.call("healthy", databases=("main",)).value == [2, {"name": "ann"}]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What one program did."""

    name: str
    status: str
    seconds: float
    leaks: list[str]
    evidence: str
    stopped_by: list[str]
    """Layers that its evidence speaks of; see `stoppers`."""
    off: list[str]
    """Layers that this jail did without."""


def resident_mb() -> float:
    """Return this process's resident memory."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGESIZE") / (1 << 20)


def attack(jail: Jail, name: str, source: str) -> CallResult:
    """Run one program in a worker of its own."""
    with jail.worker("tools") as worker:
        result = worker.open(image())
        if result.ok:
            result = worker.load(source, name)
        if result.ok:
            result = worker.call("attack", databases=("main",))
        return result


def try_program(jail: Jail, canaries: Canaries, name: str) -> Finding:
    """Run one program and look for leaks."""
    source = prepare((HOSTILE | MORE)[name][0], canaries.folder, canaries.shared, canaries.port)
    besides = pids(os.getpid())
    memory = resident_mb()
    started = time.monotonic()
    result = attack(jail, name, source)
    seconds = time.monotonic() - started
    evidence = json.dumps([result.status, result.value, result.message, result.stdout])
    leaks = leaks_in(evidence) + canaries.touched()
    if result.status is Failure.SANDBOX_UNAVAILABLE:
        leaks.append("the sandbox went down")
    if seconds > 4 * LIMITS.hard_s + 2:
        leaks.append(f"the host was held up for {seconds:.1f} s")
    if resident_mb() - memory > HOST_GROWTH_MB:
        leaks.append(f"the host grew by {resident_mb() - memory:.0f} MB")
    left = wait_for_processes(os.getpid(), 0, besides)
    if left > 0:
        leaks.append(f"{left} processes are left")
    if not fresh_worker_works(jail, image()):
        leaks.append("the next worker is wrong")
    return Finding(
        name=name,
        status=result.status.value,
        seconds=seconds,
        leaks=leaks,
        evidence=evidence[:300],
        stopped_by=stopped_by(result, source),
        off=[layer for layer, state in jail.layers.items() if state.startswith("off")],
    )


def run(mode: str) -> Iterator[Finding]:
    """Run all programs in a jail opened in that way."""
    with Canaries() as canaries, Jail(LIMITS, **MODES[mode]) as jail:
        for name in HOSTILE | MORE:
            yield try_program(jail, canaries, name)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mode", choices=sorted(MODES), default="default")
    parser.add_argument("--json", action="store_true", help="one JSON object per line")
    options = parser.parse_args()
    failed = False
    for finding in run(options.mode):
        failed |= bool(finding.leaks)
        if options.json:
            line = json.dumps(vars(finding) | {"uid": os.geteuid()})
        else:
            line = f"{'LEAK ' + '; '.join(finding.leaks) if finding.leaks else 'contained'}  {finding.name}  {finding.evidence}"
        sys.stdout.write(line + "\n")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
