"""Experts: the reference is the policy's own arithmetic, and the kernels agree with it, gradients included."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor, library

from envsynth.kernels import experts as operator
from envsynth.kernels.dispatch import UnsupportedError
from envsynth.kernels.experts import compiled, configs, experts, forward, reference, sorting, sums
from envsynth.policy import experts as policy_experts
from envsynth.policy.presets import nano


@dataclass(frozen=True)
class Case:
    """Shapes of one call, and which experts its tokens choose."""

    tokens: int
    active: int
    n_experts: int
    width: int
    hidden: int
    choose: Callable[[Tensor], Tensor] = lambda chosen: chosen


CASES = {
    "odd": Case(37, 2, 3, 48, 48),
    "one-token": Case(1, 2, 4, 32, 16),
    "one-choice": Case(33, 1, 3, 16, 32),
    "one-expert": Case(21, 1, 1, 16, 16),
    "expert-without-tokens": Case(40, 2, 4, 16, 32, lambda chosen: torch.where(chosen == 2, 1, chosen)),
    "all-on-one": Case(37, 2, 4, 16, 16, lambda chosen: torch.full_like(chosen, 3)),
    "repeated": Case(30, 3, 2, 32, 16),
    "outside": Case(25, 2, 3, 16, 16, lambda chosen: chosen - 1),
    "many": Case(130, 2, 3, 32, 16),
}


def draw(case: Case, generator: torch.Generator, dtype: torch.dtype = torch.float32) -> tuple[Tensor, list[Tensor]]:
    """Chosen experts, and x, gates and the three stacks."""

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    E, D, F = case.n_experts, case.width, case.hidden
    chosen = torch.randint(E, (case.tokens, case.active), generator=generator, dtype=torch.int32)
    gates = torch.rand(case.tokens, case.active, generator=generator)
    weights = (normal(E, F, D) * D**-0.5, normal(E, F, D) * D**-0.5, normal(E, D, F) * F**-0.5)
    return case.choose(chosen), [normal(case.tokens, D).to(dtype), gates, *(item.to(dtype) for item in weights)]


def run_with_gradients(chosen: Tensor, inputs: list[Tensor], dy: Tensor, backend: str) -> list[Tensor]:
    """Result and gradients of x, gates and the three stacks."""
    x, gates, *weights = (item.detach().clone().requires_grad_() for item in inputs)
    y = experts(x, chosen, gates, *weights, backend=backend)
    y.backward(dy.to(y.dtype))
    return [y.detach(), *(item.grad for item in (x, gates, *weights))]


def relative(found: Tensor, wanted: Tensor) -> float:
    return ((found.double() - wanted.double()).norm() / wanted.double().norm().clamp(min=1e-30)).item()


@pytest.fixture(autouse=True)
def poisoned_memory(monkeypatch):
    """What is allocated without a value holds NaN, or a wrong number."""

    def poisoned(make: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def made(*args, **kwargs) -> Tensor:
            out = make(*args, **kwargs)
            return out.fill_(float("nan") if out.is_floating_point() else 1)

        return made

    monkeypatch.setattr(torch, "empty", poisoned(torch.empty))
    monkeypatch.setattr(torch, "empty_like", poisoned(torch.empty_like))
    monkeypatch.setattr(Tensor, "new_empty", poisoned(Tensor.new_empty))


def test_the_reference_has_the_bits_of_the_policy(generator):
    config = nano(64)
    routed = policy_experts.RoutedExperts(config)
    for stack in routed.parameters():
        torch.nn.init.normal_(stack, std=0.1, generator=generator)
    sizes = config.experts
    case = Case(70, sizes.num_experts_per_tok, sizes.n_routed_experts, config.hidden_size, sizes.moe_intermediate_size)
    chosen, (x, gates, *_) = draw(case, generator)
    weights = (routed.gate_proj, routed.up_proj, routed.down_proj)
    for dtype in (torch.float32, torch.bfloat16):
        routed.to(dtype)
        found = experts(x.to(dtype), chosen, gates, *weights, out_dtype=torch.float32)
        assert torch.equal(found, routed(x.to(dtype), chosen, gates))


def test_the_reference_says_the_formula(generator):
    chosen, inputs = draw(CASES["odd"], generator)
    x, gates, gate, up, down = (item.double() for item in inputs)
    found = experts(x, chosen, gates, gate, up, down)
    for n in range(len(x)):
        parts = [
            gates[n, a] * down[e] @ (torch.nn.functional.silu(gate[e] @ x[n]) * (up[e] @ x[n]))
            for a, e in enumerate(chosen[n].tolist())
        ]
        torch.testing.assert_close(found[n], sum(parts))


@pytest.mark.parametrize("name", ["one-choice", "expert-without-tokens", "repeated", "outside"])
def test_the_reference_passes_gradcheck(name, generator):
    case = CASES[name]
    chosen, inputs = draw(Case(5, case.active, case.n_experts, 4, 3, case.choose), generator)
    inputs = [item.double().requires_grad_() for item in inputs]
    assert torch.autograd.gradcheck(lambda x, gates, *weights: experts(x, chosen, gates, *weights), inputs)


@pytest.mark.parametrize("name", CASES)
def test_kernels_agree_with_the_reference(name, generator):
    chosen, inputs = draw(CASES[name], generator)
    dy = torch.randn(inputs[0].shape, generator=generator)
    found = run_with_gradients(chosen, inputs, dy, "triton")
    wanted = run_with_gradients(chosen, [item.double() for item in inputs], dy, "reference")
    assert [relative(*pair) < 2e-6 for pair in zip(found, wanted, strict=True)] == [True] * 6
    empty = [e for e in range(CASES[name].n_experts) if not (chosen == e).any()]
    assert all(not stack[empty].any() for stack in found[3:])


def test_kernels_agree_in_half_precision(generator):
    chosen, inputs = draw(CASES["odd"], generator, torch.float16)
    dy = torch.randn(inputs[0].shape, generator=generator)
    found = run_with_gradients(chosen, inputs, dy, "triton")
    wanted = run_with_gradients(chosen, [item.double() for item in inputs], dy, "reference")
    assert [relative(*pair) < 1e-3 for pair in zip(found, wanted, strict=True)] == [True] * 6
    assert [item.dtype for item in found] == [torch.float16, torch.float16, torch.float32] + [torch.float16] * 3


@pytest.mark.slow
@pytest.mark.parametrize(("rows", "persistent"), [(128, False), (64, False), (32, True)])
def test_kernels_agree_with_the_tiles_of_many_tokens(rows, persistent, generator, monkeypatch):
    case = Case(140, 2, 2, 80, 272)
    tiles = configs._large_tiles(256, 64) if rows == 128 else configs._small_tiles(rows, 128, 64)
    if persistent:
        monkeypatch.setattr(configs, "PROCESSORS", 5)
        names = ("up", "down", "hidden", "inputs")
        tiles = replace(tiles, **{name: replace(getattr(tiles, name), persistent=True) for name in names})
    monkeypatch.setattr(operator, "tiles_for", lambda *_: tiles)
    chosen, inputs = draw(case, generator, torch.float16)
    dy = torch.randn(inputs[0].shape, generator=generator)
    found = run_with_gradients(chosen, inputs, dy, "triton")
    wanted = run_with_gradients(chosen, [item.double() for item in inputs], dy, "reference")
    assert [relative(*pair) < 1e-3 for pair in zip(found, wanted, strict=True)] == [True] * 6


def test_sums_over_rows_may_be_split(generator, monkeypatch):
    monkeypatch.setattr(sums, "splits_for", lambda *_: 3)
    case = Case(60, 2, 5, 16, 32, lambda chosen: torch.where(chosen == 1, 0, chosen))
    chosen, inputs = draw(case, generator)
    dy = torch.randn(inputs[0].shape, generator=generator)
    found = run_with_gradients(chosen, inputs, dy, "triton")
    wanted = run_with_gradients(chosen, [item.double() for item in inputs], dy, "reference")
    assert [relative(*pair) < 2e-6 for pair in zip(found, wanted, strict=True)] == [True] * 6
    assert not any(stack[1].any() for stack in found[3:])


def test_reruns_give_the_same_bits(generator):
    chosen, inputs = draw(CASES["odd"], generator)
    dy = torch.randn(inputs[0].shape, generator=generator)
    first, second = (run_with_gradients(chosen, inputs, dy, "triton") for _ in range(2))
    assert all(torch.equal(*pair) for pair in zip(first, second, strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_permuted_tokens_give_permuted_bits(dtype, generator):
    chosen, inputs = draw(CASES["many"], generator, dtype)
    dy = torch.randn(inputs[0].shape, generator=generator)
    order = torch.randperm(len(chosen), generator=generator)
    found = run_with_gradients(chosen, inputs, dy, "triton")
    x, gates, *weights = inputs
    permuted = run_with_gradients(chosen[order], [x[order], gates[order], *weights], dy[order], "triton")
    assert all(torch.equal(*pair) for pair in zip((item[order] for item in found[:3]), permuted[:3], strict=True))


def test_a_token_without_experts_reaches_nothing(generator):
    chosen, inputs = draw(CASES["odd"], generator)
    # The first one, because rows behind an expert's last are computed from it.
    chosen[0] = -1
    dy = torch.randn(inputs[0].shape, generator=generator)
    for backend in ("triton", "reference"):
        clean = run_with_gradients(chosen, inputs, dy, backend)
        x, grad = inputs[0].clone(), dy.clone()
        x[0] = grad[0] = float("nan")
        found = run_with_gradients(chosen, [x, *inputs[1:]], grad, backend)
        assert not found[0][0].any()
        assert not found[1][0].any()
        assert not found[2][0].any()
        assert all(torch.equal(*pair) for pair in zip(clean, found, strict=True))


@pytest.mark.parametrize("way", ["reference", "triton"])
@pytest.mark.parametrize("name", ["odd", "repeated", "outside", "expert-without-tokens"])
def test_the_librarys_operator_computes_the_same(way, name, generator):
    chosen, inputs = draw(CASES[name], generator)
    dy = torch.randn(inputs[0].shape, generator=generator)
    x, gates, *weights = (item.clone().requires_grad_() for item in inputs)
    y = compiled.experts_operator(x, chosen, gates, *weights, torch.float32, way)[0]
    y.backward(dy)
    want = run_with_gradients(chosen, inputs, dy, way)
    for found, item in zip([y.detach(), *(item.grad for item in (x, gates, *weights))], want, strict=True):
        assert torch.equal(found, item) or (way == "reference" and relative(found, item) < 1e-6)


@pytest.mark.parametrize("way", ["reference", "triton"])
def test_the_librarys_operator_passes_its_checks(way, generator, monkeypatch):
    monkeypatch.undo()  # the checks compare memory that nobody reads
    for case in (CASES["one-choice"], Case(0, 2, 3, 16, 32)):
        chosen, (x, gates, *weights) = draw(case, generator)
        arguments = (x.requires_grad_(), chosen, gates.requires_grad_(), *(item.requires_grad_() for item in weights))
        library.opcheck(compiled.experts_operator, (*arguments, torch.float32, way))


def test_the_references_gradients_are_autograds_in_float64(generator):
    chosen, inputs = draw(CASES["outside"], generator, torch.float64)
    inputs[1] = inputs[1].double()
    dy = torch.randn(inputs[0].shape, generator=generator, dtype=torch.float64)
    want = run_with_gradients(chosen, inputs, dy, "reference")[1:]
    for found, item in zip(reference.gradients(dy, chosen, *inputs), want, strict=True):
        torch.testing.assert_close(found, item, rtol=0, atol=1e-12)


def test_no_tokens_give_nothing_and_zero_gradients(generator):
    for case in (Case(0, 2, 3, 16, 32), Case(4, 0, 3, 16, 32)):
        chosen, inputs = draw(case, generator)
        found = run_with_gradients(chosen, inputs, torch.ones(case.tokens, 16), "triton")
        wanted = run_with_gradients(chosen, inputs, torch.ones(case.tokens, 16), "reference")
        assert all(torch.equal(*pair) for pair in zip(found, wanted, strict=True))
        assert not any(item.any() for item in found)


def test_without_gradients_nothing_changes(generator, monkeypatch):
    kept, multiply_up = [], forward.multiply_up

    def spy(*args, keep: bool, **options) -> tuple[Tensor, ...]:
        kept.append(keep)
        return multiply_up(*args, keep=keep, **options)

    monkeypatch.setattr(forward, "multiply_up", spy)
    chosen, (x, gates, *weights) = draw(CASES["odd"], generator)
    plain = experts(x, chosen.long(), gates, *weights, backend="triton")
    frozen = experts(x.clone().requires_grad_(), chosen, gates, *weights, backend="triton")
    with torch.no_grad():
        unseen = experts(x.clone().requires_grad_(), chosen, gates, *weights, backend="triton")
    assert torch.equal(plain, frozen)
    assert torch.equal(plain, unseen)
    assert kept == [False, True, False]
    assert plain.grad_fn is None
    assert unseen.grad_fn is None
    every = run_with_gradients(chosen, [x, gates, *weights], torch.ones_like(x), "triton")
    for wanted in range(5):
        inputs = [item.clone().requires_grad_(index == wanted) for index, item in enumerate((x, gates, *weights))]
        experts(inputs[0], chosen, *inputs[1:], backend="triton").sum().backward()
        assert torch.equal(inputs[wanted].grad, every[wanted + 1])
        assert [item.grad is None for item in inputs].count(True) == 4


def test_both_products_are_all_that_is_kept_of_a_choice(generator):
    case = CASES["many"]
    chosen, inputs = draw(case, generator)
    x, gates, *weights = (item.requires_grad_() for item in inputs)
    y = experts(x, chosen, gates, *weights, backend="triton")
    kept = [item for item in y.grad_fn.saved_tensors if item.is_floating_point()]
    beside = sum(item.numel() for item in kept) - sum(item.numel() for item in inputs)
    assert beside == 2 * chosen.numel() * case.hidden


def test_the_result_is_rounded_once(generator):
    chosen, (x, gates, *weights) = draw(CASES["odd"], generator, torch.float16)
    for backend in ("triton", "reference"):
        wide = experts(x, chosen, gates, *weights, out_dtype=torch.float32, backend=backend)
        assert wide.dtype == torch.float32
        assert not torch.equal(wide, wide.half().float())
        assert torch.equal(experts(x, chosen, gates, *weights, backend=backend), wide.half())


def test_gradients_of_gradients_are_refused(generator):
    chosen, (x, gates, *weights) = draw(CASES["one-choice"], generator)
    x.requires_grad_()
    y = experts(x, chosen, gates, *weights, backend="triton")
    (to_x,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        to_x.sum().backward()


@pytest.mark.slow
def test_any_strides_will_do(generator):
    chosen, inputs = draw(CASES["odd"], generator)
    dy = torch.randn(inputs[0].shape, generator=generator)
    turned = [item.mT.contiguous().mT for item in inputs]
    found = run_with_gradients(chosen.mT.contiguous().mT, turned, dy.mT.contiguous().mT, "triton")
    wanted = run_with_gradients(chosen, inputs, dy, "triton")
    assert all(torch.equal(*pair) for pair in zip(found, wanted, strict=True))


@pytest.mark.parametrize(("choices", "n_experts", "rows"), [(1, 1, 16), (700, 40, 32), (513, 3, 128), (2048, 2, 16)])
def test_sorting_is_stable_and_its_tiles_cover_every_row(choices, n_experts, rows, generator):
    chosen = torch.randint(-1, n_experts + 1, (choices, 1), generator=generator)
    found = sorting.sort_choices(chosen, n_experts, rows)
    inside = (chosen >= 0) & (chosen < n_experts)
    key = torch.where(inside, chosen, n_experts).flatten()
    order, count = torch.argsort(key, stable=True), int(inside.sum())
    assert torch.equal(found.order_X[:count].long(), order[:count])
    assert torch.equal(found.place_X[order[:count]].long(), torch.arange(count))
    assert (found.place_X[~inside.flatten()] == -1).all()
    counts = torch.bincount(key, minlength=n_experts + 1)[:n_experts].tolist()
    tiles, start = [], 0
    for expert, size in enumerate(counts):
        assert found.starts[expert] == start
        tiles += [(expert, start + first, start + size) for first in range(0, size, rows)]
        start += size
    assert found.starts[n_experts] == count
    table = zip(*(part.tolist() for part in (found.tile_expert_T, found.tile_row_T, found.tile_end_T)), strict=True)
    assert [entry for entry in table if entry[0] >= 0] == tiles
    assert found.tile_expert_T[len(tiles) :].eq(-1).all()


def test_no_result_is_fetched_to_the_host(generator, monkeypatch):
    chosen, inputs = draw(CASES["odd"], generator)

    def refuse(*_) -> None:
        raise AssertionError("waits for the device")

    for name in ("item", "tolist", "__bool__", "nonzero"):
        monkeypatch.setattr(Tensor, name, refuse)
    run_with_gradients(chosen, inputs, torch.ones_like(inputs[0]), "triton")
    with pytest.raises(AssertionError, match="waits for the device"):
        run_with_gradients(chosen, inputs, torch.ones_like(inputs[0]), "reference")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("widths", [(16, 16), (128, 80), (256, 160), (384, 128), (768, 256), (512, 512)])
def test_tiles_fit_their_widths(dtype, widths):
    for average in (1, 50, 200, 5000):
        tiles = configs.tiles_for(dtype, average * 8, 8, *widths)
        assert tiles.rows <= max(average, 16)
        for tile, width in zip((tiles.up, tiles.down, tiles.hidden, tiles.inputs), widths[::-1] * 2, strict=True):
            assert tile.columns & (tile.columns - 1) == 0
            assert tile.columns >= 16
            assert -(-width // tile.columns) * tile.columns <= max(1.25 * width, 32)


def test_sums_are_split_only_where_programs_are_few():
    assert configs.splits_for(512, 262144, 32) == 1
    assert configs.splits_for(48, 131072, 16) == 6
    assert configs.splits_for(1, 2**20, 1) == configs.MOST_SPLITS
    assert configs.splits_for(4, 1000, 4) == 1, "too few rows"


def test_wrong_shapes_and_types_are_named(generator):
    chosen, (x, gates, gate, up, down) = draw(CASES["odd"], generator)
    for wrong, match in (
        ((x[1:], chosen, gates, gate, up, down), r"got \[\[36, 48\], \[37, 2\], \[37, 2\]\]"),
        ((x, chosen, gates[:, :1], gate, up, down), r"\[37, 1\]"),
        ((x, chosen, gates, gate, up[1:], down), r"up must be \[3, 48, 48\] beside this x, got \[2, 48, 48\]"),
        ((x, chosen, gates, gate, up, down[:, 1:]), r"down must be \[3, 48, 48\]"),
        ((x, chosen, gates, gate.half(), up, down), r"gate is torch.float16 and x is torch.float32"),
        ((x, chosen.float(), gates, gate, up, down), r"chosen is torch.float32; give int32 or int64"),
        ((x, chosen, gates, gate[:0], up[:0], down[:0]), r"no experts"),
    ):
        with pytest.raises(ValueError, match=match):
            experts(*wrong)


def test_what_kernels_cannot_take_is_refused(generator):
    for case, match in (
        (Case(2, 1, 2, 24, 16), "multiples of 16, D is 24; use backend='reference'"),
        (Case(2, 1, 2, 16, 8), "F is 8"),
    ):
        chosen, (x, gates, *weights) = draw(case, generator)
        with pytest.raises(UnsupportedError, match=match):
            experts(x, chosen, gates, *weights, backend="triton")
        assert experts(x, chosen, gates, *weights).shape == x.shape
    chosen, inputs = draw(CASES["odd"], generator)
    x, gates, *weights = (item.double() for item in inputs)
    with pytest.raises(UnsupportedError, match=r"got torch.float64; use backend='reference'"):
        experts(x, chosen, gates, *weights, backend="triton")
    many = torch.zeros(1, 1, dtype=torch.int32).expand(2**15, 2**15)
    with pytest.raises(UnsupportedError, match=r"1073741824 choices"):
        operator._check_kernels(torch.zeros(2**15, 16), many, torch.zeros(1, 1), torch.zeros(1, 16, 16))
    assert reference.run(x, chosen, gates, *weights).dtype == torch.float64
