"""The bundled policy computes what transformers' deepseek_v32 computes, over many random configurations.

Each configuration has random weights in every place, gains and biases included; the head is scaled so that logits have a
spread of about one, because rounding grows with them. On exact ties the peer keeps any of the tied keys and we keep the
first ones: sets are compared by what they are worth, the peer's are replayed, and how often that was needed is printed.
`--mutate` plants single faults in ours and asks whether this comparison notices each of them.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, get_args
from unittest import mock

import torch
from torch import Tensor

from acceptance.claims import Claims
from acceptance.transformers_peer import (
    LIMIT,
    WORTH,
    Case,
    Compared,
    compare,
    draw_case,
    draw_tokens,
    lively,
    run_peer,
)
from envsynth.policy import experts as experts_module
from envsynth.policy.attention import AttentionMode
from envsynth.policy.config import ExpertsConfig, YarnConfig
from envsynth.policy.drawing import Sampling
from envsynth.policy.engine import Engine, SlotRecord
from envsynth.policy.experts import GATE_SUM_EPS, Router
from envsynth.policy.indexer import LightningIndexer
from envsynth.policy.model import Policy
from envsynth.policy.rope import rotate_pairs
from envsynth.policy.selection import exact_topk

CONFIGURATIONS, FAST = 64, 16
"""Configurations of a whole run, and of a fast one."""
EVERY = 3
"""Of these, every third is also decoded, padded and moved between slots; three shares no factor with what repeats."""
PLANTED = 4
"""Configurations in which each fault is planted."""


def parity(claims: Claims, cases: list[Case]) -> None:
    """Compare logits and selected sets with the peer's."""
    found: list[Compared] = []
    for case in cases:
        policy, tokens = lively(case), draw_tokens(case)
        found.append(compare(policy, tokens, run_peer(policy, tokens)))
        if not found[-1].holds:
            print(f"      configuration {case.number}: {found[-1]}; {case}", flush=True)
    worst = max(item.worst for item in found)
    relative = max(item.worst / item.spread for item in found)
    flattest, steepest = min(item.spread for item in found), max(item.spread for item in found)
    replayed = sum(item.replayed for item in found)
    wanted = FAST if len(cases) == FAST else 56
    claims.line("configurations compared with transformers", len(found), f">= {wanted}", len(found) >= wanted)
    claims.line(
        f"largest difference of a logit over all of them; {relative:.1e} of the spread, which is {flattest:.2f} to"
        f" {steepest:.2f}",
        f"{worst:.1e}",
        f"<= {LIMIT:.0e}",
        worst <= LIMIT and flattest > 0.1,
    )
    rows, wrong = sum(item.rows for item in found), sum(item.wrong for item in found)
    tied, near = sum(item.tied for item in found), sum(item.near for item in found)
    claims.line(
        f"sets not worth the same within {WORTH:.0e}, of {rows} selections of keys; the peer's sets were replayed in"
        f" {replayed} configurations: {tied} rows with exact ties, {near} with near ties, experts of"
        f" {sum(item.experts for item in found)} tokens",
        wrong,
        "0",
        wrong == 0 and rows > 0,
    )


def incremental(claims: Claims, cases: list[Case]) -> None:
    """Decode token by token, and compare with the whole sequence at once."""
    worst, steps, flips = 0.0, 0, 0
    for case in cases:
        policy, tokens_T = lively(case), draw_tokens(case)[0]
        start = case.length // 3
        with torch.no_grad():
            whole = policy(tokens_T[None])
        _, prompt = policy.prefill(tokens_T[:start])
        cache = policy.new_cache(1, case.length)
        for kept, filled in zip(cache, prompt, strict=True):
            kept[:, :, :start] = filled
        for position in range(start, case.length):
            where = torch.tensor([0]), torch.tensor([position])
            logits, _, keys = policy.decode(tokens_T[position : position + 1], cache, *where)
            worst = max(worst, float((logits[0] - whole.logits_BTV[0, position]).abs().max()))
            flips += int((keys[0] != whole.indexer_topk[0, position]).any(-1).sum())
            steps += 1
    name = (
        f"decode against the whole sequence, {len(cases)} configurations, {steps} tokens: largest difference of a logit"
    )
    claims.line(name, f"{worst:.1e}", f"<= {LIMIT:.0e}", worst <= LIMIT and steps > 0)
    claims.line("selections of keys that differ between the two", flips, "0", flips == 0)


