"""Limits, tiers and loose words in prose; and the gates that read them, each with a sound text and a planted fault."""

from __future__ import annotations

import math

import pytest

from envsynth.environments.examples import trip_planning
from envsynth.gates import Case, check
from envsynth.gates.wording import limits, loose_limits, tier_faults, tier_groups
from envsynth.spec import GoalAtom, Outcome, Verifier, World


def stretches(text):
    return [(limit.low, limit.high, limit.low_in, limit.high_in, limit.unit) for limit in limits(text)]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("at least 5 units", (5, math.inf, True, False, "units")),
        ("no less than 5 units", (5, math.inf, True, False, "units")),
        ("must not cost less than 5 CNY", (5, math.inf, True, False, "CNY")),
        ("costs 800 CNY or more per night", (800, math.inf, True, False, "CNY")),
        ("rated 4.0 or higher", (4, math.inf, True, False, "")),
        ("more than 1,250 credits", (1250, math.inf, False, False, "credits")),
        ("over 5 units", (5, math.inf, False, False, "units")),
        ("quantity > 5", (5, math.inf, False, False, "")),
        ("quantity >= 5", (5, math.inf, True, False, "")),
        ("at most 7 kg", (-math.inf, 7, False, True, "kg")),
        ("no more than 7 kg", (-math.inf, 7, False, True, "kg")),
        ("must not exceed 7 kg", (-math.inf, 7, False, True, "kg")),
        ("7 kg or less", (-math.inf, 7, False, True, "kg")),
        ("less than 7 kg", (-math.inf, 7, False, False, "kg")),
        ("(500-800 CNY)", (500, 800, True, True, "CNY")),
        ("between 500 and 800 CNY", (500, 800, True, True, "CNY")),
    ],
)
def test_words_for_limits(text, wanted):
    assert stretches(text) == [wanted]


@pytest.mark.parametrize(
    "text",
    ["on 2031-05-03", "the part P-104", "from 1 to 3 October 2025", "Choose 3 tents", "day 2 of 3", "page 1-2-3"],
)
def test_other_numbers_are_no_limits(text):
    assert stretches(text) == []
    assert loose_limits(text) == ()


def test_a_limit_holds_what_its_words_say():
    (low,), (high,) = limits("at least 5 kg"), limits("less than 5 kg")
    assert [low.holds(value) for value in (4, 5, 6)] == [False, True, True]
    assert [high.holds(value) for value in (4, 5, 6)] == [True, False, False]


def faults(text):
    return [fault for group in tier_groups(text) for fault in tier_faults(group, text)]


TIERS = (
    "If the hotel costs less than 200 CNY, tea is free. If the hotel costs at least 200 CNY and less than 500 CNY, tea "
    "costs 5 CNY. If the hotel costs 500 CNY or more, tea costs 9 CNY."
)


def test_tiers_that_are_whole():
    assert len(tier_groups(TIERS)) == 1
    assert faults(TIERS) == []


@pytest.mark.parametrize(
    ("old", "new", "wanted"),
    [
        ("less than 500 CNY", "at most 500 CNY", "500 CNY is in two tiers"),
        ("less than 500 CNY", "at most 600 CNY", "from 500 to 600 CNY is in two tiers"),
        ("500 CNY or more", "more than 500 CNY", "no tier says what holds at 500 CNY"),
        ("500 CNY or more", "550 CNY or more", "no tier says what holds at between 500 and 550 CNY"),
        ("If the hotel costs less than 200 CNY, tea is free. ", "", "no tier says what holds below 200 CNY"),
        (" If the hotel costs 500 CNY or more, tea costs 9 CNY.", "", "no tier says what holds above 500 CNY"),
    ],
)
def test_tiers_that_overlap_or_leave_holes(old, new, wanted):
    (fault,) = faults(TIERS.replace(old, new))
    assert fault.startswith(wanted)


def test_what_closes_a_hole():
    open_below = TIERS.replace("If the hotel costs less than 200 CNY, tea is free. ", "")
    assert faults(open_below + " The hotel must not cost less than 200 CNY.") == []
    assert faults(open_below + " The hotel must not cost less than 300 CNY.") != []


@pytest.mark.parametrize(
    "text",
    [
        "If the weight is at least 5 kg, it costs 9; otherwise 4. If the weight is between 3 and 6 kg, wrap it.",
        "If the weight is at least 5 kg, wrap it. If the weight is between 7 and 9 kg, mark it.",
        "If the weight is at least 5 kg and at most 9 kg, wrap it. If the price is at least 9 credits, wait.",
        "If the hotel costs at least 5 CNY and at most 9 CNY, stop. If the dinner costs at least 9 CNY, wait.",
        "For the parts whose price is at least 5 credits, add up. For the parts whose price is at most 9 credits, count.",
        "If the hotel costs at least 5 CNY and at most 9 CNY, stop.",
    ],
    ids=["otherwise", "nested", "other unit", "other subject", "no condition", "alone"],
)
def test_conditions_that_are_no_tiers(text):
    assert tier_groups(text) == ()


