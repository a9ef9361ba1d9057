"""Hardening accepts a child only when it is sound and measurably harder; it never touches the parent."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from envsynth import hardening
from envsynth.author.procedural.author import ProceduralAuthor
from envsynth.errors import Rejected
from envsynth.gates import Case, Rehearsal, all_gates, check
from envsynth.hardening import HOPELESS, HOPELESS_THERE, Step, audit, find_root, harden
from envsynth.report import Finding, GateReport, GateResult
from envsynth.sandbox import shared_jail
from envsynth.spec import Lineage

AUTHOR = ProceduralAuthor("booking laboratory equipment", 1)
DRAFT = AUTHOR.draft(1)


@pytest.fixture(scope="module")
def found():
    lineage = find_root(DRAFT, AUTHOR, 0)
    assert len(lineage.steps) == 1
    return lineage


@pytest.fixture(scope="module")
def root(found) -> Step:
    return found.steps[0]


@pytest.fixture(scope="module")
def hardened(root):
    seen: list[Step] = []
    lineage = harden(DRAFT, AUTHOR, root, steps=2, on_step=seen.append)
    assert len(lineage.steps) == 3
    assert tuple(seen) == lineage.steps[1:]
    return lineage


@dataclass
class Scripted:
    """An author that proposes given children in turn; everything else is the real author's."""

    children: list
    names: list[str] = field(default_factory=lambda: ["constraint"])
    asked: list[tuple[str, int, frozenset[str]]] = field(default_factory=list)
    solvers: list = field(default_factory=list)

    def root(self, draft, number, attempt):
        return AUTHOR.root(draft, number, attempt)

    def operators(self, task):
        return self.names

    def careless(self):
        return self.solvers

    def propose(self, draft, parent, operator, attempt, needed=frozenset()):
        self.asked.append((operator, attempt, needed))
        child = self.children[min(len(self.asked), len(self.children)) - 1]
        if isinstance(child, Rejected):
            raise child
        return child

    def complete(self, draft, task, gold_calls):
        return AUTHOR.complete(draft, task, gold_calls)


def as_child(step: Step, **update):
    lineage = Lineage(parent=step.task.hash, operator="constraint", depth=step.task.lineage.depth + 1)
    return step.task.model_copy(update={"lineage": lineage, **update})


def without(step: Step, skill: str) -> Step:
    """The step as if its task did not need a skill: with that skill, a child is then harder."""
    results = tuple(
        result.model_copy(update={"evidence": {**result.evidence, "skills": sorted(step.skills - {skill})}})
        if result.code == "DF401"
        else result
        for result in step.report.results
    )
    return Step(step.task, step.report.model_copy(update={"results": results}))


def test_a_root_passes_every_gate_and_has_probes(root):
    assert root.report.ok
    assert {result.code for result in root.report.results} == {*(gate.code for gate in all_gates()), "DF402"}
    assert root.report.task == root.task.hash
    assert root.task.probes
    assert root.calls <= 0.6 * root.task.max_turns
    assert next(result.status for result in root.report.results if result.code == "DF402") == "skipped"


def test_refusals_on_the_way_have_codes_and_stages(found, hardened):
    refused = [*found.rejections, *hardened.rejections]
    assert refused
    for item in refused:
        assert item.code
        assert item.message
        assert item.stage in ("author", "gates", "ladder")
        assert item.environment == DRAFT.environment.hash
        assert (item.parent is None) == (item.operator is None)
    parents = {step.task.hash for step in hardened.steps}
    assert all(item.parent in parents for item in hardened.rejections)


def test_every_accepted_child_needs_a_new_skill_and_more_of_them(hardened):
    for parent, child in zip(hardened.steps, hardened.steps[1:], strict=False):
        assert child.skills - parent.skills
        assert len(child.skills) > len(parent.skills)
        evidence = child.report.evidence("DF402")
        assert evidence["new"] == sorted(child.skills - parent.skills)
        assert evidence["lost"] == sorted(parent.skills - child.skills)
        assert (evidence["calls_before"], evidence["calls"]) == (parent.calls, child.calls)


