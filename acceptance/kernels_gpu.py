"""What kernels reach on one H200: the records under `benchmarks/results/`, judged by the goals.

Every record was written by a script that refuses to report on a red check (`python -m benchmarks.kernels FOLDER`,
`python -m envsynth.train.overhead`, `python -m benchmarks.policy_gpu`). This script only reads them; `--fast` does the same.
A goal that is not met is a FAIL here, and stands with its number in docs/guides/kernels.md.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from acceptance.claims import Claims
from envsynth.train.overhead.record import dense_best

RESULTS = Path(__file__).resolve().parents[1] / "benchmarks" / "results"
LENGTHS_END_TO_END = (2048, 4096, 8192, 16384, 32768, 65536)


def read(claims: Claims, name: str) -> dict[str, Any] | None:
    """Read a record; say so where there is none."""
    file = RESULTS / f"{name}.json"
    if not file.is_file():
        claims.line(f"{name}: a record", "absent", "there", False)
        return None
    return json.loads(file.read_text())


def at_most(claims: Claims, name: str, value: float, limit: float, unit: str = "") -> None:
    """Claim that a number is at most a limit."""
    claims.line(name, f"{value:.3g}{unit}", f"<= {limit:g}{unit}", value <= limit)


def at_least(claims: Claims, name: str, value: float, limit: float, unit: str = "") -> None:
    """Claim that a number is at least a limit."""
    claims.line(name, f"{value:.4g}{unit}", f">= {limit:g}{unit}", value >= limit)


def topk(claims: Claims) -> None:
    """Selection of 2,048 scores."""
    if (record := read(claims, "kernels-topk")) is None:
        return
    claims.line("topk: checks", record["checks"], "green", record["checks"] == "green")
    for one in record["shapes"]:
        if one["goal_ms"] is not None:
            name = f"topk: {one['rows']} x {one['scores']}, k {one['k']} (torch.topk {one['torch_topk_ms']:.3f} ms)"
            at_most(claims, name, one["topk_ms"], one["goal_ms"], " ms")


def indexer(claims: Claims) -> None:
    """Scores in eight bits."""
    if (record := read(claims, "kernels-indexer")) is None:
        return
    claims.line("indexer: checks", record["checks"], "green", record["checks"] == "green")
    for one in record["measured"]:
        if one["kernel"] == "logits" and one["goal_tflops"] is not None:
            name = f"indexer: eight bits, {one['heads']} heads, {one['queries']} x {one['keys']}"
            at_least(claims, name, one["tflops"], one["goal_tflops"], " TFLOP/s")


def sparse_attention(claims: Claims) -> None:
    """Attention to 256 keys beside another implementation, and in a fixed order beside atomics."""
    if (record := read(claims, "kernels-sparse_attention")) is None:
        return
    red = [one for one in record["checks"] if one["red"]]
    claims.line("sparse attention: red checks", len(red), "0", not red)
    for one in record["times"]:
        heads = int(one["shape"].split(" H")[1].split()[0])
        name = f"sparse attention: {one['shape']}, {one['indices']}"
        packed = {item["queries"]: item for item in one["ours"]["backward"]}
        usual = packed[one["ours"]["queries"]]
        ratio = usual["backward"] / usual["backward, atomics"]
        at_most(claims, f"{name}: backward in a fixed order / with atomics", ratio, 1.35)
        if one["peer"] is None or "refused" in one["peer"]:
            continue
        forward, backward, peer = one["ours"]["ms"]["forward"], usual["backward, atomics"], one["peer"]
        limit = 0.67 if heads >= 16 else 0.55
        at_most(claims, f"{name}: forward / TileLang tuned", forward / peer["forward"], limit)
        at_most(claims, f"{name}: backward (atomics, as TileLang) / TileLang tuned", backward / peer["backward"], 0.67)
        for what, ours, most in (("forward", forward, limit), ("backward", backward, 0.67)):
            for setting, ms in list(peer.get("settings", {}).get(what, {}).items())[:1]:
                at_most(claims, f"{name}: {what} / TileLang as its example has it ({setting})", ours / ms, most)
    with_peer = sum(one["peer"] is not None and "refused" not in one["peer"] for one in record["times"])
    claims.line("sparse attention: cases beside TileLang", with_peer, ">= 16", with_peer >= 16)


def dense_kl(claims: Claims) -> None:
    """The loss of the dense warm-up."""
    if (record := read(claims, "kernels-dense_kl")) is not None:
        claims.line("dense loss: checks", record["checks"], "green", record["checks"] == "green")


def experts(claims: Claims) -> None:
    """A layer of experts, forward and backward."""
    if (record := read(claims, "kernels-experts")) is None:
        return
    claims.line("experts: checks", record["checks"], "green", record["checks"] == "green")
    for one in record["shapes"]:
        name = f"experts: {one['name']}, times as fast as torch._grouped_mm"
        at_least(claims, f"{name}, replayed from CUDA graphs", one["faster_captured"], 1.3)
        at_least(claims, f"{name}, launched from Python", one["faster_both"], 1.3)


def logprobs(claims: Claims) -> None:
    """Log-probabilities, forward and backward."""
    if (record := read(claims, "kernels-logprobs")) is None:
        return
    for one in record["cases"]:
        for mask in ("", ", masked"):
            ours, plain = one[f"ours{mask}"], one[f"unfused{mask}"]
            name = f"logprobs: {one['rows']} x {one['width']} x {one['vocabulary']}, head {one['types'][1][6:]}{mask}"
            captured = ours["both_captured_ms"] / plain["both_captured_ms"]
            at_most(claims, f"{name}: time, replayed from CUDA graphs", captured, 1.0)
            at_most(claims, f"{name}: time, launched from Python", ours["both_ms"] / plain["both_ms"], 1.0)
            at_most(claims, f"{name}: memory", ours["both_gib"] / plain["both_gib"], 0.6)


def repeats(claims: Claims) -> None:
    """Equal bits of every operator, run again and with the batch in other orders."""
    if (record := read(claims, "kernels-repeats")) is None:
        return
    for name, one in record["cases"].items():
        differing = one["differing reruns"] + one["differing permutations"]
        whole = one["reruns"] >= 20 and one["permutations"] > 0
        found = f"{differing} of {one['reruns']} reruns and {one['permutations']} orders"
        claims.line(f"equal bits: {name}: differing", found, "0 of 20 and more", whole and not differing)


def layer(claims: Claims) -> None:
    """A whole layer in training beside dense attention, and what it takes of memory."""
    if (record := read(claims, "dsa-overhead")) is None:
        return
    wrong = [item["name"] for one in record["checks"].values() for item in one["checks"] if not item["passes"]]
    claims.line("layer: red checks", len(wrong), "0", bool(record["checks"]) and not wrong)
    found = {(row["preset"], row["length"], row["k"], row["part"]): row for row in record["rows"]}
    for preset in ("base", "large"):
        for length in (8192, 16384, 32768):
            for how, by in (("replayed from CUDA graphs", "captured_ms"), ("launched from Python", "ms")):
                dense = dense_best(record["rows"], preset, length, "training", by)
                for k in (256, 512):
                    ours = found.get((preset, length, k, "layer_training"))
                    name = f"layer: {preset}, {length} tokens, k {k}, times as fast as dense attention, {how}"
                    if dense is None or ours is None or ours[by] is None:
                        claims.line(name, "not measured", "measured", False)
                    else:
                        at_least(claims, name, dense[by] / ours[by], 3.0 if length == 32768 else 1.0)
    for (preset, length, k, part), row in found.items():
        if part == "layer_training" and length >= 65536 and row["ms"] is not None:
            share = row["memory_bytes"] / length**2
            at_most(claims, f"layer: {preset}, {length} tokens, k {k}: peak memory in bytes per pair", share, 1.0)


def end_to_end(claims: Claims) -> None:
    """Training steps and generation of whole policies."""
    if (record := read(claims, "policy-gpu")) is None:
        return
    for preset in ("base", "large"):
        lengths = sorted({row["length"] for row in record["rows"] if row["preset"] == preset})
        there = set(LENGTHS_END_TO_END) <= set(lengths)
        claims.line(f"end to end: {preset}, lengths", lengths, f"{list(LENGTHS_END_TO_END)}", there)
        for what in ("training", "generation"):
            found = {
                (row["length"], row["mode"])
                for row in record["rows"]
                if row["preset"] == preset and row["what"] == what
            }
            count = sum({(length, "kernels"), (length, "off")} <= found for length in LENGTHS_END_TO_END)
            claims.line(
                f"end to end: {preset}, {what} with and without kernels", count, "every length", count == len(lengths)
            )


def main() -> int:
    """Print the lines."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fast", action="store_true", help="the same: records are read in no time")
    parser.parse_args()
    claims = Claims()
    for part in (topk, indexer, sparse_attention, dense_kl, experts, logprobs, repeats, layer, end_to_end):
        part(claims)
    return claims.exit_code()


if __name__ == "__main__":
    raise SystemExit(main())
