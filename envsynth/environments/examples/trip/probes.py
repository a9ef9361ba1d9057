"""Outcomes of the trip-planning task with the verdicts they must get, written down from the data by hand.

They share no code with the solution or the verifier. The data put a price on each side of every limit: hotels at 150,
199, 200, 499, 500, 799 and 800, meals that add up to 349 and 350, tickets at 119, 120, 179 and 180, ratings at 3.1, 3.2,
3.9 and 4.0.
"""

from __future__ import annotations

import json

from envsynth.spec import Outcome, ProbeCase, RowChange

Day = tuple[str, str, str, str, str]
"""City, hotel, restaurant in the afternoon, attraction, restaurant in the evening."""

HANGZHOU: Day = ("Hangzhou", "Maple Bridge Inn", "Heron Table", "Crane Tower", "Lantern Grill")
WUXI: Day = (
    "Wuxi",
    "Willow Bridge Inn",
    "Jade Dumpling Bar",
    "Amber Lake Park",
    "Silver Noodle House",
)
SUZHOU: Day = ("Suzhou", "Ink Garden Hotel", "Willow Wok", "Maple Gallery", "Bamboo Grill")

MID_500: Day = ("Huangshan", "Bamboo Garden Hotel", "Orchid Table", "Heron Tower", "Pearl Kitchen")
MID_799: Day = ("Huangshan", "Lantern Court Inn", "Pearl Kitchen", "Heron Tower", "Silver Teahouse")
LOW_499: Day = (
    "Huangshan",
    "Heron Bridge Inn",
    "Orchid Canteen",
    "Orchid Gallery",
    "Pearl Kitchen",
)
LOW_200: Day = (
    "Huangshan",
    "Amber Gate Hotel",
    "Pearl Kitchen",
    "Maple Museum",
    "Orchid Dumpling Bar",
)
HIGH_349: Day = ("Jiaxing", "Silver Bridge Inn", "Osmanthus Grill", "Jade Temple", "Maple Wok")
HIGH_1200: Day = ("Jiaxing", "Maple Pavilion Hotel", "Heron Wok", "Plum Garden", "Maple Wok")

_DATES = ("2025-10-01", "2025-10-02", "2025-10-03")


def outcome_of(*days: Day, dates: tuple[str, ...] = _DATES, submit: bool = True) -> Outcome:
    """Return the outcome of a plan that was handed in once."""
    plan = [
        {
            "time": date,
            "city": city,
            "hotel": hotel,
            "afternoon_restaurant": lunch,
            "afternoon_attraction": sight,
            "evening_restaurant": dinner,
        }
        for date, (city, hotel, lunch, sight, dinner) in zip(dates, days, strict=True)
    ]
    text = json.dumps({"plan": plan})
    handed = RowChange(op="insert", table="submissions", row={"id": 1, "answer_text": text})
    return Outcome.parse({"answer": {"plan": plan}, "changes": [handed.model_dump()] if submit else []})


ORACLE = outcome_of(HANGZHOU, MID_500, WUXI)
"""A valid plan; the tests find the same one by an exhaustive SQL search."""


def _second(day: Day) -> Outcome:
    return outcome_of(HANGZHOU, day, WUXI)


def _swap(day: Day, position: int, name: str) -> Day:
    cells = list(day)
    cells[position] = name
    city, hotel, lunch, sight, dinner = cells
    return (city, hotel, lunch, sight, dinner)


CITY, HOTEL, LUNCH, SIGHT, DINNER = range(5)

_ACCEPTED: tuple[tuple[str, Outcome], ...] = (
    ("alternative/tier500/at-500-ticket-179", _second(MID_500)),
    ("alternative/tier500/at-799", _second(MID_799)),
    (
        "alternative/tier500/meals-swapped",
        _second(_swap(_swap(MID_500, LUNCH, "Pearl Kitchen"), DINNER, "Orchid Table")),
    ),
    ("alternative/tier200/at-499-rating-3.2", _second(LOW_499)),
    ("alternative/tier200/at-200", _second(LOW_200)),
    ("alternative/tier800/at-800-meals-349-ticket-119", _second(HIGH_349)),
    ("alternative/tier800/at-1200", _second(HIGH_1200)),
    ("alternative/cities", outcome_of(HANGZHOU, SUZHOU, HIGH_349)),
)

