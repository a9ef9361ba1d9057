"""`run_all`: every item exactly once, whatever happens to the workers."""

from __future__ import annotations

import importlib.util
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import types
import warnings
import weakref
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envsynth.errors import MissingExtra, WorkError
from envsynth.executors import EXECUTORS, Executor, ray_tasks, run_all

no_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed (extra [ray])")
# Ray leaves sockets and files to the garbage collector; what it warns of is none of our code.
on_ray = (no_ray, pytest.mark.filterwarnings("default"))
parallel = pytest.mark.parametrize("executor", ["pool", pytest.param("ray", marks=on_ray)])
every = pytest.mark.parametrize("executor", ["serial", "pool", pytest.param("ray", marks=on_ray)])


def double(item: int) -> int:
    return 2 * item


def pid_of(item: int) -> int:
    time.sleep(0.02)
    return os.getpid()


def where(item: int) -> tuple[int, ...]:
    time.sleep(0.02)
    return tuple(sorted(os.sched_getaffinity(0)))


def die_once_where(item: tuple[int, Path]) -> tuple[int, ...]:
    number, folder = item
    marker = folder / f"bound-{number}"
    if not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return where(number)


def refuse_three(item: int) -> int:
    if item == 3:
        raise KeyError(f"no {item}")
    return item


class UnpicklableError(Exception):
    def __init__(self, first: str, second: str) -> None:
        super().__init__(first)


def raise_unpicklable(item: int) -> int:
    raise UnpicklableError("odd", "error")


def return_generator(item: int) -> object:
    return (number for number in range(item))


def die_once(item: tuple[int, str]) -> int:
    number, folder = item
    mark = Path(folder) / str(number)
    if number % 3 == 0 and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def die_always(item: tuple[int, str]) -> int:
    """Kill the worker at item 1, once the parent has heard of item 0."""
    number, heard = item
    if number == 1:
        deadline = time.monotonic() + 30
        while not Path(heard).exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGKILL)
    return number


STARTS: list[str] = []


def start() -> None:
    STARTS.append("started")


def count_starts(item: int) -> int:
    return len(STARTS)


def fail_to_start() -> None:
    raise OSError("no device")


@given(items=st.lists(st.integers()))
@settings(max_examples=30)
def test_run_all_serial_keeps_order_and_delivers_each_once(items: list[int]) -> None:
    seen: list[tuple[int, int]] = []
    results = run_all(double, items, on_result=lambda index, value: seen.append((index, value)))
    assert results == [2 * item for item in items]
    assert seen == list(enumerate(results))


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="the system binds no processes")
def test_bound_processes_keep_to_a_processor_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    allowed = sorted(os.sched_getaffinity(0))
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(allowed[:1]))  # as on a machine with one
    found = run_all(where, list(range(6)), workers=2, bind=True)
    assert set(found) == {(allowed[0],)}, "two processes share it evenly"
    dying = [(number, tmp_path) for number in range(2)]
    assert set(run_all(die_once_where, dying, workers=2, bind=True)) == {(allowed[0],)}, (
        "so does one that takes a place"
    )
    assert set(run_all(where, list(range(4)), workers=2)) == {tuple(allowed)}
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(3)))
    assert set(run_all(where, list(range(4)), workers=2, bind=True)) == {tuple(allowed)}, "two do not share three"
    monkeypatch.undo()
    assert tuple(os.sched_getaffinity(0)) == tuple(allowed), "this process is as it was"


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    """One cluster for all tests of this module: `run_all` takes a Ray that it finds started."""
    if importlib.util.find_spec("ray") is None:
        yield
        return
    ray = ray_tasks.load_ray()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ray.init(address="local", num_cpus=3, include_dashboard=False, logging_level="ERROR", log_to_driver=False)
        yield
        assert ray.is_initialized()  # it was left as it was found
        ray.shutdown()


@parallel
def test_run_all_parallel_equals_serial_and_delivers_each_once(executor: Executor) -> None:
    seen: list[int] = []
    results = run_all(
        double, list(range(23)), workers=3, executor=executor, on_result=lambda index, value: seen.append(index)
    )
    assert results == run_all(double, list(range(23)))
    assert sorted(seen) == list(range(23))


class Large:
    """What a unit brings; weak references show when it is forgotten."""


def make_large(item: int) -> Large:
    return Large()


