"""Claim: tools give the same results in the jail as in plain CPython on plain SQLite; at least 200 modules.

The modules are the tools of synthesized environments (several categories and the nano tier), of the example, and of
`same_modules`. Their calls are those that the oracle made, and edge cases made from the schemas. Each sequence of calls
runs once through `ToolRuntime`, once by `plain_runner` in a fresh process; compared are results, error types, codes and
messages, and after each call the rows of all tables. `--fast`: a quarter of the modules.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from acceptance.claims import Claims
from acceptance.same_modules import CASES, handmade
from envsynth.actors import OracleActor
from envsynth.environments import build_image
from envsynth.environments.examples import EXAMPLES
from envsynth.environments.hosts import WorldHosts
from envsynth.environments.plays import run
from envsynth.environments.tools import Call, ToolRuntime, check_arguments
from envsynth.errors import EnvironmentVoid
from envsynth.rollout import play
from envsynth.sandbox import Jail
from envsynth.spec import EnvironmentSpec, TaskVersion, Tool
from envsynth.store import Store

FOLDER = Path(__file__).resolve().parent
TARGET, FAST_TARGET = 200, 50
RUNS = (
    ("planning a travel itinerary", "--count", "3", "--seed", "5"),
    ("booking laboratory equipment", "--count", "3", "--seed", "6"),
    ("warehouse orders with discount coupons", "--count", "3", "--seed", "7"),
    ("lending things", "--tier", "nano", "--count", "12", "--seed", "8"),
)
FAST_RUNS = (("lending things", "--tier", "nano", "--count", "3", "--seed", "8"),)
"""What is synthesized."""
EDGES = 4
"""Edge cases for each tool and task."""
ROWS_TOOL = Tool(
    name="rows_of_all",
    effect="read",
    description="digest of all tables",
    parameters={"type": "object", "properties": {}, "additionalProperties": False},
    source="""
import hashlib, json
def rows_of_all(db):
    found = {}
    for item in db.execute("SELECT name, sql FROM sqlite_master WHERE type = 'table' ORDER BY name").fetchall():
        rows = db.execute('SELECT * FROM "' + item["name"] + '"').fetchall()
        text = json.dumps([item["sql"], rows], default=bytes.hex)
        found[item["name"]] = [len(rows), hashlib.sha256(text.encode()).hexdigest()[:16]]
    return found
""",
)
"""Looks at the rows from inside the jail: the host never opens a database that untrusted code has written."""
ODD_TEXTS = ("", " ", "nope", "\u00c9t\u00e9", "x" * 300, "2024-02-30", "%", "'; --", "0")
ODD_NUMBERS = (0, 1, -1, 2, 7, 10**6, 2**53, -(2**63))


@dataclass
class Tally:
    """What was compared."""

    modules: set[str] = field(default_factory=set)
    """Different sources that were called."""
    calls: int = 0
    ends: dict[str, int] = field(default_factory=dict)
    """Calls by outcome."""
    differences: list[str] = field(default_factory=list)


# ----------------------------------------------------------------------------------------------------------- calls


def recorded(spec: EnvironmentSpec, task: TaskVersion, jail: Jail) -> list[Call]:
    """Return the calls that the oracle makes.

    Raises:
        SystemExit: it did not solve the task.
    """
    actor = OracleActor({task.hash: task}, jail)
    trajectory = play(spec, task, actor, jail=jail)
    actor.close()
    if trajectory.reward != 1.0:
        raise SystemExit(f"the oracle failed: {trajectory.verdict}")
    return [Call(turn.call.tool, turn.call.arguments) for turn in trajectory.turns if turn.call is not None]


def edges(spec: EnvironmentSpec, calls: Sequence[Call], seed: str) -> Iterator[Call]:
    """Make calls that the tools' schemas let through: seen values mixed, and values at and beyond the edges."""
    rng = random.Random(f"same/{seed}")
    seen: dict[str, list[Any]] = {}
    for call in calls:
        for name, value in call.arguments.items():
            seen.setdefault(name, []).append(value)
    texts = [str(cell) for rows in spec.world.rows.values() for row in rows[:3] for cell in row]
    for tool in spec.tools:
        made = 0
        for _ in range(20 * EDGES):
            arguments = _arguments(tool, seen, texts, rng)
            if check_arguments(tool, arguments) is None:
                made += 1
                yield Call(tool=tool.name, arguments=arguments)
            if made == EDGES:
                break


