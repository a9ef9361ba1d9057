"""What the texts of a subscription world have in common: columns and rules of one world, and its calendar in three texts.

The three calendars share nothing: SQL lets SQLite find the last day of a month, the planner counts in months and their
sizes, the goals step from day to day and ask of each whether it is a billing day.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from envsynth.author.procedural.ir import Type
from envsynth.author.procedural.mechanism import Composed
from envsynth.author.procedural.mechanisms.entities import id_argument

DAY = Type("date")
CREDITS = Type("num", "credits")
CONTRACT = Type("row", "contract")


def contract_states(rules: Mapping[str, Any]) -> tuple[str, ...]:
    """States of a subscription under these rules."""
    trial, paused = ("trial",) if rules["sub_trials"] else (), ("paused",) if rules["sub_pauses"] else ()
    return (*trial, "active", *paused, "suspended", "ended")


def charge_kinds(rules: Mapping[str, Any]) -> tuple[str, ...]:
    """Kinds of a charge under these rules."""
    return ("monthly", "change", *(("refund",) if rules["sub_refund_rows"] else ()))


class Bindings:
    """The texts over one composed world: column names, nouns and rules are bound here."""

    def __init__(self, world: Composed) -> None:
        self.world = world
        self.holder, self.holder_key = world.fk("contract", "holder")
        self.tariff, self.tariff_key = world.fk("contract", "tariff")
        self.charged, self.charged_key = world.fk("charge", "contract")
        rules = world.rules
        self.pauses, self.trials = bool(rules["sub_pauses"]), bool(rules["sub_trials"])
        if self.pauses:
            self.frozen, self.frozen_key = world.fk("freeze", "contract")
        self.at_once = rules["sub_pause_from"] == "today"
        self.anchor = str(rules["sub_anchor"])
        self.rounding = str(rules["sub_round"])
        self.skip = 0 if rules["sub_day_counts"] else 1
        self.own_grace = rules["sub_grace_by"] == "tariff"
        self.grace = int(rules["sub_grace"])
        self.split, self.refund_rows = bool(rules["sub_split"]), bool(rules["sub_refund_rows"])
        self.quoted, self.dated = bool(rules["sub_quoted"]), bool(rules["sub_dated"])
        self.idle = ("trial", "ended") if self.trials else ("ended",)
        self.movable = ("trial", "active") if self.trials else ("active",)
        self.running = tuple(state for state in contract_states(rules) if state != "ended")
        self.served = ("active", "paused") if self.pauses else ("active",)
        self.today = world.now[:10]
        slug = world.slug
        self.upgrade_tool = f"upgrade_{slug('contract')}"
        self.pause_tool = f"pause_{slug('contract')}"
        self.refund_tool = f"refund_{slug('charge')}"
        self.collect_tool = f"collect_{slug('charge')}"
        self.terminate_tool = f"terminate_{slug('contract')}"
        self.suspend_tool = f"suspend_{slug('contract')}"

    def arg(self, entity: str) -> str:
        """Name of the tool argument that takes an id."""
        return id_argument(self.world, entity)

    # SQL --------------------------------------------------------------------------------------------------------

    def in_month_sql(self, contract: str, month: str) -> str:
        """SQL of the billing day in the month that begins on the day `month`."""
        anchor = f'CAST(substr({contract}."{self.anchor}", 9, 2) AS INTEGER)'
        return f"MIN(date({month}, '+1 month', '-1 day'), date({month}, '+' || ({anchor} - 1) || ' days'))"

    def bill_sql(self, contract: str, day: str, count: str = "1") -> str:
        """SQL of the `count`-th billing day after a day; "0": the last one that is not after it."""
        this_month = f"date({day}, 'start of month')"
        begun = f"({self.in_month_sql(contract, this_month)} <= {day})"
        month = f"date({day}, 'start of month', ({count} - 1 + {begun}) || ' months')"
        return self.in_month_sql(contract, month)

    def left_sql(self, contract: str, day: str) -> str:
        """SQL of the days of the billing month that are left on a day and not paused."""
        end, first = f"julianday({self.bill_sql(contract, day)})", f"(julianday({day}) + {self.skip})"
        paused = ""
        if self.pauses:
            paused = (
                f' - (SELECT COALESCE(SUM(MAX(0, MIN({end}, julianday(f."until") + 1)'
                f' - MAX({first}, julianday(f."start")))), 0) FROM "freeze" f'
                f' WHERE f."{self.frozen}" = {contract}."{self.frozen_key}")'
            )
        return f"CAST({end} - {first}{paused} AS INTEGER)"

    def length_sql(self, contract: str, day: str) -> str:
        """SQL of the real days of the billing month that holds a day."""
        end, start = self.bill_sql(contract, day), self.bill_sql(contract, day, "0")
        return f"CAST(julianday({end}) - julianday({start}) AS INTEGER)"

    def rounded_share_sql(self, amount: str, days: str, whole: str) -> str:
        """SQL of the share of an amount for some of the days of a month."""
        return {
            "down": f"({amount} * {days} / {whole})",
            "up": f"(({amount} * {days} + {whole} - 1) / {whole})",
            "half": f"((2 * {amount} * {days} + {whole}) / (2 * {whole}))",
        }[self.rounding]

    def grace_sql(self, contract: str) -> str:
        """SQL of the days of grace of a subscription."""
        if not self.own_grace:
            return str(self.grace)
        return f'(SELECT g."grace" FROM "tariff" g WHERE g."{self.tariff_key}" = {contract}."{self.tariff}")'

    def late_sql(self, contract: str, charge: str) -> str:
        """SQL condition that a charge of a subscription is open beyond its grace period."""
        return (
            f'({charge}."{self.charged}" = {contract}."{self.charged_key}" AND {charge}."charge_state" = \'open\''
            f" AND date({charge}.\"day\", '+' || {self.grace_sql(contract)} || ' days') < '{self.today}')"
        )

    def overdue_sql(self, contract: str) -> str:
        """SQL condition that a subscription is overdue."""
        return f'EXISTS (SELECT 1 FROM "charge" h WHERE {self.late_sql(contract, "h")})'

    # planner ----------------------------------------------------------------------------------------------------

    def plan_calendar(self) -> str:
        """Planner source of the calendar; who ignores the rules takes every billing month to have 30 days."""
        return (
            "def month_of(day):\n"
            "    return int(day[:4]) * 12 + int(day[5:7]) - 1\n"
            "def month_size(month):\n"
            "    year, number = month // 12, month % 12 + 1\n"
            "    if number == 2:\n"
            "        return 29 if year % 4 == 0 and (year % 100 != 0 or year % 400 == 0) else 28\n"
            "    return 30 if number in (4, 6, 9, 11) else 31\n"
            "def day_text(month, number):\n"
            "    return f'{month // 12:04d}-{month % 12 + 1:02d}-{number:02d}'\n"
            "def day_shifted(day, count):\n"
            "    month, number = month_of(day), int(day[8:]) + count\n"
            "    while number > month_size(month):\n"
            "        number, month = number - month_size(month), month + 1\n"
            "    while number < 1:\n"
            "        number, month = number + month_size(month - 1), month - 1\n"
            "    return day_text(month, number)\n"
            "def days_apart(first, last):\n"
            "    if first > last:\n"
            "        return -days_apart(last, first)\n"
            "    between = sum([month_size(month) for month in range(month_of(first), month_of(last))])\n"
            "    return between + int(last[8:]) - int(first[8:])\n"
            "def billing_after(contract, day, count):\n"
            f"    anchor, month = int(contract[{self.anchor!r}][8:]), month_of(day)\n"
            "    if min(anchor, month_size(month)) > int(day[8:]):\n"
            "        month = month - 1\n"
            "    if not POLICY and count:\n"
            "        return day_shifted(billing_after(contract, day, 0), 30 * count)\n"
            "    month = month + count\n"
            "    return day_text(month, min(anchor, month_size(month)))\n"
        )

    def plan_share(self) -> str:
        """Planner source of `days_to_pay`, the days left on a day, and `month_share`, the share of an amount for days."""
        product = "amount * days"
        rounded = {
            "down": f"{product} // whole",
            "up": f"-(-{product} // whole)",
            "half": f"(2 * {product} + whole) // (2 * whole)",
        }[self.rounding]
        paused = ""
        if self.pauses:
            paused = (
                "    if POLICY:\n"
                f"        for freeze in rows('freeze', {{{self.frozen!r}: contract[{self.frozen_key!r}]}}):\n"
                "            start, stop = max(first, freeze['start']), min(end, day_shifted(freeze['until'], 1))\n"
                "            days = days - max(0, days_apart(start, stop))\n"
            )
        return (
            self.plan_calendar() + "def days_to_pay(contract, day):\n"
            f"    first, end = day_shifted(day, {self.skip}), billing_after(contract, day, 1)\n"
            "    days = max(0, days_apart(first, end))\n"
            f"{paused}"
            "    return days\n"
            "def month_share(amount, days, contract, day):\n"
            "    whole = days_apart(billing_after(contract, day, 0), billing_after(contract, day, 1))\n"
            f"    return {rounded}\n"
        )

    def plan_tariff(self) -> str:
        """Planner source of `tariff_of` a subscription."""
        return f"def tariff_of(contract):\n    return named('tariff', {self.tariff_key!r}, contract[{self.tariff!r}])\n"

    def plan_late(self) -> str:
        """Planner source of `late_charges` of a subscription; who ignores the rules knows no grace period."""
        grace = "tariff_of(contract)['grace']" if self.own_grace else str(self.grace)
        return (
            self.plan_calendar() + (self.plan_tariff() if self.own_grace else "") + "def late_charges(contract):\n"
            f"    unpaid = rows('charge', {{{self.charged!r}: contract[{self.charged_key!r}], 'charge_state': 'open'}})\n"
            f"    grace = {grace} if POLICY else 0\n"
            f"    return [charge for charge in unpaid if day_shifted(charge['day'], grace) < {self.today!r}]\n"
        )

    # goals ------------------------------------------------------------------------------------------------------

    def goal_calendar(self) -> str:
        """Goal source of `bills_around`: the last billing day up to a day, and the next ones, as ordinals of days."""
        return (
            "def is_billing_day(day, anchor):\n"
            "    from datetime import timedelta\n"
            "    last = (day + timedelta(days=1)).day == 1\n"
            "    return day.day == anchor or last and anchor > day.day\n"
            "@once\n"
            "def bills_around(begun, text, count):\n"
            "    from datetime import date, timedelta\n"
            "    anchor, day, step = date.fromisoformat(begun).day, date.fromisoformat(text), timedelta(days=1)\n"
            "    while not is_billing_day(day, anchor):\n"
            "        day -= step\n"
            "    found = [day.toordinal()]\n"
            "    while len(found) <= count:\n"
            "        day += step\n"
            "        if is_billing_day(day, anchor):\n"
            "            found.append(day.toordinal())\n"
            "    return found\n"
            "def day_called(ordinal):\n"
            "    from datetime import date\n"
            "    return date.fromordinal(ordinal).isoformat()\n"
            "def ordinal_of(text):\n"
            "    from datetime import date\n"
            "    return date.fromisoformat(text).toordinal()\n"
        )

    def goal_share(self) -> str:
        """Goal source of `paid_days`, which counts day by day, and `share_of_month`."""
        above = {"down": "0", "up": "(rest > 0)", "half": "(rest * 2 >= month)"}[self.rounding]
        spans, kept = "", ""
        if self.pauses:
            spans = (
                "@once\n"
                "def paused_spans():\n"
                "    spans = {}\n"
                "    for f in db['freeze']:\n"
                f"        spans.setdefault(f[{self.frozen!r}], []).append((f['start'], f['until']))\n"
                "    return spans\n"
            )
            kept = (
                f"    spans = paused_spans().get(contract[{self.frozen_key!r}], ())\n"
                "    days = [day for day in days if not any(a <= day_called(day) <= b for a, b in spans)]\n"
            )
        return (
            f"{self.goal_calendar()}{spans}"
            "def paid_days(contract, text):\n"
            f"    start, end = bills_around(contract[{self.anchor!r}], text, 1)\n"
            f"    days = [day for day in range(start, end) if day {'>=' if self.skip == 0 else '>'} ordinal_of(text)]\n"
            f"{kept}"
            "    return len(days)\n"
            "def share_of_month(credits, days, contract, text):\n"
            f"    start, end = bills_around(contract[{self.anchor!r}], text, 1)\n"
            "    month = end - start\n"
            "    share, rest = divmod(credits * days, month)\n"
            f"    return share + {above}\n"
        )

    def goal_tariffs(self) -> str:
        """Goal source of `tariffs_by_key`."""
        return f"@once\ndef tariffs_by_key():\n    return {{g[{self.tariff_key!r}]: g for g in db['tariff']}}\n"

    def goal_late(self) -> str:
        """Goal source of `owed_too_long`: credits by subscription, of the overdue ones only."""
        grace = f"tariffs_by_key()[tariffs[h[{self.charged!r}]]]['grace']" if self.own_grace else str(self.grace)
        return (
            (self.goal_tariffs() if self.own_grace else "") + "@once\n"
            "def owed_too_long():\n"
            "    from datetime import date\n"
            f"    today, owed = date.fromisoformat({self.today!r}), {{}}\n"
            f"    tariffs = {{c[{self.charged_key!r}]: c[{self.tariff!r}] for c in db['contract']}}\n"
            "    for h in db['charge']:\n"
            f"        waited = (today - date.fromisoformat(h['day'])).days\n"
            f"        if h['charge_state'] == 'open' and waited > {grace}:\n"
            f"            owed[h[{self.charged!r}]] = owed.get(h[{self.charged!r}], 0) + h['amount']\n"
            "    return owed\n"
        )

    # sentences --------------------------------------------------------------------------------------------------

    @property
    def rounded_words(self) -> str:
        """How shares are rounded."""
        return {
            "down": "rounded down to whole credits",
            "up": "rounded up to whole credits",
            "half": "rounded to the nearest whole credit (a half is rounded up)",
        }[self.rounding]

    def calendar_policy(self) -> str:
        """What billing days and billing months are."""
        contract = self.world.word("contract")
        start = self.world.col("contract", self.anchor).label
        return (
            f"The anchor day of a {contract} is the day of the month of its {start}. Every calendar month has one billing "
            f"day of the {contract}: the anchor day, or the last day of a month that is too short for it. A billing month "
            "runs from a billing day to the day before the next one, so it has 28 to 31 days. This goes on in the same way "
            f"before the {contract} began and after its last day."
        )

    def left_policy(self) -> str:
        """Which days are left on a day."""
        contract = self.world.word("contract")
        which = "itself included" if self.skip == 0 else "itself not included"
        paused = ""
        if self.pauses:
            paused = f", without those within a {self.world.word('freeze')} of the {contract} (its first and its last day belong to it)"
        return (
            f"The days left on a day are the days from that day, {which}, to the end of the billing month that holds it"
            f"{paused}."
        )
