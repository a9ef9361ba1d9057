"""The benchmark's peers: what they are compared with, and what is said where one is not there."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import pytest

from benchmarks import peer_servers, synthesis
from envsynth.environments import build_image
from envsynth.sandbox import Jail
from envsynth.spec import EnvironmentSpec, TaskVersion


@pytest.fixture
def world(tmp_path: Path, jail: Jail, shop: EnvironmentSpec) -> Path:
    tools = [{"name": tool.name, "parameters": tool.parameters, "source": tool.source} for tool in shop.tools]
    path = tmp_path / "world.json"
    path.write_text(json.dumps({"image": build_image(jail, shop.world).hex(), "tools": tools, "steps": []}))
    return path


@pytest.mark.parametrize("kind", ["mcp", "openenv"])
def test_a_peer_that_is_not_installed_is_not_measured_and_the_reason_is_told(world: Path, kind: str) -> None:
    if importlib.util.find_spec(kind) is not None:
        pytest.skip(f"{kind} is installed here")
    with pytest.raises(LookupError, match=f"No module named '{kind}"), synthesis.peer(sys.executable, kind, world, ""):
        pass
    with (
        pytest.raises(LookupError, match="cannot start nowhere: No such file"),
        synthesis.peer("nowhere", kind, world, ""),
    ):
        pass


def test_the_whole_comparison_without_peers(
    tmp_path: Path, jail: Jail, shop: EnvironmentSpec, value_task: TaskVersion
) -> None:
    if any(importlib.util.find_spec(kind) for kind in ("mcp", "openenv")):
        pytest.skip("peers are installed here")
    found = synthesis.steps_per_second(jail, shop, value_task, tmp_path, sys.executable, 1)
    assert set(found["per_second"]) == {
        "envsynth, one environment",
        "envsynth, 64 together",
        "plain SQLite in this process",
    }
    assert all(rate > 1 for rate in found["per_second"].values())
    assert list(found["not_measured"]) == list(synthesis.PEERS.values())
    steps = json.loads((tmp_path / "world.json").read_text())["steps"]
    assert found["solution, calls"] == len(steps) > 0
    plain = peer_servers.World(str(tmp_path / "world.json"))
    first = [plain.call(step["tool"], step["arguments"]) for step in steps]
    plain.open()
    assert [plain.call(step["tool"], step["arguments"]) for step in steps] == first
