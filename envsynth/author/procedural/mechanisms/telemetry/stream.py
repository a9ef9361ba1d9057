"""Rows of a telemetry world: sensors, maintenance, bursts of measurements around the limits, alarms at some of them."""

from __future__ import annotations

import random
from collections import Counter
from datetime import date, timedelta
from typing import Any

from envsynth.author.procedural.mechanism import Composed, Row
from envsynth.author.procedural.mechanisms.entities import skewed
from envsynth.author.procedural.mechanisms.telemetry.bindings import MEDIA, states


class Stream:
    """Fills the tables of one world; maintenance keeps the cap of its site, alarms stand at measurements."""

    def __init__(self, world: Composed, rng: random.Random) -> None:
        self.world, self.rng, self.rules = world, rng, world.rules
        today = date.fromisoformat(world.now[:10])
        self.days = [(today + timedelta(days=ahead)).isoformat() for ahead in (-2, -1, 0)]
        self.coming = [(today + timedelta(days=ahead)).isoformat() for ahead in range(1, 9)]
        self.hot: list[tuple[Row, str]] = []
        self.seen: list[tuple[Row, str, int, int]] = []

    def fill(self) -> None:
        """Append all rows."""
        self.fill_sensors()
        sensors = self.world.rows["sensor"]
        places = list(range(len(sensors)))
        pairs = dict.fromkeys((skewed(self.rng, places, 0.14), self.rng.choice(self.days)) for _ in range(40))
        self.hot = [(sensors[index], day) for index, day in pairs][: self.rng.randint(17, 20)]
        if self.rules["alarm_maintenance"] != "none":
            self.fill_maintenance()
        self.fill_readings()
        self.fill_alarms()

    def fill_sensors(self) -> None:
        """Append sensors with limits and offsets."""
        rng, world = self.rng, self.world

        def sensor(_: int) -> dict[str, Any]:
            high = rng.randint(50, 80)
            return {
                "site": skewed(rng, world.rows["site"], 0.4),
                "keeper": skewed(rng, world.rows["person"], 0.12),
                "medium": rng.choice(MEDIA),
                "high": high,
                "low": high - rng.randint(18, 30),
                "offset": rng.choice([-5, -4, -3, -2, -1, 1, 2, 2, 3, 3, 4, 5]),
                "since": rng.choice(self.days),
            }

        world.fill(rng, "sensor", rng.randint(20, 24), sensor)

    def fill_maintenance(self) -> None:
        """Append maintenance: some of the days with many measurements, and days to come."""
        rng, cap = self.rng, self.rules["alarm_site_cap"]
        column = self.world.col("sensor", "site").column
        ahead = [(sensor, day) for sensor in self.world.rows["sensor"] for day in self.coming]
        wanted = [*rng.sample(self.hot, len(self.hot) // 2), *rng.sample(ahead, len(ahead))]
        load: Counter[tuple[int | str, str]] = Counter()
        chosen: list[tuple[Row, str]] = []
        for sensor, day in wanted:
            if len(chosen) < 22 and (not cap or load[sensor[column], day] < cap):
                load[sensor[column], day] += 1
                chosen.append((sensor, day))

        def maintenance(index: int) -> dict[str, Any]:
            sensor, day = chosen[index]
            start = rng.randint(5, 13)
            return {"sensor": sensor, "day": day, "start": start, "end": start + rng.randint(2, 7)}

        self.world.fill(rng, "maintenance", len(chosen), maintenance)

    def fill_readings(self) -> None:
        """Append measurements: many on hot days, at least one of every sensor."""
        rng = self.rng
        times = [(sensor, day, hour) for sensor, day in self.hot for hour in self.hours()]
        busy = [sensor["id"] for sensor, _ in self.hot]
        idle = [sensor for sensor in self.world.rows["sensor"] if sensor["id"] not in busy]
        times += [(sensor, rng.choice(self.days), rng.randint(0, 23)) for sensor in idle]
        times.sort(key=lambda time: (time[1], time[2]))

        def reading(index: int) -> dict[str, Any]:
            sensor, day, hour = times[index]
            level = self.level(sensor)
            holds = not self.rules["alarm_since"] or day >= str(sensor["since"])
            self.seen.append((sensor, day, hour, level))
            value = level - (int(sensor["offset"]) if holds else 0)
            quality = "suspect" if rng.random() < 0.15 else "good"
            return {"sensor": sensor, "day": day, "hour": hour, "value": value, "quality": quality}

        self.world.fill(rng, "reading", len(times), reading)

    def hours(self) -> list[int]:
        """Draw the hours of a burst of measurements: some beside one another, some apart."""
        hour, found = self.rng.randint(0, 9), list[int]()
        for _ in range(self.rng.randint(4, 8)):
            if hour <= 23:
                found.append(hour)
            hour += self.rng.choice([1, 1, 2, 3, 4, 5])
        return found

    def level(self, sensor: Row) -> int:
        """Draw a calibrated value: out of range, just within (the limit itself included), or well within."""
        rng, high = self.rng, int(sensor["high"])
        chance = rng.random()
        if "low" in sensor and chance < 0.12:
            return int(sensor["low"]) - rng.choice([-1, 0, 1, 1, 2, 4])
        if chance < 0.5:
            return high + rng.choice([1, 1, 2, 3, 5, 8])
        return high - (rng.choice([0, 0, 1, 2, 3]) if chance < 0.72 else rng.randint(4, 12))

    def fill_alarms(self) -> None:
        """Append alarms at measurements, mostly at those out of range."""
        rng, world = self.rng, self.world
        kinds = states(self.rules)
        weights = [7, *([3] if self.rules["alarm_escalation"] else []), 3, 2]
        excess = [level - int(sensor["high"]) for sensor, _, _, level in self.seen]
        chosen = [index for index, over in enumerate(excess) if rng.random() < (0.8 if over > 0 else 0.12)]

        def alarm(index: int) -> dict[str, Any]:
            sensor, day, hour, _ = self.seen[chosen[index]]
            return {
                "sensor": sensor,
                "assignee": skewed(rng, world.rows["person"], 0.12),
                "day": day,
                "hour": hour,
                "level": min(3, 1 + max(0, excess[chosen[index]]) // 3),
                "state": rng.choices(kinds, weights)[0],
            }

        world.fill(rng, "alarm", len(chosen), alarm)
