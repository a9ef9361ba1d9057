"""Rows E1, E2 and R3 of the design's suite: cached decoding is the full forward pass, and slots are strangers."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from envsynth.policy.drawing import Sampling
from envsynth.policy.engine import PROMPTS, Engine, SlotRecord, Turn, TurnEnd
from envsynth.policy.model import Policy
from envsynth.policy.presets import nano

STOP = [1, 2]
"""Token ids that end a turn in these tests."""
LOG_PROB_TOLERANCE = 1e-5
"""Between cached decoding and the full forward pass, float32."""


@pytest.fixture(params=["mha", "kernels"])
def either(policy, request) -> Policy:
    """A policy that decodes in plain torch, or through the operators' references."""
    policy.attention_mode = request.param
    return policy


def prompt(length: int, seed: int = 0) -> list[int]:
    return torch.randint(3, 50, (length,), generator=torch.Generator().manual_seed(seed)).tolist()


def check_against_forward(policy: Policy, record: SlotRecord, temperature: float = 1.0, *, replay: bool) -> float:
    """Compare a record with the full forward pass on its tokens; give the largest difference of a log-probability."""
    batch = record.tokens[None]
    with torch.no_grad():
        whole = policy(
            batch,
            routed_experts_BTMA=record.routed_experts[None] if replay else None,
            indexer_topk_BTLK=record.indexer_topk[None] if replay else None,
        )
    fed = len(record.tokens) - 1
    assert torch.equal(whole.routed_experts[0, :fed], record.routed_experts[:fed])
    assert torch.equal(whole.indexer_topk[0, :fed], record.indexer_topk[:fed])
    log_probs = (whole.logits_BTV[0, :-1] / temperature).log_softmax(-1)
    for position in range(1, len(record.tokens)):
        kept = record.kept_ids[record.kept_offsets[position] : record.kept_offsets[position + 1]].long()
        if len(kept):
            row = log_probs[position - 1]
            log_probs[position - 1] = torch.full_like(row, float("-inf")).scatter(0, kept, row[kept].log_softmax(0))
    recomputed = log_probs.gather(1, record.tokens[1:, None]).squeeze(1)
    sampled = record.sampled[1:]
    assert sampled.any()
    difference = (recomputed - record.log_probs[1:])[sampled].abs().max().item()
    assert difference < LOG_PROB_TOLERANCE
    return difference


def play_turns(engine: Engine, slots: list[int], answers: list[list[int]], max_tokens: int = 9) -> None:
    """Sample a turn in each slot, then append an answer and sample again, for each answer."""
    engine.generate_turn(slots, stop_ids=STOP, max_tokens=max_tokens)
    for answer in answers:
        for slot in slots:
            engine.append(slot, answer)
        engine.generate_turn(slots, stop_ids=STOP, max_tokens=max_tokens)


# E1 -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("replay", [False, True], ids=["live", "replayed"])
def test_e1_ragged_turns_equal_the_full_forward(either, replay):
    engine = Engine(either, n_slots=5, max_len=64)
    for slot, length in enumerate([3, 6, 7, 15, 28]):
        engine.start([slot], prompt(length, seed=slot), [f"e1/{slot}"])
    play_turns(engine, [0, 1, 2, 3, 4], [[7, 8, 9], [5]])
    lengths = set()
    for slot in range(5):
        record = engine.record(slot)
        lengths.add(len(record.tokens))
        check_against_forward(either, record, replay=replay)
    assert len(lengths) > 2, "ragged"
    assert max(lengths) > 4 * either.config.indexer.index_topk, "sparse"


def test_e1_reused_slots_carry_nothing_over(either):
    engine = Engine(either, n_slots=3, max_len=60)
    engine.start([0, 1, 2], prompt(40, seed=9), ["old/0", "old/1", "old/2"])
    play_turns(engine, [0, 1, 2], [[7, 8, 9]])
    engine.start([1, 2], prompt(8, seed=10), ["new/1", "new/2"])
    play_turns(engine, [1, 2], [[11, 12]])
    for slot in (1, 2):
        check_against_forward(either, engine.record(slot), replay=False)
    fresh = Engine(either, n_slots=3, max_len=60)
    fresh.start([1, 2], prompt(8, seed=10), ["new/1", "new/2"])
    play_turns(fresh, [1, 2], [[11, 12]])
    for slot in (1, 2):
        assert_same(engine.record(slot), fresh.record(slot))


