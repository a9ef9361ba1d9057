"""The second reader of `acceptance/truth`: on a world made by hand, with rules broken on purpose, against verifiers."""

import ast
import dataclasses
import itertools
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from acceptance import synthesis_truth
from acceptance.truth.deeds import Change
from acceptance.truth.facts import Facts
from acceptance.truth.frames import LIMITS, STEPS, WARNINGS
from acceptance.truth.reader import Reader
from acceptance.truth.rules import TEMPLATES
from acceptance.truth.solver import Right, solve
from acceptance.truth.world import Handle, NotCoveredError, PublicTask, World
from acceptance.truth.wrong import effect, variants, wrong_outcomes
from envsynth.author.procedural.ir import Budget, Caution, Task
from envsynth.author.procedural.render import REGISTERS, render
from envsynth.spec import GoalAtom, Verifier

ROOM = Path(synthesis_truth.__file__).parent / "truth"
DAY = "2031-05-06"


def attribute(entity, key, label, kind, unit="", parameters=()):
    return [entity, key, label, [kind, unit], [list(item) for item in parameters]]


DOCS = {
    "entities": {
        "site": ["hub", "hubs"],
        "person": ["member", "members"],
        "resource": ["room", "rooms"],
        "booking": ["slot", "slots"],
        "leg": ["line", "lines"],
        "ticket": ["ticket", "tickets"],
        "fund": ["fund", "funds"],
        "claim": ["bid", "bids"],
        "topic": ["theme", "themes"],
    },
    "units": {"people": "people", "credits": "credits", "oclock": "o'clock", "h": "hours", "points": "points"},
    "attrs": [
        *(
            attribute(entity, key, key, "str", key)
            for entity in ("site", "person", "resource", "fund", "claim", "topic")
            for key in ("id", "name")
        ),
        *(attribute(entity, "id", "id", "str", "id") for entity in ("booking", "leg", "ticket")),
        attribute("resource", "capacity", "capacity", "num", "people"),
        attribute("resource", "rate", "hourly rate", "num", "credits"),
        attribute("resource", "site", "hub", "row", "site"),
        attribute("resource", "free", "free on {0} from {1} to {2}", "bool", "", (("date", ""), ("num", "oclock"), ("num", "oclock"))),
        attribute("resource", "booked", "booked hours on {0}", "num", "h", (("date", ""),)),
        attribute("resource", "charge", "charge from {0} to {1}", "num", "credits", (("num", "oclock"), ("num", "oclock"))),
        attribute("booking", "resource", "room", "row", "resource"),
        attribute("booking", "person", "holder", "row", "person"),
        attribute("booking", "day", "day", "date"),
        attribute("booking", "start", "start hour", "num", "oclock"),
        attribute("booking", "end", "end hour", "num", "oclock"),
        attribute("booking", "headcount", "headcount", "num", "people"),
        attribute("booking", "status", "status", "str", "status"),
        attribute("leg", "origin", "origin", "row", "site"),
        attribute("leg", "destination", "destination", "row", "site"),
        attribute("leg", "departs", "departure time", "num", "oclock"),
        attribute("leg", "arrives", "arrival time", "num", "oclock"),
        attribute("leg", "fare", "basic fare", "num", "credits"),
        attribute("leg", "seats", "seat count", "num", "people"),
        attribute("ticket", "leg", "booked line", "row", "leg"),
        attribute("ticket", "person", "passenger", "row", "person"),
        attribute("site", "fare", "route fare from {0}", "num", "credits", (("row", "site"),)),
        attribute("site", "arrival", "arrival time from {0} leaving at or after {1}", "num", "oclock", (("row", "site"), ("num", "oclock"))),
        attribute("fund", "budget", "budget", "num", "credits"),
        attribute("fund", "free_budget", "free budget", "num", "credits"),
        attribute("fund", "attainable", "attainable merit", "num", "points"),
        attribute("claim", "fund", "fund", "row", "fund"),
        attribute("claim", "person", "applicant", "row", "person"),
        attribute("claim", "topic", "theme", "row", "topic"),
        attribute("claim", "amount", "amount", "num", "credits"),
        attribute("claim", "merit", "merit", "num", "points"),
        attribute("claim", "state", "state", "str", "state"),
        attribute("claim", "grantable", "grantable", "bool"),
    ],
    "actions": [
        ["cancel", "cancel {booking}", [["booking", ["row", "booking"]]]],
        ["buy", "buy tickets for {person} from {origin} to {destination} by the cheapest route",
         [["person", ["row", "person"]], ["origin", ["row", "site"]], ["destination", ["row", "site"]]]],
        ["distribute_fund", "distribute {fund} by merit", [["fund", ["row", "fund"]]]],
    ],
}  # fmt: skip
POLICY = (
    "Opening hours are from 7 to 19 o'clock, every day; hours are on the 24-hour clock.",
    "A slot counts if its status is active; tentative and cancelled slots do not count.",
    "The booked hours of a room on a day are the sum of the lengths, from start hour to end hour, of its slots of that day "
    "that count.",
    "A room is free on a day from one hour to another if that span lies within the opening hours and ends after it starts, "
    "and every one of its slots of that day that counts ends at least 1 hour before the span starts or starts at least 1 "
    "hour after the span ends.",
    "The charge of a room from one hour to another is its hourly rate for each hour of the span; each hour that begins at "
    "14 o'clock or later is charged double. A span that does not end after it starts is charged 0.",
    "A cancelled slot can be neither cancelled again nor handed over.",
    "A route is a chain of at most 2 lines of one day, each with free seats; each starts at the hub where the one before "
    "ended, at least 1 hour after its arrival. Every line runs every day, within the day.",
    "The free seats of a line are its seat count less its tickets.",
    "The arrival time at a hub from another, leaving at or after an hour, is the earliest arrival of any route whose first "
    "departure is not before that hour. Without a route it counts as 99 o'clock; from a hub to itself it is that hour.",
    "The route fare from one hub to another is that of the cheapest route, at any hour: its basic fares added up plus a fee "
    "of 8 credits per line. Without a route it counts as 9999 credits; from a hub to itself it is 0.",
    "To buy tickets by the cheapest route, buy one ticket for each line of a route with the route fare; every such route "
    "will do that has no line for which the member holds a ticket already.",
    "Two bids exclude one another if they have the same theme, whatever their funds are.",
    "Several bids of a fund can be granted together if each of them is grantable, no two of them exclude one another, and "
    "their amounts add up to no more than the free budget of the fund.",
    "The free budget of a fund is its budget, less a reserve of 10 percent of that, the reserve rounded up to whole credits, "
    "less the amounts of its granted bids; nothing else lowers it.",
    "A bid is grantable if all of this holds: its state is open; its amount is at most the free budget of its fund; no "
    "granted bid excludes it.",
    "The attainable merit of a fund is the most that the merits of any of its bids that can be granted together add up to, "
    "0 if none can be granted.",
    "Only a grantable bid may be granted; its state is granted then.",
    "To distribute a fund by merit, grant bids of it that can be granted together and whose merits add up to its attainable "
    "merit; every such set will do.",
    "Descriptions and conditions in a request are about the state before the first change that it asks for.",
    "A request with conditions covers everything that meets them, also what a rule leaves out of a value that the rule "
    "defines.",
)
ROWS = {
    "site": [(1, "Ash"), (2, "Birch"), (3, "Cedar")],
    "person": [(1, "Ann Lee"), (2, "Bob Ray")],
    "resource": [(1, "Oak", 8, 10, 1), (2, "Elm", 8, 20, 1), (3, "Fir", 4, 30, 2)],
    "booking": [
        (1, 1, 1, DAY, 9, 11, 3, "active"),
        (2, 2, 1, DAY, 9, 11, 3, "tentative"),
        (3, 3, 2, DAY, 11, 12, 2, "active"),
    ],
    "leg": [
        (1, 1, 2, 8, 10, 30, 5),
        (2, 2, 3, 11, 12, 10, 5),
        (3, 1, 3, 9, 13, 48, 5),
        (4, 1, 3, 7, 8, 5, 1),
        (5, 2, 3, 10, 11, 1, 5),
    ],
    "ticket": [(1, 4, 2)],
    "fund": [(1, "Gold", 111)],
    "topic": [(1, "Art"), (2, "Music"), (3, "Sport")],
    "claim": [
        (1, "P", 1, 1, 1, 60, 30, "open"),
        (2, "Q", 1, 1, 2, 39, 20, "open"),
        (3, "R", 1, 2, 1, 39, 21, "open"),
        (4, "S", 1, 2, 3, 100, 90, "open"),
        (5, "T", 1, 2, 2, 38, 20, "open"),
    ],
}  # fmt: skip
REFERENCES = {
    ("resource", "site"): "site", ("booking", "resource"): "resource", ("booking", "person"): "person",
    ("leg", "origin"): "site", ("leg", "destination"): "site", ("ticket", "leg"): "leg", ("ticket", "person"): "person",
    ("claim", "fund"): "fund", ("claim", "person"): "person", ("claim", "topic"): "topic",
}  # fmt: skip
KEYS = {
    "site": ("id", "name"),
    "person": ("id", "name"),
    "resource": ("id", "name", "capacity", "rate", "site"),
    "booking": ("id", "resource", "person", "day", "start", "end", "headcount", "status"),
    "leg": ("id", "origin", "destination", "departs", "arrives", "fare", "seats"),
    "ticket": ("id", "leg", "person"),
    "fund": ("id", "name", "budget"),
    "topic": ("id", "name"),
    "claim": ("id", "name", "fund", "person", "topic", "amount", "merit", "state"),
}


