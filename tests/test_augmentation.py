"""More tools make a new environment version, and every task is audited again in it."""

from __future__ import annotations

import pytest

from envsynth.augmentation import augment
from envsynth.errors import SpecError
from envsynth.pipeline import UnitRequest, make_unit
from envsynth.spec import Tool
from envsynth.store import Store


@pytest.fixture(scope="module")
def unit():
    for index in range(6):
        found = make_unit(
            UnitRequest(category="booking laboratory equipment", seed="a", index=index, lineages=1, steps=1)
        )
        if len(found.tasks) == 2:
            return found
    raise AssertionError("no lineage of two versions among six")


def tool(name: str, source: str) -> Tool:
    closed = {"type": "object", "properties": {}, "required": [], "additionalProperties": False}
    return Tool(name=name, effect="read", description="A decoy.", parameters=closed, source=source)


def test_a_harmless_tool_makes_a_new_version_whose_tasks_all_pass_again(unit, tmp_path):
    seen = []
    tasks = [task for task, _ in unit.tasks]
    decoy = tool("say_hello", "def say_hello(db):\n    return {'text': 'hello'}\n")
    grown = augment(unit.environment, [decoy], tasks, on_report=lambda task, report: seen.append(task.hash))
    assert grown.environment.previous == unit.environment.hash
    assert grown.environment.hash != unit.environment.hash
    assert grown.environment.tool("say_hello") == decoy
    assert seen == [task.hash for task, _ in grown.tasks]
    assert [report.ok for _, report in grown.tasks] == [True, True]
    root, child = (task for task, _ in grown.tasks)
    assert child.lineage.parent == root.hash != tasks[0].hash
    assert grown.passed == grown.tasks
    with Store.open(tmp_path / "s.db") as store:
        for environment, found in ((unit.environment, unit.tasks), (grown.environment, grown.tasks)):
            store.add_environment(environment)
            for task, report in found:
                store.add_task(task, report)
        assert len(store.lineage(child.hash)) == 2


def test_a_broken_tool_is_found_by_every_task(unit):
    broken = tool("broken", "def broken(db:\n")
    grown = augment(unit.environment, [broken], [unit.tasks[0][0]])
    codes = [result.code for result in grown.tasks[0][1].results if result.status == "fail"]
    assert "SP103" in codes
    assert grown.passed == ()


def test_bad_augmentations_are_refused(unit):
    tasks = [task for task, _ in unit.tasks]
    decoy = tool("say_hello", "def say_hello(db):\n    return {}\n")
    with pytest.raises(SpecError, match="no tool was given"):
        augment(unit.environment, [], tasks)
    with pytest.raises(SpecError, match="already: rename"):
        augment(unit.environment, [unit.environment.tools[0]], tasks)
    with pytest.raises(SpecError, match="without its parent"):
        augment(unit.environment, [decoy], tasks[1:])
    with pytest.raises(SpecError, match="belongs to environment"):
        augment(unit.environment.model_copy(update={"title": "other"}), [decoy], tasks)
