"""Sparse attention beside its dense twin: the experiment is honest, and its record holds every cell and every failure.

`--fast` runs the smallest profile of the experiment and looks at its structure; both ways read the record that a run on
GPUs left.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

from acceptance.claims import Claims

RECORD = Path(__file__).resolve().parents[1] / "benchmarks" / "results" / "dsa-fidelity.json"
TOPKS, HEADS = (32, 64, 128, 256, 512, 1024), (1, 2, 4, 8)
SMOKE_S = 60.0
EQUAL = ("batches", "steps", "tokens", "rates")


def smoke(claims: Claims) -> None:
    """Run the smallest profile."""
    from envsynth.train.fidelity.config import profile  # noqa: PLC0415 (reading a record needs no torch)
    from envsynth.train.fidelity.experiment import run_experiment  # noqa: PLC0415

    config = profile("smoke")
    with tempfile.TemporaryDirectory() as folder:
        began = time.monotonic()
        done = run_experiment(Path(folder) / "run", config, ["cpu"])
        seconds = time.monotonic() - began
        result = json.loads(done.file.read_text())
        again = time.monotonic()
        run_experiment(Path(folder) / "run", config, ["cpu"])
        repeated = time.monotonic() - again
    claims.line(
        "smoke: every job is finished", len(result["jobs"]), "8 jobs", len(result["jobs"]) == 8 and done.complete
    )
    claims.line("smoke: seconds", f"{seconds:.0f}", f"<= {SMOKE_S:g}", seconds <= SMOKE_S)
    claims.line("smoke: a second run has nothing to do", f"{repeated:.1f} s", "<= 2 s", repeated <= 2)
    structure(claims, "smoke", result, config.topks, config.heads)


def structure(
    claims: Claims, name: str, result: dict[str, Any], topks: tuple[int, ...], heads: tuple[int, ...]
) -> None:
    """Check what every record must hold."""
    cells = result["cells"]
    found = sorted((cell["heads"], cell["topk"]) for cell in cells if cell["verdict"] != "missing")
    wanted = sorted((head, k) for head in heads for k in topks)
    claims.line(f"{name}: cells with numbers", len(found), f"{len(wanted)}: heads {heads}, k {topks}", found == wanted)
    training = {job["name"]: job["training"] for job in result["jobs"]}
    unequal = [
        job["name"]
        for job in result["jobs"]
        if job["kind"] == "sparse"
        and any(job["training"][key] != training[f"seed{job['seed']}-twin"][key] for key in EQUAL)
    ]
    claims.line(
        f"{name}: sparse runs with other batches, steps or rates than their dense twin", len(unequal), "0", not unequal
    )
    wrong = [cell for cell in cells if not agrees(cell, result["twin"])]
    claims.line(f"{name}: cells whose verdict disagrees with its numbers", len(wrong), "0", not wrong)
    named = [f"heads={cell['heads']} k={cell['topk']}: {line}" for cell in cells for line in cell["failures"]]
    claims.line(
        f"{name}: failing measures that are named",
        len(result["failures"]),
        str(len(named)),
        result["failures"] == named,
    )
    counted = all(share["n"] > 0 for cell in cells if "after" in cell for share in cell["after"]["accuracy"].values())
    claims.line(f"{name}: accuracies say of how many", counted, "True", counted)
    curves = [job for job in result["jobs"] if job["kind"] in ("warmup", "sparse")]
    with_recall = [job for job in curves if sum("recall" in point for point in job["training"]["curve"]) >= 2]
    claims.line(
        f"{name}: runs with recall over training",
        len(with_recall),
        str(len(curves)),
        len(with_recall) == len(curves) > 0,
    )


def agrees(cell: dict[str, Any], twin: dict[str, Any] | None) -> bool:
    """Judge a cell again, from its own numbers alone."""
    if cell["verdict"] == "missing" or twin is None:
        return False
    failing = undecided = 0
    measures = [*cell["after"]["accuracy"], "answer_loss"]
    for measure in measures:
        if measure == "answer_loss":
            mine, other = cell["after"]["loss"]["answer"], twin["loss"]["answer"]
            worse = mine - other
        else:
            mine, other = (item["accuracy"][measure]["right"] for item in (cell["after"], twin))
            worse = other - mine
        undecided += other == 0
        failing += other != 0 and worse / other > 0.05 + 1e-9
    expected = "FAILED" if failing else "undecided" if undecided else "ok"
    return cell["verdict"] == expected and len(cell["failures"]) == failing


def recorded(claims: Claims) -> None:
    """What a run on GPUs left."""
    if not RECORD.is_file():
        claims.line("recorded: benchmarks/results/dsa-fidelity.json", "absent", "there", False)
        return
    result = json.loads(RECORD.read_text())
    context = result["settings"]["context"]
    claims.line("recorded: every job is finished", result["complete"], "True", result["complete"])
    claims.line(
        "recorded: context beside the largest k", f"{context} / {max(TOPKS)}", ">= 8", context >= 8 * max(TOPKS)
    )
    structure(claims, "recorded", result, TOPKS, HEADS)
    for cell in result["cells"]:
        print(f"      heads={cell['heads']} k={cell['topk']}: {cell['verdict']}")
    for line in result["failures"]:
        print(f"      fails: {line}")
    if result["unlearned"]:
        print(f"      the dense twin itself is below 50 % in {', '.join(result['unlearned'])}")


def main() -> int:
    """Print the lines."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fast", action="store_true", help="run the smallest profile as well")
    options = parser.parse_args()
    claims = Claims()
    if options.fast:
        smoke(claims)
    recorded(claims)
    return claims.exit_code()


if __name__ == "__main__":
    raise SystemExit(main())
