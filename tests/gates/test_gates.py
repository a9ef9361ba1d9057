"""Every gate finds the defect that it is for: defects planted one by one in tasks that pass all gates."""

from __future__ import annotations

import math

import pytest

from envsynth.author.procedural.author import ProceduralAuthor
from envsynth.environments.examples import trip_planning
from envsynth.errors import SpecError
from envsynth.gates import all_gates, check, explain, find_gate
from envsynth.hardening import Step, find_root
from envsynth.spec import GoalAtom, Outcome, ProbeCase

AUTHOR = ProceduralAuthor("booking laboratory equipment", 1)


@pytest.fixture(scope="module")
def steps():
    """Accepted root tasks by kind, with their environments: at least one that writes, one that plans, one that reads."""
    found: dict[str, tuple] = {}
    for index in range(12):
        draft = AUTHOR.draft(index)
        for number in range(2):
            lineage = find_root(draft, AUTHOR, number)
            if lineage.steps:
                found.setdefault(lineage.steps[0].task.kind, (draft.environment, lineage.steps[0]))
        if {"act", "plan", "read"} <= set(found):
            return found
    pytest.fail(f"no act, plan and read root among 24 lineages, only {list(found)}")


def codes(spec, task, *select):
    report = check(spec, task, select=select or None)
    return {result.code for result in report.results if result.status == "fail"}


def changed(task, **update):
    return task.model_copy(update=update)


def with_tool(spec, name, **update):
    tools = tuple(tool.model_copy(update=update) if tool.name == name else tool for tool in spec.tools)
    return spec.model_copy(update={"tools": tools})


def test_accepted_tasks_pass_every_gate_again(steps):
    for spec, step in steps.values():
        report = check(spec, step.task)
        assert report.ok, [finding.message for finding in report.findings]
        assert report.task == step.task.hash
        assert {result.code for result in report.results} == {item.code for item in all_gates()}


def test_the_hand_written_example_passes_every_gate():
    spec, task = trip_planning()
    report = check(spec, task)
    assert report.ok, [finding.message for finding in report.findings]
    assert len(report.evidence("DF401")["skills"]) == 6


def test_skills_and_calls_of_a_step_come_from_its_report(steps):
    for _, step in steps.values():
        assert step.calls >= 1
        assert step.skills
        assert step.skills <= set(step.task.ablations)


def test_sp101_finds_a_world_that_does_not_build(steps):
    spec, step = steps["act"]
    table = spec.world.tables[0]
    broken = spec.world.model_copy(
        update={"tables": (table.model_copy(update={"checks": ("1 = 2",)}), *spec.world.tables[1:])}
    )
    assert codes(spec.model_copy(update={"world": broken}), step.task, "SP101") == {"SP101"}


def test_sp102_finds_a_task_of_another_environment_version(steps):
    spec, step = steps["act"]
    augmented = spec.model_copy(update={"title": "augmented"})
    report = check(augmented, step.task)
    assert [result.code for result in report.results if result.status == "fail"] == ["SP102"]
    assert {result.status for result in report.results if result.code.startswith("EX")} == {"skipped"}


@pytest.mark.parametrize(
    "update",
    [
        {"source": "def nothing(db):\n    return 1\n"},
        {"source": "def broken(:\n"},
        {"parameters": {"type": "object", "properties": {}}},
        {"parameters": {"type": "objekt"}},
        {"description": " "},
    ],
    ids=["no function", "no python", "open arguments", "no schema", "no description"],
)
def test_sp103_finds_malformed_tools(steps, update):
    spec, step = steps["act"]
    assert codes(with_tool(spec, spec.tools[0].name, **update), step.task, "SP103") == {"SP103"}


def test_sp104_finds_an_answer_schema_that_the_right_answer_does_not_meet(steps):
    spec, step = steps["plan"]
    assert codes(
        spec, changed(step.task, answer_schema={"type": "object", "additionalProperties": False}), "SP104"
    ) == {"SP104"}
    assert codes(spec, changed(step.task, answer_schema={"type": 3}), "SP104") == {"SP104"}


def test_sp105_finds_a_check_that_nobody_was_told_of(steps):
    spec, step = steps["plan"]
    secret = GoalAtom(id="secret", kind="answer", quote="and it must be cheap", expression="True")
    verifier = step.task.verifier.model_copy(update={"atoms": (*step.task.verifier.atoms, secret)})
    assert codes(spec, changed(step.task, verifier=verifier), "SP105") == {"SP105"}


