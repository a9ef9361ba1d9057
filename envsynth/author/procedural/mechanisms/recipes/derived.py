"""Derived attributes of a recipe world, each with its sentence and three texts."""

from __future__ import annotations

from envsynth.author.procedural.ir import Type
from envsynth.author.procedural.mechanism import Derived
from envsynth.author.procedural.mechanisms.recipes.bindings import CREDITS, PORTIONS, SIZES, UNITS, Bindings


class DerivedTexts(Bindings):
    """Writes the derived attributes over one world."""

    def explosion_policy(self) -> list[str]:
        """How a recipe is exploded, sentence by sentence."""
        word, plural = self.world.word, self.world.plural
        recipe, item, line, part = word("recipe"), word("item"), word("component"), word("subrecipe")
        found: list[str] = []
        if self.measured:
            own = (
                f", unless a {word('conversion')} of its {item} gives its factor for that measure (the largest, if there "
                "are several)"
                if self.own
                else ""
            )
            found.append(
                f"A piece is 1 unit of a {item}, a box is {SIZES['box']} units and a crate is {SIZES['crate']} units{own}."
            )
        counted = f"the quantity of a {line}, in units of its {item}," if self.measured else f"the quantity of a {line}"
        if self.runs:
            how = (
                f"A {recipe} is made in whole runs: the portions needed divided by its yield, rounded up. Each line takes "
                f"its quantity once per run; {counted} and that of a {part}, in portions of the used {recipe}, are "
                "for one run."
            )
        else:
            how = (
                f"{counted[0].upper()}{counted[1:]} and that of a {part}, in portions of the used {recipe}, are for as many "
                f"portions as the yield of the {recipe}; for other portions each line is scaled in proportion and rounded "
                "up to a whole number."
            )
        found.append(how)
        steps = f"what each of its {plural('component')} takes"
        if self.loss:
            steps += " (raised by its loss in percent, rounded up)"
        found.append(
            f"A number of portions of a {recipe} takes {steps}, and for each of its {plural('subrecipe')} what the portions "
            f"of the used {recipe} take in the same way; every line is rounded by itself. This goes down to the third level: "
            f"{plural('subrecipe')} of {plural('recipe')} that are used by a used {recipe} are left out."
        )
        if self.swaps:
            since = f" whose first day is {self.today} or earlier" if self.dated else ""
            swap = word("substitute")
            found.append(
                f"Where a line would take a {item} that is the replaced {item} of a {swap}{since}, it takes the stand-in "
                "instead: the units of the line times the ratio in percent, rounded up. A stand-in is not replaced again; "
                "of several such the one with the smallest id holds."
            )
        return found

    def demand(self) -> Derived:
        """Units of a good that a number of portions takes."""
        recipe, item = self.world.word("recipe"), self.world.word("item")
        return Derived(
            entity="recipe",
            name="demand",
            label="demand for {0} at {1}",
            params=(Type("row", "item"), PORTIONS),
            type=UNITS,
            sql=self.demand_sql("{t}", "{0}", "{1}"),
            plan=(
                self.plan_leaves() + "def d_demand(row, item, portions):\n"
                "    goods = goods_for(row, portions, 1)\n"
                "    return sum([units for good, units in goods if good['id'] == item['id']])\n"
            ),
            goal=(
                self.goal_leaves() + "def g_demand(db, row, item, portions):\n"
                "    return units_of_goods(row['id'], portions).get(item['id'], 0)\n"
            ),
            policy=(
                f"The demand of a {recipe} for a {item} at a number of portions is how many units of that {item} these "
                "portions take on all lines and levels together."
            ),
        )

    def material_cost(self) -> Derived:
        """Cost of what a number of portions takes."""
        recipe, item = self.world.word("recipe"), self.world.word("item")
        return Derived(
            entity="recipe",
            name="material_cost",
            label="material cost for {0}",
            params=(PORTIONS,),
            type=CREDITS,
            sql=self.cost_sql("{t}", "{0}"),
            plan=self.plan_cost(),
            goal=self.goal_cost(),
            policy=(
                f"The material cost of a {recipe} for a number of portions is the sum, over every {item} that they take, of "
                "its units times its list price."
            ),
        )

    def free_of(self) -> Derived:
        """Whether nothing that a recipe takes holds an allergen."""
        recipe, item, allergen = self.world.word("recipe"), self.world.word("item"), self.world.word("allergen")
        swapped = ", stand-ins considered," if self.swaps else ""
        return Derived(
            entity="recipe",
            name="free_of",
            label="free of {0}",
            params=(Type("str", "substance"),),
            type=Type("bool"),
            sql=(
                f"(NOT EXISTS (WITH RECURSIVE {self.explode_sql('{t}', '1')}"
                ' SELECT 1 FROM "leaf" f JOIN "item" g ON g."id" = f."item"'
                f' JOIN "allergen" a ON a."{self.holder}" = g."{self.holder_key}" WHERE a."substance" = {{0}}))'
            ),
            plan=(
                self.plan_leaves() + "def d_free_of(row, substance):\n"
                f"    marked = [a[{self.holder!r}] for a in rows('allergen', {{}}) if a['substance'] == substance]\n"
                "    for item, units in goods_for(row, 1, 1):\n"
                f"        if item[{self.holder_key!r}] in marked:\n"
                "            return False\n"
                "    return True\n"
            ),
            goal=(
                self.goal_leaves() + "@once\n"
                "def goods_with(substance):\n"
                f"    items = {{i[{self.holder_key!r}]: i['id'] for i in db['item']}}\n"
                f"    return {{items[a[{self.holder!r}]] for a in db['allergen'] if a['substance'] == substance}}\n"
                "def g_free_of(db, row, substance):\n"
                "    return goods_with(substance).isdisjoint(units_of_goods(row['id'], 1))\n"
            ),
            policy=(
                f"A {recipe} is free of a substance if no {item} that one portion of it takes{swapped} on any level has a "
                f"{allergen} with that substance."
            ),
        )
