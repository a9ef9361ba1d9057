"""The indexer's loss in the dense warm-up on a GPU: checked against float64, then timed beside plain torch.

Run it as `python -m benchmarks.kernels.dense_kl --out FILE.json`; `--quick` checks alone. It needs a GPU.
"""

# ruff: noqa: N803, N806 - shape letters

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import torch
from torch import Tensor

from benchmarks.kernels.indexer import error
from benchmarks.kernels.topk import median_ms, poisoned, show
from envsynth.kernels.dense_kl import Student, Teacher, configs, dense_kl
from envsynth.policy.indexer import index_scores, indexer_kl


class Sizes(NamedTuple):
    """What a layer has."""

    heads: int
    """Heads of the teacher."""
    width: int
    """Width of its keys: latent and rotary part."""
    index_heads: int
    """Heads of the indexer."""
    index_width: int
    """Width of its keys."""


SMALL, BASE, LARGE = Sizes(8, 80, 4, 32), Sizes(8, 160, 4, 64), Sizes(12, 224, 8, 64)
"""The presets of these names."""
KINDS = (
    (torch.bfloat16, SMALL),
    (torch.bfloat16, BASE),
    (torch.bfloat16, LARGE),
    (torch.bfloat16, Sizes(1, 40, 1, 20)),
    (torch.bfloat16, Sizes(32, 160, 3, 48)),
    (torch.bfloat16, Sizes(16, 576, 64, 128)),
    (torch.float16, BASE),
    (torch.float32, Sizes(4, 80, 2, 32)),
    (torch.float32, BASE),
)
TIMED = ((4, 4096, BASE), (2, 8192, BASE), (4, 4096, LARGE), (2, 8192, LARGE), (1, 16384, LARGE))


def inputs(kind: torch.dtype, B: int, T: int, S: int, sizes: Sizes) -> tuple[Teacher, Student]:
    """Make a teacher whose attention is peaked, and a student with weights of either sign."""

    def noise(*shape: int) -> Tensor:
        return torch.randn(shape, device="cuda").to(kind)

    teacher = Teacher(noise(B, T, sizes.heads, sizes.width), noise(B, S, sizes.width), 2 * sizes.width**-0.5)
    weight = torch.randn(B, T, sizes.index_heads, device="cuda") * (sizes.index_heads * sizes.index_width) ** -0.5
    student = Student(noise(B, T, sizes.index_heads, sizes.index_width), noise(B, S, sizes.index_width), weight)
    return teacher, student


def run(teacher: Teacher, student: Student, grad: Tensor, **options: Any) -> list[Tensor]:
    """Give the loss, and the gradients of queries, keys and weights."""
    leaves = [item.detach().requires_grad_() for item in student]
    loss = dense_kl(teacher, Student(*leaves), **options)
    return [loss.detach(), *torch.autograd.grad(loss, leaves, grad.to(loss.dtype))]


def in_float64(teacher: Teacher, student: Student) -> tuple[Teacher, Student]:
    """Give the same numbers in float64."""
    wide = Teacher(teacher.query_BTHC.double(), teacher.key_BSC.double(), teacher.scale)
    return wide, Student(*(item.double() for item in student))


