"""What training on the CPU costs, beside transformers and a plain decoder: `python -m benchmarks.policy [--out FILE]`.

Tokens per second of forward and backward on whole sequences, float32, cross-entropy of the next token. The competitors:
our policy, sparse, sparse with the indexer's loss, and dense; transformers' deepseek_v32 with the same weights, by each of
its kinds of attention and of experts; a plain dense decoder of as many parameters as are active. All live in one process
and take turns in an order that is drawn anew each round, so that a machine whose speed drifts is as slow for one as for
the other. Nothing is reported unless ours and transformers' losses agree at the start.

Left out: transformers' `batched_mm`, which copies the experts' weights for each token; it is 13 to 25 times slower here.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import statistics
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.dense_twin import active, count, dense_twin
from envsynth.policy.config import PolicyConfig
from envsynth.policy.huggingface import huggingface_config, huggingface_state_dict
from envsynth.policy.model import Policy, prepare_cpu
from envsynth.policy.presets import nano, small

RESULTS = Path(__file__).parent / "results"
OURS, WITH_KL, DENSE, TWIN = "ours, sparse", "ours, sparse with the indexer's loss", "ours, dense", "dense twin"
PEER = "transformers, {} attention, {} experts"
KINDS = (("eager", "eager"), ("eager", "grouped_mm"), ("sdpa", "eager"), ("sdpa", "grouped_mm"))
PEERS = tuple(PEER.format(*kinds) for kinds in KINDS)
COMPETITORS = (OURS, WITH_KL, DENSE, *PEERS, TWIN)
AGREE = 1e-4
"""Largest difference of a loss, nats."""
TURNS = 8
"""Least turns of each competitor."""
THREADS = (1, 2)


@dataclass(frozen=True)
class Setting:
    """One preset with its batch."""

    config: PolicyConfig
    batch: int
    length: int

    @property
    def tokens(self) -> int:
        return self.batch * self.length


SETTINGS = {"nano": Setting(nano(250), 4, 240), "small": Setting(small(512), 2, 512)}


def lively(config: PolicyConfig, seed: int = 0) -> Policy:
    """A policy whose logits are not flat and whose indexer scores do not tie at zero.

    Fresh output projections are zero, so a fresh policy has no gradient to speak of; and on ties the peer keeps any of the
    tied keys, we keep the first ones. Every second indexer head gets the opposite query: no key scores exactly zero.
    """
    policy = Policy(config, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in policy.parameters():
            if parameter.dim() > 1 and not parameter.any():
                parameter.normal_(std=parameter.shape[-1] ** -0.5, generator=generator)
        for module in policy.modules():
            if hasattr(module, "wq_b"):
                queries = module.wq_b.weight.unflatten(0, (module.heads, -1))
                queries[1::2] = -queries[::2]
    return policy


def peer(policy: Policy, attention: str, experts: str) -> nn.Module:
    """transformers' model with the policy's weights."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from transformers.models.deepseek_v32 import DeepseekV32Config, DeepseekV32ForCausalLM  # noqa: PLC0415

        config = DeepseekV32Config(**huggingface_config(policy.config), attn_implementation=attention)
        model = DeepseekV32ForCausalLM(config)
        model.set_experts_implementation(experts)
        model.load_state_dict(huggingface_state_dict(policy), strict=True)
    return model.train()


def next_token_loss(logits: Tensor, tokens: Tensor) -> Tensor:
    """Mean cross-entropy of the next token, nats."""
    return functional.cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())


def ours(policy: Policy, tokens: Tensor, *, dense: bool = False, with_kl: bool = False) -> Callable[[], Tensor]:
    """Our loss; with the indexer's loss it is the sum of both."""

    def loss() -> Tensor:
        output = policy(tokens, dense=dense, with_indexer_kl=with_kl)
        found = next_token_loss(output.logits_BTV, tokens)
        return found if output.indexer_kl is None else found + output.indexer_kl.mean()

    return loss


def competitors(setting: Setting, names: tuple[str, ...]) -> dict[str, tuple[nn.Module, Callable[[], Tensor]]]:
    """Give each competitor its own copy of the weights, and its loss.

    Raises:
        ValueError: A name is unknown.
    """
    made: dict[str, tuple[nn.Module, Callable[[], Tensor]]] = {}
    tokens = torch.randint(
        setting.config.vocab_size, (setting.batch, setting.length), generator=torch.Generator().manual_seed(1)
    )
    for name in names:
        policy = lively(setting.config)
        if name in PEERS:
            model = peer(policy, *next(kinds for kinds in KINDS if PEER.format(*kinds) == name))
            made[name] = (model, lambda m=model: next_token_loss(m(tokens, use_cache=False).logits, tokens))
        elif name == TWIN:
            twin = dense_twin(policy)
            made[name] = (twin, lambda m=twin: next_token_loss(m(tokens), tokens))
        elif name in (OURS, WITH_KL, DENSE):
            made[name] = (policy, ours(policy, tokens, dense=name == DENSE, with_kl=name == WITH_KL))
        else:
            raise ValueError(f"no competitor {name!r}; there are {COMPETITORS}")
    return made


