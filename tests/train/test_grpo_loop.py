"""Reinforcement learning in somebody's text environment: it learns, void episodes do not count, and it continues."""

from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import replace

import pytest
import torch

import envsynth.train.grpo_loop as loop
from envsynth.errors import CheckpointError, SpecError
from envsynth.policy.batch import TokenTrajectory
from envsynth.policy.checkpoint import load_checkpoint
from envsynth.policy.grpo import GrpoConfig
from envsynth.policy.model import Policy
from envsynth.policy.optimizer import OptimizerConfig
from envsynth.train.collect import RolloutConfig, collect, task_at
from envsynth.train.grpo_loop import GrpoRun, GrpoRunConfig
from envsynth.train.grpo_update import UpdateConfig, split_groups, update
from envsynth.train.run_folder import METRICS, RunFolder, StopRequest
from envsynth.train.sft import SftConfig, SftRun
from tests.train.conftest import SMALL, bandit_lessons, bandits

FAST = OptimizerConfig(muon_lr=0.01, adamw_lr=4e-3)


def config(**changes) -> GrpoRunConfig:
    wanted = {
        "steps": 4,
        "seed": 5,
        "tasks_per_step": 3,
        "group_size": 6,
        "max_refills": 1,
        "mini_batches": 2,
        "warmup_steps": 0,
        "checkpoint_every": 1,
        "max_turn_tokens": 6,
        "optimizer": FAST,
    }
    return GrpoRunConfig(**wanted | changes)


@pytest.fixture(scope="session")
def imitated(tmp_path_factory) -> dict[str, torch.Tensor]:
    """Weights of a policy that plays both arms about equally often."""
    torch.set_num_threads(1)
    policy = Policy(SMALL, seed=1)
    schedule = SftConfig(
        steps=24, seed=1, batch_tokens=256, warmup_steps=2, optimizer=OptimizerConfig(muon_lr=0.05, adamw_lr=0.03)
    )
    SftRun(RunFolder(tmp_path_factory.mktemp("sft")), policy, bandit_lessons(), schedule).run()
    return policy.state_dict()


@pytest.fixture
def player(imitated) -> Policy:
    policy = Policy(SMALL, seed=1)
    policy.load_state_dict(imitated)
    return policy


def lines(folder) -> list[dict]:
    return [json.loads(line) for line in (folder / METRICS).read_text().splitlines()]


def test_run_learns_the_arm_that_pays(tmp_path, player):
    run = GrpoRun(RunFolder(tmp_path), player, bandits(18, 6), config(steps=10, checkpoint_every=100))
    run.run()
    rewards = [line["reward/mean"] for line in lines(tmp_path)]
    assert 0.1 < rewards[0] < 0.75
    assert sum(rewards[-3:]) / 3 > rewards[0] + 0.25


def test_run_logs_what_the_contract_asks_for(tmp_path, player):
    kl = GrpoConfig(clip_high=0.28, kl_beta=0.01)
    run = GrpoRun(RunFolder(tmp_path), player, bandits(6, 6), config(steps=1, top_p=0.9, temperature=0.8, loss=kl))
    run.run()
    (line,) = lines(tmp_path)
    wanted = {
        "drift/mean", "drift/max", "kept/mass", "kept/cut_share", "ratio/clip_low", "ratio/clip_high", "mask/off_policy",
        "mask/off_policy/bandit", "replay/router_agreement", "replay/indexer_overlap", "groups/flat_share", "entropy",
        "kl/k1", "kl/k3", "kl/unbiased", "reward/bandit", "stop/answered", "loss/indexer", "grad_norm",
    }  # fmt: skip
    assert wanted <= line.keys()
    assert line["drift/max"] < 1e-4
    assert 0.9 <= line["kept/mass"] < 1
    assert line["replay/router_agreement"] > 0.5


def test_drift_is_seen_when_the_replay_is_left_out(tmp_path, player):
    """Sampling from the kept sets and training without them is the mismatch that the drift is there to show."""
    found = collect(player, bandits(6, 6), config(top_p=0.6).rollout, step=0, cursor=0)
    assert found.trajectories
    drifts = []
    for items in (found.trajectories, [replace(item, kept=None) for item in found.trajectories]):
        policy = Policy(SMALL, seed=1)
        policy.load_state_dict(player.state_dict())
        optimizer = loop.PolicyOptimizer(policy, OptimizerConfig(muon_lr=0, adamw_lr=0))
        drifts.append(update(policy, None, optimizer, items, UpdateConfig(), scale=1.0, key="0")["drift/max"])
    assert drifts[0] < 2e-5
    assert drifts[1] > 5e-4


