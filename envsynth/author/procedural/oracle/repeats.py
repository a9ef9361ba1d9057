"""Whether the actions of a task change more when they are done twice, which a call that is repeated blindly does."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from envsynth.author.procedural.ir import Task
from envsynth.author.procedural.oracle.outcome import OracleResult, Reject
from envsynth.author.procedural.oracle.relations import OracleWorld
from envsynth.author.procedural.oracle.run import Oracle


def done_twice(composition: OracleWorld, connection: sqlite3.Connection, task: Task) -> list[tuple[str, bool]]:
    """Perform the actions of a task one by one, and tell of each whether it would change more at once again.

    Args:
        composition: The composed world.
        connection: Its rows; never written.
        task: A program whose outcome does not depend on when its actions are done.

    Returns:
        For each performed action, in order: its name, and whether it changes something when it is done again.

    Raises:
        Reject: the task has no well-defined outcome.
    """
    copy = sqlite3.connect(":memory:", isolation_level=None)
    try:
        connection.backup(copy)
        oracle = _Repeating(composition, copy)
        oracle.run(task)
        return oracle.done
    finally:
        copy.close()


class _Repeating(Oracle):
    """Lets each action take effect at once, and tries it again.

    Args:
        composition: The composed world.
        connection: A copy of its rows, which is written.
    """

    def __init__(self, composition: OracleWorld, connection: sqlite3.Connection) -> None:
        super().__init__(composition, connection)
        self.done: list[tuple[str, bool]] = []

    def _change(self, op: str, arguments: Mapping[str, Any], result: OracleResult) -> None:
        self._live = True
        super()._change(op, arguments, result)
        self._live = False
        try:
            super()._change(op, arguments, replace(result, changes=[], targets=[]))
        except Reject:  # it is refused, or everything is so already
            self.done.append((op, False))
        else:
            self.done.append((op, True))
