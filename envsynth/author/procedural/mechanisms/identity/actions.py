"""Actions of a world of contacts: merge, relabel; each with its three texts."""

from __future__ import annotations

from envsynth.author.procedural.mechanism import Action
from envsynth.author.procedural.mechanisms.identity.bindings import CONTACT, Bindings


class ActionTexts(Bindings):
    """Writes the actions over one world."""

    def merge(self) -> Action:
        """Merge a contact and its twins into the survivor."""
        contact, contacts, aliases = (
            self.world.word("contact"),
            self.world.plural("contact"),
            self.world.plural("alias"),
        )
        moved = f"{aliases} and {self.world.plural('message')}" if self.moves else aliases
        return Action(
            name="merge",
            phrase="merge {contact} with all its twins",
            params=(("contact", CONTACT),),
            oracle_sql=self.merge_sql(),
            plan=(
                self.plan_party() + "def a_merge(contact):\n"
                "    party = contact_party(contact)\n"
                "    keeper = party_survivor(party)\n"
                "    for c in party:\n"
                "        if c['id'] != keeper['id']:\n"
                f"            write({self.merge_tool!r}, {self.arg('contact')}=c['id'], survivor_id=keeper['id'])\n"
            ),
            goal=self.merge_goal(),
            tables=("contact", "alias", *(("message",) if self.moves else ())),
            policy=(
                f"To merge a live {contact} with all its twins, merge each {contact} of its party but the survivor into "
                f"the survivor: the survivor stays as it is, the others get state merged, and their {moved} move to the "
                f"survivor. Only live {contacts} can be merged."
            ),
        )

    def merge_sql(self) -> str:
        """Oracle: the rows that a merger changes."""
        parts = [
            "SELECT 'update', 'contact', json_object('id', \"id\", 'state', 'merged') FROM \"gone\"",
            f"SELECT 'update', 'alias', json_object('id', x.\"id\", '{self.alias}', k.\"{self.alias_key}\")"
            f' FROM "alias" x JOIN "gone" ON x."{self.alias}" = "gone"."{self.alias_key}"'
            ' JOIN "contact" k ON k."id" = "gone"."survivor"',
        ]
        if self.moves:
            parts.append(
                f"SELECT 'update', 'message', json_object('id', x.\"id\", '{self.message}', k.\"{self.message_key}\")"
                f' FROM "message" x JOIN "gone" ON x."{self.message}" = "gone"."{self.message_key}"'
                ' JOIN "contact" k ON k."id" = "gone"."survivor"'
            )
        return (
            f"WITH RECURSIVE {self.parties_sql()},"
            ' "gone" AS (SELECT c.*, d."survivor" FROM "reach" r JOIN "lead" d ON d."one" = r."one"'
            ' JOIN "contact" c ON c."id" = r."two" WHERE r."one" = {contact} AND c."id" <> d."survivor")'
            f" {' UNION ALL '.join(parts)}"
        )

    def merge_goal(self) -> str:
        """Goal source of `s_merge`: all of the party but the survivor are merged, and all that was theirs is its."""
        tables = [("alias", self.alias, self.alias_key)]
        tables += [("message", self.message, self.message_key)] if self.moves else []
        source = (
            self.goal_party() + "def s_merge(db, diff, contact):\n"
            "    first, *others = parties_of_contacts().get(contact['id'], [contact['id']])\n"
            "    if not others:\n"
            "        return None\n"
            "    initial = {c['id']: c for c in db['contact']}\n"
            "    wanted = [('contact', {**initial[key], 'state': 'merged'}) for key in others]\n"
        )
        for table, column, key in tables:
            source += (
                f"    theirs = [initial[other][{key!r}] for other in others]\n"
                f"    for x in db[{table!r}]:\n"
                f"        if x[{column!r}] in theirs:\n"
                f"            wanted.append(({table!r}, {{**x, {column!r}: initial[first][{key!r}]}}))\n"
            )
        return source + (
            "    claimed = [e for e in diff if e['op'] == 'update' and (e['table'], e['new']) in wanted]\n"
            "    return claimed if len(claimed) == len(wanted) else None\n"
        )

    def relabel(self) -> Action:
        """Give a contact the source of its survivor."""
        contact = self.world.word("contact")
        return Action(
            name="relabel",
            phrase="relabel {contact} after its survivor",
            params=(("contact", CONTACT),),
            oracle_sql=(
                f"WITH RECURSIVE {self.parties_sql()}"
                " SELECT 'update', 'contact', json_object('id', c.\"id\", 'source', k.\"source\") FROM \"lead\" d"
                ' JOIN "contact" c ON c."id" = d."one" JOIN "contact" k ON k."id" = d."survivor"'
                ' WHERE d."one" = {contact} AND k."source" <> c."source"'
            ),
            plan=(
                self.plan_party() + "def a_relabel(contact):\n"
                "    keeper = party_survivor(contact_party(contact))\n"
                f"    write({self.relabel_tool!r}, {self.arg('contact')}=contact['id'], source=keeper['source'])\n"
            ),
            goal=(
                self.goal_party() + "def s_relabel(db, diff, contact):\n"
                "    first = parties_of_contacts().get(contact['id'], [contact['id']])[0]\n"
                "    sources = {c['id']: c['source'] for c in db['contact']}\n"
                "    for e in diff:\n"
                "        if e['op'] == 'update' and e['table'] == 'contact':\n"
                "            if e['new'] == {**contact, 'source': sources[first]}:\n"
                "                return [e]\n"
                "    return None\n"
            ),
            tables=("contact",),
            policy=f"To relabel a live {contact} gives it the source of the survivor of its party.",
        )