def test_void_trajectories_never_reach_the_loss(tmp_path, player, monkeypatch):
    """Machines 1 and 3 break: their episodes are void, they are counted, and no update sees them."""
    seen: list[TokenTrajectory] = []

    def spy(policy, reference, optimizer, trajectories, *rest, **options):
        seen.extend(trajectories)
        return update(policy, reference, optimizer, trajectories, *rest, **options)

    monkeypatch.setattr(loop, "update", spy)
    stock = bandits(6, 4, broken=(1, 3))
    run = GrpoRun(RunFolder(tmp_path), player, stock, config(steps=2, tasks_per_step=4, max_refills=0))
    run.run()
    told = lines(tmp_path)
    assert [line["episodes/void"] for line in told] == [12, 12]
    assert [line["groups/lost"] for line in told] == [2, 2]
    assert seen
    assert all(item.reward in (0.0, 1.0) for item in seen)
    assert len(seen) == sum(line["episodes/trained"] for line in told)
    # A void episode is in no mean either.
    assert all(line["episodes/played"] - line["episodes/void"] == 12 for line in told)


def test_void_members_leave_their_group_before_the_advantage(player):
    """A slot that breaks now and then: the others of the group go on, and their baseline is their own."""
    options = replace(config().rollout, tasks_per_step=6, max_refills=0)
    found = collect(player, bandits(6, 6, flaky=True), options, step=0, cursor=0)
    assert found.metrics["episodes/void"] > 0
    sizes = Counter(item.group for item in found.trajectories)
    assert any(size < options.group_size for size in sizes.values())
    assert all(item.reward in (0.0, 1.0) for item in found.trajectories)
    assert found.metrics["episodes/void"] + sum(sizes.values()) <= found.metrics["episodes/played"]


@pytest.mark.parametrize("field", ["routed_experts", "indexer_topk"])
def test_update_replays_what_was_recorded(player, field):
    """Other experts, or other keys, than those of the rollout give other log-probabilities: the record is in use."""
    found = collect(player, bandits(6, 6), config().rollout, step=0, cursor=0).trajectories
    assert found

    def wrong(item: TokenTrajectory) -> TokenTrajectory:
        recorded = getattr(item, field)
        if field == "routed_experts":
            return replace(item, routed_experts=torch.where(recorded < 0, recorded, (recorded + 1) % 4))
        length, _, width = recorded.shape
        first = torch.arange(width, dtype=recorded.dtype)
        earliest = torch.where(first <= torch.arange(length)[:, None], first, -1)[:, None].expand_as(recorded)
        return replace(item, indexer_topk=torch.where(recorded[..., :1] < 0, recorded, earliest))

    drifts = []
    for items in (found, [wrong(item) for item in found]):
        optimizer = loop.PolicyOptimizer(player, OptimizerConfig(muon_lr=0, adamw_lr=0))
        drifts.append(update(player, None, optimizer, items, UpdateConfig(), scale=1.0, key="0")["drift/max"])
    assert drifts[0] < 2e-5
    assert drifts[1] > 1e-3


@pytest.mark.parametrize("top_p", [1.0, 0.6])
def test_update_through_operators_is_the_update(player, top_p):
    """Scores that never were logits, kept sets and a reference among them, move the weights alike."""
    found = collect(player, bandits(6, 6), config(top_p=top_p).rollout, step=0, cursor=0).trajectories
    assert found
    how = UpdateConfig(loss=GrpoConfig(clip_high=0.28, kl_beta=0.05), mini_batches=1, micro_batch_tokens=128)
    told, weights = [], []
    for kernels in (False, True):
        policy, reference = Policy(SMALL, seed=1, kernels=kernels), Policy(SMALL, seed=2, kernels=kernels)
        policy.load_state_dict(player.state_dict())
        reference.load_state_dict(player.state_dict())
        optimizer = loop.PolicyOptimizer(policy, OptimizerConfig(muon_lr=0.0, adamw_lr=1e-3))
        told.append(update(policy, reference, optimizer, found, how, scale=1.0, key="0"))
        weights.append(policy.state_dict())
    assert ("kept/mass" in told[0]) == (top_p < 1)
    assert told[0] == pytest.approx(told[1], rel=1e-4, abs=1e-6)
    moved = max((weights[0][name] - item).abs().max().item() for name, item in player.state_dict().items())
    assert moved > 5e-4
    for name, item in weights[0].items():
        torch.testing.assert_close(weights[1][name], item, rtol=0, atol=2e-5, msg=name)


