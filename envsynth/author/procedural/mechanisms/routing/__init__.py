"""Shipments through a network of freight lanes: which chain of lanes is in time, which is cheapest, booking it.

Dynamics: every lane leaves once a day at its cut-off hour, so that a shipment that comes too late waits for a day; room is
counted per lane and day; days may be barred, hazardous goods need lanes that accept them, handling takes time, and a
sender pays less where another shipment of the same sender goes along. The tool that books a lane knows continuity and
room; the first possible day, handling, the deadline and the price are rules that an actor has to follow by itself.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

from envsynth.author.procedural.mechanism import Action, Col, Composed, Derived, Norm, ToolDraft
from envsynth.author.procedural.mechanisms.entities import ID, NAME, PERSON_AT_SITE, SITE
from envsynth.author.procedural.mechanisms.routing.actions import ActionTexts
from envsynth.author.procedural.mechanisms.routing.derived import DerivedTexts
from envsynth.author.procedural.mechanisms.routing.network import HAULAGE, REASONS, Network
from envsynth.author.procedural.mechanisms.routing.norms import NormTexts
from envsynth.author.procedural.mechanisms.routing.tools import ToolTexts


class Routing:
    """Lanes between places, shipments of persons, and bookings of shipments on lanes."""

    name = "routing"
    ports: Mapping[str, str] = {"actor": "person", "location": "site"}

    def options(self, rng: random.Random) -> dict[str, Any]:
        """Draw the rules; all begin with `freight_`.

        `most`: most lanes of a chain. `handling`: hours between an arrival and the next departure. `hazmat`: whether
        goods may be hazardous and lanes may refuse them. `embargo`: what days are barred for ("none", "lane", "site").
        `step`: started kilograms that the basic cost is charged for, 0 for a flat cost. `bundle`: percent off where
        another shipment of the sender goes along. `rolls`: whether a shipment waits for the next day that has room.
        `trace`: whether bookings that were called back stay as rows. `notice`: days ahead that a call-back needs.
        `holds`: whether shipments can be held. `named`: whether shipments have names. `strict`: whether the tool
        refuses barred days and goods that a lane does not accept.
        """
        return {
            "freight_most": rng.choice([2, 3, 3]),
            "freight_handling": rng.choice([0, 2, 4]),
            "freight_hazmat": rng.random() < 0.5,
            "freight_embargo": rng.choice(["none", "lane", "site"]),
            "freight_step": rng.choice([0, 10, 25]),
            "freight_bundle": rng.choice([0, 20, 35]),
            "freight_rolls": rng.random() < 0.5,
            "freight_trace": rng.random() < 0.5,
            "freight_notice": rng.choice([0, 0, 1]),
            "freight_holds": rng.random() < 0.5,
            "freight_named": rng.random() < 0.5,
            "freight_strict": rng.random() < 0.5,
        }

    def tables(self, rules: Mapping[str, Any]) -> dict[str, tuple[Col, ...]]:
        """Places, persons, lanes, shipments, bookings and, by rule, barred days."""
        hazmat = rules["freight_hazmat"]
        accepts = Col(name="accepts", kind="enum", label="accepted goods", values=("all", "plain"))
        goods = Col(name="goods", kind="enum", label="goods class", values=("plain", "hazardous"))
        status = Col(name="status", kind="enum", label="status", values=("live", "recalled"))
        states = (*(("held",) if rules["freight_holds"] else ()), "waiting", "underway", "booked")
        tables: dict[str, tuple[Col, ...]] = {
            "site": SITE,
            "person": PERSON_AT_SITE,
            "lane": (
                ID,
                NAME,
                Col(name="origin", kind="fk", label="start", ref="site"),
                Col(name="destination", kind="fk", label="end", ref="site"),
                Col(name="cutoff", kind="num", label="cut-off hour", unit="oclock"),
                Col(name="transit", kind="num", label="transit time", unit="h"),
                Col(name="cost", kind="num", label="basic cost", unit="credits"),
                Col(name="capacity", kind="num", label="capacity", unit="kg"),
                *((accepts,) if hazmat else ()),
                Col(name="haulage", kind="enum", label="haulage", values=HAULAGE, optional=True, liftable=True),
            ),
            "shipment": (
                ID,
                *((NAME,) if rules["freight_named"] else ()),
                Col(name="sender", kind="fk", label="sender", ref="person"),
                Col(name="origin", kind="fk", label="origin", ref="site"),
                Col(name="destination", kind="fk", label="destination", ref="site"),
                Col(name="weight", kind="num", label="weight", unit="kg"),
                *((goods,) if hazmat else ()),
                Col(name="ready", kind="num", label="ready time", unit="h"),
                Col(name="deadline", kind="num", label="deadline", unit="h"),
                Col(name="state", kind="enum", label="state", values=states),
            ),
            "consignment": (
                ID,
                Col(name="shipment", kind="fk", label="{shipment}", ref="shipment"),
                Col(name="lane", kind="fk", label="{lane}", ref="lane"),
                Col(name="day", kind="date", label="day"),
                Col(name="position", kind="num", label="position", unit=""),
                *((status,) if rules["freight_trace"] else ()),
            ),
        }
        if rules["freight_embargo"] != "none":
            kind = rules["freight_embargo"]
            tables["embargo"] = (
                ID,
                Col(name=kind, kind="fk", label=f"barred {{{kind}}}", ref=kind),
                Col(name="day", kind="date", label="day"),
                Col(name="reason", kind="enum", label="reason", values=REASONS, optional=True),
            )
        return tables

    def generate(self, world: Composed, rng: random.Random) -> None:
        """Fill lanes on a map of places, shipments, and bookings that keep every rule."""
        Network(world, rng).fill()

    def derived(self, world: Composed) -> list[Derived]:
        """Free capacity of a lane; earliest arrival, freight cost and timeliness of a shipment."""
        texts = DerivedTexts(world)
        return [texts.lane_room(), texts.arrival(), texts.cost(), texts.timely()]

    def actions(self, world: Composed) -> list[Action]:
        """Dispatch, call back, defer; by rule, release."""
        texts = ActionTexts(world)
        found = [texts.dispatch(), texts.call_back(), texts.defer()]
        return [*found, texts.release()] if texts.holds else found

    def norms(self, world: Composed) -> list[Norm]:
        """Whatever is booked has bookings, and none is for a barred day."""
        return [NormTexts(world).norm()]

    def tools(self, world: Composed) -> list[ToolDraft]:
        """Write tools of the actions."""
        texts = ToolTexts(world)
        found = [texts.book_draft(), texts.call_back_draft(), texts.defer_draft()]
        return [*found, texts.release_draft()] if texts.holds else found

    def policy(self, world: Composed) -> list[str]:
        """How hours are counted, when lanes leave, what a chain is and what it costs."""
        texts = DerivedTexts(world)
        return [texts.clock_policy(), texts.day_policy(), texts.chain_policy(), texts.charge_policy()]


MECHANISM = Routing()
