from __future__ import annotations

import gc
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from envsynth.errors import SandboxError
from envsynth.sandbox import Failure, Jail, Limits, inspect_sandbox, shared_jail
from envsynth.sandbox import jail as jail_module
from envsynth.sandbox import zygote as zygote_module
from envsynth.sandbox.jailed import syscalls
from tests.sandbox.containment import pids, processes, wait_for_processes

FOREVER = "def forever():\n    while True:\n        try: sum(range(100000))\n        except BaseException: pass\ndef one(): return 1\n"


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.fixture
def no_shared() -> Iterator[None]:
    jail_module._close_shared()
    yield
    jail_module._close_shared()


# ------------------------------------------------------------------------------------------------ life and death


def test_several_workers_live_at_once() -> None:
    with Jail() as jail:
        workers = [jail.worker(role) for role in ("tools", "solution", "verifier", "tools")]
        for number, worker in enumerate(workers):
            assert worker.load(f"def me(): return {number}").ok
        assert [worker.call("me").value for worker in workers] == [0, 1, 2, 3]


def test_closing_a_jail_ends_everything_and_leaks_nothing() -> None:
    gc.collect()
    before, others = descriptors(), pids(os.getpid())
    for _ in range(2):
        jail = Jail()
        kept = jail.worker("tools")
        for _ in range(5):
            with jail.worker("tools") as worker:
                assert worker.load("x = 1").ok
        assert wait_for_processes(os.getpid(), 3, others) == 3  # guard, zygote, the worker kept
        jail.close()
        jail.close()
        assert not kept.alive
        assert not jail.alive
        with pytest.raises(SandboxError, match="closed"):
            jail.worker("tools")
    assert wait_for_processes(os.getpid(), 0, others) == 0
    assert descriptors() == before


def test_dead_workers_are_reaped() -> None:
    with Jail() as jail:
        for _ in range(20):
            jail.worker("tools").close()
        deadline = time.monotonic() + 3
        while zombies() and time.monotonic() < deadline:
            time.sleep(0.01)
        assert zombies() == 0


def zombies() -> int:
    count = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text(encoding="utf-8").rpartition(")")[2].split()
        except OSError:  # it has ended meanwhile
            continue
        if fields[0] == "Z":
            try:
                parent = Path(f"/proc/{fields[1]}/cmdline").read_bytes()
            except OSError:
                continue
            count += b'"host": %d,' % os.getpid() in parent
    return count


def test_forgotten_worker_and_jail_are_closed() -> None:
    others = pids(os.getpid())
    jail = Jail()
    worker = jail.worker("tools")
    del worker
    gc.collect()
    assert wait_for_processes(os.getpid(), 2, others) == 2
    del jail
    gc.collect()
    assert wait_for_processes(os.getpid(), 0, others) == 0


HOST = """
import sys, threading, time
from envsynth.sandbox import Jail
def start():
    global jail
    jail = Jail({options})
thread = threading.Thread(target=start); thread.start(); thread.join()  # a thread that ends
workers = [jail.worker("tools") for _ in range(3)]
for worker in workers: worker.load({source!r})
for worker in workers[:2]:
    threading.Thread(target=worker.call, args=("forever",), daemon=True).start()
print(workers[2].call("one").value, flush=True)
time.sleep(60)
"""