def test_versions_form_a_chain_and_never_change(root, hardened):
    assert hardened.steps[0] == root
    for depth, step in enumerate(hardened.steps):
        assert step.task.lineage.depth == depth
        assert step.task.environment == DRAFT.environment.hash
        again = type(step.task).from_json(step.task.to_json())
        assert again == step.task
        assert again.hash == step.task.hash == step.report.task
    for parent, child in zip(hardened.steps, hardened.steps[1:], strict=False):
        assert child.task.lineage.parent == parent.task.hash
        assert child.task.lineage.operator in AUTHOR.operators(parent.task)
    assert AUTHOR.draft(1).environment.hash == DRAFT.environment.hash


def test_every_version_passes_all_gates_again(hardened):
    for step in hardened.steps:
        report = check(DRAFT.environment, step.task)
        assert report.ok, [finding.message for finding in report.findings]
        assert report.evidence("DF401") == step.report.evidence("DF401")
        assert report.evidence("EX201") == step.report.evidence("EX201")
        known = {result.code: result.status for result in step.report.results}
        assert {result.code: known[result.code] for result in report.results} == {
            result.code: result.status for result in report.results
        }


def test_hardening_again_gives_the_same_children(root, hardened):
    again = harden(DRAFT, AUTHOR, root, steps=1)
    assert again.steps == hardened.steps[:2]


def test_a_child_that_is_no_harder_is_refused(root):
    author = Scripted([as_child(root)])
    lineage = harden(DRAFT, author, root, steps=1)
    assert lineage.steps == (root,)
    assert [(item.stage, item.code) for item in lineage.rejections] == [("ladder", "DF402")] * 10
    assert "needs no skill that its parent does not need" in lineage.rejections[0].message
    # First aimed at other skills than those that the parent needs, then without an aim, each with draws of its own.
    assert [needed for _, _, needed in author.asked] == [root.skills] * 5 + [frozenset()] * 5
    assert len({attempt for _, attempt, _ in author.asked}) == 10


def test_a_child_with_a_new_skill_but_no_more_of_them_is_refused(root):
    new = sorted(root.skills)[0]
    easier = without(root, new)
    report = easier.report.model_copy(
        update={
            "results": tuple(
                result.model_copy(update={"evidence": {"skills": [*result.evidence["skills"], "telepathy"]}})
                if result.code == "DF401"
                else result
                for result in easier.report.results
            )
        }
    )
    parent = Step(root.task, report)
    assert parent.skills == {*(root.skills - {new}), "telepathy"}
    outcome = audit(DRAFT, AUTHOR, as_child(root), shared_jail(), parent)
    assert (outcome.stage, outcome.code) == ("ladder", "DF402")
    assert f"new: {new}" in outcome.message


def test_a_child_with_a_new_skill_is_accepted_with_a_whole_report(root):
    parent = without(root, sorted(root.skills)[0])
    outcome = audit(DRAFT, AUTHOR, as_child(root, max_turns=400, probes=()), shared_jail(), parent)
    assert isinstance(outcome, Step)
    assert outcome.report.evidence("DF402")["new"] == [sorted(root.skills)[0]]
    assert outcome.task.probes
    assert outcome.task.max_turns < 400


@pytest.mark.parametrize(
    ("update", "code"),
    [
        ({"solution": "def solve(call):\n    return {}\n"}, "EX201"),
        ({"prompt": "Do something else."}, "SP105"),
        ({"answer_schema": {"type": "object"}}, "SP104"),
    ],
    ids=["solution", "prompt", "schema"],
)
def test_an_unsound_child_is_refused_by_the_gate_that_finds_it(root, update, code):
    parent = without(root, sorted(root.skills)[0])
    outcome = audit(DRAFT, AUTHOR, as_child(root, **update), shared_jail(), parent)
    assert (outcome.stage, outcome.code) == ("gates", code)
    assert outcome.parent == root.task.hash
    assert outcome.draft["prompt"]


def test_an_unsound_child_is_refused_after_the_ladder_too(root):
    """A solution with another way in passes the cheap gates and the ladder, and fails SE502."""
    parent = without(root, sorted(root.skills)[0])
    sly = f"{root.task.solution}\nSLY = (1).__class__\n"
    outcome = audit(DRAFT, AUTHOR, as_child(root, solution=sly), shared_jail(), parent)
    assert (outcome.stage, outcome.code) == ("gates", "SE502")


