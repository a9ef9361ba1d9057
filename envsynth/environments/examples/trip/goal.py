"""Prompt, answer schema, goal atoms and solution of the trip-planning task."""

from __future__ import annotations

from pydantic import JsonValue

from envsynth.spec import GoalAtom, Verifier

PROMPT = """\
Plan a three-day trip that starts in Hangzhou, from 1 to 3 October 2025, for one person.

For each day choose one city, one hotel for the night, a restaurant for the afternoon, an attraction for the afternoon \
and a restaurant for the evening. List the days in order with their dates 2025-10-01, 2025-10-02 and 2025-10-03. The city \
of the first day is Hangzhou.

Do not repeat any city, hotel, attraction or restaurant during the whole trip. Every hotel, restaurant and attraction must \
be in the city of its day.

The budget of the second day depends on the price of that day's hotel.
If the hotel costs 800 CNY or more per night, the two restaurants together must cost less than 350 CNY, both restaurants \
must be rated 4.0 or higher, and the ticket of the attraction must cost less than 120 CNY.
If the hotel costs at least 500 CNY and less than 800 CNY, at least one of the two restaurants must be rated 4.0 or \
higher, and the ticket of the attraction must cost less than 180 CNY.
If the hotel costs at least 200 CNY and less than 500 CNY, at least one of the two restaurants must be rated 3.2 or higher.
The hotel of the second day must not cost less than 200 CNY.
There are no conditions on transport or weather, and none on prices and ratings of the other days.

Hand the plan in with submit_result, as the JSON text {"plan": [...]}; if you hand in several, the last one counts. Then \
give the same plan as your final answer."""
"""The published task with its gaps closed."""

FIELDS = (
    "time",
    "city",
    "hotel",
    "afternoon_restaurant",
    "afternoon_attraction",
    "evening_restaurant",
)
"""Fields of a day, in order."""

ANSWER_SCHEMA: dict[str, JsonValue] = {
    "type": "object",
    "properties": {
        "plan": {
            "type": "array",
            "minItems": 3,
            "maxItems": 3,
            "items": {
                "type": "object",
                "properties": {field: {"type": "string"} for field in FIELDS},
                "required": list(FIELDS),
                "additionalProperties": False,
            },
        }
    },
    "required": ["plan"],
    "additionalProperties": False,
}
"""Form of the final answer."""

_DEFINITIONS = """\
import json

plan = answer["plan"]
cities = [day["city"] for day in plan]
hotels = [day["hotel"] for day in plan]
attractions = [day["afternoon_attraction"] for day in plan]
restaurants = [day[k] for day in plan for k in ("afternoon_restaurant", "evening_restaurant")]
dates = [day["time"] for day in plan]


def fact(table, name, column):
    found = [row[column] for row in db[table] if row["name"] == name]
    return found[0] if found else None


def distinct(names):
    return len(set(names)) == len(names)


def located(table, field):
    return all(fact(table, day[field], "city") == day["city"] for day in plan)


second = plan[1]
meals = (second["afternoon_restaurant"], second["evening_restaurant"])
hotel_price = fact("hotels", second["hotel"], "price")
meal_prices = [fact("restaurants", name, "price") for name in meals]
ratings = [fact("restaurants", name, "rating") for name in meals]
ticket = fact("attractions", second["afternoon_attraction"], "ticket")


def tier(low, high):
    # What is unknown is refused by the atoms on location; here it is in no tier and breaks no limit.
    return hotel_price is not None and low <= hotel_price and (high is None or hotel_price < high)


def rated(limit):
    return [rating >= limit for rating in ratings if rating is not None]


def submitted():
    handed = [entry for entry in diff if entry["table"] == "submissions" and entry["op"] == "insert"]
    if not handed:
        return None
    last = max(handed, key=lambda entry: entry["new"]["id"])
    try:
        return handed if json.loads(last["new"]["answer_text"]) == answer else None
    except ValueError:
        return None
"""

_NO_REPEAT = "Do not repeat any city, hotel, attraction or restaurant during the whole trip."
_IN_CITY = "Every hotel, restaurant and attraction must be in the city of its day."