def test_e1_rewritten_context_is_computed_afresh(either):
    engine = Engine(either, n_slots=2, max_len=64)
    engine.start([0, 1], prompt(30, seed=3), ["a/0", "a/1"])
    play_turns(engine, [0, 1], [[7, 8, 9]])
    kept = engine.record(0).tokens.tolist()
    summary = [*kept[:6], *kept[-5:]]
    engine.start([0], summary, ["a/0/1"])
    play_turns(engine, [0, 1], [[20, 21]], max_tokens=5)
    record = engine.record(0)
    assert record.tokens[:11].tolist() == summary
    assert not record.sampled[:11].any(), "a rewritten context is given, not sampled"
    for slot in (0, 1):
        check_against_forward(either, engine.record(slot), replay=False)


@pytest.mark.parametrize(
    "sampling",
    [Sampling(temperature=0.6), Sampling(temperature=1.3, sampling_top_k=9, sampling_top_p=0.9)],
    ids=["T", "T-k-p"],
)
def test_e1_recorded_log_probs_are_those_of_the_kept_set(either, sampling):
    engine = Engine(either, n_slots=4, max_len=64, sampling=sampling)
    engine.start([0, 1, 2, 3], prompt(12), [f"k/{slot}" for slot in range(4)])
    play_turns(engine, [0, 1, 2, 3], [[7, 8]])
    for slot in range(4):
        record = engine.record(slot)
        check_against_forward(either, record, sampling.temperature, replay=True)
        counts = record.kept_offsets.diff()
        assert ((counts > 0) == (record.sampled & torch.tensor(sampling.truncates))).all()
        for position in record.sampled.nonzero().flatten().tolist() if sampling.truncates else []:
            kept = record.kept_ids[record.kept_offsets[position] : record.kept_offsets[position + 1]]
            assert record.tokens[position] in kept
            assert len(kept) <= 9
            assert (kept[1:] > kept[:-1]).all()


@pytest.mark.slow
def test_e1_nano_over_many_episodes(lively):
    policy = lively(nano(250))
    engine = Engine(policy, n_slots=48, max_len=200)
    worst = 0.0
    for group in range(6):
        slots = range(8 * group, 8 * group + 8)
        ids = torch.randint(3, 250, (40 + 11 * group,), generator=torch.Generator().manual_seed(group)).tolist()
        engine.start(slots, ids, [f"{group}/{slot}" for slot in slots])
    play_turns(engine, list(range(48)), [[7, 8, 9, 10], [11, 12]], max_tokens=20)
    for slot in range(48):
        worst = max(worst, check_against_forward(policy, engine.record(slot), replay=True))
    assert 0 < worst < LOG_PROB_TOLERANCE


# E2 -----------------------------------------------------------------------------------------------------------------


def assert_same(one: SlotRecord, other: SlotRecord) -> None:
    for name in ("tokens", "sampled", "log_probs", "kept_ids", "kept_offsets", "routed_experts", "indexer_topk"):
        assert torch.equal(getattr(one, name), getattr(other, name)), name


@pytest.mark.parametrize(("size", "mode"), [("tiny", "mha"), ("nano", "mha"), ("tiny", "kernels")])
def test_e2_a_slot_is_bitwise_the_same_in_any_company_and_place(lively, tiny, size, mode):
    policy = lively(tiny if size == "tiny" else nano(250))
    policy.attention_mode = mode
    sampling = Sampling(temperature=1.2, sampling_top_p=0.95)
    wanted = {f"task{index}": prompt(4 + 3 * index, seed=index) for index in range(4)}

    def play(n_slots: int, places: dict[str, int], others: dict[int, int]) -> dict[str, SlotRecord]:
        engine = Engine(policy, n_slots=n_slots, max_len=60, sampling=sampling)
        for slot, length in others.items():
            engine.start([slot], prompt(length, seed=100 + slot), [f"other/{slot}"])
        for key, slot in places.items():
            engine.start([slot], wanted[key], [key])
        slots = sorted([*others, *places.values()])
        play_turns(engine, slots, [[7, 8, 9]], max_tokens=7)
        return {key: engine.record(slot) for key, slot in places.items()}

    alone = {key: play(1, {key: 0}, {})[key] for key in wanted}
    assert len({tuple(record.tokens[-5:].tolist()) for record in alone.values()}) == 4
    together = play(4, {key: slot for slot, key in enumerate(wanted)}, {})
    reversed_ = play(4, {key: 3 - slot for slot, key in enumerate(wanted)}, {})
    crowded = play(23, {key: 5 * slot + 2 for slot, key in enumerate(wanted)}, {0: 40, 1: 5, 9: 33, 19: 21, 22: 3})
    for key, record in alone.items():
        for other in (together, reversed_, crowded):
            assert_same(other[key], record)