def test_update_refuses_void_trajectories(player):
    nothing = TokenTrajectory(
        tokens=torch.tensor([1, 2]),
        action_mask=torch.tensor([False, True]),
        log_probs=torch.zeros(2),
        reward=None,
        group="0",
        member=0,
        domain="x",
    )
    optimizer = loop.PolicyOptimizer(player)
    for items in ([], [nothing]):
        with pytest.raises(SpecError, match="none of them void"):
            update(player, None, optimizer, items, UpdateConfig(), scale=1.0, key="0")


def test_run_changes_nothing_when_every_group_is_flat(tmp_path, small):
    """A fresh policy never plays an arm, so that all rewards are 0: no gradient, and no step of momentum alone."""
    before = {name: item.clone() for name, item in small.state_dict().items()}
    GrpoRun(RunFolder(tmp_path), small, bandits(6, 4), config(steps=1, max_turn_tokens=2)).run()
    (line,) = lines(tmp_path)
    assert line["groups/flat_share"] == 1.0
    assert line["updates"] == 0
    assert line["rollout/rounds"] == 2
    assert all(torch.equal(before[name], item) for name, item in small.state_dict().items())


def test_collect_refills_flat_groups_with_new_tasks(player):
    options = RolloutConfig(seed=2, tasks_per_step=4, group_size=2, max_refills=3, max_turn_tokens=6)
    found = collect(player, bandits(8, 8), options, step=0, cursor=10)
    groups = {item.group for item in found.trajectories}
    assert found.cursor == 10 + found.metrics["groups/played"]
    assert found.metrics["groups/played"] > 4
    assert len(groups) == found.metrics["groups/played"] - found.metrics["groups/flat"]
    assert {group.split("/")[0] for group in groups} > {"0"}


def test_collect_does_not_depend_on_the_number_of_slots(player):
    options = RolloutConfig(seed=2, tasks_per_step=3, group_size=4, max_refills=1, max_turn_tokens=6)
    found = [collect(player, bandits(slots, 8), options, step=0, cursor=0) for slots in (3, 12)]
    assert len(found[0].trajectories) == len(found[1].trajectories) > 0
    for one, other in zip(found[0].trajectories, found[1].trajectories, strict=True):
        assert torch.equal(one.tokens, other.tokens)
        assert one.reward == other.reward
        torch.testing.assert_close(one.log_probs, other.log_probs, rtol=0, atol=1e-5)


def test_task_at_takes_every_task_once_per_pass():
    tasks = [f"t{index}" for index in range(7)]
    passes = [[task_at(tasks, 3, 7 * epoch + place) for place in range(7)] for epoch in range(3)]
    assert all(sorted(order) == tasks for order in passes)
    assert passes[0] != passes[1]
    assert passes[0] != [task_at(tasks, 4, place) for place in range(7)]


def test_split_groups_keeps_groups_whole():
    made = TokenTrajectory(
        tokens=torch.tensor([1, 2]),
        action_mask=torch.tensor([False, True]),
        log_probs=torch.zeros(2),
        reward=1.0,
        group="",
        member=0,
        domain="x",
    )
    items = [replace(made, group=f"{group}", member=member) for group in range(5) for member in range(3)]
    parts = split_groups(items, 2, "key")
    assert sorted(len(part) for part in parts) == [6, 9]
    assert all(len({item.group for item in part}) * 3 == len(part) for part in parts)
    assert len(split_groups(items, 9, "key")) == 5