def column(entity, key):
    label = next(item[2] for item in DOCS["attrs"] if item[:2] == [entity, key])
    target = REFERENCES.get((entity, key))
    if target is None:
        told = f"its {key}" if key in ("id", "name") else label
        return {"name": key, "description": told, "references": None}
    noun = DOCS["entities"][target][0]
    told = f"id of the {noun}" + ("" if label == noun else f" that is the {label}")
    return {"name": f"{key}_id", "description": told, "references": f"{target}.id"}


def make(prompt, policy=POLICY):
    tables = tuple(
        {
            "name": entity,
            "description": f"one {DOCS['entities'][entity][0]} per row",
            "primary_key": ["id"],
            "columns": [column(entity, key) for key in keys],
        }
        for entity, keys in KEYS.items()
    )
    names = {table["name"]: [item["name"] for item in table["columns"]] for table in tables}
    rows = {entity: [dict(zip(names[entity], row, strict=True)) for row in ROWS[entity]] for entity in KEYS}
    return PublicTask(prompt, {}, policy, DOCS, tables, rows)


def answers(prompt, policy=POLICY):
    return [dict(item.answer) for item in solve(make(prompt, policy)).outcomes]


FREE = (
    'Count the rooms that are free on 2031-05-06 from {0} o\'clock to {1} o\'clock; call the number X1. '
    'Report X1 as "n" (a whole number).'
)  # fmt: skip


