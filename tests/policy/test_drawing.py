"""Truncation, drawing and the counted stream; row S3: what the engine draws is what it recorded."""

from __future__ import annotations

import hashlib
import math
from collections import Counter

import pytest
import torch

from envsynth.errors import SpecError
from envsynth.policy.drawing import Sampling, draw, truncated_log_probs, uniform_stream
from envsynth.policy.engine import Engine
from envsynth.policy.model import Policy

PROMPT = [3, 14, 15, 9, 26, 5, 35, 8, 9]
SETTINGS = [
    Sampling(temperature=0.7),
    Sampling(temperature=1.4, sampling_top_p=0.8),
    Sampling(temperature=0.8, sampling_top_k=7),
    Sampling(temperature=1.3, sampling_top_k=12, sampling_top_p=0.9),
]
IDS = ["T0.7", "T1.4-p0.8", "T0.8-k7", "T1.3-k12-p0.9"]


def by_hand(logits: list[float], sampling: Sampling) -> dict[int, float]:
    """Probabilities from the definition: temperature, then the best k, then the fewest that reach p."""
    weights = [math.exp(logit / sampling.temperature) for logit in logits]
    order = sorted(range(len(logits)), key=lambda token: (-weights[token], token))
    if sampling.sampling_top_k:
        order = order[: sampling.sampling_top_k]
    total, reached, kept = sum(weights[token] for token in order), 0.0, []
    for token in order:
        if reached >= sampling.sampling_top_p and sampling.sampling_top_p < 1:
            break
        kept.append(token)
        reached += weights[token] / total
    total = sum(weights[token] for token in kept)
    return {token: weights[token] / total for token in kept}


@pytest.mark.parametrize("sampling", SETTINGS, ids=IDS)
def test_truncated_log_probs_are_the_definition(sampling):
    logits = 2 * torch.randn(20, 40)
    got = truncated_log_probs(logits, sampling)
    for row, log_probs in zip(logits.double().tolist(), got, strict=True):
        want = by_hand(row, sampling)
        assert log_probs.isfinite().nonzero().flatten().tolist() == sorted(want)
        for token, probability in want.items():
            assert log_probs[token].item() == pytest.approx(math.log(probability), abs=1e-5)


def test_truncated_log_probs_ties_go_to_lower_ids():
    got = truncated_log_probs(torch.zeros(1, 6), Sampling(sampling_top_k=2))
    assert got.isfinite().tolist() == [[True, True, False, False, False, False]]
    nucleus = truncated_log_probs(torch.zeros(1, 4), Sampling(sampling_top_p=0.5))
    assert nucleus.isfinite().tolist() == [[True, True, False, False]]


def test_temperature_zero_takes_the_first_best_token():
    got = truncated_log_probs(torch.tensor([[1.0, 5.0, 5.0], [0.0, -1.0, -2.0]]), Sampling(temperature=0))
    assert got.tolist() == [[-math.inf, 0.0, -math.inf], [0.0, -math.inf, -math.inf]]
    assert draw(got, torch.tensor([0.99, 0.0])).tolist() == [1, 0]


def test_draw_inverts_the_cumulative_distribution():
    log_probs = torch.tensor([0.0, 0.25, 0.0, 0.5, 0.25, 0.0]).log()
    points = torch.tensor([0.0, 0.2499, 0.2501, 0.7499, 0.7501, 1 - 2**-53], dtype=torch.float64)
    assert draw(log_probs.expand(6, -1), points).tolist() == [1, 1, 3, 3, 4, 4]


def philox(key: tuple[int, int], index: int) -> int:
    """Philox-4x64-10 from its paper: number `index` of a stream, from key and counter alone."""
    word = (1 << 64) - 1
    counter = [index // 4 + 1, 0, 0, 0]  # the generator steps its counter before the first block
    k0, k1 = key
    for _ in range(10):
        product0, product1 = 0xD2E7470EE14C6C93 * counter[0], 0xCA5A826395121157 * counter[2]
        counter = [
            (product1 >> 64) ^ counter[1] ^ k0,
            product1 & word,
            (product0 >> 64) ^ counter[3] ^ k1,
            product0 & word,
        ]
        k0, k1 = (k0 + 0x9E3779B97F4A7C15) & word, (k1 + 0xBB67AE8584CAA73B) & word
    return counter[index % 4]


def test_uniform_stream_is_philox_of_the_hashed_key():
    digest = hashlib.sha256(b"17/0/task/3").digest()
    key = int.from_bytes(digest[:8], "little"), int.from_bytes(digest[8:16], "little")
    want = [(philox(key, index) >> 11) * 2.0**-53 for index in range(11)]
    stream = uniform_stream("17/0/task/3", 11)
    assert stream.tolist() == want
    assert torch.equal(stream[:3], uniform_stream("17/0/task/3", 3))


def test_uniform_stream_is_uniform_and_keys_are_independent():
    streams = torch.stack([uniform_stream(f"key/{index}", 500) for index in range(200)])
    counts = (streams * 20).long().flatten().bincount(minlength=20)
    assert chi_square_p(counts.double(), torch.full((20,), 5000.0, dtype=torch.float64)) > 1e-4
    assert torch.corrcoef(streams[:40]).fill_diagonal_(0).abs().max() < 0.25


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"temperature": -0.1}, "temperature must be >= 0"),
        ({"temperature": math.inf}, "finite"),
        ({"sampling_top_k": -1}, "sampling_top_k must be >= 0"),
        ({"sampling_top_p": 0.0}, r"sampling_top_p must be in \(0, 1\]"),
    ],
)
def test_sampling_refuses_impossible_values(fields, message):
    with pytest.raises(SpecError, match=message):
        Sampling(**fields)


