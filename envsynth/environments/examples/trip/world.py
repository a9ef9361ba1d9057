"""Tables and rows of the trip-planning world."""

from __future__ import annotations

import json
from importlib import resources
from typing import Any

from envsynth.spec import Column, Table, World

_CITY = Column(name="city", type="TEXT", references="cities.name", description="where it is")


def _name(what: str) -> Column:
    return Column(name="name", type="TEXT", description=f"name of the {what}")


_RATING = Column(name="rating", type="REAL", description="stars from 1.0 to 5.0")

TABLES = (
    Table(
        name="cities",
        columns=(
            _name("city"),
            Column(name="province", type="TEXT"),
            Column(name="population", type="INTEGER", description="thousand people"),
            Column(name="known_for", type="TEXT"),
        ),
        primary_key=("name",),
    ),
    Table(
        name="hotels",
        columns=(
            _name("hotel"),
            _CITY,
            Column(name="price", type="INTEGER", description="CNY per night"),
            Column(name="stars", type="INTEGER", description="official class"),
            _RATING,
        ),
        primary_key=("name",),
        checks=("price > 0",),
    ),
    Table(
        name="restaurants",
        columns=(
            _name("restaurant"),
            _CITY,
            Column(name="cuisine", type="TEXT"),
            Column(name="price", type="INTEGER", description="CNY for one meal"),
            _RATING,
        ),
        primary_key=("name",),
        checks=("price > 0",),
    ),
    Table(
        name="attractions",
        columns=(
            _name("attraction"),
            _CITY,
            Column(name="ticket", type="INTEGER", description="CNY, 0 when free"),
            _RATING,
            Column(name="hours", type="TEXT"),
        ),
        primary_key=("name",),
        checks=("ticket >= 0",),
    ),
    Table(
        name="city_transport",
        columns=(
            _CITY,
            Column(name="mode", type="TEXT"),
            Column(name="price", type="INTEGER", description="CNY for a ride"),
            Column(name="service", type="TEXT"),
        ),
        primary_key=("city", "mode"),
    ),
    Table(
        name="inter_city_transport",
        columns=(
            Column(name="origin", type="TEXT", references="cities.name"),
            Column(name="destination", type="TEXT", references="cities.name"),
            Column(name="mode", type="TEXT"),
            Column(name="minutes", type="INTEGER"),
            Column(name="price", type="INTEGER", description="CNY"),
        ),
        primary_key=("origin", "destination", "mode"),
    ),
    Table(
        name="weather",
        columns=(
            _CITY,
            Column(name="date", type="TEXT"),
            Column(name="condition", type="TEXT"),
            Column(name="high", type="INTEGER", description="degrees Celsius"),
            Column(name="low", type="INTEGER", description="degrees Celsius"),
        ),
        primary_key=("city", "date"),
    ),
    Table(
        name="submissions",
        columns=(
            Column(name="id", type="INTEGER"),
            Column(name="answer_text", type="TEXT", description="the plan as JSON"),
        ),
        primary_key=("id",),
        description="plans that were handed in, in order",
    ),
)
"""All tables; hotels, restaurants and attractions have names that occur once in the world."""


def trip_world() -> World:
    """Return the world with its shipped rows."""
    package = resources.files("envsynth.environments.examples.trip")
    rows: dict[str, Any] = json.loads(package.joinpath("data.json").read_text(encoding="utf-8"))
    return World(tables=TABLES, rows={**rows, "submissions": ()}, now="2025-09-20")