def _arguments(tool: Tool, seen: dict[str, list[Any]], texts: Sequence[str], rng: random.Random) -> dict[str, Any]:
    schema: Any = tool.parameters
    found: dict[str, Any] = {}
    for name, rule in schema.get("properties", {}).items():
        if name not in schema.get("required", ()) and rng.random() < 0.4:
            continue
        if name in seen and rng.random() < 0.6:
            found[name] = rng.choice(seen[name])
        else:
            found[name] = _value(rule, texts, rng)
    return found


def _value(rule: dict[str, Any], texts: Sequence[str], rng: random.Random) -> Any:
    match rule.get("type"):
        case _ if "enum" in rule:
            found: Any = rng.choice(rule["enum"])
        case "integer":
            found = rng.choice([*ODD_NUMBERS, rule.get("minimum", 0), rng.randrange(24)])
        case "number":
            found = rng.choice([0.5, -1.25, 1e300, *ODD_NUMBERS])
        case "boolean":
            found = rng.random() < 0.5
        case "array":
            found = [_value(rule.get("items", {}), texts, rng) for _ in range(rng.randrange(4))]
        case _ if "pattern" in rule:
            found = f"2024-{rng.randint(1, 12):02}-{rng.randint(1, 31):02}"
        case _:
            found = rng.choice([*ODD_TEXTS, *texts, *texts])
    return found


# ------------------------------------------------------------------------------------------------------------ sides


def in_jail(spec: EnvironmentSpec, image: bytes, calls: Sequence[Call], jail: Jail) -> list[Any]:
    """Run calls through the runtime that episodes use; return outcome and rows after each.

    Raises:
        EnvironmentVoid: a worker died, or the rows could not be read.
    """
    wide = spec.model_copy(update={"tools": (*spec.tools, ROWS_TOOL), "error_style": "verbose"})
    hosts = WorldHosts(jail, wide)
    runtime = ToolRuntime(hosts, wide)
    run(runtime.reset("image", image))
    found: list[Any] = []
    for call in calls:
        result, _ = run(runtime.call(call))
        rows, _ = run(runtime.call(Call(tool=ROWS_TOOL.name, arguments={})))
        if rows.error is not None:
            raise EnvironmentVoid(f"the rows could not be read: {rows.defect}")
        outcome: list[Any]
        if result.defect is not None:
            status, _, rest = result.defect.removeprefix(f"{call.tool}: ").partition(": ")
            kind, _, message = rest.partition(": ")
            outcome = ["raised", kind, message] if status == "tool_error" else [status]
        elif result.error is not None:
            error: Any = json.loads(result.text)["error"]
            outcome = ["refused", error["code"], error["message"]]
        else:
            outcome = ["ok", json.dumps(json.loads(result.text)["result"], ensure_ascii=False)]
        found.append([outcome, json.loads(rows.text)["result"]])
    runtime.close()
    return found


