"""Rows of a world of contacts: parties of one to four contacts, near misses between them, aliases and messages."""

from __future__ import annotations

import random
from datetime import date, timedelta
from typing import Any

from envsynth.author.procedural.mechanism import Composed
from envsynth.author.procedural.mechanisms.entities import skewed
from envsynth.author.procedural.mechanisms.identity.bindings import SOURCES, alias_kinds

FIRST = (
    "Ada",
    "Boris",
    "Carla",
    "Derek",
    "Edith",
    "Fabio",
    "Gerda",
    "Henri",
    "Ilse",
    "Joao",
    "Kira",
    "Lars",
    "Mona",
    "Nico",
    "Otto",
    "Petra",
)
LAST = (
    "Adler",
    "Brandt",
    "Conti",
    "Dahl",
    "Egger",
    "Fabri",
    "Gruber",
    "Holm",
    "Jansen",
    "Keller",
    "Lorenz",
    "Marek",
    "Novak",
    "Ortiz",
    "Pohl",
    "Reuter",
)
_Cells = dict[str, Any]


class Directory:
    """Fills contacts, aliases and messages."""

    def __init__(self, world: Composed, rng: random.Random) -> None:
        self.world, self.rng = world, rng
        self.today = date.fromisoformat(world.now[:10])
        self.kinds = alias_kinds(world.rules)
        self.contacts: list[_Cells] = []
        self.aliases: list[list[tuple[str, str]]] = []

    def fill(self) -> None:
        """Append all rows."""
        rng = self.rng
        while len(self.contacts) < 52:
            self.party()
        for index in range(len(self.contacts)):
            self.near_miss(index)
        days = rng.sample(range(100, 1500), len(self.contacts))
        order = rng.sample(range(len(self.contacts)), len(self.contacts))

        def contact(i: int) -> _Cells:
            return {
                **self.contacts[order[i]],
                "owner": skewed(rng, self.world.rows["person"], 0.12),
                "source": rng.choice(SOURCES),
                "since": (self.today - timedelta(days=days[i])).isoformat(),
                "visits": rng.randint(0, 90),
                "worth": max(20, int(rng.lognormvariate(5.5, 0.8))),
            }

        self.world.fill(rng, "contact", len(order), contact)
        rows = self.world.rows["contact"]
        # The aliases of a merged contact have moved to its survivor.
        pairs = [
            (rows[i], kind, value)
            for i, number in enumerate(order)
            for kind, value in self.aliases[number]
            if rows[i]["state"] == "live"
        ]
        pairs = rng.sample(pairs, len(pairs))

        def alias(i: int) -> _Cells:
            return dict(zip(("contact", "kind", "value"), pairs[i], strict=True))

        self.world.fill(rng, "alias", len(pairs), alias)
        if self.world.rules["contact_messages"]:
            shuffled = rng.sample(rows, len(rows))

            def message(_: int) -> _Cells:
                return {
                    "contact": skewed(rng, shuffled, 0.05),
                    "day": (self.today - timedelta(days=rng.randint(0, 90))).isoformat(),
                    "kind": rng.choice(["call", "call", "letter", "notice"]),
                }

            self.world.fill(rng, "message", rng.randint(90, 120), message)

    def party(self) -> None:
        """One party: each contact shares two or more keys with the one before it, some only with that one."""
        rng = self.rng
        name, keys = self.name(), self.keys()
        for number in range(rng.choice([1, 2, 2, 3, 3, 4])):
            if number:
                kept = rng.sample(["phone", "mail"], rng.choice([1, 2, 2]))
                fresh = self.keys()
                linking = [("badge", keys["badge"])] if len(kept) == 1 and "badge" in self.kinds else []
                if len(kept) == 1 and not linking:
                    other = "mail" if kept == ["phone"] else "phone"
                    linking = [(other, keys[other])]
                keys = {kind: self.variant(kind, keys[kind]) if kind in kept else fresh[kind] for kind in keys}
                name = self.name() if rng.random() < 0.4 else name
            else:
                linking = []
            aliases = [(kind, self.variant(kind, value)) for kind, value in linking]
            if "badge" in self.kinds and rng.random() < 0.7:
                aliases.append(("badge", keys["badge"]))
            if rng.random() < 0.4:
                extra = self.keys()
                kind = rng.choice(["phone", "mail"])
                aliases.append((kind, extra[kind]))
            state = "merged" if rng.random() < 0.1 else "live"
            cells = {"called": name, "phone": keys["phone"], "mail": keys["mail"], "state": state}
            self.contacts.append(cells)
            self.aliases.append(list(dict.fromkeys(aliases)))

    def near_miss(self, index: int) -> None:
        """Now and then a contact has one key, or the name, of some other party; many share a switchboard."""
        rng = self.rng
        if rng.random() < 0.35:
            self.aliases[index].append(("phone", self.variant("phone", "0-1000200")))
        other = rng.choice(self.contacts)
        chance = rng.random()
        if chance < 0.3:
            kind = rng.choice(["phone", "mail"])
            self.aliases[index].append((kind, other[kind]))
        elif chance < 0.5:
            self.contacts[index]["called"] = other["called"]

    def name(self) -> str:
        """A full name; several people have the same."""
        return f"{skewed(self.rng, [*FIRST], 0.12)} {skewed(self.rng, [*LAST], 0.12)}"

    def keys(self) -> dict[str, str]:
        """Keys of a new person."""
        rng = self.rng
        letters = "".join(rng.choice("bcdfghklmnprstvz") + rng.choice("aeiou") for _ in range(3))
        return {
            "phone": rng.choice(["+49-", "0-"]) + str(rng.randint(2_000_000, 9_999_999)),
            "mail": f"{letters}{rng.randint(10, 99)}",
            "badge": f"{letters[:2]}{rng.randint(1000, 9999)}",
        }

    def variant(self, kind: str, value: str) -> str:
        """The same value, perhaps written otherwise."""
        if self.rng.random() < 0.5:
            return value
        if kind == "phone":
            return "0-" + value[4:] if value.startswith("+49-") else "+49-" + value[2:]
        return value.capitalize()
