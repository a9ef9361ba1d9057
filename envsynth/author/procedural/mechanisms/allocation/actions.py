"""Actions of a world of funds: grant, distribute, revoke, shortlist; each with its three texts."""

from __future__ import annotations

from envsynth.author.procedural.ir import Type
from envsynth.author.procedural.mechanism import Action
from envsynth.author.procedural.mechanisms.allocation.bindings import SHORTLIST
from envsynth.author.procedural.mechanisms.allocation.goals import GoalTexts
from envsynth.author.procedural.mechanisms.allocation.plans import PlanTexts

CLAIM = (("claim", Type("row", "claim")),)


class ActionTexts(PlanTexts, GoalTexts):
    """Writes the actions over one world."""

    def undecided_sql(self, claim: str) -> str:
        """SQL condition that a request is not decided yet."""
        return f'{claim}."state" IN ({", ".join(repr(state) for state in self.undecided)})'

    def duty_policy(self) -> str:
        """What else has to be done by whoever grants."""
        if not self.displace:
            return ""
        word, plural = self.world.word, self.world.plural
        return (
            f" Whoever grants a {word('claim')} also has to turn down the {plural('claim')} whose state is "
            f"{' or '.join(self.undecided)} and that it excludes, of whatever {word('fund')}; this does not happen by itself."
        )

    def grant(self) -> Action:
        """Grant one request."""
        claim = self.world.word("claim")
        refused = ""
        if self.displace:
            refused = (
                " UNION ALL SELECT 'update', 'claim', json_object('id', d.\"id\", 'state', 'refused')"
                f' FROM "claim" d, "claim" c WHERE c."id" = {{claim}} AND {self.grantable_sql("c")}'
                f" AND {self.undecided_sql('d')} AND {self.excludes_sql('c', 'd')}"
            )
        return Action(
            name="grant_claim",
            phrase="grant funding to {claim}",
            params=CLAIM,
            oracle_sql=(
                "SELECT 'update', 'claim', json_object('id', c.\"id\", 'state', 'granted')"
                f' FROM "claim" c WHERE c."id" = {{claim}} AND {self.grantable_sql("c")}{refused}'
            ),
            plan=(self.plan_hand_out() + "def a_grant_claim(claim):\n    hand_out([claim])\n"),
            goal=(
                self.goal_grantable() + self.goal_settled() + "def s_grant_claim(db, diff, claim):\n"
                "    return settled(diff, [claim['id']]) if g_grantable(db, claim) else None\n"
            ),
            tables=("claim",),
            policy=f"Only a grantable {claim} may be granted; its state is granted then.{self.duty_policy()}",
        )

    def plan_hand_out(self) -> str:
        """Planner source of `hand_out`: grant a set of requests and do what belongs to it."""
        duty = ""
        if self.displace:
            duty = (
                "    displaced = []\n"
                "    for claim in chosen:\n"
                "        for other in rivals(claim) if POLICY else []:\n"
                f"            if other['state'] in {self.undecided} and other['id'] not in displaced:\n"
                "                displaced.append(other['id'])\n"
            )
        source = (
            f"{self.plan_rivals() if self.displace else ''}"
            "def hand_out(chosen):\n"
            f"{duty}"
            "    for claim in chosen:\n"
            f"        write({self.grant_tool!r}, {self.arg('claim')}=claim['id'])\n"
        )
        if self.displace:
            source += (
                "    for other_id in displaced:\n"
                f"        write({self.turn_down_tool!r}, {self.arg('claim')}=other_id)\n"
            )
        return source

    def goal_settled(self) -> str:
        """Goal source of `settled`: these requests are granted and, by rule, exactly what they exclude is turned down."""
        displaced = "set()"
        if self.displace:
            displaced = (
                "{\n"
                "        claim['id']\n"
                "        for claim in db['claim']\n"
                f"        if claim['state'] in {list(self.undecided)} and rivals[claim['id']] & set(ids)\n"
                "    }"
            )
        return (
            self.goal_foes() + "def settled(diff, ids):\n"
            f"{'    rivals = foes()' + chr(10) if self.displace else ''}"
            f"    displaced = {displaced}\n"
            "    moves = [(key, 'granted') for key in ids] + [(key, 'refused') for key in displaced]\n"
            "    found = []\n"
            "    for key, state in moves:\n"
            "        for entry in diff:\n"
            "            if entry['op'] == 'update' and entry['table'] == 'claim' and entry['old']['id'] == key:\n"
            "                if entry['new'] == {**entry['old'], 'state': state}:\n"
            "                    found.append(entry)\n"
            "    return found if len(found) == len(moves) else None\n"
        )

    def distribute(self) -> Action:
        """Grant a set with the attainable merit; any such set will do."""
        word, plural = self.world.word, self.world.plural
        return Action(
            name="distribute_fund",
            phrase="distribute {fund} by merit",
            params=(("fund", Type("row", "fund")),),
            oracle_sql=self.distribute_sql(),
            plan=(
                self.plan_best() + self.plan_hand_out() + "def a_distribute_fund(fund):\n"
                "    hand_out(best_claims(fund))\n"
            ),
            goal=(
                self.goal_peak() + self.goal_settled() + "def s_distribute_fund(db, diff, fund):\n"
                f"    key = fund[{self.fund_key!r}]\n"
                "    given = [\n"
                "        entry['old']\n"
                "        for entry in diff\n"
                "        if entry['op'] == 'update' and entry['table'] == 'claim' and entry['new']['state'] == 'granted'\n"
                f"        and entry['old'][{self.fund!r}] == key\n"
                "    ]\n"
                "    ids = [claim['id'] for claim in given]\n"
                "    if not ids or not all_allowed(grant_book(), ids):\n"
                "        return None\n"
                "    if sum(claim['merit'] for claim in given) != peak_merit(key):\n"
                "        return None\n"
                "    return settled(diff, ids)\n"
            ),
            tables=("claim",),
            policy=(
                f"To distribute a {word('fund')} by merit, grant {plural('claim')} of it that can be granted together and "
                f"whose merits add up to its attainable merit; every such set will do."
            ),
        )

    def distribute_sql(self) -> str:
        """Oracle: the grants of one best set, and what it displaces."""
        refused = ""
        if self.displace:
            refused = (
                " UNION ALL SELECT 'update', 'claim', json_object('id', d.\"id\", 'state', 'refused') FROM \"claim\" d"
                f' WHERE {self.undecided_sql("d")} AND EXISTS (SELECT 1 FROM "ready" a, "best" v'
                f' WHERE a."bit" & v."mask" AND {self.excludes_sql("a", "d")})'
            )
        return (
            f'WITH RECURSIVE "me" AS MATERIALIZED (SELECT * FROM "fund" WHERE "id" = {{fund}}),'
            f" {self.sets_sql('f', 'me')},"
            ' "best" AS MATERIALIZED (SELECT "mask" FROM "sets" WHERE "mask" > 0 ORDER BY "merit" DESC, "mask" LIMIT 1)'
            " SELECT 'update', 'claim', json_object('id', a.\"id\", 'state', 'granted')"
            f' FROM "able" a, "best" v WHERE a."bit" & v."mask"{refused}'
        )

    def revoke(self) -> Action:
        """Take a grant back."""
        claim = self.world.word("claim")
        late_sql = f" AND c.\"filed\" >= '{self.revocable_from}'" if self.grace else ""
        late_goal = f" or claim['filed'] < {self.revocable_from!r}" if self.grace else ""
        late = f" and its filing day is {self.revocable_from} or later" if self.grace else ""
        return Action(
            name="revoke_claim",
            phrase="revoke funding of {claim}",
            params=CLAIM,
            oracle_sql=(
                "SELECT 'update', 'claim', json_object('id', c.\"id\", 'state', 'revoked')"
                f' FROM "claim" c WHERE c."id" = {{claim}} AND c."state" = \'granted\'{late_sql}'
            ),
            plan=f"def a_revoke_claim(claim):\n    write({self.revoke_tool!r}, {self.arg('claim')}=claim['id'])\n",
            goal=(
                "def s_revoke_claim(db, diff, claim):\n"
                f"    if claim['state'] != 'granted'{late_goal}:\n"
                "        return None\n"
                "    for entry in diff:\n"
                "        if entry['op'] == 'update' and entry['table'] == 'claim':\n"
                "            if entry['new'] == {**claim, 'state': 'revoked'}:\n"
                "                return [entry]\n"
                "    return None\n"
            ),
            tables=("claim",),
            policy=(
                f"A {claim} can be revoked only if it is granted{late}; its state is revoked then, and nothing else changes."
            ),
        )

    def shortlist(self) -> Action:
        """Let an open request into the choice."""
        word, plural = self.world.word, self.world.plural
        bar_sql = (
            f' AND c."merit" >= (SELECT g."bar" FROM "fund" g WHERE g."{self.fund_key}" = c."{self.fund}")'
            if self.bar
            else ""
        )
        bar_goal = ""
        if self.bar:
            bar_goal = (
                f"    bars = {{fund[{self.fund_key!r}]: fund['bar'] for fund in db['fund']}}\n"
                f"    if claim['merit'] < bars[claim[{self.fund!r}]]:\n"
                "        return None\n"
            )
        bar = f", its merit is at least the minimum merit of its {word('fund')}," if self.bar else ""
        return Action(
            name="shortlist_claim",
            phrase="shortlist {claim}",
            params=CLAIM,
            oracle_sql=(
                "SELECT 'update', 'claim', json_object('id', c.\"id\", 'state', 'shortlisted')"
                f' FROM "claim" c WHERE c."id" = {{claim}} AND c."state" = \'open\'{bar_sql} AND (SELECT COUNT(*)'
                f' FROM "claim" o WHERE o."{self.fund}" = c."{self.fund}" AND o."state" = \'shortlisted\') < {SHORTLIST}'
            ),
            plan=f"def a_shortlist_claim(claim):\n    write({self.shortlist_tool!r}, {self.arg('claim')}=claim['id'])\n",
            goal=(
                "def s_shortlist_claim(db, diff, claim):\n"
                f"    listed = [c for c in db['claim'] if c[{self.fund!r}] == claim[{self.fund!r}]"
                " and c['state'] == 'shortlisted']\n"
                f"    if claim['state'] != 'open' or len(listed) > {SHORTLIST - 1}:\n"
                "        return None\n"
                f"{bar_goal}"
                "    for entry in diff:\n"
                "        if entry['op'] == 'update' and entry['table'] == 'claim':\n"
                "            if entry['new'] == {**claim, 'state': 'shortlisted'}:\n"
                "                return [entry]\n"
                "    return None\n"
            ),
            tables=("claim",),
            policy=(
                f"A {word('claim')} can be shortlisted if its state is open{bar} and no more than {SHORTLIST - 1} "
                f"{plural('claim')} of its {word('fund')} are shortlisted already; its state is shortlisted then."
            ),
        )
