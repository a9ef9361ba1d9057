"""The one door: `run_all`, whatever runs it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, TypeVar

from envsynth.executors.interrupts import Noticed
from envsynth.executors.pool import Pool
from envsynth.executors.ray_tasks import RayTasks
from envsynth.executors.replies import Account, Boundary, Reply, failure

T = TypeVar("T")
R = TypeVar("R")

Executor = Literal["serial", "pool", "ray"]
"""This process; processes of this machine; tasks of a Ray cluster (extra `ray`)."""

EXECUTORS: tuple[Executor, ...] = ("serial", "pool", "ray")
"""All of them."""


def run_all(  # noqa: PLR0913 -- one verb with its options, all keyword-only
    function: Callable[[T], R],
    items: Sequence[T],
    *,
    workers: int = 1,
    initializer: Callable[[], None] | None = None,
    on_result: Callable[[int, R], None] | None = None,
    retries: int = 1,
    executor: Executor | None = None,
    ray_address: str | None = None,
    keep: bool = True,
    bind: bool = False,
) -> list[R]:
    """Apply a function to every item.

    The serial executor runs everything in this process, in order. For the others `function`, `initializer`, items and
    results must be picklable, and a script that calls this needs the usual `if __name__ == "__main__":` guard.

    Only the death of a worker process is retried: an exception would come again. On an exception or Ctrl-C no new item
    starts, the workers end, every result that has arrived is handed to `on_result`, and then the error is raised; so a
    caller who persists in `on_result` loses nothing that was finished.

    Args:
        function: What to apply.
        items: The items, in order.
        workers: Items in work at a time, each in a process of its own (count, >= 1); the serial executor has one.
        initializer: Called once in every process before its first item.
        on_result: Called in this process as `on_result(index, result)`, once for each item, in order of completion.
        retries: How often an item is tried again after its worker died (count, >= 0).
        executor: What runs them; `serial` for one worker and `pool` for more when None.
        ray_address: Address of a Ray cluster, such as "host:6379" or "auto"; `$RAY_ADDRESS` when None, and without that
            a cluster on this machine that ends with the call. A Ray that this process has started is used as it is.
        bind: Whether each process of the pool, with all that it starts, keeps to one processor where there are as many
            processes as processors, or a multiple: for functions that wait for processes of their own, which then never
            wait for another processor to wake up. Elsewhere they run where the kernel puts them.
        keep: Whether results are returned; a long run that stores them in `on_result` need not hold them all.

    Returns:
        Results in the order of `items`; none when `keep` is false.

    Raises:
        WorkError: the function raised (the exception is the cause), a result cannot be pickled, or an item's worker
            died more than `retries` times; `.index` and `.item` say whose. Or Ray could not be reached.
        MissingExtra: Ray is not installed.
        ValueError: `workers` < 1, `retries` < 0, no such executor, or an address for another one than Ray.
        KeyboardInterrupt: Ctrl-C, after the results so far were delivered.
    """
    if workers < 1 or retries < 0:
        raise ValueError(f"workers must be >= 1 and retries >= 0, got workers={workers} and retries={retries}")
    chosen: str = executor or ("serial" if workers == 1 else "pool")
    if chosen not in EXECUTORS:
        raise ValueError(f"no executor is called {chosen!r}: there are {', '.join(EXECUTORS)}")
    if ray_address is not None and chosen != "ray":
        raise ValueError(f"an address of Ray ({ray_address!r}) means nothing to the executor {chosen!r}")
    account = Account(items, on_result, retries, keep)
    seats = min(workers, len(items))
    if not items or chosen == "serial":
        _run_serial(function, initializer, account)
    elif chosen == "pool":
        with Pool(function, initializer, account, bind) as pool:
            pool.run(seats)
    else:
        with RayTasks(function, initializer, account, ray_address, seats) as tasks:
            tasks.run()
    return account.ordered()


def _run_serial(function: Callable[[T], R], initializer: Callable[[], None] | None, account: Account[T, R]) -> None:
    if account.items and initializer is not None:
        initializer()
    noticed = Noticed()
    with noticed.listening():
        for index, item in enumerate(account.items):
            reply = Reply(index)
            with Boundary() as boundary:
                reply = Reply(index, value=function(item))
            if boundary.error is not None:
                raise failure(index, item, boundary.error) from boundary.error
            account.deliver(reply)
            noticed.raise_lost()
