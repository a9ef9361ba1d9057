"""The limit over all workers together: made where it can be, said to be off where it cannot, removed afterwards."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from envsynth.sandbox import Failure, Jail, Limits
from envsynth.sandbox import control_group as module
from envsynth.sandbox.control_group import ControlGroup

HOARD = "kept = []\n\ndef hoard(mib):\n    kept.append(b'x' * (mib << 20))\n    return mib\n"


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(module, "_ROOT", tmp_path)
    return tmp_path


def written(root: Path) -> dict[str, str]:
    return {
        f"{path.parent.parent.relative_to(root)} {path.name}": path.read_text()
        for path in root.rglob("*")
        if path.is_file() and path.parent.name.startswith("envsynth-")
    }


def test_limits_in_the_unified_hierarchy(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "cgroup.controllers").write_text("memory pids")
    (root / "user").mkdir()
    monkeypatch.setattr(module, "_own_groups", lambda: {"": "/user"})
    group = ControlGroup(100, 7)
    assert written(root) == {"user memory.max": str(100 << 20), "user pids.max": "15"}
    assert group.state == "100 MiB and 7 workers together"
    group.add(1234)
    assert written(root)["user cgroup.procs"] == "1234"


def test_limits_in_separate_hierarchies(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "memory" / "a").mkdir(parents=True)
    (root / "pids").mkdir()
    monkeypatch.setattr(module, "_own_groups", lambda: {"memory": "/a", "pids": "/", "cpu": "/", "": "/"})
    ControlGroup(100, 7)
    assert written(root) == {"memory/a memory.limit_in_bytes": str(100 << 20), "pids pids.max": "15"}


@pytest.mark.parametrize("groups", [{}, {"cpu": "/"}, {"memory": "/not/there"}])
def test_where_there_is_none_it_says_so(root: Path, monkeypatch: pytest.MonkeyPatch, groups: dict[str, str]) -> None:
    (root / "memory").mkdir()
    monkeypatch.setattr(module, "_own_groups", lambda: groups)
    group = ControlGroup(None, 7)
    assert group.state.startswith("off: ")
    group.add(1)
    group.close()
    assert written(root) == {}


def test_process_that_may_not_be_moved_turns_it_off(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "pids").mkdir()
    monkeypatch.setattr(module, "_own_groups", lambda: {"pids": "/"})
    group = ControlGroup(100, 7)
    (group._folders[0] / "cgroup.procs").mkdir()
    group.add(1)
    assert group.state.startswith("off: ")


def test_groups_of_dead_hosts_are_swept(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "pids" / "envsynth-99999999-1").mkdir(parents=True)
    (root / "pids" / f"envsynth-{os.getpid()}-1").mkdir()
    monkeypatch.setattr(module, "_own_groups", lambda: {"pids": "/"})
    ControlGroup(100, 7)
    left = {path.name for path in (root / "pids").iterdir()}
    assert "envsynth-99999999-1" not in left
    assert f"envsynth-{os.getpid()}-1" in left


def test_workers_together_have_a_limit_and_nothing_is_left() -> None:
    """Without the right to make a group, that is said, and each worker still has its own limit."""
    before = leftovers()
    with Jail(Limits(memory_mb=200), total_memory_mb=240) as jail:
        made = not jail.layers["control group"].startswith("off")
        workers = [jail.worker("tools") for _ in range(3)]
        for worker in workers:
            worker.load(HOARD)
        found = [worker.call("hoard", {"mib": 120}).status for worker in workers]
        # The kernel takes the largest, which need not be the one that asked last.
        found += [worker.call("hoard", {"mib": 0}).status for worker in workers if worker.alive]
        assert (Failure.MEMORY in found) == made
        for worker in workers:
            worker.close()
        with jail.worker("tools") as worker:
            assert worker.load(HOARD).ok
    assert leftovers() == before


def leftovers() -> set[Path]:
    found = {Path("/sys/fs/cgroup") / name for name in ("memory", "pids", ".")}
    return {path for folder in found for path in folder.rglob(f"envsynth-{os.getpid()}-*")}
