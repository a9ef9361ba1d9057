"""The 15 tools of the trip-planning environment, as records with source text."""

from __future__ import annotations

from pydantic import JsonValue

from envsynth.spec import Tool

_TEXT: dict[str, JsonValue] = {"type": "string", "minLength": 1}

_PLACES = {
    "attraction": ("attractions", ("city", "ticket", "rating", "hours")),
    "hotel": ("hotels", ("city", "price", "stars", "rating")),
    "restaurant": ("restaurants", ("city", "cuisine", "price", "rating")),
}
_CITY_FACTS = ("province", "population", "known_for")

_LIST = """
def {name}(db, city):
    if not list(db.execute("SELECT 1 FROM cities WHERE name = ?", (city,))):
        raise Refusal("not_found", "there is no such city")
    rows = db.execute("SELECT name FROM {table} WHERE city = ? ORDER BY rowid", (city,))
    return [row["name"] for row in rows]
"""

_CITY_OF = """
def {name}(db, {kind}):
    rows = list(db.execute("SELECT city FROM {table} WHERE name = ?", ({kind},)))
    if not rows:
        raise Refusal("not_found", "there is no such {kind}")
    return rows[0]["city"]
"""

_INFOS = """
def {name}(db, info_keywords, {kind}):
    rows = list(db.execute("SELECT * FROM {table} WHERE name = ?", ({kind},)))
    if not rows:
        raise Refusal("not_found", "there is no such {kind}")
    return {{"name": {kind}, **{{word: rows[0][word] for word in info_keywords}}}}
"""

_CITIES = """
def get_all_cities(db):
    return [row["name"] for row in db.execute("SELECT name FROM cities ORDER BY rowid")]
"""

_CITY_TRANSPORT = """
def get_city_transport(db, city):
    if not list(db.execute("SELECT 1 FROM cities WHERE name = ?", (city,))):
        raise Refusal("not_found", "there is no such city")
    query = "SELECT mode, price, service FROM city_transport WHERE city = ? ORDER BY rowid"
    return list(db.execute(query, (city,)))
"""

_INTER_CITY = """
def get_inter_city_transport(db, origin, destination):
    for city in (origin, destination):
        if not list(db.execute("SELECT 1 FROM cities WHERE name = ?", (city,))):
            raise Refusal("not_found", "there is no such city")
    query = (
        "SELECT mode, minutes, price FROM inter_city_transport "
        "WHERE origin = ? AND destination = ? ORDER BY rowid"
    )
    return list(db.execute(query, (origin, destination)))
"""

_WEATHER = """
def get_weather_by_city_date(db, city, date):
    query = "SELECT condition, high, low FROM weather WHERE city = ? AND date = ?"
    rows = list(db.execute(query, (city, date)))
    if not rows:
        raise Refusal("not_found", "there is no forecast for that city and date")
    return rows[0]
"""

_SUBMIT = """
import json

FIELDS = (
    "time", "city", "hotel", "afternoon_restaurant", "afternoon_attraction", "evening_restaurant"
)


def submit_result(db, answer_text):
    try:
        answer = json.loads(answer_text)
    except ValueError:
        raise Refusal("invalid", "answer_text is not JSON") from None
    plan = answer.get("plan") if isinstance(answer, dict) else None
    if not isinstance(plan, list) or len(plan) != 3 or list(answer) != ["plan"]:
        raise Refusal("invalid", "the result is an object with the one key plan: a list of three days")
    for number, day in enumerate(plan, 1):
        if not isinstance(day, dict) or sorted(day) != sorted(FIELDS):
            raise Refusal("invalid", f"day {number} needs exactly the fields {', '.join(FIELDS)}")
        if not all(isinstance(value, str) and value for value in day.values()):
            raise Refusal("invalid", f"every field of day {number} is a text")
    number = len(list(db.execute("SELECT id FROM submissions"))) + 1
    db.execute("INSERT INTO submissions VALUES (?, ?)", (number, answer_text))
    return {"submission": number, "form": "accepted"}
"""


def _schema(**properties: dict[str, JsonValue]) -> dict[str, JsonValue]:
    return {
        "type": "object",
        "properties": dict(properties),
        "required": list(properties),
        "additionalProperties": False,
    }


def _keywords(words: tuple[str, ...]) -> dict[str, JsonValue]:
    allowed: list[JsonValue] = list(words)
    return {"type": "array", "items": {"enum": allowed}, "minItems": 1, "uniqueItems": True}


def _read(name: str, description: str, returns: str, source: str, **properties: dict[str, JsonValue]) -> Tool:
    return Tool(
        name=name,
        effect="read",
        description=description,
        parameters=_schema(**properties),
        returns=returns,
        errors=("not_found",) if properties else (),
        source=source.lstrip(),
    )


def _lists() -> list[Tool]:
    return [
        _read(
            f"get_all_{table}_by_city",
            f"List all {table} of a city.",
            "list of names",
            _LIST.format(name=f"get_all_{table}_by_city", table=table),
            city=_TEXT,
        )
        for table, _ in _PLACES.values()
    ]


def _cities_of() -> list[Tool]:
    return [
        _read(
            f"get_city_by_{kind}",
            f"Find the city that the {kind} is in.",
            "name of the city",
            _CITY_OF.format(name=f"get_city_by_{kind}", table=table, kind=kind),
            **{kind: _TEXT},
        )
        for kind, (table, _) in _PLACES.items()
    ]


def _infos() -> list[Tool]:
    subjects = {**_PLACES, "city": ("cities", _CITY_FACTS)}
    return [
        _read(
            f"get_infos_by_{kind}",
            f"Look up facts of one {kind}; prices and tickets are in CNY, ratings in stars.",
            "object with the name and the facts asked for",
            _INFOS.format(name=f"get_infos_by_{kind}", table=table, kind=kind),
            info_keywords=_keywords(words),
            **{kind: _TEXT},
        )
        for kind, (table, words) in sorted(subjects.items())
    ]


def trip_tools() -> tuple[Tool, ...]:
    """Return the 15 tools."""
    listed = "list of objects, maybe empty"
    submit = Tool(
        name="submit_result",
        effect="write",
        description=(
            "Hand in the plan as JSON text, in the same form as the final answer. "
            "Only the form is checked; a later plan replaces an earlier one."
        ),
        parameters=_schema(answer_text={"type": "string"}),
        returns="number of the submission",
        errors=("invalid",),
        source=_SUBMIT.lstrip(),
    )
    return (
        *_lists(),
        _read("get_all_cities", "List all cities.", "list of names", _CITIES),
        *_cities_of(),
        _read(
            "get_city_transport",
            "List transport within a city.",
            listed,
            _CITY_TRANSPORT,
            city=_TEXT,
        ),
        *_infos(),
        _read(
            "get_inter_city_transport",
            "List direct connections from one city to another.",
            listed,
            _INTER_CITY,
            origin=_TEXT,
            destination=_TEXT,
        ),
        _read(
            "get_weather_by_city_date",
            "Look up the forecast for a city on a date (YYYY-MM-DD).",
            "object with condition, high and low in degrees Celsius",
            _WEATHER,
            city=_TEXT,
            date=_TEXT,
        ),
        submit,
    )
