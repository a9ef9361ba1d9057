"""Rows of a permission world: trees of teams and folders at most four deep, memberships and access rules."""

from __future__ import annotations

import random
from datetime import date, timedelta
from typing import Any

from envsynth.author.procedural.mechanism import Composed, Row
from envsynth.author.procedural.mechanisms.entities import skewed

DEPTH = 4
"""Most levels of a tree."""


class Directory:
    """Fills teams, folders, memberships and rules; at most one current membership and one rule per pair."""

    def __init__(self, world: Composed, rng: random.Random) -> None:
        self.world, self.rng = world, rng
        self.today = date.fromisoformat(world.now[:10])

    def fill(self) -> None:
        """Append all rows."""
        rng = self.rng
        self.tree("team", rng.randint(20, 26), dict)
        self.tree("folder", rng.randint(24, 34), self.folder)
        self.memberships()
        self.rules()

    def folder(self) -> dict[str, Any]:
        """Cells of a folder, apart from its parent."""
        return {
            "owner": skewed(self.rng, self.world.rows["person"], 0.08),
            "volume": max(2, int(self.rng.lognormvariate(5, 1))),
            "state": "archived" if self.rng.random() < 0.25 else "active",
        }

    def tree(self, entity: str, count: int, make: Any) -> None:
        """Append rows, parents first; a row at the top is its own parent."""
        rng, world = self.rng, self.world
        nested, rows = world.has(entity, "parent"), world.rows[entity]
        tops = rng.randint(3, 4)
        depth: list[int] = []

        def row(index: int) -> dict[str, Any]:
            cells = make()
            if index < tops:
                depth.append(1)
                # A row does not know its own key yet: that of a top is set below.
                return {**cells, "parent": {"id": 0, "name": ""}}
            parent = rng.choice([place for place in range(index) if depth[place] < DEPTH])
            depth.append(depth[parent] + 1)
            return {**cells, "parent": rows[parent]}

        world.fill(rng, entity, count, row)
        if nested:
            column, key = world.fk(entity, "parent")
            for top in rows[:tops]:
                top[column] = top[key]

    def memberships(self) -> None:
        """Append memberships; some have ended, of which some have been renewed; last days crowd around today."""
        rng, people = self.rng, self.world.rows["person"]
        teams = rng.sample(self.world.rows["team"], len(self.world.rows["team"]))
        one_team = bool(self.world.rules["one_team"])
        current: set[tuple[int | str, int | str]] = set()
        made: list[dict[str, Any]] = []
        drawn = [skewed(rng, people, 0.06) for _ in range(rng.randint(76, 100))]
        if one_team:
            # The popular ones would take most turns and have one current membership each all the same.
            drawn = [*rng.sample(people, len(people) * 5 // 6), *drawn[: len(drawn) // 2]]
        for person in drawn:
            team = skewed(rng, teams, 0.07)
            days = rng.choice([-50, -8, -1, 0, 1, 14, 60, 120, 200, 300])
            place = person["id"], 0 if one_team else team["id"]
            if days >= 0 and place in current:
                if not one_team:
                    continue
                days = rng.choice([-90, -30, -2, -1])
            if days >= 0:
                current.add(place)
            made.append(
                {
                    "person": person,
                    "team": team,
                    "standing": "guest" if rng.random() < 0.25 else "regular",
                    "until": (self.today + timedelta(days=days)).isoformat(),
                    "state": "ended" if days < 0 else "current",
                }
            )
        self.world.fill(rng, "membership", len(made), made.__getitem__)

    def rules(self) -> None:
        """Append access rules on different pairs of team and folder."""
        rng = self.rng
        pairs: dict[tuple[int | str, int | str], tuple[Row, Row]] = {}
        for _ in range(rng.randint(50, 66)):
            team, folder = skewed(rng, self.world.rows["team"], 0.06), skewed(rng, self.world.rows["folder"], 0.05)
            pairs.setdefault((team["id"], folder["id"]), (team, folder))
        chosen = list(pairs.values())

        def rule(index: int) -> dict[str, Any]:
            team, folder = chosen[index]
            deny = rng.random() < 0.2
            return {
                "team": team,
                "folder": folder,
                "level": rng.choices([1, 2, 3], [4, 4, 3])[0],
                "effect": "deny" if deny else "allow",
            }

        self.world.fill(rng, "accessrule", len(chosen), rule)
