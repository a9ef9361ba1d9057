"""Everything that is timed, compared with references first: once for each preset, at the shortest length.

References compute in float32 from the same rounded inputs. A red check ends the experiment: nothing is reported.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Final

import torch
from torch import Tensor

from envsynth.errors import ExperimentError
from envsynth.kernels.dispatch import UnsupportedError
from envsynth.kernels.indexer import ScaledKeys, index_select, reference
from envsynth.kernels.sparse_attention import reference as attention_reference
from envsynth.kernels.topk import reference as topk_reference
from envsynth.train.overhead import dense, parts
from envsynth.train.overhead.inputs import Indexed, Inputs

EXACT: Final = 1e-4
"""Largest relative error (by norms) of what is summed in float32 from equal products: scores, log-sum-exp."""
EIGHT_BITS: Final = 1e-3
"""The same for scores of eight bits, whose sums a GPU rounds more."""
SELECTED: Final = 1e-3
"""Largest relative distance between sorted scores of the selected keys and those of the best keys: ties may differ."""
ROUNDED: Final = {"float32": 1e-4, "bfloat16": 1e-2}
"""Largest relative error (by norms) of results and gradients, by the type of inputs."""


@dataclass(frozen=True, kw_only=True)
class Check:
    """One comparison."""

    name: str
    """What was compared."""
    error: float
    """Relative error; infinite on NaN."""
    limit: float
    """Largest error that passes."""

    @property
    def passes(self) -> bool:
        """Whether the error is within the limit."""
        return self.error <= self.limit

    def to_dict(self) -> dict[str, Any]:
        """Give plain values."""
        return asdict(self)


def check_all(given: Inputs, topks: tuple[int, ...]) -> list[Check]:
    """Compare everything that will be timed.

    Args:
        given: Inputs of the shortest length.
        topks: Keys kept per query.

    Returns:
        The comparisons, all of them within their limits.

    Raises:
        ExperimentError: one is not; it names every such.
    """
    found = list(_dense_checks(given))
    for k in topks:
        for several in (_selection_checks, _core_checks, _loss_checks, _layer_checks, _decode_checks):
            try:
                found += several(given, k)
            except UnsupportedError:
                # An operator that cannot run has nothing to compare; timing it is refused too, and recorded by its name.
                continue
    red = [f"{item.name}: error {item.error:.1e}, limit {item.limit:.0e}" for item in found if not item.passes]
    if red:
        raise ExperimentError(
            f"{given.preset} at {given.length} tokens differs from references, so nothing is timed: {'; '.join(red)}"
        )
    return found


def relative_error(found: Tensor, truth: Tensor) -> float:
    """Give the relative error by norms.

    Args:
        found: Numbers.
        truth: What they should be, of the same shape.

    Returns:
        The error; infinite where one is not finite and the other is, or they are different infinities.
    """
    found, truth = found.detach().double(), truth.detach().double()
    finite = torch.isfinite(truth)
    if not torch.equal(torch.isfinite(found), finite) or not torch.equal(found[~finite], truth[~finite]):
        return float("inf")
    return float((found - truth)[finite].norm() / truth[finite].norm().clamp(min=1e-30))


def _selection_checks(given: Inputs, k: int) -> Iterator[Check]:
    for name, index, limit in (("selection", given.index, EXACT), ("selection_fp8", given.index_eight, EIGHT_BITS)):
        topk, scores = index_select(*index, k)
        truth_BTS = reference.index_scores(*_plain(index))
        yield from _compare_selection(f"{name}, k {k}", (topk[0], scores[0]), truth_BTS[0], limit, causal=True)


def _compare_selection(
    name: str, found: tuple[Tensor, Tensor], truth_RS: Tensor, limit: float, *, causal: bool
) -> Iterator[Check]:
    """Compare selected keys and their scores; rows see 1, 2, ... keys where they are causal, else all of them."""
    topk_RK, scores_RK = found
    rows, size = truth_RS.shape
    ends_R = torch.full((rows,), size, device=truth_RS.device, dtype=torch.int32)
    if causal:
        ends_R = torch.arange(1, rows + 1, device=truth_RS.device, dtype=torch.int32)
    best_RK = topk_reference.topk(truth_RS, ends_R, topk_RK.shape[1], torch.zeros_like(ends_R))
    mine_RK, theirs_RK = (
        truth_RS.gather(1, keys.clamp(min=0).long()).masked_fill(keys < 0, 0.0) for keys in (topk_RK, best_RK)
    )
    late = float((topk_RK >= ends_R[:, None]).sum()) + float(((topk_RK < 0) != (best_RK < 0)).sum())
    twice = float(((topk_RK.diff(dim=1) <= 0) & (topk_RK[:, 1:] >= 0)).sum())
    yield Check(name=f"{name}: scores", error=relative_error(scores_RK, mine_RK), limit=limit)
    sorted_error = relative_error(mine_RK.sort(-1).values, theirs_RK.sort(-1).values)
    yield Check(name=f"{name}: best keys", error=sorted_error, limit=SELECTED)
    yield Check(name=f"{name}: keys that are invisible, missing or twice", error=late + twice, limit=0.0)


def _plain(index: Indexed) -> tuple[Tensor, ...]:
    """Give queries, keys, weights and, of eight-bit keys, scales, as the reference takes them."""
    query, key, weight = index
    if isinstance(key, ScaledKeys):
        return query.float(), key.values.float(), weight, key.scales
    return query.float(), key.float(), weight


def _core_checks(given: Inputs, k: int) -> Iterator[Check]:
    topk, limit = given.selection(k)[0], ROUNDED[given.config.precision]
    query, latent = given.core
    wide = [x.float().requires_grad_() for x in given.core]
    numbers: dict[str, Any] = {"rank": given.sizes.rank, "scale": given.sizes.scale}
    truth, lse, sums = attention_reference.attend(wide[0], wide[1], topk, **numbers)
    gradients = torch.autograd.grad(truth, wide, given.gradient.float())
    with torch.no_grad():
        found = parts.attend(given, k, query, latent, with_sum=True)
        alone = parts.attend(given, k, query, latent, with_sum=False)
    assert found.sum_BTK is not None
    yield Check(name=f"core, k {k}: result", error=relative_error(found.out_BTHR, truth), limit=limit)
    yield Check(name=f"core, k {k}: result alone", error=relative_error(alone.out_BTHR, truth), limit=limit)
    yield Check(name=f"core, k {k}: log-sum-exp", error=relative_error(found.lse_BTH, lse), limit=EXACT)
    yield Check(name=f"core, k {k}: sum over heads", error=relative_error(found.sum_BTK, sums), limit=limit)
    for name, deterministic in (("core", True), ("core, atomic", False)):
        _, *mine = parts.core_gradients(given, k, deterministic)()
        for what, got, want in zip(("query", "latent"), mine, gradients, strict=True):
            yield Check(name=f"{name}, k {k}: gradient of {what}", error=relative_error(got, want), limit=limit)


def _true_loss(given: Inputs, k: int) -> tuple[Tensor, ...]:
    """Give the indexer's loss and its gradients, by references."""
    topk = given.selection(k)[0]
    needing = [x.float().requires_grad_() for x in _plain(given.index)]
    with torch.no_grad():
        target = parts.attend(given, k, *given.core, with_sum=True).sum_BTK
    assert target is not None
    scores = reference.gathered_scores(needing[0], needing[1], needing[2], topk)
    loss = reference.selected_kl(scores, target, topk).mean()
    return loss, *torch.autograd.grad(loss, needing)


