"""Actions of a stock world: reserve, receive, release; each with its three texts."""

from __future__ import annotations

from envsynth.author.procedural.ir import Type
from envsynth.author.procedural.mechanism import Action
from envsynth.author.procedural.mechanisms.inventory.bindings import UNITS, Bindings


class ActionTexts(Bindings):
    """Writes the actions over one world."""

    def reserve(self) -> Action:
        """Reserve stock, earliest expiry first."""
        return Action(
            name="reserve",
            phrase="reserve {quantity} of {item} at {site} for {person}",
            params=(
                ("quantity", UNITS),
                ("item", Type("row", "item")),
                ("site", Type("row", "site")),
                ("person", Type("row", "person")),
            ),
            oracle_sql=self.reserve_sql(),
            plan=self.reserve_plan(),
            goal=self.reserve_goal(),
            tables=("reservation",),
            policy=self.reserve_policy(),
        )

    def reserve_policy(self) -> str:
        """Which lots to reserve from, and how much."""
        word, lots = self.world.word, self.world.plural("lot")
        pack = ""
        if self.pack > 1:
            pack = (
                f" Stock is reserved in whole packs of {self.pack} units: a requested quantity is rounded up to the "
                "next whole pack."
            )
        keep = f" No more than the available stock may be reserved; the safety stock of the {word('site')} stays."
        return (
            f"Reserve from usable {lots} only, those with the earliest expiry day first: use a later one only when all "
            f"earlier ones of that {word('item')} at that {word('site')} are exhausted.{pack}"
            f"{keep if self.safety else ''}"
        )

    def reserve_sql(self) -> str:
        """Oracle: the rows that a reservation inserts."""
        keep = ' - (SELECT s."safety" FROM "site" s WHERE s."id" = {site})' if self.safety else ""
        state = ", 'phase', 'held'" if self.releases else ""
        return (
            f'WITH "open" AS (SELECT l."id", l."expiry", l."{self.lot_key}" AS "link",'
            f' l."quantity" - {self.held_sql("l")} AS "free" FROM "lot" l'
            f' WHERE l."{self.item}" = (SELECT i."{self.item_key}" FROM "item" i WHERE i."id" = {{item}})'
            f' AND l."{self.site}" = (SELECT s."{self.site_key}" FROM "site" s WHERE s."id" = {{site}})'
            f" AND {self.usable_sql('l')}),"
            ' "queue" AS (SELECT *, COALESCE(SUM("free") OVER (ORDER BY "expiry", "id"'
            ' ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0) AS "before" FROM "open" WHERE "free" > 0),'
            f' "want" AS (SELECT ({{quantity}} + {self.pack - 1}) / {self.pack} * {self.pack} AS "n")'
            f" SELECT 'insert', 'reservation', json_object('{self.lot}', \"link\","
            f' \'{self.person}\', (SELECT p."{self.person_key}" FROM "person" p WHERE p."id" = {{person}}),'
            f' \'quantity\', MIN("free", "n" - "before"){state})'
            ' FROM "queue", "want" WHERE "before" < "n"'
            f' AND (SELECT SUM("free") FROM "queue"){keep} >= "n" ORDER BY "before"'
        )

    def reserve_plan(self) -> str:
        """Planner source of `a_reserve`."""
        rounded = f"    if POLICY:\n        quantity = -(-quantity // {self.pack}) * {self.pack}\n"
        keep = "    if POLICY:\n        spare -= site['safety']\n" if self.safety else ""
        return (
            self.plan_free() + "def a_reserve(quantity, item, site, person):\n"
            f"{rounded if self.pack > 1 else ''}"
            f"    lots = rows('lot', {{{self.item!r}: item[{self.item_key!r}], {self.site!r}: site[{self.site_key!r}]}})\n"
            "    if POLICY:\n"
            f"        lots = sorted([l for l in lots if {self.plan_usable('l')}], key=lambda l: l['expiry'])\n"
            "    free = [(l, d_free_qty(l)) for l in lots]\n"
            "    spare = sum([n for l, n in free])\n"
            f"{keep}"
            "    if spare < quantity:\n"
            "        raise RuntimeError('not enough stock')\n"
            "    for l, n in free:\n"
            "        take = min(n, quantity)\n"
            "        if take > 0:\n"
            "            quantity -= take\n"
            f"            write({self.reserve_tool!r}, {self.arg('lot')}=l['id'],"
            f" {self.arg('person')}=person['id'], quantity=take)\n"
        )

    def reserve_goal(self) -> str:
        """Goal source of `s_reserve`: the property, so any split of equal expiry days passes."""
        rounded = f"    while quantity % {self.pack} != 0:\n        quantity += 1\n" if self.pack > 1 else ""
        keep = " + site['safety']" if self.safety else ""
        live = "            if new['phase'] != 'held':\n                continue\n" if self.releases else ""
        return (
            self.goal_lots() + "def s_reserve(db, diff, quantity, item, site, person):\n"
            f"{rounded}"
            f"    lots = usable_lots().get((item[{self.item_key!r}], site[{self.site_key!r}]), [])\n"
            "    free = {key: units for key, units, _ in lots}\n"
            "    expiry = {key: day for key, _, day in lots}\n"
            "    taken, claimed = {}, []\n"
            "    for entry in diff:\n"
            "        new = entry['new']\n"
            "        if entry['op'] == 'insert' and entry['table'] == 'reservation':\n"
            f"{live}"
            f"            if new[{self.person!r}] == person[{self.person_key!r}] and new[{self.lot!r}] in free:\n"
            f"                taken[new[{self.lot!r}]] = taken.get(new[{self.lot!r}], 0) + new['quantity']\n"
            "                claimed.append(entry)\n"
            f"    if sum(taken.values()) != quantity or sum(free.values()) < quantity{keep}:\n"
            "        return None\n"
            "    if any(taken[key] > free[key] for key in taken):\n"
            "        return None\n"
            "    last = max(expiry[key] for key in taken)\n"
            "    if any(expiry[key] < last and free[key] > taken.get(key, 0) for key in free):\n"
            "        return None\n"
            "    return claimed\n"
        )

    def receive(self) -> Action:
        """Receive a new lot."""
        item, site = self.item_key, self.site_key
        state_sql = ", 'condition', 'quarantine'" if self.quarantine else ""
        state_plan = ", condition='quarantine' if POLICY else 'ok'" if self.quarantine else ""
        state_goal = " and new['condition'] == 'quarantine'" if self.quarantine else ""
        lot = self.world.word("lot")
        return Action(
            name="receive",
            phrase="receive {quantity} of {item} at {site} with expiry day {day}",
            params=(
                ("quantity", UNITS),
                ("item", Type("row", "item")),
                ("site", Type("row", "site")),
                ("day", Type("date")),
            ),
            oracle_sql=(
                f"SELECT 'insert', 'lot', json_object("
                f'\'{self.item}\', (SELECT i."{item}" FROM "item" i WHERE i."id" = {{item}}),'
                f' \'{self.site}\', (SELECT s."{site}" FROM "site" s WHERE s."id" = {{site}}),'
                f" 'quantity', {{quantity}}, 'expiry', {{day}}{state_sql}) WHERE {{day}} >= '{self.world.now[:10]}'"
            ),
            plan=(
                "def a_receive(quantity, item, site, day):\n"
                f"    write({self.receive_tool!r}, {self.arg('item')}=item['id'], {self.arg('site')}=site['id'],"
                f" quantity=quantity, expiry=day{state_plan})\n"
            ),
            goal=(
                "def s_receive(db, diff, quantity, item, site, day):\n"
                "    for entry in diff:\n"
                "        new = entry['new']\n"
                "        if entry['op'] != 'insert' or entry['table'] != 'lot':\n"
                "            continue\n"
                f"        if new[{self.item!r}] == item[{item!r}] and new[{self.site!r}] == site[{site!r}]:\n"
                f"            if new['quantity'] == quantity and new['expiry'] == day{state_goal}:\n"
                "                return [entry]\n"
                "    return None\n"
            ),
            tables=("lot",),
            policy=(
                f"What is received becomes one new {lot}; its expiry day must not lie before today, {self.world.now[:10]}."
                + (f" The condition of a new {lot} is quarantine." if self.quarantine else "")
            ),
        )

    def release(self) -> Action:
        """Release a reservation."""
        return Action(
            name="release",
            phrase="release {reservation}",
            params=(("reservation", Type("row", "reservation")),),
            oracle_sql=(
                "SELECT 'update', 'reservation', json_object('id', x.\"id\", 'phase', 'released')"
                ' FROM "reservation" x WHERE x."id" = {reservation} AND x."phase" = \'held\''
            ),
            plan=(
                "def a_release(reservation):\n"
                f"    write({self.release_tool!r}, {self.arg('reservation')}=reservation['id'])\n"
            ),
            goal=(
                "def s_release(db, diff, reservation):\n"
                "    for entry in diff:\n"
                "        if entry['op'] != 'update' or entry['table'] != 'reservation':\n"
                "            continue\n"
                "        if entry['new']['id'] == reservation['id'] and entry['changed'] == ['phase']:\n"
                "            return [entry] if entry['new']['phase'] == 'released' else None\n"
                "    return None\n"
            ),
            tables=("reservation",),
            policy=f"Only a {self.world.word('reservation')} whose phase is held can be released.",
        )
