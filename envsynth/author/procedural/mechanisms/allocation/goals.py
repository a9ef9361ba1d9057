"""Goal sources of a world of funds: what is so, worked out once for all rows; sets grow layer by layer."""

from __future__ import annotations

from envsynth.author.procedural.mechanisms.allocation.bindings import Bindings


class GoalTexts(Bindings):
    """Writes goal functions over one world; each function carries those that it calls."""

    def goal_charges(self) -> str:
        """Goal source of `charges`: what each request costs, by id."""
        charge = f"(claim['amount'] * {100 + self.overhead} + 99) // 100" if self.overhead else "claim['amount']"
        return f"@once\ndef charges():\n    return {{claim['id']: {charge} for claim in db['claim']}}\n"

    def goal_purses(self) -> str:
        """Goal source of `purses`: the free budget of each fund, by id."""
        shares = ""
        if self.shares != "none":
            pledged = "        if entry['stage'] == 'pledged':\n            continue\n" if self.shares == "paid" else ""
            shares = (
                f"    givers = {{fund[{self.paid_key!r}]: fund['id'] for fund in db['fund']}}\n"
                "    for entry in db['share']:\n"
                f"{pledged}"
                f"        purse[givers[entry[{self.paid!r}]]] += entry['amount']\n"
            )
        # What is left of an amount less a rounded-up share is rounded down.
        kept = f"    purse = {{key: money * {100 - self.reserve} // 100 for key, money in purse.items()}}\n"
        return (
            self.goal_charges() + "@once\n"
            "def purses():\n"
            "    charge = charges()\n"
            "    purse = {fund['id']: fund['budget'] for fund in db['fund']}\n"
            f"{shares}{kept if self.reserve else ''}"
            f"    owners = {{fund[{self.fund_key!r}]: fund['id'] for fund in db['fund']}}\n"
            "    for claim in db['claim']:\n"
            "        if claim['state'] == 'granted':\n"
            f"            purse[owners[claim[{self.fund!r}]]] -= charge[claim['id']]\n"
            "    return purse\n"
        )

    def goal_foes(self) -> str:
        """Goal source of `foes`: ids of the requests that exclude each request, by id."""
        if self.topics:
            return (
                "@once\n"
                "def foes():\n"
                "    members = {}\n"
                "    for claim in db['claim']:\n"
                f"        members.setdefault(claim[{self.topic!r}], set()).add(claim['id'])\n"
                f"    return {{claim['id']: members[claim[{self.topic!r}]] - {{claim['id']}} for claim in db['claim']}}\n"
            )
        return (
            "@once\n"
            "def foes():\n"
            f"    lefts = {{claim[{self.first_key!r}]: claim['id'] for claim in db['claim']}}\n"
            f"    rights = {{claim[{self.second_key!r}]: claim['id'] for claim in db['claim']}}\n"
            "    found = {claim['id']: set() for claim in db['claim']}\n"
            "    for pair in db['clash']:\n"
            f"        left, right = lefts[pair[{self.first!r}]], rights[pair[{self.second!r}]]\n"
            "        found[left].add(right)\n"
            "        found[right].add(left)\n"
            "    return found\n"
        )

    def goal_book(self) -> str:
        """Goal source of `grant_book`: limits with what is left of each, what requests take off them, and who is out."""
        spare = loads = out = ""
        if self.quota != "none":
            weight = "claim['amount']" if self.quota == "sum" else "1"
            # Of two quotas for the same fund and track the tighter one comes last, and counts.
            spare += (
                f"    keys = {{fund[{self.limited_key!r}]: fund[{self.fund_key!r}] for fund in db['fund']}}\n"
                "    for quota in sorted(db['quota'], key=lambda quota: -quota['most']):\n"
                f"        spare[keys[quota[{self.limited!r}]], quota['track']] = quota['most']\n"
            )
            loads += f"        load.append(((claim[{self.fund!r}], claim['track']), {weight}))\n"
        if self.holder:
            spare += f"    for claim in db['claim']:\n        spare['person', claim[{self.person!r}]] = {self.holder}\n"
            loads += f"        load.append((('person', claim[{self.person!r}]), 1))\n"
        if self.phases:
            out += "        if fund['phase'] == 'closed':\n            out.add(claim['id'])\n"
        if self.bar:
            out += "        if claim['merit'] < fund['bar']:\n            out.add(claim['id'])\n"
        fund = f"        fund = funds[claim[{self.fund!r}]]\n" if out else ""
        return (
            self.goal_purses() + self.goal_foes() + "@once\n"
            "def grant_book():\n"
            "    charge, rivals, money = charges(), foes(), purses()\n"
            f"    funds = {{fund[{self.fund_key!r}]: fund for fund in db['fund']}}\n"
            "    spare = {('budget', key): money[fund['id']] for key, fund in funds.items()}\n"
            f"{spare}"
            "    loads, out = {}, set()\n"
            "    for claim in db['claim']:\n"
            f"        load = [(('budget', claim[{self.fund!r}]), charge[claim['id']])]\n"
            "        if claim['state'] == 'granted':\n"
            "            # The free budget knows of it already.\n"
            "            load, out = [], out | rivals[claim['id']]\n"
            f"        if claim['state'] != {self.ready!r}:\n"
            "            out.add(claim['id'])\n"
            f"{fund}{out}{loads}"
            "        if claim['state'] == 'granted':\n"
            "            for name, weight in load:\n"
            "                if name in spare:\n"
            "                    spare[name] -= weight\n"
            "        loads[claim['id']] = [(name, weight) for name, weight in load if name in spare]\n"
            "    return {'spare': spare, 'loads': loads, 'out': out, 'foes': rivals}\n"
            "def all_allowed(book, ids):\n"
            "    taken = {}\n"
            "    for key in ids:\n"
            "        if key in book['out'] or any(other in book['foes'][key] for other in ids):\n"
            "            return False\n"
            "        for name, weight in book['loads'][key]:\n"
            "            taken[name] = taken.get(name, 0) + weight\n"
            "    return all(weight <= book['spare'][name] for name, weight in taken.items())\n"
        )

    def goal_grantable(self) -> str:
        """Goal source of `g_grantable`."""
        return (
            self.goal_book() + "@once\n"
            "def lone_grants():\n"
            "    book = grant_book()\n"
            "    return {claim['id'] for claim in db['claim'] if all_allowed(book, [claim['id']])}\n"
            "def g_grantable(db, row):\n"
            "    return row['id'] in lone_grants()\n"
        )

    def goal_peak(self) -> str:
        """Goal source of `peak_merit`: sets that are allowed grow by one request per layer."""
        return (
            self.goal_book() + "@once\n"
            "def peak_merit(fund_key):\n"
            "    book = grant_book()\n"
            f"    merits = {{claim['id']: claim['merit'] for claim in db['claim'] if claim[{self.fund!r}] == fund_key}}\n"
            "    names = [key for key in sorted(merits) if all_allowed(book, [key])]\n"
            "    layer, peak = [[]], 0\n"
            "    while layer:\n"
            "        peak = max([peak, *(sum(merits[key] for key in ids) for ids in layer)])\n"
            "        grown = [[*ids, key] for ids in layer for key in names if not ids or key > ids[-1]]\n"
            "        layer = [ids for ids in grown if all_allowed(book, ids)]\n"
            "    return peak\n"
        )
