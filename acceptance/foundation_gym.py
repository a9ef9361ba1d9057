"""Gymnasium: `check_env`, `make_vec` in three modes, random actions, speed beside plain SQLite in the same run.

Full: the built-in example and 19 synthesized environments, 10,000 random actions. `--fast`: 3 environments, 1,000 actions.
`--store PATH` plays the environments of an existing store instead of synthesizing some.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sqlite3
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import gymnasium
from gymnasium.utils.env_checker import check_env

from acceptance.claims import Claims
from envsynth.environments import ToolEnv
from envsynth.environments.examples import trip_planning
from envsynth.gym_ids import register_all, register_store

TIMED_S = 2.0
CATEGORY = "planning a travel itinerary"


def synthesized(count: int, folder: Path) -> Path:
    """Fill a store through the command line, as a user would.

    Raises:
        SystemExit: the command failed.
    """
    store = folder / "gym.db"
    command = [sys.executable, "-m", "envsynth.cli", "synthesize", CATEGORY, "--count", str(count)]
    command += ["--seed", "1", "--workers", "2", "--store", str(store), "--json"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"synthesize ended with {done.returncode}: {done.stderr[-2000:]}")
    return store


def checked(ids: list[str]) -> list[str]:
    """Run Gymnasium's own checker on each id, warnings as errors; return what failed."""
    failed: list[str] = []
    for name in ids:
        env = gymnasium.make(name)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                check_env(env.unwrapped)
        except (AssertionError, Exception) as error:  # noqa: BLE001 - the claim is that nothing fails
            failed.append(f"{name}: {type(error).__name__}: {error}")
        env.close()
    return failed


def vectorized(ids: list[str], mode: str | None) -> list[str]:
    """Make a vector environment of each id, reset it and step through an autoreset; return what failed."""
    failed: list[str] = []
    for name in ids:
        try:
            envs = gymnasium.make_vec(name, num_envs=2, vectorization_mode=mode)
            texts, _ = envs.reset(seed=1)
            actions = ('{"answer": {}}', "no JSON")
            for _ in range(3):
                texts, rewards, *_, infos = envs.step(actions)
                if texts not in envs.observation_space or rewards.any() or "void" in infos:
                    failed.append(f"{name}: {texts}, {rewards}, {infos.get('void')}")
            envs.close()
        except Exception as error:  # noqa: BLE001 - the claim is that nothing fails
            failed.append(f"{name}: {type(error).__name__}: {error}")
    return failed


def random_value(rng: random.Random, schema: dict[str, Any], words: list[Any]) -> Any:
    """Make a value that fits the type three times of four."""
    if rng.random() < 0.25:
        return rng.choice([None, True, -1, 10**30, 1.5, "", "\u00e9'; DROP TABLE x; --", [], {}, float("inf")])
    if "enum" in schema:
        return rng.choice(schema["enum"])
    kind = schema.get("type")
    if kind == "integer":
        return rng.choice([0, 1, 2, rng.randint(-5, 5000)])
    if kind == "array":
        return [random_value(rng, schema.get("items", {}), words) for _ in range(rng.randint(0, 4))]
    return rng.choice(words) if kind == "string" else rng.choice([True, False])


def random_action(rng: random.Random, env: ToolEnv, words: list[Any]) -> str:
    """Make any text: noise, odd JSON, a call of an existing tool, or sometimes an answer."""
    draw = rng.random()
    if draw < 0.2:
        return env.action_space.sample()
    if draw < 0.25:
        return json.dumps({"answer": {key: rng.choice(words) for key in env.task.answer_schema.get("properties", {})}})
    tool = rng.choice(env.environment.tools)
    properties: Any = tool.parameters.get("properties", {})
    required: Any = tool.parameters.get("required", [])
    arguments = {
        name: random_value(rng, schema, words)
        for name, schema in properties.items()
        if rng.random() < (0.95 if name in required else 0.3)
    }
    text = json.dumps({"tool": tool.name, "arguments": arguments})
    return text if draw < 0.95 else text[: rng.randint(0, len(text))]