def test_a_solution_with_too_many_calls_is_refused(root, monkeypatch):
    monkeypatch.setattr("envsynth.hardening.MAX_GOLD_CALLS", root.calls - 1)
    outcome = audit(DRAFT, AUTHOR, as_child(root), shared_jail(), root)
    assert outcome.code == "EX204"
    assert f"needs {root.calls} calls, limit {root.calls - 1}" in outcome.message


def test_an_operator_that_cannot_help_this_parent_is_tried_once(root):
    for code in HOPELESS:
        author = Scripted([Rejected(code, "never")])
        lineage = harden(DRAFT, author, root, steps=1)
        assert [item.code for item in lineage.rejections] == [code]
    for operator, code in HOPELESS_THERE:
        author = Scripted([Rejected(code, "never")], names=[operator])
        assert len(harden(DRAFT, author, root, steps=1).rejections) == 1
    author = Scripted([Rejected("no_skill", "not for these skills")])
    assert len(harden(DRAFT, author, root, steps=1).rejections) == 2, "once with an aim and once without"
    author = Scripted([Rejected("tie", "perhaps next time")])
    assert len(harden(DRAFT, author, root, steps=1).rejections) == 26
    assert len(harden(DRAFT, author, root, steps=1, tries=7).rejections) == 14
    assert [attempt for _, attempt, _ in author.asked[-14:]] == list(range(14))


@pytest.mark.parametrize("status", ["pass", "fail", "void"])
def test_a_measure_decides_in_place_of_the_ladder(root, status):
    """The child needs no skill that its parent does not need: the ladder refuses it, a measure need not."""
    child = as_child(root, max_turns=400, probes=())
    asked = []

    def measure(environment, candidate, parent):
        asked.append((environment, candidate, parent))
        finding = Finding(code="DF405", message="as easy")
        return GateResult(code="DF405", status=status, findings=() if status == "pass" else (finding,))

    assert audit(DRAFT, AUTHOR, child, shared_jail(), root).code == "DF402"
    found = audit(DRAFT, AUTHOR, child, shared_jail(), root, measure=measure)
    assert len(asked) == 1
    environment, candidate, parent = asked[0]
    assert (environment, parent, candidate.lineage) == (DRAFT.environment, root.task, child.lineage)
    if status != "pass":
        assert (found.stage, found.code, found.message) == ("measure", "DF405", "as easy")
        return
    assert found.task == candidate
    results = {item.code: item for item in found.report.results}
    assert (results["DF402"].status, results["DF402"].evidence) == ("skipped", {"why": "another measure decides"})
    assert results["DF405"].status == "pass"
    assert set(results) == {*(gate.code for gate in all_gates()), "DF402", "DF405"}


def test_a_measure_is_not_asked_about_an_unsound_child(root):
    def measure(environment, candidate, parent):
        raise AssertionError("an unsound child is measured")

    child = as_child(root, prompt="Do something else.")
    assert audit(DRAFT, AUTHOR, child, shared_jail(), root, measure=measure).stage == "gates"


def test_no_operator_ends_the_lineage(root):
    author = Scripted([], names=[])
    lineage = harden(DRAFT, author, root)
    assert (lineage.steps, lineage.rejections) == ((root,), ())


def test_no_root_within_the_tries_is_no_error():
    lineage = find_root(DRAFT, AUTHOR, 0, tries=0)
    assert (lineage.steps, lineage.rejections) == ((), ())


def test_a_completed_case_takes_over_only_runs_that_would_repeat(root):
    spec, jail = DRAFT.environment, shared_jail()
    candidate = root.task.model_copy(update={"probes": (), "max_turns": 400})
    with Case(spec, candidate, jail) as first:
        gold, walk = first.gold, first.play_random(0)
        with Case(spec, root.task, jail, earlier=first) as second:
            assert second.gold is gold
            assert second.play_random(0) is not walk
        with Case(spec, root.task.model_copy(update={"max_turns": 500}), jail, earlier=first) as long:
            assert long.gold is not gold
        with Case(
            spec, root.task.model_copy(update={"solution": root.task.solution + "\n"}), jail, earlier=first
        ) as other:
            assert other.gold is not gold
            assert [turn.observation for turn in other.gold.turns] == [turn.observation for turn in gold.turns]