@pytest.mark.parametrize(
    ("start", "end", "rooms"),
    [(12, 13, 2), (13, 14, 3), (11, 12, 1), (7, 8, 3), (6, 8, 0), (18, 19, 3), (18, 20, 0), (8, 8, 0), (8, 9, 2)],
)
def test_a_room_is_free_between_gaps_and_opening_hours(start, end, rooms):
    assert answers(FREE.format(start, end)) == [{"n": rooms}]


@pytest.mark.parametrize(
    ("register", "prompt"),
    [
        ("plain", 'Find the room with the lowest hourly rate among the rooms whose capacity is at least 8 people; call that room X1. '
                  'Report the name of X1 as "a" (a name).'),
        ("formal", 'Among the rooms whose capacity is no less than 8 people, let X1 be the room with the smallest hourly rate. '
                   'The answer shall consist of "a": the name of X1 (a name).'),
        ("terse", 'X1: among the rooms whose capacity >= 8 people, the room with the min hourly rate. '
                  'Return "a": the name of X1 (a name).'),
    ],
)  # fmt: skip
def test_registers_mean_the_same(register, prompt):
    assert answers(prompt) == [{"a": "Oak"}]


def test_a_changed_comparator_changes_the_answer():
    prompt = "Add up the hourly rate over the rooms whose capacity {} 4 people; call the sum X1. "
    prompt += 'At the end, give X1 as "s" (a whole number of credits).'
    found = {
        sign: answers(prompt.format(f"is {sign}"))[0]["s"] for sign in ("at least", "more than", "at most", "less than")
    }
    assert found == {"at least": 60, "more than": 30, "at most": 30, "less than": 0}


def test_charge_doubles_in_the_evening_hours():
    prompt = "Find the room whose name is 'Oak'; call that room X1. Report X1's charge from {} o'clock to {} o'clock as \"c\" "
    prompt += "(a whole number of credits)."
    assert answers(prompt.format(12, 16)) == [{"c": 60}]
    assert answers(prompt.format(16, 12)) == [{"c": 0}]


def test_routes_need_free_seats_and_time_to_change():
    prompt = (
        "Find the hub whose name is 'Cedar'; call that hub X1. Report X1's {} as \"c\" (a whole number of credits)."
    )
    # line 4 is sold out, line 5 leaves in the hour of arrival: two lines for 30 + 10 + 16, or one for 48 + 8
    assert answers(prompt.format("route fare from the hub Ash")) == [{"c": 56}]
    assert answers(prompt.format("arrival time from the hub Ash leaving at or after 8 o'clock")) == [{"c": 12}]
    assert answers(prompt.format("arrival time from the hub Ash leaving at or after 9 o'clock")) == [{"c": 13}]
    assert answers(prompt.format("arrival time from the hub Ash leaving at or after 10 o'clock")) == [{"c": 99}]


def test_all_cheapest_routes_are_right():
    solved = solve(
        make(
            "Please buy tickets for the member Ann Lee from the hub Ash to the hub Cedar by the cheapest route. "
            "Return an empty object."
        )
    )
    legs = {tuple(sorted(dict(change.cells)["leg"].index for change in item.deed)) for item in solved.outcomes}
    assert legs == {(0, 1), (2,)}


def test_all_best_sets_of_a_fund_are_right():
    # 111 less 12 leaves 99: P and Q, or P and T, are worth 50; S alone is too dear; P and R, worth more, exclude one another
    solved = solve(make("Then distribute the fund Gold by merit. Answer: an empty object."))
    granted = {tuple(sorted(change.row.index for change in item.deed)) for item in solved.outcomes}
    assert granted == {(0, 1), (0, 4)}
    assert all(change.cells == (("state", "granted"),) for item in solved.outcomes for change in item.deed)


def test_a_choice_has_all_best_sets():
    prompt = "Choose 2 different rooms such that no two of them share the same hub and their combined hourly rate is {}; call "
    prompt += 'the chosen rooms X1 ({}). Answer with "rooms": the names of X1 (a list of names, in any order).'
    some = answers(prompt.format("at least 40 credits", "any such choice is accepted"))
    best = answers(prompt.format("as large as possible", "any best choice is accepted"))
    assert {item["rooms"] for item in some} == {frozenset({"Oak", "Fir"}), frozenset({"Elm", "Fir"})}
    assert [item["rooms"] for item in best] == [frozenset({"Elm", "Fir"})]
    with pytest.raises(NotCoveredError, match="prompt not understood"):
        answers(prompt.format("as large as possible", "any such choice is accepted"))


OR_NONE = {
    "plain": (
        "Choose 2 different rooms such that no two of them share the same hub and their combined hourly rate is {0}; call the "
        "chosen rooms X1 (any such choice is accepted; if there is none, X1 is empty). Work out the combined hourly rate of X1 "
        "or, if X1 is empty, the {1} total of any choice that meets every condition but the bound on this total; call that total X2. ",
        {">=": "at least", "<=": "at most"}, {"max": "highest", "min": "lowest"},
    ),
    "formal": (
        "Let X1 be a selection of 2 different rooms such that no two of them have the same hub and their total hourly rate is "
        "{0}; any such choice is accepted; if there is none, X1 is empty. Determine the sum of the hourly rate over X1 or, "
        "should X1 be empty, the {1} sum of any choice that meets every condition but the bound on this total; that sum is referred to as X2. ",
        {">=": "no less than", "<=": "no more than"}, {"max": "greatest", "min": "smallest"},
    ),
    "terse": (
        "X1: 2 different rooms, with no two of the same hub and total hourly rate {0}; any such choice is accepted; if there is "
        "none, X1 is empty. Get X2: the total hourly rate of X1 or, for an empty X1, the {1} total of any choice that "
        "meets every condition but the bound on this total. ",
        {">=": ">=", "<=": "<="}, {"max": "max", "min": "min"},
    ),
}  # fmt: skip
BOTH = 'Return "rooms": the names of X1 (a list of names, in any order) and "rate": X2 (a whole number of credits).'


