"""Rows of a world of programmes: programmes, standings, exceptions, and enrolments that keep every rule."""

from __future__ import annotations

import random
from datetime import date, timedelta
from typing import Any

from envsynth.author.procedural.mechanism import Composed, Row
from envsynth.author.procedural.mechanisms.eligibility.bindings import conditions
from envsynth.author.procedural.mechanisms.entities import skewed

_Cells = dict[str, Any]


class Roster:
    """Fills the tables; what it decides on is kept in logical cells, apart from column names."""

    def __init__(self, world: Composed, rng: random.Random) -> None:
        self.world, self.rng, self.rules = world, rng, world.rules
        self.today = date.fromisoformat(world.now[:10])
        self.persons = world.rows["person"]
        self.programmes: list[Row] = []
        self.standings: list[_Cells] = []
        self.exceptions: list[_Cells] = []
        self.bans: list[_Cells] = []
        self.denied: dict[tuple[int | str, int | str], None] = {}

    def day(self, low: int, high: int) -> str:
        """A day between so many days from today."""
        return (self.today + timedelta(days=self.rng.randint(low, high))).isoformat()

    def append(self, entity: str, cells: list[_Cells]) -> None:
        """Append rows in an order of their own, since the order in which they were decided on would tell."""
        mixed = self.rng.sample(cells, len(cells))

        def row(index: int) -> _Cells:
            return mixed[index]

        self.world.fill(self.rng, entity, len(mixed), row)

    def fill(self) -> None:
        """Append all rows."""
        rng = self.rng

        def programme(_: int) -> _Cells:
            rule = self.rules["programme_combine"]
            combine = rng.choice(["both", "any"]) if rule == "each" else rule
            # Where one condition is enough the bars are high, so that neither nearly all nor hardly any pass.
            high = combine == "any"
            return {
                "places": rng.choice([2, 3, 3, 4, 4, 5, 6, 7, 9]),
                "minimum_score": rng.randint(50, 75) if high else rng.randint(15, 50),
                "minimum_seniority": rng.randint(4, 10) if high else rng.choice([1, 1, 2, 2, 3, 4]),
                "benefit": max(20, int(rng.lognormvariate(4.6, 0.5)) // 5 * 5),
                "scope": rng.choice(["open", "local"]),
                "combine": combine,
                "coordinator": rng.choice(self.persons),
                "hours": rng.randint(2, 40),
            }

        self.world.fill(rng, "programme", rng.randint(16, 22), programme)
        self.programmes = self.world.rows["programme"]
        self.fill_standings()
        if self.rules["programme_waivers"] != "none":
            self.fill_waivers()
        if self.rules["programme_bans"] != "none":
            self.fill_bans()
        self.fill_enrolments()

    def fill_standings(self) -> None:
        """One standing per person, or up to four with different days; some persons have none; many near misses."""
        rng = self.rng
        for index, person in enumerate(self.persons):
            if index % 12 == 5:
                continue
            count = rng.choice([1, 2, 2, 3, 4]) if self.rules["standing_history"] else 1
            days = rng.sample(range(10, 400), count)
            for ago in days:
                near = rng.choice(self.programmes)
                score, years = rng.randint(10, 90), min(20, int(rng.expovariate(0.22)))
                if rng.random() < 0.3:
                    score = int(near["minimum_score"]) - rng.choice([0, 1])
                if rng.random() < 0.3:
                    years = int(near["minimum_seniority"]) - rng.choice([0, 1])
                self.standings.append(
                    {
                        "person": person,
                        "day": (self.today - timedelta(days=ago)).isoformat(),
                        "score": score,
                        "seniority": years,
                        "residence": rng.choice(["local", "local", "regional", "foreign"]),
                    }
                )
        self.append("standing", self.standings)

    def fill_waivers(self) -> None:
        """Waivers, most of them for a condition whose waiving lets the person in."""
        rng, dated = self.rng, self.rules["waiver_dated"]
        drawn: dict[tuple[Any, ...], _Cells] = {}
        target = rng.randint(40, 56) if self.rules["programme_waivers"] == "one" else rng.randint(20, 26)
        for attempt in range(4000):
            if len(drawn) == target:
                break
            person, programme = skewed(rng, self.persons, 0.08), skewed(rng, self.programmes, 0.1)
            waives = rng.choice(conditions(self.rules))
            lacks = self.lacks(person, programme)
            left = [name for name in lacks if name != waives]
            decides = not self.enough(lacks, programme) and self.enough(left, programme)
            if attempt < 3000 and not decides and rng.random() < 0.95:
                continue
            cells: _Cells = {"person": person, "waives": waives, "until": self.day(0, 90)}
            if dated and rng.random() < 0.3:
                cells["until"] = self.day(-40, -1)
            key = (person["id"], waives, "")
            if self.rules["programme_waivers"] == "one":
                cells["programme"], key = programme, (person["id"], waives, programme["id"])
            drawn.setdefault(key, cells)
        self.exceptions = list(drawn.values())
        self.append("waiver", self.exceptions)

    def fill_bans(self) -> None:
        """Bans, some of them ended, some on persons with a waiver."""
        rng, one = self.rng, self.rules["programme_bans"] == "one"
        for _ in range(rng.randint(30, 44) if one else rng.randint(20, 26)):
            ended = rng.random() < (0.3 if one else 0.6)
            cells: _Cells = {
                "person": rng.choice(self.persons),
                "until": self.day(-60, -1) if ended else self.day(0, 60),
            }
            if self.exceptions and rng.random() < 0.4:
                cells["person"] = rng.choice(self.exceptions)["person"]
            if one:
                cells["programme"] = skewed(rng, self.programmes, 0.1)
            self.bans.append(cells)
        self.append("ban", self.bans)

    def lacks(self, person: Row, programme: Row) -> list[str]:
        """Conditions that a person does not meet, waivers apart, as far as they matter."""
        mine = [cells for cells in self.standings if cells["person"]["id"] == person["id"]]
        last = max(mine, key=lambda cells: str(cells["day"]), default=None)
        found = [
            name for name in ("score", "seniority") if last is None or last[name] < int(programme[f"minimum_{name}"])
        ]
        if self.rules["programme_residence"] and programme["scope"] == "local":
            found += ["residence"] if last is None or last["residence"] != "local" else []
        return found

    def eligible(self, person: Row, programme: Row) -> bool:
        """Whether a person may enter a programme today."""

        def concerns(cells: _Cells) -> bool:
            return cells["person"]["id"] == person["id"] and cells.get("programme", programme)["id"] == programme["id"]

        today, dated = self.today.isoformat(), self.rules["waiver_dated"]
        waived = [
            cells["waives"] for cells in self.exceptions if concerns(cells) and (not dated or cells["until"] >= today)
        ]
        lacks = [name for name in self.lacks(person, programme) if name not in waived]
        if any(concerns(cells) and cells["until"] >= today for cells in self.bans):
            return False
        if self.rules["enrolment_denials"] == "final" and (person["id"], programme["id"]) in self.denied:
            return False
        return self.enough(lacks, programme)

    def enough(self, lacks: list[str], programme: Row) -> bool:
        """Whether one who lacks these conditions may enter all the same."""
        rule = self.rules["programme_combine"]
        both = (programme["combine"] if rule == "each" else rule) == "both"
        return not lacks or (not both and lacks in (["score"], ["seniority"]))

    def fill_enrolments(self) -> None:
        """Denials, ended enrolments, current ones within places and most per person, and waiting lists."""
        rng = self.rng
        rows = self.denials() if self.rules["enrolment_denials"] != "none" else []
        for _ in range(rng.randint(16, 26)):
            person, programme = skewed(rng, self.persons, 0.07), skewed(rng, self.programmes, 0.12)
            if (person["id"], programme["id"]) not in self.denied:
                cells = {"person": person, "programme": programme, "day": self.day(-300, -60), "state": "ended"}
                rows.append(cells)
        rows += self.current_ones()
        self.append("enrolment", rows)

    def denials(self) -> list[_Cells]:
        """Denied enrolments, one per pair; some of these persons would meet the conditions by now."""
        rng = self.rng
        rows: list[_Cells] = []
        for _ in range(rng.randint(14, 20)):
            person, programme = rng.choice(self.persons), skewed(rng, self.programmes, 0.12)
            if (person["id"], programme["id"]) not in self.denied:
                self.denied[person["id"], programme["id"]] = None
                rows.append({"person": person, "programme": programme, "day": self.day(-120, -1), "state": "denied"})
        return rows

    def current_ones(self) -> list[_Cells]:
        """Enrolments as they came about: enrolled while there were places, then waiting on days of their own."""
        rng, rules = self.rng, self.rules
        most = rules["enrolment_most"] or len(self.programmes)
        load: dict[int | str, int] = {}
        rows: dict[tuple[int | str, int | str], _Cells] = {}
        inside: dict[int | str, list[_Cells]] = {row["id"]: [] for row in self.programmes}
        waiting: dict[int | str, list[str]] = {row["id"]: [] for row in self.programmes}
        for _ in range(260):
            person, programme = skewed(rng, self.persons, 0.05), skewed(rng, self.programmes, 0.14)
            pair, key = (person["id"], programme["id"]), programme["id"]
            if pair in rows or pair in self.denied or load.get(person["id"], 0) >= most:
                continue
            if not self.eligible(person, programme) and rng.random() > 0.06:
                continue
            cells = {"person": person, "programme": programme, "day": self.day(-240, -30), "state": "enrolled"}
            if len(inside[key]) >= int(programme["places"]):
                cells |= {"day": self.day(-29, -1), "state": "waiting"}
                if not rules["enrolment_waitlist"] or cells["day"] in waiting[key] or len(waiting[key]) == 6:
                    continue
                waiting[key].append(cells["day"])
            else:
                inside[key].append(cells)
            load[person["id"]] = load.get(person["id"], 0) + 1
            rows[pair] = cells
        # Places that have fallen free while others wait: whoever is next has not been admitted yet.
        for key, days in waiting.items():
            if days and len(inside[key]) > 1 and rng.random() < 0.8:
                rng.choice(inside[key])["state"] = "ended"
        return list(rows.values())