@pytest.mark.parametrize("words", ["under 350 CNY", "within 350 CNY", "about 350 CNY", "over 350 CNY", "200-350 CNY"])
def test_loose_words(words):
    assert loose_limits(f"The sum is {words}.") == (words,)
    assert loose_limits(f"The sum is {words}, both ends included.") == ()
    assert loose_limits(f"The sum is {words} inclusive.") == ()


@pytest.mark.parametrize("words", ["less than 350 CNY", "at most 350 CNY", "350 CNY or more", "over the counter 3"])
def test_strict_words(words):
    assert loose_limits(f"The sum is {words}.") == ()


# --------------------------------------------------------------------------------------------------------------- gates


def findings(jail, spec, task, code):
    (result,) = check(spec, task, jail=jail, select=[code]).results
    return [finding.message for finding in result.findings] if result.status == "fail" else result.status


def asked(task, prompt, quote, expression='answer.get("value") == 774'):
    atom = GoalAtom(id="value", kind="answer", quote=quote, expression=expression)
    return task.model_copy(update={"prompt": prompt, "verifier": Verifier(form="atoms", atoms=(atom,))})


@pytest.mark.parametrize(
    ("added", "wanted"),
    [
        ("Count 12 parts.", "number '12'"),
        ("Count at least two of them.", "comparison 'at least two'"),
        ("Begin with the cheapest.", "comparison 'cheapest'"),
        ("Begin on 2031-05-03.", "number '2031-05-03'"),
        ("Leave Gear A1 out.", "name 'Gear A1'"),
    ],
)
def test_sp107_finds_words_that_no_check_knows(jail, shop, value_task, added, wanted):
    rows = {
        "items": tuple(
            (id_, "Gear A1" if name == "gear" else name, *rest) for id_, name, *rest in shop.world.rows["items"]
        )
    }
    spec = shop.model_copy(update={"world": World(tables=shop.world.tables, rows=rows, now=shop.world.now)})
    text = "value of the stock"
    task = asked(value_task.model_copy(update={"environment": spec.hash}), f"What is the {text}? {added}", text)
    assert findings(jail, spec, task, "SP107") == [f"no check knows the {wanted} of the prompt"]
    assert findings(jail, spec, asked(task, task.prompt, task.prompt), "SP107") == "pass"


def test_sp107_knows_what_the_source_holds(jail, shop, value_task):
    task = asked(value_task, "On 3 May 2031, is it more than 773?", "is it", 'answer["value"] > 773 and "2031-05-03"')
    assert findings(jail, shop, task, "SP107") == "pass"
    best = asked(value_task, "The cheapest?", "The", "min(row['price'] for row in db['items'])")
    assert findings(jail, shop, best, "SP107") == "pass"
    assert findings(jail, shop, task.model_copy(update={"ir": {"steps": []}}), "SP107") == "skipped"


def test_sp108_reads_prompt_and_policy(jail, shop, value_task):
    overlapping = TIERS.replace("less than 500 CNY", "at most 500 CNY")
    assert findings(jail, shop, value_task.model_copy(update={"prompt": TIERS}), "SP108") == "pass"
    (fault,) = findings(jail, shop, value_task.model_copy(update={"prompt": overlapping}), "SP108")
    assert "in two tiers" in fault
    assert len(findings(jail, shop.model_copy(update={"policy": (overlapping,)}), value_task, "SP108")) == 1


@pytest.mark.parametrize(
    ("prompt", "wanted"),
    [
        ('Answer as "value".', "pass"),
        ('Answer {"value": 3}.', "pass"),
        ('Answer as "total".', ["'total' in the prompt is no key of the answer schema"]),
        ('Answer {"total": 3}.', ["'total' in the prompt is no key of the answer schema"]),
        ('Sort it as "bolt".', "pass"),
        ('Answer {"value": "item_name"}.', "pass"),
        ('Answer {"value": "itme_name"}.', ["'itme_name' in the prompt holds 'itme', which nothing else knows"]),
    ],
)
def test_sp109_compares_keys(jail, shop, value_task, prompt, wanted):
    assert findings(jail, shop, value_task.model_copy(update={"prompt": prompt}), "SP109") == wanted


def test_sp109_says_what_was_perhaps_meant(jail, shop, value_task):
    report = check(shop, value_task.model_copy(update={"prompt": 'As "valued".'}), jail=jail, select=["SP109"])
    assert report.findings[0].fix == "meant is perhaps 'value'"