def or_none(sign, bound, end, register="plain"):
    way, signs, ends = OR_NONE[register]
    return way.format(f"{signs[sign]} {bound} credits", ends[end]) + BOTH


@pytest.mark.parametrize("register", OR_NONE)
@pytest.mark.parametrize(
    ("sign", "bound", "end", "found"),
    [
        (">=", 50, "max", [({"Elm", "Fir"}, 50)]),
        (">=", 40, "max", [({"Elm", "Fir"}, 50), ({"Oak", "Fir"}, 40)]),
        (">=", 51, "max", [(set(), 50)]),  # Oak and Elm are of one hub, so no two are cheaper than 40
        ("<=", 40, "min", [({"Oak", "Fir"}, 40)]),
        ("<=", 39, "min", [(set(), 40)]),
    ],
)
def test_a_choice_is_empty_only_if_there_is_none(register, sign, bound, end, found):
    told = [(set(item["rooms"]), item["rate"]) for item in answers(or_none(sign, bound, end, register))]
    assert sorted(told, key=str) == sorted(found, key=str)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("the highest total", "the lowest total"),  # a bound from below has a highest total
        ("Work out the combined hourly rate", "Work out the combined capacity"),
        ("if there is none, X1", "if there is none, X2"),
        ("; if there is none, X1 is empty", ""),
        ("of X1 or, if X1", "of X1 or, if X3"),
        ("at least 51 credits", "exactly 51 credits"),
    ],
)
def test_the_total_of_a_choice_goes_with_its_bound(old, new):
    prompt = or_none(">=", 51, "max")
    assert len(answers(prompt)) == 1
    assert old in prompt
    with pytest.raises(NotCoveredError, match="prompt not understood"):
        answers(prompt.replace(old, new, 1))


@pytest.mark.parametrize(("bound", "told"), [(8, [({"Elm"}, 8), ({"Oak"}, 8)]), (9, [(set(), 8)])])
def test_the_nearest_total_keeps_to_the_other_conditions_and_no_goal(bound, told):
    prompt = (
        "Choose 1 different rooms whose capacity is at least {1} people such that their combined capacity is at least {0} people"
        "{2}; call the chosen rooms X1 (any {3} choice is accepted; if there is none, X1 is empty). Add up the capacity over X1 or, "
        "if X1 is empty, take the highest total of any choice that meets every condition but the bound on this total; call that total X2. "
    ) + BOTH.replace("credits", "people")

    def found(*parts):
        return sorted(((set(item["rooms"]), item["rate"]) for item in answers(prompt.format(*parts))), key=str)

    assert found(bound, 4, "", "such") == sorted(told, key=str)
    goal = " and their combined hourly rate is as {} as possible"
    if bound == 8:
        assert found(bound, 4, goal.format("small"), "best") == [({"Oak"}, 8)]
    else:  # the largest of all is 8 either way, but the dearest room has 4
        assert found(bound, 4, goal.format("small"), "best") == told
        with pytest.raises(NotCoveredError, match="depends on whether its goal holds"):
            answers(prompt.format(bound, 4, goal.format("large"), "best"))


def test_no_set_at_all_has_no_nearest_total():
    prompt = or_none(">=", 51, "max").replace("2 different rooms", "3 different rooms")  # of two hubs
    assert answers(prompt) == []


REQUESTS = {
    "plain": ("Try to {}; call the outcome X2: 'done' or, if it is refused, 'denied'. ", 'Report X2 as "w" (a text).'),
    "formal": (
        "You are to {} if the rules allow it; X2 denotes 'done' or, if it is refused, 'denied'. ",
        'The answer shall consist of "w": X2 (a text).',
    ),
    "terse": ("Attempt: {}; X2: 'done' or, if refused, 'denied'. ", 'Answer: "w": X2 (a text).'),
}


@pytest.mark.parametrize("register", REQUESTS)
@pytest.mark.parametrize(
    ("act", "word", "rows"),
    [
        ("cancel the slot with id 3", "done", 1),
        ("cancel the slot with id 4", "denied", 0),
        ("buy tickets for the member Ann Lee from the hub Ash to the hub Birch by the cheapest route", "done", 1),
        ("buy tickets for the member Ann Lee from the hub Cedar to the hub Ash by the cheapest route", "denied", 0),
        ("distribute the fund Gold by merit", "done", 2),
    ],
)
def test_requests_are_done_or_denied(monkeypatch, register, act, word, rows):
    monkeypatch.setitem(ROWS, "booking", [*ROWS["booking"], (4, 3, 2, DAY, 14, 15, 2, "cancelled")])
    way, told = REQUESTS[register]
    outcomes = solve(make(way.format(act) + told)).outcomes
    assert {dict(item.answer)["w"] for item in outcomes} == {word}
    assert {len(item.deed) for item in outcomes} == {rows}


def test_a_request_that_no_rule_decides_is_not_covered(monkeypatch):
    way, told = REQUESTS["plain"]
    with pytest.raises(NotCoveredError, match="does not tell whether a journey"):
        solve(
            make(
                way.format("buy tickets for the member Ann Lee from the hub Ash to the hub Ash by the cheapest route")
                + told
            )
        )
    monkeypatch.setitem(ROWS, "claim", [(*row[:-1], "refused") for row in ROWS["claim"]])
    with pytest.raises(NotCoveredError, match="does not tell whether a distribution"):
        solve(make(way.format("distribute the fund Gold by merit") + told))
    plain = "Please distribute the fund Gold by merit. Answer: an empty object."
    assert solve(make(plain)).outcomes == ()


