"""Imitation: what the loss is on, in which order lessons come, and that a run continues bit by bit."""

from __future__ import annotations

import json
import string
from dataclasses import replace

import pytest
import torch

from envsynth.errors import CheckpointError, SpecError
from envsynth.policy.checkpoint import load_checkpoint
from envsynth.policy.drawing import Sampling
from envsynth.policy.engine import Engine
from envsynth.policy.model import Policy, PolicyOutput
from envsynth.policy.optimizer import OptimizerConfig
from envsynth.policy.prediction import Predictions, tokens_ahead
from envsynth.policy.template import opening, read_action, render
from envsynth.policy.tokens import END, PAD
from envsynth.train.run_folder import METRICS, RunFolder, StopRequest
from envsynth.train.sft import SftBatch, SftConfig, SftRun, batch_of, epoch_batches, prediction_loss, sft_loss
from envsynth.train.traces import ACTION, CONTEXT, ECHO, MISTAKE, Lesson
from tests.train.conftest import SMALL, bandit_lessons, copy_lessons

FAST = OptimizerConfig(muon_lr=0.05, adamw_lr=0.02)


def config(**changes) -> SftConfig:
    return SftConfig(**{"steps": 8, "seed": 3, "batch_tokens": 64, "checkpoint_every": 2, "optimizer": FAST} | changes)


def lines(folder: RunFolder) -> list[dict]:
    return [json.loads(line) for line in (folder.path / METRICS).read_text().splitlines()]


def test_epoch_batches_take_each_lesson_once_and_fit():
    lengths = [3 + (7 * index) % 40 for index in range(500)] + [200]
    batches = epoch_batches(lengths, batch_tokens=128, seed=1, epoch=0)
    assert sorted(index for batch in batches for index in batch) == list(range(501))
    assert all(len(batch) * max(lengths[index] for index in batch) <= 128 for batch in batches if len(batch) > 1)
    assert [500] in batches


def test_epoch_batches_follow_from_seed_and_epoch():
    lengths = [3 + (7 * index) % 40 for index in range(200)]
    first = epoch_batches(lengths, batch_tokens=128, seed=1, epoch=0)
    assert first == epoch_batches(lengths, batch_tokens=128, seed=1, epoch=0)
    assert first != epoch_batches(lengths, batch_tokens=128, seed=1, epoch=1)
    assert first != epoch_batches(lengths, batch_tokens=128, seed=2, epoch=0)


def test_sft_loss_weighs_actions_context_and_mistakes():
    lessons = [Lesson((1, 2, 3, 4, 5), (CONTEXT, CONTEXT, ACTION, MISTAKE, ACTION)), Lesson((1, 2), (CONTEXT, ACTION))]
    batch = batch_of(lessons)
    assert batch.tokens_BT.tolist()[1] == [1, 2, PAD, PAD, PAD]
    logits = torch.randn(2, 5, 9, generator=torch.Generator().manual_seed(0)).requires_grad_()
    output = PolicyOutput(logits=logits, routed_experts=torch.empty(0), indexer_topk=None, indexer_kl=None)
    loss, metrics = sft_loss(output, batch, context_weight=0.1, echo_weight=0.0, indexer_kl_weight=0.1)
    nats = -logits.log_softmax(-1)
    context, actions = nats[0, 0, 2], nats[0, 1, 3] + nats[0, 3, 5] + nats[1, 0, 2]
    assert loss.item() == pytest.approx(((0.1 * context + actions) / 3.1).item(), rel=1e-5)
    assert metrics["loss/action"] == pytest.approx(actions.item() / 3, rel=1e-5)
    loss.backward()
    # Nothing pulls towards the mistake, towards padding, or behind the end.
    assert logits.grad[0, 2].abs().max() == 0
    assert logits.grad[0, 4].abs().max() == 0
    assert logits.grad[1, 1:].abs().max() == 0
    assert logits.grad[0, 1].abs().max() > 0