def play_at_random(ids: list[str], count: int) -> tuple[int, int, dict[str, int], list[str]]:
    """Play random actions; return how many, how many calls succeeded, error codes, and what was raised or void."""
    rng = random.Random("acceptance/random")
    codes: dict[str, int] = {}
    played, succeeded, failed = 0, 0, []
    for name in ids:
        made = gymnasium.make(name)
        env: Any = made.unwrapped
        env.action_space.seed(rng.randrange(2**31))
        words = [cell for rows in env.environment.world.rows.values() for row in rows for cell in row] + ["nothing"]
        over = True
        for _ in range(-(-count // len(ids))):
            if over:
                env.reset(seed=rng.randrange(2**31))
            try:
                _, _, terminated, truncated, info = env.step(random_action(rng, env, words))
            except Exception as error:  # noqa: BLE001 - the claim is that nothing raises
                failed.append(f"{name}: {type(error).__name__}: {error}")
                over = True
                continue
            over = terminated or truncated
            played += 1
            if info.get("void") or info.get("tool_defect"):
                failed.append(f"{name}: {info.get('void') or info['tool_defect']}")
            codes[str(info["error"])] = codes.get(str(info["error"]), 0) + 1
            succeeded += info["call"] is not None and info["error"] is None
        made.close()
    return played, succeeded, codes, failed


def rate(step: Any) -> float:
    """Count steps in a fixed time; return steps per second."""
    for _ in range(50):
        step()
    began, done = time.perf_counter(), 0
    while time.perf_counter() - began < TIMED_S:
        step()
        done += 1
    return done / (time.perf_counter() - began)


def speeds() -> dict[str, float]:
    """Steps per second of the same read call: plain SQLite in this process, one `ToolEnv`, four slots together."""
    spec, _ = trip_planning()
    plain = sqlite3.connect(":memory:")
    plain.execute("CREATE TABLE cities (name TEXT PRIMARY KEY)")
    plain.execute("CREATE TABLE hotels (name TEXT PRIMARY KEY, city TEXT)")
    plain.executemany("INSERT INTO cities VALUES (?)", [row[:1] for row in spec.world.rows["cities"]])
    plain.executemany("INSERT INTO hotels VALUES (?, ?)", [row[:2] for row in spec.world.rows["hotels"]])

    def query() -> str:
        city = json.loads('{"city": "Suzhou"}')["city"]
        plain.execute("SELECT 1 FROM cities WHERE name = ?", (city,)).fetchall()
        rows = plain.execute("SELECT name FROM hotels WHERE city = ? ORDER BY rowid", (city,))
        return json.dumps([row[0] for row in rows])

    action = json.dumps({"tool": "get_all_hotels_by_city", "arguments": {"city": "Suzhou"}})
    env = gymnasium.make("envsynth/trip-planning-v1", max_turns=10**9)
    env.reset(seed=1)
    envs = gymnasium.make_vec("envsynth/trip-planning-v1", num_envs=4, max_turns=10**9)
    envs.reset(seed=1)
    found = {
        "plain SQLite": rate(query),
        "ToolEnv": rate(lambda: env.step(action)),
        "ToolVectorEnv of 4": 4 * rate(lambda: envs.step((action,) * 4)),
        "ToolEnv resets": rate(lambda: env.reset(seed=1)),
    }
    env.close()
    envs.close()
    plain.close()
    return found


def main() -> int:
    """Print the lines."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fast", action="store_true")
    parser.add_argument("--store", type=Path)
    options = parser.parse_args()
    wanted, actions = (3, 1_000) if options.fast else (20, 10_000)
    claims = Claims()
    with tempfile.TemporaryDirectory() as name:
        os.environ["ENVSYNTH_STORE"] = str(Path(name) / "none.db")
        examples = register_all()
        store = options.store or synthesized(wanted - len(examples), Path(name))
        ids = [*examples, *(found for found in register_store(store) if found not in examples)][:wanted]
        claims.line("environments", len(ids), f"{wanted}", len(ids) == wanted)
        failed = checked(ids)
        claims.line("check_env without a warning", len(ids) - len(failed), f"{len(ids)}", not failed)
        for mode in ("sync", "async", None):
            broken = vectorized(ids, mode)
            label = f"make_vec {mode or 'ours'}"
            claims.line(label, len(ids) - len(broken), f"{len(ids)}", not broken)
            failed += broken
        played, succeeded, codes, raised = play_at_random(ids, actions)
        enough = played >= actions and succeeded > actions // 10
        claims.line(
            "random actions that raise, void or break a tool", len(raised), f"0 of {actions}", enough and not raised
        )
        print(f"      {played} actions, {succeeded} calls succeeded; error codes {codes}")
        found = speeds()
        for label, value in found.items():
            claims.line(f"{label}, steps/s", f"{value:,.0f}", "printed", value > 0)
        print(f"      plain SQLite is {found['plain SQLite'] / found['ToolEnv']:.1f} times as fast as ToolEnv")
        for line in failed + raised[:10]:
            print(f"      {line[:300]}")
    return claims.exit_code()


if __name__ == "__main__":
    raise SystemExit(main())
