"""Recipes of goods and of other recipes: what a batch takes and costs, what it is free of, and planning batches.

Dynamics: a recipe is exploded through its sub-recipes down to the third level; each line is scaled by the yield and
rounded up on its own, converted from its measure to units of the good, and replaced by a stand-in that is in force. Tools
take the portions, costs and quantities that they are given (they check whole runs, states and caps); how these are found
is a rule that an actor has to follow by itself.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

from envsynth.author.procedural.mechanism import Action, Col, Composed, Derived, Norm, ToolDraft
from envsynth.author.procedural.mechanisms.entities import ID, NAME, PERSON, PRICED_ITEM, fill_items, fill_people
from envsynth.author.procedural.mechanisms.recipes.actions import ActionTexts
from envsynth.author.procedural.mechanisms.recipes.bindings import MEASURES, SUBSTANCES, states
from envsynth.author.procedural.mechanisms.recipes.book import Book
from envsynth.author.procedural.mechanisms.recipes.derived import DerivedTexts
from envsynth.author.procedural.mechanisms.recipes.norms import NormTexts
from envsynth.author.procedural.mechanisms.recipes.tools import ToolTexts


class Recipes:
    """Recipes made of goods and of other recipes, made in batches by persons."""

    name = "recipes"
    ports: Mapping[str, str] = {"actor": "person", "good": "item"}

    def options(self, rng: random.Random) -> dict[str, Any]:
        """Draw the rules.

        `bom_runs`: whether a recipe is made in whole runs of its yield, or in any number of portions. `bom_measures`:
        whether lines are in units only ("units"), in measures of a fixed size ("fixed"), or in measures whose size a good
        may set ("own"). `bom_loss`: whether lines lose a share. `bom_swaps`: whether goods have stand-ins. `bom_dated`:
        whether these hold from a day on. `bom_allergens`: whether goods may hold allergens. `bom_states`: whether
        batches have states, and whether cancelled is one ("none", "plain", "full"). `bom_most`: most portions of a batch
        in yields of its recipe, 0 for any.
        """
        return {
            "bom_runs": rng.random() < 0.5,
            "bom_measures": rng.choice(["units", "fixed", "own"]),
            "bom_loss": rng.random() < 0.5,
            "bom_swaps": rng.random() < 0.5,
            "bom_dated": rng.random() < 0.5,
            "bom_allergens": rng.random() < 0.5,
            "bom_states": rng.choice(["none", "plain", "full"]),
            "bom_most": rng.choice([0, 6, 10]),
        }

    def tables(self, rules: Mapping[str, Any]) -> dict[str, tuple[Col, ...]]:
        """Persons, goods, recipes, their lines, batches and, by rule, conversions, stand-ins and allergens."""
        measure = Col(name="measure", kind="enum", label="measure", values=MEASURES)
        loss = Col(name="loss", kind="num", label="loss", unit="percent")
        since = Col(name="since", kind="date", label="first day")
        progress = Col(name="progress", kind="enum", label="progress", values=states(rules))
        tables: dict[str, tuple[Col, ...]] = {
            "person": PERSON,
            "item": PRICED_ITEM,
            "recipe": (
                ID,
                NAME,
                Col(name="portions", kind="num", label="yield", unit="portions"),
                Col(name="output", kind="fk", label="output {item}", ref="item", optional=True),
                Col(name="effort", kind="num", label="effort", unit="points", optional=True),
            ),
            "component": (
                ID,
                Col(name="recipe", kind="fk", label="{recipe}", ref="recipe"),
                Col(name="item", kind="fk", label="{item}", ref="item"),
                Col(name="quantity", kind="num", label="quantity", unit="measures"),
                *((measure,) if rules["bom_measures"] != "units" else ()),
                *((loss,) if rules["bom_loss"] else ()),
            ),
            "subrecipe": (
                ID,
                Col(name="recipe", kind="fk", label="{recipe}", ref="recipe"),
                Col(name="part", kind="fk", label="used {recipe}", ref="recipe"),
                Col(name="quantity", kind="num", label="quantity", unit="portions"),
            ),
            "batch": (
                ID,
                Col(name="recipe", kind="fk", label="{recipe}", ref="recipe"),
                Col(name="maker", kind="fk", label="maker", ref="person"),
                Col(name="portions", kind="num", label="size", unit="portions"),
                Col(name="expense", kind="num", label="planned expense", unit="credits"),
                *((progress,) if rules["bom_states"] != "none" else ()),
            ),
        }
        if rules["bom_measures"] == "own":
            tables["conversion"] = (
                ID,
                Col(name="item", kind="fk", label="{item}", ref="item"),
                measure,
                Col(name="factor", kind="num", label="factor", unit="units"),
            )
        if rules["bom_swaps"]:
            tables["substitute"] = (
                ID,
                Col(name="item", kind="fk", label="replaced {item}", ref="item"),
                Col(name="instead", kind="fk", label="stand-in", ref="item"),
                Col(name="ratio", kind="num", label="ratio", unit="percent"),
                *((since,) if rules["bom_dated"] else ()),
            )
        if rules["bom_allergens"]:
            tables["allergen"] = (
                ID,
                Col(name="item", kind="fk", label="{item}", ref="item"),
                Col(name="substance", kind="enum", label="substance", values=SUBSTANCES),
            )
        return tables

    def generate(self, world: Composed, rng: random.Random) -> None:
        """Fill recipes of three layers, their lines, what converts and replaces goods, and batches."""
        fill_people(world, rng)
        fill_items(world, rng)
        Book(world, rng).fill()

    def derived(self, world: Composed) -> list[Derived]:
        """Demand and cost of a recipe; by rule, what it is free of."""
        texts = DerivedTexts(world)
        found = [texts.demand(), texts.material_cost()]
        return [*found, texts.free_of()] if texts.allergens else found

    def actions(self, world: Composed) -> list[Action]:
        """Plan a batch, change its size; by rule, start it and substitute a good."""
        texts = ActionTexts(world)
        found = [texts.plan_batch(), texts.resize()]
        found += [texts.start()] if texts.states else []
        return [*found, texts.swap()] if texts.swaps else found

    def norms(self, world: Composed) -> list[Norm]:
        """Sizes are whole runs and not too large, by rule."""
        return NormTexts(world).norms()

    def tools(self, world: Composed) -> list[ToolDraft]:
        """Write tools of the actions."""
        texts = ToolTexts(world)
        found = [texts.plan_draft(), texts.resize_draft()]
        found += [texts.start_draft()] if texts.states else []
        return [*found, texts.swap_draft()] if texts.swaps else found

    def policy(self, world: Composed) -> list[str]:
        """How recipes are exploded."""
        return DerivedTexts(world).explosion_policy()


MECHANISM = Recipes()
