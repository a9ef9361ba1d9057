"""The trip-planning task as it was published, gaps and all, over the world and tools of the built-in example.

Source: DeepSeek-V3.2, arXiv:2512.02556, section 3.2.3. The sentences are ours; figures, conditions, the form of the result
and everything that the text leaves open are those of the paper. The mended task is the built-in example.
"""

from __future__ import annotations

from acceptance.defects.making import Pair
from envsynth.environments.examples import trip_planning
from envsynth.spec import TaskVersion

PROMPT = """\
Please plan a three-day trip that starts from Hangzhou, from October 1st to October 3rd, 2025.

No city, hotel, attraction or restaurant may occur twice in the whole trip. Each hotel, restaurant and attraction has to be \
in the city where I stay on that day.

I want to mind my budget on the second day. If I take a luxury hotel that costs 800 CNY or more per night, my total \
spending on both restaurants (lunch and dinner) has to stay under 350 CNY, both restaurants have to be rated at least 4.0 \
stars, and the ticket of the afternoon attraction has to be less than 120 CNY. If the hotel on day 2 is in the middle \
range (500-800 CNY), at least one of the restaurants has to be rated 4.0 or higher, and the ticket of the attraction has \
to be below 180 CNY. For more affordable hotels (200-500 CNY range), at least one restaurant has to have a rating of 3.2 \
or above.

Submit the result with submit_result as {"plan": LIST} and give it as your answer; LIST has three elements:
[{"time": "2025-10-01", "city": "cite_name", "hotel": "hotel_name", "afternoon_restaurant": "restaurant_name", \
"afternoon_attraction": "attraction_name", "evening_restaurant": "restaurant_name"},
{"time": "2025-10-02", ...}, {"time": "2025-10-03", ...}]"""
"""The request, with the gaps of the published one."""

QUOTES = {
    "plan.dates": "from October 1st to October 3rd, 2025",
    "plan.cities": "plan a three-day trip",
    "distinct.cities": "No city, hotel, attraction or restaurant may occur twice in the whole trip.",
    "distinct.hotels": "No city, hotel, attraction or restaurant may occur twice in the whole trip.",
    "distinct.attractions": "No city, hotel, attraction or restaurant may occur twice in the whole trip.",
    "distinct.restaurants": "No city, hotel, attraction or restaurant may occur twice in the whole trip.",
    "located.hotels": "Each hotel, restaurant and attraction has to be in the city where I stay on that day.",
    "located.lunch": "Each hotel, restaurant and attraction has to be in the city where I stay on that day.",
    "located.dinner": "Each hotel, restaurant and attraction has to be in the city where I stay on that day.",
    "located.attractions": "Each hotel, restaurant and attraction has to be in the city where I stay on that day.",
    "tier800.meals": "my total spending on both restaurants (lunch and dinner) has to stay under 350 CNY",
    "tier800.ratings": "both restaurants have to be rated at least 4.0 stars",
    "tier800.ticket": "the ticket of the afternoon attraction has to be less than 120 CNY",
    "tier500.ratings": "at least one of the restaurants has to be rated 4.0 or higher",
    "tier500.ticket": "the ticket of the attraction has to be below 180 CNY",
    "tier200.ratings": "at least one restaurant has to have a rating of 3.2 or above",
    "state.submitted": "Submit the result with submit_result",
}
"""Goal atom -> the words that demand it. Nothing demands the first city or a hotel of at least 200 CNY."""

GAPS: dict[str, tuple[str, str]] = {
    "500 CNY lies in two tiers": ("SP108", "500 CNY is in two tiers"),
    "800 CNY lies in two tiers": ("SP108", "800 CNY is in two tiers"),
    "below 200 CNY nothing is said": ("SP108", "below 200 CNY"),
    "must the first day be in Hangzhou?": ("SP107", "'Hangzhou'"),
    "must the cities be connected?": ("SP111", "inter_city_transport"),
    "is 350 itself under 350?": ("SP110", "'under 350 CNY'"),
    "are 500 and 800 within 500-800?": ("SP110", "'500-800 CNY'"),
    "the format asks for a cite_name": ("SP109", "'cite_name'"),
}
"""What the text leaves open -> the code that flags it, and words of the finding."""

DISTRACTORS = ("get_city_transport", "get_inter_city_transport", "get_weather_by_city_date")
"""Tools that no solution needs."""


def published_trip() -> Pair:
    """The task with the gaps: the verifier checks what the text says, and the rest as the text leaves it."""
    spec, mended = trip_planning()
    atoms = [{**atom.model_dump(), "quote": QUOTES[atom.id]} for atom in mended.verifier.atoms if atom.id in QUOTES]
    dropped = ("constraint/plan.start", "constraint/tier.known")
    probes = [probe.model_dump() for probe in mended.probes if not probe.name.startswith(dropped)]
    verifier = {**mended.verifier.model_dump(), "atoms": atoms}
    return spec, TaskVersion.parse({**mended.model_dump(), "prompt": PROMPT, "verifier": verifier, "probes": probes})