def test_sft_loss_weighs_echoes_apart_from_other_context():
    batch = batch_of([Lesson((1, 2, 3, 4), (CONTEXT, ECHO, CONTEXT, ACTION))])
    logits = torch.randn(1, 4, 9, generator=torch.Generator().manual_seed(0))
    output = PolicyOutput(logits=logits, routed_experts=torch.empty(0), indexer_topk=None, indexer_kl=None)
    loss, metrics = sft_loss(output, batch, context_weight=0.1, echo_weight=0.5, indexer_kl_weight=0.0)
    nats = -logits.log_softmax(-1)
    wanted = (0.5 * nats[0, 0, 2] + 0.1 * nats[0, 1, 3] + nats[0, 2, 4]) / 1.6
    assert loss.item() == pytest.approx(wanted.item(), rel=1e-5)
    assert metrics["loss/action"] == pytest.approx(nats[0, 2, 4].item(), rel=1e-5)


def test_sft_loss_adds_the_indexers_mean_over_real_tokens():
    batch = batch_of([Lesson((1, 2, 3), (0, 1, 1)), Lesson((1, 2), (0, 1))])
    output = PolicyOutput(
        logits=torch.zeros(2, 3, 9),
        routed_experts=torch.empty(0),
        indexer_topk=None,
        indexer_kl=torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 0.0]]),
    )
    plain, _ = sft_loss(output, batch, context_weight=0.1, echo_weight=0.0, indexer_kl_weight=0.0)
    loss, metrics = sft_loss(output, batch, context_weight=0.1, echo_weight=0.0, indexer_kl_weight=0.5)
    assert metrics["loss/indexer"] == pytest.approx(3.0)
    assert (loss - plain).item() == pytest.approx(1.5)


def say(policy: Policy, word: str) -> str:
    engine = Engine(policy, n_slots=1, max_len=48, sampling=Sampling(temperature=0))
    engine.start([0], render(opening(f"say {word} !"), reply=True).ids, ["0"])
    return read_action(engine.generate_turn([0], stop_ids=(END,), max_tokens=6)[0].tokens).text


@pytest.mark.slow
def test_run_teaches_a_small_policy_to_copy_words_it_never_saw(tmp_path, small):
    letters = string.ascii_lowercase[:12]
    pairs = [a + b for a in letters for b in letters]
    train, unseen = [word for i, word in enumerate(pairs) if i % 9], pairs[::9]
    run = SftRun(RunFolder(tmp_path), small, copy_lessons(train), config(steps=200, batch_tokens=512, dense_share=0.7))
    run.run()
    told = lines(run.folder)
    assert told[0]["loss/action"] > 5.5
    assert told[-1]["loss/action"] < 0.3
    policy = small.eval()
    assert sum(say(policy, word) == word for word in unseen) >= 0.8 * len(unseen)


def test_run_lowers_the_loss(tmp_path, small):
    run = SftRun(RunFolder(tmp_path), small, bandit_lessons(), config(steps=16, batch_tokens=256, warmup_steps=2))
    run.run()
    told = lines(run.folder)
    assert told[-1]["loss/action"] < 0.6 * told[0]["loss/action"]


def test_run_warms_up_decays_and_goes_from_dense_to_sparse(tmp_path, small):
    run = SftRun(
        RunFolder(tmp_path),
        small,
        bandit_lessons(),
        config(steps=8, warmup_steps=2, final_lr=0.1, dense_share=0.5, indexer_start=0.25),
    )
    run.run()
    told = lines(run.folder)
    wanted = [min(1, (i + 1) / 2) * (1 - 0.9 * i / 8) for i in range(8)]
    assert [line["lr_scale"] for line in told] == pytest.approx(wanted)
    assert [line["attention/dense"] for line in told] == [1.0] * 4 + [0.0] * 4
    assert ["loss/indexer" in line for line in told] == [False] * 2 + [True] * 6
    assert all(line["loss/indexer"] > 0 for line in told[2:])


