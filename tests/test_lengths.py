"""Lengths of episodes by tier."""

from __future__ import annotations

from pathlib import Path

import pytest

from envsynth.environments.actions import first_observation
from envsynth.errors import EnvironmentVoid
from envsynth.lengths import Spread, character_length, solution_lengths, spread, stored_lengths, token_length
from envsynth.pipeline import synthesize
from envsynth.sandbox import Jail
from envsynth.spec import EnvironmentSpec, TaskVersion
from envsynth.store import Store
from envsynth.trajectory import Turn

TURNS = (Turn(action="abc", observation="de"), Turn(action="f", observation="ghij"))


def test_lengths_leave_out_what_nobody_reads() -> None:
    assert character_length("first", TURNS) == 5 + 3 + 1 + 2
    assert token_length("first", TURNS) == token_length("first", (*TURNS[:1], Turn(action="f", observation="other")))
    assert token_length("first", TURNS) > token_length("first", TURNS[:1])


@pytest.mark.parametrize(
    ("lengths", "wanted"),
    [([5], Spread(5, 5, 5)), (list(range(1, 11)), Spread(5, 9, 10)), ([3, 1, 2], Spread(2, 3, 3))],
)
def test_spread_gives_lengths_that_occur(lengths: list[int], wanted: Spread) -> None:
    assert spread(lengths) == wanted


def test_spread_refuses_nothing() -> None:
    with pytest.raises(ValueError, match="at least one"):
        spread([])


def test_solution_lengths_measures_the_solution(jail: Jail, shop: EnvironmentSpec, value_task: TaskVersion) -> None:
    tokens, characters = solution_lengths(shop, value_task, jail)
    first = first_observation(shop, value_task)
    assert characters > len(first)
    assert 100 < tokens < characters


def test_solution_lengths_says_when_there_is_no_judgement(
    jail: Jail, shop: EnvironmentSpec, broken_task: TaskVersion
) -> None:
    with pytest.raises(EnvironmentVoid, match="no judgement"):
        solution_lengths(shop, broken_task, jail)


def test_stored_lengths_by_tier(tmp_path: Path, jail: Jail, shop: EnvironmentSpec, value_task: TaskVersion) -> None:
    with Store.open(tmp_path / "store.db") as store:
        assert stored_lengths(store, limit=3) == []
        store.add_environment(shop)
        store.add_task(value_task)
        synthesize("small tables", count=1, seed=1, store=store, lineages=4, tier="nano")
        nano, other = stored_lengths(store, limit=3, jail=jail)
    assert (nano.tier, nano.n, other.tier, other.n) == ("nano", 3, "other", 1)
    assert nano.tokens.max <= 256
    assert nano.tokens.median < nano.characters.median / 5