# S3 -----------------------------------------------------------------------------------------------------------------


def chi_square_p(observed: torch.Tensor, expected: torch.Tensor) -> float:
    """Probability of a statistic as large as this; categories with few expected draws are merged."""
    order = expected.argsort()
    observed, expected = observed[order], expected[order]
    small = int((expected.cumsum(0) < 5).sum()) + 1 if expected[0] < 5 else 1
    merged = [torch.cat((x[:small].sum()[None], x[small:])) for x in (observed, expected)]
    statistic = ((merged[0] - merged[1]).square() / merged[1]).sum()
    freedom = torch.tensor((len(merged[0]) - 1) / 2, dtype=torch.float64)
    return torch.special.gammaincc(freedom, statistic / 2).item()


def engine_draws(policy: Policy, sampling: Sampling, n: int, n_slots: int) -> tuple[Counter[int], dict[int, float]]:
    """Draw the token after one prompt n times; give how often each came, and the log-probability recorded with it."""
    engine = Engine(policy, n_slots=n_slots, max_len=len(PROMPT) + 1, sampling=sampling)
    counts: Counter[int] = Counter()
    recorded: dict[int, float] = {}
    for start in range(0, n, n_slots):
        engine.start(range(n_slots), PROMPT, [f"s3/{start + slot}" for slot in range(n_slots)])
        engine.generate_turn(range(n_slots), stop_ids=[], max_tokens=1)
        for slot in range(n_slots):
            (token,) = engine.turn(slot).tokens
            counts[token] += 1
            if token not in recorded or slot % 97 == 0:
                log_prob = engine.record(slot).log_probs[-1].item()
                assert recorded.setdefault(token, log_prob) == log_prob
    return counts, recorded


def check_draws(policy: Policy, sampling: Sampling, n: int, n_slots: int) -> None:
    counts, recorded = engine_draws(policy, sampling, n, n_slots)
    tokens = sorted(counts)
    observed = torch.tensor([counts[token] for token in tokens], dtype=torch.float64)
    expected = torch.tensor([recorded[token] for token in tokens], dtype=torch.float64).exp() * n
    unseen = n - expected.sum()
    assert unseen > -1e-3, "recorded probabilities of different tokens sum to more than one"
    if unseen > 1e-3:
        observed, expected = (
            torch.cat((x, y[None])) for x, y in ((observed, torch.zeros(()).double()), (expected, unseen))
        )
    p = chi_square_p(observed, expected)
    assert p > 1e-4, f"p = {p:.2e} over {len(tokens)} tokens"
    want = by_hand(policy(torch.tensor([PROMPT])).logits_BTV[0, -1].double().tolist(), sampling)
    assert set(tokens) <= set(want)
    assert max(abs(recorded[token] - math.log(want[token])) for token in tokens) < 1e-5


@pytest.mark.parametrize("sampling", SETTINGS, ids=IDS)
def test_s3_engine_draws_what_it_records(policy, sampling):
    check_draws(policy, sampling, n=6000, n_slots=3000)


@pytest.mark.slow
def test_s3_engine_draws_what_it_records_many_times(policy):
    check_draws(policy, SETTINGS[-1], n=100_000, n_slots=20_000)


@pytest.mark.slow
@pytest.mark.parametrize("sampling", SETTINGS, ids=IDS)
def test_s3_a_million_draws_follow_the_log_probs(policy, sampling):
    """The engine's two functions without its bookkeeping, which would take minutes for so many starts."""
    log_probs = truncated_log_probs(policy(torch.tensor([PROMPT])).logits_BTV[0, -1:], sampling)
    counts = torch.zeros(50, dtype=torch.int64)
    for points in uniform_stream("s3", 1_000_000).split(50_000):
        counts += draw(log_probs.expand(len(points), -1), points).bincount(minlength=50)
    kept = log_probs[0].isfinite()
    assert counts[~kept].sum() == 0
    assert chi_square_p(counts[kept].double(), log_probs[0, kept].double().exp() * 1_000_000) > 1e-4


def test_s3_chi_square_notices_another_temperature():
    log_probs = truncated_log_probs(torch.randn(1, 30), Sampling(temperature=0.7))[0].double()
    tokens = draw(log_probs.expand(6000, -1), uniform_stream("s3", 6000)).bincount(minlength=30).double()
    assert chi_square_p(tokens, log_probs.exp() * 6000) > 1e-4
    flatter = (log_probs * 0.9).log_softmax(-1)
    assert chi_square_p(tokens, flatter.exp() * 6000) < 1e-4