def check_kind(kind: torch.dtype, sizes: Sizes) -> Iterator[tuple[str, bool]]:
    """Compare one type and size with float64, and with itself; give names, and whether each is right."""
    B, T, S = 3, 333, 401
    teacher, student = inputs(kind, B, T, S, sizes)
    grad = torch.randn(B, T, device="cuda") / (B * T)
    first = torch.tensor([68, 0, 31], device="cuda")
    starts = (torch.arange(T, device="cuda") // 101 * 101).repeat(B, 1)
    starts[:, 50] = S
    options = {"query_start_B": first, "starts_BT": starts}
    # Sums of 576 products and of hundreds of keys in float32 are off by about 1e-5.
    limits = (3e-5, *[1e-4 if kind == torch.float32 else 1e-2] * 3)
    for name, given in (("causal", {"query_start_B": first}), ("documents", options)):
        mine = run(teacher, student, grad, **given)
        want = run(*in_float64(teacher, student), grad, backend="reference", **given)
        for what, got, right, limit in zip(("loss", "query", "key", "weight"), mine, want, limits, strict=True):
            yield f"{name}, {what}: {error(got, right):.1e}", error(got, right) < limit
    whole = run(teacher, student, grad, **options)
    yield "blind query", bool((whole[0][:, 50] == 0).all() and (whole[1][:, 50] == 0).all())

    def same(found: list[Tensor], order: Tensor | None = None) -> bool:
        wanted = whole if order is None else [item[order] for item in whole]
        return all(torch.equal(*pair) for pair in zip(found, wanted, strict=True))

    yield "repeated", all(same(run(teacher, student, grad, **options)) for _ in range(5))
    order = torch.tensor([2, 0, 1], device="cuda")
    moved = Teacher(teacher.query_BTHC[order], teacher.key_BSC[order], teacher.scale)
    other = Student(*(item[order] for item in student))
    found = run(moved, other, grad[order], query_start_B=first[order], starts_BT=starts[order])
    yield "batch in another order", same(found, order)
    with mock.patch.object(configs, "WORKSPACE_BYTES", 4 * S * 100):
        chunked = run(teacher, student, grad, **options)
    yield "in chunks", all(error(a, b.double()) < 1e-2 for a, b in zip(chunked, whole, strict=True))


def check_hidden() -> Iterator[tuple[str, bool]]:
    """Compare NaN that nobody sees with none."""
    teacher, student = inputs(torch.bfloat16, 1, 700, 700, BASE)
    starts = torch.full((1, 700), 300, device="cuda")
    grad = torch.randn(1, 700, device="cuda")
    clean = run(teacher, student, grad, starts_BT=starts)
    for item in (*teacher[:2], *student):
        item[:, :300] = float("nan")
    poisoned_too = run(teacher, student, grad, starts_BT=starts)
    yield "invisible NaN", all(torch.equal(*pair) for pair in zip(clean, poisoned_too, strict=True))


def check_far() -> Iterator[tuple[str, bool]]:
    """Compare the last of several sequences, whose queries lie beyond 2^31 numbers, with it alone."""
    B, T = 14, 16384
    sizes = Sizes(32, 320, 1, 16)
    teacher, student = inputs(torch.bfloat16, B, T, 64, sizes)
    starts = torch.zeros(B, T, dtype=torch.int32, device="cuda")
    loss = dense_kl(teacher, student, starts_BT=starts)
    last = Teacher(teacher.query_BTHC[-1:].clone(), teacher.key_BSC[-1:].clone(), teacher.scale)
    alone = dense_kl(last, Student(*(item[-1:].clone() for item in student)), starts_BT=starts[-1:])
    yield "beyond 2^31 numbers", teacher.query_BTHC.numel() > 2**31 and torch.equal(loss[-1:], alone)


def check() -> list[str]:
    """Run all checks in poisoned memory; give what is wrong."""
    red = []
    with mock.patch("torch.empty", poisoned):
        for kind, sizes in KINDS:
            red += [f"{kind} {tuple(sizes)}: {name}" for name, right in check_kind(kind, sizes) if not right]
        red += [name for name, right in check_hidden() if not right]
    return red + [name for name, right in check_far() if not right]


def plain(teacher: Teacher, student: Student, visible_TS: Tensor) -> Tensor:
    """Compute the loss from all pairs, a head of the teacher at a time."""
    with torch.no_grad():
        total = torch.zeros(len(teacher.key_BSC), *visible_TS.shape, device=visible_TS.device)
        for query_BTC in teacher.query_BTHC.unbind(2):
            logits = (query_BTC @ teacher.key_BSC.transpose(1, 2)).float() * teacher.scale
            total += logits.masked_fill_(~visible_TS, float("-inf")).softmax(-1)
    return indexer_kl(index_scores(*student), total, visible_TS)


def peak_bytes(step: Any) -> int:
    """Give the most memory that a call takes beside what there was."""
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    step()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before


def measure() -> Iterator[dict[str, Any]]:
    """Time loss and gradients of each shape beside plain torch.

    Raises:
        AssertionError: the kernels take as much memory as one byte for each pair.
    """
    for B, T, sizes in TIMED:
        teacher, student = inputs(torch.bfloat16, B, T, T, sizes)
        leaves = Student(*(item.requires_grad_() for item in student))
        visible = torch.ones(T, T, dtype=torch.bool, device="cuda").tril()

        def ours(t: Teacher = teacher, s: Student = leaves) -> None:
            torch.autograd.grad(dense_kl(t, s).mean(), s)

        def forward(t: Teacher = teacher, s: Student = leaves) -> None:
            with torch.no_grad():
                dense_kl(t, s)

        def theirs(t: Teacher = teacher, s: Student = leaves, v: Tensor = visible) -> None:
            torch.autograd.grad(plain(t, s, v).mean(), s)

        record: dict[str, Any] = {"kernel": "dense_kl", "B": B, "T": T, **sizes._asdict()}
        record |= {"forward_ms": median_ms(forward), "ms": median_ms(ours), "peak_mib": peak_bytes(ours) / 2**20}
        pairs = B * T * (T + 1) / 2
        teacher_flop = 2 * pairs * sizes.heads * sizes.width
        record["forward_tflops"] = 1e-9 * 2 * (teacher_flop + pairs * sizes.index_heads * sizes.index_width)
        record["forward_tflops"] /= record["forward_ms"]
        if peak_bytes(ours) >= B * T * T:
            raise AssertionError(f"dense_kl takes {record['peak_mib']:.0f} MiB at {B} x {T}, a byte or more for a pair")
        # Scores of each head, and their gradients, in float32.
        if 4 * B * T * T * (2 * sizes.index_heads + 6) < 60 * 2**30:
            record |= {"plain_torch_ms": median_ms(theirs), "plain_torch_peak_mib": peak_bytes(theirs) / 2**20}
        yield record


def main() -> int:
    """Check, then measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, help="file of the result, JSON")
    parser.add_argument("--quick", action="store_true", help="check alone")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        print("benchmarks.kernels.dense_kl needs a GPU", file=sys.stderr)
        return 2
    red = check()
    print("\n".join(red) or "checks: green")
    if red:
        return 1
    result: dict[str, Any] = {"device": torch.cuda.get_device_name(), "torch": torch.__version__, "checks": "green"}
    result["measured"] = []
    if not options.quick:
        for record in measure():
            show(record)
            result["measured"].append(record)
    if options.out:
        options.out.write_text(json.dumps(result, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
