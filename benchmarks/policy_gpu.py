"""Whole policies on a GPU: `python -m benchmarks.policy_gpu [--presets base,large] [--lengths 2048,...] [--out FILE]`.

Training: forward, loss of the next token, the indexer's loss where attention is sparse, backward, and the optimizer's
step; float32 weights, bfloat16 autocast, as the trainer does. A batch has `--step-tokens` tokens, at least one sequence.
Generation: a bfloat16 policy runs one prompt (prefill), whose cache every slot gets a copy of, and then 64 tokens in
each slot, the most probable ones. The modes:

kernels: everything through `envsynth.kernels`, and decode steps replayed from CUDA graphs as the engine does; a row also
has the time of steps launched from Python. mqa: attention in plain torch, selected keys gathered. fused: the same,
selected keys as a mask of all pairs for torch's fused attention. dense: every key, through torch's fused attention; it
has no indexer's loss, and no generation, because the policy's decode step always selects. These three run experts and
token scores through kernels; `fused` is not timed generating, because it decodes as `mqa` does. off: `mqa` without any kernel.

Lack of memory and refusals stand in the record; a mode that ran out of memory is not tried at longer lengths. On a CPU,
`--presets nano --lengths 64` runs in seconds, in float32.
"""

from __future__ import annotations

import argparse
import copy
import gc
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.policy import lively, next_token_loss
from envsynth.kernels.dispatch import UnsupportedError
from envsynth.policy.checkpoint import git_revision
from envsynth.policy.decode_graph import DecodeGraphs, can_capture
from envsynth.policy.model import LatentCache, Policy
from envsynth.policy.optimizer import OptimizerConfig, PolicyOptimizer
from envsynth.policy.presets import PRESETS
from envsynth.policy.scores import next_token_request
from envsynth.train.overhead.record import hardware, triton_version

VOCABULARY = {"nano": 250, "small": 512, "base": 1024, "large": 8192}
"""Token ids that each preset is meant for."""
TRAINED = ("kernels", "mqa", "fused", "dense", "off")
GENERATING = ("kernels", "mqa", "off")
ATTENTION = {"dense": "fused", "off": "mqa"}
"""How the modes of other names attend."""
NEW_TOKENS, STEP_TOKENS = 64, 16384
SECONDS = 1.0
"""Time of the repeated steps of a measurement; at least two are made."""


def make_policy(preset: str, longest: int, device: torch.device) -> Policy:
    """A policy that has room for a prompt of the longest length and for what follows it."""
    return lively(PRESETS[preset](VOCABULARY[preset], max_position_embeddings=longest + NEW_TOKENS)).to(device)


def set_mode(policy: Policy, mode: str) -> bool:
    """Choose how whole sequences are attended to; tell whether every key is read."""
    policy.attention_mode = ATTENTION.get(mode, mode)  # pyright: ignore[reportAttributeAccessIssue]
    policy.kernels = False if mode == "off" else None
    return mode == "dense"


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds_of(call: Callable[[], object], device: torch.device) -> list[float]:
    """Seconds of repeated calls, after two to warm up."""
    for _ in range(2):
        call()
    synchronize(device)
    times: list[float] = []
    while len(times) < 2 or sum(times) < SECONDS:
        began = time.perf_counter()
        call()
        synchronize(device)
        times.append(time.perf_counter() - began)
    return times


