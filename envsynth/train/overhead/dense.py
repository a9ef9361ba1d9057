"""Dense attention of the same heads, by the best of torch's fused backends.

`mha`: each head has keys and values of its own. `mqa`: all heads read the latents. `decode`: one token per slot reads
its whole cache of latents; its heads are laid out as the queries of one head, which is the same numbers and lets a
backend read each latent once. Keys and values are tensors of their own here, so the gradient of a latent is not added up
from both, and no padding is timed: dense attention is given the benefit.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from envsynth.train.overhead.inputs import Inputs
from envsynth.train.overhead.timing import Timing, measure_call

Kind = Literal["mha", "mqa", "decode"]

BACKENDS: Final[Mapping[str, SDPBackend]] = {
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "flash": SDPBackend.FLASH_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
}
"""Backends of a GPU by name; a CPU has its default alone."""
CPU_BACKENDS: Final = ("default",)
HOPELESS: Final = 3.0
"""A backend that took so many times as long as the best one at the length before is not tried at longer ones."""
CHECKED_ROWS: Final = 64
"""Last queries whose result is compared with explicit probabilities."""


class BackendRefusal(RuntimeError):
    """A backend takes tensors in no form; the message says why, for each."""


class Form(NamedTuple):
    """How tensors are handed to a backend."""

    shared: bool
    """One key head is handed over as it is, rather than repeated for each head without a copy."""
    padded: bool
    """Values are made as wide as keys, because a backend wants that."""

    def __str__(self) -> str:
        marks = [name for name, holds in (("repeated heads", not self.shared), ("padded values", self.padded)) if holds]
        return ", ".join(marks) or "as it is"


class Operands(NamedTuple):
    """Tensors of one dense attention."""

    query: Tensor
    """Queries, [B, H, T, X]."""
    key: Tensor
    """Keys, [B, H or 1, S, X]."""
    value: Tensor
    """Values, [B, H or 1, S, V]."""
    causal: bool
    """Whether query t sees no key after t."""
    scale: float
    """Factor on the logits."""


@dataclass(frozen=True, kw_only=True)
class Tried:
    """What became of one backend."""

    timing: Timing | None
    """Its cost; None when it was not run."""
    form: str
    """How tensors were handed to it; empty when it was not run."""
    refused: str
    """Why it was not run; empty when it was."""

    def to_dict(self) -> dict[str, Any]:
        """Give plain values."""
        timing = {"ms": None} if self.timing is None else self.timing.to_dict()
        return {**timing, "form": self.form, "refused": self.refused}


def operands(given: Inputs, kind: Kind) -> Operands:
    """Draw the tensors of a dense attention.

    Args:
        given: Sizes.
        kind: Which one.

    Returns:
        The tensors, values as narrow as they are.
    """
    sizes, length, scale = given.sizes, given.length, given.sizes.scale
    if kind == "decode":
        step = given.decoding
        key_N1SC = step.latent_NSC[:, None]
        return Operands(step.query_NHC[:, None], key_N1SC, key_N1SC[..., : sizes.rank], False, scale)
    if kind == "mqa":
        query, latent = given.core
        return Operands(query.transpose(1, 2), latent[:, None], latent[:, None, :, : sizes.rank], True, scale)
    # Projections give [B, T, H, X]; backends read that through a transposition.
    shape, width = (1, length, sizes.heads), sizes.nope + sizes.rope
    query, key = (given.normal(f"dense {name}", *shape, width).transpose(1, 2) for name in ("queries", "keys"))
    value = given.normal("dense values", *shape, sizes.value).transpose(1, 2)
    return Operands(query, key, value, True, scale)


def attend(item: Operands, form: Form, backend: str) -> Tensor:
    """Attend through a backend.

    Args:
        item: The tensors, values padded already where the form says so.
        form: How they are handed over.
        backend: Name of a backend, or `default`.

    Returns:
        The result, [B, H, T, V], padded like the values.

    Raises:
        RuntimeError: the backend refuses them.
    """
    key, value = item.key, item.value
    heads = item.query.shape[1]
    if not form.shared:
        key, value = (x.expand(-1, heads, -1, -1) for x in (key, value))
    within: AbstractContextManager[Any] = nullcontext() if backend == "default" else sdpa_kernel(BACKENDS[backend])
    with within:
        return functional.scaled_dot_product_attention(
            item.query, key, value, is_causal=item.causal, scale=item.scale, enable_gqa=key.shape[1] != heads
        )


def padded(item: Operands) -> Operands:
    """Make values as wide as keys.

    Args:
        item: The tensors.

    Returns:
        The tensors; latents serve whole, other values get zeros.
    """
    wider = item.key.shape[-1] - item.value.shape[-1]
    if item.key.shape[1] != item.query.shape[1] or item.key.data_ptr() == item.value.data_ptr():
        return item._replace(value=item.key)
    return item._replace(value=functional.pad(item.value, (0, wider)))


def truth(item: Operands, rows: int) -> Tensor:
    """Attend with explicit probabilities in float32, for the last queries.

    Args:
        item: The tensors.
        rows: Queries, from the last one.

    Returns:
        The result, float32 [B, H, rows, V].
    """
    query = item.query[:, :, -rows:].float()
    logits = (query @ item.key.float().transpose(-1, -2)) * item.scale
    if item.causal:
        count, size = logits.shape[-2:]
        seen = torch.ones(count, size, dtype=torch.bool, device=logits.device).tril(size - count)
        logits = logits.masked_fill(~seen, float("-inf"))
    return logits.softmax(-1) @ item.value.float()


def accepted(item: Operands, backend: str, *, backward: bool) -> tuple[Form, Operands]:
    """Find a form that a backend takes, by running it.

    Args:
        item: The tensors.
        backend: Its name.
        backward: Whether the gradient must run too.

    Returns:
        The form, and the tensors in it.

    Raises:
        BackendRefusal: it takes none; why, for each form.
        AcceleratorError: the device is broken.
        OutOfMemoryError: there is not enough memory.
    """
    one_head = item.key.shape[1] != item.query.shape[1]
    narrow = item.value.shape[-1] != item.key.shape[-1]
    forms = [Form(shared, wide) for wide in (False, *([True] if narrow else [])) for shared in (True, False)]
    refusals: list[str] = []
    for form in (form for form in forms if form.shared or one_head):
        used = padded(item) if form.padded else item
        # Torch warns of the reason, and then raises that there is no kernel.
        with warnings.catch_warnings(record=True) as reasons:
            warnings.simplefilter("always")
            try:
                call_of(used, form, backend, backward=backward)()
            except (torch.OutOfMemoryError, torch.AcceleratorError):
                raise
            except RuntimeError as refusal:
                told = [str(reason.message).splitlines()[0].split(" (Triggered")[0] for reason in reasons]
                refusals.append(f"{form}: {first_line(refusal)} {' '.join(told)}"[:400])
            else:
                return form, used
    raise BackendRefusal("; ".join(refusals))


def call_of(item: Operands, form: Form, backend: str, *, backward: bool) -> Callable[[], object]:
    """Give a call of dense attention.

    Args:
        item: The tensors.
        form: How they are handed over.
        backend: Name of a backend.
        backward: Whether it runs forward and backward, or forward alone.

    Returns:
        The call.
    """
    return _backward_call(item, form, backend) if backward else torch.no_grad()(partial(attend, item, form, backend))


def first_line(error: BaseException) -> str:
    """Give the beginning of an error's message.

    Args:
        error: Any.

    Returns:
        At most 200 characters.
    """
    return (str(error).splitlines() or [""])[0][:200]


def _backward_call(item: Operands, form: Form, backend: str) -> Callable[[], object]:
    query, key, value = needing = [x.detach().requires_grad_() for x in item[:3]]
    used = Operands(query, key, value, item.causal, item.scale)
    gradient = torch.empty(
        *item.query.shape[:3], item.value.shape[-1], dtype=item.query.dtype, device=item.query.device
    )
    gradient.normal_(generator=torch.Generator(gradient.device).manual_seed(0))
    return lambda: torch.autograd.grad(attend(used, form, backend), needing, gradient)


def try_backends(
    given: Inputs, kind: Kind, *, backward: bool, left_out: Mapping[str, str], repeat_ms: float
) -> dict[str, Tried]:
    """Time dense attention by every backend.

    Args:
        given: Inputs.
        kind: Which attention.
        backward: Whether forward and backward are timed, or forward alone.
        left_out: Backends that are not run, with the reasons.
        repeat_ms: Time of the repetitions (milliseconds).

    Returns:
        What became of each backend, by name.
    """
    item, found = operands(given, kind), {}
    for name in backends_of(given):
        if name in left_out:
            found[name] = Tried(timing=None, form="", refused=left_out[name])
            continue
        try:
            form, used = accepted(item, name, backward=backward)
            timing = measure_call(call_of(used, form, name, backward=backward), given.device, repeat_ms)
        except torch.OutOfMemoryError as error:
            torch.cuda.empty_cache()
            found[name] = Tried(timing=None, form="", refused=f"out of memory: {first_line(error)}")
        except BackendRefusal as refusal:
            found[name] = Tried(timing=None, form="", refused=f"refused: {refusal}")
        else:
            found[name] = Tried(timing=timing, form=str(form), refused="")
    return found


def last_rows(item: Operands, backend: str, rows: int) -> Tensor | None:
    """Give what a backend computes for the last queries.

    Args:
        item: The tensors.
        backend: Its name.
        rows: Queries, from the last one.

    Returns:
        The result, [B, H, rows, V]; None if the backend refuses these tensors, which `try_backends` records.
    """
    try:
        form, used = accepted(item, backend, backward=False)
    except BackendRefusal:
        return None
    with torch.no_grad():
        return attend(used, form, backend)[:, :, -rows:, : item.value.shape[-1]]


def backends_of(given: Inputs) -> tuple[str, ...]:
    """Name the backends of a device.

    Args:
        given: Inputs on the device.

    Returns:
        The names.
    """
    return tuple(BACKENDS) if given.device.type == "cuda" else CPU_BACKENDS