def test_wrong_choices_and_requests_are_among_the_wrong_outcomes(monkeypatch):
    def found(prompt):
        solved = solve(make(prompt))
        wrong = wrong_outcomes(solved, random.Random(0), 60)
        assert not {effect(solved.world, item) for item in solved.outcomes}.intersection(item.outcome for item in wrong)
        return [
            (dict(item.outcome.answer), len(item.outcome.deed))
            for item in wrong
            if item.source in ("choice", "request")
        ]

    none, some = frozenset(), {frozenset({"Elm", "Fir"}), frozenset({"Oak", "Fir"})}
    empty = [answer for answer, _ in found(or_none(">=", 51, "max"))]
    assert some <= {answer["rooms"] for answer in empty}
    assert {answer["rate"] for answer in empty if answer["rooms"] == none} >= {40}  # the other end
    full = [answer for answer, _ in found(or_none(">=", 50, "max"))]
    assert {(answer["rooms"], answer["rate"]) for answer in full} >= {(none, 50), (frozenset({"Oak", "Fir"}), 40)}
    assert any(answer["rooms"] == frozenset({"Elm", "Fir"}) and answer["rate"] != 50 for answer in full)

    monkeypatch.setitem(ROWS, "booking", [*ROWS["booking"], (4, 3, 2, DAY, 14, 15, 2, "cancelled")])
    way, told = REQUESTS["plain"]
    done = found(way.format("cancel the slot with id 3") + told)
    assert sorted((answer["w"], rows) for answer, rows in done) == [("denied", 0), ("denied", 1), ("done", 0)]
    # nothing is left to change when a cancelled slot is cancelled
    assert found(way.format("cancel the slot with id 4") + told) == [({"w": "done"}, 0)]


def test_conditions_and_repeats_change_rows():
    prompt = "For each of the slots whose status is 'active', cancel it. Report: an empty object."
    (right,) = solve(make(prompt)).outcomes
    assert {(change.row.index, change.cells) for change in right.deed} == {
        (0, (("status", "cancelled"),)), (2, (("status", "cancelled"),)),
    }  # fmt: skip
    prompt = "Take the slot with id 3; call that slot X1. If the headcount of X1 is more than 2 people, cancel X1; otherwise, do nothing. "
    with pytest.raises(NotCoveredError, match="prompt not understood"):  # an id is not a condition in this language
        solve(make(prompt + "Report: an empty object."))
    prompt = prompt.replace("slot with id 3", "slot whose holder is the member Bob Ray")
    assert solve(make(prompt + "Report: an empty object.")).outcomes == (Right((), ()),)
    (right,) = solve(make(prompt.replace("more than 2", "at least 2") + "Report: an empty object.")).outcomes
    assert right.deed == (Change("booking", Handle("booking", 2), (("status", "cancelled"),)),)


@pytest.mark.parametrize("warning", WARNINGS)
def test_a_warning_of_calls_that_fail_changes_nothing_that_is_right(warning):
    prompt = "For each of the slots whose status is 'active', cancel it. {}Report: an empty object."
    assert solve(make(prompt.format(f"{warning} "))).outcomes == solve(make(prompt.format(""))).outcomes
    with pytest.raises(NotCoveredError, match="prompt not understood"):
        solve(make(prompt.format(f"{warning.replace('503', '500')} ")))


def test_all_warnings_of_prompts_are_known():
    texts = {render(Task((Caution(),), ()), DOCS, *voice) for voice in itertools.product(REGISTERS, range(9))}
    assert {warning for text in texts for warning in WARNINGS if text.startswith(warning)} == set(WARNINGS)
    assert all(text.startswith(WARNINGS) for text in texts)


@pytest.mark.parametrize("limit", LIMITS)
def test_a_limit_of_calls_changes_nothing_that_is_right(limit):
    prompt = "For each of the slots whose status is 'active', cancel it. {}Report: an empty object."
    assert solve(make(prompt.format(f"{limit} "))).outcomes == solve(make(prompt.format(""))).outcomes
    with pytest.raises(NotCoveredError, match="prompt not understood"):
        solve(make(prompt.format(f"{limit.replace('imit', 'ist')} ")))


def test_all_limits_of_prompts_are_known():
    texts = {render(Task((Budget(),), ()), DOCS, *voice) for voice in itertools.product(REGISTERS, range(9))}
    assert {limit for text in texts for limit in LIMITS if text.startswith(f"{limit} ")} == set(LIMITS)
    assert all(text.startswith(LIMITS) for text in texts)


def test_a_route_with_a_ticket_held_already_is_not_bought(monkeypatch):
    monkeypatch.setitem(ROWS, "ticket", [*ROWS["ticket"], (2, 3, 1)])
    prompt = "Please buy tickets for the member {} from the hub Ash to the hub Cedar by the cheapest route. Answer: an empty object."
    legs = {
        name: {tuple(sorted(dict(change.cells)["leg"].index for change in item.deed)) for item in found.outcomes}
        for name in ("Ann Lee", "Bob Ray")
        for found in [solve(make(prompt.format(name)))]
    }
    assert legs == {"Ann Lee": {(0, 1)}, "Bob Ray": {(0, 1), (2,)}}