def test_a_step_without_evidence_needs_nothing(root):
    empty = GateReport(environment=DRAFT.environment.hash, task=root.task.hash, results=())
    assert Step(root.task, empty).skills == frozenset()
    assert Step(root.task, empty).calls == 0
    odd = empty.model_copy(update={"results": (GateResult(code="DF401", status="pass", evidence={"skills": 3}),)})
    assert Step(root.task, odd).skills == frozenset()


# ---------------------------------------------------------------------------------------------------------- leaves alone


@pytest.fixture(scope="module")
def rehearsed():
    with Rehearsal(DRAFT.environment, shared_jail()) as made:
        root = find_root(DRAFT, AUTHOR, 0, rehearsal=made, audited="leaves").steps[0]
        return root, harden(DRAFT, AUTHOR, root, steps=2, rehearsal=made, audited="leaves")


def test_the_last_version_alone_meets_every_gate(hardened, rehearsed):
    root, lineage = rehearsed
    assert [step.task for step in lineage.steps] == [step.task for step in hardened.steps]
    assert [step.report.whole for step in (root, *lineage.steps)] == [False, False, False, True]
    for step, other in zip(lineage.steps, hardened.steps, strict=True):
        assert step.report.ok
        assert {result.code for result in step.report.results} == {result.code for result in other.report.results}
        assert (step.skills, step.calls) == (other.skills, other.calls)
    told = {result.code: result.status for result in lineage.steps[-1].report.results}
    assert told == {result.code: result.status for result in hardened.steps[-1].report.results}
    open_ = {result.code for result in lineage.steps[0].report.results if result.status == "skipped"}
    assert {"EX201", "EX202", "EX203", "VF302", "VF303", "SE502"} <= open_


def test_a_last_version_that_fails_a_gate_gives_way_to_its_parent(rehearsed, monkeypatch):
    root, lineage = rehearsed
    bad = lineage.steps[-1].task.hash
    real = hardening.check

    def check_but_one(spec, task, **options):
        report = real(spec, task, **options)
        if task.hash != bad or "SE502" not in {result.code for result in report.results}:
            return report
        spoiled = [
            result.model_copy(update={"status": "fail"}) if result.code == "SE502" else result
            for result in report.results
        ]
        return report.model_copy(update={"results": tuple(spoiled)})

    monkeypatch.setattr(hardening, "check", check_but_one)
    with Rehearsal(DRAFT.environment, shared_jail()) as made:
        shorter = harden(DRAFT, AUTHOR, root, steps=2, rehearsal=made, audited="leaves")
    assert [step.task for step in shorter.steps] == [step.task for step in lineage.steps[:-1]]
    assert shorter.steps[-1].report.whole
    assert (shorter.rejections[-1].stage, shorter.rejections[-1].code) == ("gates", "SE502")


def test_what_a_last_twin_is_a_twin_of_meets_every_gate_too(rehearsed, monkeypatch):
    _, lineage = rehearsed
    chain = [Step(step.task, step.report.model_copy(update={"whole": False})) for step in lineage.steps]
    for place in (1, 2):
        twin = chain[place].task.model_copy(update={"kind": "infeasible"})
        chain[place] = Step(twin, chain[place].report.model_copy(update={"task": twin.hash}))
    asked = []

    def check_none(spec, task, **options):
        asked.append(task.hash)
        return GateReport(environment=spec.hash, task=task.hash, results=())

    monkeypatch.setattr(hardening, "check", check_none)
    kept = hardening._audited(DRAFT, chain, shared_jail(), None, [])
    assert asked == [step.task.hash for step in reversed(chain)]
    assert [step.report.whole for step in kept] == [True] * 3
    asked.clear()
    kept = hardening._audited(DRAFT, [chain[1], chain[0]], shared_jail(), None, [])
    assert [step.report.whole for step in kept] == [False, True]