def test_in_the_published_order_the_trunk_rests_while_the_indexer_warms_up(tmp_path, small):
    """Dense training, then the indexer alone on dense attention, then everything on selected keys."""
    run = SftRun(
        RunFolder(tmp_path),
        small,
        bandit_lessons(),
        config(steps=8, dense_share=0.25, indexer_warmup_share=0.5, indexer_start=0.75),
    )
    moved: list[set[bool]] = []
    state = {name: item.clone() for name, item in small.state_dict().items()}

    def look(_report) -> None:
        nonlocal state
        now = {name: item.clone() for name, item in small.state_dict().items()}
        moved.append({".indexer." in name for name in now if not torch.equal(now[name], state[name])})
        state = now

    run.run(on_step=look)
    assert moved == [{False}] * 2 + [{True}] * 4 + [{True, False}] * 2
    told = lines(run.folder)
    assert [line["indexer/warmup"] for line in told] == [0.0] * 2 + [1.0] * 4 + [0.0] * 2
    assert [line["attention/dense"] for line in told] == [1.0] * 6 + [0.0] * 2


def test_prediction_layers_learn_beside_the_rest(tmp_path, small):
    policy = Policy(replace(small.config, num_nextn_predict_layers=1))
    run = SftRun(RunFolder(tmp_path), policy, bandit_lessons(), config(steps=16, batch_tokens=256, warmup_steps=2))
    run.run()
    told = lines(run.folder)
    assert told[-1]["loss/mtp"] < 0.8 * told[0]["loss/mtp"]
    assert policy.mtp_layers[0].layer.mlp.gate.e_score_correction_bias.abs().max() > 0
    untrained = config(steps=2, mtp_weight=0.0)
    run = SftRun(RunFolder(tmp_path / "without"), policy, bandit_lessons(), untrained)
    run.run()
    assert "loss/mtp" not in lines(run.folder)[0]


def test_run_through_operators_gives_the_same_losses(tmp_path, small):
    """Scores that never were logits, those of prediction layers too, against the library's loss of logits."""
    told = []
    for kernels in (False, True):
        policy = Policy(replace(small.config, num_nextn_predict_layers=1), seed=3, kernels=kernels)
        run = SftRun(RunFolder(tmp_path / str(kernels)), policy, bandit_lessons(), config(steps=4, batch_tokens=256))
        run.run()
        told.append(lines(run.folder))
    for plain, line in zip(*told, strict=True):
        for name in ("loss/sft", "loss/action", "loss/mtp"):
            assert line[name] == pytest.approx(plain[name], rel=1e-4), name
    # A fresh head gives equal logits: each is a best one. Afterwards there are no ties.
    assert told[1][0]["accuracy/action"] == 1.0
    assert [line["accuracy/action"] for line in told[1][1:]] == [line["accuracy/action"] for line in told[0][1:]]


def test_prediction_loss_is_the_mean_over_real_targets_of_every_layer():
    tokens = torch.tensor([[3, 1, 4, 1, 5], [2, 7, 1, 0, 0]])
    mask = torch.tensor([[True] * 5, [True] * 3 + [False] * 2])
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 5, 2, 8, generator=generator)
    valid = torch.stack([tokens_ahead(tokens, mask, None, steps)[1] for steps in (2, 3)], dim=2)
    found = Predictions(logits=logits, valid_BTP=valid, routed_experts=torch.empty(0))
    metrics: dict[str, float] = {}
    loss = prediction_loss(found, SftBatch(tokens_BT=tokens, valid_BT=mask, marks_BT=tokens), metrics)
    # Row 0: three targets two ahead and two three ahead; row 1: one two ahead.
    pairs = [(0, t, 0, t + 2) for t in range(3)] + [(0, t, 1, t + 3) for t in range(2)] + [(1, 0, 0, 2)]
    nats = [-logits[row, t, layer].log_softmax(-1)[tokens[row, target]] for row, t, layer, target in pairs]
    assert float(loss) == pytest.approx(float(sum(nats)) / 6, rel=1e-6)
    assert metrics["loss/mtp"] == float(loss)


def test_run_moves_the_routers_bias_towards_equal_load(tmp_path, small):
    SftRun(RunFolder(tmp_path), small, bandit_lessons(), config(steps=3)).run()
    bias = small.layers[0].mlp.gate.e_score_correction_bias
    assert 0 < bias.abs().max() <= 0.003 + 1e-6


