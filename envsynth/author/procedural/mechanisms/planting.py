"""Rows that mechanisms add to a finished world so that one row breaks a rule: copies of rows with other cells."""

from __future__ import annotations

import random
from collections.abc import Sequence

from envsynth.author.procedural.mechanism import Composed, Row
from envsynth.errors import Rejected

COINING_DRAWS = 200
"""Draws of an id or a name that no row has."""


class Planting:
    """Rows under way, by entity.

    Args:
        world: The finished world; it is not changed.
        rng: Source of all choices.
    """

    def __init__(self, world: Composed, rng: random.Random) -> None:
        self.world, self.rng = world, rng
        self.rows: list[tuple[str, Row]] = []

    def pick(self, rows: Sequence[Row], what: str) -> Row:
        """Choose one of some rows.

        Raises:
            Rejected: `no_site` when there is none.
        """
        if not rows:
            raise Rejected("no_site", f"the world has no {what}")
        return self.rng.choice(rows)

    def pick_key(self, keys: Sequence[int | str], what: str) -> int | str:
        """Choose one of some keys of rows.

        Raises:
            Rejected: `no_site` when there is none.
        """
        if not keys:
            raise Rejected("no_site", f"the world has no {what}")
        return self.rng.choice(keys)

    def add(self, entity: str, like: Row, /, **cells: int | str) -> Row:
        """Add a copy of a row with an id and a name of its own; its id lies in the second half of those that there are.

        Args:
            entity: Whose row.
            like: The row that gives all other cells.
            **cells: Other cells, by physical column.

        Returns:
            The new row.

        Raises:
            Rejected: `no_id` or `no_name` when none is free.
        """
        return self._add(entity, {**like, **cells}, early=False)

    def add_early(self, entity: str, like: Row, /, **cells: int | str) -> Row:
        """Add a row as `add` does, but with an id in the first half, so that a careless reader meets it first.

        Args:
            entity: Whose row.
            like: The row that gives all other cells.
            **cells: Other cells, by physical column.

        Returns:
            The new row.

        Raises:
            Rejected: `no_id` or `no_name` when none is free.
        """
        return self._add(entity, {**like, **cells}, early=True)

    def _add(self, entity: str, row: Row, *, early: bool) -> Row:
        row["id"] = self._id(entity, early=early)
        if "name" in row:
            row["name"] = self._name(entity)
        self.rows.append((entity, row))
        return row

    def _all(self, entity: str) -> list[Row]:
        return [*self.world.rows[entity], *(row for name, row in self.rows if name == entity)]

    def _id(self, entity: str, *, early: bool) -> int | str:
        """Coin an id.

        Raises:
            Rejected: `no_id` when each one in that half is taken.
        """
        taken = [row["id"] for row in self._all(entity)]
        own = sorted((row["id"] for row in self.world.rows[entity]), key=lambda value: (str(type(value)), value))
        half = len(own) // 2
        near = own[: max(2, half)] if early else own[half:]
        for _ in range(COINING_DRAWS):
            low, high = near[0], near[-1]
            if isinstance(low, int) and isinstance(high, int):
                found: int | str = self.rng.randint(low, high)
            else:
                head, _, first = str(low).rpartition("-")
                found = f"{head}-{self.rng.randint(int(first), int(str(high).rpartition('-')[2]))}"
            if found not in taken:
                return found
        raise Rejected("no_id", f"no free id of {entity}")

    def _name(self, entity: str) -> str:
        """Coin a name of two halves that occur.

        Raises:
            Rejected: `no_name` when each such name is taken.
        """
        taken = [str(row["name"]) for row in self._all(entity)]
        for _ in range(COINING_DRAWS):
            first, last = self.rng.choice(taken), self.rng.choice(taken)
            found = f"{first.partition(' ')[0]} {last.rpartition(' ')[2]}"
            if " " in first and " " in last and found not in taken:
                return found
        raise Rejected("no_name", f"no free name of {entity}")
