"""The indexer's loss on all visible keys: kernels in Triton's interpreter against the reference, and both by definition."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from envsynth.kernels.dense_kl import Student, Teacher, configs, dense_kl, reference
from envsynth.kernels.dispatch import UnsupportedError
from envsynth.kernels.indexer.reference import index_scores
from envsynth.policy.attention import LatentAttention, Wants
from envsynth.policy.packing import Layout, visible_keys
from envsynth.policy.presets import nano
from envsynth.policy.rope import rope_angles

# What is not visible is dropped after its power of two was taken, which the interpreter's numpy may remark on.
pytestmark = pytest.mark.filterwarnings("ignore:(overflow|invalid value) encountered:RuntimeWarning")
BACKENDS = ("reference", "triton")


def inputs(generator, B=2, T=9, S=None, heads=3, width=20, index_heads=2, index_width=8) -> tuple[Teacher, Student]:
    """A teacher and a student; weights have either sign."""

    def noise(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    S = S or T
    teacher = Teacher(noise(B, T, heads, width), noise(B, S, width), width**-0.5)
    return teacher, Student(noise(B, T, index_heads, index_width), noise(B, S, index_width), noise(B, T, index_heads))


def run(teacher: Teacher, student: Student, grad_BT: Tensor, backend=None, **options) -> list[Tensor]:
    """Give the loss, and the gradients of queries, keys and weights."""
    leaves = [item.detach().clone().requires_grad_() for item in student]
    loss = dense_kl(teacher, Student(*leaves), backend=backend, **options)
    return [loss.detach(), *torch.autograd.grad(loss, leaves, grad_BT.to(loss.dtype))]


def wide(teacher: Teacher, student: Student) -> tuple[Teacher, Student]:
    """The same in float64."""
    lse = None if teacher.lse_BTH is None else teacher.lse_BTH.double()
    wider = Teacher(teacher.query_BTHC.double(), teacher.key_BSC.double(), teacher.scale, lse)
    return wider, Student(*(item.double() for item in student))


def by_definition(teacher: Teacher, student: Student, visible_BTS: Tensor) -> Tensor:
    """KL(p || softmax(I)) with explicit probabilities, for queries that see something."""
    logits = torch.einsum("bthc,bsc->bths", teacher.query_BTHC, teacher.key_BSC) * teacher.scale
    p = logits.masked_fill(~visible_BTS[:, :, None], float("-inf")).softmax(-1).sum(2)
    p = (p / p.sum(-1, keepdim=True)).detach()
    q = index_scores(*student).masked_fill(~visible_BTS, float("-inf")).softmax(-1)
    return torch.where(visible_BTS, p * (p / q).log(), 0.0).sum(-1)


def check(teacher: Teacher, student: Student, generator, loose=1e-5, **options) -> list[Tensor]:
    """Compare the kernels' loss and gradients with the reference's in float64; give the kernels'."""
    grad = torch.randn(teacher.query_BTHC.shape[:2], generator=generator)
    got = run(teacher, student, grad, "triton", **options)
    want = run(*wide(teacher, student), grad, "reference", **options)
    for mine, theirs in zip(got, want, strict=True):
        torch.testing.assert_close(mine.double(), theirs, rtol=loose, atol=loose * float(theirs.abs().max() + 1))
    return got