def starting_losses(made: dict[str, tuple[nn.Module, Callable[[], Tensor]]]) -> dict[str, float]:
    """Losses at the start.

    Raises:
        SystemExit: ours and transformers' differ, so they would not be doing the same work.
    """
    with torch.no_grad():
        losses = {name: float(loss()) for name, (_, loss) in made.items()}
    apart = {name: losses[name] - losses[OURS] for name in PEERS if name in losses}
    if not all(abs(difference) <= AGREE for difference in apart.values()):
        raise SystemExit(f"the losses of equal weights differ by more than {AGREE}, nothing is reported: {apart}")
    return losses


def turn(model: nn.Module, loss: Callable[[], Tensor], seconds: float) -> float:
    """Steps of forward and backward per second, after one to warm up; at least one."""
    loss().backward()
    model.zero_grad(set_to_none=True)
    began, steps = time.perf_counter(), 0
    while steps == 0 or time.perf_counter() - began < seconds:
        loss().backward()
        model.zero_grad(set_to_none=True)
        steps += 1
    return steps / (time.perf_counter() - began)


def measure(name: str, threads: int, seconds: float, names: tuple[str, ...] = COMPETITORS) -> dict[str, Any]:
    """Let the competitors take turns at one setting.

    Args:
        name: A name in SETTINGS.
        threads: Threads of the process.
        seconds: Seconds of each competitor, divided among its turns.
        names: Who competes; ours, sparse, must.

    Returns:
        Losses at the start and, for each competitor, tokens per second: median over its turns, the quietest (fastest) and
        the slowest turn, spread (fastest less slowest, as a share of the median), and all turns in order of the rounds.
    """
    prepare_cpu(threads)
    setting = SETTINGS[name]
    made = competitors(setting, names)
    losses = starting_losses(made)
    turns = max(TURNS, round(seconds / 1.5))
    rates: dict[str, list[float]] = {competitor: [] for competitor in names}
    order, draw = list(names), random.Random(f"{name}/{threads}")
    for _ in range(turns):
        draw.shuffle(order)
        for competitor in order:
            rates[competitor].append(turn(*made[competitor], seconds / turns) * setting.tokens)
    return {
        "losses": losses,
        "tokens_per_s": {competitor: summary(found) for competitor, found in rates.items()},
    }


def summary(rates: list[float]) -> dict[str, Any]:
    """Figures of one competitor from its turns."""
    median = statistics.median(rates)
    return {
        "median": round(median, 1),
        "quietest": round(max(rates), 1),
        "slowest": round(min(rates), 1),
        "spread": round((max(rates) - min(rates)) / median, 3),
        "turns": [round(rate, 1) for rate in rates],
    }


def best_peer(case: dict[str, Any], figure: str = "quietest") -> str:
    """Name of transformers' fastest kind."""
    return max((name for name in PEERS if name in case["tokens_per_s"]), key=lambda n: case["tokens_per_s"][n][figure])


def ratio(case: dict[str, Any], to: str, figure: str = "quietest") -> float:
    """How many times as many tokens per second ours, sparse, has."""
    return case["tokens_per_s"][OURS][figure] / case["tokens_per_s"][to][figure]


def settings() -> dict[str, Any]:
    """What is measured, as a record holds it: batches, and parameters of ours and of the twin."""
    found = {}
    for name, setting in SETTINGS.items():
        policy = Policy(setting.config)
        found[name] = {
            "batch": setting.batch,
            "length": setting.length,
            "config": setting.config.to_dict(),
            "parameters": count(policy),
            "parameters_active": active(policy),
            "parameters_twin": count(dense_twin(policy)),
        }
    return found


def machine() -> dict[str, Any]:
    """What this ran on."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import transformers  # noqa: PLC0415

    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")
    return {
        "processor": model,
        "processors": os.cpu_count(),
        "load": os.getloadavg(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }


def show(name: str, threads: int, case: dict[str, Any]) -> None:
    """Print the figures of one setting."""
    print(f"{name}, threads {threads}: tokens per second, median; quietest turn; spread; ours over it (quietest)")
    for competitor, found in case["tokens_per_s"].items():
        told = f"{found['median']:,.0f}; {found['quietest']:,.0f}; {found['spread']:.0%}; {ratio(case, competitor):.2f}"
        print(f"  {competitor}: {told}", flush=True)


def main() -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=12.0, help="of each competitor at each setting, in turns")
    parser.add_argument("--out", type=Path, default=RESULTS / "policy.json")
    options = parser.parse_args()
    where = machine()
    cases: dict[str, dict[str, Any]] = {}
    for name in SETTINGS:
        cases[name] = {}
        for threads in THREADS:
            cases[name][str(threads)] = measure(name, threads, options.seconds)
            show(name, threads, cases[name][str(threads)])
    record = {
        "what": "forward and backward on whole sequences, float32, tokens per second by threads",
        "machine": where,
        "seconds": options.seconds,
        "settings": settings(),
        "cases": cases,
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print(options.out)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
