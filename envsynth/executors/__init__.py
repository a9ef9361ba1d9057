"""Map a function over items, serially, in a pool of processes or on Ray: every item exactly once in the results.

Randomness belongs into the items (a seed each), never into the workers: then results depend neither on their number nor
on which executor runs them.
"""

from __future__ import annotations

from envsynth.executors.mapping import EXECUTORS, Executor, run_all

__all__ = ["EXECUTORS", "Executor", "run_all"]
