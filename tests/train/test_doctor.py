"""The doctor of training: a healthy trainer raises nothing, each planted fault raises its own finding and no other."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import envsynth.train.doctor.examine as examine
from envsynth.errors import CheckpointError
from envsynth.policy.checkpoint import Checkpoint, CheckpointRecord, load_checkpoint
from envsynth.policy.drawing import Sampling
from envsynth.policy.grpo import GrpoConfig
from envsynth.policy.model import Policy
from envsynth.policy.optimizer import OptimizerConfig
from envsynth.train.doctor.capture import altered, by_tokens, capture_update
from envsynth.train.doctor.checks import CHECKS, Finding, drift_in_the_run, trainer_temperature
from envsynth.train.doctor.evidence import Evidence, gather, probe_config
from envsynth.train.doctor.examine import examine_policy
from envsynth.train.doctor.rescoring import rescore, share_missing
from envsynth.train.run_folder import METRICS, RunFolder
from envsynth.train.sft import SftConfig, SftRun
from envsynth.train.traces import nano_lessons
from tests.command_line import call
from tests.train.conftest import SMALL
from tests.train.faults import FAULTS, Fault

TINY = replace(SMALL, max_position_embeddings=256, indexer=replace(SMALL.indexer, index_topk=16))
"""The nano tier's episodes fit, and most of their tokens must choose their keys."""
NAMES = [
    "indexer-shuffled",
    "live-routing",
    "stale-weights",
    "detached-kl-ratio",
    "mask-dropped",
    "temperature-mismatch",
    "end-of-turn-untrained",
    "reward-flipped",
]
FIRST = [pytest.param(name, faults[0], id=faults[0].__name__) for name, faults in FAULTS.items()]
OTHERS = [pytest.param(name, fault, id=fault.__name__) for name, faults in FAULTS.items() for fault in faults[1:]]


def how(seed: int = 0, groups: int = 4, **options):
    config = probe_config(GrpoConfig(), **{"temperature": 1.0, "top_p": 1.0, "seed": seed} | options)
    return replace(config, tasks_per_step=groups)


@pytest.fixture(scope="session")
def imitated(tmp_path_factory) -> Path:
    """A checkpoint of a tiny policy that has imitated for a moment: its outputs are not the zeros of fresh weights."""
    torch.set_num_threads(1)
    policy = Policy(TINY, seed=1)
    schedule = SftConfig(
        steps=16, seed=1, batch_tokens=1024, warmup_steps=2, optimizer=OptimizerConfig(muon_lr=0.05, adamw_lr=0.02)
    )
    lessons = nano_lessons(40, "doctor", max_tokens=256)
    return SftRun(RunFolder(tmp_path_factory.mktemp("run")), policy, lessons, schedule).run()


@pytest.fixture(scope="session")
def player(imitated) -> Policy:
    return load_checkpoint(imitated).policy()


@pytest.fixture(scope="session")
def healthy(player) -> Evidence:
    return gather(player, how())


def wrong(findings: tuple[Finding, ...]) -> list[str]:
    return [item.name for item in findings if item.state != "healthy"]


def test_every_fault_has_a_check_and_plants(healthy):
    assert [check(healthy).name for check in CHECKS] == NAMES == list(FAULTS)
    assert all(FAULTS.values())


def test_a_healthy_trainer_raises_nothing(healthy):
    findings = [check(healthy) for check in CHECKS]
    assert wrong(tuple(findings)) == []
    # Not by a hair, and not for lack of evidence.
    assert all(item.value is not None and item.value < item.limit / 10 for item in findings)
    assert healthy.rescored.n_tokens > 200
    assert len(healthy.trajectories) == 16


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_healthy_trainer_raises_nothing_with_other_seeds(player, seed):
    assert wrong(examine_policy(player, how(seed, groups=6))) == []


@pytest.mark.parametrize(("name", "fault"), FIRST)
def test_a_planted_fault_is_named(player, name: str, fault: Fault):
    with fault():
        findings = examine_policy(player, how(groups=3))
    assert wrong(findings) == [name]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "fault"), OTHERS)