def test_run_ends_with_a_budget_of_seconds(tmp_path, small):
    times = iter(range(1000))
    run = SftRun(
        RunFolder(tmp_path),
        small,
        bandit_lessons(),
        config(steps=None, seconds=5.0),
        clock=lambda: float(next(times)),
    )
    run.run()
    assert run.step == 5
    assert [line["lr_scale"] for line in lines(run.folder)][-1] == pytest.approx(5 / 20 * (1 - 0.98 * 0.8))


def same_files(one, other) -> None:
    for name in ("policy.safetensors", "training.safetensors"):
        assert (one / name).read_bytes() == (other / name).read_bytes(), name


def test_run_resumes_bit_by_bit_after_a_stop(tmp_path):
    torch.manual_seed(0)
    whole = SftRun(RunFolder(tmp_path / "a"), Policy(SMALL, seed=1), bandit_lessons(), config()).run()
    stop = StopRequest()
    torch.manual_seed(0)
    first = SftRun(RunFolder(tmp_path / "b"), Policy(SMALL, seed=1), bandit_lessons(), config())
    half = first.run(stop=stop, on_step=lambda report: stop.ask() if report.step == 3 else None)
    assert load_checkpoint(half).record.step == 3
    second = SftRun(RunFolder(tmp_path / "b"), Policy(SMALL, seed=99), bandit_lessons(), config())
    second.resume(load_checkpoint(half))
    same_files(whole, second.run())
    assert (tmp_path / "a" / METRICS).read_bytes() == (tmp_path / "b" / METRICS).read_bytes()


def test_resume_drops_what_was_logged_after_the_checkpoint(tmp_path):
    folder = RunFolder(tmp_path)
    run = SftRun(folder, Policy(SMALL, seed=1), bandit_lessons(), config(steps=4))
    run.run(on_step=lambda report: None)
    logged = (tmp_path / METRICS).read_bytes()
    with (tmp_path / METRICS).open("ab") as file:
        file.write(b'{"phase": "sft", "step": 5}\n{"pha')
    again = SftRun(folder, Policy(SMALL, seed=1), bandit_lessons(), config(steps=4))
    again.resume(load_checkpoint(tmp_path))
    assert (tmp_path / METRICS).read_bytes() == logged


def test_resume_refuses_another_run(tmp_path, small):
    run = SftRun(RunFolder(tmp_path), small, bandit_lessons(), config(steps=2))
    found = load_checkpoint(run.run())
    others = {
        "data": SftRun(RunFolder(tmp_path), small, bandit_lessons()[1:], config(steps=2)),
        "other options": SftRun(RunFolder(tmp_path), small, bandit_lessons(), config(steps=3)),
    }
    for message, other in others.items():
        with pytest.raises(CheckpointError, match=message):
            other.resume(found)
    (tmp_path / METRICS).write_text("")
    with pytest.raises(CheckpointError, match="own file"):
        run.resume(found)


def test_run_keeps_the_newest_checkpoints_only(tmp_path, small):
    run = SftRun(RunFolder(tmp_path), small, bandit_lessons(), config(steps=7))
    run.run()
    assert [path.name for path in run.folder.checkpoints("sft")] == ["step-00000006", "step-00000007"]


@pytest.mark.parametrize(
    "change",
    [
        {"steps": 3, "seconds": 3.0},
        {"steps": None},
        {"final_lr": 2.0},
        {"batch_tokens": 0},
        {"indexer_warmup_share": 0.4},
    ],
)
def test_config_refuses_nonsense(change):
    with pytest.raises(SpecError):
        SftConfig(**{"steps": 3} | change)


def test_run_refuses_lessons_that_do_not_fit(tmp_path, small):
    with pytest.raises(SpecError, match="49"):
        SftRun(RunFolder(tmp_path), small, [Lesson((1,) * 49, (1,) * 49)], config())
    with pytest.raises(SpecError, match="0 lessons"):
        SftRun(RunFolder(tmp_path), small, [], config())
