"""A jail outlives thousands of its workers: what it remembers of the dead is bounded, also while others are dying.

And what each worker makes costs little memory of its own.
"""

from __future__ import annotations

import pytest

from envsynth.sandbox import Jail

POOLS = """
def pools(size):
    made = [bytes(size - 33) for _ in range(2 * 16384 // size)]
    return len({id(item) >> 14 for item in made})
"""


@pytest.mark.parametrize("size", [64, 208])
def test_what_a_worker_makes_lies_close_together(jail, size):
    """Two pools' worth of objects would lie scattered over eleven and more, between what all workers share."""
    with jail.worker("tools") as worker:
        worker.load(POOLS)
        assert worker.call("pools", {"size": size}).value <= 5


@pytest.mark.slow
def test_a_jail_outlives_thousands_of_workers():
    with Jail() as jail:
        for _ in range(750):
            workers = [jail.worker("solution") for _ in range(3)]
            for worker in workers:
                worker.close()
        with jail.worker("solution") as worker:
            worker.load("def answer():\n    return 42\n")
            assert worker.call("answer").value == 42