def test_a_fault_in_another_place_is_named(player, name: str, fault: Fault):
    with fault():
        findings = examine_policy(player, how(groups=6))
    assert wrong(findings) == [name]


@pytest.mark.slow
@pytest.mark.parametrize("loss", [{"term": "cispo"}, {"reduction": "token_mean"}, {"ratio_level": "sequence"}])
def test_other_losses_of_the_trainer_are_healthy_too(player, loss):
    config = replace(how(), loss=probe_config(GrpoConfig(**loss), temperature=0.8, top_p=0.9, seed=0).loss)
    assert wrong(examine_policy(player, config)) == []


def test_the_policy_is_left_as_it_was(player, healthy):
    before = {name: item.clone() for name, item in player.state_dict().items()}
    capture_update(player, None, healthy.trajectories[:4], replace(healthy.config.update, mini_batches=2))
    assert all(torch.equal(before[name], item) for name, item in player.state_dict().items())
    assert not player._forward_hooks


def test_capture_sees_every_sequence_however_it_is_split(player, healthy):
    """Several steps of several micro-batches: rows are found by their tokens, and lie where the trainer put them."""
    config = replace(healthy.config.update, mini_batches=2, micro_batch_tokens=300)
    rows = capture_update(player, None, healthy.trajectories, config)
    assert rows.keys() == healthy.plain.keys() == by_tokens(healthy.trajectories).keys()
    for tokens, row in rows.items():
        assert row.gradient_TV.shape == row.logits_TV.shape == (len(tokens), TINY.vocab_size)
        torch.testing.assert_close(row.logits_TV, healthy.plain[tokens].logits_TV, rtol=0, atol=1e-4)


def test_gradient_is_that_of_the_tempered_distribution(healthy):
    """What the doctor reads its findings off: c (1[v = a] - p(v)) / T, checked against softmax for one token."""
    tokens, row = next(iter(healthy.opened.items()))
    position = int(healthy.altered[tokens].action_mask.nonzero()[0, 0])
    force = row.gradient_TV[position - 1].double()
    p = (row.logits_TV[position - 1].double() / healthy.config.temperature).softmax(-1)
    p[tokens[position]] -= 1
    scale = float((force * p).sum() / p.square().sum())
    torch.testing.assert_close(force, scale * p, rtol=1e-3, atol=1e-5 * abs(scale))
    found = trainer_temperature(healthy)
    assert found is not None
    assert math.isclose(found, healthy.config.temperature, rel_tol=1e-5)


def test_altered_records_can_be_replayed_and_differ(player, healthy):
    item = healthy.trajectories[0]
    other = altered(item, 4)
    assert other.routed_experts is not None
    assert other.indexer_topk is not None
    assert item.routed_experts is not None
    assert item.indexer_topk is not None
    start = item.indexer_topk.shape[2]
    assert share_missing(other.routed_experts, item.routed_experts) > 0.3
    assert share_missing(other.indexer_topk[start:], item.indexer_topk[start:]) > 0.3
    assert torch.equal(other.indexer_topk[:start], item.indexer_topk[:start])
    # No layer has the keys of another one, and no token those of its neighbour.
    assert not torch.equal(other.indexer_topk[start + 9, 0], other.indexer_topk[start + 9, 1])
    # The policy refuses records that no causal selection can have made.
    player(
        other.tokens[None], routed_experts_BTMA=other.routed_experts[None], indexer_topk_BTLK=other.indexer_topk[None]
    )


def test_rescoring_finds_the_temperature_of_the_record(player, healthy):
    """The record is of 1.25; believed to be of 0.9, it is explained by its own temperature and by nothing else."""
    believed = Sampling(temperature=0.9, sampling_top_p=healthy.config.top_p)
    found = rescore(player, healthy.trajectories, believed)
    assert found.cause == "temperature"
    assert math.isclose(found.temperature, 1.25, rel_tol=1e-4)
    assert found.residual > 0.05 > 1e-5 > found.explained


