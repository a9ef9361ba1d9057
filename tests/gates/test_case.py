"""What gates share: runs that are played once, room for detours, a parser that comes back, and no judgement on a void run."""

from __future__ import annotations

import pytest

from envsynth.actors import AblatedActor
from envsynth.errors import EnvironmentVoid, SpecError
from envsynth.gates import Case, check
from envsynth.gates.case import GATE_TURNS, plays_alike
from envsynth.gates.parser import _PARSERS, parse_apart
from envsynth.gates.spec_gates import parse_apart as imported
from envsynth.trajectory import Verdict

NO_DOCS = {"entities": {}, "attrs": [], "actions": [], "units": {}}


def test_each_run_is_played_once(jail, shop, value_task):
    with Case(shop, value_task, jail) as case:
        assert case.gold is case.gold
        assert case.ablated(["no_pagination"]) == {"no_pagination": case.ablated(["no_pagination"])["no_pagination"]}
        assert case.play_random(1) is case.play_random(1)
        assert case.play_random(0) is not case.play_random(1)
        assert case.gold.verdict.status == "pass"
        assert case.ablated(["no_pagination"])["no_pagination"].status == "fail"


def test_a_ladder_is_judged_as_its_solvers_would_be_alone(jail, shop, value_task):
    """Together or alone: the same verdicts, check by check; who gives no answer is not judged at all."""
    ablations = {
        "none": {},
        "no_pagination": value_task.ablations["no_pagination"],
        "stops": {"solve": "no function"},
    }
    task = value_task.model_copy(update={"ablations": ablations})
    with Case(shop, task, jail) as case:
        together = case.ablated(ablations)
        for skill in ablations:
            assert together[skill] == case.play(AblatedActor(case.by_hash, skill, jail)).verdict, skill
    assert {skill: verdict.status for skill, verdict in together.items()} == {
        "none": "pass",
        "no_pagination": "fail",
        "stops": "fail",
    }
    assert [check.id for check in together["stops"].checks] == ["actor.stopped"]


def test_a_finished_candidate_takes_its_ladder_over(jail, shop, value_task, monkeypatch):
    with Case(shop, value_task, jail) as case:
        before = case.ablated(value_task.ablations)
        finished = value_task.model_copy(update={"max_turns": value_task.max_turns + 1})
        monkeypatch.setattr(Case, "play", None)
        with Case(shop, finished, jail, earlier=case) as later:
            assert later.ablated(value_task.ablations) == before


def test_a_world_lost_at_the_end_is_void(jail, shop, value_task, monkeypatch):
    def lost(self):
        raise EnvironmentVoid("the tools worker died", "crash")

    with Case(shop, value_task, jail) as case:
        monkeypatch.setattr(type(case.env), "final_image", lost)
        (verdict,) = case.ablated(["no_pagination"]).values()
    assert (verdict.status, verdict.cause) == ("void", "crash")


def test_a_slow_solver_is_not_a_wrong_one(jail, shop, value_task):
    """Thirty detours exceed the task's own limit, which is EX204's business; they prove no skill."""
    detours = "_solve = solve\ndef solve(call):\n    for _ in range(30):\n        call('list_items')\n    return _solve(call)\n"
    task = value_task.model_copy(update={"solution": value_task.solution + detours, "ablations": {"none": {}}})
    assert task.max_turns < 30 < GATE_TURNS
    report = check(shop, task, jail=jail, select=("EX201", "EX204", "DF401"))
    assert {result.code: result.status for result in report.results} == {
        "EX201": "pass",
        "EX204": "fail",
        "DF401": "fail",
    }
    with Case(shop, task, jail) as case:
        assert case.ablated(["none"])["none"].status == "pass"


def test_tasks_play_alike_when_only_later_additions_differ(value_task):
    assert plays_alike(value_task, value_task.model_copy(update={"max_turns": 9, "probes": ()}))
    assert not plays_alike(value_task, value_task.model_copy(update={"max_turns": GATE_TURNS + 1}))
    for update in ({"solution": "x = 1"}, {"prompt": "other"}, {"ablations": {}}):
        assert not plays_alike(value_task, value_task.model_copy(update=update))


def test_a_void_ladder_is_no_evidence_of_difficulty(jail, shop, value_task, monkeypatch):
    def lost(self, skills):
        return {skill: Verdict(status="void", score=None, failure="the worker died") for skill in skills}

    monkeypatch.setattr(Case, "ablated", lost)
    (result,) = check(shop, value_task, jail=jail, select=("DF401",)).results
    assert result.status == "void"
    assert "no judgement without no_pagination: the worker died" in result.findings[0].message


def test_columns_that_hold_a_value(jail, shop, value_task):
    with Case(shop, value_task, jail) as case:
        assert case.same_column("nut") == ["bolt", "nut", "gear", "m\u00f6bius"]
        assert case.same_column(4) == [1, 2, 3, 4, 5, 9]  # an id and a quantity
        assert case.same_column(4.0) == []
        assert case.same_column("nobody") == []


def test_the_parser_process_comes_back():
    assert imported is parse_apart
    assert "error" in parse_apart("What?", NO_DOCS)
    (parser,) = _PARSERS
    parser._process.kill()
    parser._process.wait()
    assert "error" in parse_apart("What?", NO_DOCS)
    assert _PARSERS[0] is not parser


def test_a_parser_that_dies_under_a_prompt_is_an_error():
    parse_apart("What?", NO_DOCS)
    parser = _PARSERS[0]
    parser._process.kill()
    parser._process.wait()
    with pytest.raises(SpecError, match="the parser process ended with code -9"):
        parser.parse("What?", NO_DOCS)
