"""Half precision keeps in float32 what must be; compiled policies are the same function without breaks."""

from __future__ import annotations

import pytest
import torch
from torch._dynamo.backends.debugging import aot_eager

from envsynth.policy.model import FLOAT32_NAMES, Policy
from envsynth.policy.precision import RMSNorm, float32_linear
from envsynth.policy.presets import PRESETS, nano, small
from envsynth.policy.scores import next_token_request


@pytest.mark.parametrize("convert", [lambda p: p.to(torch.bfloat16), Policy.bfloat16, lambda p: p.to("cpu").bfloat16()])
def test_half_precision_leaves_the_named_weights_alone(policy, convert):
    before = {name: item.clone() for name, item in policy.state_dict().items()}
    frequencies = policy.frequencies.clone()
    half = convert(policy)
    for name, item in half.state_dict().items():
        kept = name.endswith(FLOAT32_NAMES)
        assert item.dtype == (torch.float32 if kept else torch.bfloat16), name
        assert not kept or torch.equal(item, before[name]), name
    assert torch.equal(half.frequencies, frequencies)


def test_double_precision_converts_everything(policy):
    assert {item.dtype for item in policy.double().state_dict().values()} == {torch.float64}


@pytest.mark.parametrize("mode", ["mha", "fused", "mqa", "kernels"])
def test_half_precision_is_near_and_its_logits_are_float32(lively, tokens, mode):
    batch = tokens(2, 30)
    exact = lively()(batch)
    half = lively().bfloat16()
    half.attention_mode = mode
    # The same keys and experts: what is left is rounding.
    replay = {"indexer_topk_BTLK": exact.indexer_topk, "routed_experts_BTMA": exact.routed_experts}
    output = half(batch, **replay, with_indexer_kl=True)
    assert output.logits_BTV.dtype == output.indexer_kl.dtype == torch.float32
    error = (output.logits_BTV - exact.logits_BTV).norm() / exact.logits_BTV.norm()
    assert 1e-4 < error < 3e-2
    mixed = lively()
    mixed.attention_mode = mode
    with torch.autocast("cpu", torch.bfloat16):
        output = mixed(batch, **replay, with_indexer_kl=True)
    (output.logits_BTV.square().mean() + output.indexer_kl.mean()).backward()
    assert output.logits_BTV.dtype == output.indexer_kl.dtype == torch.float32
    assert (output.logits_BTV - exact.logits_BTV).norm() / exact.logits_BTV.norm() < 3e-2
    assert all(item.grad.isfinite().all() for item in mixed.parameters() if item.grad is not None)


def test_mixed_precision_never_rounds_head_and_router():
    x, weight = torch.randn(3, 8), torch.randn(5, 8)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(float32_linear(x, weight), torch.nn.functional.linear(x, weight).float()) is False
        found = float32_linear(x, weight)
    assert torch.equal(found, x @ weight.t())


def test_norm_works_in_float32_and_answers_in_its_inputs_type():
    norm = RMSNorm(8, eps=1e-6)
    x = torch.randn(4, 8)
    assert torch.equal(norm(x), torch.nn.functional.rms_norm(x, (8,), norm.weight, 1e-6))
    half = norm(x.bfloat16())
    assert half.dtype == torch.bfloat16
    assert torch.equal(half, torch.nn.functional.rms_norm(x.bfloat16().float(), (8,), norm.weight, 1e-6).bfloat16())


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    "options",
    [
        {"with_indexer_kl": True},
        pytest.param({}, marks=SLOW),
        pytest.param({"dense": True, "with_indexer_kl": True}, marks=SLOW),
    ],
)
def test_a_compiled_policy_has_no_graph_break_and_equal_gradients(lively, tokens, options):
    torch.compiler.reset()
    policy, batch = lively(num_hidden_layers=2, num_nextn_predict_layers=1), tokens(2, 30)
    whole = torch.compile(policy, fullgraph=True, backend="aot_eager")
    gradients = []
    for run in (whole, policy):
        policy.zero_grad()
        output = run(batch, with_predictions=True, **options)
        loss = output.logits_BTV.square().mean() + output.predictions.logits_BTPV.square().mean()
        (loss + (output.indexer_kl.mean() if options else 0)).backward()
        gradients.append({name: item.grad.clone() for name, item in policy.named_parameters() if item.grad is not None})
        gradients[-1]["logits"] = output.logits_BTV.detach()
    assert gradients[0].keys() == gradients[1].keys()
    for name, item in gradients[0].items():
        torch.testing.assert_close(item, gradients[1][name], rtol=1e-4, atol=1e-5, msg=name)


def test_a_compiled_policy_runs_the_operators_of_experts_and_scores(lively, tokens):
    """Without a graph break: the experts are one operator of the library, whose reference runs on a CPU."""
    torch.compiler.reset()
    policy, batch = lively(num_hidden_layers=2), tokens(2, 30)
    policy.kernels, seen = True, []

    def remember(graph, inputs):
        seen.extend(str(node.target) for node in graph.graph.nodes)
        return aot_eager(graph, inputs)

    asked = next_token_request(batch, torch.ones_like(batch, dtype=torch.bool))
    gradients = []
    for run in (torch.compile(policy, fullgraph=True, backend=remember), policy):
        policy.zero_grad()
        scores = run(batch, score=asked).scores
        scores.log_probs_BT.square().sum().backward()
        gradients.append({name: item.grad.clone() for name, item in policy.named_parameters() if item.grad is not None})
        gradients[-1] |= {"log_probs": scores.log_probs_BT.detach(), "entropy": scores.measures.entropy_BT}
    assert any("envsynth.experts" in name for name in seen)
    assert gradients[0].keys() == gradients[1].keys()
    for name, item in gradients[0].items():
        torch.testing.assert_close(item, gradients[1][name], rtol=1e-4, atol=1e-5, msg=name)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # the library's own
def test_a_compiled_policy_runs_as_machine_code(lively, tokens):
    torch.compiler.reset()
    policy, batch = lively(nano(50)), tokens(2, 60)
    compiled = torch.compile(policy, fullgraph=True)
    want = policy(batch)
    with torch.no_grad():
        found = compiled(batch, mask_BT=torch.ones(2, 60, dtype=torch.bool))
    same = (found.indexer_topk == want.indexer_topk).all(-1).all(-1)
    assert same.float().mean() > 0.95
    assert (found.logits_BTV - want.logits_BTV).abs()[0, :30].max() < 1e-3


SIZES = {"nano": (250, 1.0e6), "small": (512, 10.2e6), "base": (1024, 30.4e6), "large": (8192, 300e6)}


@pytest.mark.parametrize("name", PRESETS)
def test_presets_weigh_what_they_say(name):
    vocab, want = SIZES.get(name, (129_280, 671.9e9))
    with torch.device("meta"):
        policy = Policy(PRESETS[name](vocab))
    assert sum(item.numel() for item in policy.parameters()) == pytest.approx(want, rel=0.03)


def test_a_policy_on_the_meta_device_has_no_weights_but_every_shape():
    with torch.device("meta"):
        policy = Policy(small(512))
    real = Policy(small(512)).state_dict()
    assert {name: item.shape for name, item in policy.state_dict().items()} == {n: i.shape for n, i in real.items()}
    assert all(item.is_meta for item in policy.parameters())
