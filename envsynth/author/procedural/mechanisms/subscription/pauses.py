"""The pause of a subscription world, with its three texts."""

from __future__ import annotations

from envsynth.author.procedural.ir import Type
from envsynth.author.procedural.mechanism import Action
from envsynth.author.procedural.mechanisms.subscription.bindings import CONTRACT, Bindings


class PauseTexts(Bindings):
    """Writes the action `pause` over one world."""

    def pause(self) -> Action:
        """Pause a subscription for some billing months."""
        return Action(
            name="pause_contract",
            phrase="pause {contract} for {months}",
            params=(("contract", CONTRACT), ("months", Type("num", "months"))),
            oracle_sql=self.pause_sql(),
            plan=self.pause_plan(),
            goal=self.pause_goal(),
            tables=("freeze", "contract") if self.at_once else ("freeze",),
            policy=self.pause_policy(),
        )

    def pause_policy(self) -> str:
        """Who may pause, and from when to when."""
        word = self.world.word
        contract, freeze, tariff = word("contract"), word("freeze"), word("tariff")
        if self.at_once:
            span = (
                f"begins today, {self.today}, and its last day is the day before the n-th billing day after today; the "
                f"{contract} becomes paused"
            )
        else:
            span = (
                f"begins on the first billing day after today, {self.today}, and its last day is the day before the n-th "
                f"billing day after that one; the state of the {contract} stays active until then"
            )
        return (
            f"Only an active {contract} that is not overdue can be paused, only if no {freeze} of it ends today or "
            f"later, and for at most as many months as the longest pause of its {tariff}. To pause it for n months adds a "
            f"{freeze} that {span}."
        )

    def pause_sql(self) -> str:
        """Oracle of a pause."""
        today = f"'{self.today}'"
        first = today if self.at_once else self.bill_sql("c", today)
        count = "{months}" if self.at_once else "({months} + 1)"
        text = (
            f'WITH "go" AS MATERIALIZED (SELECT c."id" AS "id", c."{self.frozen_key}" AS "me", {first} AS "first",'
            f' date({self.bill_sql("c", today, count)}, \'-1 day\') AS "last" FROM "contract" c JOIN "tariff" g'
            f' ON g."{self.tariff_key}" = c."{self.tariff}" WHERE c."id" = {{contract}} AND c."contract_state" = \'active\''
            f' AND {{months}} BETWEEN 1 AND g."longest_pause" AND NOT {self.overdue_sql("c")} AND NOT EXISTS'
            f' (SELECT 1 FROM "freeze" f WHERE f."{self.frozen}" = c."{self.frozen_key}" AND f."until" >= {today}))'
            f" SELECT 'insert', 'freeze', json_object('{self.frozen}', \"go\".\"me\", 'start', \"go\".\"first\", 'until',"
            ' "go"."last") FROM "go"'
        )
        if not self.at_once:
            return text
        return (
            f"{text} UNION ALL SELECT 'update', 'contract', json_object('id', \"go\".\"id\", 'contract_state', 'paused')"
            ' FROM "go"'
        )

    def pause_plan(self) -> str:
        """Planner of a pause."""
        call = f"    write({self.pause_tool!r}, {self.arg('contract')}=contract['id']"
        if self.quoted:
            return f"def a_pause_contract(contract, months):\n{call}, months=months)\n"
        first = repr(self.today) if self.at_once else f"billing_after(contract, {self.today!r}, 1)"
        begun = self.today if self.at_once else ""
        after = f"{begun!r}" if self.at_once else "first"
        return (
            self.plan_calendar() + "def a_pause_contract(contract, months):\n"
            f"    first = {first}\n"
            f"    last = day_shifted(billing_after(contract, {after}, months), -1)\n"
            f"{call}, first_day=first, last_day=last)\n"
        )

    def pause_goal(self) -> str:
        """Goal of a pause: a new pause whose ends lie on billing days, so many of them apart."""
        edges = (
            f"    first, end = {self.today!r}, bills_around(contract[{self.anchor!r}], {self.today!r}, months)[months]\n"
            if self.at_once
            else f"    bills = bills_around(contract[{self.anchor!r}], {self.today!r}, months + 1)\n"
            "    first, end = day_called(bills[1]), bills[months + 1]\n"
        )
        claim = (
            "    updates = [e for e in diff if e['op'] == 'update' and e['table'] == 'contract'\n"
            "               and e['new'] == {**contract, 'contract_state': 'paused'}]\n"
            "    return [inserts[0], updates[0]] if inserts and updates else None\n"
            if self.at_once
            else "    return inserts[:1] or None\n"
        )
        return (
            self.goal_calendar()
            + self.goal_share()
            + self.goal_tariffs()
            + self.goal_late()
            + "def pause_allowed(contract, months):\n"
            f"    if contract['contract_state'] != 'active' or contract[{self.charged_key!r}] in owed_too_long():\n"
            "        return False\n"
            f"    if any(b >= {self.today!r} for a, b in paused_spans().get(contract[{self.frozen_key!r}], ())):\n"
            "        return False\n"
            f"    return 0 < months <= tariffs_by_key()[contract[{self.tariff!r}]]['longest_pause']\n"
            "def s_pause_contract(db, diff, contract, months):\n"
            "    if not pause_allowed(contract, months):\n"
            "        return None\n"
            f"{edges}"
            f"    span = [contract[{self.frozen_key!r}], first, end]\n"
            "    inserts = []\n"
            "    for e in diff:\n"
            "        if e['op'] == 'insert' and e['table'] == 'freeze':\n"
            "            after = ordinal_of(e['new']['until']) + 1\n"
            f"            if [e['new'][{self.frozen!r}], e['new']['start'], after] == span:\n"
            "                inserts.append(e)\n"
            f"{claim}"
        )