def test_sp110_finds_loose_limits_in_both_texts(jail, shop, value_task):
    loose = value_task.model_copy(update={"prompt": "Count those under 30 cents."})
    assert findings(jail, shop, loose, "SP110") == ["'under 30 cents' leaves open whether the end is included"]
    assert len(findings(jail, shop.model_copy(update={"policy": ("About 30 cents a day.",)}), value_task, "SP110")) == 1
    assert findings(jail, shop, value_task, "SP110") == "pass"


def test_sp111_finds_a_relation_that_nobody_speaks_of(jail):
    spec, task = trip_planning()
    assert findings(jail, spec, task, "SP111") == "pass"
    silent = task.model_copy(update={"prompt": task.prompt.replace("transport or weather", "anything else")})
    (message,) = findings(jail, spec, silent, "SP111")
    assert "3 rows of cities" in message
    assert "inter_city_transport" in message
    assert findings(jail, spec, silent.model_copy(update={"ir": {"steps": []}}), "SP111") == "pass"
    one = Outcome(answer={"plan": [{"city": "Wuxi"}]})
    assert findings(jail, spec, silent.model_copy(update={"oracle": one}), "SP111") == "pass"
    evidence = check(spec, silent, jail=jail, select=["SP111"]).evidence("SP111")
    assert {"get_inter_city_transport", "get_weather_by_city_date"} <= set(evidence["unspoken_tools"])


# ------------------------------------------------------------------------------------------------- played and judged


BY_NAME = "def solve(call):\n    rows = [row for page in (1, 2) for row in call('list_items', page=page)['items']]\n"


def reordered(shop, ids="rowid"):
    """The shop with its items listed by row, keyed by name: no order but that of the rows."""
    table = shop.world.tables[0].model_copy(update={"primary_key": ("name",)})
    rows = {
        "items": tuple(
            (id_, name, 5 if name in ("nut", "gear") else 2, price) for id_, name, _, price in shop.world.rows["items"]
        )
    }
    source = shop.tools[0].source.replace("ORDER BY id", f"ORDER BY {ids}")
    tools = (shop.tools[0].model_copy(update={"source": source}), *shop.tools[1:])
    return shop.model_copy(update={"world": World(tables=(table,), rows=rows, now=shop.world.now), "tools": tools})


def most(spec, value_task, expression):
    solution = BY_NAME + "    return {'value': max(rows, key=lambda row: row['qty'])['id']}\n"
    atom = GoalAtom(id="most", kind="answer", quote="most", expression=expression)
    return value_task.model_copy(
        update={
            "environment": spec.hash,
            "solution": solution,
            "ablations": {},
            "verifier": Verifier(form="atoms", atoms=(atom,)),
            "oracle": Outcome(answer={"value": 2}),
        }
    )


def test_ex208_finds_a_tie_that_nobody_declared(jail, shop, value_task):
    spec = reordered(shop)
    (message,) = findings(jail, spec, most(spec, value_task, 'answer["value"] == 2'), "EX208")
    assert "fails most: it answers {'value': 3}" in message
    assert findings(jail, spec, most(spec, value_task, 'answer["value"] in (2, 3)'), "EX208") == "pass"
    assert findings(jail, spec, most(spec, value_task, 'answer["value"] == 9'), "EX208") == "skipped"
    by_id = reordered(shop, ids="id")
    assert findings(jail, by_id, most(by_id, value_task, 'answer["value"] == 2'), "EX208") == "pass"


def test_ex209_finds_a_tool_that_breaks(jail, shop, value_task):
    assert findings(jail, shop, value_task, "EX209") == "pass"
    source = shop.tools[0].source.replace("raise Refusal", "raise KeyError")
    spec = shop.model_copy(update={"tools": (shop.tools[0].model_copy(update={"source": source}), *shop.tools[1:])})
    task = value_task.model_copy(update={"environment": spec.hash})
    (message,) = findings(jail, spec, task, "EX209")
    assert message.startswith("list_items breaks on {'page': ")


def test_vf320_finds_an_atom_that_decides_nothing(jail, shop, restock_task):
    assert findings(jail, shop, restock_task, "VF320") == "pass"
    idle = GoalAtom(id="idle", kind="answer", quote="id", expression='answer["before"] < 10**9')
    verifier = restock_task.verifier.model_copy(update={"atoms": (*restock_task.verifier.atoms, idle)})
    task = restock_task.model_copy(update={"verifier": verifier})
    with Case(shop, task, jail) as case:
        report = check(shop, task, case=case, select=["VF320"])
    assert [finding.where for finding in report.findings] == ["verifier.atoms.idle"]
    assert findings(jail, shop, task.model_copy(update={"ir": {"steps": []}}), "VF320") == "skipped"