FORK = """
import os
if os.fork() == 0: print("forked", flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("options", ["", "namespaces=False, landlock=False"])
def test_nothing_outlives_a_killed_host(options: str) -> None:
    source = HOST.format(options=options, source=FOREVER)
    host = subprocess.Popen([sys.executable, "-c", source], stdout=subprocess.PIPE)
    assert host.stdout is not None
    try:
        assert host.stdout.readline() == b"1\n"
        assert processes(host.pid) == 5  # guard, zygote, three workers
    finally:
        host.kill()
        host.wait()
        host.stdout.close()
    assert wait_for_processes(host.pid, 0) == 0


def test_fork_of_the_host_does_not_keep_the_jail_alive() -> None:
    source = HOST.format(options="", source=FOREVER).replace("time.sleep(60)", FORK)
    host = subprocess.Popen([sys.executable, "-c", source], stdout=subprocess.PIPE, start_new_session=True)
    assert host.stdout is not None
    try:
        assert host.stdout.readline() == b"1\n"
        assert host.stdout.readline() == b"forked\n"
        host.kill()
        host.wait()
        assert wait_for_processes(host.pid, 0) == 0
    finally:
        os.killpg(host.pid, signal.SIGKILL)
        host.stdout.close()


def test_jail_that_died_says_so() -> None:
    others = pids(os.getpid())
    with Jail() as jail:
        worker = jail.worker("tools")
        assert worker.load(FOREVER).ok
        jail._zygote._process.kill()
        jail._zygote._process.wait()
        assert wait_for_processes(os.getpid(), 0, others) == 0
        result = worker.call("one")
        assert result.status is Failure.SANDBOX_UNAVAILABLE, result
        with jail.worker("tools") as another:
            assert another.load(FOREVER).ok


def test_jail_may_be_used_by_several_threads() -> None:
    found: list[object] = []

    def work(number: int) -> None:
        for _ in range(5):
            with jail.worker("tools") as worker:
                worker.load(f"def me(): return {number}")
                found.append(worker.call("me").value)

    with Jail() as jail:
        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(found) == sorted(list(range(4)) * 5)


def test_workers_are_killed_by_the_zygote_where_descriptors_are_missing() -> None:
    with Jail(Limits(soft_s=0.2, hard_s=0.4)) as jail:
        others = pids(os.getpid())
        worker = jail.worker("tools")
        os.close(worker._process._pidfd)
        worker._process._pidfd = None
        assert worker.load(FOREVER).ok
        assert worker.call("forever").status is Failure.HARD_TIMEOUT
        assert wait_for_processes(os.getpid(), 0, others) == 0
        crashing = jail.worker("tools")
        os.close(crashing._process._pidfd)
        crashing._process._pidfd = None
        crashing.load("import os\ndef leave(): os._exit(4)")
        assert "exit code 4" in crashing.call("leave").message


def test_closed_connection_of_a_running_worker_is_a_violation() -> None:
    with Jail(Limits(soft_s=0.2, hard_s=0.4)) as jail, jail.worker("tools") as worker:
        worker.load("import os\n" + FOREVER + "def hang():\n    os.closerange(3, 64)\n    forever()\n")
        assert worker.call("hang").status is Failure.PROTOCOL_VIOLATION
        assert not worker.alive


# ------------------------------------------------------------------------------------------------ shared


def test_shared_jail_is_one_per_process_and_comes_back(no_shared: None) -> None:
    first = shared_jail()
    assert shared_jail() is first
    first._zygote._process.kill()
    first._zygote._process.wait()
    with shared_jail().worker("tools") as worker:
        assert worker.load("x = 1").ok
    first.close()
    second = shared_jail()
    assert second is not first
    with second.worker("tools") as worker:
        assert worker.load("x = 1").ok


def test_shared_jail_of_a_fork_is_its_own(no_shared: None) -> None:
    parent = shared_jail()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            ours = shared_jail()
            with ours.worker("tools") as worker:
                code = 0 if ours is not parent and worker.load("x = 1").ok else 2
            ours.close()
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    with parent.worker("tools") as worker:
        assert worker.load("x = 1").ok


def test_shared_jail_ends_with_the_program() -> None:
    source = "import os\nfrom envsynth.sandbox import shared_jail\nshared_jail().worker('tools')\nprint(os.getpid())"
    done = subprocess.run([sys.executable, "-W", "error", "-c", source], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert wait_for_processes(int(done.stdout), 0) == 0


def test_jail_of_another_process_is_refused() -> None:
    with Jail() as jail:
        child = os.fork()
        if child == 0:
            code = 1
            try:
                jail.worker("tools")
            except SandboxError as error:
                code = 0 if "shared_jail()" in str(error) else 2
            finally:
                os._exit(code)
        assert os.waitpid(child, 0)[1] == 0


def test_jail_cannot_be_pickled() -> None:
    with Jail() as jail, pytest.raises(TypeError, match="cannot be pickled"):
        pickle.dumps(jail)


# ------------------------------------------------------------------------------------------------ layers


def test_seccomp_holds_everywhere() -> None:
    with Jail() as jail:
        assert "system calls allowed" in jail.layers["seccomp"]
        assert set(jail.layers) == {
            "out of memory", "namespaces", "root", "user", "limits", "kill", "landlock", "seccomp", "control group"
        }  # fmt: skip


def test_layers_can_be_left_out() -> None:
    with Jail(namespaces=False, landlock=False) as jail:
        assert jail.layers["namespaces"] == jail.layers["landlock"] == "off: not asked for"


def test_pinned_jail_gives_the_processors_back() -> None:
    before = os.sched_getaffinity(0)
    with Jail(pin=True) as jail, jail.worker("tools") as worker:
        assert len(os.sched_getaffinity(0)) == 1
        worker.load("import os\ndef where(): return sorted(os.sched_getaffinity(0))")
        assert worker.call("where").value == sorted(os.sched_getaffinity(0))
    assert os.sched_getaffinity(0) == before


def test_environment_of_the_host_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "/nowhere")
    monkeypatch.setenv("PYTHONHASHSEED", "7")
    monkeypatch.setenv("API_KEY", "secret")
    with Jail() as jail, jail.worker("tools") as worker:
        worker.load("import os, sys\ndef look(): return [dict(os.environ), sys.path, sys.argv, hash('a')]")
        found = worker.call("look").value
        assert found[:3] == [{}, [], [""]]
    with Jail() as jail, jail.worker("tools") as worker:
        worker.load("def look(): return hash('a')")
        assert worker.call("look").value == found[3]


@pytest.mark.parametrize("closed_first", [False, True])
def test_reseeded_jail_orders_sets_otherwise_and_ends_with_its_own(closed_first: bool) -> None:
    look = "def look(): return [hash('a'), list({str(number) for number in range(40)})]"
    limits = Limits(memory_mb=200)
    with Jail(limits) as jail:
        found: list[object] = []
        for other in (jail, jail.reseeded(), jail.reseeded()):
            with other.worker("tools") as worker:
                worker.load(look)
                found.append(worker.call("look").value)
        assert found[0] != found[1] == found[2]
        again = jail.reseeded()
        assert again is jail.reseeded()
        assert again.limits is limits
        if closed_first:
            again.close()
            assert jail.reseeded() is not again
    assert not again.alive
    with pytest.raises(SandboxError, match="closed"):
        jail.reseeded()


@pytest.mark.parametrize("broken", ["no table", "no interpreter", "no module"])
def test_jail_that_cannot_confine_does_not_start(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, broken: str) -> None:
    before = descriptors()
    options: dict[str, object] = {}
    if broken == "no table":
        # A copy of the jail's sources without the table of this machine.
        package = tmp_path / "envsynth" / "sandbox" / "jailed"
        package.mkdir(parents=True)
        for path in zygote_module._BOOT.parent.glob("*.py"):
            text = path.read_text(encoding="utf-8")
            (package / path.name).write_text(
                text.replace(f'"{os.uname().machine}": {{', '"other": {'), encoding="utf-8"
            )
        monkeypatch.setattr(zygote_module, "_BOOT", package / "boot.py")
    elif broken == "no interpreter":
        monkeypatch.setattr(sys, "executable", "/nowhere/python")
    else:
        options["extra_modules"] = ("no_such_module",)
    with pytest.raises(SandboxError) as caught:
        Jail(**options)
    assert caught.value.failure == "sandbox_unavailable"
    assert descriptors() == before


def test_tables_name_every_allowed_call() -> None:
    old_names = {"poll", "select", "fork", "vfork", "dup2"}  # interfaces that newer architectures never had
    for machine, table in syscalls.SYSCALLS.items():
        missing = {name for name in (*syscalls.WORKER_CALLS, *syscalls.ZYGOTE_CALLS) if name not in table}
        assert missing == (set() if machine == "x86_64" else old_names)
        assert len(set(table.values())) == len(table)


def test_program_allows_what_is_listed_and_nothing_else() -> None:
    code = syscalls.program("x86_64", syscalls.WORKER_CALLS)
    table = syscalls.SYSCALLS["x86_64"]
    allowed = {table[name] for name in (*syscalls.WORKER_CALLS, "mmap", "mprotect")}
    absent = {table[name] for name in syscalls.ABSENT_CALLS}
    for number in range(600):
        answer = interpret(code, syscalls.AUDIT_ARCHITECTURE["x86_64"], number, 0)
        expected = 0x7FFF0000 if number in allowed else 0x50002 if number in absent else 0x50001
        assert answer == (0x50026 if number == table["clone3"] else expected), number
    for name in ("mmap", "mprotect"):
        assert interpret(code, syscalls.AUDIT_ARCHITECTURE["x86_64"], table[name], 7) == 0x50001
    assert interpret(code, syscalls.AUDIT_ARCHITECTURE["aarch64"], 0, 0) == 0x80000000
    assert interpret(code, syscalls.AUDIT_ARCHITECTURE["x86_64"], 0x40000000, 0) == 0x80000000


def interpret(code: list[tuple[int, int, int, int]], architecture: int, number: int, third: int) -> int:
    """Run a filter program as the kernel does."""
    memory = {0: number, 4: architecture, 32: third}
    at = accumulator = 0
    while True:
        operation, if_true, if_false, operand = code[at]
        at += 1
        if operation == 0x06:
            return operand
        if operation == 0x20:
            accumulator = memory[operand]
        else:
            holds = {0x15: accumulator == operand, 0x35: accumulator >= operand, 0x45: bool(accumulator & operand)}
            at += if_true if holds[operation] else if_false


# ------------------------------------------------------------------------------------------------ doctor


def test_inspection_finds_a_sound_sandbox() -> None:
    report = inspect_sandbox()
    assert report["ok"], report
    assert [attack["name"] for attack in report["attacks"]] == ["file", "network", "program", "memory", "time"]
    assert all(attack["contained"] for attack in report["attacks"])
    assert len(report["remaining"]) >= 4
    told = (Path(__file__).resolve().parents[2] / "docs/concepts/threat-model.md").read_text(encoding="utf-8")
    assert [sentence for sentence in report["remaining"] if f"- {sentence}\n" not in told] == []


def test_inspection_of_a_broken_sandbox_is_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    report = inspect_sandbox()
    assert not report["available"]
    assert not report["ok"]
    assert "/nowhere/python" in report["problem"]
