"""The differential harness: the jail gives what plain CPython gives, and a planted difference is noticed."""

from __future__ import annotations

from typing import Any

import pytest

from acceptance import jail_same, plain_runner
from acceptance.jail_same import Tally, compare, edges, in_plain
from acceptance.same_modules import CASES, handmade
from envsynth.environments import build_image
from envsynth.environments.examples import EXAMPLES
from envsynth.environments.tools import Call, check_arguments
from envsynth.sandbox import Jail
from envsynth.spec import EnvironmentSpec

SPEC = handmade()
CALLS = [Call(tool=tool.name, arguments={"n": n}) for n in CASES for tool in SPEC.tools]
FEW_NAMES = ("refusals", "builtin_errors", "upserts", "commits", "nulls")
FEW = [Call(tool=name, arguments={"n": n}) for n in (0, 1) for name in FEW_NAMES]


def compared(jail: Jail, calls: list[Call]) -> Tally:
    tally = Tally()
    compare(SPEC, build_image(jail, SPEC.world), calls, jail, tally)
    return tally


def test_modules_by_hand_give_the_same(jail: Jail) -> None:
    tally = compared(jail, CALLS)
    assert tally.differences == []
    assert tally.calls == len(CALLS)
    assert len(tally.modules) == len(SPEC.tools) >= 60
    assert all(tally.ends[end] >= 3 for end in ("ok", "raised", "refused", "bad_result"))


@pytest.mark.parametrize(
    ("tool", "old", "new", "what"),
    [
        ("refusals", '"conflict"', '"other"', "outcome"),
        ("builtin_errors", "[][5]", "{}[5]", "outcome"),
        ("builtin_errors", "return [", "\n    return [", "outcome"),
        ("upserts", "+ 10", "+ 10 + 0 * n", "rows"),
        ("upserts", "+ 10", "+ 11", "rows"),
        ("commits", "'second'", "'third'", None),
        ("commits", "SET n = ?", "SET n = 1 + ?", "rows"),
    ],
    ids=["code", "type", "line", "nothing", "row", "undone", "other-row"],
)
def test_compare_notices_a_planted_difference(
    jail: Jail, monkeypatch: pytest.MonkeyPatch, tool: str, old: str, new: str, what: str | None
) -> None:
    def planted(spec: EnvironmentSpec, image: bytes, calls: Any) -> list[Any]:
        other = [
            each.model_copy(update={"source": each.source.replace(old, new)}) if each.name == tool else each
            for each in spec.tools
        ]
        assert tuple(other) != spec.tools
        return in_plain(spec.model_copy(update={"tools": tuple(other)}), image, calls)

    monkeypatch.setattr(jail_same, "in_plain", planted)
    differences = compared(jail, FEW).differences
    if what is None or "0 * n" in new:  # what a call undoes leaves no trace, and equal sums are equal
        assert differences == []
    else:
        assert any(f": {what}: " in line and tool in line for line in differences), differences


def test_edges_pass_the_schemas_and_repeat_themselves() -> None:
    spec, _ = EXAMPLES["trip-planning"]()
    made = list(edges(spec, [], "x"))
    assert {call.tool for call in made} == {tool.name for tool in spec.tools}
    assert all(check_arguments(tool, call.arguments) is None for call in made if (tool := spec.tool(call.tool)))
    assert made == list(edges(spec, [], "x")) != list(edges(spec, [], "y"))


def test_plain_runner_undoes_a_failed_call(jail: Jail) -> None:
    source = "def f(db, n):\n    db.execute('DELETE FROM orders')\n    db.commit()\n    return 1 / n\n"
    runner = plain_runner.Runner(build_image(jail, SPEC.world), {"f": source})
    before = plain_runner.rows_of(runner.db)
    assert runner.call("f", {"n": 0}) == ["raised", "ZeroDivisionError", "division by zero (line 4 of tool f)"]
    assert plain_runner.rows_of(runner.db) == before
    assert runner.call("f", {"n": 1}) == ["ok", "1.0"]
    assert plain_runner.rows_of(runner.db)["orders"][0] == 0
    runner.db.rollback()
    super(plain_runner.Plain, runner.db).close()