_LOSS_NAMES: Final = ("value", "gradient of queries", "gradient of keys", "gradient of weights")


def _loss_checks(given: Inputs, k: int) -> Iterator[Check]:
    truth, limit = _true_loss(given, k), ROUNDED[given.config.precision]
    for name, known in (("index loss", False), ("index loss, known scores", True)):
        for what, got, want in zip(_LOSS_NAMES, parts.loss_gradients(given, k, known)(), truth, strict=True):
            yield Check(name=f"{name}, k {k}: {what}", error=relative_error(got, want), limit=limit)


def _layer_checks(given: Inputs, k: int) -> Iterator[Check]:
    """Compare the whole layer with its parts, which were compared with references."""
    limit = ROUNDED[given.config.precision]
    _, *core = parts.core_gradients(given, k, True)()
    _, *index = parts.loss_gradients(given, k, True)()
    names = ("queries", "latents", "index queries", "index keys", "index weights")
    for what, got, want in zip(names, parts.layer_training(given, k)(), (*core, *index), strict=True):
        yield Check(name=f"layer, k {k}: gradient of {what}", error=relative_error(got, want), limit=limit)
    with torch.no_grad():
        want = parts.attend(given, k, *given.core, with_sum=False).out_BTHR
    got = parts.PARTS["layer_forward"](given, k)().out_BTHR
    yield Check(name=f"layer, k {k}: result", error=relative_error(got, want), limit=limit)


def _decode_checks(given: Inputs, k: int) -> Iterator[Check]:
    step, limit = given.decoding, ROUNDED[given.config.precision]
    topk_NK, scores_NK = parts.decode_selection(given, k)()
    wide = (step.query_NIJ[:, None].float(), step.key_NSJ.float(), step.weight_NI[:, None])
    truth_NS = reference.index_scores(*wide)[:, 0]
    yield from _compare_selection(f"decode, k {k}", (topk_NK, scores_NK), truth_NS, EXACT, causal=False)
    want = attention_reference.attend_cached(
        step.query_NHC.float(), step.latent_NSC.float(), step.rows_N, topk_NK, rank=given.sizes.rank,
        scale=given.sizes.scale,
    )  # fmt: skip
    for name in ("decode_core", "decode_layer"):
        got = parts.PARTS[name](given, k)()
        yield Check(name=f"{name}, k {k}: result", error=relative_error(got, want), limit=limit)


def _dense_checks(given: Inputs) -> Iterator[Check]:
    """Compare what each backend of dense attention gives for the last queries; one that refuses has no result."""
    kinds: tuple[dense.Kind, ...] = ("mha", "mqa", "decode")
    for kind in kinds:
        item = dense.operands(given, kind)
        rows = min(dense.CHECKED_ROWS, item.query.shape[2])
        truth = dense.truth(item, rows)
        for backend in dense.backends_of(given):
            got = dense.last_rows(item, backend, rows)
            if got is not None:
                name = f"dense {kind} by {backend}: last {rows} queries"
                yield Check(name=name, error=relative_error(got, truth), limit=ROUNDED[given.config.precision])
