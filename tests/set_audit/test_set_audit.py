"""The audit of sets: every rule finds what is planted, and a sound set passes all of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from envsynth.errors import SpecError, SpecNotFound, SuiteError
from envsynth.report import SetReport
from envsynth.set_audit import SetLimits, all_rules, audit_set, explain_rule
from envsynth.set_audit.facts import normalised_words, recorded_form, world_facts
from envsynth.spec import EnvironmentSpec, TaskVersion
from envsynth.store import Store
from tests.set_audit.making import Pair, calibrated, child, drawn, lineages, renamed, skinned, suite_file

FEW = SetLimits(judged_from=4)


@pytest.fixture(scope="module")
def trips() -> list[Pair]:
    return drawn("planning a travel itinerary")


@pytest.fixture(scope="module")
def shops() -> list[Pair]:
    return drawn("warehouse restocking")


@pytest.fixture(scope="module")
def sensors() -> list[Pair]:
    return drawn("sensor alarms", roots=1)


def audit(folder: Path, *lists: list[Pair], against: tuple[str, ...] = (), **options: Any) -> SetReport:
    place = folder / f"audit{sum(path.is_dir() for path in folder.iterdir())}"
    place.mkdir()
    names = [suite_file(place, f"list{number}", pairs) for number, pairs in enumerate(lists)]
    return audit_set(names, against=against, **options)


def failed(report: SetReport) -> list[str]:
    return [result.code for result in report.results if result.status == "fail"]


def messages(report: SetReport, code: str) -> list[str]:
    return [finding.message for finding in report.result(code).findings]


# ------------------------------------------------------------------------------------------------------------ sound sets


def test_a_sound_set_passes_every_rule(
    tmp_path: Path, trips: list[Pair], shops: list[Pair], sensors: list[Pair]
) -> None:
    other, prompts = suite_file(tmp_path, "other", sensors), tmp_path / "prompts.txt"
    prompts.write_text(
        "Please tell me how many books there are in the library, and who wrote the oldest one of them all.\n"
    )
    report = audit(tmp_path, trips, shops, against=(other, str(prompts)), limits=FEW)
    assert report.ok, report.findings
    assert [result.status for result in report.results] == ["pass"] * 9 + ["skipped"], "a file knows no reports"
    assert (report.tasks, report.environments, list(report.splits.values())) == (4, 2, [2, 2])
    assert report.result("ST606").evidence == {
        "against": {other: {"texts": 1, "tasks_hit": 0}, str(prompts): {"texts": 1, "tasks_hit": 0}}
    }
    assert report.result("ST604").evidence["worlds_curve"] == [[2, 2]]


def test_all_of_a_store_is_audited_by_its_leaves(tmp_path: Path, trips: list[Pair]) -> None:
    path = tmp_path / "list.db"
    suite_file(tmp_path, "list", [trips[0], child(trips[0])])
    assert audit_set(store=path).splits == {"store": 1}
    whole = audit_set(store=path, leaves_only=False)
    assert (whole.splits, whole.ok) == ({"store": 2}, False)
    assert audit_set(["list"], store=path).splits == {"list": 2}


def test_equal_sets_give_equal_reports(tmp_path: Path, trips: list[Pair], shops: list[Pair]) -> None:
    names = [suite_file(tmp_path, "one", trips), suite_file(tmp_path, "two", [*shops, trips[0]])]
    assert audit_set(names) == audit_set(names)


# ------------------------------------------------------------------------------------------------------------ duplicates


def test_a_copy_under_another_name_and_seed_is_found(tmp_path: Path, trips: list[Pair]) -> None:
    seeded = trips[0][1].provenance.model_copy(update={"seed": "another"})
    copy = skinned(trips[0], provenance=seeded)
    report = audit(tmp_path, [*trips, copy])
    assert messages(report, "ST601") == [
        f"task {copy[1].hash[:12]} of a-skin is the same as task {trips[0][1].hash[:12]} of {trips[0][0].slug}"
    ]


def test_a_prompt_with_another_word_is_found(tmp_path: Path, trips: list[Pair]) -> None:
    spec, task = trips[0]
    assert len(normalised_words(task.prompt)) > 20
    near = spec, task.model_copy(update={"prompt": f"{task.prompt} Thanks."})
    far = spec, task.model_copy(update={"prompt": "How many are there? " * 5})
    report = audit(tmp_path, [*trips, near, far])
    found = report.result("ST602").findings
    assert [finding.where for finding in found] == [near[1].hash]
    assert " is worded (0.9" in found[0].message
    assert audit(tmp_path, [*trips, far]).result("ST602").status == "pass"
    assert audit(tmp_path, [*trips, near], limits=SetLimits(near=0.99)).result("ST602").status == "pass"


def test_versions_of_one_lineage_may_resemble_each_other(tmp_path: Path, trips: list[Pair]) -> None:
    first = child(trips[0], max_turns=30)
    second = child(first, max_turns=31)
    report = audit(tmp_path, [trips[0], first, second])
    assert report.result("ST602").status == report.result("ST603").status == "pass"
    # Two children of one parent are two tasks.
    report = audit(tmp_path, [trips[0], first, child(trips[0], max_turns=32)])
    assert [len(report.result(code).findings) for code in ("ST602", "ST603")] == [1, 1]


def test_other_words_for_one_program_are_found(tmp_path: Path, trips: list[Pair], shops: list[Pair]) -> None:
    other = renamed(
        trips[0], "other", prompt="Quite another way to ask for the very same thing, in a world of other names."
    )
    report = audit(tmp_path, [*trips, other])
    assert [finding.where for finding in report.result("ST603").findings] == [other[1].hash]
    assert {result.code for result in report.results if result.status == "fail"} == {"ST603", "ST604"}
    answers = other[1].oracle.model_copy(update={"answer": {"value": "another"}})
    assert audit(tmp_path, [*trips, renamed(trips[0], "other", oracle=answers)]).result("ST603").status == "pass"
    # The same program in a world of another structure: counted, no finding.
    moved = shops[0][0], trips[0][1].model_copy(update={"environment": shops[0][0].hash})
    found = audit(tmp_path, [*trips, moved]).result("ST603")
    assert (found.status, found.evidence["elsewhere"]) == ("pass", 1)


def test_programs_that_cannot_be_read_are_counted(tmp_path: Path, trips: list[Pair]) -> None:
    broken = [
        (spec, task.model_copy(update={"ir": ir}))
        for (spec, task), ir in zip(trips, (["Choose", 1], ["Task", "no", "steps", 1, 2]), strict=True)
    ]
    report = audit(tmp_path, [trips[0], *broken])
    assert (report.result("ST603").evidence["programs"], report.result("ST603").evidence["unreadable"]) == (1, 2)
    assert report.result("ST604").evidence["unreadable"] == 2
    assert audit(tmp_path, broken).result("ST603").status == "skipped"


# ------------------------------------------------------------------------------------------------------------- diversity


def test_skins_of_one_world_are_found(tmp_path: Path, trips: list[Pair], shops: list[Pair]) -> None:
    skins = [renamed(trips[0], f"skin-{number}") for number in range(3)]
    report = audit(tmp_path, [*skins, shops[0]])
    assert messages(report, "ST604") == ["2 of 4 worlds differ in structure (50%, at least 90%)"]
    assert report.result("ST604").evidence["worlds_curve"] == [[4, 2]]
    report = audit(tmp_path, [*skins, trips[0], shops[0]])
    assert messages(report, "ST604")[1] == "2 of 5 programs differ in structure (40%, at least 50%)"


def test_one_class_that_crowds_out_the_others_is_found(tmp_path: Path, trips: list[Pair]) -> None:
    spec, task = trips[0]
    same = [
        (spec, task.model_copy(update={"prompt": f"{number} {task.prompt}", "kind": "plan"})) for number in range(20)
    ]
    found = audit(tmp_path, same).result("ST605")
    assert [finding.message for finding in found.findings] == ["20 of 20 kinds are 'plan' (at most 80%)"]
    assert "operators" not in found.evidence
    assert found.evidence["kinds"] == {"entropy_bits": 0.0, "effective": 1.0, "values": 1, "most": "plan", "share": 1.0}
    mechanisms: Any = found.evidence["mechanisms"]
    assert mechanisms["values"] == len(world_facts(spec).mechanisms) >= 2
    few = audit(tmp_path, same[: 19 // len(world_facts(spec).mechanisms)]).result("ST605")
    assert (few.status, few.evidence["kinds"]) == ("skipped", found.evidence["kinds"])
    mixed = [
        (spec, one.model_copy(update={"kind": "read" if number < 4 else "plan"}))
        for number, (_, one) in enumerate(same)
    ]
    assert audit(tmp_path, mixed).result("ST605").status == "pass"
    hardened = [(spec, task), *(child((spec, task), prompt=f"{number} {task.prompt}") for number in range(20))]
    assert [item.where for item in audit(tmp_path, hardened).result("ST605").findings] == ["kinds", "operators"]


def test_a_structure_does_not_depend_on_names_and_rows(trips: list[Pair], shops: list[Pair]) -> None:
    spec = trips[0][0]
    record = spec.model_dump(mode="json")
    names = {table["name"]: f"t{number}" for number, table in enumerate(record["world"]["tables"])}
    for table in record["world"]["tables"]:
        table["name"] = names[table["name"]]
        for column in table["columns"]:
            if column["references"]:
                target, _, key = column["references"].partition(".")
                column["references"] = f"{names[target]}.{key}"
    record["world"]["rows"] = {}
    other = EnvironmentSpec.parse(record)
    assert other.hash != spec.hash
    assert recorded_form(other) == recorded_form(spec) != recorded_form(shops[0][0])
    record["world"]["tables"][0]["columns"][-1]["nullable"] ^= True
    assert recorded_form(EnvironmentSpec.parse(record)) != recorded_form(spec)


# ---------------------------------------------------------------------------------------------------------------- leaks


def prompts_of(task: TaskVersion) -> dict[str, str]:
    """Files that hold a prompt, by name."""
    words = task.prompt.upper().replace(" ", "  ").split(" ")
    wrapped = "\n".join(" ".join(words[start : start + 7]) for start in range(0, len(words), 7))
    content = {"messages": [{"role": "user", "content": f"First: {task.prompt}!"}]}
    return {
        "wrapped.txt": f"Notes.\n\n{wrapped}\n",
        "texts.jsonl": "\n" + json.dumps("Something else.") + "\n" + json.dumps(task.prompt) + "\n",
        "keys.jsonl": json.dumps({"id": 3, "question": f"- {task.prompt}"}) + "\n",
        "messages.jsonl": json.dumps(content) + "\n",
    }


@pytest.mark.parametrize("name", ["wrapped.txt", "texts.jsonl", "keys.jsonl", "messages.jsonl", "suite.jsonl"])
def test_a_prompt_of_a_named_suite_is_found(tmp_path: Path, trips: list[Pair], name: str) -> None:
    path = tmp_path / name
    if name == "suite.jsonl":
        suite_file(tmp_path, "suite", [trips[0]])
    else:
        path.write_text(prompts_of(trips[0][1])[name])
    report = audit(tmp_path, trips, against=(str(path),))
    found = report.result("ST606").findings
    assert [finding.where for finding in found] == [trips[0][1].hash]
    start = " ".join(normalised_words(trips[0][1].prompt)[:13])
    assert found[0].message.endswith(f": {start!r}")
    assert str(path) in found[0].message


def test_twelve_words_in_a_row_are_none_too_many(tmp_path: Path, trips: list[Pair]) -> None:
    words = normalised_words(trips[0][1].prompt)
    path = tmp_path / "some.txt"
    for size, status in ((12, "pass"), (13, "fail")):
        path.write_text(f"odd {' '.join(words[:size])} ending")
        assert audit(tmp_path, trips, against=(str(path),)).result("ST606").status == status
    assert audit(tmp_path, trips, against=(str(path),), limits=SetLimits(window=14)).result("ST606").status == "pass"


def test_a_short_prompt_is_compared_whole(tmp_path: Path, trips: list[Pair]) -> None:
    short = trips[0][0], trips[0][1].model_copy(update={"prompt": "How many are there?"})
    path = tmp_path / "some.txt"
    for text, status in (("Who?\nhow many ARE there\n", "fail"), ("Who asks how many are there now?", "pass")):
        path.write_text(text)
        assert audit(tmp_path, [short], against=(str(path),)).result("ST606").status == status


def test_a_task_of_a_named_suite_in_other_words_is_found(tmp_path: Path, trips: list[Pair], shops: list[Pair]) -> None:
    answers = trips[0][1].oracle.model_copy(update={"answer": {"value": "another"}})
    hidden = renamed(trips[0], "exam", prompt="A prompt without a word in common.", oracle=answers)
    exam = suite_file(tmp_path, "exam", [hidden])
    report = audit(tmp_path, [*trips, *shops], against=(exam,))
    assert failed(report) == ["ST607"]
    assert [finding.where for finding in report.result("ST607").findings] == [trips[0][1].hash]
    same = suite_file(tmp_path, "same", [trips[0]])
    assert f"is task {trips[0][1].hash[:12]}" in messages(audit(tmp_path, trips, against=(same,)), "ST607")[0]


def test_splits_that_share_a_world_its_structure_or_a_lineage_are_found(
    tmp_path: Path, trips: list[Pair], shops: list[Pair]
) -> None:
    report = audit(tmp_path, [trips[0]], [trips[1]])
    assert report.result("ST608").evidence["shared"] == {"environment": 1}
    report = audit(tmp_path, [trips[0]], [renamed(trips[1], "other")])
    assert report.result("ST608").evidence["shared"] == {"structure of environments": 1}
    moved = shops[0][0], child(trips[0], environment=shops[0][0].hash)[1]
    names = [suite_file(tmp_path, "one", [trips[0]]), suite_file(tmp_path, "two", [trips[0], moved])]
    lines = Path(names[1]).read_text().splitlines()
    header = json.loads(lines[0])
    assert header["counts"]["tasks"] == 2
    assert audit_set(names).result("ST608").evidence["shared"] == {"environment": 1}
    store = tmp_path / "lines.db"
    with Store.open(store) as opened, opened.batch() as batch:
        for spec, task in (trips[0], moved):
            batch.add_environment(spec)
            batch.add_task(task)
    report = audit_set([trips[0][1].hash, moved[1].hash], store=store)
    assert report.result("ST608").evidence["shared"] == {"lineage": 1}


def test_splits_that_share_a_family_are_found(tmp_path: Path, trips: list[Pair], shops: list[Pair]) -> None:
    details = {**trips[0][0].provenance.details, "signature": "another"}
    provenance = trips[0][0].provenance.model_copy(update={"details": details})
    spec = trips[0][0].model_copy(update={"slug": "other", "provenance": provenance, "policy": ("Other rules.",)})
    moved = spec, trips[1][1].model_copy(update={"environment": spec.hash, "prompt": "Other words for it."})
    report = audit(tmp_path, [trips[0]], [moved, shops[0]])
    assert failed(report) == ["ST609"]
    family = " + ".join(world_facts(spec).mechanisms)
    assert messages(report, "ST609")[0].endswith(f"share the family {family}")
    assert report.result("ST609").evidence["splits"] == report.splits


def test_what_has_nothing_to_compare_with_is_skipped(tmp_path: Path, trips: list[Pair]) -> None:
    report = audit(tmp_path, trips)
    skipped = [result.code for result in report.results if result.status == "skipped"]
    assert skipped == ["ST605", "ST606", "ST607", "ST608", "ST609", "ST610"]
    path = tmp_path / "words.txt"
    path.write_text("nothing in common")
    assert audit(tmp_path, trips, against=(str(path),)).result("ST607").status == "skipped"


# ---------------------------------------------------------------------------------------------------------------- knobs


@pytest.mark.parametrize(
    ("before", "after", "status"),
    [("abc", "a", "fail"), ("a", "abc", "pass"), ("abc", "abc", "pass"), ("abc", "abx", "pass"), ("", "", "skipped")],
)
def test_an_operator_after_which_more_solvers_pass_is_found(
    tmp_path: Path, trips: list[Pair], before: str, after: str, status: str
) -> None:
    store, tasks = lineages(tmp_path, trips[0], before, after)
    result = audit_set(store=store, limits=FEW).result("ST610")
    assert result.status == status
    assert audit_set(tasks, store=store, limits=FEW).result("ST610").status == status, "named tasks have ancestors, too"
    assert audit_set(store=store, limits=SetLimits(judged_from=100)).result("ST610").status == "skipped"
    if status == "fail":
        assert result.evidence == {"distractors, the ladder": {"steps": 4, "before": 0.0, "after": 0.667}}
        assert "the ladder solves 66.7% of what distractors made, and 0.0% of the parents (4 steps)" in (
            result.findings[0].message
        )


@pytest.mark.parametrize(
    ("parent", "passed", "status"), [(4, 12, "fail"), (4, 5, "pass"), (16, 16, "pass"), (9, 2, "pass")]
)
def test_a_calibrated_actor_tells_of_a_knob(
    tmp_path: Path, trips: list[Pair], parent: int, passed: int, status: str
) -> None:
    store, _ = lineages(tmp_path, trips[0], "a", "ab")
    with Store.open(store) as opened:
        for task in opened.tasks():
            opened.add_calibration(calibrated(task, passed if task.lineage.parent else parent))
    result = audit_set(store=store, limits=FEW).result("ST610")
    assert result.status == status
    assert [finding.where for finding in result.findings] == ["distractors"] * (status == "fail")
    assert set(result.evidence) == {"distractors, the ladder", "distractors, random"}


# ------------------------------------------------------------------------------------------------------------ bad input


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.txt", b"\n \n", "holds no prompt"),
        ("empty.jsonl", b"\n", "holds no prompt"),
        ("odd.jsonl", b'"a prompt"\n{"title": "x"}\n', "line 2 has no prompt"),
        ("odd.jsonl", b'"a prompt"\n{"prompt": \n', "line 2 is not JSON"),
        ("odd.jsonl", b'{"prompt" \n', "line 1 is not JSON"),
        ("odd.txt", b"\xff\xfe", "is not UTF-8"),
        ("odd.jsonl", b'{"kind": "suite", "format": "x"}\n', "has format 'x'"),
    ],
)
def test_a_suite_to_hold_against_that_is_damaged_is_an_error(
    tmp_path: Path, trips: list[Pair], name: str, content: bytes, message: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(SuiteError, match=message):
        audit(tmp_path, trips, against=(str(path),))


def test_names_that_are_nothing_are_errors(tmp_path: Path, trips: list[Pair]) -> None:
    store = tmp_path / "list0.db"
    target = suite_file(tmp_path, "list0", trips)
    with pytest.raises(SpecNotFound, match="no environment or task 'nowhere'"):
        audit_set([target], against=["nowhere"], store=store)
    with pytest.raises(SuiteError, match="cannot read"):
        audit_set([target], against=[str(tmp_path / "none.jsonl")])
    with pytest.raises(SpecError, match="is there twice"):
        audit_set([target, target])
    with pytest.raises(SpecError, match=r"no rule for sets has the code 'ST999'; there are ST601"):
        audit_set([target], select=["ST999"])
    with Store.open(tmp_path / "empty.db"), pytest.raises(SpecError, match="no task to audit"):
        audit_set(store=tmp_path / "empty.db")
    for wrong in ({"near": 1.0}, {"near": -0.1}, {"window": 0}, {"distinct_worlds": 1.1}):
        with pytest.raises(SpecError):
            SetLimits(**wrong)


def test_each_rule_has_a_page() -> None:
    assert [item.code for item in all_rules()] == [f"ST6{number:02}" for number in range(1, 11)]
    for item in all_rules():
        assert "Why: " in explain_rule(item.code.lower())
        assert "Fix: " in item.page