def test_updates_in_one_or_many_micro_batches_are_the_same(player):
    options = RolloutConfig(seed=2, tasks_per_step=4, group_size=6, max_refills=0, max_turn_tokens=6)
    items = collect(player, bandits(24, 8), options, step=0, cursor=0).trajectories
    weights = []
    for tokens in (10_000, 40):
        policy = Policy(SMALL, seed=1)
        policy.load_state_dict(player.state_dict())
        optimizer = loop.PolicyOptimizer(policy, OptimizerConfig(muon_lr=0.0, adamw_lr=0.0, max_grad_norm=math.inf))
        plan = UpdateConfig(mini_batches=1, micro_batch_tokens=tokens, indexer_kl_weight=1.0)
        metrics = update(policy, None, optimizer, items, plan, scale=1.0, key="0")
        state = optimizer.state_dict()
        names = ("lm_head.weight", "layers.0.self_attn.indexer.wk.weight")
        weights.append((metrics, torch.cat([state[f"adamw.exp_avg.{name}"].flatten() for name in names])))
    assert weights[0][0]["grad_norm"] == pytest.approx(weights[1][0]["grad_norm"], rel=1e-4)
    torch.testing.assert_close(weights[0][1], weights[1][1], rtol=1e-4, atol=1e-7)
    assert weights[0][0]["ratio/mean"] == pytest.approx(1.0, abs=1e-4)


@pytest.mark.parametrize("weight", [0.0, 0.1], ids=["frozen", "kl"])
def test_rewards_never_move_the_indexer_and_the_run_says_whether_its_own_loss_does(player, weight):
    options = RolloutConfig(seed=2, tasks_per_step=4, group_size=6, max_refills=0, max_turn_tokens=6)
    items = collect(player, bandits(24, 8), options, step=0, cursor=0).trajectories
    policy = Policy(SMALL, seed=1)
    policy.load_state_dict(player.state_dict())
    plan = UpdateConfig(mini_batches=1, indexer_kl_weight=weight)
    metrics = update(policy, None, loop.PolicyOptimizer(policy), items, plan, scale=1.0, key="0")
    before, after = player.state_dict(), policy.state_dict()
    moved = {".indexer." in name for name in before if not torch.equal(before[name], after[name])}
    assert moved == ({False, True} if weight else {False})
    assert metrics["indexer/frozen"] == float(not weight)


def same_files(one, other) -> None:
    for name in ("policy.safetensors", "training.safetensors"):
        assert (one / name).read_bytes() == (other / name).read_bytes(), name


def test_run_resumes_bit_by_bit_after_a_stop(tmp_path, imitated):
    options = config(loss=GrpoConfig(kl_beta=0.01))

    def fresh(name: str, weights=imitated) -> GrpoRun:
        torch.manual_seed(0)
        policy = Policy(SMALL, seed=1)
        policy.load_state_dict(weights)
        return GrpoRun(RunFolder(tmp_path / name), policy, bandits(4, 6), options)

    whole = fresh("a").run()
    stop = StopRequest()
    half = fresh("b").run(stop=stop, on_step=lambda report: stop.ask())
    assert load_checkpoint(half).record.step == 1
    second = fresh("b", Policy(SMALL, seed=9).state_dict())
    second.resume(load_checkpoint(half))
    same_files(whole, second.run())
    assert (tmp_path / "a" / METRICS).read_bytes() == (tmp_path / "b" / METRICS).read_bytes()
    assert [line["updates"] > 0 for line in lines(tmp_path / "a")][1:].count(True) >= 2


def test_resume_refuses_another_run(tmp_path, player):
    run = GrpoRun(RunFolder(tmp_path), player, bandits(4, 6), config(steps=1, tasks_per_step=1, max_refills=0))
    found = load_checkpoint(run.run())
    others = {
        "data": GrpoRun(RunFolder(tmp_path), player, bandits(4, 5), run.config),
        "other options": GrpoRun(RunFolder(tmp_path), player, bandits(4, 6), config(steps=2)),
    }
    for message, other in others.items():
        with pytest.raises(CheckpointError, match=message):
            other.resume(found)


@pytest.mark.parametrize("change", [{"seconds": 3.0}, {"steps": None}, {"group_size": 1}, {"temperature": 0.0}])
def test_config_refuses_nonsense(change):
    with pytest.raises(SpecError):
        config(**change)
