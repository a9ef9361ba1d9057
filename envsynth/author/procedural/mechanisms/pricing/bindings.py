"""What the texts of a price world have in common: column names and rules bound to one world, and shared pieces."""

from __future__ import annotations

from envsynth.author.procedural.ir import Type
from envsynth.author.procedural.mechanism import Composed
from envsynth.author.procedural.mechanisms.entities import id_argument

UNITS = Type("num", "units")
CREDITS = Type("num", "credits")


class Bindings:
    """The texts over one composed world: column names, nouns and rules are bound here."""

    def __init__(self, world: Composed) -> None:
        self.world = world
        self.break_item, self.break_key = world.fk("pricebreak", "item")
        self.item, self.item_key = world.fk("order", "item")
        self.person, self.person_key = world.fk("order", "person")
        rules = world.rules
        self.groups, self.dated, self.strict = rules["groups"], rules["dated"], rules["strict"]
        self.round_up, self.flat_first = rules["round_up"], rules["flat_first"]
        self.withdrawals = rules["withdrawals"]
        self.mark = "stack" if self.groups else "id"
        self.most = int(rules["most"])
        self.kept = 100 - int(rules["cap"])
        self.today = world.now[:10]
        self.order_tool = f"place_{world.slug('order')}"
        self.withdraw_tool = f"withdraw_{world.slug('order')}"
        self.coupons_argument = f"{world.slug('coupon')}_ids"

    def arg(self, entity: str) -> str:
        """Name of the tool argument that takes an id."""
        return id_argument(self.world, entity)

    # SQL --------------------------------------------------------------------------------------------------------

    def cost_sql(self, item: str, quantity: str) -> str:
        """SQL of the cost of a quantity, before vouchers."""
        return (
            f'(({item}."price" * {quantity} * (100 - (SELECT COALESCE(MAX(b."reduction"), 0) FROM "pricebreak" b'
            f' WHERE b."{self.break_item}" = {item}."{self.break_key}" AND b."minimum" <= {quantity}))'
            f" + {99 if self.round_up else 0}) / 100)"
        )

    def best_sql(self, item: str, quantity: str) -> str:
        """SQL of the best price.

        Vouchers are numbered by group (or one by one); a set takes them in ascending numbers, at most one of each, so
        the recursion has at most (vouchers per group + 1) ** groups rows.
        """
        live = f" AND c.\"until\" >= '{self.today}'" if self.dated else ""
        slot = 'dense_rank() OVER (ORDER BY c."stack")' if self.groups else "row_number() OVER ()"
        most = f' AND "sets"."used" < {self.most}' if self.most else ""
        base, percent, flat = '"base"."cost"', '"sets"."percent"', '"sets"."flat"'
        if self.flat_first:
            rest = f"MAX(0, {base} - {flat})"
            after = f"{rest} - {rest} * {percent} / 100"
        else:
            after = f"{base} - {base} * {percent} / 100 - {flat}"
        return (
            f'(WITH RECURSIVE "base"("cost") AS MATERIALIZED (SELECT {self.cost_sql(item, quantity)}),'
            f' "valid" AS MATERIALIZED (SELECT {slot} AS "slot", c."kind" = \'percent\' AS "relative", c."value"'
            f' FROM "coupon" c, "base" WHERE c."minimum" <= "base"."cost"{live}),'
            ' "sets"("slot", "percent", "flat", "used") AS (SELECT 0, 0, 0, 0 UNION'
            ' SELECT v."slot", "sets"."percent" + v."value" * v."relative",'
            ' "sets"."flat" + v."value" * (1 - v."relative"), "sets"."used" + 1'
            f' FROM "sets" JOIN "valid" v ON v."slot" > "sets"."slot"{most})'
            f' SELECT MIN(MAX({after}, {base} * {self.kept} / 100)) FROM "sets", "base")'
        )

    # planner ----------------------------------------------------------------------------------------------------

    def plan_cost(self) -> str:
        """Planner source of `d_cost`."""
        rounded = "-(-full // 100)" if self.round_up else "full // 100"
        return (
            "def d_cost(row, quantity):\n"
            f"    steps = rows('pricebreak', {{{self.break_item!r}: row[{self.break_key!r}]}})\n"
            "    reached = [b['reduction'] for b in steps if POLICY and b['minimum'] <= quantity]\n"
            "    full = row['price'] * quantity * (100 - max(reached + [0]))\n"
            f"    return {rounded}\n"
        )

    def plan_best(self) -> str:
        """Planner source that finds the best set of vouchers by trying all; greedy takes the best single one."""
        live = f" and (not POLICY or c['until'] >= '{self.today}')" if self.dated else ""
        if self.flat_first:
            after = "    after = max(0, cost - flat)\n    after = after - after * percent // 100\n"
        else:
            after = "    after = cost - cost * percent // 100 - flat\n"
        fits: list[str] = []
        if self.groups:
            fits.append("coupon['stack'] not in [c['stack'] for c in chosen]")
        if self.most:
            fits.append(f"len(chosen) < {self.most}")
        return (
            self.plan_cost() + "def price_with(cost, chosen):\n"
            "    percent = sum([c['value'] for c in chosen if c['kind'] == 'percent'])\n"
            "    flat = sum([c['value'] for c in chosen if c['kind'] == 'flat'])\n"
            f"{after}"
            f"    return max(after, cost * {self.kept} // 100)\n"
            "def coupon_sets(chosen, left):\n"
            "    found = [chosen]\n"
            "    for index, coupon in enumerate(left):\n"
            f"        if {' and '.join(fits) or 'True'}:\n"
            "            found = found + coupon_sets(chosen + [coupon], left[index + 1:])\n"
            "    return found\n"
            "def best_coupons(row, quantity):\n"
            "    cost = d_cost(row, quantity)\n"
            f"    usable = [c for c in rows('coupon', {{}}) if c['minimum'] <= cost{live}]\n"
            "    sets = [[]] + [[c] for c in usable] if GREEDY else coupon_sets([], usable)\n"
            "    return min(sets, key=lambda chosen: price_with(cost, chosen))\n"
        )

    # goals ------------------------------------------------------------------------------------------------------

    def goal_cost(self) -> str:
        """Goal source of `g_cost`."""
        rounded = "(hundredths + 99) // 100" if self.round_up else "hundredths // 100"
        return (
            "@once\n"
            "def breaks_of_items():\n"
            "    breaks = {}\n"
            "    for b in db['pricebreak']:\n"
            f"        breaks.setdefault(b[{self.break_item!r}], []).append((b['minimum'], b['reduction']))\n"
            "    return breaks\n"
            "def g_cost(db, row, quantity):\n"
            "    best = 0\n"
            f"    for minimum, reduction in breaks_of_items().get(row[{self.break_key!r}], []):\n"
            "        if not minimum > quantity:\n"
            "            best = reduction if reduction > best else best\n"
            "    hundredths = quantity * (row['price'] * 100 - row['price'] * best)\n"
            f"    return {rounded}\n"
        )

    def goal_best(self) -> str:
        """Goal source of `g_best_price`: what sums of percentages and credits can be reached, voucher by voucher."""
        late = f" or c['until'] < '{self.today}'" if self.dated else ""
        mark = "c['stack']" if self.groups else "c['id']"
        full = f" or len(marks) == {self.most}" if self.most else ""
        if self.flat_first:
            price = "(cost - flat if cost > flat else 0) * (100 - percent)"
            # An amount less its rounded-down share is the rounded-up rest.
            price = f"-(-{price} // 100)"
        else:
            price = "-(-cost * (100 - percent) // 100) - flat"
        return (
            self.goal_cost() + "@once\n"
            "def lowest_price(cost):\n"
            "    reach = {(0, 0, ())}\n"
            "    for c in db['coupon']:\n"
            f"        if c['minimum'] > cost{late}:\n"
            "            continue\n"
            "        for percent, flat, marks in list(reach):\n"
            f"            if {mark} in marks{full}:\n"
            "                continue\n"
            f"            more = tuple(sorted(marks + ({mark},)))\n"
            "            if c['kind'] == 'flat':\n"
            "                reach.add((percent, flat + c['value'], more))\n"
            "            else:\n"
            "                reach.add((percent + c['value'], flat, more))\n"
            f"    floor = cost * {self.kept} // 100\n"
            "    prices = []\n"
            "    for percent, flat, marks in reach:\n"
            f"        price = {price}\n"
            "        prices.append(price if price > floor else floor)\n"
            "    return min(prices)\n"
            "def g_best_price(db, row, quantity):\n"
            "    return lowest_price(g_cost(db, row, quantity))\n"
        )

    # sentences --------------------------------------------------------------------------------------------------

    def cost_policy(self) -> str:
        """What cost means."""
        item, breaks = self.world.word("item"), self.world.plural("pricebreak")
        return (
            f"The cost of a quantity of a {item} is its list price times the quantity, less a percentage of that: the "
            f"largest reduction among the {breaks} of that {item} whose minimum quantity is at most the quantity, or 0 "
            f"percent if there is none; what is left is rounded {'up' if self.round_up else 'down'} to whole credits."
        )

    def best_policy(self) -> str:
        """What best price means."""
        word, coupons, cap = self.world.word("coupon"), self.world.plural("coupon"), 100 - self.kept
        limits = [f" A {word} can be used only if the cost is at least its minimum cost"]
        if self.dated:
            limits.append(f" and its last day is {self.today} or later")
        limits.append(".")
        together: list[str] = []
        if self.groups:
            together.append(f"at most one {word} of each stacking group")
        if self.most:
            together.append(f"at most {self.most} {coupons} in all")
        if together:
            limits.append(f" One {self.world.word('order')} takes {', '.join(together)}.")
        steps = ["the percentages are added up and that percentage of the amount, rounded down, is taken off"]
        steps.insert(0 if self.flat_first else 1, "the flat values are taken off")
        if self.flat_first:
            steps[0] += " (to no less than 0)"
        return (
            f"The {word} price of a quantity is the lowest that any set of {coupons} gives. The amount begins as the cost; "
            f"first {steps[0]}, then {steps[1]}; the result is never below {self.kept} percent of the cost, rounded down "
            f"({coupons} take off at most {cap} percent).{''.join(limits)}"
        )
