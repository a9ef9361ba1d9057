"""The trip-planning example against an exhaustive SQL search that shares nothing with its solution or verifier."""

from __future__ import annotations

import itertools
import json
import random
import sqlite3

import pytest

from envsynth.environments import build_image, make_env
from envsynth.environments.examples import EXAMPLE_SLUGS, EXAMPLES, trip_planning
from envsynth.environments.examples.trip.probes import outcome_of
from envsynth.sandbox import Ask, Jail
from envsynth.verifiers import judge

SPEC, TASK = trip_planning()

# Every valid second day, with one SELECT per budget tier.
SECOND_DAY = """
SELECT h.city, h.name, a.name, s.name, b.name FROM hotels h
JOIN restaurants a ON a.city = h.city
JOIN restaurants b ON b.city = h.city AND b.name <> a.name
JOIN attractions s ON s.city = h.city
WHERE h.city <> 'Hangzhou' AND (
  h.price >= 800 AND a.price + b.price < 350 AND min(a.rating, b.rating) >= 4.0 AND s.ticket < 120
  OR h.price >= 500 AND h.price < 800 AND max(a.rating, b.rating) >= 4.0 AND s.ticket < 180
  OR h.price >= 200 AND h.price < 500 AND max(a.rating, b.rating) >= 3.2)
"""
ANY_DAY = """
SELECT h.city, h.name, a.name, s.name, b.name FROM hotels h
JOIN restaurants a ON a.city = h.city
JOIN restaurants b ON b.city = h.city AND b.name <> a.name
JOIN attractions s ON s.city = h.city
"""


@pytest.fixture(scope="module")
def jail():
    with Jail() as made:
        yield made


@pytest.fixture(scope="module")
def image(jail):
    return build_image(jail, SPEC.world)


@pytest.fixture(scope="module")
def days(image):
    db = sqlite3.connect(":memory:")
    db.deserialize(image)
    found = {name: db.execute(query).fetchall() for name, query in (("second", SECOND_DAY), ("any", ANY_DAY))}
    db.close()
    return found


def days_of(outcome):
    keys = ("city", "hotel", "afternoon_restaurant", "afternoon_attraction", "evening_restaurant")
    return [tuple(day[key] for key in keys) for day in outcome.answer["plan"]]


def solve(jail, env, flags):
    """Play the solution with some of its names overwritten; return the last step."""
    env.reset(seed=0)
    with jail.worker("solution") as worker:
        overwritten = "".join(f"{name} = {value!r}\n" for name, value in flags.items())
        assert worker.load(TASK.solution + overwritten + "def play():\n    return solve(call)\n").ok
        asked = worker.begin("play")
        while isinstance(asked, Ask):
            action = {"tool": asked.tool, "arguments": asked.arguments}
            seen = json.loads(env.step(json.dumps(action))[0])
            asked = worker.reply(seen["result"]) if "result" in seen else worker.reply_error(seen["error"])
    assert asked.ok, asked
    return env.step(json.dumps({"answer": asked.value}))


def test_the_fifteen_tools_of_the_paper():
    assert sorted(tool.name for tool in SPEC.tools) == [
        "get_all_attractions_by_city",
        "get_all_cities",
        "get_all_hotels_by_city",
        "get_all_restaurants_by_city",
        "get_city_by_attraction",
        "get_city_by_hotel",
        "get_city_by_restaurant",
        "get_city_transport",
        "get_infos_by_attraction",
        "get_infos_by_city",
        "get_infos_by_hotel",
        "get_infos_by_restaurant",
        "get_inter_city_transport",
        "get_weather_by_city_date",
        "submit_result",
    ]
    assert tuple(EXAMPLES) == EXAMPLE_SLUGS == (SPEC.slug,)
    assert EXAMPLES[SPEC.slug]() == (SPEC, TASK)


def test_every_goal_quotes_the_prompt():
    assert [atom.id for atom in TASK.verifier.atoms if atom.quote not in TASK.prompt] == []


def test_world_has_cities_and_places_enough():
    rows = SPEC.world.rows
    cities = [row[0] for row in rows["cities"]]
    assert 8 <= len(cities) <= 10
    for table in ("hotels", "restaurants", "attractions"):
        counts = [sum(row[1] == city for row in rows[table]) for city in cities]
        assert min(counts) >= 5
        assert max(counts) <= 10