def test_a_cancelled_slot_is_not_cancelled_again(monkeypatch):
    prompt = "Please cancel the slot with id 3. Answer: an empty object."
    assert len(solve(make(prompt)).outcomes) == 1
    monkeypatch.setitem(ROWS, "booking", [(*row[:-1], "cancelled") for row in ROWS["booking"]])
    assert solve(make(prompt)).outcomes == ()


@pytest.mark.parametrize("added", [" Thanks.", " ", " Report: an empty object."])
def test_a_prompt_is_understood_to_its_last_character(added):
    with pytest.raises(NotCoveredError, match="prompt not understood"):
        answers(FREE.format(12, 13) + added)


def test_a_name_is_given_once():
    prompt = "Count the rooms; call the number X1. " + FREE.format(12, 13)
    with pytest.raises(NotCoveredError, match="prompt not understood"):
        answers(prompt)
    assert answers(prompt.replace("X1", "X2", 1)) == [{"n": 2}]


def test_what_the_policy_forbids_has_no_right_outcome():
    prompt = "Please buy tickets for the member Ann Lee from the hub Cedar to the hub Ash by the cheapest route. "
    assert solve(make(prompt + "Return an empty object.")).outcomes == ()


def test_a_description_of_one_row_that_fits_more_or_none_has_no_right_outcome():
    prompt = 'Find the room whose capacity is {} people; call that room X1. Report the name of X1 as "a" (a name).'
    assert answers(prompt.format("exactly 4")) == [{"a": "Fir"}]
    assert answers(prompt.format("exactly 8")) == answers(prompt.format("exactly 5")) == []
    prompt = (
        'Find the room with the {} capacity among all rooms; call that room X1. Report the name of X1 as "a" (a name).'
    )
    assert answers(prompt.format("lowest")) == [{"a": "Fir"}]
    assert answers(prompt.format("highest")) == []


GROUPS = {
    "plain": ("Find the {} with the {} {}{}; call that {} X1.", "fewest", "lowest combined"),
    "formal": (
        "Determine the {} that has the {} {}{}; that {} is referred to as X1.",
        "smallest number of",
        "smallest combined",
    ),
    "terse": ("Get {5}: the {0} with the {1} {2}{3}.", "fewest", "min total"),
}
NAME = ' Report: the name of X1 as "n" (a name).'


@pytest.mark.parametrize("register", GROUPS)
@pytest.mark.parametrize(
    ("entity", "relation", "term", "few", "low"),
    [
        ("slots", "holder", "headcount", "Bob Ray", "Bob Ray"),  # 1 slot for 2, 2 for 6
        ("rooms", "hub", "capacity", "Birch", "Birch"),  # Cedar has none, and is no group of 0
        ("bids", "theme", "amount", "Sport", "Music"),  # 1 for 100, 2 for 99, 2 for 77
        ("lines", "origin", "basic fare", "Birch", "Birch"),  # 2 for 11, 3 for 83
        ("lines", "destination", "basic fare", "Birch", "Birch"),  # 1 for 30, 4 for 64
    ],
)
def test_groups_are_compared(register, entity, relation, term, few, low):
    way, fewest, lowest = GROUPS[register]
    units = {item[2]: item[3][1] for item in DOCS["attrs"] if item[3][0] == "row"}
    none = f" ({DOCS['entities'][units[relation]][1]} with none do not count)"
    least = way.format(relation, fewest, entity, none, relation, "X1")
    assert answers(least + NAME) == [{"n": few}]
    assert answers(way.format(relation, lowest, f"{term} over all {entity}", none, relation, "X1") + NAME) == [
        {"n": low}
    ]


def test_largest_groups_meet_conditions_and_ties_are_none():
    prompt = (
        "Of the lines whose basic fare is {}, work out which destination has the most; call that destination X1." + NAME
    )
    assert answers(prompt.format("at least 1 credit")) == [{"n": "Cedar"}]
    assert answers(prompt.format("at least 30 credits")) == []  # one line each
    assert answers(prompt.format("at least 48 credits")) == [{"n": "Cedar"}]
    prompt = (
        "Over the slots whose status is 'active', let X1 be the holder with the greatest combined headcount." + NAME
    )
    assert answers(prompt) == [{"n": "Ann Lee"}]


@pytest.mark.parametrize(("noun", "told"), [("members", False), ("hubs", True)])
def test_a_group_of_none_must_be_told_where_it_matters(noun, told):
    relation = {"members": "holder", "hubs": "hub"}[noun]
    rows = {"members": "slots", "hubs": "rooms"}[noun]
    prompt = f"Find the {relation} with the fewest {rows}{{}}; call that {relation} X1." + NAME
    said = answers(prompt.format(f" ({noun} with none do not count)"))
    if told:  # the hub Cedar has no room
        with pytest.raises(NotCoveredError, match="a group of no rows"):
            answers(prompt.format(""))
    else:
        assert answers(prompt.format("")) == said


@pytest.mark.parametrize(
    "prompt",
    [
        "Find the holder with the fewest rooms; call that holder X1.",
        "Find the holder with the fewest slots (hubs with none do not count); call that holder X1.",
        "Find the holder with the fewest slots; call that member X1.",
        "Find the holder with the highest combined capacity over all slots; call that holder X1.",
        "Find the room whose capacity is exactly 4 people; call that hub X1.",
        "Find the room with the highest capacity among all rooms; call that slot X1.",
    ],
)
def test_parts_of_a_sentence_must_fit(prompt):
    with pytest.raises(NotCoveredError, match="prompt not understood"):
        answers(prompt + NAME)