def test_the_reference_is_the_definition_and_its_gradient_is_right(generator, monkeypatch):
    teacher, student = wide(*inputs(generator, B=1, T=7, S=9))
    first = torch.tensor([2])
    visible = torch.arange(9) <= torch.arange(7)[:, None] + 2
    want = by_definition(teacher, student, visible[None])
    torch.testing.assert_close(dense_kl(teacher, student, query_start_B=first), want)
    leaves = [item.requires_grad_() for item in student]
    monkeypatch.setattr(reference, "ROWS", 3)

    def loss(*tensors: Tensor) -> Tensor:
        return dense_kl(teacher, Student(*tensors), query_start_B=first)

    torch.testing.assert_close(loss(*leaves), want)
    assert torch.autograd.gradcheck(loss, leaves, eps=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("heads", "width", "index_heads", "index_width"),
    [(1, 16, 1, 16), (3, 20, 5, 24), (12, 40, 2, 8), (32, 24, 64, 16)],
)
def test_kernels_give_what_the_reference_gives(heads, width, index_heads, index_width, generator):
    sizes = {"heads": heads, "width": width, "index_heads": index_heads, "index_width": index_width}
    check(*inputs(generator, B=1, T=37, **sizes), generator)


@pytest.mark.slow
def test_kernels_work_in_halves(generator):
    teacher, student = inputs(generator, B=1, T=70, heads=8, width=48, index_heads=4, index_width=32)
    halves = Teacher(teacher.query_BTHC.half(), teacher.key_BSC.half(), teacher.scale)
    half_student = Student(student.query_BTIJ.half(), student.key_BSJ.half(), student.weight_BTI)
    check(halves, half_student, generator, loose=1e-3)
    check(halves, student, generator)


@pytest.mark.parametrize("backend", BACKENDS)
def test_packed_documents_are_those_alone(backend, generator):
    teacher, student = inputs(generator, B=1, T=45)
    lengths = torch.tensor([1, 0, 17, 1, 1, 25])
    starts = torch.repeat_interleave(lengths.cumsum(0) - lengths, lengths)[None]
    grad = torch.randn(1, 45, generator=generator)
    whole = run(teacher, student, grad, backend, starts_BT=starts)
    begin = 0
    for length in lengths.tolist():
        part = slice(begin, begin + length)
        short = Teacher(teacher.query_BTHC[:, part], teacher.key_BSC[:, part], teacher.scale)
        alone = run(short, Student(*(item[:, part] for item in student)), grad[:, part], backend)
        for mine, theirs in zip(whole, alone, strict=True):
            torch.testing.assert_close(mine[:, part], theirs, rtol=1e-5, atol=1e-5)
        assert length != 1 or whole[0][0, begin].abs() < 1e-6, "one key is certain for both"
        begin += length


def test_queries_at_the_end_of_a_longer_cache(generator):
    teacher, student = inputs(generator, B=2, T=11, S=83)
    first = torch.tensor([72, 40])
    check(teacher, student, generator, query_start_B=first)
    starts = torch.randint(0, 90, (2, 11), generator=generator)
    got = check(teacher, student, generator, query_start_B=first, starts_BT=starts)
    blind = starts > torch.arange(11) + first[:, None]
    assert blind.any()
    assert (got[0][blind] == 0).all()
    assert (got[1][blind] == 0).all()
    assert (got[3][blind] == 0).all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_nobody_sees_and_who_sees_nothing_have_no_influence(backend, generator):
    teacher, student = inputs(generator, B=1, T=40)
    starts = torch.arange(40).clamp(min=20)[None] // 20 * 20
    grad = torch.randn(1, 40, generator=generator)
    clean = run(teacher, student, grad, backend, starts_BT=starts)
    assert (clean[0][:, :20] == 0).all()
    for item in (*teacher[:2], *student):
        item[:, :20] = float("nan")
    poisoned = run(teacher, student, grad, backend, starts_BT=starts)
    for mine, theirs in zip(poisoned, clean, strict=True):
        assert torch.equal(mine, theirs)
    for gradient in clean[1:]:
        assert (gradient[:, :20] == 0).all()
    student.key_BSJ[:, 25] = float("nan")
    assert run(teacher, student, grad, backend, starts_BT=starts)[0][0, 30].isnan(), "a key that is seen is not hidden"


