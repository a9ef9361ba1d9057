"""What the texts of a recipe world have in common: column names and rules bound to one world, and shared pieces."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from envsynth.author.procedural.ir import Type
from envsynth.author.procedural.mechanism import Composed
from envsynth.author.procedural.mechanisms.entities import id_argument

UNITS = Type("num", "units")
PORTIONS = Type("num", "portions")
CREDITS = Type("num", "credits")
MEASURES = ("piece", "box", "crate")
SIZES = {"piece": 1, "box": 6, "crate": 20}
"""Units that a measure holds, unless the good has a size of its own."""
SUBSTANCES = ("Gluten", "Lactose", "Nuts", "Soy")
LEVELS = 3
"""Levels down to which a recipe is exploded."""


def states(rules: Mapping[str, Any]) -> tuple[str, ...]:
    """How far batches can be under these rules."""
    return ("planned", "running", "finished", *(("cancelled",) if rules["bom_states"] == "full" else ()))


class Bindings:
    """The texts over one composed world: column names, nouns and rules are bound here."""

    def __init__(self, world: Composed) -> None:
        self.world, rules = world, world.rules
        self.line_recipe, self.line_recipe_key = world.fk("component", "recipe")
        self.item, self.item_key = world.fk("component", "item")
        self.whole, self.whole_key = world.fk("subrecipe", "recipe")
        self.part, self.part_key = world.fk("subrecipe", "part")
        self.made, self.made_key = world.fk("batch", "recipe")
        self.runs, self.loss = bool(rules["bom_runs"]), bool(rules["bom_loss"])
        self.measured, self.own = rules["bom_measures"] != "units", rules["bom_measures"] == "own"
        self.swaps, self.dated = bool(rules["bom_swaps"]), bool(rules["bom_dated"])
        self.allergens = bool(rules["bom_allergens"])
        self.states, self.most = rules["bom_states"] != "none", int(rules["bom_most"])
        self.today = world.now[:10]
        self.maker, self.maker_key = world.fk("batch", "maker")
        self.sized, self.sized_key = world.fk("conversion", "item") if self.own else ("", "")
        self.old, self.old_key = world.fk("substitute", "item") if self.swaps else ("", "")
        self.new, self.new_key = world.fk("substitute", "instead") if self.swaps else ("", "")
        self.holder, self.holder_key = world.fk("allergen", "item") if self.allergens else ("", "")
        self.plan_tool = f"plan_{world.slug('batch')}"
        self.resize_tool = f"resize_{world.slug('batch')}"
        self.start_tool = f"start_{world.slug('batch')}"
        self.swap_tool = f"change_{world.slug('component')}"

    def arg(self, entity: str) -> str:
        """Name of the tool argument that takes an id."""
        return id_argument(self.world, entity)

    # SQL --------------------------------------------------------------------------------------------------------

    def scaled_sql(self, portions: str, recipe: str, quantity: str) -> str:
        """SQL of a quantity of a line, scaled from the yield to a number of portions and rounded up."""
        if self.runs:
            return f'(({portions} + {recipe}."portions" - 1) / {recipe}."portions" * {quantity})'
        return f'(({portions} * {quantity} + {recipe}."portions" - 1) / {recipe}."portions")'

    def size_sql(self, line: str, item: str) -> str:
        """SQL of the units that the measure of a line holds."""
        if not self.measured:
            return "1"
        fixed = f"CASE {line}.\"measure\" WHEN 'box' THEN {SIZES['box']} WHEN 'crate' THEN {SIZES['crate']} ELSE 1 END"
        if not self.own:
            return f"({fixed})"
        return (
            f'(COALESCE((SELECT MAX(v."factor") FROM "conversion" v WHERE v."{self.sized}" = {item}."{self.sized_key}"'
            f' AND v."measure" = {line}."measure"), {fixed}))'
        )

    def swap_sql(self, item: str) -> str:
        """SQL of the id of the substitution of a good that is in force, NULL if there is none."""
        since = f" AND w.\"since\" <= '{self.today}'" if self.dated else ""
        return f'(SELECT MIN(w."id") FROM "substitute" w WHERE w."{self.old}" = {item}."{self.old_key}"{since})'

    def explode_sql(self, recipe: str, portions: str) -> str:
        """SQL of common tables; the last, "leaf"("item", "units"), holds the ids and units of the goods needed."""
        size = self.size_sql("c", "i")
        units = self.scaled_sql('"tree"."portions"', "p", f'(c."quantity" * {size})')
        if self.loss:
            units = f'(({units} * (100 + c."loss") + 99) / 100)'
        below = self.scaled_sql('"tree"."portions"', "p", 'u."quantity"')
        tree = (
            f'"tree"("recipe", "portions", "level") AS (SELECT {recipe}."id", {portions}, 1 UNION ALL'
            f' SELECT r."id", {below}, "tree"."level" + 1 FROM "tree" JOIN "recipe" p ON p."id" = "tree"."recipe"'
            f' JOIN "subrecipe" u ON u."{self.whole}" = p."{self.whole_key}"'
            f' JOIN "recipe" r ON r."{self.part_key}" = u."{self.part}" WHERE "tree"."level" < {LEVELS})'
        )
        swap = self.swap_sql("i") if self.swaps else "NULL"
        lines = (
            f'"line"("item", "units", "swap") AS (SELECT i."id", {units}, {swap}'
            ' FROM "tree" JOIN "recipe" p ON p."id" = "tree"."recipe"'
            f' JOIN "component" c ON c."{self.line_recipe}" = p."{self.line_recipe_key}"'
            f' JOIN "item" i ON i."{self.item_key}" = c."{self.item}")'
        )
        if not self.swaps:
            return f'{tree}, {lines}, "leaf"("item", "units") AS (SELECT "item", "units" FROM "line")'
        leaf = (
            '"leaf"("item", "units") AS (SELECT COALESCE(j."id", l."item"),'
            ' CASE WHEN j."id" IS NULL THEN l."units" ELSE (l."units" * w."ratio" + 99) / 100 END FROM "line" l'
            ' LEFT JOIN "substitute" w ON w."id" = l."swap"'
            f' LEFT JOIN "item" j ON j."{self.new_key}" = w."{self.new}")'
        )
        return f"{tree}, {lines}, {leaf}"

    def demand_sql(self, recipe: str, item: str, portions: str) -> str:
        """SQL of the units of a good (an id) that a number of portions takes."""
        return (
            f"(WITH RECURSIVE {self.explode_sql(recipe, portions)}"
            f' SELECT COALESCE(SUM("units"), 0) FROM "leaf" WHERE "item" = {item})'
        )

    def cost_sql(self, recipe: str, portions: str) -> str:
        """SQL of the cost of what a number of portions takes."""
        return (
            f"(WITH RECURSIVE {self.explode_sql(recipe, portions)}"
            ' SELECT COALESCE(SUM(f."units" * g."price"), 0) FROM "leaf" f JOIN "item" g ON g."id" = f."item")'
        )

    def rounded_sql(self, portions: str, recipe: str) -> str:
        """SQL of the portions of a batch for at least the portions asked for."""
        if not self.runs:
            return f"({portions})"
        return f'(({portions} + {recipe}."portions" - 1) / {recipe}."portions" * {recipe}."portions")'

    # planner ----------------------------------------------------------------------------------------------------

    def plan_swap(self) -> str:
        """Planner source of `swap_in_force`: the substitution of a good, or None."""
        if not self.swaps:
            return ""
        since = f" if w['since'] <= '{self.today}'" if self.dated else ""
        return (
            "def swap_in_force(item):\n"
            f"    found = [w for w in rows('substitute', {{{self.old!r}: item[{self.old_key!r}]}}){since}]\n"
            "    return min(found, key=lambda w: w['id']) if found else None\n"
        )

    def plan_leaves(self) -> str:
        """Planner source of `goods_for`: pairs of a good and its units, line by line; without policy of one level."""
        sizes = f"{SIZES!r}[line['measure']]"
        own = (
            f"    for v in rows('conversion', {{{self.sized!r}: item[{self.sized_key!r}]}}):\n"
            "        if v['measure'] == line['measure']:\n"
            "            found.append(v['factor'])\n"
        )
        size = (
            "def measure_size(line, item):\n"
            "    found = []\n"
            f"{own if self.own else ''}"
            f"    return max(found) if found else {sizes}\n"
        )
        scaled = (
            "-(-portions // recipe['portions']) * quantity"
            if self.runs
            else "-(-portions * quantity // recipe['portions'])"
        )
        loss = "        if POLICY:\n            units = -(-units * (100 + c['loss']) // 100)\n" if self.loss else ""
        swap = (
            "        swap = swap_in_force(item) if POLICY else None\n"
            "        if swap:\n"
            f"            item = rows('item', {{{self.new_key!r}: swap[{self.new!r}]}})[0]\n"
            "            units = -(-units * swap['ratio'] // 100)\n"
        )
        factor = " * measure_size(c, item)" if self.measured else ""
        return (
            f"{self.plan_swap()}{size if self.measured else ''}"
            "def scaled_up(recipe, portions, quantity):\n"
            f"    return {scaled}\n"
            "def goods_for(recipe, portions, level):\n"
            "    goods = []\n"
            f"    for c in rows('component', {{{self.line_recipe!r}: recipe[{self.line_recipe_key!r}]}}):\n"
            f"        item = rows('item', {{{self.item_key!r}: c[{self.item!r}]}})[0]\n"
            f"        units = scaled_up(recipe, portions, c['quantity']{factor})\n"
            f"{loss}{swap if self.swaps else ''}"
            "        goods.append((item, units))\n"
            f"    if not POLICY or level == {LEVELS}:\n"
            "        return goods\n"
            f"    for u in rows('subrecipe', {{{self.whole!r}: recipe[{self.whole_key!r}]}}):\n"
            f"        part = rows('recipe', {{{self.part_key!r}: u[{self.part!r}]}})[0]\n"
            "        goods = goods + goods_for(part, scaled_up(recipe, portions, u['quantity']), level + 1)\n"
            "    return goods\n"
        )

    def plan_cost(self) -> str:
        """Planner source of `d_material_cost`."""
        return (
            self.plan_leaves() + "def d_material_cost(row, portions):\n"
            "    return sum([item['price'] * units for item, units in goods_for(row, portions, 1)])\n"
        )

    # goals ------------------------------------------------------------------------------------------------------

    def goal_index(self) -> str:
        """Goal source of what the explosion looks up: lines and parts by recipe id, sizes and stand-ins by good id."""
        since = f"        if w['since'] > '{self.today}':\n            continue\n" if self.dated else ""
        texts = [
            "@once\n"
            "def lines_by_recipe():\n"
            f"    recipes = {{r[{self.line_recipe_key!r}]: r['id'] for r in db['recipe']}}\n"
            f"    items = {{i[{self.item_key!r}]: i['id'] for i in db['item']}}\n"
            "    lines = {}\n"
            "    for c in db['component']:\n"
            f"        lines.setdefault(recipes[c[{self.line_recipe!r}]], []).append((items[c[{self.item!r}]], c))\n"
            "    return lines\n"
            "@once\n"
            "def parts_by_recipe():\n"
            f"    wholes = {{r[{self.whole_key!r}]: r['id'] for r in db['recipe']}}\n"
            f"    parts = {{r[{self.part_key!r}]: r['id'] for r in db['recipe']}}\n"
            "    found = {}\n"
            "    for u in db['subrecipe']:\n"
            f"        found.setdefault(wholes[u[{self.whole!r}]], []).append((parts[u[{self.part!r}]], u['quantity']))\n"
            "    return found\n"
            "@once\n"
            "def yields_of_recipes():\n"
            "    return {r['id']: r['portions'] for r in db['recipe']}\n"
        ]
        if self.own:
            texts.append(
                "@once\n"
                "def own_sizes():\n"
                f"    items = {{i[{self.sized_key!r}]: i['id'] for i in db['item']}}\n"
                "    sizes = {}\n"
                "    for v in db['conversion']:\n"
                f"        place = items[v[{self.sized!r}]], v['measure']\n"
                "        sizes[place] = max(sizes.get(place, 0), v['factor'])\n"
                "    return sizes\n"
            )
        if self.swaps:
            texts.append(
                "@once\n"
                "def stand_ins():\n"
                f"    olds = {{i[{self.old_key!r}]: i['id'] for i in db['item']}}\n"
                f"    news = {{i[{self.new_key!r}]: i['id'] for i in db['item']}}\n"
                "    found = {}\n"
                "    for w in sorted(db['substitute'], key=lambda w: w['id'], reverse=True):\n"
                f"{since}"
                f"        found[olds[w[{self.old!r}]]] = news[w[{self.new!r}]], w['ratio']\n"
                "    return found\n"
            )
        return "".join(texts)

    def goal_leaves(self) -> str:
        """Goal source of `units_of_goods`: good id to units, level by level from the top."""
        factor = f"{{'piece': 1, 'box': {SIZES['box']}, 'crate': {SIZES['crate']}}}[c['measure']]"
        if self.own:
            factor = f"own_sizes().get((item, c['measure']), {factor})"
        size = (
            f"            units = c['quantity'] * {factor}\n"
            if self.measured
            else "            units = c['quantity']\n"
        )
        scaled = "count = (portions + size - 1) // size\n" if self.runs else ""
        times = "units * count" if self.runs else "(units * portions + size - 1) // size"
        below = "quantity * count" if self.runs else "(quantity * portions + size - 1) // size"
        loss = "            units += (units * c['loss'] + 99) // 100\n" if self.loss else ""
        swap = (
            "            if item in stand_ins():\n"
            "                item, ratio = stand_ins()[item]\n"
            "                units = (units * ratio + 99) // 100\n"
        )
        return (
            self.goal_index() + "@once\n"
            "def units_of_goods(recipe_id, portions):\n"
            "    level, total = [(recipe_id, portions)], {}\n"
            f"    for depth in range({LEVELS}):\n"
            "        following = []\n"
            "        for recipe, portions in level:\n"
            "            size = yields_of_recipes()[recipe]\n"
            f"{'            ' + scaled if scaled else ''}"
            "            for item, c in lines_by_recipe().get(recipe, []):\n"
            f"    {size}"
            f"                units = {times}\n"
            f"{self.deeper(loss)}{self.deeper(swap) if self.swaps else ''}"
            "                total[item] = total.get(item, 0) + units\n"
            "            for part, quantity in parts_by_recipe().get(recipe, []):\n"
            f"                following.append((part, {below}))\n"
            "        level = following\n"
            "    return total\n"
        )

    def deeper(self, lines: str) -> str:
        """Indent lines by one more level."""
        return "".join(f"    {line}\n" for line in lines.splitlines())

    def goal_cost(self) -> str:
        """Goal source of `g_material_cost`."""
        return (
            self.goal_leaves() + "@once\n"
            "def prices_of_goods():\n"
            "    return {i['id']: i['price'] for i in db['item']}\n"
            "def g_material_cost(db, row, portions):\n"
            "    found = units_of_goods(row['id'], portions)\n"
            "    return sum(units * prices_of_goods()[item] for item, units in found.items())\n"
        )
