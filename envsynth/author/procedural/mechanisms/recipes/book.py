"""Rows of a recipe world: recipes of three layers, their lines, conversions, stand-ins, allergens, batches."""

from __future__ import annotations

import random
from datetime import date, timedelta
from typing import Any

from envsynth.author.procedural.mechanism import Composed, Row
from envsynth.author.procedural.mechanisms.entities import skewed
from envsynth.author.procedural.mechanisms.recipes.bindings import MEASURES, SIZES, SUBSTANCES, states


class Book:
    """Fills the tables of one world; a recipe only uses recipes of a lower layer, so that none uses itself."""

    def __init__(self, world: Composed, rng: random.Random) -> None:
        self.world, self.rng, self.rules = world, rng, world.rules
        # Popular goods are not the first rows, which other mechanisms make popular in their own way.
        self.items = rng.sample(world.rows["item"], len(world.rows["item"]))

    def fill(self) -> None:
        """Append all rows."""
        rng, world = self.rng, self.world

        def recipe(_: int) -> dict[str, Any]:
            return {"portions": rng.choice([2, 3, 4, 4, 6, 8, 10, 12]), "output": rng.choice(self.items)}

        world.fill(rng, "recipe", rng.randint(20, 24), recipe)
        self.fill_lines()
        if self.rules["bom_measures"] == "own":
            self.fill_conversions()
        if self.rules["bom_swaps"]:
            self.fill_substitutes()
        if self.rules["bom_allergens"]:
            self.fill_allergens()
        self.fill_batches()

    def fill_lines(self) -> None:
        """Append what recipes take: goods, and for the upper two layers recipes of the layers below."""
        rng, recipes = self.rng, self.world.rows["recipe"]
        order = rng.sample(recipes, len(recipes))
        third = len(order) // 3
        layers = [order[:third], order[third : 2 * third], order[2 * third :]]
        goods: list[tuple[Row, Row]] = []
        for row in recipes:
            wanted = rng.randint(2, 4)
            chosen: dict[Any, Row] = {}
            while len(chosen) < wanted:
                item = skewed(rng, self.items, 0.12)
                chosen[item["id"]] = item
            goods += [(row, item) for item in chosen.values()]
        parts: list[tuple[Row, Row]] = []
        for depth in (1, 2):
            for row in layers[depth]:
                used = rng.sample(layers[depth - 1], rng.randint(1, 2))
                if depth == 2 and rng.random() < 0.4:
                    used.append(rng.choice(layers[0]))
                parts += [(row, other) for other in used]
        rng.shuffle(parts)

        def component(index: int) -> dict[str, Any]:
            row, item = goods[index]
            measure = rng.choices(MEASURES, [5, 2, 1])[0] if self.rules["bom_measures"] != "units" else "piece"
            quantity = rng.randint(1, 12) if measure == "piece" else rng.randint(1, 3)
            loss = rng.choice([0, 0, 5, 10, 12, 20])
            return {"recipe": row, "item": item, "measure": measure, "quantity": quantity, "loss": loss}

        def subrecipe(index: int) -> dict[str, Any]:
            row, part = parts[index]
            return {"recipe": row, "part": part, "quantity": rng.randint(1, 9)}

        self.world.fill(rng, "component", len(goods), component)
        self.world.fill(rng, "subrecipe", len(parts), subrecipe)

    def fill_conversions(self) -> None:
        """Append sizes of boxes and crates that differ from the usual, one per good and measure at most."""
        rng = self.rng
        pairs = [(item, measure) for item in self.items for measure in ("box", "crate")]
        chosen = rng.sample(pairs, min(20, len(pairs) * 2 // 3))

        def conversion(index: int) -> dict[str, Any]:
            item, measure = chosen[index]
            usual = SIZES[measure]
            factor = rng.choice([size for size in range(usual - 3, usual + 5) if size != usual])
            return {"item": item, "measure": measure, "factor": factor}

        self.world.fill(rng, "conversion", len(chosen), conversion)

    def fill_substitutes(self) -> None:
        """Append stand-ins: at most one for a good, for popular ones too."""
        rng, today = self.rng, date.fromisoformat(self.world.now[:10])
        popular, others = self.items[:6], self.items[6:]
        replaced = rng.sample([*popular, *rng.sample(others, min(len(others) - 2, 6))], 12)

        def substitute(index: int) -> dict[str, Any]:
            others = [item for item in self.items if item is not replaced[index]]
            since = today + timedelta(days=rng.choice([-20, -6, -1, 0, 0, 1, 5]))
            ratio = rng.choice([75, 80, 90, 110, 120, 125, 150])
            return {
                "item": replaced[index],
                "instead": rng.choice(others),
                "ratio": ratio,
                "since": since.isoformat(),
            }

        self.world.fill(rng, "substitute", len(replaced), substitute)

    def fill_allergens(self) -> None:
        """Append which goods hold which substance; few goods hold several."""
        rng = self.rng
        pairs = [(item, substance) for item in self.items for substance in SUBSTANCES]
        chosen = rng.sample(pairs, min(20, len(pairs) // 3))

        def allergen(index: int) -> dict[str, Any]:
            item, substance = chosen[index]
            return {"item": item, "substance": substance}

        self.world.fill(rng, "allergen", len(chosen), allergen)

    def fill_batches(self) -> None:
        """Append batches within the rules for sizes; their expense was planned at the prices of their time."""
        rng, world = self.rng, self.world

        def batch(_: int) -> dict[str, Any]:
            row = skewed(rng, world.rows["recipe"], 0.1)
            size = int(row["portions"])
            portions = size * rng.randint(1, 5) - (0 if self.rules["bom_runs"] else rng.randint(0, size - 1))
            cells: dict[str, Any] = {"recipe": row, "portions": portions, "expense": portions * rng.randint(20, 160)}
            cells["maker"] = skewed(rng, world.rows["person"], 0.1)
            if self.rules["bom_states"] != "none":
                kinds = states(self.rules)
                cells["progress"] = rng.choices(kinds, [5, 2, 2, 1][: len(kinds)])[0]
            return cells

        world.fill(rng, "batch", rng.randint(36, 50), batch)
