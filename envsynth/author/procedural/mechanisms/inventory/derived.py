"""Derived attributes of a stock world, each with its three texts."""

from __future__ import annotations

from envsynth.author.procedural.ir import Type
from envsynth.author.procedural.mechanism import Derived
from envsynth.author.procedural.mechanisms.inventory.bindings import UNITS, Bindings


class DerivedTexts(Bindings):
    """Writes the derived attributes over one world."""

    def free_qty(self) -> Derived:
        """Unreserved quantity of a lot."""
        return Derived(
            entity="lot",
            name="free_qty",
            label="unreserved quantity",
            type=UNITS,
            sql=f'({{t}}."quantity" - {self.held_sql("{t}")})',
            plan=self.plan_free(),
            goal=self.goal_free(),
            policy=self.free_policy(),
        )

    def available(self) -> Derived:
        """Available stock of a good at a place."""
        total = (
            f'(SELECT COALESCE(SUM(l."quantity" - {self.held_sql("l")}), 0) FROM "lot" l'
            f' WHERE l."{self.item}" = {{t}}."{self.item_key}"'
            f' AND l."{self.site}" = (SELECT s."{self.site_key}" FROM "site" s WHERE s."id" = {{0}})'
            f" AND {self.usable_sql('l')})"
        )
        keep = f'MAX(0, {total} - (SELECT s."safety" FROM "site" s WHERE s."id" = {{0}}))'
        return Derived(
            entity="item",
            name="available",
            label="available stock at {0}",
            params=(Type("row", "site"),),
            type=UNITS,
            sql=keep if self.safety else total,
            plan=self.plan_available(),
            goal=self.goal_available(),
            policy=self.available_policy(),
        )

    def stock(self) -> Derived:
        """Usable stock of a place."""
        return Derived(
            entity="site",
            name="stock",
            label="usable stock",
            type=UNITS,
            sql=(
                f'(SELECT COALESCE(SUM(l."quantity" - {self.held_sql("l")}), 0) FROM "lot" l'
                f' WHERE l."{self.site}" = {{t}}."{self.site_key}" AND {self.usable_sql("l")})'
            ),
            plan=(
                self.plan_free() + "def d_stock(row):\n"
                f"    lots = rows('lot', {{{self.site!r}: row[{self.site_key!r}]}})\n"
                f"    return sum([d_free_qty(l) for l in lots if not POLICY or ({self.plan_usable('l')})])\n"
            ),
            goal=(
                self.goal_lots() + "@once\n"
                "def stock_of_sites():\n"
                "    stock = {}\n"
                "    for (_, site), lots in usable_lots().items():\n"
                "        stock[site] = stock.get(site, 0) + sum(free for _, free, _ in lots)\n"
                "    return stock\n"
                "def g_stock(db, row):\n"
                f"    return stock_of_sites().get(row[{self.site_key!r}], 0)\n"
            ),
            policy=(
                f"The usable stock of a {self.world.word('site')} is the sum of the unreserved quantities of all "
                f"usable {self.world.plural('lot')} there."
            ),
        )

    def held(self) -> Derived:
        """Secured units of a person."""
        word, plural = self.world.word, self.world.plural
        live_sql = " AND x.\"phase\" = 'held'" if self.releases else ""
        live_plan = " and x['phase'] == 'held'" if self.releases else ""
        released = "        if x['phase'] == 'released':\n            continue\n" if self.releases else ""
        live_words = f"released {plural('reservation')} and those" if self.releases else "those"
        return Derived(
            entity="person",
            name="held",
            label="secured units",
            type=UNITS,
            sql=(
                f'(SELECT COALESCE(SUM(x."quantity"), 0) FROM "reservation" x'
                f' JOIN "lot" l ON l."{self.lot_key}" = x."{self.lot}"'
                f' WHERE x."{self.person}" = {{t}}."{self.person_key}" AND {self.usable_sql("l")}{live_sql})'
            ),
            plan=(
                "def d_held(row):\n"
                f"    mine = rows('reservation', {{{self.person!r}: row[{self.person_key!r}]}})\n"
                "    if not POLICY:\n"
                "        return sum([x['quantity'] for x in mine])\n"
                f"    good = [l[{self.lot_key!r}] for l in rows('lot', {{}}) if {self.plan_usable('l')}]\n"
                f"    return sum([x['quantity'] for x in mine if x[{self.lot!r}] in good{live_plan}])\n"
            ),
            goal=(
                self.goal_usable() + "@once\n"
                "def units_of_persons():\n"
                f"    usable = {{lot[{self.lot_key!r}]: usable_lot(lot) for lot in db['lot']}}\n"
                "    units = {}\n"
                "    for x in db['reservation']:\n"
                f"{released}"
                f"        more = x['quantity'] if usable[x[{self.lot!r}]] else 0\n"
                f"        units[x[{self.person!r}]] = units.get(x[{self.person!r}], 0) + more\n"
                "    return units\n"
                "def g_held(db, row):\n"
                f"    return units_of_persons().get(row[{self.person_key!r}], 0)\n"
            ),
            policy=(
                f"The secured units of a {word('person')} are the sum of the quantities of the {plural('reservation')} that the "
                f"{word('person')} holds; {live_words} of unusable {plural('lot')} do not count."
            ),
        )
