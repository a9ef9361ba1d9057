"""The optimizer: what Muon does to a matrix, that it agrees with the library's, and that it continues bit by bit."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from envsynth.errors import CheckpointError, SpecError
from envsynth.policy.config import AttentionConfig, ExpertsConfig, IndexerConfig, PolicyConfig
from envsynth.policy.model import Policy
from envsynth.policy.optimizer import OptimizerConfig, PolicyOptimizer, is_layer_matrix, orthogonalise

TINY = PolicyConfig(
    vocab_size=12,
    hidden_size=16,
    num_hidden_layers=2,
    intermediate_size=24,
    first_k_dense_replace=0,
    max_position_embeddings=32,
    attention=AttentionConfig(
        num_attention_heads=2, q_lora_rank=12, kv_lora_rank=8, qk_nope_head_dim=8, qk_rope_head_dim=4, v_head_dim=8
    ),
    indexer=IndexerConfig(index_n_heads=2, index_head_dim=8, index_topk=6),
    experts=ExpertsConfig(n_routed_experts=4, num_experts_per_tok=2, n_shared_experts=1, moe_intermediate_size=12),
)


class Layered(nn.Module):
    """Named as a policy's matrices are, so that the optimizer gives it to Muon."""

    def __init__(self, *shapes):
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        self.layers = nn.ParameterList(nn.Parameter(torch.randn(shape, generator=generator)) for shape in shapes)
        self.norm = nn.Parameter(torch.zeros(2))