def test_e2_order_of_starting_and_stepping_does_not_matter(either):
    def play(late: bool) -> SlotRecord:
        engine = Engine(either, n_slots=3, max_len=60)
        engine.start([0], prompt(30, seed=5), ["busy"])
        engine.begin_turn([0], stop_ids=[], max_tokens=20)
        for _ in range(7 if late else 0):
            engine.step()
        engine.start([2], prompt(10), ["mine"])
        engine.generate_turn([2], stop_ids=[], max_tokens=12)
        return engine.record(2)

    assert_same(play(late=True), play(late=False))


def test_e2_siblings_of_a_group_differ_by_their_key_alone(policy):
    engine = Engine(policy, n_slots=4, max_len=40)
    engine.start([0, 1, 2, 3], prompt(10), ["same", "other", "same", "third"])
    engine.generate_turn([0, 1, 2, 3], stop_ids=[], max_tokens=15)
    turns = [engine.turn(slot).tokens for slot in range(4)]
    assert turns[0] == turns[2]
    assert len(set(turns)) == 3


def test_e2_shared_prompts_are_computed_once_and_equal_single_starts(policy, monkeypatch):
    calls: list[int] = []
    prefill = policy.prefill
    monkeypatch.setattr(policy, "prefill", lambda tokens, **how: (calls.append(len(tokens)), prefill(tokens, **how))[1])
    group, single = Engine(policy, n_slots=3, max_len=40), Engine(policy, n_slots=3, max_len=40)
    group.start([0, 1, 2], prompt(10), ["a", "b", "c"])
    assert calls == [10]
    for slot, key in enumerate("abc"):
        single.start([slot], prompt(10), [key])
    for engine in (group, single):
        engine.generate_turn([0, 1, 2], stop_ids=STOP, max_tokens=10)
    for slot in range(3):
        assert_same(group.record(slot), single.record(slot))


# R3 -----------------------------------------------------------------------------------------------------------------


def test_r3_every_fed_token_of_every_turn_has_its_own_choices(policy):
    engine = Engine(policy, n_slots=2, max_len=64)
    engine.start([0, 1], prompt(9), ["r3/0", "r3/1"])
    play_turns(engine, [0, 1], [[7, 8, 9, 10], [11, 12]])
    for slot in (0, 1):
        record = engine.record(slot)
        assert (record.routed_experts[:-1] >= 0).all(), "turn ends and observations included"
        assert (record.indexer_topk[:-1, :, 0] >= 0).all()
        assert (record.routed_experts[-1] == -1).all(), "the last token was never fed"
        assert (record.indexer_topk[-1] == -1).all()
        given = ~record.sampled
        assert given[:9].all()
        assert given.sum() == 9 + 4 + 2
        check_against_forward(policy, record, replay=False)


def test_r3_records_replay_to_the_same_choices_in_a_padded_batch(policy):
    engine = Engine(policy, n_slots=3, max_len=64)
    for slot, length in enumerate([5, 12, 20]):
        engine.start([slot], prompt(length, seed=slot), [f"pad/{slot}"])
    play_turns(engine, [0, 1, 2], [[7, 8, 9]])
    records = [engine.record(slot) for slot in range(3)]
    longest = max(len(record.tokens) for record in records)

    def padded(rows: list[Tensor], value: int) -> Tensor:
        out = torch.full((3, longest, *rows[0].shape[1:]), value, dtype=rows[0].dtype)
        for index, row in enumerate(rows):
            out[index, : len(row)] = row
        return out

    lengths = torch.tensor([len(record.tokens) for record in records])
    mask = torch.arange(longest) < lengths[:, None]
    with torch.no_grad():
        output = policy(
            padded([record.tokens for record in records], 0),
            mask_BT=mask,
            routed_experts_BTMA=padded([record.routed_experts for record in records], -1),
            indexer_topk_BTLK=padded([record.indexer_topk for record in records], -1),
        )
    log_probs = output.logits_BTV.log_softmax(-1)
    for index, record in enumerate(records):
        fed = len(record.tokens) - 1
        assert torch.equal(output.routed_experts[index, :fed], record.routed_experts[:fed])
        assert torch.equal(output.indexer_topk[index, :fed], record.indexer_topk[:fed])
        recomputed = log_probs[index, :fed].gather(1, record.tokens[1:, None]).squeeze(1)
        sampled = record.sampled[1:]
        assert (recomputed - record.log_probs[1:])[sampled].abs().max() < LOG_PROB_TOLERANCE


# The engine's own rules -----------------------------------------------------------------------------------------------