@pytest.mark.parametrize("backend", BACKENDS)
def test_shares_of_zero_and_equal_scores(backend, generator):
    teacher, student = inputs(generator, B=1, T=33, heads=2)
    # Far from most keys all shares are zero in float32.
    sharp = teacher._replace(scale=300.0)
    grad = torch.ones(1, 33)
    got = run(sharp, student, grad, backend)
    want = run(*wide(sharp, student), grad, "reference")
    assert all(item.isfinite().all() for item in got)
    for mine, theirs in zip(got, want, strict=True):
        torch.testing.assert_close(mine.double(), theirs, rtol=1e-3, atol=1e-3)
    # No product is positive: all scores are equal, zeros of either sign, and nothing learns from them.
    flat = Student(-student.key_BSJ[:, :, None].abs().expand(-1, -1, 2, -1), student.key_BSJ.abs(), student.weight_BTI)
    loss, *gradients = run(teacher, flat, grad, backend)
    entropy = by_definition(teacher, flat, torch.ones(33, 33, dtype=torch.bool).tril()[None])
    torch.testing.assert_close(loss, entropy, rtol=1e-5, atol=1e-5)
    assert all((gradient == 0).all() for gradient in gradients)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_known_log_sum_exp_takes_the_place_of_the_first_pass(backend, generator):
    teacher, student = inputs(generator, B=1, T=35)
    logits = torch.einsum("bthc,bsc->bths", teacher.query_BTHC, teacher.key_BSC) * teacher.scale
    hidden = torch.ones(35, 35, dtype=torch.bool).triu(1)
    lse = logits.masked_fill(hidden[None, :, None], float("-inf")).logsumexp(-1)
    grad = torch.randn(1, 35, generator=generator)
    for mine, theirs in zip(
        run(teacher._replace(lse_BTH=lse), student, grad, backend), run(teacher, student, grad, backend), strict=True
    ):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-5)
    # It is used: less of it is more of every share.
    other = run(teacher._replace(lse_BTH=lse - 1.0), student, grad, backend)[0]
    assert (other - run(teacher, student, grad, backend)[0]).abs().min() > 1e-2


def test_chunks_reruns_and_places_in_the_batch(generator, monkeypatch):
    teacher, student = inputs(generator, B=3, T=37)
    empty = torch.empty

    def poisoned(*size, **options):
        return empty(*size, **options).fill_(float("nan") if options["dtype"].is_floating_point else -77)

    grad = torch.randn(3, 37, generator=generator)
    whole = run(teacher, student, grad, "triton")
    monkeypatch.setattr(torch, "empty", poisoned)
    for rows in (1000, 75, 20):  # all, two sequences, parts of one
        monkeypatch.setattr(configs, "WORKSPACE_BYTES", 4 * 37 * rows)
        once, again = (run(teacher, student, grad, "triton") for _ in range(2))
        order = torch.tensor([2, 0, 1])
        moved = Teacher(teacher.query_BTHC[order], teacher.key_BSC[order], teacher.scale)
        other = run(moved, Student(*(item[order] for item in student)), grad[order], "triton")
        for first, second, third, want in zip(once, again, other, whole, strict=True):
            assert torch.equal(first, second)
            assert torch.equal(first[order], third)
            torch.testing.assert_close(first, want, rtol=1e-5, atol=1e-5)


def test_nothing_is_as_large_as_all_pairs(generator, monkeypatch):
    T = 300
    teacher, student = inputs(generator, B=1, T=T, heads=1, width=16, index_heads=1, index_width=16)
    monkeypatch.setattr(configs, "WORKSPACE_BYTES", 4 * T * 32)
    sizes, empty = [], torch.empty

    def counted(*size, **options):
        sizes.append(empty(*size, device="meta").numel())
        return empty(*size, **options)

    monkeypatch.setattr(torch, "empty", counted)
    run(teacher, student, torch.ones(1, T), "triton")
    assert max(sizes) <= configs.KEY_PARTS * T * 16
    assert max(sizes) < T * T / 4


