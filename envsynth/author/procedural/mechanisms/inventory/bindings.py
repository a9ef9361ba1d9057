"""What the texts of a stock world have in common: column names and rules bound to one world, and shared pieces."""

from __future__ import annotations

from datetime import date, timedelta

from envsynth.author.procedural.ir import Type
from envsynth.author.procedural.mechanism import Composed
from envsynth.author.procedural.mechanisms.entities import id_argument

UNITS = Type("num", "units")


class Bindings:
    """The texts over one composed world: column names, nouns and rules are bound here."""

    def __init__(self, world: Composed) -> None:
        self.world = world
        self.item, self.item_key = world.fk("lot", "item")
        self.site, self.site_key = world.fk("lot", "site")
        self.lot, self.lot_key = world.fk("reservation", "lot")
        self.person, self.person_key = world.fk("reservation", "person")
        rules = world.rules
        self.pack = int(rules["pack"])
        self.quarantine, self.safety, self.releases = rules["quarantine"], rules["safety"], rules["releases"]
        first = date.fromisoformat(world.now[:10]) + timedelta(days=int(rules["shelf_days"]))
        self.first_day = first.isoformat()
        self.reserve_tool = f"reserve_{world.slug('lot')}"
        self.receive_tool = f"receive_{world.slug('lot')}"
        self.release_tool = f"release_{world.slug('reservation')}"

    def arg(self, entity: str) -> str:
        """Name of the tool argument that takes an id."""
        return id_argument(self.world, entity)

    def held_sql(self, lot: str) -> str:
        """SQL of the units of a lot that are reserved."""
        live = " AND x.\"phase\" = 'held'" if self.releases else ""
        return (
            f'(SELECT COALESCE(SUM(x."quantity"), 0) FROM "reservation" x'
            f' WHERE x."{self.lot}" = {lot}."{self.lot_key}"{live})'
        )

    def usable_sql(self, lot: str) -> str:
        """SQL condition that a lot is usable."""
        state = f" AND {lot}.\"condition\" = 'ok'" if self.quarantine else ""
        return f"{lot}.\"expiry\" >= '{self.first_day}'{state}"

    # The planner's and the goals' pieces are written apart on purpose: they may not share a mistake.

    def plan_usable(self, lot: str) -> str:
        """Planner expression that a lot is usable."""
        state = f" and {lot}['condition'] == 'ok'" if self.quarantine else ""
        return f"{lot}['expiry'] >= '{self.first_day}'{state}"

    def plan_free(self) -> str:
        """Planner source of `d_free_qty`."""
        live = " if x['phase'] == 'held'" if self.releases else ""
        return (
            "def d_free_qty(row):\n"
            "    if not POLICY:\n"
            "        return row['quantity']\n"
            f"    taken = rows('reservation', {{{self.lot!r}: row[{self.lot_key!r}]}})\n"
            f"    return row['quantity'] - sum([x['quantity'] for x in taken{live}])\n"
        )

    def plan_available(self) -> str:
        """Planner source of `d_available`."""
        keep = "    if POLICY:\n        total = max(0, total - site['safety'])\n" if self.safety else ""
        return (
            self.plan_free() + "def d_available(row, site):\n"
            f"    lots = rows('lot', {{{self.item!r}: row[{self.item_key!r}], {self.site!r}: site[{self.site_key!r}]}})\n"
            f"    total = sum([d_free_qty(l) for l in lots if not POLICY or ({self.plan_usable('l')})])\n"
            f"{keep}"
            "    return total\n"
        )

    def goal_usable(self) -> str:
        """Goal source of `usable_lot`."""
        state = "    if lot['condition'] != 'ok':\n        return False\n" if self.quarantine else ""
        return f"def usable_lot(lot):\n{state}    return not lot['expiry'] < '{self.first_day}'\n"

    def goal_free(self) -> str:
        """Goal source of `g_free_qty`."""
        released = "        if x['phase'] == 'released':\n            continue\n" if self.releases else ""
        return (
            "@once\n"
            "def taken_of_lots():\n"
            "    taken = {}\n"
            "    for x in db['reservation']:\n"
            f"{released}"
            f"        taken[x[{self.lot!r}]] = taken.get(x[{self.lot!r}], 0) + x['quantity']\n"
            "    return taken\n"
            "def g_free_qty(db, row):\n"
            f"    return row['quantity'] - taken_of_lots().get(row[{self.lot_key!r}], 0)\n"
        )

    def goal_lots(self) -> str:
        """Goal source of `usable_lots`: (key, unreserved quantity, expiry day) of usable lots, by good and place."""
        return (
            self.goal_free() + self.goal_usable() + "@once\n"
            "def usable_lots():\n"
            "    lots = {}\n"
            "    for lot in db['lot']:\n"
            "        if usable_lot(lot):\n"
            f"            found = lots.setdefault((lot[{self.item!r}], lot[{self.site!r}]), [])\n"
            f"            found.append((lot[{self.lot_key!r}], g_free_qty(db, lot), lot['expiry']))\n"
            "    return lots\n"
        )

    def goal_available(self) -> str:
        """Goal source of `g_available`."""
        keep = "    left -= site['safety']\n" if self.safety else ""
        return (
            self.goal_lots() + "def g_available(db, row, site):\n"
            f"    lots = usable_lots().get((row[{self.item_key!r}], site[{self.site_key!r}]), [])\n"
            "    left = sum(free for _, free, _ in lots)\n"
            f"{keep}"
            "    return left if left > 0 else 0\n"
        )

    def free_policy(self) -> str:
        """What unreserved means."""
        lot, reservations = self.world.word("lot"), self.world.plural("reservation")
        live = "; released ones do not count" if self.releases else ""
        return (
            f"The unreserved quantity of a {lot} is its quantity less the quantities of all its {reservations}{live}."
        )

    def usable_policy(self) -> str:
        """What usable means."""
        state = " and its condition is ok" if self.quarantine else ""
        return f"A {self.world.word('lot')} is usable if its expiry day is on or after {self.first_day}{state}."

    def available_policy(self) -> str:
        """What available means."""
        item, site, lots = self.world.word("item"), self.world.word("site"), self.world.plural("lot")
        keep = f", less the safety stock of that {site}, but never below 0" if self.safety else ""
        return (
            f"The available stock of a {item} at a {site} is the sum of the unreserved quantities of its usable {lots} "
            f"there{keep}. {self.usable_policy()}"
        )
