"""Each stage trains what it should and nothing else; twins see equal batches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from envsynth.errors import CheckpointError, ExperimentError
from envsynth.train.fidelity import stages
from envsynth.train.fidelity.batches import BatchFeed
from envsynth.train.fidelity.config import FidelityConfig
from envsynth.train.fidelity.folder import FidelityFolder
from envsynth.train.fidelity.stages import INDEXER, Bench, StageKind, load_trunk, new_policy, run_stage
from envsynth.train.fidelity.tasks import ANSWERS, Kind, TaskConfig, make_tasks
from tests.train.fidelity.conftest import CPU, tiny


def bench(config: FidelityConfig | None = None, told: list[Mapping[str, float]] | None = None) -> Bench:
    told = [] if told is None else told
    return Bench(config=config or tiny(), device=CPU, seed=0, watch=lambda step, steps, metrics: told.append(metrics))


def changed(kind: StageKind, config: FidelityConfig | None = None) -> set[str]:
    config = config or tiny()
    policy = new_policy(config.cell(1, 4), CPU, seed=0)
    # Fresh residual branches are zero and would pass no gradient on.
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter += 0.02 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
    before = {name: item.clone() for name, item in policy.named_parameters()}
    run_stage(kind, policy, bench(config))
    return {name for name, item in policy.named_parameters() if not torch.equal(before[name], item)}


def test_run_stage_warmup_trains_the_indexer_alone() -> None:
    names = changed("warmup")
    assert names
    assert all(INDEXER in name for name in names)


@pytest.mark.parametrize("kind", ["pretrain", "twin"])
def test_run_stage_dense_leaves_the_indexer_alone(kind: StageKind) -> None:
    names = changed(kind)
    assert "lm_head.weight" in names
    assert not any(INDEXER in name for name in names)


def test_run_stage_sparse_trains_both() -> None:
    names = changed("sparse")
    assert "lm_head.weight" in names
    assert any(INDEXER in name for name in names)


def test_run_stage_sparse_and_twin_get_equal_batches_and_rates() -> None:
    config = tiny()
    records = {}
    for kind in ("sparse", "twin", "warmup"):
        policy = new_policy(config.cell(1, 4), CPU, seed=0)
        records[kind] = run_stage(kind, policy, bench(config))
    sparse, twin = records["sparse"], records["twin"]
    assert (sparse.batches, sparse.steps, sparse.tokens, sparse.rates) == (
        twin.batches,
        twin.steps,
        twin.tokens,
        twin.rates,
    )
    assert records["warmup"].batches != sparse.batches
    assert sparse.tokens_per_s > 0


def test_run_stage_in_parts_equals_whole_batches() -> None:
    config = tiny()
    config = replace(config, sparse=replace(config.sparse, batch_tokens=256))
    found = []
    for micro in (64, 4096):
        parts = replace(config, compute=replace(config.compute, micro_tokens_kl=micro))
        policy = new_policy(parts.cell(1, 4), CPU, seed=0)
        record = run_stage("sparse", policy, bench(parts))
        found.append((record.curve[-1]["loss"], record.curve[-1]["kl"]))
    assert found[0] == pytest.approx(found[1], rel=1e-5)


def test_run_stage_recomputed_layers_give_equal_weights() -> None:
    config, found = tiny(), []
    for again in (False, True):
        parts = replace(config, compute=replace(config.compute, checkpoint_layers=again))
        policy = new_policy(parts.cell(1, 4), CPU, seed=0)
        run_stage("sparse", policy, bench(parts))
        assert policy.checkpoint_layers is again
        found.append(policy.state_dict())
    assert all(torch.equal(item, found[1][name]) for name, item in found[0].items())


def test_run_stage_tells_and_keeps_a_curve() -> None:
    told: list[Mapping[str, float]] = []
    config = tiny()
    config = replace(config, pretrain=replace(config.pretrain, steps=5))
    record = run_stage("pretrain", new_policy(config.cell(1, 4), CPU, seed=0), bench(config, told))
    assert [point["step"] for point in record.curve] == [2, 4, 5]
    assert told == list(record.curve)
    assert record.tokens == 5 * 128


def test_run_stage_not_finite_names_the_stage() -> None:
    config = tiny()
    policy = new_policy(config.cell(1, 4), CPU, seed=0)
    with torch.no_grad():
        policy.norm.weight.fill_(float("nan"))
    with pytest.raises(ExperimentError, match=r"pretrain, step 0.*nan"):
        run_stage("pretrain", policy, bench(config))


def test_run_stage_not_finite_in_the_warmup_is_noticed() -> None:
    config = tiny()
    policy = new_policy(config.cell(1, 4), CPU, seed=0)
    with torch.no_grad():
        policy.embed_tokens.weight.fill_(float("nan"))
    with pytest.raises(ExperimentError, match="warmup, step 0"):
        run_stage("warmup", policy, bench(config))


def test_run_stage_cap_in_seconds_fails_rather_than_train_less() -> None:
    config = tiny()
    config = replace(config, sparse=replace(config.sparse, seconds=1e-9))
    with pytest.raises(ExperimentError, match="to every run alike"):
        run_stage("twin", new_policy(config.cell(1, 4), CPU, seed=0), bench(config))


def test_load_trunk_keeps_the_fresh_indexer() -> None:
    config = tiny()
    source = new_policy(config.cell(1, 4), CPU, seed=0)
    target = new_policy(config.cell(2, 8), CPU, seed=5)
    before = {name: item.clone() for name, item in target.named_parameters()}
    load_trunk(target, source.state_dict())
    for name, item in target.named_parameters():
        assert torch.equal(item, before[name] if INDEXER in name else source.state_dict()[name])


def test_load_trunk_refuses_another_trunk() -> None:
    config = tiny()
    policy = new_policy(config.cell(1, 4), CPU, seed=0)
    weights = policy.state_dict()
    with pytest.raises(CheckpointError, match="lm_head"):
        load_trunk(policy, {name: item for name, item in weights.items() if name != "lm_head.weight"})
    with pytest.raises(CheckpointError, match="do not fit"):
        load_trunk(policy, {**weights, "lm_head.weight": torch.zeros(3, 3)})


def test_batch_feed_gives_every_batch_in_order() -> None:
    feed = BatchFeed("x", ((64, 3), (128, 2)), 256, CPU)
    batches = list(feed)
    assert [tuple(batch.tokens_BT.shape) for batch in batches] == [(4, 64)] * 3 + [(2, 128)] * 2
    for step, batch in enumerate(batches):
        context = batch.tokens_BT.shape[1]
        made = make_tasks(TaskConfig.for_context(context), seed="x", step=step, sequences=256 // context)
        assert np.array_equal(made.tokens_BT, batch.tokens_BT.numpy())
        assert batch.weight == pytest.approx(float(batch.weights_BT.sum()))
    kinds, weights = batches[0].kinds_BT[:, 1:], batches[0].weights_BT[:, 1:]
    assert (weights[kinds == Kind.RANDOM] == 0).all()
    assert all((weights[kinds == kind] == 1).all() for kind in ANSWERS)
    assert (batches[0].weights_BT[:, 0] == 0).all()
    again = BatchFeed("x", ((64, 3), (128, 2)), 256, CPU)
    assert len(list(again)) == 5
    assert again.digest == feed.digest


def test_batch_feed_can_be_left_early() -> None:
    feed = BatchFeed("x", ((64, 50),), 256, CPU)
    assert next(iter(feed)).tokens_BT.shape == (4, 64)


def test_run_stage_pretraining_goes_on_bit_by_bit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(stages, "KEEP_S", 0.0)
    config = tiny()
    config = replace(config, pretrain=replace(config.pretrain, steps=6))
    folder = FidelityFolder.open(tmp_path, config)
    whole = new_policy(config.cell(1, 4), CPU, seed=0)
    expected = run_stage("pretrain", whole, bench(config))

    def watch(step: int, steps: int, metrics: Mapping[str, float]) -> None:
        if step == 4:
            raise KeyboardInterrupt

    keep = partial(folder.keep_partial, "job")
    first = new_policy(config.cell(1, 4), CPU, seed=0)
    with pytest.raises(KeyboardInterrupt):
        run_stage("pretrain", first, replace(bench(config), watch=watch, keep=keep))
    kept = folder.partial("job")
    assert kept is not None
    assert kept[0]["done"] == 2
    again = new_policy(config.cell(1, 4), CPU, seed=9)
    told: list[Mapping[str, float]] = []
    found = run_stage("pretrain", again, replace(bench(config, told), kept=kept))
    assert [point["step"] for point in told] == [4, 6]
    assert (found.batches, found.steps, found.tokens) == (expected.batches, expected.steps, expected.tokens)
    assert [point["loss"] for point in found.curve] == [point["loss"] for point in expected.curve]
    assert all(torch.equal(item, whole.state_dict()[name]) for name, item in again.state_dict().items())
    with pytest.raises(CheckpointError, match="does not fit"):
        run_stage("pretrain", again, replace(bench(config), kept=(kept[0], {})))
