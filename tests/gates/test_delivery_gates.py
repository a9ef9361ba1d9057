"""Gates EX214 and DF408 on a hand-made spec whose tool calls are limited, and what hardening makes of limits."""

from __future__ import annotations

import pytest

from acceptance.defects.limiting import limited_atoms
from acceptance.defects.plants import PLANTS, replaced
from envsynth.allowance import fitted
from envsynth.author.procedural.author import ProceduralAuthor
from envsynth.delivery import Delivery
from envsynth.errors import Rejected
from envsynth.gates import Case, Rehearsal, check
from envsynth.gates.delivery_gates import WASTEFUL
from envsynth.hardening import Step, audit, find_root, harden
from envsynth.sandbox import shared_jail
from envsynth.store import Rejection


def test_a_sound_spec_whose_calls_are_limited_passes_every_gate():
    report = check(*limited_atoms(0))
    assert report.ok, [finding.message for finding in report.findings]
    assert report.evidence("EX214") == {"calls": 5, "max_calls": 8}
    assert report.evidence("DF408") == {"max_calls": 8, "spendthrift": 29, "brute_force": 35}


@pytest.mark.parametrize("item", [item for item in PLANTS if item.base == "limited_atoms"], ids=lambda item: item.name)
def test_planted_defects_of_limits_are_found(item):
    report = check(*item.pair())
    codes = {result.code for result in report.results if result.status == "fail"}
    assert item.code in codes
    assert codes <= {item.code, *item.also}


def test_the_gates_say_how_many_calls_and_which_solver():
    spec, task = limited_atoms(0)

    def found(**update):
        report = check(spec, task.model_copy(update=update), select=("EX214", "DF408"))
        return [finding.message for finding in report.findings]

    assert found(delivery=Delivery(max_calls=6)) == ["the solution makes 5 tool calls, the limit is 6"]
    assert found(delivery=Delivery(max_calls=30)) == ["spendthrift passes with 29 of 30 calls"]
    left = {name: flags for name, flags in task.ablations.items() if name != "brute_force"}
    assert found(ablations=left) == ["the ladder has no brute_force"]
    report = check(spec, task.model_copy(update={"delivery": Delivery()}), select=("EX214", "DF408"))
    assert [result.status for result in report.results] == ["skipped", "skipped"]


def test_a_limit_fits_the_solution_and_no_wasteful_solver(monkeypatch):
    spec, task = limited_atoms(0)

    def fit(number=0, **update):
        seeded = task.provenance.model_copy(update={"seed": f"fit/{number}"})
        with Case(spec, task.model_copy(update={"provenance": seeded, **update}), shared_jail()) as case:
            return fitted(case).delivery.max_calls

    assert {fit(number) for number in range(16)} == {7, 8, 9, 10}
    assert fit(3) == fit(3, delivery=Delivery(max_calls=400)) == fit(3, delivery=Delivery(max_calls=1))
    lazy = replaced(task.solution, "range(6 if", "range(1 if")
    assert {fit(number, solution=lazy) for number in range(8)} <= {7, 8, 9}
    with pytest.raises(Rejected, match="spendthrift makes 5 tool calls, the solution 5"):
        fit(ablations={**task.ablations, "spendthrift": {}})
    with pytest.raises(Rejected, match="fails without a limit as well"):
        fit(ablations={**task.ablations, "spendthrift": {"WRITES": False}})
    broken = replaced(task.solution, "if WRITES:", "if not WRITES:")
    assert fit(solution=broken, delivery=Delivery(max_calls=77)) == 77  # the gates tell that it fails
    monkeypatch.setattr("envsynth.allowance.FEWEST_CALLS", 6)
    with pytest.raises(Rejected, match="nothing to waste"):
        fit()


@pytest.mark.parametrize("category", ["warehouse restocking", "hotel front desk", "bank customer care"])
def test_children_whose_calls_are_limited_need_thrift_and_pass_every_gate(category: str):
    author, jail = ProceduralAuthor(category, "bud"), shared_jail()
    draft = author.draft(0)
    with Rehearsal(draft.environment, jail) as rehearsal:
        for number in range(4):
            found = find_root(draft, author, number, jail=jail, rehearsal=rehearsal)
            root = found.steps[0]
            proposed = author.propose(draft, root.task, "budget", 0, root.skills)
            child = audit(draft, author, proposed, jail, root, rehearsal)
            if isinstance(child, Rejection):
                assert (child.stage, child.code) == ("author", "nonbinding"), child
                continue
            assert {*WASTEFUL} <= child.skills - root.skills
            limit = child.task.delivery.max_calls
            assert limit is not None
            assert 1.3 * child.calls <= limit <= 2 * child.calls
            assert limit < child.task.max_turns
            assert child.task.oracle == root.task.oracle
            report = check(draft.environment, child.task)
            assert report.ok, [finding.message for finding in report.findings]
            alike(draft, child, rehearsal)
            return
    pytest.fail("no root whose calls can be limited")


def alike(draft, child: Step, rehearsal: Rehearsal):
    """Its ladder ends alike in rehearsals and in proper episodes."""
    jail = shared_jail()
    with (
        Case(draft.environment, child.task, jail, rehearsal=rehearsal) as quick,
        Case(draft.environment, child.task, jail) as case,
    ):
        assert quick.rehearse()
        there = {skill: verdict.status for skill, verdict in quick.ablated(child.task.ablations).items()}
        assert there == {skill: verdict.status for skill, verdict in case.ablated(child.task.ablations).items()}
        assert {there[skill] for skill in WASTEFUL} == {"fail"}
        assert quick.without_limit(["", *WASTEFUL]) == case.without_limit(["", *WASTEFUL])


def test_a_later_version_gets_a_limit_of_its_own():
    author, jail = ProceduralAuthor("hotel front desk", "bud"), shared_jail()
    draft = author.draft(0)
    with Rehearsal(draft.environment, jail) as rehearsal:
        root = find_root(draft, author, 0, jail=jail, rehearsal=rehearsal).steps[0]
        child = audit(draft, author, author.propose(draft, root.task, "budget", 0), jail, root, rehearsal)
        assert isinstance(child, Step), child
        for audited in ("all", "leaves"):
            lineage = harden(draft, author, child, jail=jail, rehearsal=rehearsal, steps=2, audited=audited)
            assert len(lineage.steps) > 1
            for step in lineage.steps:
                limit = step.task.delivery.max_calls
                assert limit is not None
                assert 1.3 * step.calls <= limit <= 2 * step.calls
                assert {*WASTEFUL} <= step.skills


def test_a_limit_that_does_not_bind_is_proposed_once(monkeypatch):
    author, jail = ProceduralAuthor("bank customer care", "bud"), shared_jail()
    draft = author.draft(0)
    with Rehearsal(draft.environment, jail) as rehearsal:
        root = find_root(draft, author, 0, jail=jail, rehearsal=rehearsal).steps[0]
        monkeypatch.setattr(author, "operators", lambda task: ["budget"])
        lineage = harden(draft, author, root, jail=jail, rehearsal=rehearsal)
    assert [step.task.hash for step in lineage.steps] == [root.task.hash]
    assert [(item.operator, item.code) for item in lineage.rejections] == [("budget", "nonbinding")]
