"""What order means among batches: their sizes are whole runs, and none is larger than the rules allow."""

from __future__ import annotations

import random

from envsynth.author.procedural.mechanism import Breach, Composed, Norm, Row, Words
from envsynth.author.procedural.mechanisms.planting import Planting
from envsynth.author.procedural.mechanisms.recipes.bindings import Bindings


class NormTexts(Bindings):
    """Writes the norm over one world."""

    def __init__(self, world: Composed) -> None:
        super().__init__(world)
        self.batch, self.recipe = world.word("batch"), world.word("recipe")
        self.given = "its progress is planned and " if self.states else ""
        self.planned = "{t}.\"progress\" = 'planned' AND " if self.states else ""
        self.planned_plan = "    if row['progress'] != 'planned':\n        return False\n" if self.states else ""
        self.planned_goal = " and row['progress'] == 'planned'" if self.states else ""

    def norms(self) -> list[Norm]:
        """The rules of a batch; no norm where any size will do."""
        breaches = [*([self.partial()] if self.runs else []), *([self.oversize()] if self.most else [])]
        return [Norm(entity="batch", breaches=tuple(breaches))] if breaches else []

    def yield_sql(self) -> str:
        """SQL of the yield of the recipe of a batch."""
        return f'(SELECT r."portions" FROM "recipe" r WHERE r."{self.made_key}" = {{t}}."{self.made}")'

    @property
    def yield_plan(self) -> str:
        """Planner expression of that yield."""
        return f"named('recipe', {self.made_key!r}, row[{self.made!r}])['portions']"

    def goal_yields(self) -> str:
        """Goal source of `yields`: the yield of each recipe, by what a batch says of it."""
        return f"@once\ndef yields():\n    return {{r[{self.made_key!r}]: r['portions'] for r in db['recipe']}}\n"

    def partial(self) -> Breach:
        """A batch whose size is no whole number of runs."""
        return Breach(
            name="partial",
            rule=f"{self.given}its size is not a whole multiple of the yield of its {self.recipe}",
            sql=f'({self.planned}{{t}}."portions" % {self.yield_sql()} <> 0)',
            plan=(
                "def p_batch_partial(row):\n"
                f"{self.planned_plan}"
                f"    return row['portions'] % {self.yield_plan} != 0 if CHECKS else row['portions'] % 2 == 1\n"
            ),
            goal=(
                self.goal_yields() + "def v_batch_partial(db, row):\n"
                f"    return row['portions'] % yields()[row[{self.made!r}]] > 0{self.planned_goal}\n"
            ),
            repair=f"resize the {self.batch} to its own size, which rounds it up to whole runs",
            action="resize_batch",
            parameter="batch",
            arguments={"portions": Words(sql='{t}."portions"', plan="row['portions']", goal="row['portions']")},
            plant=self.plant_partial,
        )

    def oversize(self) -> Breach:
        """A batch that is larger than allowed."""
        most = self.most
        return Breach(
            name="oversize",
            rule=f"{self.given}its size is more than {most} times the yield of its {self.recipe}",
            sql=f'({self.planned}{{t}}."portions" > {most} * {self.yield_sql()})',
            plan=(
                "def p_batch_oversize(row):\n"
                f"{self.planned_plan}"
                f"    return row['portions'] > ({most} if CHECKS else 2) * {self.yield_plan}\n"
            ),
            goal=(
                self.goal_yields() + "def v_batch_oversize(db, row):\n"
                f"    return {most} * yields()[row[{self.made!r}]] < row['portions']{self.planned_goal}\n"
            ),
            repair=f"resize the {self.batch} to {most} times the yield of its {self.recipe}",
            action="resize_batch",
            parameter="batch",
            arguments={
                "portions": Words(
                    sql=f"({most} * {self.yield_sql()})",
                    plan=f"{most} * {self.yield_plan}",
                    goal=f"{most} * yields()[row[{self.made!r}]]",
                )
            },
            plant=self.plant_oversize,
        )

    # ------------------------------------------------------------------------------------------------------ planting

    def yield_of(self, row: Row) -> int:
        """Yield of the recipe of a batch."""
        return next(int(r["portions"]) for r in self.world.rows["recipe"] if r[self.made_key] == row[self.made])

    def base(self, planting: Planting) -> Row:
        """A batch to copy; one that is planned where batches have states."""
        rows = self.world.rows["batch"]
        return planting.pick([row for row in rows if not self.states or row["progress"] == "planned"], "planned batch")

    def done(self, planting: Planting, like: Row, portions: int) -> None:
        """A near miss: a batch of that size that is past being planned."""
        if self.states:
            planting.add_early("batch", like, portions=portions, progress=planting.rng.choice(["running", "finished"]))

    def plant_partial(self, rng: random.Random) -> list[tuple[str, Row]]:
        """A batch of some runs and a part of one; near misses: whole runs, and a finished one of that size."""
        planting = Planting(self.world, rng)
        base = self.base(planting)
        size = self.yield_of(base)
        portions = size * rng.randint(1, 4) + rng.randint(1, size - 1)
        planting.add("batch", base, portions=portions)
        planting.add_early("batch", base, portions=portions // size * size)
        self.done(planting, base, portions)
        return planting.rows

    def plant_oversize(self, rng: random.Random) -> list[tuple[str, Row]]:
        """A batch of too many runs; near misses: as many as allowed, and a finished one of that size."""
        planting = Planting(self.world, rng)
        base = self.base(planting)
        size = self.yield_of(base)
        planting.add("batch", base, portions=size * (self.most + rng.randint(1, 3)))
        planting.add_early("batch", base, portions=size * self.most)
        self.done(planting, base, size * (self.most + 1))
        return planting.rows
