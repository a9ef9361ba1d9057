"""Rows of a package world: releases by age, requirements between layers, and pins that mostly fit together."""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

from envsynth.author.procedural.mechanism import Composed, Row
from envsynth.author.procedural.mechanisms.config.bindings import CHANNELS, place_entity

LAYERS = 4
"""Packages require only those of lower layers: no chain of requirements is longer than 3, and none is a circle."""


@dataclass
class Issue:
    """A release under way."""

    package: int
    """Number of its package."""
    number: int
    """Version."""
    state: str
    """Lifecycle state."""
    day: date
    """Release day."""
    needs: list[tuple[int, int, int, str]]
    """Needed package, minimum and maximum version, strength."""


class Catalogue:
    """Makes the rows of one world."""

    def __init__(self, world: Composed, rng: random.Random) -> None:
        self.world, self.rng, self.rules = world, rng, world.rules
        self.today = date.fromisoformat(world.now[:10])
        self.count = rng.randint(15, 19)
        self.channels = [rng.choice(CHANNELS) for _ in range(self.count)]
        self.issues: list[list[Issue]] = []

    def fill(self) -> None:
        """Fill packages, releases, requirements, deployments and pins."""
        world, rng = self.world, self.rng
        for package in range(self.count):
            self.issues.append(self.releases_of(package))
        for package in range(self.count):
            self.add_needs(package)
        owners = world.rows["person"]

        def package_cells(index: int) -> dict[str, Any]:
            return {
                "owner": owners[min(int(rng.expovariate(0.15)), len(owners) - 1)],
                "channel": self.channels[index],
                "users": max(2, int(rng.lognormvariate(4, 0.9))),
            }

        world.fill(rng, "package", self.count, package_cells)
        self.fill_releases()
        if self.rules["fleet"]:

            def deployment_cells(_: int) -> dict[str, Any]:
                return {"site": rng.choice(world.rows["site"]), "machines": rng.randint(1, 40)}

            world.fill(rng, "deployment", rng.randint(10, 13), deployment_cells)
        self.fill_pins()

    def releases_of(self, package: int) -> list[Issue]:
        """Releases by rising version and day; the newest are often not yet published, some old ones withdrawn."""
        rng = self.rng
        count = rng.choice([3, 4, 4, 5, 5, 6, 7])
        number = rng.randint(1, 3)
        day = self.today - timedelta(days=rng.choice([0, 1, 3, 6, 7, 8, 13, 14, 15, 21, 40]))
        days = [day]
        for _ in range(count - 1):
            day -= timedelta(days=rng.choice([5, 7, 8, 14, 15, 30, 45, 60]))
            days.append(day)
        issues: list[Issue] = []
        for day in reversed(days):
            state = "withdrawn" if issues and rng.random() < 0.12 else "published"
            issues.append(Issue(package, number, state, day, []))
            number += rng.choice([1, 1, 1, 2])
        for issue in issues[-rng.choice([1, 1, 2]) :]:
            issue.state = "draft" if rng.random() < 0.7 else issue.state
        if self.rules["candidates"] and rng.random() < 0.6:
            [issue for issue in issues if issue.state != "draft"][-1].state = "candidate"
        return issues

    def add_needs(self, package: int) -> None:
        """Requirements of all releases of a package: later ones need later versions of what they build upon."""
        rng, layer = self.rng, package * LAYERS // self.count
        lower = [other for other in range(self.count) if other * LAYERS // self.count < layer]
        if not lower:
            return
        wanted = dict.fromkeys(min(int(rng.expovariate(0.3)), len(lower) - 1) for _ in range(rng.choice([1, 2, 2])))
        for target in (lower[index] for index in wanted):
            numbers = [issue.number for issue in self.issues[target]]
            last = len(numbers) - 1
            for place, issue in enumerate(self.issues[package]):
                if rng.random() < 0.15:
                    continue
                share = place / max(1, len(self.issues[package]) - 1)
                low = min(last, max(0, round(share * last) + rng.choice([-2, -1, -1, 0])))
                high = min(last, low + rng.choice([0, 1, 1, 2, 3]))
                strength = "required" if rng.random() < 0.75 else "recommended"
                issue.needs.append((target, numbers[low], numbers[high], strength))

    def fill_releases(self) -> None:
        """Fill releases in random order, and their requirements."""
        world, rng, rows = self.world, self.rng, self.world.rows["package"]
        issues = [issue for found in self.issues for issue in found]
        rng.shuffle(issues)

        def release_cells(index: int) -> dict[str, Any]:
            issue = issues[index]
            return {
                "package": rows[issue.package],
                "number": issue.number,
                "day": issue.day.isoformat(),
                "state": issue.state,
                "size": max(1, int(rng.lognormvariate(4, 0.8))),
            }

        world.fill(rng, "release", len(issues), release_cells)
        needs = [(row, need) for row, issue in zip(world.rows["release"], issues, strict=True) for need in issue.needs]

        def requirement_cells(index: int) -> dict[str, Any]:
            row, (target, low, high, strength) = needs[index]
            return {
                "release": row,
                "needed": rows[target],
                "minimum": low,
                "maximum": high,
                "strength": strength,
            }

        world.fill(rng, "requirement", len(needs), requirement_cells)

    def fill_pins(self) -> None:
        """Fill pins place by place, former ones among current ones."""
        rng, place, rows = self.rng, place_entity(self.rules), self.world.rows
        planned: list[dict[str, Any]] = []
        for target in rows[place]:
            for package, number in self.setup().items():
                planned += self.pins_of(place, target, package, number)
        rng.shuffle(planned)
        self.world.fill(rng, "pin", len(planned), planned.__getitem__)

    def setup(self) -> dict[int, int]:
        """Versions by package for one place: some packages with most of what they need, mostly in versions that fit."""
        rng = self.rng
        upper = range(self.count // LAYERS, self.count)
        chosen = set(rng.sample(upper, rng.choice([3, 3, 4] if self.rules["fleet"] else [5, 6, 7])))
        for package in range(self.count - 1, -1, -1):
            if package in chosen:
                needed = sorted({need[0] for issue in self.issues[package] for need in issue.needs})
                chosen.update(target for target in needed if rng.random() < 0.88)
        versions: dict[int, int] = {}
        for package in sorted(chosen):
            usable = [issue for issue in self.issues[package] if self.usable(issue)]
            fitting = [issue for issue in usable if self.fits(issue, versions)]
            if usable:
                pool = fitting if fitting and rng.random() < 0.85 else usable
                versions[package] = rng.choice(pool[-3:]).number
        return versions

    def usable(self, issue: Issue) -> bool:
        """Whether a release may ever have been pinned."""
        preview = self.channels[issue.package] == "preview"
        return issue.state in ("published", "withdrawn") or (issue.state == "candidate" and preview)

    def fits(self, issue: Issue, versions: dict[int, int]) -> bool:
        """Whether chosen versions meet the requirements of a release, and what it was built upon exists."""
        return all(low <= versions.get(target, 0) <= high for target, low, high, _ in issue.needs)

    def pins_of(self, place: str, target: Row, package: int, number: int) -> list[dict[str, Any]]:
        """The pin of a package in a place and, by rule, the one before it."""
        rng = self.rng
        day = next(issue.day for issue in self.issues[package] if issue.number == number)
        cells: dict[str, Any] = {place: target, "package": self.world.rows["package"][package]}
        pinned = day + timedelta(days=rng.randint(0, max(0, min(30, (self.today - day).days))))
        found = [{**cells, "version": number, "day": pinned.isoformat(), "standing": "current"}]
        earlier = [issue for issue in self.issues[package] if issue.number < number and self.usable(issue)]
        if self.rules["pin_history"] and earlier and rng.random() < 0.4:
            before = earlier[-1]
            found.append({**cells, "version": before.number, "day": before.day.isoformat(), "standing": "former"})
        return found
