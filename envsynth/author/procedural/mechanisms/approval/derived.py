"""Derived attributes of an approval world, each with its sentence and three texts."""

from __future__ import annotations

from envsynth.author.procedural.ir import Type
from envsynth.author.procedural.mechanism import Derived
from envsynth.author.procedural.mechanisms.approval.bindings import COUNT, HEAVY, HEAVY_POINTS, LEVEL, STEP, Bindings


class DerivedTexts(Bindings):
    """Writes the derived attributes over one world."""

    def needed_level(self) -> Derived:
        """Level that a request needs."""
        return Derived(
            entity="request",
            name="needed_level",
            label="needed level",
            type=LEVEL,
            sql=self.needed_sql("{t}"),
            plan=self.plan_needed(),
            goal=self.goal_needed(),
            policy=self.needed_policy(),
        )

    def shortfall(self) -> Derived:
        """Approvals that a request still lacks."""
        return Derived(
            entity="request",
            name="shortfall",
            label="approval shortfall",
            type=COUNT,
            sql=self.shortfall_sql("{t}"),
            plan=self.plan_shortfall(),
            goal=self.goal_shortfall(),
            policy=self.shortfall_policy(),
        )

    def signing_level(self) -> Derived:
        """Level of a person by posts and delegations."""
        return Derived(
            entity="person",
            name="signing_level",
            label="signing level",
            type=LEVEL,
            sql=self.level_sql("{t}"),
            plan=self.plan_level() + "def d_signing_level(row):\n    return level_without(row, None)\n",
            goal=(
                self.goal_level() + "def g_signing_level(db, row):\n    return max([0, *authority(row['id'], None)])\n"
            ),
            policy=self.level_policy(),
        )

    def may_decide(self) -> Derived:
        """Whether a person may decide a request."""
        return Derived(
            entity="person",
            name="may_decide",
            label="entitled to decide {0}",
            params=(Type("row", "request"),),
            type=Type("bool"),
            sql=f'EXISTS (SELECT 1 FROM "request" r WHERE r."id" = {{0}} AND {self.may_sql("{t}", "r")})',
            plan=self.plan_may(),
            goal=self.goal_may(),
            policy=self.may_policy(),
        )

    # planner ----------------------------------------------------------------------------------------------------

    def plan_needed(self) -> str:
        """Planner source of `d_needed_level`; without the rules everything needs the base level."""
        extra = f"    if row['kind'] == {HEAVY!r}:\n        level = level + {HEAVY_POINTS}\n" if self.heavy else ""
        return (
            "def d_needed_level(row):\n"
            f"    level = {self.levels[0]}\n"
            "    if not POLICY:\n"
            "        return level\n"
            f"    for limit in {self.limits}:\n"
            f"        if row['amount'] {self.reach} limit:\n"
            f"            level = level + {STEP}\n"
            f"{extra}"
            "    return level\n"
        )

    def plan_open(self) -> str:
        """Planner source of `open_request` and `approvers`."""
        late = f"row['due'] < {self.today!r}" if self.due else f"row['day'] < {self.filed_from!r}"
        fresh = f" and k['day'] >= {self.counts_from!r}" if self.stale_days else ""
        return (
            "def open_request(row):\n"
            "    if row['stage'] != 'submitted':\n"
            "        return False\n"
            f"    return not (POLICY and {late})\n"
            "def approvers(row):\n"
            f"    found = rows('decision', {{{self.request!r}: row[{self.request_key!r}]}})\n"
            "    if POLICY:\n"
            f"        found = [k for k in found if k['verdict'] == 'approve'{fresh}]\n"
            f"    return list(dict.fromkeys([k[{self.decider!r}] for k in found]))\n"
        )

    def plan_shortfall(self) -> str:
        """Planner source of `d_shortfall`; without the rules one signature is enough."""
        return (
            self.plan_open() + "def d_shortfall(row):\n"
            "    if not open_request(row):\n"
            "        return 0\n"
            f"    signatures = 2 if POLICY and row['amount'] >= {self.double_from} else 1\n"
            "    return max(0, signatures - len(approvers(row)))\n"
        )

    def plan_level(self) -> str:
        """Planner source of `level_without`; without the rules any one post counts and nothing is lent."""
        term = (
            f"    if POLICY:\n        held = [o for o in held if o['until'] >= {self.today!r}]\n" if self.terms else ""
        )
        source = (
            "def post_level(person):\n"
            f"    held = rows('post', {{{self.holder!r}: person[{self.holder_key!r}]}})\n"
            f"{term}"
            "    levels = [o['level'] for o in held]\n"
            "    return max([0] + (levels if POLICY else levels[:1]))\n"
            "def level_without(person, barred):\n"
            "    best = post_level(person)\n"
        )
        if self.delegations:
            source += (
                "    if not POLICY:\n"
                "        return best\n"
                f"    for given in rows('delegation', {{{self.taker!r}: person[{self.taker_key!r}]}}):\n"
                f"        if given['until'] < {self.today!r}:\n"
                "            continue\n"
                f"        for giver in rows('person', {{{self.giver_key!r}: given[{self.giver!r}]}}):\n"
                f"            if giver[{self.requester_key!r}] != barred:\n"
                f"                best = max(best, post_level(giver) - {self.loss})\n"
            )
        return source + "    return best\n"

    def plan_may(self) -> str:
        """Planner source of `d_may_decide`; without the rules the requester may decide too."""
        return (
            self.plan_needed() + self.plan_open() + self.plan_level() + "def d_may_decide(row, request):\n"
            f"    owner = request[{self.requester!r}]\n"
            "    if not open_request(request):\n"
            "        return False\n"
            f"    if POLICY and row[{self.requester_key!r}] == owner:\n"
            "        return False\n"
            f"    if row[{self.decider_key!r}] in approvers(request):\n"
            "        return False\n"
            "    return level_without(row, owner) >= d_needed_level(request)\n"
        )

    # goals ------------------------------------------------------------------------------------------------------

    def goal_needed(self) -> str:
        """Goal source of `g_needed_level`: the limits that the amount exceeds or reaches."""
        extra = f" + ({HEAVY_POINTS} if row['kind'] == {HEAVY!r} else 0)" if self.heavy else ""
        below = "limit > row['amount']" if self.inclusive else "limit >= row['amount']"
        return f"def g_needed_level(db, row):\n    return {self.levels}[3 - len([limit for limit in {self.limits} if {below}])]{extra}\n"

    def goal_signed(self) -> str:
        """Goal source of `pending` and `signed_by`."""
        stale = f" or k['day'] < {self.counts_from!r}" if self.stale_days else ""
        live = f"row['due'] >= {self.today!r}" if self.due else f"row['day'] >= {self.filed_from!r}"
        return (
            "def pending(row):\n"
            f"    return row['stage'] == 'submitted' and {live}\n"
            "@once\n"
            "def signed_by():\n"
            "    names = {}\n"
            "    for k in db['decision']:\n"
            f"        if k['verdict'] != 'approve'{stale}:\n"
            "            continue\n"
            f"        names.setdefault(k[{self.request!r}], set()).add(k[{self.decider!r}])\n"
            "    return names\n"
        )

    def goal_shortfall(self) -> str:
        """Goal source of `g_shortfall`."""
        return (
            self.goal_signed() + "def g_shortfall(db, row):\n"
            f"    lacking = 1 + (row['amount'] >= {self.double_from})"
            f" - len(signed_by().get(row[{self.request_key!r}], ()))\n"
            "    return lacking if pending(row) and lacking > 0 else 0\n"
        )

    def goal_level(self) -> str:
        """Goal source of `authority`: all levels that a person can sign with."""
        over = f"        if o['until'] < {self.today!r}:\n            continue\n" if self.terms else ""
        source = (
            "@once\n"
            "def levels_of_posts():\n"
            "    levels = {}\n"
            "    for o in db['post']:\n"
            f"{over}"
            f"        levels.setdefault(o[{self.holder!r}], []).append(o['level'])\n"
            f"    return {{p['id']: levels.get(p[{self.holder_key!r}], []) for p in db['person']}}\n"
        )
        if not self.delegations:
            return source + "def authority(person_id, without):\n    return levels_of_posts()[person_id]\n"
        return source + (
            "@once\n"
            "def lenders():\n"
            f"    givers = {{p[{self.giver_key!r}]: p['id'] for p in db['person']}}\n"
            "    found = {}\n"
            "    for d in db['delegation']:\n"
            f"        if not d['until'] < {self.today!r}:\n"
            f"            found.setdefault(d[{self.taker!r}], set()).add(givers[d[{self.giver!r}]])\n"
            f"    return {{p['id']: found.get(p[{self.taker_key!r}], set()) for p in db['person']}}\n"
            "def authority(person_id, without):\n"
            "    levels = list(levels_of_posts()[person_id])\n"
            "    for lender in lenders()[person_id] - {without}:\n"
            f"        levels += [level - {self.loss} for level in levels_of_posts()[lender]]\n"
            "    return levels\n"
        )

    def goal_may(self) -> str:
        """Goal source of `g_may_decide`."""
        return (
            self.goal_needed() + self.goal_signed() + self.goal_level() + "@once\n"
            "def requesters():\n"
            f"    return {{p[{self.requester_key!r}]: p['id'] for p in db['person']}}\n"
            "def g_may_decide(db, row, request):\n"
            f"    owner = requesters()[request[{self.requester!r}]]\n"
            f"    again = row[{self.decider_key!r}] in signed_by().get(request[{self.request_key!r}], ())\n"
            "    if owner == row['id'] or again or not pending(request):\n"
            "        return False\n"
            "    needed = g_needed_level(db, request)\n"
            "    return any(level >= needed for level in authority(row['id'], owner))\n"
        )

    # sentences --------------------------------------------------------------------------------------------------

    def open_policy(self) -> str:
        """When a request is open."""
        request = self.world.word("request")
        rest = (
            f"its due day is {self.today} or later"
            if self.due
            else f"its filing day is {self.filed_from} or later ({self.lapse_days} days before today, {self.today})"
        )
        return (
            f"A {request} is open if its stage is submitted and {rest}; any other submitted {request} has lapsed, although "
            "its stage does not show it."
        )

    def approval_policy(self) -> str:
        """Which approvals count, and what ends a request."""
        request, decision = self.world.word("request"), self.world.word("decision")
        counts = (
            f"it counts only if its decision day is {self.counts_from} or later ({self.stale_days} days before today)"
            if self.stale_days
            else "it counts for good"
        )
        silent = "; an abstention counts for nothing" if self.abstentions else ""
        return (
            f"An approval is a {decision} with the verdict approve; {counts}{silent}. A single {decision} with the verdict "
            f"reject ends a {request}: its stage becomes rejected."
        )

    def needed_policy(self) -> str:
        """Definition of the needed level."""
        low = self.limits[0]
        least, *more = self.levels
        word = "from" if self.inclusive else "above"
        steps = [f"{level} points {word} {limit} credits" for level, limit in zip(more, self.limits, strict=True)]
        first = f"{'below' if self.inclusive else 'of up to'} {low} credits"
        tiers = f"{least} points for an amount {first}, {steps[0]}, {steps[1]} and {steps[2]}"
        extra = f"; one of the kind {HEAVY} needs {HEAVY_POINTS} points more than that" if self.heavy else ""
        return f"The needed level of a {self.world.word('request')} is {tiers}{extra}."

    def shortfall_policy(self) -> str:
        """Definition of the missing approvals."""
        request, person = self.world.word("request"), self.world.plural("person")
        return (
            f"A {request} needs approvals by two different {person} if its amount is {self.double_from} credits or more, "
            f"else by one. The approval shortfall of an open {request} is the approvals that it needs less the different "
            f"{person} with an approval of it that counts, and never below 0; that of a {request} that is not open is 0."
        )

    def level_policy(self) -> str:
        """Definition of the signing level."""
        person, posts = self.world.word("person"), self.world.plural("post")
        held = f"the {posts} that the {person} holds" if self.many else f"the {self.world.word('post')} of the {person}"
        own = f"the highest level among {held}" if self.many else f"the level of {held}"
        if self.terms:
            own += f" with a last day of {self.today} or later"
        text = f"The signing level of a {person} is {own} (0 if there is none)"
        if not self.delegations:
            return text + "."
        delegation = self.world.word("delegation")
        less = f" less {self.loss} points, never below 0" if self.loss else ""
        return (
            f"{text}, or what a {delegation} lends if that is higher: a {delegation} whose last day is {self.today} or "
            f"later lends its taker the level that its giver has by {posts} of their own{less}. What was lent cannot be "
            "lent on."
        )

    def may_policy(self) -> str:
        """Who may decide."""
        request, person = self.world.word("request"), self.world.word("person")
        lent = ", not counting what the requester has lent them," if self.delegations else ""
        return (
            f"A {person} is entitled to decide a {request} if it is open, they are not its requester, they have no "
            f"approval of it that counts, and their signing level{lent} is at least its needed level."
        )