def test_a_lineage_none_of_whose_versions_passes_is_empty(rehearsed, monkeypatch):
    root, _ = rehearsed
    real = hardening.check

    def fail(spec, task, **options):
        report = real(spec, task, **options)
        if "EX203" not in {result.code for result in report.results}:
            return report
        results = tuple(result.model_copy(update={"status": "fail"}) for result in report.results)
        return report.model_copy(update={"results": results})

    monkeypatch.setattr(hardening, "check", fail)
    with Rehearsal(DRAFT.environment, shared_jail()) as made:
        lineage = harden(DRAFT, AUTHOR, root, steps=1, rehearsal=made, audited="leaves")
    assert lineage.steps == ()
    assert len([item for item in lineage.rejections if item.stage == "gates"]) == 2


def test_what_cannot_be_rehearsed_is_audited():
    """Without a rehearsal there is nothing to believe, so every version meets every gate."""
    root = find_root(DRAFT, AUTHOR, 0, audited="leaves").steps[0]
    assert root.report.whole


def test_a_rehearsed_solution_may_not_need_too_many_calls(rehearsed, monkeypatch):
    root, _ = rehearsed
    monkeypatch.setattr("envsynth.hardening.MAX_GOLD_CALLS", root.calls - 1)
    message = f"needs {root.calls} calls, limit {root.calls - 1}"
    with Rehearsal(DRAFT.environment, shared_jail()) as made:
        lineage = find_root(DRAFT, AUTHOR, 0, rehearsal=made, audited="leaves")
    assert any(message in item.message and item.code == "EX204" for item in lineage.rejections)
    assert not lineage.steps or lineage.steps[0].task != root.task


# ------------------------------------------------------------------------------------------------------ careless solvers


def told(lineage):
    return [step.report.evidence("DF402") for step in lineage.steps[1:]]


def test_a_child_that_needs_no_new_skill_is_harder_where_fewer_careless_solvers_pass(root, hardened):
    """The second version needs a skill that the first does not; here it is known to need none, and solvers must tell."""
    child = hardened.steps[1]
    new = sorted(child.skills - root.skills)
    lacking = child.task.ablations[new[0]]
    parent = Step(root.task, child.report.model_copy(update={"task": root.task.hash}))
    assert parent.skills == child.skills
    for solvers, accepted in (
        [[lacking, lacking, {}], True],
        [[lacking, {}, {}], False],
        [[{}] * 3, False],
        [[], False],
    ):
        author = Scripted([child.task.model_copy(update={"probes": ()})], solvers=solvers)
        with Rehearsal(DRAFT.environment, shared_jail()) as made:
            lineage = harden(DRAFT, author, parent, steps=1, tries=1, rehearsal=made, audited="leaves")
        assert (len(lineage.steps) == 2) is accepted, solvers
        if accepted:
            assert told(lineage)[0] | {"calls": 0} == {
                "new": [], "lost": [], "calls_before": parent.calls, "calls": 0,
                "careless_before": 3, "careless": 1, "careless_solvers": 3,
            }  # fmt: skip


def test_without_a_rehearsal_only_a_new_skill_counts(root, hardened):
    child = hardened.steps[1]
    parent = Step(root.task, child.report.model_copy(update={"task": root.task.hash}))
    lacking = child.task.ablations[sorted(child.skills - root.skills)[0]]
    author = Scripted([child.task.model_copy(update={"probes": ()})], solvers=[lacking] * 3)
    assert harden(DRAFT, author, parent, steps=1, tries=1).steps == (parent,)


def test_the_authors_careless_solvers_fail_now_and_then(hardened):
    solvers = AUTHOR.careless()
    assert len({str(names) for names in solvers}) == len(solvers) == 12
    with Rehearsal(DRAFT.environment, shared_jail()) as made:
        passing = []
        for step in hardened.steps:
            with Case(DRAFT.environment, step.task, shared_jail(), rehearsal=made) as case:
                passing.append(sum(case.passing(solvers) or ()))
                assert case.passing([{}, {}]) == [True, True]
    assert 0 < passing[0] < 12
    assert passing[-1] <= passing[0]
    with Case(DRAFT.environment, hardened.steps[0].task, shared_jail()) as case:
        assert case.passing(solvers) is None