def test_share_missing_counts_wanted_numbers():
    chosen, wanted = torch.tensor([[1, 2, -1], [5, 6, 7]]), torch.tensor([[2, 3, -1], [5, 6, 7]])
    assert share_missing(chosen, wanted) == pytest.approx(0.2)
    assert share_missing(chosen, torch.full((2, 3), -1)) is None


def test_a_finding_without_evidence_is_unknown_and_nan_is_unhealthy():
    finding = Finding(name="x", value=None, limit=1.0, meaning="", advice="")
    assert finding.state == "unknown"
    assert replace(finding, value=1.0).state == "healthy"
    assert replace(finding, value=1.1).state == "unhealthy"
    assert replace(finding, value=math.nan).state == "unhealthy"


def test_no_sampled_end_of_turn_is_no_evidence(healthy):
    (check,) = [item for item in CHECKS if item.__name__ == "end_of_turn_untrained"]
    assert check(replace(healthy, opened={})).state == "unknown"
    assert check(replace(healthy, opened={}, untaught_ends=0.5)).state == "unhealthy"


def test_drift_in_the_metrics_of_the_run_is_named(healthy):
    assert drift_in_the_run(replace(healthy, logged_drift=1e-6)).state == "healthy"
    assert drift_in_the_run(replace(healthy, logged_drift=0.05)).state == "unhealthy"


def metrics(run: Path, *lines: dict) -> None:
    (run / METRICS).write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.mark.slow
def test_the_command_examines_a_run(imitated, capsys, tmp_path):
    run = tmp_path / "run"
    target = run / "sft" / imitated.name
    target.mkdir(parents=True)
    for file in imitated.iterdir():
        (target / file.name).write_bytes(file.read_bytes())
    done = call(capsys, "doctor", "train", run, "--json")
    assert done.code == 0, done.err
    report = json.loads(done.out)
    assert report["healthy"] is True
    assert report["checkpoint"] == f"sft/{imitated.name}"
    assert [item["name"] for item in report["findings"]] == NAMES
    metrics(
        run,
        {"phase": "sft", "step": 1, "loss/sft": 1.0},
        {"phase": "grpo", "step": 1, "updates": 0.0},
        {"phase": "grpo", "step": 2, "updates": 4.0, "drift/mean": 0.2},
    )
    done = call(capsys, "doctor", "train", run, "--seed", 1)
    assert done.code == 3
    assert "drift-in-the-run" in done.out
    assert "no evidence" not in done.out
    metrics(run, {"phase": "grpo", "updates": 1.0})
    broken = call(capsys, "doctor", "train", run)
    assert broken.code == 1
    assert "no metrics file" in broken.err


@pytest.mark.slow
def test_the_command_makes_a_run_of_its_own(capsys):
    done = call(capsys, "doctor", "train")
    assert done.code == 0, done.out
    assert all(name in done.out for name in NAMES)
    assert done.out.count(" healthy ") == len(NAMES)


def test_the_command_refuses_what_is_no_run(capsys, tmp_path):
    missing = call(capsys, "doctor", "train", tmp_path)
    assert missing.code == 1
    assert "no checkpoint" in missing.err
    assert call(capsys, "doctor", "sandbox", tmp_path).code == 2


def test_a_checkpoint_plays_as_its_run_did(player, tmp_path):
    """Of a GRPO checkpoint the loss, temperature and truncation are taken; what the run left plain is not."""
    record = CheckpointRecord(
        config=TINY,
        vocabulary="",
        seed=0,
        step=1,
        phase="grpo",
        data="",
        metrics_bytes=0,
        state={"options": {"loss": {"kl_beta": 0.1, "term": "cispo"}, "temperature": 0.7, "top_p": 1.0}},
    )
    checkpoint = Checkpoint(record=record, weights={}, training={})
    config = examine._config(checkpoint, 3)
    assert (config.temperature, config.top_p, config.loss.term, config.seed) == (0.7, 0.95, "cispo", 3)
    with pytest.raises(CheckpointError, match="how it was trained"):
        examine._config(replace(checkpoint, record=replace(record, state={})), 0)