def test_solution_passes_and_every_ablation_fails(jail):
    env = make_env(SPEC, TASK, jail=jail)
    _, reward, terminated, _, info = solve(jail, env, {})
    assert (reward, terminated) == (1.0, True), info
    assert info["turn"] >= 20
    for skill, flags in TASK.ablations.items():
        _, reward, _, _, info = solve(jail, env, flags)
        assert reward == 0.0, skill
        assert "void" not in info
    env.close()


def test_oracle_is_in_the_exhaustive_search_and_passes(jail, image, days):
    first, second, third = days_of(TASK.oracle)
    assert second in days["second"]
    assert {first, third} <= set(days["any"])
    assert judge(jail, TASK, image, [TASK.oracle])[0].status == "pass"


def test_every_probe_gets_its_verdict(jail, image):
    verdicts = judge(jail, TASK, image, [probe.outcome for probe in TASK.probes])
    wrong = [
        (probe.name, verdict.status, verdict.failed, verdict.failure)
        for probe, verdict in zip(TASK.probes, verdicts, strict=True)
        if verdict.status != ("pass" if probe.accept else "fail")
    ]
    assert wrong == []


def test_every_atom_is_killed_by_a_probe_that_names_it(jail, image):
    verdicts = judge(jail, TASK, image, [probe.outcome for probe in TASK.probes])
    killed = {name for verdict in verdicts for name in verdict.failed}
    assert {atom.id for atom in TASK.verifier.atoms} | {"frame"} <= killed


def test_verdict_on_the_second_day_equals_sql_on_a_sample(jail, image, days):
    rng = random.Random("trip/sample")
    valid = set(days["second"])
    away = [day for day in days["any"] if day[0] not in ("Hangzhou", "Wuxi")]
    # Days of the two cities whose data sit on the limits, and any others.
    tight = [day for day in away if day[0] in ("Huangshan", "Jiaxing")]
    sample = rng.sample(tight, 220) + rng.sample(away, 100)
    first, _, third = days_of(TASK.oracle)
    verdicts = judge(jail, TASK, image, [outcome_of(first, day, third) for day in sample])
    assert [verdict.status == "pass" for verdict in verdicts] == [day in valid for day in sample]
    assert 50 < sum(day in valid for day in sample) < 300


def test_limits_are_in_the_data():
    rows = SPEC.world.rows
    near = {row[2] for row in rows["hotels"] if row[1] in ("Huangshan", "Jiaxing")}
    assert {199, 200, 499, 500, 799, 800} <= near
    assert {119, 120, 179, 180} <= {row[2] for row in rows["attractions"] if row[1] == "Huangshan"}
    meals = [row[3:] for row in rows["restaurants"] if row[1] in ("Huangshan", "Jiaxing")]
    assert {349, 350} <= {a[0] + b[0] for a, b in itertools.combinations(meals, 2)}
    assert {3.1, 3.2, 3.9, 4.0} <= {rating for _, rating in meals}


@pytest.mark.parametrize(
    "text",
    ["", "no json", "[]", '{"plan": []}', '{"cite_name": 1}', '{"plan": [{}, {}, {}]}', "[" * 2000],
)
def test_submit_result_refuses_another_form_and_records_nothing(jail, text):
    env = make_env(SPEC, TASK, jail=jail)
    env.reset(seed=0)
    before = env.final_image()
    info = env.step(json.dumps({"tool": "submit_result", "arguments": {"answer_text": text}}))[4]
    assert info["error"] in ("invalid", "internal")
    assert info["error"] == "invalid" or text.startswith("[[")
    assert env.final_image() == before
    env.close()


def test_the_last_submission_counts(jail):
    env = make_env(SPEC, TASK, jail=jail)
    plans = [probe.outcome.answer for probe in TASK.probes[:2]]
    for handed, reward in ((plans, 1.0), (plans[::-1], 0.0)):
        env.reset(seed=0)
        for plan in handed:
            call = {"tool": "submit_result", "arguments": {"answer_text": json.dumps(plan)}}
            assert env.step(json.dumps(call))[4]["error"] is None
        assert env.step(json.dumps({"answer": plans[1]}))[1] == reward
    env.close()
