from __future__ import annotations

import re
import warnings
from collections import Counter

import pytest

from envsynth.sandbox import Ask, CallResult, Failure
from tests.sandbox.containment import ENV_CANARY, FILE_CANARY, Canaries
from tests.sandbox.grammar import FAVOURED, WAYS, WRAPPERS, generate
from tests.sandbox.grammar_targets import RULES, TARGETS
from tests.sandbox.hostile_programs import prepare
from tests.sandbox.playing import SHORT, STALL_S, faults, play_many, told

MANY = 600


@pytest.fixture(scope="module")
def programs():
    return [generate(number) for number in range(MANY)]


def _compiles(source: str) -> bool:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the grammar makes odd text, such as a call of a number
            compile(prepare(source, "/folder", "/shared", 1), "<hostile>", "exec")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True


def test_most_programs_are_valid_python(programs):
    assert sum(_compiles(program.source) for program in programs) >= 0.95 * MANY


def test_number_decides_the_program(programs):
    assert [generate(number) for number in range(50)] == programs[:50]
    assert len({program.source for program in programs}) > 0.98 * MANY


def test_every_way_target_and_wrapper_is_reached(programs):
    assert {program.way for program in programs} == set(WAYS)
    assert {program.target for program in programs} == set(TARGETS)
    assert {name for program in programs for name in program.wrappers} == set(WRAPPERS)
    assert set(FAVOURED) <= set(TARGETS)


def test_every_symbol_has_a_rule_and_every_rule_is_used():
    text = "\n".join(body for bodies in (*TARGETS.values(), *RULES.values()) for body in bodies)
    unused = [symbol for symbol in RULES if f"@{symbol}@" not in text]
    assert unused == []
    assert not [number for number in range(100) if re.search("@[a-z_]+@", generate(number).source)]


def test_programs_are_in_the_form_of_the_public_ones(programs):
    for program in programs:
        assert "\ndef attack(db):\n" in program.source
        marks = prepare(program.source, "/folder", "/shared", 1)
        assert "{folder}" not in marks
        assert "{shared}" not in marks


def test_sixty_programs_leave_no_trace():
    report = play_many(range(60))
    assert report.problems == []
    assert report.played == 60
    assert report.longest_s <= STALL_S
    assert (report.processes, report.descriptors) == (0, 0)
    assert len(report.ends) >= 5, "hostile programs end in many ways"


# ------------------------------------------------------------------------------------- the runner sees what is wrong


def _ok(value) -> CallResult:
    return CallResult(status=Failure.OK, value=value)


@pytest.mark.parametrize(
    ("result", "fault"),
    [
        (_ok({"a": [f"text {FILE_CANARY}"]}), "canary"),
        (_ok({ENV_CANARY: 1}), "canary"),
        (_ok(["WROTE5"]), "evidence WROTE"),
        (_ok([{"1": "OPENED b'x'"}]), "evidence OPENED"),
        (CallResult(status=Failure.OK, blob=FILE_CANARY.encode()), "canary"),
        (CallResult(status=Failure.TOOL_ERROR, message=f"x {FILE_CANARY}"), "canary"),
        (CallResult(status=Failure.OK, stdout=FILE_CANARY), "canary"),
        (Ask(tool="t", arguments={"a": FILE_CANARY}), "canary"),
        (CallResult(status=Failure.SANDBOX_UNAVAILABLE), "status sandbox_unavailable"),
        (CallResult(status=Failure.UNSUPPORTED), "status unsupported"),
    ],
)
def test_runner_sees_a_leak_and_a_wrong_status(result, fault):
    with Canaries() as canaries:
        assert [found for found in faults([result], canaries, 0.1) if found.startswith(fault)]


def test_runner_sees_a_stall_and_a_touched_host():
    with Canaries() as canaries:
        assert faults([_ok(1)], canaries, 0.1) == []
        canaries.file.write_text("changed", encoding="ascii")
        assert len(faults([_ok(1)], canaries, STALL_S + 0.1)) == 2


def test_runner_reads_results_that_are_too_deep_for_an_encoder():
    value: object = FILE_CANARY
    for _ in range(5000):
        value = [value]
    assert told([value]) == f'"{FILE_CANARY}"'


def test_limits_are_short():
    assert 4 * SHORT.hard_s < STALL_S


def test_ways_are_spread(programs):
    assert min(Counter(program.way for program in programs).values()) > MANY / len(WAYS) / 3
