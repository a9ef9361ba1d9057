"""What the texts of an approval world have in common: column names and rules bound to one world, and SQL pieces."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, timedelta
from typing import Any

from envsynth.author.procedural.ir import Type
from envsynth.author.procedural.mechanism import Composed
from envsynth.author.procedural.mechanisms.entities import id_argument

LEVEL = Type("num", "points")
COUNT = Type("num")
STEP = 20
"""Points that each reached limit adds to the needed level."""
HEAVY_POINTS = 15
"""Points that a contract adds to it."""
KINDS = ("travel", "equipment", "contract")
HEAVY = "contract"


def stages(rules: Mapping[str, Any]) -> tuple[str, ...]:
    """Stages that a request can be in under these rules."""
    return (*(("draft",) if rules["drafts"] else ()), "submitted", "approved", "rejected")


def verdicts(rules: Mapping[str, Any]) -> tuple[str, ...]:
    """Verdicts that a decision can have under these rules."""
    return ("approve", "reject", *(("abstain",) if rules["abstentions"] else ()))


def days_before(today: str, days: int) -> str:
    """The day so many days earlier."""
    return (date.fromisoformat(today) - timedelta(days=days)).isoformat()


class Bindings:
    """The texts over one composed world: column names, nouns and rules are bound here."""

    def __init__(self, world: Composed) -> None:
        self.world, rules = world, world.rules
        self.holder, self.holder_key = world.fk("post", "holder")
        self.requester, self.requester_key = world.fk("request", "requester")
        self.request, self.request_key = world.fk("decision", "request")
        self.decider, self.decider_key = world.fk("decision", "decider")
        self.drafts, self.delegations = bool(rules["drafts"]), bool(rules["delegations"])
        self.giver = self.giver_key = self.taker = self.taker_key = ""
        if self.delegations:
            self.giver, self.giver_key = world.fk("delegation", "giver")
            self.taker, self.taker_key = world.fk("delegation", "taker")
        self.terms, self.many = bool(rules["terms"]), bool(rules["many_posts"])
        self.closing, self.strict = bool(rules["closing"]), bool(rules["strict_desk"])
        self.due, self.heavy = rules["lapse"] == "due", bool(rules["contract_level"])
        self.abstentions, self.inclusive = bool(rules["abstentions"]), bool(rules["from_limit"])
        self.petty = int(rules["petty"]) if self.drafts else 0
        self.loss, self.double_from = int(rules["lent_loss"]), int(rules["double_from"])
        self.limits = (int(rules["limit_low"]), int(rules["limit_mid"]), int(rules["limit_high"]))
        base = int(rules["base_level"])
        self.levels = (base, base + STEP, base + 2 * STEP, base + 3 * STEP)
        self.reach = ">=" if self.inclusive else ">"
        self.today = world.now[:10]
        self.lapse_days, self.stale_days = int(rules["lapse_days"]), int(rules["stale_days"])
        self.filed_from = days_before(self.today, self.lapse_days)
        self.counts_from = days_before(self.today, self.stale_days) if self.stale_days else ""
        slug = world.slug("request")
        self.decide_tool, self.close_tool, self.submit_tool = f"decide_{slug}", f"close_{slug}", f"submit_{slug}"
        self.delegate_tool = f"add_{world.slug('delegation')}" if self.delegations else ""
        self.request_argument = id_argument(world, "request")

    # SQL --------------------------------------------------------------------------------------------------------

    def open_sql(self, request: str) -> str:
        """Whether a request is open."""
        late = f"{request}.\"due\" >= '{self.today}'" if self.due else f"{request}.\"day\" >= '{self.filed_from}'"
        return f"({request}.\"stage\" = 'submitted' AND {late})"

    def needed_sql(self, request: str) -> str:
        """Level that a request needs."""
        tiers = " ".join(
            f'WHEN {request}."amount" {self.reach} {limit} THEN {level}'
            for level, limit in zip(self.levels[:0:-1], self.limits[::-1], strict=True)
        )
        extra = f" + {HEAVY_POINTS} * ({request}.\"kind\" = '{HEAVY}')" if self.heavy else ""
        return f"(CASE {tiers} ELSE {self.levels[0]} END{extra})"

    def approvals_sql(self, request: str, alias: str) -> str:
        """FROM clause of the approvals of a request that count."""
        fresh = f" AND {alias}.\"day\" >= '{self.counts_from}'" if self.stale_days else ""
        return (
            f'FROM "decision" {alias} WHERE {alias}."{self.request}" = {request}."{self.request_key}"'
            f" AND {alias}.\"verdict\" = 'approve'{fresh}"
        )

    def shortfall_sql(self, request: str) -> str:
        """Approvals that an open request still lacks."""
        signatures = f'CASE WHEN {request}."amount" >= {self.double_from} THEN 2 ELSE 1 END'
        signed = f'(SELECT COUNT(DISTINCT k."{self.decider}") {self.approvals_sql(request, "k")})'
        return f"(CASE WHEN {self.open_sql(request)} THEN MAX(0, {signatures} - {signed}) ELSE 0 END)"

    def own_sql(self, person: str) -> str:
        """Highest level of the posts of a person."""
        term = f" AND o.\"until\" >= '{self.today}'" if self.terms else ""
        return (
            f'(SELECT COALESCE(MAX(o."level"), 0) FROM "post" o'
            f' WHERE o."{self.holder}" = {person}."{self.holder_key}"{term})'
        )

    def level_sql(self, person: str, request: str = "") -> str:
        """Signing level of a person; for a request, without what its requester has lent."""
        if not self.delegations:
            return self.own_sql(person)
        barred = f' AND gv."{self.requester_key}" <> {request}."{self.requester}"' if request else ""
        return (
            f"MAX({self.own_sql(person)}, (SELECT COALESCE(MAX({self.own_sql('gv')} - {self.loss}), 0)"
            f' FROM "delegation" g JOIN "person" gv ON gv."{self.giver_key}" = g."{self.giver}"'
            f' WHERE g."{self.taker}" = {person}."{self.taker_key}" AND g."until" >= \'{self.today}\'{barred}))'
        )

    def may_sql(self, person: str, request: str) -> str:
        """Whether a person may decide a request."""
        return (
            f'({self.open_sql(request)} AND {person}."{self.requester_key}" <> {request}."{self.requester}"'
            f" AND {self.level_sql(person, request)} >= {self.needed_sql(request)}"
            f" AND NOT EXISTS (SELECT 1 {self.approvals_sql(request, 'a')}"
            f' AND a."{self.decider}" = {person}."{self.decider_key}"))'
        )