def test_sp106_finds_a_prompt_that_says_something_else(steps):
    spec, step = steps["act"]
    prompt = step.task.prompt
    name = next(word for word in prompt.split() if word[:1].isdigit() or word[:-1].isdigit() or "-" in word)
    assert codes(
        spec, changed(step.task, prompt=prompt.replace(name, name[:-2] + "01"[name[-2] == "0"] + name[-1])), "SP106"
    ) == {"SP106"}
    assert codes(spec, changed(step.task, prompt=prompt + " Be quick."), "SP106") == {"SP106"}


def test_ex201_finds_a_solution_that_fails(steps):
    spec, step = steps["act"]
    assert "EX201" in codes(spec, changed(step.task, solution="def solve(call):\n    return {}\n"), "EX201")
    assert "EX201" in codes(
        spec, changed(step.task, solution="def solve(call):\n    return call('no_such_tool')\n"), "EX201"
    )
    assert "EX201" in codes(
        spec, changed(step.task, solution="def solve(call):\n    raise ValueError('no')\n"), "EX201"
    )


def test_ex202_finds_an_oracle_that_disagrees(steps):
    spec, step = steps["act"]
    outcome = step.task.oracle.model_copy(update={"changes": ()})
    assert codes(spec, changed(step.task, oracle=outcome), "EX202") == {"EX202"}


def test_ex202_finds_a_broken_verifier(steps):
    spec, step = steps["plan"]
    atom = step.task.verifier.atoms[0].model_copy(update={"expression": "1 / 0"})
    verifier = step.task.verifier.model_copy(update={"atoms": (atom,)})
    assert codes(spec, changed(step.task, verifier=verifier), "EX202") == {"EX202"}


def test_ex203_finds_tools_that_are_not_deterministic(steps):
    spec, step = steps["act"]
    tools = tuple(
        tool.model_copy(
            update={
                "source": f"import time\n{tool.source}\n_plain_{tool.name} = {tool.name}\n"
                f"def {tool.name}(db, **arguments):\n"
                f"    return {{**_plain_{tool.name}(db, **arguments), 'n': time.perf_counter_ns()}}\n"
            }
        )
        for tool in spec.tools
    )
    noisy = spec.model_copy(update={"tools": tools})
    assert codes(noisy, changed(step.task, environment=noisy.hash), "EX203") == {"EX203"}


def test_ex204_finds_a_turn_limit_without_room(steps):
    spec, step = steps["act"]
    assert codes(spec, changed(step.task, max_turns=step.calls + 1), "EX204") == {"EX204"}


def test_vf301_finds_a_task_that_is_already_done(steps):
    spec, step = steps["act"]
    lax = step.task.verifier.model_copy(update={"atoms": ()})
    assert "VF301" in codes(spec, changed(step.task, verifier=lax), "VF301")


def test_vf302_finds_a_verifier_that_accepts_what_looks_like_an_answer(steps):
    spec, step = steps["plan"]
    lax = step.task.verifier.model_copy(update={"atoms": step.task.verifier.atoms[:2]})
    assert "VF302" in codes(spec, changed(step.task, verifier=lax), "VF302")


def test_vf308_finds_a_right_answer_that_a_guess_hits_often(steps):
    spec, step = steps["read"]
    report = check(spec, step.task, select=["VF308"])
    assert report.ok
    shares = report.evidence("VF308")["fields"]
    assert set(shares) == set(step.task.oracle.answer)
    assert report.evidence("VF308")["share"] == pytest.approx(math.prod(shares.values()))
    for wanted in (7, "North", True):
        easy = Outcome(answer={"x": wanted})
        schema = {"properties": {"x": {"enum": ["North", "South"]} if wanted == "North" else {}}}
        assert codes(spec, changed(step.task, oracle=easy, answer_schema=schema), "VF308") == {"VF308"}, wanted


def test_vf308_finds_a_plan_that_many_guesses_meet(steps):
    spec, step = steps["plan"]
    assert check(spec, step.task, select=["VF308"]).evidence("VF308")["guesses"] == 192
    lax = step.task.verifier.model_copy(update={"atoms": step.task.verifier.atoms[:2]})
    assert codes(spec, changed(step.task, verifier=lax), "VF308") == {"VF308"}


def test_vf308_leaves_tasks_that_write_to_vf307(steps):
    spec, step = steps["act"]
    (result,) = check(spec, step.task, select=["VF308"]).results
    assert result.status == "skipped"


