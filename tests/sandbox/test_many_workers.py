"""A jail outlives thousands of its workers: what it remembers of the dead is bounded, also while others are dying."""

from __future__ import annotations

import pytest

from envsynth.sandbox import Jail


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