def test_a_row_behind_its_own_noun_goes_by_its_name():
    prompt = 'Count the {} whose {}; call the number X1. Report X1 as "n" (a whole number).'
    assert answers(prompt.format("rooms", "hub is Ash")) == [{"n": 2}]
    assert answers(prompt.format("rooms", "hub is not the hub Ash")) == [{"n": 1}]
    assert answers(prompt.format("bids", "theme is Art and whose merit is less than 25 points")) == [{"n": 1}]
    assert answers(prompt.format("tickets", "booked line is the one with id 4")) == [{"n": 1}]
    with pytest.raises(NotCoveredError, match="prompt not understood"):
        answers(prompt.format("slots", "holder is Ann Lee"))


@pytest.mark.parametrize("place", range(len(POLICY)))
def test_an_unknown_policy_is_not_covered(place):
    changed = (*POLICY[:place], POLICY[place].replace("is", "is never").replace("are", "are never") + " Mostly.")
    prompt = FREE.format(12, 13)
    if POLICY[place].startswith("The arrival time"):  # names no table of the three, so it must be what the prompt needs
        prompt = "Find the hub with the earliest arrival time from the hub Ash leaving at or after 8 o'clock among all hubs; "
        prompt += 'call that hub X1. Report the name of X1 as "n" (a name).'
    with pytest.raises(
        NotCoveredError, match=r"policy not understood|policy says nothing of (hours|snapshot|all_rows|arrival)"
    ):
        answers(prompt, (*changed, *POLICY[place + 1 :]))


def test_a_missing_policy_is_not_covered():
    with pytest.raises(NotCoveredError, match="says nothing of free"):
        answers(FREE.format(12, 13), tuple(told for told in POLICY if not told.startswith("A room is free")))


@pytest.mark.parametrize("damage", ["of rooms", "12 hours", "X7", "Count the room "])
def test_a_damaged_prompt_is_not_understood(damage):
    prompt = FREE.format(12, 13)
    start = {"of rooms": "rooms", "12 hours": "12 o'clock", "X7": "X1 as", "Count the room ": "Count the rooms "}[
        damage
    ]
    with pytest.raises(NotCoveredError, match="prompt not understood"):
        answers(prompt.replace(start, damage))


def test_every_frame_and_template_differs():
    ways = [way for found in STEPS.values() for way in found]
    assert len(set(ways)) == len(ways)
    assert len(set(TEMPLATES.values())) == len(TEMPLATES)
    assert len(Reader(World(make(FREE.format(12, 13)))).programs()) == 1


# ----------------------------------------------------------------------------------------------------- wrong outcomes


def test_wrong_outcomes_are_many_distinct_and_never_right():
    for prompt in (
        FREE.format(12, 13),
        "Then distribute the fund Gold by merit. Answer: an empty object.",
        "Please buy tickets for the member Ann Lee from the hub Ash to the hub Cedar by the cheapest route. Return an empty object.",
    ):
        solved = solve(make(prompt))
        found = wrong_outcomes(solved, random.Random(0), 40)
        right = {effect(solved.world, item) for item in solved.outcomes}
        assert len({item.outcome for item in found}) == len(found) == 40
        assert not right.intersection(item.outcome for item in found)
    assert {"policy", "program", "answer", "state"} == {
        item.source for item in wrong_outcomes(solve(make(FREE.format(12, 13))), random.Random(0), 40)
    }


def test_careless_readers_compare_other_groups():
    prompt = "Over all lines, work out which origin has the highest combined basic fare; call that origin X1." + NAME
    solved = solve(make(prompt))
    told = {
        (group.relation.key, group.term is None, group.largest)
        for program in variants(solved.world, solved.program)
        for group in program.steps
    }
    assert told >= {("origin", False, False), ("origin", True, True), ("destination", False, True)}
    assert not any(group.relation.unit != "site" for group in solved.program.steps)
    found = wrong_outcomes(solved, random.Random(0), 40)
    assert {dict(item.outcome.answer)["n"] for item in found if item.source == "program"} == {"Birch", "Cedar"}
    assert dict(solved.outcomes[0].answer) == {"n": "Ash"}


# -------------------------------------------------------------------------------------------------------- two persons