def test_vf303_finds_a_verifier_that_does_not_look_at_the_answer(steps):
    spec, step = steps["plan"]
    lax = step.task.verifier.model_copy(update={"atoms": ()})
    assert "VF303" in codes(spec, changed(step.task, verifier=lax), "VF303")


def test_vf304_finds_a_verifier_that_claims_too_much(steps):
    spec, step = steps["act"]
    greedy = tuple(
        atom.model_copy(update={"expression": f"list(diff) if ({atom.expression}) else None"})
        if atom.kind == "state"
        else atom
        for atom in step.task.verifier.atoms
    )
    assert "VF304" in codes(
        spec, changed(step.task, verifier=step.task.verifier.model_copy(update={"atoms": greedy})), "VF304"
    )


def test_vf305_finds_a_condition_that_nobody_checks(steps):
    spec, step = steps["plan"]
    for index, atom in enumerate(step.task.verifier.atoms):
        if any(probe.name.startswith("constraint") for probe in step.task.probes) and (
            "atom" in atom.id or "con" in atom.id
        ):
            rest = step.task.verifier.atoms[:index] + step.task.verifier.atoms[index + 1 :]
            lax = step.task.verifier.model_copy(update={"atoms": rest})
            assert codes(spec, changed(step.task, verifier=lax), "VF305") == {"VF305"}, atom.id


def test_vf306_finds_a_verifier_that_demands_the_authors_choice(steps):
    spec, step = steps["plan"]
    field, value = next(iter(step.task.oracle.answer.items()))
    own = GoalAtom(id="own", kind="answer", quote=step.task.prompt[:10], expression=f"answer[{field!r}] == {value!r}")
    strict = step.task.verifier.model_copy(update={"atoms": (*step.task.verifier.atoms, own)})
    assert codes(spec, changed(step.task, verifier=strict), "VF306") == {"VF306"}


def test_vf307_finds_a_verifier_that_pays_for_half_the_job(steps):
    spec, step = steps["act"]
    lax = step.task.verifier.model_copy(
        update={"atoms": tuple(a for a in step.task.verifier.atoms if a.kind == "answer")}
    )
    found = codes(spec, changed(step.task, verifier=lax), "VF307")
    assert found == {"VF307"}


def test_an_exploit_that_was_found_becomes_a_regression_case(steps):
    spec, step = steps["plan"]
    exploit = ProbeCase(name="exploit/1", accept=False, outcome=Outcome(answer=step.task.oracle.answer))
    assert codes(spec, changed(step.task, probes=(*step.task.probes, exploit)), "VF305") == {"VF305"}


def test_df401_finds_a_task_without_difficulty(steps):
    spec, step = steps["act"]
    harmless = {skill: {} for skill in step.task.ablations}
    assert codes(spec, changed(step.task, ablations=harmless), "DF401") == {"DF401"}


def test_se501_finds_the_answer_in_the_prompt(steps):
    spec, step = steps["plan"]
    value = next(iter(step.task.oracle.answer.values()))
    told = f"{step.task.prompt} For instance {value[0] if isinstance(value, list) else value}."
    assert codes(spec, changed(step.task, prompt=told), "SE501") == {"SE501"}


@pytest.mark.parametrize(
    "source",
    [
        "import os\n",
        "open('/etc/passwd')\n",
        "().__class__\n",
        "eval('1')\n",
        "__builtins__\n",
        "def broken(:\n",
        "class A:\n    pass\n",
    ],
)
def test_se502_finds_solutions_with_another_way_in(steps, source):
    spec, step = steps["act"]
    assert codes(spec, changed(step.task, solution=source + step.task.solution), "SE502") == {"SE502"}


def test_fail_fast_skips_what_follows(steps):
    spec, step = steps["act"]
    report = check(spec, changed(step.task, solution="def solve(call):\n    return {}\n"), fail_fast=True)
    statuses = [result.status for result in report.results]
    first = statuses.index("fail")
    assert set(statuses[first + 1 :]) == {"skipped"}
    assert not report.ok


def test_every_gate_is_documented():
    for item in all_gates():
        page = explain(item.code)
        assert page.startswith(item.code)
        assert "Why:" in page
        assert "Fix:" in page or "Together" in page
        assert len(page) > 150
    assert find_gate("vf305").code == "VF305"
    with pytest.raises(SpecError, match="no gate has the code 'VF999'"):
        explain("VF999")


def test_step_is_a_record_of_a_version_with_its_report(steps):
    spec, step = steps["act"]
    assert isinstance(step, Step)
    assert step.report.environment == spec.hash
