"""Actions of a freight world: dispatch, call back, release; each with its three texts."""

from __future__ import annotations

from envsynth.author.procedural.ir import Type
from envsynth.author.procedural.mechanism import Action
from envsynth.author.procedural.mechanisms.routing.bindings import HOURS, Bindings

SHIPMENT = (("shipment", Type("row", "shipment")),)


class ActionTexts(Bindings):
    """Writes the actions over one world."""

    def dispatch(self) -> Action:
        """Book a shipment on a cheapest chain in time; any such chain will do."""
        word, plural = self.world.word, self.world.plural
        shipment, lane = word("shipment"), word("lane")
        return Action(
            name="dispatch",
            phrase="dispatch {shipment} by the cheapest chain",
            params=SHIPMENT,
            oracle_sql=self.dispatch_sql(),
            plan=self.dispatch_plan(),
            goal=self.dispatch_goal(),
            tables=("consignment", "shipment"),
            policy=(
                f"To dispatch a {shipment} whose state is waiting by the cheapest chain, book each {lane} of a chain that "
                f"arrives at or before the deadline and costs no more than the freight cost, in order and each for the "
                f"day on which the {shipment} leaves by it; every such chain will do. The {plural('consignment')} are "
                f"numbered by position from 1, and with the last one the state of the {shipment} becomes booked."
            ),
        )

    def dispatch_sql(self) -> str:
        """Oracle: the bookings of one cheapest chain in time, and the new state."""
        status = ", 'status', 'live'" if self.trace else ""
        numbers = range(1, self.most + 1)
        legs = ", ".join(f'r{number}."run" AS "leg{number}"' for number in numbers)
        place = " ".join(f'WHEN "best"."leg{number}" THEN {number}' for number in numbers)
        order = ", ".join(f"{number}" for number in range(2, self.most + 2))
        return (
            f"WITH {self.departures_sql('{shipment}', 'waiting')},"
            f' "best" AS MATERIALIZED (SELECT {self.paid_sql()} AS "charge", {legs} FROM {self.chains_sql()}'
            f' AND {self.last_sql()} <= "me"."deadline" ORDER BY 1, {order} LIMIT 1)'
            f" SELECT 'insert', 'consignment', json_object('{self.cargo}', \"me\".\"link\", '{self.lane}', r.\"link\","
            f" 'day', r.\"date\", 'position', CASE r.\"run\" {place} END{status})"
            f' FROM "best" JOIN "run" r ON r."run" IN ({", ".join(f"leg{number}" for number in numbers)}) CROSS JOIN "me"'
            " UNION ALL SELECT 'update', 'shipment', json_object('id', \"me\".\"id\", 'state', 'booked')"
            ' FROM "best" CROSS JOIN "me"'
        )

    def dispatch_plan(self) -> str:
        """Planner source of `a_dispatch`."""
        return (
            self.plan_chains() + "def a_dispatch(shipment):\n"
            "    chains = chains_in_time(shipment)\n"
            "    if not chains:\n"
            "        raise RuntimeError('no chain is in time')\n"
            "    for leg in min(chains, key=chain_charge):\n"
            f"        write({self.book_tool!r}, {self.arg('shipment')}=shipment['id'], {self.arg('lane')}=leg['lane']['id'],"
            " day=leg['day'])\n"
        )

    def dispatch_goal(self) -> str:
        """Goal source of `s_dispatch`: the new bookings, by position, are a chain in time with the lowest charge."""
        live = " and entry['new']['status'] == 'live'" if self.trace else ""
        return (
            self.goal_cost() + "def s_dispatch(db, diff, shipment):\n"
            "    legs, moved = [], []\n"
            "    for entry in diff:\n"
            "        if entry['op'] == 'insert' and entry['table'] == 'consignment':\n"
            f"            if entry['new'][{self.cargo!r}] == shipment[{self.cargo_key!r}]{live}:\n"
            "                legs.append(entry)\n"
            "        elif entry['op'] == 'update' and entry['new'] == {**shipment, 'state': 'booked'}:\n"
            "            moved = [entry]\n"
            "    legs.sort(key=lambda entry: entry['new']['position'])\n"
            "    if not legs or not moved or shipment['state'] != 'waiting':\n"
            "        return None\n"
            "    lanes = departures_for(shipment['id'])\n"
            "    place, end = freight_ends(shipment['id'])\n"
            "    ready, paid, arrived = shipment['ready'], 0, None\n"
            "    for number, entry in enumerate(legs, start=1):\n"
            "        new = entry['new']\n"
            f"        here, there, cutoff, runs = lanes.get(new[{self.lane!r}], (None, None, 0, {{}}))\n"
            "        taken = [run for run in boarding(cutoff, runs, ready) if run[0] == new['day']]\n"
            "        if here != place or place == end or new['position'] != number or not taken:\n"
            "            return None\n"
            "        arrived, paid, place = taken[0][1], paid + taken[0][2], there\n"
            f"        ready = arrived + {self.handling}\n"
            f"    if place != end or len(legs) > {self.most} or arrived > shipment['deadline']:\n"
            "        return None\n"
            "    return legs + moved if paid == g_freight_cost(db, shipment) else None\n"
        )

    def call_back(self) -> Action:
        """Take back all bookings of a shipment."""
        word, plural = self.world.word, self.world.plural
        shipment = word("shipment")
        soon = ""
        if self.notice:
            soon = f" All of its days must be {self.days[self.notice]} or later."
        done = "recalled" if self.trace else "removed"
        counted = ", those that are not recalled," if self.trace else ""
        return Action(
            name="call_back",
            phrase="call {shipment} back",
            params=SHIPMENT,
            oracle_sql=self.call_back_sql(),
            plan=(
                f"def a_call_back(shipment):\n    write({self.call_back_tool!r}, {self.arg('shipment')}=shipment['id'])\n"
            ),
            goal=self.call_back_goal(),
            tables=("consignment", "shipment"),
            policy=(
                f"Only a {shipment} whose state is booked or underway can be called back: its {plural('consignment')}{counted} "
                f"are {done} and its state becomes waiting again.{soon}"
            ),
        )

    def call_back_sql(self) -> str:
        """Oracle: all live bookings end, the shipment waits."""
        mine = f'k."{self.cargo}" = s."{self.cargo_key}"{self.live_sql("k")}'
        soon = ""
        if self.notice:
            first = self.days[self.notice]
            soon = f' AND NOT EXISTS (SELECT 1 FROM "consignment" k WHERE {mine} AND k."day" < \'{first}\')'
        which = f"s.\"id\" = {{shipment}} AND s.\"state\" IN ('booked', 'underway'){soon}"
        op, status = ("update", ", 'status', 'recalled'") if self.trace else ("delete", "")
        return (
            f"SELECT '{op}', 'consignment', json_object('id', k.\"id\"{status})"
            f' FROM "shipment" s JOIN "consignment" k ON {mine} WHERE {which}'
            " UNION ALL SELECT 'update', 'shipment', json_object('id', s.\"id\", 'state', 'waiting')"
            f' FROM "shipment" s WHERE {which}'
        )

    def call_back_goal(self) -> str:
        """Goal source of `s_call_back`: no booking of the shipment is live any more, and it waits."""
        if self.trace:
            live = " and k['status'] == 'live'"
            ended = "entry['op'] == 'update' and entry['new'] == {**entry['old'], 'status': 'recalled'}"
        else:
            live, ended = "", "entry['op'] == 'delete'"
        late = ""
        if self.notice:
            late = f"    if any(day < {self.days[self.notice]!r} for day in live.values()):\n        return None\n"
        return (
            "@once\n"
            "def live_bookings(link):\n"
            f"    return {{k['id']: k['day'] for k in db['consignment'] if k[{self.cargo!r}] == link{live}}}\n"
            "def s_call_back(db, diff, shipment):\n"
            f"    live = live_bookings(shipment[{self.cargo_key!r}])\n"
            f"{late}"
            "    ended = [\n"
            "        entry\n"
            "        for entry in diff\n"
            f"        if entry['table'] == 'consignment' and {ended} and entry['old']['id'] in live\n"
            "    ]\n"
            "    moved = [\n"
            "        entry\n"
            "        for entry in diff\n"
            "        if entry['table'] == 'shipment' and entry['new'] == {**shipment, 'state': 'waiting'}\n"
            "    ]\n"
            "    if shipment['state'] not in ('booked', 'underway') or len(ended) != len(live) or not moved:\n"
            "        return None\n"
            "    return ended + moved\n"
        )

    def defer(self) -> Action:
        """Move ready time and deadline of an open shipment to later hours."""
        shipment = self.world.word("shipment")
        return Action(
            name="defer_shipment",
            phrase="defer {shipment} by {hours}",
            params=(*SHIPMENT, ("hours", HOURS)),
            oracle_sql=(
                "SELECT 'update', 'shipment', json_object('id', s.\"id\", 'ready', s.\"ready\" + {hours},"
                ' \'deadline\', s."deadline" + {hours}) FROM "shipment" s WHERE s."id" = {shipment} AND {hours} > 0'
                f" AND s.\"state\" IN ('held', 'waiting') AND s.\"ready\" + {{hours}} <= {self.horizon}"
            ),
            plan=(
                "def a_defer_shipment(shipment, hours):\n"
                f"    write({self.defer_tool!r}, {self.arg('shipment')}=shipment['id'], hours=hours)\n"
            ),
            goal=(
                "def s_defer_shipment(db, diff, shipment, hours):\n"
                f"    if hours < 1 or shipment['state'] in ('booked', 'underway') or shipment['ready'] > {self.horizon} - hours:\n"
                "        return None\n"
                "    moved = {name: shipment[name] + hours for name in ('ready', 'deadline')}\n"
                "    for entry in diff:\n"
                "        if entry['table'] == 'shipment' and entry['new'] == {**shipment, **moved}:\n"
                "            return [entry]\n"
                "    return None\n"
            ),
            tables=("shipment",),
            policy=(
                f"To defer a {shipment} adds the hours to both its ready time and its deadline; only one whose state is "
                f"{'waiting or held' if self.holds else 'waiting'} can be deferred, and its ready time may not exceed "
                f"{self.horizon} hours then."
            ),
        )

    def release(self) -> Action:
        """Let a held shipment wait."""
        shipment = self.world.word("shipment")
        return Action(
            name="release_shipment",
            phrase="release {shipment} from its hold",
            params=SHIPMENT,
            oracle_sql=(
                "SELECT 'update', 'shipment', json_object('id', s.\"id\", 'state', 'waiting')"
                ' FROM "shipment" s WHERE s."id" = {shipment} AND s."state" = \'held\''
            ),
            plan=(
                f"def a_release_shipment(shipment):\n"
                f"    write({self.release_tool!r}, {self.arg('shipment')}=shipment['id'])\n"
            ),
            goal=(
                "def s_release_shipment(db, diff, shipment):\n"
                "    if shipment['state'] != 'held':\n"
                "        return None\n"
                "    for entry in diff:\n"
                "        if entry['table'] == 'shipment' and entry['new'] == {**shipment, 'state': 'waiting'}:\n"
                "            return [entry]\n"
                "    return None\n"
            ),
            tables=("shipment",),
            policy=f"Only a held {shipment} can be released; its state becomes waiting then.",
        )
