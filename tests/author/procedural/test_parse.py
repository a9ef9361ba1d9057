"""The parser reads all of a text or refuses it, and never guesses between two meanings."""

from __future__ import annotations

import ast
import json
import pickle
import re
import subprocess
import sys
from pathlib import Path

import pytest

from envsynth.author.procedural import parse as package
from envsynth.author.procedural.ir import (
    Atom,
    Attr,
    Const,
    Count,
    Let,
    Of,
    Pick,
    Ref,
    Task,
    to_json,
)
from envsynth.author.procedural.parse import ParseError, parse

ALL = json.loads((Path(__file__).parent / "prompt_docs.json").read_text(encoding="utf-8"))
ROOMS, STOCK = ALL["booking"], ALL["inventory"]
REPORT = 'Report the name of X1 as "room_name" (a name).'
FIND = (
    "Find the room with the highest hourly rate among the rooms whose capacity is at least 6 people; call that room X1."
)
COUNT = 'Count {}; call the number X1. Report X1 as "n" (a whole number).'


def test_parse_reads_the_program_that_the_text_states():
    atom = Atom(Attr("capacity"), ">=", Const(6, "num", "people"))
    task = Task(
        (Let("X1", Pick("resource", (atom,), "max", Attr("rate"))),),
        (("room_name", Of("X1", Attr("name"))),),
    )
    assert parse(f"{FIND} {REPORT}", ROOMS) == task


def test_parse_mixes_registers():
    text = 'X1: count of rooms whose capacity is at least 6 people. The answer shall state X1 as "n" (a whole number).'
    atom = Atom(Attr("capacity"), ">=", Const(6, "num", "people"))
    assert parse(text, ROOMS) == Task((Let("X1", Count("resource", (atom,))),), (("n", Ref("X1")),))


def test_parse_takes_the_longer_of_two_labels_where_it_fits():
    short, long = (
        parse(COUNT.format(f"the reagents whose {label} is exactly 3 credits"), STOCK).steps[0].node.atoms[0].attr.name
        for label in ("list price", "list price with tax")
    )
    assert (short, long) == ("price", "price_total")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("6 people", "6 hours"),
        ("6 people", "1 people"),
        ("6 people", "06 people"),
        ("6 people", "6.5 people"),
        ("6 people", "the hourly rate of X1"),
        ("at least", "on or after"),
        ("at least", "roughly"),
        ("highest", "latest"),
        ("room with", "campus with"),
        ("capacity", "quantity"),
        ("capacity is at least 6 people", "campus is at least 6 people"),
        ("call that room X1", "call that room X01"),
        ("call that room X1", "call that room X2"),
        ("call that room X1", "call that campus X1"),
        ("the name of X1", "the name of X2"),
        ("the name of X1", "the names of X1"),
        ("the name of X1", "X1"),
        ("(a name)", "(a text)"),
        ("(a name)", "(a list of names, in any order)"),
        (" (a name)", ""),
        ('"room_name"', '"room name"'),
        (". Report", ".  Report"),
        (". Report", ". Now report"),
        ("(a name).", "(a name). "),
        ("(a name).", "(a name)"),
        ("Find", "find"),
    ],
)
def test_parse_refuses_a_text_with_one_flaw(old, new):
    text = f"{FIND} {REPORT}"
    assert old in text
    with pytest.raises(ParseError):
        parse(text.replace(old, new), ROOMS)


def test_parse_error_names_position_and_expectation():
    text = f"{FIND} {REPORT}".replace("at least", "roughly")
    with pytest.raises(ParseError) as caught:
        parse(text, ROOMS)
    assert caught.value.position == text.index("roughly")
    assert any("at least" in words for words in caught.value.expected)
    assert f"position {text.index('roughly')}: cannot read 'roughly" in str(caught.value)


def test_parse_error_survives_pickling():
    error = ParseError("cannot read 'x'", 4, ("'y'",))
    copy = pickle.loads(pickle.dumps(error))
    assert (str(copy), copy.position, copy.expected) == (str(error), 4, ("'y'",))