def test_the_room_imports_nothing_of_the_package():
    found = set()
    for path in sorted(ROOM.glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                found.add(node.module)
    assert not [
        name for name in found if name.split(".")[0] not in sys.stdlib_module_names and "acceptance.truth" not in name
    ]
    code = "import sys, acceptance.truth.wrong; print([n for n in sys.modules if n.split('.')[0] == 'envsynth'])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOM.parents[1], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.fixture(scope="module")
def few():
    return list(itertools.islice(synthesis_truth.drawn("tests"), 9))


def test_the_reader_gets_nothing_of_the_private_half(few):
    assert {item.name for item in dataclasses.fields(PublicTask)} == {
        "prompt", "answer_schema", "policy", "docs", "tables", "rows",
    }  # fmt: skip
    spec, task = few[0]
    bare = task.model_copy(
        update={
            "ir": None,
            "solution": "",
            "verifier": Verifier(form="program", program="x"),
            "ablations": {},
            "probes": (),
        }
    )
    assert synthesis_truth.public(spec, bare) == synthesis_truth.public(spec, task)
    assert "oracle" not in repr(synthesis_truth.public(spec, task))


def test_verifiers_agree_and_broken_ones_are_noticed(few, jail):
    tally = synthesis_truth.measure(few, jail, 100, 0)
    assert tally.drawn == 9
    assert tally.tasks >= 4
    assert set(tally.accepted) == set(tally.refused) == {True}
    assert not tally.disagreements
    yes = Verifier(
        form="program", program="def verify(answer, before, after, diff):\n    return {'ok': True, 'reasons': []}"
    )
    no = Verifier(
        form="program", program="def verify(answer, before, after, diff):\n    return {'ok': False, 'reasons': []}"
    )
    lax = synthesis_truth.measure(
        [(spec, task.model_copy(update={"verifier": yes})) for spec, task in few], jail, 100, 0
    )
    assert set(lax.accepted) == {True}
    assert lax.refused[False] > 10 * lax.tasks  # the schema of the answer refuses some
    assert lax.disagreements
    strict = synthesis_truth.measure(
        [(spec, task.model_copy(update={"verifier": no})) for spec, task in few], jail, 100, 0
    )
    assert set(strict.accepted) == {False}
    assert set(strict.refused) == {True}


def test_a_dropped_atom_is_noticed(few, jail):
    """Not only a verifier that accepts all: one that lacks a single condition."""
    noticed = Counter()
    for spec, task in few:
        atoms = task.verifier.atoms
        for place, atom in enumerate(atoms):
            if atom.id.endswith((".count", ".exists", ".order")):
                continue  # the schema of the answer, or the conditions on what is left, or the one repair, say the same
            if task.kind == "infeasible" and atom.id.partition(".")[2].startswith(("none", "atom")):
                continue  # where there is no choice, none is right; there may be none without one condition either
            left = (*atoms[:place], *atoms[place + 1 :]) or (
                GoalAtom(id="any", kind="answer", quote="", expression="1"),
            )
            broken = task.model_copy(update={"verifier": task.verifier.model_copy(update={"atoms": left})})
            tally = synthesis_truth.measure([(spec, broken)], jail, 1, 0)
            noticed[bool(tally.disagreements)] += tally.tasks
    assert noticed[True] > 8
    assert noticed[False] == 0


@pytest.fixture(scope="module")
def ended():
    """A task for each way in which a choice or a request ends."""
    found = {}
    for spec, task in itertools.islice(synthesis_truth.drawn("tests"), 80):
        if task.kind in ("plan", "optimise", "infeasible", "service"):
            try:
                ending = synthesis_truth.ending_of(solve(synthesis_truth.public(spec, task)))
            except NotCoveredError:
                continue
            found.setdefault(ending, (spec, task))
        if len(found) == 4:
            break
    return found


def test_verifiers_agree_about_choices_and_requests(ended, jail):
    assert set(ended) == {"chosen", "empty", "done", "denied"}
    tally = synthesis_truth.measure(ended.values(), jail, 100, 0)
    assert tally.endings == dict.fromkeys(ended, 1)
    assert tally.tasks == 4
    assert set(tally.accepted) == set(tally.refused) == {True}
    assert tally.sources["choice"] > 10
    assert tally.sources["request"] > 3
    assert not tally.disagreements
    assert not tally.mistaken


@pytest.mark.parametrize(
    ("ending", "atoms"),
    [
        ("chosen", ("none", "con0", "value")),  # none where there is a choice, one that misses the bound, another total
        ("empty", ("con0", "value")),  # a choice of what is left without the bound, another total
        ("done", ("value",)),
        ("denied", ("value",)),
    ],
)
def test_a_verifier_that_is_lax_about_choices_or_requests_is_noticed(ended, jail, ending, atoms):
    spec, task = ended[ending]
    for name in atoms:
        left = tuple(atom for atom in task.verifier.atoms if not atom.id.endswith(f".{name}"))
        assert len(left) < len(task.verifier.atoms)
        lax = task.model_copy(update={"verifier": task.verifier.model_copy(update={"atoms": left})})
        tally = synthesis_truth.measure([(spec, lax)], jail, 1, 0)
        assert set(tally.accepted) == {True}
        assert tally.refused[False], name


def test_a_kind_that_says_another_ending_is_noticed(ended, jail):
    told = {"chosen": "infeasible", "empty": "plan"}
    tasks = [(ended[name][0], ended[name][1].model_copy(update={"kind": kind})) for name, kind in told.items()]
    tally = synthesis_truth.measure(tasks, jail, 100, 0)
    assert tally.mistaken == 2
    assert set(tally.refused) == {True}


def test_a_run_goes_on_until_all_sorts_are_covered():
    kinds = ("all", *synthesis_truth.MECHANISMS, "read", "optimise", "act", "service", "infeasible")
    tally = synthesis_truth.Tally(covered=Counter(dict.fromkeys(kinds, 1)))
    assert tally.enough(1, 1)
    assert not tally.enough(2, 1)
    assert not tally.enough(1, 60)
    for name in kinds:
        tally.covered[name] = 0
        assert not tally.enough(1, 1)
        tally.covered[name] = 1


def test_a_wrong_rule_of_the_reader_is_noticed(few, jail, monkeypatch):
    """When the second reader is the one that errs, the lines fail as well."""
    original = Facts.value

    def off_by_one(self, handle, key, arguments=()):
        found = original(self, handle, key, arguments)
        return found + 1 if isinstance(found, int) and not isinstance(found, bool) else found

    monkeypatch.setattr(Facts, "value", off_by_one)
    assert synthesis_truth.measure(few, jail, 100, 0).disagreements


def test_a_task_without_a_right_outcome_is_noticed(few, jail, monkeypatch):
    solved = synthesis_truth.solve(synthesis_truth.public(*few[0]))
    monkeypatch.setattr(synthesis_truth, "solve", lambda task: dataclasses.replace(solved, outcomes=()))
    tally = synthesis_truth.measure(few[:1], jail, 100, 0)
    assert set(tally.accepted) == {False}
    assert "no outcome is right" in tally.disagreements[0]