def test_turns_end_at_stop_limit_or_full_slot(policy):
    engine = Engine(policy, n_slots=3, max_len=20)
    engine.start([0, 1, 2], prompt(10), ["x", "y", "z"])
    engine.begin_turn([0], stop_ids=range(50), max_tokens=5)
    engine.begin_turn([1], stop_ids=[], max_tokens=5)
    engine.begin_turn([2], stop_ids=[], max_tokens=50)
    ended = [engine.step() for _ in range(10)]
    assert ended == [[0], [], [], [], [1], [], [], [], [], [2]]
    assert engine.step() == []
    turns = [engine.turn(slot) for slot in range(3)]
    assert [turn.end for turn in turns] == [TurnEnd.STOP_ID, TurnEnd.MAX_TOKENS, TurnEnd.FULL]
    assert [len(turn.tokens) for turn in turns] == [1, 5, 10]
    assert turns[1].tokens == tuple(engine.record(1).tokens[10:].tolist())
    assert engine.room(2) == 0
    with pytest.raises(ValueError, match=r"slots \[2\] are full: 20 tokens each"):
        engine.begin_turn([2], stop_ids=[], max_tokens=1)


def test_a_turn_after_given_tokens_feeds_them_first(policy):
    engine = Engine(policy, n_slots=1, max_len=30)
    engine.start([0], prompt(5), ["x"])
    first = engine.generate_turn([0], stop_ids=[], max_tokens=3)[0]
    engine.append(0, [7, 8])
    engine.append(0, [9])
    engine.begin_turn([0], stop_ids=[], max_tokens=2)
    steps = 0
    while engine.open_slots:
        engine.step()
        steps += 1
    second = engine.turn(0)
    assert steps == 5, "the last sampled token and two given ones, then the third with the first draw, then a draw"
    assert engine.record(0).tokens.tolist() == [*prompt(5), *first.tokens, 7, 8, 9, *second.tokens]
    assert engine.record(0).sampled.tolist() == [False] * 5 + [True] * 3 + [False] * 3 + [True] * 2


def test_greedy_turns_are_the_best_tokens_whatever_the_key(policy):
    engine = Engine(policy, n_slots=2, max_len=40, sampling=Sampling(temperature=0))
    engine.start([0, 1], prompt(10), ["a", "b"])
    turns = engine.generate_turn([0, 1], stop_ids=[], max_tokens=15)
    assert turns[0] == turns[1]
    record = engine.record(0)
    best = policy(record.tokens[None]).logits_BTV[0].argmax(-1)
    assert best[9:-1].tolist() == list(turns[0].tokens)
    assert record.log_probs.abs().max() == 0
    assert record.kept_ids.tolist() == list(turns[0].tokens)


@pytest.mark.parametrize("changed", ["weight", "bias"])
def test_engine_refuses_to_continue_with_other_weights(policy, changed):
    engine = Engine(policy, n_slots=2, max_len=40)
    engine.start([0], prompt(10), ["a"])
    engine.begin_turn([0], stop_ids=[], max_tokens=5)
    engine.step()
    gate = policy.layers[1].mlp.gate
    with torch.no_grad():
        (gate.weight if changed == "weight" else gate.e_score_correction_bias).add_(0.1)
    with pytest.raises(RuntimeError, match="weights changed"):
        engine.step()
    with pytest.raises(RuntimeError, match="weights changed"):
        engine.start([1], prompt(10), ["b"])
    engine.clear()
    engine.start([1], prompt(10), ["b"])
    engine.generate_turn([1], stop_ids=STOP, max_tokens=5)
    engine.generate_turn([1], stop_ids=STOP, max_tokens=5)
    check_against_forward(policy, engine.record(1), replay=False)


def test_a_prompt_is_run_once_and_again_after_an_update(policy, monkeypatch):
    runs = []
    prefill = policy.prefill
    monkeypatch.setattr(
        policy, "prefill", lambda tokens, **how: (runs.append(tokens.tolist()), prefill(tokens, **how))[1]
    )
    engine = Engine(policy, n_slots=3, max_len=40)
    engine.start([0], prompt(10), ["a"])
    engine.generate_turn([0], stop_ids=STOP, max_tokens=5)
    engine.start([1], prompt(10), ["a"])
    engine.generate_turn([1], stop_ids=STOP, max_tokens=5)
    assert runs == [prompt(10)]
    first, second = engine.record(0), engine.record(1)
    assert first.tokens.tolist() == second.tokens.tolist()
    assert torch.equal(first.log_probs, second.log_probs)
    assert torch.equal(first.routed_experts, second.routed_experts)
    engine.clear()
    with torch.no_grad():
        policy.lm_head.weight.mul_(0.5)
    engine.start([2], prompt(10), ["a"])
    engine.generate_turn([2], stop_ids=STOP, max_tokens=5)
    assert runs == [prompt(10)] * 2
    check_against_forward(policy, engine.record(2), replay=False)