def test_parse_refuses_a_prompt_without_report():
    with pytest.raises(ParseError, match="without a report"):
        parse(FIND, ROOMS)


def test_parse_refuses_text_behind_the_report():
    with pytest.raises(ParseError, match="goes on"):
        parse(f"{FIND} {REPORT} {REPORT}", ROOMS)


def test_parse_refuses_a_description_that_nothing_uses():
    with pytest.raises(ParseError, match="dead binding"):
        parse(f"{FIND} There is nothing to report: answer with an empty object.", ROOMS)


def test_parse_refuses_a_variable_bound_twice():
    with pytest.raises(ParseError, match="not in use yet"):
        parse(f"{FIND} {FIND} {REPORT}", ROOMS)


def test_parse_refuses_two_meanings():
    docs = {
        **ROOMS,
        "attrs": [*ROOMS["attrs"], ["resource", "seats", "capacity", ["num", "people"], []]],
    }
    with pytest.raises(ParseError, match="more than one meaning"):
        parse(f"{FIND} {REPORT}", docs)


def test_parse_ends_a_name_at_the_sentence():
    text = 'Look up the keeper of the room Vademu Lobota 3; call it X1. Report the name of X1 as "who" (a name).'
    assert parse(text, ROOMS).steps[0].node.src.value == "Vademu Lobota 3"
    acts = "Please cancel the room booking Ada. Then cancel the room booking Bo Ci. Report: an empty object."
    assert [act.args[0][1].value for act in parse(acts, ROOMS).steps] == ["Ada", "Bo Ci"]


def test_parse_set_answers_must_be_lists():
    choose = "Choose 2 different rooms; call the chosen rooms X1 (any such choice is accepted). "
    report = 'Report the names of X1 as "rooms" (a list of names, in any order).'
    assert parse(choose + report, ROOMS).report == (("rooms", Of("X1", Attr("name"))),)
    with pytest.raises(ParseError):
        parse(choose + REPORT, ROOMS)
    with pytest.raises(ParseError, match="best"):
        parse(
            choose.replace("; call", " such that their combined capacity is as large as possible; call") + report, ROOMS
        )


def test_parse_server_answers_each_line_in_a_fresh_process():
    good = {"text": f"{FIND} {REPORT}", "docs": ROOMS}
    lines = [
        json.dumps(good),
        json.dumps({**good, "text": "Hello."}),
        "not json",
        json.dumps({"text": "x"}),
    ]
    done = subprocess.run(
        [sys.executable, "-m", "envsynth.author.procedural.parse"],
        input="\n".join([*lines, ""]),
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(package.__file__).parents[4],
        timeout=60,
    )
    replies = [json.loads(line) for line in done.stdout.splitlines()]
    assert replies[0] == {"ir": json.loads(json.dumps(to_json(parse(good["text"], ROOMS))))}
    assert replies[1]["error"].startswith("position 0: cannot read 'Hello.'")
    assert [reply["error"].split(":")[0] for reply in replies[2:]] == ["malformed request"] * 2
    assert len(replies) == 4
    assert done.stderr == ""


def test_parse_imports_only_the_program_types():
    """An oversight of the renderer must not be able to repeat itself here through shared code."""
    allowed = (
        "envsynth.author.procedural.ir",
        "envsynth.author.procedural.schema",
        "envsynth.author.procedural.parse",
        "envsynth.errors",
    )
    modules = sorted(Path(package.__file__).parent.glob("*.py"))
    names = [
        node.module
        for path in modules
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and node.module
    ]
    ours = [name for name in names if name.startswith("envsynth")]
    assert len(modules) >= 6
    assert ours
    assert all(name.startswith(allowed) for name in ours), ours
    foreign = {name.split(".")[0] for name in names} - {"envsynth"}
    assert foreign <= sys.stdlib_module_names


def test_prompts_of_the_documentation_parse():
    page = Path(package.__file__).parents[4] / "docs" / "reference" / "prompt-language.md"
    prompts = re.findall(r"```text\n(.*)\n```", page.read_text(encoding="utf-8"))
    assert len(prompts) == 3
    for prompt in prompts:
        parse(prompt, ROOMS)