_ATOMS: tuple[tuple[str, str, str], ...] = (
    (
        "plan.dates",
        "List the days in order with their dates 2025-10-01, 2025-10-02 and 2025-10-03.",
        "dates == ['2025-10-01', '2025-10-02', '2025-10-03']",
    ),
    ("plan.start", "The city of the first day is Hangzhou.", "cities[0] == 'Hangzhou'"),
    (
        "plan.cities",
        "For each day choose one city",
        "all(fact('cities', name, 'name') for name in cities)",
    ),
    ("distinct.cities", _NO_REPEAT, "distinct(cities)"),
    ("distinct.hotels", _NO_REPEAT, "distinct(hotels)"),
    ("distinct.attractions", _NO_REPEAT, "distinct(attractions)"),
    ("distinct.restaurants", _NO_REPEAT, "distinct(restaurants)"),
    ("located.hotels", _IN_CITY, "located('hotels', 'hotel')"),
    ("located.lunch", _IN_CITY, "located('restaurants', 'afternoon_restaurant')"),
    ("located.dinner", _IN_CITY, "located('restaurants', 'evening_restaurant')"),
    ("located.attractions", _IN_CITY, "located('attractions', 'afternoon_attraction')"),
    (
        "tier.known",
        "The hotel of the second day must not cost less than 200 CNY.",
        "hotel_price is None or hotel_price >= 200",
    ),
    (
        "tier800.meals",
        "the two restaurants together must cost less than 350 CNY",
        "not tier(800, None) or None in meal_prices or sum(meal_prices) < 350",
    ),
    (
        "tier800.ratings",
        "both restaurants must be rated 4.0 or higher",
        "not tier(800, None) or all(rated(4.0))",
    ),
    (
        "tier800.ticket",
        "the ticket of the attraction must cost less than 120 CNY",
        "not tier(800, None) or ticket is None or ticket < 120",
    ),
    (
        "tier500.ratings",
        "at least one of the two restaurants must be rated 4.0 or higher",
        "not tier(500, 800) or None in ratings or any(rated(4.0))",
    ),
    (
        "tier500.ticket",
        "the ticket of the attraction must cost less than 180 CNY",
        "not tier(500, 800) or ticket is None or ticket < 180",
    ),
    (
        "tier200.ratings",
        "at least one of the two restaurants must be rated 3.2 or higher",
        "not tier(200, 500) or None in ratings or any(rated(3.2))",
    ),
)


def trip_verifier() -> Verifier:
    """Return the goal: any valid plan, handed in, and nothing else changed."""
    answers = [
        GoalAtom(id=name, kind="answer", quote=quote, expression=expression) for name, quote, expression in _ATOMS
    ]
    handed_in = GoalAtom(
        id="state.submitted",
        kind="state",
        quote="Hand the plan in with submit_result",
        expression="submitted()",
    )
    return Verifier(form="atoms", definitions=_DEFINITIONS, atoms=(*answers, handed_in))


SOLUTION = """\
import itertools
import json

TIERS = True
STRICT = True
DISTINCT = True
LOCATED = True
WRITES = True
ALL_RULES = True


def below(value, limit):
    return value < limit if STRICT else value <= limit


def allowed(price, meals, ticket):
    if not TIERS:
        return True
    high = sum(meal["rating"] >= 4.0 for meal in meals)
    if not below(price, 800):
        cheap = below(sum(meal["price"] for meal in meals), 350)
        return cheap and (not ALL_RULES or (high == 2 and below(ticket, 120)))
    if price >= 500:
        return high >= 1 and (not ALL_RULES or below(ticket, 180))
    return price >= 200 and any(meal["rating"] >= 3.2 for meal in meals)


def second_day(call, city):
    names = call("get_all_restaurants_by_city", city=city)
    words = ["price", "rating"]
    meals = [call("get_infos_by_restaurant", info_keywords=words, restaurant=n) for n in names]
    names = call("get_all_attractions_by_city", city=city)
    sights = [call("get_infos_by_attraction", info_keywords=["ticket"], attraction=n) for n in names]
    for hotel in call("get_all_hotels_by_city", city=city):
        price = call("get_infos_by_hotel", info_keywords=["price"], hotel=hotel)["price"]
        for pair in itertools.permutations(meals, 2):
            for sight in sights:
                if allowed(price, pair, sight["ticket"]):
                    return [hotel, pair[0]["name"], sight["name"], pair[1]["name"]]
    return None


def any_day(call, city):
    meals = call("get_all_restaurants_by_city", city=city)
    second = meals[1] if DISTINCT else meals[0]
    sight = call("get_all_attractions_by_city", city=city)[0]
    return [call("get_all_hotels_by_city", city=city)[0], meals[0], sight, second]


def solve(call):
    others = [city for city in call("get_all_cities") if city != "Hangzhou"]
    found = None
    for city in others:
        found = second_day(call, city)
        if found is not None:
            break
    last = next(name for name in reversed(others) if name != city)
    chosen = [("Hangzhou", any_day(call, "Hangzhou")), (city, found)]
    chosen.append((last, any_day(call, last if LOCATED else others[-2])))
    plan = []
    for number, (city, (hotel, lunch, sight, dinner)) in enumerate(chosen, 1):
        plan.append({
            "time": f"2025-10-0{number}", "city": city, "hotel": hotel,
            "afternoon_restaurant": lunch, "afternoon_attraction": sight,
            "evening_restaurant": dinner,
        })
    answer = {"plan": plan}
    if WRITES:
        call("submit_result", answer_text=json.dumps(answer))
    return answer
"""
"""A search over cities and hotels, with tools only; the flags at the top are the ablations' handles."""

ABLATIONS: dict[str, dict[str, JsonValue]] = {
    "ignores_policy": {"TIERS": False},
    "wrong_boundary": {"STRICT": False},
    "first_constraint_only": {"ALL_RULES": False},
    "repeats_places": {"DISTINCT": False},
    "ignores_location": {"LOCATED": False},
    "never_writes": {"WRITES": False},
}
"""Skill-ablated solvers."""