def in_plain(spec: EnvironmentSpec, image: bytes, calls: Sequence[Call]) -> list[Any]:
    """Run calls in a fresh plain process; return outcome and rows after each.

    Raises:
        SystemExit: the process failed.
    """
    job = {
        "image": base64.b64encode(image).decode(),
        "sources": {tool.name: tool.source for tool in spec.tools},
        "calls": [[call.tool, call.arguments] for call in calls],
    }
    environment = {"PATH": os.defpath, "LANG": "C.UTF-8", "PYTHONHASHSEED": "0"}
    if "LD_LIBRARY_PATH" in os.environ:
        environment["LD_LIBRARY_PATH"] = os.environ["LD_LIBRARY_PATH"]
    command = [sys.executable, "-S", "-s", "-P", str(FOLDER / "plain_runner.py")]
    done = subprocess.run(command, input=json.dumps(job), env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"the plain runner ended with {done.returncode}: {done.stderr[-2000:]}")
    return json.loads(done.stdout)


def compare(spec: EnvironmentSpec, image: bytes, calls: Sequence[Call], jail: Jail, tally: Tally) -> None:
    """Run calls on both sides and note where they differ."""
    jailed, plain = in_jail(spec, image, calls, jail), in_plain(spec, image, calls)
    sources = {tool.name: tool.source for tool in spec.tools}
    for call, ours, theirs in zip(calls, jailed, plain, strict=True):
        tally.calls += 1
        tally.modules.add(sources[call.tool])
        tally.ends[ours[0][0]] = tally.ends.get(ours[0][0], 0) + 1
        for what, left, right in zip(("outcome", "rows"), ours, theirs, strict=True):
            if left != right:
                asked = f"{spec.slug}: {call.tool} {json.dumps(call.arguments)[:200]}"
                tally.differences.append(f"{asked}: {what}: in the jail {left!s:.400}, in plain CPython {right!s:.400}")


# ---------------------------------------------------------------------------------------------------------- modules


def synthesized(store: Path, runs: Sequence[tuple[str, ...]]) -> Iterator[tuple[EnvironmentSpec, TaskVersion]]:
    """Synthesize environments into a store and yield each with two of its tasks."""
    for options in runs:
        command = [sys.executable, "-m", "envsynth.cli", "synthesize", *options, "--store", str(store)]
        command += ["--lineages", "1", "--steps", "2", "--workers", "1", "--json"]
        subprocess.run(command, check=True, capture_output=True)
    with Store.open(store, readonly=True) as opened:
        specs = sorted(opened.environments(), key=lambda spec: spec.hash)
        tasks = sorted(opened.tasks(), key=lambda task: task.hash)
        for spec in specs:
            yield from ((spec, task) for task in [task for task in tasks if task.environment == spec.hash][:2])


def main() -> int:
    """Print the lines."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fast", action="store_true")
    options = parser.parse_args()
    tally = Tally()
    with tempfile.TemporaryDirectory() as folder, Jail() as jail:
        spec = handmade()
        calls = [Call(tool=tool.name, arguments={"n": n}) for n in CASES for tool in spec.tools]
        compare(spec, build_image(jail, spec.world), calls, jail, tally)
        by_hand = len(tally.modules)
        pairs = [make() for make in EXAMPLES.values()]
        pairs += synthesized(Path(folder, "same.db"), FAST_RUNS if options.fast else RUNS)
        for spec, task in pairs:
            calls = recorded(spec, task, jail)
            calls += edges(spec, calls, task.hash)
            compare(spec, build_image(jail, spec.world, task.overlay), calls, jail, tally)
    for line in tally.differences[:20]:
        print(f"      {line}")
    told = ", ".join(f"{count} {name}" for name, count in sorted(tally.ends.items()))
    print(
        f"      {len(pairs)} tasks of {len({spec.hash for spec, _ in pairs})} environments, {by_hand} modules by hand"
    )
    print(f"      {tally.calls} calls: {told}")
    target = FAST_TARGET if options.fast else TARGET
    claims = Claims()
    claims.line("tool modules compared", len(tally.modules), f">= {target}", len(tally.modules) >= target)
    found = len(tally.differences)
    claims.line("differences of results, errors or rows", f"{found} in {tally.calls} calls", "0", found == 0)
    return claims.exit_code()


if __name__ == "__main__":
    raise SystemExit(main())
