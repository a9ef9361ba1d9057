"""Derived attributes of a world of contacts, each with its sentence and three texts."""

from __future__ import annotations

from envsynth.author.procedural.mechanism import Derived
from envsynth.author.procedural.mechanisms.identity.bindings import CONTACT, NUMBER, PEOPLE, Bindings


class DerivedTexts(Bindings):
    """Writes the derived attributes over one world."""

    def keys_policy(self) -> str:
        """What a key is and when two are equal."""
        contact, alias, aliases = self.world.word("contact"), self.world.word("alias"), self.world.plural("alias")
        text = (
            f"The keys of a {contact} are its phone, its mail and the values of its {aliases} of the kinds "
            f"{', '.join(self.counting[:-1])} and {self.counting[-1]}, each once; a phone equals only a phone, a mail only "
            "a mail"
            f"{', a badge only a badge' if self.badges == 'count' else ''}."
        )
        if self.badges == "ignored":
            text += f" A {alias} of the kind badge is no key."
        if self.prefix:
            text += " In phones a leading +49- stands for a leading 0-."
        return (
            f"{text} {'Capital and small letters differ.' if self.by_case else 'Capital and small letters are equal.'}"
        )

    def party_policy(self) -> str:
        """What a party and its survivor are."""
        contact, contacts = self.world.word("contact"), self.world.plural("contact")
        chain = f", directly or through a chain of live {contacts} of which each shares two with the next"
        first = "the most activity, at equal activity the one with " if self.active else ""
        return (
            f"The party of a live {contact} is the {contact} itself and the live {contacts} that share at least two keys "
            f"with it{chain if self.transitive else ', directly and not through others'}; equal names mean nothing. The "
            f"survivor of a party is its {contact} with {first}the earliest first day, then the smallest id."
        )

    def shared_keys(self) -> Derived:
        """Keys that two contacts share."""
        contact, contacts = self.world.word("contact"), self.world.plural("contact")
        return Derived(
            entity="contact",
            name="shared_keys",
            label="key overlap with {0}",
            params=(CONTACT,),
            type=NUMBER,
            sql=self.shared_sql('{t}."id"', "{0}"),
            plan=self.plan_keys(),
            goal=self.goal_keys(),
            policy=(
                f"{self.keys_policy()} The key overlap of two {contacts} is how many keys they share, one point each; a "
                f"{contact} shares all its keys with itself."
            ),
        )

    def twins(self) -> Derived:
        """Other contacts of the same party."""
        contact, contacts = self.world.word("contact"), self.world.plural("contact")
        return Derived(
            entity="contact",
            name="twins",
            label="twin count",
            type=PEOPLE,
            sql=(
                f'(WITH RECURSIVE {self.parties_sql()} SELECT COUNT(*) FROM "reach"'
                ' WHERE "one" = {t}."id" AND "two" <> "one")'
            ),
            plan=self.plan_party() + "def d_twins(row):\n    return max(0, len(contact_party(row)) - 1)\n",
            goal=(
                self.goal_party() + "def g_twins(db, row):\n"
                "    return len(parties_of_contacts().get(row['id'], [row['id']])) - 1\n"
            ),
            policy=(
                f"{self.party_policy()} The twins of a live {contact} are the other {contacts} of its party; a merged one "
                "has a twin count of 0."
            ),
        )

    def activity(self) -> Derived:
        """Recent messages of a contact."""
        contact, messages = self.world.word("contact"), self.world.plural("message")
        return Derived(
            entity="contact",
            name="activity",
            label="activity",
            type=NUMBER,
            sql=self.activity_sql("{t}"),
            plan=self.plan_activity(),
            goal=self.goal_activity(),
            policy=(
                f"The activity of a {contact} is one point for each of its {messages} of the kinds call and letter from "
                f"{self.since} or later; notices do not count."
            ),
        )

    def parties(self) -> Derived:
        """Contacts of an owner that survive in their party."""
        person, contact, contacts = (
            self.world.word("person"),
            self.world.word("contact"),
            self.world.plural("contact"),
        )
        return Derived(
            entity="person",
            name="parties",
            label="party count",
            type=PEOPLE,
            sql=(
                f'(WITH RECURSIVE {self.parties_sql()} SELECT COUNT(*) FROM "lead" d JOIN "contact" o'
                f' ON o."id" = d."survivor" WHERE d."one" = d."survivor"'
                f' AND o."{self.owner}" = {{t}}."{self.owner_key}")'
            ),
            plan=(
                self.plan_party() + "def d_parties(row):\n"
                f"    mine = rows('contact', {{{self.owner!r}: row[{self.owner_key!r}]}})\n"
                "    if not POLICY:\n"
                "        return len(mine)\n"
                "    live = [c for c in mine if c['state'] == 'live']\n"
                "    return len([c for c in live if party_survivor(contact_party(c))['id'] == c['id']])\n"
            ),
            goal=(
                self.goal_party() + "@once\n"
                "def parties_of_owners():\n"
                "    heads, owned = [one for one, party in parties_of_contacts().items() if party[0] == one], {}\n"
                "    for c in db['contact']:\n"
                f"        owned[c[{self.owner!r}]] = owned.get(c[{self.owner!r}], 0) + (c['id'] in heads)\n"
                "    return owned\n"
                "def g_parties(db, row):\n"
                f"    return parties_of_owners().get(row[{self.owner_key!r}], 0)\n"
            ),
            policy=(
                f"The party count of a {person} is how many live {contacts} the {person} owns that are the survivor of "
                f"their own party; a {contact} without twins is its own survivor."
            ),
        )
