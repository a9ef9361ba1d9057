"""Sequences are well-posed: a reader without weights answers everything from earlier tokens."""

from __future__ import annotations

import numpy as np
import pytest

from envsynth.errors import SpecError
from envsynth.train.fidelity import tasks
from envsynth.train.fidelity.tasks import ANSWERS, Kind, TaskConfig, make_tasks

CONTEXTS = (64, 128, 256, 1024, 8192)


def read(tokens: list[int]) -> dict[int, int]:
    """What follows with certainty from earlier tokens: position -> id. It knows the marks, and no layout."""
    known: dict[tuple[int, int], list[int]] = {}
    span: list[int] = []
    found: dict[int, int] = {}
    for at, token in enumerate(tokens):
        if token == tasks.NEEDLE:
            key1, key2, *value = tokens[at + 1 : at + 5]
            known.setdefault((key1, key2), []).extend(value)
        elif token == tasks.COPY_BEGIN:
            span = tokens[at + 1 : tokens.index(tasks.COPY_END, at)]
        elif token in (tasks.QUERY, tasks.QUERY_ALL):
            answer = known[tokens[at + 1], tokens[at + 2]]
            found |= {at + 3 + place: value for place, value in enumerate(answer)}
        elif token == tasks.COPY:
            found |= {at + 1 + place: value for place, value in enumerate(span)}
    return found


@pytest.mark.parametrize("context", CONTEXTS)
def test_make_tasks_every_answer_follows_from_earlier_tokens(context: int) -> None:
    config = TaskConfig.for_context(context)
    batch = make_tasks(config, seed="reader", step=3, sequences=4)
    assert batch.tokens_BT.shape == (4, context)
    for tokens, kinds in zip(batch.tokens_BT.tolist(), batch.kinds_BT.tolist(), strict=True):
        answers = {at: tokens[at] for at, kind in enumerate(kinds) if kind in ANSWERS}
        assert read(tokens) == answers


def test_for_context_counts_at_8192_are_those_of_the_experiment() -> None:
    config = TaskConfig.for_context(8192)
    assert (config.needles, config.queries, config.groups, config.group_size, config.span) == (64, 24, 2, 4, 64)


def test_make_tasks_is_a_function_of_seed_and_step() -> None:
    config = TaskConfig.for_context(256)
    batches = {
        (seed, step): make_tasks(config, seed=seed, step=step, sequences=2) for seed in ("a", "b") for step in (0, 1)
    }
    again = make_tasks(config, seed="a", step=1, sequences=2)
    assert np.array_equal(batches["a", 1].tokens_BT, again.tokens_BT)
    assert batches["a", 1].digest == again.digest
    assert len({batch.digest for batch in batches.values()}) == 4


@pytest.mark.parametrize("context", CONTEXTS)
def test_make_tasks_items_stand_apart_and_ids_keep_to_their_ranges(context: int) -> None:
    config = TaskConfig.for_context(context)
    batch = make_tasks(config, seed="apart", step=0, sequences=3)
    for tokens, kinds, starts in zip(batch.tokens_BT, batch.kinds_BT, batch.starts_BI, strict=True):
        lengths = np.full(len(starts), 5)
        lengths[-1] = config.span + 2
        order = starts.argsort()
        assert (starts[order][1:] >= (starts + lengths)[order][:-1]).all()
        assert starts.min() >= 0
        assert (starts + lengths).max() <= config.body
        assert np.isin(tokens[kinds == Kind.FILLER], tasks.FILLER_IDS).all()
        assert (tokens[kinds == Kind.OTHER] < 6).all()
        assert (kinds == Kind.FILLER).sum() == config.filler
        assert np.isin(tokens[(kinds == Kind.SINGLE) | (kinds == Kind.MULTI)], tasks.VALUE_IDS).all()
        assert np.isin(tokens[kinds == Kind.COPY], tasks.COPY_IDS).all()
        keys = [tuple(tokens[start + 1 : start + 3]) for start in starts[:-1]]
        assert len(set(keys)) == config.needles + config.groups


def test_ranges_of_ids_are_disjoint() -> None:
    ranges = (range(8), tasks.FILLER_IDS, tasks.KEY_IDS, tasks.VALUE_IDS, tasks.COPY_IDS)
    ids = [item for part in ranges for item in part]
    assert sorted(ids) == list(range(tasks.VOCABULARY))


def test_make_tasks_needles_stand_at_any_depth() -> None:
    config = TaskConfig.for_context(1024)
    starts = make_tasks(config, seed="depth", step=0, sequences=400).starts_BI[:, : config.needles]
    depth = (starts / (config.body - 5)).ravel()
    shares = np.histogram(depth, bins=10, range=(0, 1))[0] / depth.size
    assert np.abs(shares - 0.1).max() < 0.012


def test_make_tasks_filler_follows_the_chain() -> None:
    config = TaskConfig.for_context(1024)
    batch = make_tasks(config, seed="chain", step=0, sequences=8)
    table = tasks.transitions()
    ranks = []
    for tokens, kinds in zip(batch.tokens_BT, batch.kinds_BT, strict=True):
        chain = tokens[kinds == Kind.FILLER] - tasks.FILLER_IDS.start
        hits = table[chain[:-1]] == chain[1:, None]
        assert hits.any(axis=1).all()
        ranks.append(hits.argmax(axis=1))
    weights = 1 / np.arange(1, 17)
    shares = np.bincount(np.concatenate(ranks), minlength=16) / sum(map(len, ranks))
    assert np.abs(shares - weights / weights.sum()).max() < 0.02


@pytest.mark.parametrize(
    ("name", "value"), [("queries", 99), ("needles", 0), ("context", 100), ("span", 0), ("group_size", -1)]
)
def test_task_config_refuses_what_does_not_fit(name: str, value: int) -> None:
    good = {"context": 256, "needles": 8, "queries": 4, "groups": 1, "group_size": 4, "span": 16}
    with pytest.raises(SpecError, match=r"TaskConfig\."):
        TaskConfig(**{**good, name: value})
