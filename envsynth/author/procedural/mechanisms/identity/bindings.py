"""What the texts of a world of contacts have in common: column names and rules of one world, and shared pieces.

The three searches differ on purpose: SQL joins keys and closes the relation, the planner compares contacts one with
another, the goals sort contacts into buckets of keys.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, timedelta
from typing import Any

from envsynth.author.procedural.ir import Type
from envsynth.author.procedural.mechanism import Composed
from envsynth.author.procedural.mechanisms.entities import id_argument

CONTACT = Type("row", "contact")
NUMBER = Type("num", "points")
PEOPLE = Type("num", "people")
ENOUGH = 2
"""Keys that two contacts of one party share at least."""
SOURCES = ("web", "phone", "fair", "partner")


def alias_kinds(rules: Mapping[str, Any]) -> tuple[str, ...]:
    """Kinds of aliases under these rules."""
    return ("phone", "mail") if rules["alias_badges"] == "none" else ("phone", "mail", "badge")


class Bindings:
    """The texts over one composed world: column names, nouns and rules are bound here."""

    def __init__(self, world: Composed) -> None:
        self.world, rules = world, world.rules
        self.owner, self.owner_key = world.fk("contact", "owner")
        self.alias, self.alias_key = world.fk("alias", "contact")
        self.messages = rules["contact_messages"]
        self.message, self.message_key = world.fk("message", "contact") if self.messages else ("", "")
        self.transitive, self.by_case = rules["party_transitive"], rules["keys_by_case"]
        self.prefix, self.badges = rules["phone_prefix"], rules["alias_badges"]
        self.active, self.moves = rules["survivor_active"] and self.messages, rules["messages_move"] and self.messages
        self.counting = tuple(kind for kind in alias_kinds(rules) if kind != "badge" or self.badges == "count")
        self.since = (date.fromisoformat(world.now[:10]) - timedelta(days=int(rules["activity_days"]))).isoformat()
        self.merge_tool = f"merge_{world.slug('contact')}"
        self.relabel_tool = f"relabel_{world.slug('contact')}"

    def arg(self, entity: str) -> str:
        """Name of the tool argument that takes an id."""
        return id_argument(self.world, entity)

    # SQL --------------------------------------------------------------------------------------------------------

    def value_sql(self, kind: str, value: str) -> str:
        """SQL of a normalised value; `kind` is an SQL expression."""
        text = value if self.by_case else f"lower({value})"
        if not self.prefix:
            return text
        cut = f"CASE WHEN {value} LIKE '+49-%' THEN '0-' || substr({value}, 5) ELSE {value} END"
        return f"CASE {kind} WHEN 'phone' THEN {cut} ELSE {text} END"

    def keys_sql(self) -> str:
        """SQL of a common table `keys` of the distinct keys of each contact."""
        parts = [
            f'SELECT c."id" AS "of", \'{kind}\' AS "kind", {self.value_sql(repr(kind), "c." + kind)} AS "value"'
            ' FROM "contact" c'
            for kind in ("phone", "mail")
        ]
        kinds = ", ".join(repr(kind) for kind in self.counting)
        parts.append(
            f'SELECT c."id", a."kind", {self.value_sql("a.kind", "a.value")} FROM "alias" a'
            f' JOIN "contact" c ON c."{self.alias_key}" = a."{self.alias}" WHERE a."kind" IN ({kinds})'
        )
        return f'"keys" AS MATERIALIZED ({" UNION ".join(parts)})'

    def shared_sql(self, one: str, other: str) -> str:
        """SQL of the number of keys that two contacts share."""
        return (
            f'(WITH {self.keys_sql()} SELECT COUNT(*) FROM "keys" k JOIN "keys" m ON m."kind" = k."kind"'
            f' AND m."value" = k."value" WHERE k."of" = {one} AND m."of" = {other})'
        )

    def parties_sql(self) -> str:
        """SQL of common tables `reach` (contact, member of its party) and `lead` (contact, survivor of its party)."""
        live = '(SELECT l."id" FROM "contact" l WHERE l."state" = \'live\')'
        step = (
            'SELECT r."one", p."two" FROM "reach" r JOIN "pairs" p ON p."one" = r."two"'
            if self.transitive
            else 'SELECT "one", "two" FROM "pairs"'
        )
        most = f"{self.activity_sql('c')} DESC, " if self.active else ""
        return (
            f"{self.keys_sql()},"
            ' "pairs" AS MATERIALIZED (SELECT k."of" AS "one", m."of" AS "two" FROM "keys" k JOIN "keys" m'
            ' ON m."kind" = k."kind" AND m."value" = k."value" AND m."of" <> k."of"'
            f' WHERE k."of" IN {live} AND m."of" IN {live} GROUP BY 1, 2 HAVING COUNT(*) >= {ENOUGH}),'
            f' "reach"("one", "two") AS (SELECT l."id", l."id" FROM "contact" l WHERE l."state" = \'live\''
            f" UNION {step}),"
            ' "lead" AS MATERIALIZED (SELECT "one", "survivor" FROM (SELECT r."one" AS "one", c."id" AS "survivor",'
            f' row_number() OVER (PARTITION BY r."one" ORDER BY {most}c."since", c."id") AS "place"'
            ' FROM "reach" r JOIN "contact" c ON c."id" = r."two") WHERE "place" = 1)'
        )

    def activity_sql(self, contact: str) -> str:
        """SQL of the activity of a contact."""
        return (
            f'(SELECT COUNT(*) FROM "message" y WHERE y."{self.message}" = {contact}."{self.message_key}"'
            f" AND y.\"kind\" <> 'notice' AND y.\"day\" >= '{self.since}')"
        )

    # planner ----------------------------------------------------------------------------------------------------

    def plan_keys(self) -> str:
        """Planner source of `contact_keys` and `d_shared_keys`; without the rules only equal raw columns count."""
        phone = "        if kind == 'phone' and value[:4] == '+49-':\n            value = '0-' + value[4:]\n"
        lower = "" if self.by_case else "        value = value.lower()\n"
        return (
            "def contact_keys(row):\n"
            "    raw = [('phone', row['phone']), ('mail', row['mail'])]\n"
            "    if not POLICY:\n"
            "        return raw\n"
            f"    more = rows('alias', {{{self.alias!r}: row[{self.alias_key!r}]}})\n"
            f"    raw = raw + [(a['kind'], a['value']) for a in more if a['kind'] in {self.counting}]\n"
            "    found = []\n"
            "    for kind, value in raw:\n"
            f"{phone if self.prefix else ''}{lower}"
            "        if (kind, value) not in found:\n"
            "            found.append((kind, value))\n"
            "    return found\n"
            "def d_shared_keys(row, other):\n"
            "    theirs = contact_keys(other)\n"
            "    return len([key for key in contact_keys(row) if key in theirs])\n"
        )

    def plan_activity(self) -> str:
        """Planner source of `d_activity`."""
        return (
            "def d_activity(row):\n"
            f"    found = rows('message', {{{self.message!r}: row[{self.message_key!r}]}})\n"
            "    if POLICY:\n"
            f"        found = [m for m in found if m['kind'] != 'notice' and m['day'] >= {self.since!r}]\n"
            "    return len(found)\n"
        )

    def plan_party(self) -> str:
        """Planner source of `contact_party` and `party_survivor`; without the rules equal names make a party."""
        order = "(-d_activity(c), c['since'], c['id'])" if self.active else "(c['since'], c['id'])"
        grow = "todo = todo + new\n" if self.transitive else "pass\n"
        return (
            self.plan_keys() + (self.plan_activity() if self.active else "") + "def contact_party(row):\n"
            "    if row['state'] != 'live':\n"
            "        return []\n"
            "    left = [c for c in rows('contact', {'state': 'live'}) if c['id'] != row['id']]\n"
            "    if not POLICY:\n"
            "        return [row] + [c for c in left if c['called'] == row['called']]\n"
            "    party, todo = [row], [row]\n"
            "    while todo:\n"
            "        mine = contact_keys(todo.pop())\n"
            "        new = []\n"
            "        for c in left:\n"
            f"            if len([key for key in contact_keys(c) if key in mine]) >= {ENOUGH}:\n"
            "                new.append(c)\n"
            "        left = [c for c in left if c not in new]\n"
            "        party = party + new\n"
            f"        {grow}"
            "    return party\n"
            "def party_survivor(party):\n"
            "    if not POLICY:\n"
            "        return party[0]\n"
            f"    return min(party, key=lambda c: {order})\n"
        )

    # goals ------------------------------------------------------------------------------------------------------

    def goal_keys(self) -> str:
        """Goal source of `keys_of_contacts`: the keys of each contact, by id."""
        mail = "value" if self.by_case else "value.casefold()"
        phone = "'0-' + value.removeprefix('+49-') if value.startswith('+49-') else value" if self.prefix else mail
        skipped = "        if a['kind'] == 'badge':\n            continue\n" if self.badges == "ignored" else ""
        return (
            "def plain_key(kind, value):\n"
            "    if kind == 'phone':\n"
            f"        return kind, {phone}\n"
            f"    return kind, {mail}\n"
            "@once\n"
            "def keys_of_contacts():\n"
            "    keys, owner = {}, {}\n"
            "    for c in db['contact']:\n"
            f"        owner[c[{self.alias_key!r}]] = c['id']\n"
            "        keys[c['id']] = {plain_key('phone', c['phone']), plain_key('mail', c['mail'])}\n"
            "    for a in db['alias']:\n"
            f"{skipped}"
            f"        keys[owner[a[{self.alias!r}]]].add(plain_key(a['kind'], a['value']))\n"
            "    return keys\n"
            "def g_shared_keys(db, row, other):\n"
            "    keys = keys_of_contacts()\n"
            "    return len(keys[row['id']] & keys[other['id']])\n"
        )

    def goal_activity(self) -> str:
        """Goal source of `g_activity`."""
        return (
            "@once\n"
            "def recent_messages():\n"
            "    recent = {}\n"
            "    for m in db['message']:\n"
            f"        if m['kind'] in ('call', 'letter') and not m['day'] < {self.since!r}:\n"
            f"            recent[m[{self.message!r}]] = recent.get(m[{self.message!r}], 0) + 1\n"
            "    return recent\n"
            "def g_activity(db, row):\n"
            f"    return recent_messages().get(row[{self.message_key!r}], 0)\n"
        )

    def goal_party(self) -> str:
        """Goal source of `parties_of_contacts`: ids of each live contact's party, survivor first."""
        merge = (
            "    changed = True\n"
            "    while changed:\n"
            "        changed = False\n"
            "        for one in near:\n"
            "            wider = set().union(*(near[two] for two in near[one]))\n"
            "            if wider != near[one]:\n"
            "                near[one], changed = wider, True\n"
        )
        rank = "(-g_activity(db, c), c['since'], c['id'])" if self.active else "(c['since'], c['id'])"
        return (
            self.goal_keys() + (self.goal_activity() if self.active else "") + "@once\n"
            "def parties_of_contacts():\n"
            "    keys, buckets, common = keys_of_contacts(), {}, {}\n"
            "    live = {c['id']: c for c in db['contact'] if c['state'] != 'merged'}\n"
            "    for one in live:\n"
            "        for key in keys[one]:\n"
            "            for two in buckets.setdefault(key, []):\n"
            "                common[one, two] = common.get((one, two), 0) + 1\n"
            "            buckets[key].append(one)\n"
            "    near = {one: {one} for one in live}\n"
            "    for (one, two), count in common.items():\n"
            f"        if count > {ENOUGH - 1}:\n"
            "            near[one].add(two)\n"
            "            near[two].add(one)\n"
            f"{merge if self.transitive else ''}"
            f"    ranks = {{c['id']: {rank} for c in live.values()}}\n"
            "    return {one: sorted(found, key=lambda two: ranks[two]) for one, found in near.items()}\n"
        )