def ragged(claims: Claims, cases: list[Case]) -> None:
    """Compare a padded batch with each sequence alone."""
    worst, other = 0.0, 0
    for case in cases:
        policy, tokens = lively(case), draw_tokens(case, sequences=3)
        lengths = (case.length, case.length // 2, 1)
        mask = torch.arange(case.length) < torch.tensor(lengths)[:, None]
        with torch.no_grad():
            batch = policy(tokens, mask_BT=mask)
            for row, length in enumerate(lengths):
                alone = policy(tokens[row : row + 1, :length])
                worst = max(worst, float((batch.logits_BTV[row, :length] - alone.logits_BTV[0]).abs().max()))
                other += int((batch.indexer_topk[row, :length] != alone.indexer_topk[0]).any(-1).sum())
    name = f"padded batches against each sequence alone, {len(cases)} configurations: largest difference of a logit"
    claims.line(name, f"{worst:.1e}", f"<= {LIMIT:.0e}", worst <= LIMIT)
    claims.line("selections of keys that differ between the two", other, "0", other == 0)


def slot_reuse(claims: Claims, cases: list[Case]) -> None:
    """Start again in a used slot, and compare every bit with a fresh engine."""
    different = 0
    for case in cases:
        policy, prompt = lively(case), draw_tokens(case)[0].tolist()
        used = _engine(policy)
        _play(used, prompt[::-1], "before")
        different += not _same(_play(used, prompt[:5], "after"), _play(_engine(policy), prompt[:5], "after"))
    name = f"used slots whose next sequence is another than in a fresh engine, {len(cases)} configurations"
    claims.line(name, different, "0", different == 0)


def _engine(policy: Policy) -> Engine:
    return Engine(policy, n_slots=2, max_len=policy.config.max_position_embeddings, sampling=Sampling(temperature=0.9))


def _play(engine: Engine, prompt: list[int], key: str) -> SlotRecord:
    engine.start([1], prompt, [key])
    engine.generate_turn([1], stop_ids=(), max_tokens=20)
    return engine.record(1)


def _same(one: SlotRecord, other: SlotRecord) -> bool:
    return all(torch.equal(value, getattr(other, name)) for name, value in vars(one).items())


def modes(claims: Claims, cases: list[Case]) -> None:
    """Compare attention over expanded heads with attention over latents, and with the library's own."""
    name = f"MQA, fused and kernel mode against MHA, {len(cases)} configurations: largest difference of a logit"
    worst = 0.0
    for case in cases:
        policy, found = lively(case), {}
        for mode in get_args(AttentionMode):
            policy.attention_mode = mode
            with torch.no_grad():
                found[mode] = policy(draw_tokens(case)).logits_BTV
        worst = max(worst, *(float((found["mha"] - found[mode]).abs().max()) for mode in ("mqa", "fused", "kernels")))
    claims.line(name, f"{worst:.1e}", f"<= {LIMIT:.0e}", worst <= LIMIT)


# ------------------------------------------------------------------------------------------------------ planted faults


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One thing that is wrong in ours."""

    name: str
    """What it is."""
    where: dict[str, Any]
    """What a configuration must have for it to matter."""
    patch: Callable[[], Any] | None = None
    """Gives a context in which our library is wrong."""
    spoil: Callable[[Policy], None] = field(default=lambda policy: None)
    """Makes one policy wrong."""
    config: Callable[[Case], Any] = field(default=lambda case: case.config)
    """Gives a wrong configuration."""


def _interleaved(policy: Policy) -> None:
    for module in policy.modules():
        if isinstance(module, LightningIndexer):
            module.rotate = rotate_pairs


def _without_key_bias(policy: Policy) -> None:
    for module in policy.modules():
        if isinstance(module, LightningIndexer):
            torch.nn.init.zeros_(module.k_norm.bias)


def _masked_with_zero(scores_NE: Tensor, sizes: ExpertsConfig) -> Tensor:
    grouped = scores_NE.unflatten(-1, (sizes.n_group, -1))
    best = grouped.topk(2, dim=-1).values.sum(-1).topk(sizes.topk_group, dim=-1).indices
    allowed = torch.zeros(grouped.shape[:-1], dtype=torch.bool).scatter(-1, best, True)
    masked = torch.where(allowed[..., None], grouped, 0.0).flatten(-2)
    return exact_topk(masked, torch.ones_like(masked, dtype=torch.bool), sizes.num_experts_per_tok)


@contextmanager
def _biased_gates() -> Iterator[None]:
    right = Router.forward

    def wrong(self: Router, x_ND: Tensor, *arguments: Any, **named: Any) -> tuple[Tensor, Tensor]:
        chosen, _ = right(self, x_ND, *arguments, **named)
        scores = torch.nn.functional.linear(x_ND, self.weight).sigmoid() + self.e_score_correction_bias
        gates = scores.gather(1, chosen.long())
        if self.sizes.norm_topk_prob:
            gates = gates / (gates.sum(-1, keepdim=True) + GATE_SUM_EPS)
        return chosen, gates * self.sizes.routed_scaling_factor

    with mock.patch.object(Router, "forward", wrong):
        yield


FAULTS = (
    Fault(name="the indexer rotates neighbours", where={"sparse": True, "rope": 8}, spoil=_interleaved),
    Fault(
        name="YaRN's factor on the softmax is missing",
        where={"yarn": True},
        patch=lambda: mock.patch.object(YarnConfig, "softmax_factor", 1.0),
    ),
    Fault(
        name="experts of other groups get 0.0 instead of minus infinity",
        where={"groups": 4, "bias": -1.5},
        patch=lambda: mock.patch.object(experts_module, "choose_experts", _masked_with_zero),
    ),
    Fault(name="gates have the correction bias in them", where={"normed": True}, patch=_biased_gates),
    Fault(name="the indexer's keys are normalised without bias", where={"sparse": True}, spoil=_without_key_bias),
    Fault(
        name="the factor on the gates is missing",
        where={"scaling": 2.5},
        config=lambda case: replace(case.config, experts=replace(case.config.experts, routed_scaling_factor=1.0)),
    ),
)


def mutate(claims: Claims) -> None:
    """Plant each fault, and ask whether the comparison notices it."""
    for fault in FAULTS:
        noticed = 0
        for number in range(PLANTED):
            case = draw_case(number, **fault.where)
            tokens, right = draw_tokens(case), lively(case)
            peer = run_peer(right, tokens)
            if not compare(right, tokens, peer).holds:
                continue  # a comparison that fails anyway says nothing about the fault
            with fault.patch() if fault.patch else mock.patch.dict({}):
                wrong = lively(case, fault.config(case))
                with torch.no_grad():
                    fault.spoil(wrong)
                noticed += not compare(wrong, tokens, peer).holds
        claims.line(f"noticed: {fault.name}", f"{noticed} of {PLANTED}", f"{PLANTED}", noticed == PLANTED)


def main() -> int:
    """Print the lines."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fast", action="store_true", help=f"{FAST} configurations, and no planted faults")
    parser.add_argument("--mutate", action="store_true", help="planted faults only")
    options = parser.parse_args()
    torch.set_num_threads(1)  # the tensors are small: a second thread would only wait for the first
    claims = Claims()
    if not options.mutate:
        cases = [draw_case(number) for number in range(FAST if options.fast else CONFIGURATIONS)]
        parity(claims, cases)
        for check in (incremental, ragged, slot_reuse, modes):
            check(claims, cases[::EVERY])
    if not options.fast:
        mutate(claims)
    return claims.exit_code()


if __name__ == "__main__":
    raise SystemExit(main())