def begin_memory(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_memory(device: torch.device) -> int | None:
    """Most memory in use since `begin_memory`, weights among it (bytes); None on a CPU."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None


def train(policy: Policy, mode: str, length: int, step_tokens: int) -> dict[str, Any]:
    """Time training steps."""
    device, batch = policy.embed_tokens.weight.device, max(1, step_tokens // length)
    is_dense = set_mode(policy, mode)
    policy.train()
    optimizer = PolicyOptimizer(policy, OptimizerConfig())
    drawing = torch.Generator().manual_seed(1)
    tokens = torch.randint(policy.config.vocab_size, (batch, length), generator=drawing).to(device)
    # As the trainer does: kernels score the tokens, and plain torch forms logits.
    score = next_token_request(tokens, torch.ones_like(tokens, dtype=torch.bool)) if policy.uses_kernels else None
    losses: list[Tensor] = []

    def step() -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            output = policy(tokens, dense=is_dense, with_indexer_kl=not is_dense, score=score)
        if output.scores is None:
            loss = next_token_loss(output.logits_BTV, tokens)
        else:
            loss = -output.scores.log_probs_BT.sum() / (batch * (length - 1))
        if output.indexer_kl is not None:
            loss = loss + output.indexer_kl.mean()
        loss.backward()
        optimizer.step(0.0)  # all of its work, and the weights stay: every mode trains the same policy
        losses.append(loss.detach())

    begin_memory(device)
    try:
        times = seconds_of(step, device)
    finally:
        policy.zero_grad(set_to_none=True)
    found = {"tokens_per_s": batch * length / statistics.median(times), "seconds": statistics.median(times)}
    return {**found, "batch": batch, "loss": float(losses[0]), "steps": len(times), "memory_bytes": peak_memory(device)}


def generate(policy: Policy, mode: str, length: int, slots: int) -> dict[str, Any]:
    """Time a prompt and the tokens after it.

    Raises:
        RuntimeError: captured decode steps give other tokens.
    """
    device = policy.embed_tokens.weight.device
    set_mode(policy, mode)
    policy.eval()
    drawing = torch.Generator().manual_seed(2)
    prompt = torch.randint(policy.config.vocab_size, (length,), generator=drawing).to(device)
    begin_memory(device)
    prefill = statistics.median(seconds_of(lambda: policy.prefill(prompt), device))
    output, filled = policy.prefill(prompt)
    cache = policy.new_cache(slots, length + NEW_TOKENS)
    cache.latent_LNSC[:, :, :length] = filled.latent_LNSC
    cache.index_key_LNSJ[:, :, :length] = filled.index_key_LNSJ
    first = output.logits_BTV[0, -1].argmax().expand(slots)
    del output, filled
    last, seconds = decoding_time(partial(decode_from_python, policy, cache), first, length, device)
    found = {"tokens_per_s": slots * NEW_TOKENS / seconds, "ms_per_token": 1e3 * seconds / NEW_TOKENS}
    if can_capture(policy):
        launched = {f"launched_{name}": value for name, value in found.items()}
        captured, seconds = decoding_time(DecodeGraphs(policy, cache).decode, first, length, device)
        if not torch.equal(captured, last):
            raise RuntimeError("decode steps replayed from graphs give other tokens than steps launched from Python")
        found = {"tokens_per_s": slots * NEW_TOKENS / seconds, "ms_per_token": 1e3 * seconds / NEW_TOKENS, **launched}
    return {
        "prefill_tokens_per_s": length / prefill,
        **found,
        "slots": slots,
        "last_token": int(last[0]),
        "memory_bytes": peak_memory(device),
    }


Decode = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]
"""A decode step of tokens, rows and positions, like `DecodeGraphs.decode`."""


def decode_from_python(
    policy: Policy, cache: LatentCache, tokens: Tensor, rows: Tensor, positions: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    return policy.decode(tokens, cache, rows, positions)


def decoding_time(decode: Decode, first: Tensor, length: int, device: torch.device) -> tuple[Tensor, float]:
    """Generate after a prompt; give the last tokens and the seconds that it took."""
    decode_tokens(decode, first, length, 2)
    synchronize(device)
    began = time.perf_counter()
    last = decode_tokens(decode, first, length, NEW_TOKENS)
    synchronize(device)
    return last, time.perf_counter() - began


def decode_tokens(decode: Decode, first: Tensor, length: int, count: int) -> Tensor:
    """Generate in every slot, without waiting for the device; give the last tokens."""
    tokens, rows = first.contiguous(), torch.arange(len(first), device=first.device)
    for place in range(length, length + count):
        tokens = decode(tokens, rows, torch.full_like(rows, place))[0].argmax(-1)
    return tokens


def attempt(measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Measure, or tell what was refused or failed; with a failure the program's exit code is 1.

    Raises:
        AcceleratorError: the device is broken, and everything after it would be.
    """
    try:
        return {**measure(), "refused": ""}
    except torch.OutOfMemoryError as error:
        return {"tokens_per_s": None, "refused": f"out of memory: {str(error).splitlines()[0][:200]}"}
    except UnsupportedError as refusal:
        return {"tokens_per_s": None, "refused": f"refused: {refusal}"}
    except torch.AcceleratorError:
        raise
    except RuntimeError as failure:
        return {"tokens_per_s": None, "refused": f"failed: {failure}"[:400]}


def release(device: torch.device) -> None:
    """Give memory back, also what an error's traceback held."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def measure_preset(preset: str, options: argparse.Namespace, rows: list[dict[str, Any]], ends: float | None) -> bool:
    """Measure a preset, the shortest length first, and add to the rows; False when the time was over before the end."""
    device = torch.device(options.device)
    policy = make_policy(preset, max(options.lengths), device)
    policy.checkpoint_layers = options.checkpoint
    half = copy.deepcopy(policy).to(torch.bfloat16) if device.type == "cuda" else policy
    full: set[tuple[str, str]] = set()
    for length in options.lengths:
        for what, mode in [("training", mode) for mode in TRAINED] + [("generation", mode) for mode in GENERATING]:
            if mode not in options.modes:
                continue
            if ends is not None and time.monotonic() >= ends:
                return False
            if (what, mode) in full:
                found = {"tokens_per_s": None, "refused": "out of memory at a shorter length"}
            elif what == "training":
                found = attempt(partial(train, policy, mode, length, options.step_tokens or length))
            else:
                found = attempt(partial(generate, half, mode, length, options.slots))
            release(device)
            if found["refused"].startswith("out of memory"):
                full.add((what, mode))
            rows.append({"preset": preset, "length": length, "what": what, "mode": mode, **found})
            print(told(rows[-1]), flush=True)
            write(options, rows, complete=False)
    return True


def told(row: dict[str, Any]) -> str:
    """One line of a measurement."""
    head = f"{row['preset']}, {row['length']:,} tokens, {row['what']}, {row['mode']}: "
    if row["tokens_per_s"] is None:
        return head + row["refused"]
    memory = "" if row["memory_bytes"] is None else f", {row['memory_bytes'] / 2**30:.2f} GiB"
    prefill = f", prompt {row['prefill_tokens_per_s']:,.0f}" if row["what"] == "generation" else ""
    launched = f", launched {row['launched_tokens_per_s']:,.0f}" if "launched_tokens_per_s" in row else ""
    return f"{head}{row['tokens_per_s']:,.0f} tokens/s{launched}{prefill}{memory}"


def write(options: argparse.Namespace, rows: list[dict[str, Any]], *, complete: bool) -> None:
    """Write what was measured so far, whole or not at all."""
    if options.out is None:
        return
    record = {
        "hardware": hardware(options.device),
        "torch": torch.__version__,
        "triton": triton_version(),
        "revision": git_revision(Path(__file__).parents[1]) or "unknown",
        "settings": {name: value for name, value in vars(options).items() if name != "out"},
        "complete": complete,
        "rows": rows,
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    fresh = options.out.with_name(f"{options.out.name}.new")
    fresh.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    fresh.replace(options.out)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    on_gpu = torch.cuda.is_available()
    parser.add_argument("--presets", "--preset", type=lambda text: text.split(","), default=["base", "large"])
    parser.add_argument("--lengths", type=_lengths, default=[2048, 4096, 8192, 16384, 32768, 65536])
    parser.add_argument("--modes", type=lambda text: text.split(","), default=list(TRAINED))
    parser.add_argument("--step-tokens", type=int, default=STEP_TOKENS if on_gpu else None, help="tokens of a batch")
    parser.add_argument("--slots", type=int, default=16 if on_gpu else 2, help="sequences that generate at once")
    parser.add_argument("--checkpoint", action="store_true", help="recompute layers in the backward pass")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if on_gpu else "cpu")
    parser.add_argument("--budget-s", type=float, help="seconds after which no measurement starts")
    parser.add_argument("--out", type=Path, help="file for the record")
    options = parser.parse_args(arguments)
    unknown = [name for name in options.presets if name not in VOCABULARY]
    unknown += [mode for mode in options.modes if mode not in TRAINED]
    if unknown:
        parser.error(f"unknown {unknown}; presets are {list(VOCABULARY)}, modes {list(TRAINED)}")
    return options


def _lengths(text: str) -> list[int]:
    """Lengths, ascending, because a mode that ran out of memory is not tried at longer ones."""
    return sorted(int(part) for part in text.split(","))


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, write."""
    options = parse(arguments)
    ends = None if options.budget_s is None else time.monotonic() + options.budget_s
    rows: list[dict[str, Any]] = []
    complete = True
    for preset in options.presets:
        complete = measure_preset(preset, options, rows, ends) and complete
        release(torch.device(options.device))
    write(options, rows, complete=complete)
    if not complete:
        print("the time was over before the last measurement", file=sys.stderr)
    failed = [row for row in rows if row["refused"].startswith("failed")]
    return 0 if complete and not failed else 1


if __name__ == "__main__":
    raise SystemExit(main())
