"""Actions of a recipe world: plan a batch, change its size, start it, substitute a good; each with its three texts."""

from __future__ import annotations

from envsynth.author.procedural.ir import Type
from envsynth.author.procedural.mechanism import Action
from envsynth.author.procedural.mechanisms.recipes.bindings import PORTIONS, Bindings


class ActionTexts(Bindings):
    """Writes the actions over one world."""

    def size_policy(self) -> str:
        """How large a batch is, and what it costs."""
        word = self.world.word
        recipe, batch = word("recipe"), word("batch")
        size = (
            f"its size is the portions asked for, and its planned expense is the material cost of the {recipe} for them"
        )
        if self.runs:
            size = (
                "its size is the portions asked for, rounded up to whole runs, and its planned expense is the material "
                f"cost of the {recipe} for that size"
            )
        most = f" A {batch} may be at most {self.most} times the yield of its {recipe}." if self.most else ""
        return f"Where a {batch} is planned or resized, {size}.{most}"

    def plan_batch(self) -> Action:
        """Plan a batch at its size and cost."""
        size = self.rounded_sql("{portions}", "r")
        state_sql = ", 'progress', 'planned'" if self.states else ""
        state = ", 'progress': 'planned'" if self.states else ""
        return Action(
            name="plan_batch",
            phrase="plan {portions} of {recipe} with {person}",
            params=(
                ("recipe", Type("row", "recipe")),
                ("portions", PORTIONS),
                ("person", Type("row", "person")),
            ),
            oracle_sql=(
                f"SELECT 'insert', 'batch', json_object('{self.made}', r.\"{self.made_key}\","
                f" '{self.maker}', p.\"{self.maker_key}\","
                f" 'portions', {size}, 'expense', {self.cost_sql('r', size)}{state_sql})"
                f' FROM "recipe" r, "person" p WHERE r."id" = {{recipe}} AND p."id" = {{person}} AND {{portions}} > 0'
                f"{self.most_sql(size, 'r')}"
            ),
            plan=(
                f"{self.plan_cost()}{self.plan_size()}def a_plan_batch(recipe, portions, person):\n"
                "    size = batch_size(recipe, portions)\n"
                f"    write({self.plan_tool!r}, {self.arg('recipe')}=recipe['id'], {self.arg('person')}=person['id'],"
                " portions=size, expense=d_material_cost(recipe, size))\n"
            ),
            goal=(
                f"{self.goal_cost()}{self.goal_size()}def s_plan_batch(db, diff, recipe, portions, person):\n"
                "    size = size_of_batch(recipe, portions)\n"
                f"    want = {{{self.made!r}: recipe[{self.made_key!r}], {self.maker!r}: person[{self.maker_key!r}]{state}}}\n"
                "    want = {**want, 'portions': size, 'expense': g_material_cost(db, recipe, size)}\n"
                "    for entry in diff:\n"
                "        if entry['op'] == 'insert' and entry['table'] == 'batch':\n"
                "            if {name: cell for name, cell in entry['new'].items() if name != 'id'} == want:\n"
                "                return [entry]\n"
                "    return None\n"
            ),
            tables=("batch",),
            policy=self.size_policy()
            + (f" The progress of a new {self.world.word('batch')} is planned." if self.states else ""),
        )

    def most_sql(self, size: str, recipe: str) -> str:
        """Condition on the largest batch."""
        return f' AND {size} <= {self.most} * {recipe}."portions"' if self.most else ""

    def plan_size(self) -> str:
        """Planner source of `batch_size`."""
        runs = (
            "    if POLICY:\n        return -(-portions // recipe['portions']) * recipe['portions']\n"
            if self.runs
            else ""
        )
        return f"def batch_size(recipe, portions):\n{runs}    return portions\n"

    def goal_size(self) -> str:
        """Goal source of `size_of_batch`."""
        rest = " + -portions % recipe['portions']" if self.runs else ""
        return f"def size_of_batch(recipe, portions):\n    return portions{rest}\n"

    def resize(self) -> Action:
        """Change the size of a batch, and its cost with it."""
        size = self.rounded_sql("{portions}", "r")
        planned = " AND b.\"progress\" = 'planned'" if self.states else ""
        state = f" Only a {self.world.word('batch')} whose progress is planned can be resized." if self.states else ""
        return Action(
            name="resize_batch",
            phrase="resize {batch} to {portions}",
            params=(("batch", Type("row", "batch")), ("portions", PORTIONS)),
            oracle_sql=(
                f"SELECT 'update', 'batch', json_object('id', b.\"id\", 'portions', {size},"
                f" 'expense', {self.cost_sql('r', size)})"
                f' FROM "batch" b JOIN "recipe" r ON r."{self.made_key}" = b."{self.made}"'
                f' WHERE b."id" = {{batch}} AND {{portions}} > 0 AND {size} <> b."portions"{planned}'
                f"{self.most_sql(size, 'r')}"
            ),
            plan=(
                f"{self.plan_cost()}{self.plan_size()}def a_resize_batch(batch, portions):\n"
                f"    recipe = rows('recipe', {{{self.made_key!r}: batch[{self.made!r}]}})[0]\n"
                "    size = batch_size(recipe, portions)\n"
                f"    write({self.resize_tool!r}, {self.arg('batch')}=batch['id'], portions=size,"
                " expense=d_material_cost(recipe, size))\n"
            ),
            goal=(
                f"{self.goal_cost()}{self.goal_size()}@once\n"
                "def recipes_of_batches():\n"
                f"    return {{r[{self.made_key!r}]: r for r in db['recipe']}}\n"
                "def s_resize_batch(db, diff, batch, portions):\n"
                f"    recipe = recipes_of_batches()[batch[{self.made!r}]]\n"
                "    size = size_of_batch(recipe, portions)\n"
                "    want = {**batch, 'portions': size, 'expense': g_material_cost(db, recipe, size)}\n"
                "    for entry in diff:\n"
                "        if entry['op'] == 'update' and entry['table'] == 'batch' and entry['new'] == want:\n"
                "            return [entry]\n"
                "    return None\n"
            ),
            tables=("batch",),
            policy=f"To resize a {self.world.word('batch')} changes its size and its planned expense.{state}",
        )

    def start(self) -> Action:
        """Start a planned batch."""
        batch = self.world.word("batch")
        return Action(
            name="start_batch",
            phrase="start {batch}",
            params=(("batch", Type("row", "batch")),),
            oracle_sql=(
                "SELECT 'update', 'batch', json_object('id', b.\"id\", 'progress', 'running')"
                ' FROM "batch" b WHERE b."id" = {batch} AND b."progress" = \'planned\''
            ),
            plan=f"def a_start_batch(batch):\n    write({self.start_tool!r}, {self.arg('batch')}=batch['id'])\n",
            goal=(
                "def s_start_batch(db, diff, batch):\n"
                "    for entry in diff:\n"
                "        if entry['op'] == 'update' and entry['table'] == 'batch':\n"
                "            if entry['new'] == {**batch, 'progress': 'running'} and batch['progress'] == 'planned':\n"
                "                return [entry]\n"
                "    return None\n"
            ),
            tables=("batch",),
            policy=f"Only a {batch} whose progress is planned can be started; its progress becomes running.",
        )

    def swap_policy(self) -> str:
        """What it means to use a stand-in."""
        word, item = self.world.word, self.world.word("item")
        since = f" with first day {self.today} or earlier" if self.dated else ""
        measure = ", in the same measure as before" if self.measured else ""
        return (
            f"To put the stand-in into a {word('component')} replaces its {item} by the stand-in of the "
            f"{word('substitute')}{since} of that {item} (the one with the smallest id), and its quantity by that quantity "
            f"times the ratio in percent, rounded up{measure}."
        )

    def swap(self) -> Action:
        """Replace the good of a line by its stand-in."""
        return Action(
            name="swap_item",
            phrase="put the stand-in into {component}",
            params=(("component", Type("row", "component")),),
            oracle_sql=(
                f"SELECT 'update', 'component', json_object('id', c.\"id\", '{self.item}', j.\"{self.item_key}\","
                ' \'quantity\', (c."quantity" * z."ratio" + 99) / 100) FROM "component" c'
                f' JOIN "item" i ON i."{self.item_key}" = c."{self.item}"'
                f' JOIN "substitute" z ON z."id" = {self.swap_sql("i")}'
                f' JOIN "item" j ON j."{self.new_key}" = z."{self.new}" WHERE c."id" = {{component}}'
            ),
            plan=(
                self.plan_swap() + "def a_swap_item(component):\n"
                f"    item = rows('item', {{{self.item_key!r}: component[{self.item!r}]}})[0]\n"
                "    swap = swap_in_force(item)\n"
                "    if not swap:\n"
                "        raise RuntimeError('nothing stands in for ' + item['name'])\n"
                f"    other = rows('item', {{{self.new_key!r}: swap[{self.new!r}]}})[0]\n"
                "    quantity = component['quantity']\n"
                "    if POLICY:\n"
                "        quantity = -(-quantity * swap['ratio'] // 100)\n"
                f"    write({self.swap_tool!r}, {self.arg('component')}=component['id'], {self.arg('item')}=other['id'],"
                " quantity=quantity)\n"
            ),
            goal=(
                self.goal_index() + "@once\n"
                "def goods_of_lines():\n"
                "    return {c['id']: item for lines in lines_by_recipe().values() for item, c in lines}\n"
                "@once\n"
                "def keys_of_goods():\n"
                f"    return {{i['id']: i[{self.item_key!r}] for i in db['item']}}\n"
                "def s_swap_item(db, diff, component):\n"
                "    good = goods_of_lines()[component['id']]\n"
                "    if good not in stand_ins():\n"
                "        return None\n"
                "    other, ratio = stand_ins()[good]\n"
                "    quantity = (component['quantity'] * ratio + 99) // 100\n"
                f"    want = {{**component, {self.item!r}: keys_of_goods()[other], 'quantity': quantity}}\n"
                "    for entry in diff:\n"
                "        if entry['op'] == 'update' and entry['table'] == 'component' and entry['new'] == want:\n"
                "            return [entry]\n"
                "    return None\n"
            ),
            tables=("component",),
            policy=self.swap_policy(),
        )
