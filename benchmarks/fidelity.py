"""Variants of the dense pretraining of `envsynth experiment dsa-fidelity`, side by side on several GPUs.

    python -m benchmarks.fidelity OUT [--devices 4] [--pretrain-steps 3000]

The one whose dense policy has the lowest loss on held-out answers at the whole context gave the profile `gpu` its
learning rates; every number of all of them is in `variants.json`. The same command goes on with what is not finished. It
needs torch, safetensors and numpy alone.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch

from envsynth.train.fidelity.config import FidelityConfig, profile, with_steps
from envsynth.train.fidelity.folder import FidelityFolder
from envsynth.train.fidelity.grid import find_devices
from envsynth.train.fidelity.jobs import Job, run_job

PRETRAIN = Job(kind="pretrain", seed=0)
LONGER_SHORT = ((64, 0.35), (256, 0.3), (1024, 0.15), (4096, 0.1), (8192, 0.1))
"""A curriculum that spends more of its steps on short contexts."""


def variants(config: FidelityConfig) -> dict[str, FidelityConfig]:
    """Give the variants of pretraining, by name."""

    def at(muon_lr: float, adamw_lr: float) -> FidelityConfig:
        return replace(config, pretrain=replace(config.pretrain, muon_lr=muon_lr, adamw_lr=adamw_lr))

    longer = LONGER_SHORT if config.context == 8192 else config.curriculum
    return {
        "middle": at(0.012, 4e-3),
        "faster": at(0.02, 6e-3),
        "slower": at(0.006, 2e-3),
        "short-first": replace(at(0.012, 4e-3), curriculum=longer),
    }


def pretrain(name: str, path: Path, config: FidelityConfig, device: str) -> None:
    """Pretrain one variant, or go on with it."""
    folder = FidelityFolder.open(path, config)
    if folder.found(PRETRAIN.name) is not None:
        return

    def watch(done: int, of: int, metrics: Mapping[str, float]) -> None:
        if done % 200 == 0 or done == of:
            rate = metrics["tokens_per_s"]
            print(f"{name}: step {done} of {of}, loss {metrics['loss']:.4f}, {rate:,.0f} tokens/s", flush=True)

    run_job(PRETRAIN, folder, config, torch.device(device), watch)


def all_variants(out: Path, config: FidelityConfig, devices: tuple[str, ...]) -> str:
    """Pretrain every variant, as many at a time as there are devices, and name the best.

    Raises:
        SystemExit: one failed.
    """
    waiting, running = list(variants(config).items()), {}
    context = multiprocessing.get_context("spawn")
    while waiting or running:
        for device in devices:
            if waiting and device not in running:
                name, changed = waiting.pop(0)
                running[device] = context.Process(target=pretrain, args=(name, out / name, changed, device))
                running[device].start()
        time.sleep(0.2)
        for device, process in list(running.items()):
            if not process.is_alive():
                if process.exitcode:
                    raise SystemExit(f"a pretraining ended with {process.exitcode}")
                del running[device]
    found = {}
    for name, changed in variants(config).items():
        record = FidelityFolder.open(out / name, changed).found(PRETRAIN.name)
        if record is None:
            raise SystemExit(f"{name}: no record of its pretraining")
        found[name] = record
    best = min(found, key=lambda name: found[name]["after"]["loss"]["answer"])
    (out / "variants.json").write_text(json.dumps({"best": best, "variants": found}, indent=1))
    for name, record in found.items():
        print(name, json.dumps(record["after"]), flush=True)
    return best


def main() -> None:
    """Pretrain what is left."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--profile", default="gpu", help="smoke tries the script on a CPU")
    parser.add_argument("--devices", type=int)
    parser.add_argument("--pretrain-steps", type=int)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    config = with_steps(profile(options.profile), pretrain=options.pretrain_steps)
    devices = find_devices("cuda" if options.profile == "gpu" else "cpu", options.devices)
    print(f"best variant of pretraining: {all_variants(options.out, config, devices)}", flush=True)


if __name__ == "__main__":
    main()