def backward(policy: Policy, seed: int) -> None:
    tokens = torch.randint(0, 12, (3, 20), generator=torch.Generator().manual_seed(seed))
    output = policy(tokens, with_indexer_kl=True)
    nats = nn.functional.cross_entropy(output.logits_BTV[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())
    (nats + output.indexer_kl.mean()).backward()


@pytest.mark.parametrize("shape", [(40, 16), (16, 40), (24, 24), (3, 20, 12)])
def test_orthogonalise_brings_singular_values_near_one(shape):
    found = orthogonalise(torch.randn(shape, generator=torch.Generator().manual_seed(0)))
    values = torch.linalg.svdvals(found)
    assert found.shape == torch.Size(shape)
    assert values.min() > 0.3
    assert values.max() < 1.3


def test_orthogonalise_treats_a_stack_as_its_matrices():
    stack = torch.randn(4, 20, 12, generator=torch.Generator().manual_seed(1))
    alone = torch.stack([orthogonalise(matrix) for matrix in stack])
    torch.testing.assert_close(orthogonalise(stack), alone, rtol=1e-5, atol=1e-6)


def test_orthogonalise_leaves_zero_at_zero():
    assert orthogonalise(torch.zeros(5, 7)).abs().max() == 0


@pytest.mark.parametrize("shape", [(48, 16), (16, 48), (32, 32)])
def test_step_agrees_with_the_librarys_muon(shape):
    ours, theirs = Layered(shape), Layered(shape)
    config = OptimizerConfig(muon_lr=0.02, muon_weight_decay=0.1, max_grad_norm=math.inf)
    mine = PolicyOptimizer(ours, config)
    library = torch.optim.Muon(theirs.layers.parameters(), lr=0.02, weight_decay=0.1, momentum=0.95)
    start = ours.layers[0].detach().clone()
    for step in range(4):
        gradient = torch.randn(shape, generator=torch.Generator().manual_seed(step))
        ours.layers[0].grad, theirs.layers[0].grad = gradient.clone(), gradient.clone()
        mine.step()
        library.step()
    moved, wanted = ours.layers[0] - start, theirs.layers[0] - start
    # The library iterates in bfloat16, so about two digits agree.
    assert (moved - wanted).norm() / wanted.norm() < 0.03


def test_step_moves_tall_matrices_by_the_root_of_their_ratio():
    pair = Layered((32, 8), (8, 32))
    optimizer = PolicyOptimizer(pair, OptimizerConfig(muon_weight_decay=0.0, max_grad_norm=math.inf))
    gradient = torch.randn(32, 8, generator=torch.Generator().manual_seed(5))
    before = [item.detach().clone() for item in pair.layers]
    pair.layers[0].grad, pair.layers[1].grad = gradient.clone(), gradient.mT.clone()
    optimizer.step()
    tall, wide = (after.detach() - start for after, start in zip(pair.layers, before, strict=True))
    torch.testing.assert_close(tall, 2 * wide.mT, rtol=1e-4, atol=1e-6)


def test_step_scales_the_learning_rates_of_both_halves():
    moved = []
    for scale in (1.0, 0.5):
        policy = Policy(TINY, seed=1)
        config = OptimizerConfig(muon_weight_decay=0.0, adamw_weight_decay=0.0)
        optimizer = PolicyOptimizer(policy, config)
        for parameter in policy.parameters():
            parameter.grad = torch.ones_like(parameter)
        before = {name: item.detach().clone() for name, item in policy.named_parameters()}
        optimizer.step(scale)
        moved.append({name: item.detach() - before[name] for name, item in policy.named_parameters()})
    for name, whole in moved[0].items():
        torch.testing.assert_close(moved[1][name] * 2, whole, rtol=1e-3, atol=1e-6, msg=name)


def test_matrices_inside_the_layers_are_muons_and_nothing_else():
    policy = Policy(TINY)
    chosen = set(PolicyOptimizer(policy).matrix_names)
    assert "layers.0.mlp.experts.gate_proj" in chosen
    assert "layers.1.self_attn.o_proj.weight" in chosen
    assert chosen == {name for name, item in policy.named_parameters() if is_layer_matrix(name, item)}
    others = {name for name, _ in policy.named_parameters()} - chosen
    assert {"embed_tokens.weight", "lm_head.weight", "layers.0.mlp.gate.weight", "norm.weight"} <= others
    assert all(("indexer" in name) <= (name in others) for name, _ in policy.named_parameters())


def test_step_clips_the_norm_over_all_parameters_and_reports_it_unclipped():
    policy = Policy(TINY, seed=1)
    optimizer = PolicyOptimizer(policy, OptimizerConfig(adamw_lr=0.0, muon_lr=0.0, max_grad_norm=0.5))
    for parameter in policy.parameters():
        parameter.grad = torch.ones_like(parameter)
    count = sum(item.numel() for item in policy.parameters())
    assert optimizer.step() == pytest.approx(count**0.5, rel=1e-4)
    first = optimizer.state_dict()["adamw.exp_avg.norm.weight"]
    assert first.norm() == pytest.approx(0.1 * 0.5 * (first.numel() / count) ** 0.5, rel=1e-3)
    assert all(parameter.grad is None for parameter in policy.parameters())


def test_step_refuses_a_gradient_that_is_not_finite_and_changes_nothing():
    policy = Policy(TINY, seed=1)
    optimizer = PolicyOptimizer(policy)
    before = {name: item.detach().clone() for name, item in policy.named_parameters()}
    backward(policy, 0)
    policy.norm.weight.grad[0] = math.nan
    with pytest.raises(FloatingPointError, match="nan"):
        optimizer.step()
    assert all(torch.equal(before[name], item) for name, item in policy.named_parameters())


def test_load_state_dict_continues_bit_by_bit():
    policy, copied = Policy(TINY, seed=2), Policy(TINY, seed=2)
    straight = PolicyOptimizer(policy)
    for seed in range(3):
        backward(policy, seed)
        straight.step(0.7)
    copied.load_state_dict(policy.state_dict())
    resumed = PolicyOptimizer(copied)
    resumed.load_state_dict(straight.state_dict())
    for seed in range(3, 6):
        for model, optimizer in ((policy, straight), (copied, resumed)):
            backward(model, seed)
            optimizer.step(0.7)
    for (name, one), (_, other) in zip(policy.named_parameters(), copied.named_parameters(), strict=True):
        assert torch.equal(one, other), name
    one, other = straight.state_dict(), resumed.state_dict()
    assert one.keys() == other.keys()
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_load_state_dict_refuses_what_does_not_fit():
    policy = Policy(TINY, seed=2)
    optimizer = PolicyOptimizer(policy)
    backward(policy, 0)
    optimizer.step()
    state = optimizer.state_dict()
    bad = {
        "no parameter": state | {"muon.layers.9.weight": torch.zeros(2, 2)},
        "use another": {key: item for key, item in state.items() if key != "adamw.exp_avg.norm.weight"},
        "its parameter": state | {"muon.layers.0.self_attn.o_proj.weight": torch.zeros(2, 2)},
    }
    for message, broken in bad.items():
        with pytest.raises(CheckpointError, match=message):
            PolicyOptimizer(Policy(TINY)).load_state_dict(broken)


@pytest.mark.parametrize("field", ["muon_lr", "adamw_weight_decay", "max_grad_norm"])
def test_config_refuses_values_out_of_range(field):
    with pytest.raises(SpecError, match=field):
        OptimizerConfig(**{field: -1.0})