@pytest.mark.parametrize("backend", BACKENDS)
def test_empty_batches(backend, generator):
    teacher, student = inputs(generator, B=1, T=3)
    none = Teacher(teacher.query_BTHC[:, :0], teacher.key_BSC, teacher.scale)
    got = run(none, Student(student[0][:, :0], student[1], student[2][:, :0]), torch.ones(1, 0), backend)
    assert got[0].shape == (1, 0)
    assert (got[2] == 0).all()


def test_refusals(generator):
    teacher, student = inputs(generator)
    with pytest.raises(ValueError, match="the indexer's keys must be"):
        dense_kl(teacher, student._replace(key_BSJ=student.key_BSJ[:, 1:]))
    with pytest.raises(ValueError, match="lse_BTH must be"):
        dense_kl(teacher._replace(lse_BTH=torch.zeros(2, 9)), student)
    with pytest.raises(ValueError, match="starts_BT must be"):
        dense_kl(teacher, student, starts_BT=torch.zeros(9, dtype=torch.int32))
    with pytest.raises(ValueError, match=r"want \[B, T, H, C\]"):
        dense_kl(teacher._replace(key_BSC=teacher.key_BSC[0]), student)
    with pytest.raises(UnsupportedError, match="float64"):
        dense_kl(*wide(teacher, student), backend="triton")
    with pytest.raises(UnsupportedError, match=r"weights are torch\.float16"):
        dense_kl(teacher, student._replace(weight_BTI=student.weight_BTI.half()), backend="triton")
    many = Student(torch.zeros(2, 9, 65, 8), student.key_BSJ, torch.zeros(2, 9, 65))
    with pytest.raises(UnsupportedError, match="65 heads of the indexer"):
        dense_kl(teacher, many, backend="triton")


@pytest.mark.parametrize("heads", [1, 7, 8, 12, 32, 128])
@pytest.mark.parametrize("index_heads", [1, 3, 8, 64])
@pytest.mark.parametrize("item_bytes", [2, 4])
def test_tiles_hold_all_heads_and_have_sixteen_columns(heads, index_heads, item_bytes):
    for width in (16, 160, 224, 576):
        sizes = configs.Sizes(heads, width, index_heads, 64, item_bytes)
        tile = configs.tile(configs.TEACHER, sizes)
        assert tile.heads * tile.chunks >= heads
        assert tile.heads * (tile.chunks - 1) < heads
        assert min(tile.heads, tile.index_heads) * tile.queries >= 16
        assert configs.student_tile(sizes).queries * tile.index_heads >= 16


@pytest.mark.slow
@pytest.mark.parametrize("packed", [False, True], ids=["one document", "packed"])
def test_the_policys_dense_loss_through_kernels(packed, generator, monkeypatch):
    torch.manual_seed(0)
    config = nano(50, index_topk=4)
    attention, length = LatentAttention(config), 23
    starts = torch.repeat_interleave(torch.tensor([0, 9]), torch.tensor([9, 14]))[None] if packed else None
    positions = torch.arange(length) if starts is None else torch.arange(length)[None] - starts
    frequencies = 1000.0 ** -(torch.arange(0, 16, 2) / 16)
    layout = Layout(
        *rope_angles(positions, frequencies), positions, starts, visible_keys(length, starts, positions.device), length
    )
    x = torch.randn(1, length, 128, generator=generator)
    found = []
    for mode in ("fused", "kernels"):
        if mode == "kernels":
            monkeypatch.setattr(
                "envsynth.policy.attention.dense_kl",
                lambda *args, **options: dense_kl(*args, **options, backend="triton"),
            )
        output = attention(x, layout, Wants(dense=True, with_kl=True), mode)
        gradients = torch.autograd.grad(output.kl_BT.square().sum(), list(attention.indexer.parameters()))
        found.append([output.out_BTD, output.kl_BT, *gradients])
    for mine, theirs in zip(*found, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)
