"""Scores of tokens inside the forward pass: the numbers and gradients of logits, with and without forming them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from envsynth.errors import SpecError
from envsynth.policy.model import Policy
from envsynth.policy.packing import pack
from envsynth.policy.sampling import KeptSets, entropy, kept_mass, select_kept, token_log_probs
from envsynth.policy.scores import ScoreRequest, aligned, next_token_request

TEMPERATURE = 0.7
WAYS = pytest.mark.parametrize("kernels", [False, True], ids=["logits", "operator"])


def kept_of(tokens_NT: Tensor, every: int = 3) -> KeptSets:
    """Sets of the token and six others for most tokens, and the whole vocabulary for every third one."""
    rows = []
    for position, token in enumerate(tokens_NT.flatten().tolist()):
        some = {token, *((token * 7 + 5 * k + position) % 50 for k in range(6))}
        rows.append(sorted(some) if position % every else [])
    offsets = torch.tensor([0, *(len(row) for row in rows)]).cumsum(0)
    return KeptSets(ids=torch.tensor([x for row in rows for x in row], dtype=torch.int32), offsets=offsets)


def gradients(policy: Policy, loss: Tensor) -> dict[str, Tensor]:
    policy.zero_grad()
    loss.backward()
    return {name: item.grad.clone() for name, item in policy.named_parameters() if item.grad is not None}


@WAYS
@pytest.mark.parametrize("cut", [False, True], ids=["whole", "kept"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_scores_and_gradients_are_those_of_all_logits(lively, tokens, kernels, cut, dtype, tolerance):
    policy, batch = lively().to(dtype), tokens(2, 20)
    policy.kernels = kernels
    kept = kept_of(batch) if cut else None
    scored = torch.rand(2, 20, generator=torch.Generator().manual_seed(1)) < 0.6
    scored[:, 0], weight = False, torch.randn(2, 20, dtype=dtype)
    logits = policy(batch).logits_BTV
    want = token_log_probs(logits, batch, kept, TEMPERATURE).masked_fill(~scored, 0.0)
    asked = next_token_request(batch, scored, kept=kept, temperature=TEMPERATURE)
    output = policy(batch, score=asked)
    assert (output.logits is None) == kernels, "kernels form no logits"
    found = aligned(output.scores.log_probs_BT)
    torch.testing.assert_close(found, want, rtol=0, atol=tolerance)
    both = [gradients(policy, (item * weight).sum()) for item in (want, found)]
    assert both[0].keys() == both[1].keys()
    for name, item in both[0].items():
        torch.testing.assert_close(both[1][name], item, rtol=0, atol=20 * tolerance, msg=name)


@WAYS
def test_measures_are_those_of_all_logits(policy, tokens, kernels):
    policy.kernels, batch = kernels, tokens(2, 12)
    kept, scored = kept_of(batch), torch.ones(2, 12, dtype=torch.bool)
    scored[1, 6:] = False
    logits = policy(batch).logits_BTV.detach()
    measures = policy(batch, score=next_token_request(batch, scored, kept=kept, temperature=0.7)).scores.measures
    shifted = select_kept(kept, torch.arange(24).view(2, 12)[:, 1:].flatten())
    want = {
        "entropy_BT": entropy(logits[:, :-1], 0.7),
        "mass_BT": kept_mass(logits[:, :-1].flatten(0, 1), shifted, 0.7).view(2, 11),
        "is_best_BT": (logits[:, :-1].argmax(-1) == batch[:, 1:]).float(),
    }
    for name, item in want.items():
        found = getattr(measures, name).float()
        assert not getattr(measures, name).requires_grad
        torch.testing.assert_close(found[:, :-1], item.masked_fill(~scored[:, 1:], 0.0), rtol=1e-5, atol=1e-6, msg=name)
        assert not found[:, -1].any(), "nothing follows the last token"


@WAYS
def test_packed_documents_are_scored_as_if_alone(policy, kernels):
    policy.double().kernels = kernels
    documents = [torch.randint(50, (n,), generator=torch.Generator().manual_seed(n)) for n in (9, 14, 1, 6)]
    rows = pack(documents, 20)
    asked = next_token_request(rows.tokens_BT, rows.mask_BT, starts_NT=rows.starts_BT)
    output = policy(rows.tokens_BT, mask_BT=rows.mask_BT, starts_BT=rows.starts_BT, score=asked)
    for document, found in zip(documents, rows.unpack(aligned(output.scores.log_probs_BT)), strict=True):
        want = token_log_probs(policy(document[None]).logits_BTV, document[None], None, 1.0)[0]
        torch.testing.assert_close(found, want, rtol=0, atol=1e-11)
        assert found[0] == 0, "nothing predicts a document's first token, not even the document before"


@WAYS
def test_without_a_target_there_is_nothing_and_no_gradient(policy, tokens, kernels):
    policy.kernels, batch = kernels, tokens(1, 5)
    output = policy(batch, score=ScoreRequest(torch.full_like(batch, -1)))
    assert not output.scores.log_probs_BT.any()
    found = gradients(policy, output.scores.log_probs_BT.sum())
    assert not any(item.any() for item in found.values())


@WAYS
def test_prediction_layers_are_scored_likewise(lively, tokens, kernels):
    policy, batch = lively(num_nextn_predict_layers=2).double(), tokens(2, 12)
    policy.kernels = kernels
    logits = policy(batch, with_predictions=True).predictions.logits_BTPV.log_softmax(-1)
    asked = next_token_request(batch, torch.ones_like(batch, dtype=torch.bool))
    found = policy(batch, with_predictions=True, score=asked).predictions
    assert (found.logits is None) == kernels
    for layer in range(2):
        ahead = batch[:, 2 + layer :]
        want = logits[:, : ahead.shape[1], layer].gather(-1, ahead[..., None]).squeeze(-1)
        torch.testing.assert_close(found.log_probs_BTP[:, : ahead.shape[1], layer], want, rtol=0, atol=1e-12)
        assert not found.log_probs_BTP[:, ahead.shape[1] :, layer].any()


def test_logits_that_were_not_formed_say_so(policy, tokens):
    policy.kernels, batch = True, tokens(1, 5)
    output = policy(batch, score=next_token_request(batch, torch.ones_like(batch, dtype=torch.bool)))
    with pytest.raises(ValueError, match=r"no logits were formed: .* call without score"):
        _ = output.logits_BTV


def test_operators_follow_the_setting(policy):
    assert [policy.uses_kernels, policy.kernels] == [False, None]
    policy.attention_mode = "kernels"
    assert policy.uses_kernels
    policy.kernels = False
    assert not policy.uses_kernels


def test_a_damaged_record_is_refused_before_it_is_scored(tokens):
    batch, scored = tokens(1, 6), torch.ones(1, 6, dtype=torch.bool)
    kept = kept_of(batch, every=7)
    shifted = select_kept(kept, torch.tensor([1, 2, 3, 4, 5, 0]))
    with pytest.raises(SpecError, match="not in its kept set"):
        next_token_request(batch, scored, kept=shifted)
    with pytest.raises(SpecError, match="5 kept sets for 6 tokens"):
        next_token_request(batch, scored, kept=select_kept(kept, torch.arange(5)))
    with pytest.raises(SpecError, match="a kept token id is -1"):
        next_token_request(batch, scored, kept=KeptSets(ids=kept.ids.clone().fill_(-1), offsets=kept.offsets))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"targets_BT": torch.zeros(1, 4, dtype=torch.int64)}, r"targets must be int64 \(1, 5\)"),
        ({"targets_BT": torch.zeros(1, 5)}, r"got torch.float32"),
        ({"targets_BT": torch.full((1, 5), 50)}, "targets must be below 50, got 50"),
        ({"temperature": 0.0}, "the temperature must be above 0, got 0.0"),
        ({"kept": KeptSets(ids=torch.tensor([50]), offsets=torch.tensor([0, 1, 1, 1, 1, 1]))}, "kept ids .* got 50"),
        ({"kept": KeptSets(ids=torch.tensor([3]), offsets=torch.tensor([0, 1]))}, "1 kept sets for 5 places"),
    ],
)
def test_requests_that_do_not_fit_are_refused(policy, tokens, change, message):
    request = ScoreRequest(torch.zeros(1, 5, dtype=torch.int64))._replace(**change)
    with pytest.raises(ValueError, match=message):
        policy(tokens(1, 5), score=request)