@every
@pytest.mark.parametrize("keep", [True, False])
def test_run_all_forgets_what_is_not_kept(executor: Executor, keep: bool) -> None:
    seen: list[weakref.ref[Large]] = []
    alive: list[int] = []

    def look(index: int, value: Large) -> None:
        seen.append(weakref.ref(value))
        alive.append(sum(ref() is not None for ref in seen))

    results = run_all(make_large, list(range(8)), workers=2, executor=executor, on_result=look, keep=keep)
    assert len(seen) == 8
    assert (len(results), alive[-1] <= 3) == ((8, False) if keep else (0, True))


@parallel
def test_run_all_parallel_uses_several_other_processes(executor: Executor) -> None:
    pids = run_all(pid_of, list(range(12)), workers=2, executor=executor)
    assert len(set(pids)) == 2
    assert os.getpid() not in pids


def test_run_all_of_nothing_starts_nothing() -> None:
    assert run_all(double, [], workers=4, initializer=fail_to_start) == []


@pytest.mark.parametrize("workers", [1, 2])
def test_run_all_exception_carries_item_and_cause(workers: int) -> None:
    with pytest.raises(WorkError, match=r"item 3 \(3\) failed: KeyError: 'no 3'") as caught:
        run_all(refuse_three, [0, 1, 2, 3, 4], workers=workers)
    assert (caught.value.index, caught.value.item) == (3, 3)
    assert isinstance(caught.value.__cause__, KeyError)


@parallel
def test_run_all_parallel_error_shows_the_traceback_of_the_worker(executor: Executor) -> None:
    with pytest.raises(WorkError) as caught:
        run_all(refuse_three, [3, 3], workers=2, executor=executor)
    assert "refuse_three" in "".join(caught.value.__cause__.__notes__)  # type: ignore[union-attr]


@parallel
def test_run_all_parallel_tells_of_an_exception_that_cannot_be_pickled(executor: Executor) -> None:
    with pytest.raises(WorkError, match="UnpicklableError: odd"):
        run_all(raise_unpicklable, [1, 2], workers=2, executor=executor)


@parallel
def test_run_all_parallel_tells_of_a_result_that_cannot_be_pickled(executor: Executor) -> None:
    with pytest.raises(WorkError, match="cannot be pickled"):
        run_all(return_generator, [1, 2], workers=2, executor=executor)


@parallel
def test_run_all_parallel_retries_items_of_killed_workers_and_nothing_else(tmp_path: Path, executor: Executor) -> None:
    items = [(number, str(tmp_path)) for number in range(7)]
    seen: list[int] = []
    results = run_all(die_once, items, workers=2, executor=executor, on_result=lambda index, value: seen.append(index))
    assert results == list(range(7))
    assert sorted(seen) == list(range(7))
    assert sorted(int(mark.name) for mark in tmp_path.iterdir()) == [0, 3, 6]


@parallel
def test_run_all_parallel_gives_up_on_an_item_that_always_kills_its_worker(tmp_path: Path, executor: Executor) -> None:
    heard = tmp_path / "heard"
    items, seen = [(number, str(heard)) for number in range(2)], list[int]()

    def hear(index: int, value: int) -> None:
        seen.append(index)
        heard.touch()

    with pytest.raises(
        WorkError, match=r"item 1 \(.*\) killed its worker process 2 times .*(-9|WorkerCrashedError)"
    ) as caught:
        run_all(die_always, items, workers=2, executor=executor, on_result=hear)
    assert caught.value.item == items[1]
    assert seen == [0]


@parallel
def test_run_all_calls_initializer_once_per_process(executor: Executor) -> None:
    assert set(run_all(count_starts, list(range(6)), workers=2, executor=executor, initializer=start)) == {1}
    STARTS.clear()
    assert run_all(count_starts, [1, 2], initializer=start) == [1, 1]


@parallel
def test_run_all_parallel_tells_of_a_failing_initializer(executor: Executor) -> None:
    with pytest.raises(WorkError, match="OSError: no device"):
        run_all(double, [1, 2], workers=2, executor=executor, initializer=fail_to_start)


@pytest.mark.parametrize(("workers", "retries"), [(0, 0), (1, -1)])
def test_run_all_refuses_impossible_counts(workers: int, retries: int) -> None:
    with pytest.raises(ValueError, match=f"workers={workers} and retries={retries}"):
        run_all(double, [1], workers=workers, retries=retries)


