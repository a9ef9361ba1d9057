"""Actions of an approval world: get a request approved, submit a draft, delegate; each with its three texts."""

from __future__ import annotations

from envsynth.author.procedural.ir import Type
from envsynth.author.procedural.mechanism import Action
from envsynth.author.procedural.mechanisms.approval.derived import DerivedTexts


class ActionTexts(DerivedTexts):
    """Writes the actions over one world."""

    def clear(self) -> Action:
        """Get a request approved by any persons who may decide it."""
        close = f"    write({self.close_tool!r}, {self.request_argument}=request['id'])\n" if self.closing else ""
        enough = (
            f'r."id" = {{request}} AND {self.shortfall_sql("r")} > 0'
            f' AND (SELECT COUNT(*) FROM "able") >= {self.shortfall_sql("r")}'
        )
        return Action(
            name="clear_request",
            phrase="get {request} approved",
            params=(("request", Type("row", "request")),),
            oracle_sql=(
                f'WITH "able" AS MATERIALIZED (SELECT p."{self.decider_key}" AS "key",'
                ' row_number() OVER (ORDER BY p."id") AS "place" FROM "person" p, "request" r'
                f' WHERE r."id" = {{request}} AND {self.may_sql("p", "r")})'
                f" SELECT 'insert', 'decision', json_object('{self.request}', r.\"{self.request_key}\","
                f" '{self.decider}', \"able\".\"key\", 'verdict', 'approve', 'day', '{self.today}')"
                f' FROM "request" r, "able" WHERE {enough} AND "able"."place" <= {self.shortfall_sql("r")}'
                " UNION ALL SELECT 'update', 'request', json_object('id', r.\"id\", 'stage', 'approved')"
                f' FROM "request" r WHERE {enough}'
            ),
            plan=(
                self.plan_may() + self.plan_shortfall() + "def a_clear_request(request):\n"
                "    lacking = d_shortfall(request)\n"
                "    able = [p['id'] for p in rows('person', {}) if d_may_decide(p, request)]\n"
                "    for decider in able[:lacking]:\n"
                f"        write({self.decide_tool!r}, {self.request_argument}=request['id'], decider_id=decider,"
                " verdict='approve')\n"
                f"{close}"
            ),
            goal=(
                self.goal_may() + self.goal_shortfall() + "def s_clear_request(db, diff, request):\n"
                "    claimed, deciders = [], []\n"
                "    for entry in diff:\n"
                "        new = entry['new']\n"
                "        if entry['table'] == 'decision' and entry['op'] == 'insert':\n"
                f"            if new[{self.request!r}] != request[{self.request_key!r}]:\n"
                "                continue\n"
                f"            if new['verdict'] != 'approve' or new['day'] != {self.today!r}:\n"
                "                return None\n"
                f"            people = [p for p in db['person'] if p[{self.decider_key!r}] == new[{self.decider!r}]]\n"
                "            if len(people) != 1 or not g_may_decide(db, people[0], request):\n"
                "                return None\n"
                "            deciders.append(people[0]['id'])\n"
                "            claimed.append(entry)\n"
                "        elif entry['table'] == 'request' and entry['op'] == 'update':\n"
                "            if new == {**request, 'stage': 'approved'}:\n"
                "                claimed.append(entry)\n"
                "    wanted = g_shortfall(db, request)\n"
                "    if not wanted or len(set(deciders)) != wanted or len(claimed) != wanted + 1:\n"
                "        return None\n"
                "    return claimed\n"
            ),
            tables=("decision", "request"),
            policy=self.clear_policy(),
        )

    def clear_policy(self) -> str:
        """How a request gets approved."""
        word, plural = self.world.word, self.world.plural
        request = word("request")
        close = (
            f", then close the {request}, which sets its stage to approved"
            if self.closing
            else f"; the last one sets the stage of the {request} to approved"
        )
        return (
            f"To get a {request} approved, let as many different {plural('person')} as its approval shortfall approve it, "
            f"no more; each must be entitled to decide it, and any such {plural('person')} will do{close}. A {request} "
            "whose approval shortfall is 0 cannot be approved in this way."
        )

    def submit(self) -> Action:
        """Submit a draft."""
        petty = self.petty
        stage_sql = (
            f"CASE WHEN r.\"amount\" <= {petty} THEN 'approved' ELSE 'submitted' END" if petty else "'submitted'"
        )
        stage_plan = f", stage='approved' if POLICY and request['amount'] <= {petty} else 'submitted'" if petty else ""
        stage_goal = f"('approved', 'submitted')[request['amount'] > {petty}]" if petty else "'submitted'"
        in_time = f" AND r.\"due\" >= '{self.today}'" if self.due else ""
        return Action(
            name="submit_request",
            phrase="submit {request}",
            params=(("request", Type("row", "request")),),
            oracle_sql=(
                f"SELECT 'update', 'request', json_object('id', r.\"id\", 'day', '{self.today}', 'stage', {stage_sql})"
                f' FROM "request" r WHERE r."id" = {{request}} AND r."stage" = \'draft\'{in_time}'
            ),
            plan=(
                "def a_submit_request(request):\n"
                f"    write({self.submit_tool!r}, {self.request_argument}=request['id']{stage_plan})\n"
            ),
            goal=(
                "def s_submit_request(db, diff, request):\n"
                f"    filed = {{**request, 'day': {self.today!r}, 'stage': {stage_goal}}}\n"
                "    for entry in diff:\n"
                "        if (entry['op'], entry['table']) == ('update', 'request') and entry['new'] == filed:\n"
                "            return [entry]\n"
                "    return None\n"
            ),
            tables=("request",),
            policy=self.submit_policy(),
        )

    def submit_policy(self) -> str:
        """What submitting does."""
        request = self.world.word("request")
        petty = f" if its amount is above {self.petty} credits, else to approved" if self.petty else ""
        late = f" A draft whose due day lies before {self.today} cannot be submitted." if self.due else ""
        return (
            f"Only a {request} whose stage is draft can be submitted; that makes {self.today} its filing day and changes its "
            f"stage to submitted{petty}.{late}"
        )

    def delegate(self) -> Action:
        """Lend the level of a person to another one."""
        return Action(
            name="delegate_level",
            phrase="delegate the signing level of {giver} to {taker} until {day}",
            params=(("giver", Type("row", "person")), ("taker", Type("row", "person")), ("day", Type("date"))),
            oracle_sql=(
                f"SELECT 'insert', 'delegation', json_object('{self.giver}', x.\"{self.giver_key}\","
                f" '{self.taker}', y.\"{self.taker_key}\", 'until', {{day}})"
                ' FROM "person" x, "person" y WHERE x."id" = {giver} AND y."id" = {taker} AND x."id" <> y."id"'
                f" AND {{day}} >= '{self.today}' AND {self.own_sql('x')} > 0"
                f' AND NOT EXISTS (SELECT 1 FROM "delegation" d WHERE d."{self.giver}" = x."{self.giver_key}"'
                f' AND d."{self.taker}" = y."{self.taker_key}" AND d."until" >= \'{self.today}\')'
            ),
            plan=(
                "def a_delegate_level(giver, taker, day):\n"
                f"    write({self.delegate_tool!r}, giver_id=giver['id'], taker_id=taker['id'], until=day)\n"
            ),
            goal=(
                "def s_delegate_level(db, diff, giver, taker, day):\n"
                f"    want = {{{self.giver!r}: giver[{self.giver_key!r}], {self.taker!r}: taker[{self.taker_key!r}],"
                " 'until': day}\n"
                "    for entry in diff:\n"
                "        if entry['table'] == 'delegation' and entry['op'] == 'insert':\n"
                "            if {column: entry['new'][column] for column in want} == want:\n"
                "                return [entry]\n"
                "    return None\n"
            ),
            tables=("delegation",),
            policy=self.delegate_policy(),
        )

    def delegate_policy(self) -> str:
        """What can be delegated."""
        person, delegation = self.world.word("person"), self.world.word("delegation")
        return (
            f"To delegate a signing level makes a {delegation} with the given last day, which may not lie before "
            f"{self.today}. The giver needs a level by a {self.world.word('post')} of their own, another {person} has to be "
            f"the taker, and there may be no {delegation} between the two yet whose last day is {self.today} or later."
        )