_REFUSED: tuple[tuple[str, Outcome], ...] = (
    ("constraint/tier.known/at-199", _second(_swap(MID_500, HOTEL, "Pearl Court Inn"))),
    ("constraint/tier.known/at-150", _second(_swap(MID_500, HOTEL, "Cedar Garden Hotel"))),
    ("constraint/tier500.ticket/at-180", _second(_swap(MID_500, SIGHT, "Maple Museum"))),
    ("constraint/tier500.ratings/at-3.9", _second(_swap(MID_500, LUNCH, "Orchid Dumpling Bar"))),
    (
        "constraint/tier500.ratings/at-500-as-tier200",
        _second(_swap(LOW_499, HOTEL, "Bamboo Garden Hotel")),
    ),
    ("constraint/tier200.ratings/at-3.1", _second(_swap(LOW_499, LUNCH, "Cedar Table"))),
    (
        "constraint/tier800.meals/at-800-meals-350",
        _second(("Huangshan", "Osmanthus Court Inn", "Orchid Table", "Heron Garden", "Silver Teahouse")),
    ),
    (
        "constraint/tier800.meals/at-1200-meals-350",
        _second(_swap(HIGH_1200, DINNER, "Osmanthus Grill")),
    ),
    ("constraint/tier800.ratings/one-at-3.9", _second(_swap(HIGH_349, LUNCH, "Lantern Teahouse"))),
    ("constraint/tier800.ticket/at-120", _second(_swap(HIGH_349, SIGHT, "Amber Museum"))),
    ("constraint/tier800/at-800-as-tier500", _second(_swap(MID_500, HOTEL, "Osmanthus Court Inn"))),
    ("constraint/plan.start", outcome_of(WUXI, MID_500, HANGZHOU)),
    (
        "constraint/plan.dates/order",
        outcome_of(HANGZHOU, MID_500, WUXI, dates=(_DATES[0], _DATES[2], _DATES[1])),
    ),
    (
        "constraint/plan.dates/format",
        outcome_of(HANGZHOU, MID_500, WUXI, dates=("1 October", *_DATES[1:])),
    ),
    ("constraint/plan.cities", outcome_of(HANGZHOU, MID_500, _swap(WUXI, CITY, "Atlantis"))),
    (
        "constraint/distinct.cities",
        outcome_of(
            HANGZHOU,
            MID_500,
            ("Hangzhou", "Amber Terrace Hotel", "Amber Wok", "Jade Museum", "Maple Grill"),
        ),
    ),
    (
        "constraint/distinct.restaurants/same-day",
        outcome_of(HANGZHOU, MID_500, _swap(WUXI, DINNER, "Jade Dumpling Bar")),
    ),
    (
        "constraint/distinct.restaurants/other-day",
        outcome_of(HANGZHOU, MID_500, _swap(WUXI, DINNER, "Heron Table")),
    ),
    (
        "constraint/distinct.hotels",
        outcome_of(HANGZHOU, MID_500, _swap(WUXI, HOTEL, "Maple Bridge Inn")),
    ),
    (
        "constraint/distinct.attractions",
        outcome_of(HANGZHOU, MID_500, _swap(WUXI, SIGHT, "Crane Tower")),
    ),
    (
        "constraint/located.hotels",
        outcome_of(HANGZHOU, MID_500, _swap(WUXI, HOTEL, "Ink Garden Hotel")),
    ),
    ("constraint/located.lunch", outcome_of(HANGZHOU, MID_500, _swap(WUXI, LUNCH, "Willow Wok"))),
    ("constraint/located.dinner", outcome_of(HANGZHOU, MID_500, _swap(WUXI, DINNER, "Willow Wok"))),
    (
        "constraint/located.attractions",
        outcome_of(HANGZHOU, MID_500, _swap(WUXI, SIGHT, "Maple Gallery")),
    ),
    ("constraint/located/unknown-hotel", _second(_swap(MID_500, HOTEL, "Grand Nowhere"))),
    ("constraint/located/unknown-restaurant", _second(_swap(HIGH_349, LUNCH, "Nowhere Grill"))),
    ("constraint/located/unknown-attraction", _second(_swap(HIGH_349, SIGHT, "Nowhere Tower"))),
    ("state/omit/submitted", outcome_of(HANGZHOU, MID_500, WUXI, submit=False)),
    (
        "state/target/other-plan-handed-in",
        Outcome(answer=_second(MID_799).answer, changes=_second(MID_500).changes),
    ),
    (
        "state/frame/price-changed",
        Outcome(
            answer=ORACLE.answer,
            changes=(
                *ORACLE.changes,
                RowChange(op="update", table="hotels", row={"name": "Bamboo Garden Hotel", "price": 300}),
            ),
        ),
    ),
)


def trip_probes() -> tuple[ProbeCase, ...]:
    """Return all probes: alternatives to accept and mutants to refuse."""
    accepted = [ProbeCase(name=name, accept=True, outcome=found) for name, found in _ACCEPTED]
    refused = [ProbeCase(name=name, accept=False, outcome=found) for name, found in _REFUSED]
    return (*accepted, *refused)