def test_run_all_works_outside_the_main_thread() -> None:
    results: list[int] = []
    thread = threading.Thread(target=lambda: results.extend(run_all(double, [1, 2, 3], workers=2)))
    thread.start()
    thread.join()
    assert results == [2, 4, 6]


@every
def test_run_all_keeps_no_result_when_told_so(executor: Executor) -> None:
    seen: list[int] = []
    assert (
        run_all(double, [1, 2], workers=2, executor=executor, keep=False, on_result=lambda _, v: seen.append(v)) == []
    )
    assert sorted(seen) == [2, 4]


def test_the_executor_is_chosen_by_name_or_by_the_number_of_workers() -> None:
    assert run_all(pid_of, [1, 2], workers=2, executor="serial") == [os.getpid()] * 2
    assert os.getpid() not in run_all(pid_of, [1], executor="pool")
    with pytest.raises(ValueError, match=f"no executor is called 'threads': there are {', '.join(EXECUTORS)}"):
        run_all(double, [1], executor="threads")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"\('auto'\) means nothing to the executor 'pool'"):
        run_all(double, [1], executor="pool", ray_address="auto")


def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)  # what an import finds of a library that is not there
    with pytest.raises(MissingExtra, match=r"executor 'ray' needs Ray, .* pip install 'envsynth\[ray\]'"):
        run_all(double, [1, 2], executor="ray")


@pytest.mark.parametrize("address", ["nowhere", "host:port", "127.0.0.1:99999", ":6379", "127.0.0.1:{free}"])
def test_an_address_at_which_no_cluster_is_is_refused_at_once(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    started = []
    absent = types.SimpleNamespace(is_initialized=lambda: False, init=lambda **_: started.append(1))
    monkeypatch.setattr(ray_tasks, "load_ray", lambda: absent)
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))  # bound, but nobody listens
        address = address.format(free=holder.getsockname()[1])
        began = time.monotonic()
        with pytest.raises(WorkError, match=r"is no address of Ray|no Ray cluster at"):
            run_all(double, [1], executor="ray", ray_address=address)
    assert time.monotonic() - began < 2 * ray_tasks.REACH_S
    assert started == []


INTERRUPTED = """
import os, sys, time
from envsynth.executors import run_all

def work(item):
    if item >= 2:
        time.sleep(60)
    return os.getpid()

if __name__ == "__main__":
    try:
        run_all(work, list(range(4)), workers=2, executor=sys.argv[1],
                on_result=lambda index, value: print("done", index, value, flush=True))
    except KeyboardInterrupt:
        print("interrupted", flush=True)
"""


@pytest.mark.parametrize("executor", ["serial", "pool", pytest.param("ray", marks=no_ray)])
def test_run_all_ctrl_c_delivers_what_was_done_and_leaves_no_process(tmp_path: Path, executor: Executor) -> None:
    script = tmp_path / "script.py"
    script.write_text(INTERRUPTED)
    environment = dict(os.environ, PYTHONPATH=str(Path(__file__).parents[1]))
    with subprocess.Popen(
        [sys.executable, str(script), executor],
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(2)]
        # as a terminal does it: to the whole group
        os.killpg(process.pid, signal.SIGINT)
        rest, _ = process.communicate(timeout=60)
    assert sorted(line.split()[1] for line in lines) == ["0", "1"]
    assert rest == "interrupted\n"
    for line in [] if executor == "serial" else lines:
        with pytest.raises(ProcessLookupError):
            os.kill(int(line.split()[2]), 0)


ENDING = """
import atexit, os, sys, time
from multiprocessing import Pipe, Process
from envsynth.executors.pool import _work

def slow_end():
    os.write(1, b"ending")
    time.sleep(1.0)
    os.write(1, b" ended")

if __name__ == "__main__":
    ours, theirs = Pipe()
    ours.close()
    atexit.register(slow_end)
    _work(theirs, print, None, None)
"""


def test_a_worker_that_ends_already_is_not_broken_off_by_a_request_to_end() -> None:
    with subprocess.Popen([sys.executable, "-c", ENDING], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.read(6) == b"ending"
        process.terminate()
        rest, messages = process.communicate(timeout=30)
    assert (rest, messages.decode(), process.returncode) == (b" ended", "", 0)
