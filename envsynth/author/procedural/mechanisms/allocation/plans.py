"""Planner sources of a world of funds: costs, free budgets, what can be granted, and the best set by branch and bound."""

from __future__ import annotations

from envsynth.author.procedural.mechanisms.allocation.bindings import Bindings


class PlanTexts(Bindings):
    """Writes planner functions over one world; each function carries those that it calls."""

    def plan_cost(self) -> str:
        """Planner source of `claim_cost`."""
        extra = f" + (-(-claim['amount'] * {self.overhead} // 100) if POLICY else 0)" if self.overhead else ""
        return f"def claim_cost(claim):\n    return claim['amount']{extra}\n"

    def plan_room(self) -> str:
        """Planner source of `d_free_budget`."""
        shares = kept = ""
        if self.shares != "none":
            paid = " if not POLICY or z['stage'] == 'paid'" if self.shares == "paid" else ""
            shares = (
                f"    given = rows('share', {{{self.paid!r}: row[{self.paid_key!r}]}})\n"
                f"    money += sum([z['amount'] for z in given{paid}])\n"
            )
        if self.reserve:
            kept = f"    if POLICY:\n        money -= -(-money * {self.reserve} // 100)\n"
        return (
            self.plan_cost() + "def d_free_budget(row):\n"
            "    money = row['budget']\n"
            f"{shares}{kept}"
            f"    for claim in rows('claim', {{{self.fund!r}: row[{self.fund_key!r}]}}):\n"
            "        if claim['state'] == 'granted' or (not POLICY and claim['state'] == 'revoked'):\n"
            "            money -= claim_cost(claim)\n"
            "    return money\n"
        )

    def plan_rivals(self) -> str:
        """Planner source of `rivals`: the requests that exclude one."""
        if self.topics:
            return (
                "def rivals(claim):\n"
                f"    same = rows('claim', {{{self.topic!r}: claim[{self.topic!r}]}})\n"
                "    return [other for other in same if other['id'] != claim['id']]\n"
            )
        return (
            "def rivals(claim):\n"
            "    seconds, firsts = [], []\n"
            "    for pair in rows('clash', {}):\n"
            f"        if pair[{self.first!r}] == claim[{self.first_key!r}]:\n"
            f"            seconds.append(pair[{self.second!r}])\n"
            f"        if pair[{self.second!r}] == claim[{self.second_key!r}]:\n"
            f"            firsts.append(pair[{self.first!r}])\n"
            "    if not seconds and not firsts:\n"
            "        return []\n"
            "    return [\n"
            "        other\n"
            "        for other in rows('claim', {})\n"
            f"        if other[{self.second_key!r}] in seconds or other[{self.first_key!r}] in firsts\n"
            "    ]\n"
        )

    def plan_limits(self) -> str:
        """Planner source of `limits`: for each limit that a request counts against, name, weight and what is left."""
        source = "def limits(claim, fund):\n    found = []\n"
        if self.quota != "none":
            weight = "{0}['amount']" if self.quota == "sum" else "1"
            source += (
                f"    for quota in rows('quota', {{{self.limited!r}: fund[{self.limited_key!r}]}}):\n"
                "        if quota['track'] == claim['track']:\n"
                f"            mine = rows('claim', {{{self.fund!r}: claim[{self.fund!r}]}})\n"
                "            used = [\n"
                f"                {weight.format('other')}\n"
                "                for other in mine\n"
                "                if other['state'] == 'granted' and other['track'] == claim['track']\n"
                "            ]\n"
                f"            found.append(['track ' + claim['track'], {weight.format('claim')},"
                " quota['most'] - sum(used)])\n"
            )
        if self.holder:
            source += (
                f"    held = rows('claim', {{{self.person!r}: claim[{self.person!r}]}})\n"
                "    count = len([other for other in held if other['state'] == 'granted'])\n"
                f"    found.append(['person ' + str(claim[{self.person!r}]), 1, {self.holder} - count])\n"
            )
        return source + "    return found if POLICY else []\n"

    def plan_grantable(self) -> str:
        """Planner source of `d_grantable`."""
        stops: list[str] = []
        if self.phases:
            stops.append("fund['phase'] != 'open'")
        if self.bar:
            stops.append("row['merit'] < fund['bar']")
        stopped = f"    if POLICY and ({' or '.join(stops)}):\n        return False\n" if stops else ""
        return (
            self.plan_room() + self.plan_rivals() + self.plan_limits() + "def d_grantable(row):\n"
            f"    if row['state'] != {self.ready!r}:\n"
            "        return False\n"
            f"    fund = named('fund', {self.fund_key!r}, row[{self.fund!r}])\n"
            f"{stopped}"
            "    if claim_cost(row) > d_free_budget(fund):\n"
            "        return False\n"
            "    if POLICY and [other for other in rivals(row) if other['state'] == 'granted']:\n"
            "        return False\n"
            "    return all([weight <= left for name, weight, left in limits(row, fund)])\n"
        )

    def plan_best(self) -> str:
        """Planner source of `best_claims`: branch and bound; greedy takes what has most merit per credit, one by one."""
        return (
            self.plan_grantable() + "def still_fits(claim, chosen, fund, spare):\n"
            "    if claim_cost(claim) > spare:\n"
            "        return False\n"
            "    barred = [other['id'] for other in rivals(claim)] if POLICY else []\n"
            "    if [other for other in chosen if other['id'] in barred]:\n"
            "        return False\n"
            "    for name, weight, left in limits(claim, fund):\n"
            "        for other in chosen:\n"
            "            left -= sum([load for label, load, _ in limits(other, fund) if label == name])\n"
            "        if weight > left:\n"
            "            return False\n"
            "    return True\n"
            "def merit_of(chosen):\n"
            "    return sum([claim['merit'] for claim in chosen])\n"
            "def better_set(best, chosen, left, fund, spare):\n"
            "    if merit_of(chosen) > merit_of(best):\n"
            "        best = chosen\n"
            "    if not left or merit_of(chosen) + merit_of(left) <= merit_of(best):\n"
            "        return best\n"
            "    claim = left[0]\n"
            "    if still_fits(claim, chosen, fund, spare):\n"
            "        best = better_set(best, chosen + [claim], left[1:], fund, spare - claim_cost(claim))\n"
            "    return better_set(best, chosen, left[1:], fund, spare)\n"
            "def best_claims(fund):\n"
            f"    able = [claim for claim in rows('claim', {{{self.fund!r}: fund[{self.fund_key!r}]}}) if d_grantable(claim)]\n"
            "    able = sorted(able, key=lambda claim: -1000 * claim['merit'] // claim_cost(claim))\n"
            "    spare = d_free_budget(fund)\n"
            "    if not GREEDY:\n"
            "        return better_set([], [], able, fund, spare)\n"
            "    chosen = []\n"
            "    for claim in able:\n"
            "        if still_fits(claim, chosen, fund, spare):\n"
            "            chosen = chosen + [claim]\n"
            "            spare -= claim_cost(claim)\n"
            "    return chosen\n"
        )