def test_only_so_many_prompts_are_kept(policy):
    engine = Engine(policy, n_slots=1, max_len=40)
    for length in range(1, 31):
        engine.start([0], prompt(length), ["a"])
        engine.start([0], prompt(length)[::-1], ["a"])
        engine.start([0], [1, *prompt(length)], ["a"])
    assert len(engine._prompts) <= PROMPTS


def test_bfloat16_policy_records_float32_log_probs(policy):
    engine = Engine(policy.to(torch.bfloat16), n_slots=2, max_len=40)
    engine.start([0, 1], prompt(10), ["a", "b"])
    engine.generate_turn([0, 1], stop_ids=[], max_tokens=8)
    record = engine.record(0)
    assert record.log_probs.dtype == torch.float32
    assert (record.log_probs[10:] != record.log_probs[10:].bfloat16().float()).any()
    with torch.no_grad():
        replayed = policy(
            record.tokens[None],
            routed_experts_BTMA=record.routed_experts[None],
            indexer_topk_BTLK=record.indexer_topk[None],
        )
    log_probs = replayed.logits_BTV[0, 9:-1].log_softmax(-1).gather(1, record.tokens[10:, None]).squeeze(1)
    assert (log_probs - record.log_probs[10:]).abs().max() < 0.2, "half precision, so near and not equal"


def test_record_is_a_copy(policy):
    engine = Engine(policy, n_slots=1, max_len=40)
    engine.start([0], prompt(5), ["a"])
    engine.generate_turn([0], stop_ids=[], max_tokens=5)
    before = engine.record(0)
    engine.start([0], prompt(9, seed=2), ["b"])
    assert before.log_probs.abs().min(dim=0).values == 0
    assert before.sampled.tolist() == [False] * 5 + [True] * 5
    assert len(engine.record(0).tokens) == 9


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda e: e.start([4], [5], ["k"]), ValueError, r"within 0..3, got \[4\]"),
        (lambda e: e.start([1, 1], [5], ["k", "l"]), ValueError, "different numbers"),
        (lambda e: e.start([], [5], []), ValueError, "different numbers"),
        (lambda e: e.start([1], [5], []), ValueError, "got 0 keys for 1 slots"),
        (lambda e: e.start([1], [], ["k"]), ValueError, "a prompt has 1..30 tokens here, got 0"),
        (lambda e: e.start([1], [5] * 31, ["k"]), ValueError, "got 31"),
        (lambda e: e.start([1], [50], ["k"]), ValueError, r"within 0..49, got \[50\]"),
        (lambda e: e.append(0, [5] * 30), ValueError, "slot 0 has room for 25 tokens, got 30"),
        (lambda e: e.append(0, [50]), ValueError, r"within 0..49, got \[50\]"),
        (lambda e: e.append(1, [5]), RuntimeError, "slot 1 was not started"),
        (lambda e: e.record(1), RuntimeError, "slot 1 was not started"),
        (lambda e: e.turn(0), RuntimeError, "no turn of slot 0 has ended"),
        (lambda e: e.begin_turn([0], stop_ids=[], max_tokens=0), ValueError, "max_tokens must be >= 1"),
        (lambda e: e.append(2, [5]), RuntimeError, "the turn of slot 2 is open"),
        (lambda e: e.begin_turn([2], stop_ids=[], max_tokens=3), RuntimeError, "the turn of slot 2 is open"),
    ],
)
def test_engine_refuses_misuse(policy, call, error, message):
    engine = Engine(policy, n_slots=4, max_len=30)
    engine.start([0, 2], prompt(5), ["a", "b"])
    engine.begin_turn([2], stop_ids=[], max_tokens=3)
    with pytest.raises(error, match=message):
        call(engine)


@pytest.mark.parametrize(("n_slots", "max_len"), [(0, 10), (2, 0), (2, 65)])
def test_engine_refuses_impossible_sizes(policy, n_slots, max_len):
    with pytest.raises(ValueError, match=r"max_len within 1..64"):
        Engine(policy, n_slots=n_slots, max_len=max_len)


def test_turn_is_a_plain_record():
    assert Turn(tokens=(3, 1), end=TurnEnd.STOP_ID) == Turn(tokens=(3, 1), end=TurnEnd("stop_id"))
