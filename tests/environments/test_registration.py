from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import gymnasium
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode

from envsynth.environments import ToolEnv, ToolVectorEnv, register_environment
from envsynth.errors import SpecNotFound
from envsynth.gym_ids import hook, register_store
from envsynth.gym_ids.making import load
from envsynth.report import GateReport
from envsynth.store import Store

TRIP = "envsynth/trip-planning-v1"
ROOT = Path(__file__).parents[2]


@pytest.fixture
def gym_id(spec, task):
    name = register_environment(spec, task)
    yield name
    del gymnasium.registry[name]


def fresh(code, tmp_path, **extra):
    """Run code in a fresh interpreter, in another working folder, with envsynth on its path."""
    env = {**os.environ, "PYTHONPATH": str(ROOT), **extra}
    env.setdefault("ENVSYNTH_STORE", str(tmp_path / "none.db"))
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_registered_environment_is_made_and_passes_check_env(gym_id, spec):
    made = gymnasium.make(gym_id)
    assert isinstance(made.unwrapped, ToolEnv)
    assert made.unwrapped.environment == spec
    assert made.spec.id == gym_id
    check_env(made.unwrapped)
    made.close()


def test_make_passes_options(gym_id):
    made = gymnasium.make(gym_id, max_turns=1, render_mode="ansi")
    made.reset(seed=0)
    assert made.step("nonsense")[3] is True
    assert "nonsense" in made.render()
    made.close()


# Different slots get results of different types, which Gymnasium's own merging of dictionaries could not hold.
ACTIONS = (
    json.dumps({"tool": "stock", "arguments": {"item": "nut"}}),
    "nonsense é",
    json.dumps({"answer": {"left": 1}}),
)


@pytest.mark.parametrize("mode", ["sync", "async", None])
def test_make_vec_plays_in_every_mode(gym_id, mode):
    envs = gymnasium.make_vec(gym_id, num_envs=3, vectorization_mode=mode)
    texts, infos = envs.reset(seed=1)
    assert texts in envs.observation_space
    assert all("Buy two thé" in text for text in texts)
    texts, rewards, terminations, truncations, infos = envs.step(ACTIONS)
    assert texts in envs.observation_space
    assert [("result" in json.loads(text)) for text in texts] == [True, False, True]
    assert list(rewards) == [0.0, 0.0, 0.0]
    assert list(terminations) == [False, False, True]
    assert not truncations.any()
    assert list(infos["error"]) == [None, "malformed", None]
    assert infos["call"][0]["tool"] == "stock"
    assert infos["call"][1] is None
    assert infos["observation"][0]["result"]["stock"] == 3
    assert list(infos["_verdict"]) == [False, False, True]
    assert infos["verdict"][2]["status"] == "fail"
    texts, *_ = envs.step(ACTIONS)
    assert "Buy two thé" in texts[2]
    envs.close()


def test_make_vec_uses_our_vector_environment_by_default(gym_id):
    envs = gymnasium.make_vec(gym_id, num_envs=2)
    assert isinstance(envs, ToolVectorEnv)
    assert envs.metadata["autoreset_mode"] is AutoresetMode.NEXT_STEP
    envs.close()


SPAWN = """
import json
import gymnasium
from envsynth.gym_ids import hook
hook.install()

if __name__ == "__main__":
    envs = gymnasium.make_vec(
        "envsynth/trip-planning-v1", 2, vectorization_mode="async", vector_kwargs={"context": "spawn"}
    )
    texts, infos = envs.reset(seed=1)
    call = json.dumps({"tool": "get_all_cities", "arguments": {}})
    texts, *_ = envs.step((call, call))
    print(json.loads(texts[1])["result"][0])
    envs.close()
"""


def test_spawned_vector_workers_find_the_id(tmp_path):
    (tmp_path / "main.py").write_text(SPAWN)
    code = "import runpy; runpy.run_path('main.py', run_name='__main__')"
    assert fresh(code, tmp_path) == "Hangzhou"


@pytest.mark.parametrize(
    "code",
    [
        "import envsynth.gym_ids.hook as h; h.install(); import gymnasium; e = gymnasium.make('{id}')",
        "import gymnasium; import envsynth.gym_ids.hook as h; h.install(); e = gymnasium.make('{id}')",
        "import gymnasium; from envsynth.gym_ids import register_all; register_all(); e = gymnasium.make('{id}')",
    ],
    ids=["hook-before", "hook-after", "explicit"],
)
def test_example_resolves_in_a_fresh_interpreter(code, tmp_path):
    code = code.format(id=TRIP) + "; print(len(e.reset(seed=1)[0]) > 1000); e.close()"
    assert fresh(code, tmp_path) == "True"


def test_hook_costs_no_heavy_import(tmp_path):
    code = (
        "import sys; import envsynth.gym_ids.hook as h; h.install(); "
        "print([m for m in ('gymnasium', 'pydantic', 'sqlite3', 'numpy') if m in sys.modules]); "
        "import gymnasium; print([m for m in ('pydantic', 'sqlmodel', 'torch') if m in sys.modules]); "
        "print('envsynth/trip-planning-v1' in gymnasium.registry, len(sys.meta_path) < 9)"
    )
    assert fresh(code, tmp_path) == "[]\n[]\nTrue True"


def test_damaged_store_does_not_break_gymnasium(tmp_path):
    (tmp_path / "bad.db").write_text("this is no database")
    code = f"import envsynth.gym_ids.hook as h; h.install(); import gymnasium; print('{TRIP}' in gymnasium.registry)"
    assert fresh(code, tmp_path, ENVSYNTH_STORE=str(tmp_path / "bad.db")) == "True"


def test_pth_file_makes_gymnasium_alone_enough(tmp_path):
    shutil.copy(ROOT / "envsynth" / "gym_ids" / "envsynth_gym.pth", tmp_path)
    code = (
        "import site, sys; site.addsitedir('.'); site.addsitedir('.'); "
        "print('envsynth' in sys.modules); import gymnasium; import envsynth.gym_ids.hook as h; "
        f"h.install(); print(gymnasium.make('{TRIP}').spec.id); "
        "import gymnasium.envs.registration; print(gymnasium.envs.__spec__.loader.__class__.__name__)"
    )
    assert fresh(code, tmp_path) == f"False\n{TRIP}\nSourceFileLoader"


def test_failing_registration_is_a_warning_not_an_import_error(tmp_path):
    code = (
        "import sys, types, warnings; import envsynth.gym_ids.hook as h; h.install(); "
        "sys.modules['envsynth.gym_ids.ids'] = types.SimpleNamespace(register_all=lambda: 1 / 0); "
        "caught = warnings.catch_warnings(record=True); found = caught.__enter__(); "
        "import gymnasium; print([str(w.message) for w in found if 'envsynth' in str(w.message)])"
    )
    assert "ZeroDivisionError" in fresh(code, tmp_path)


def test_find_knows_one_name_once(monkeypatch):
    monkeypatch.setattr(hook, "_asked", [])
    assert hook.find("gymnasium") is None
    found = hook.find("gymnasium.envs")
    assert found is not None
    assert found.name == "gymnasium.envs"
    assert hook.find("gymnasium.envs") is None


def test_install_registers_at_once_when_gymnasium_is_there(monkeypatch, tmp_path):
    monkeypatch.setattr(hook, "_asked", [])
    monkeypatch.setenv("ENVSYNTH_STORE", str(tmp_path / "none.db"))
    monkeypatch.delitem(gymnasium.registry, TRIP, raising=False)
    hook.install()
    hook.install()
    assert TRIP in gymnasium.registry


def test_gym_loop_uses_gymnasium_alone_and_wins(tmp_path):
    source = (ROOT / "docs_src" / "gym_loop.py").read_text(encoding="utf-8")
    assert len(source.splitlines()) <= 60
    imported = {line.split()[1] for line in source.splitlines() if line.startswith(("import ", "from "))}
    assert imported == {"json", "itertools", "gymnasium"}
    shutil.copy(ROOT / "envsynth" / "gym_ids" / "envsynth_gym.pth", tmp_path)
    (tmp_path / "gym_loop.py").write_text(source, encoding="utf-8")
    code = "import site, runpy; site.addsitedir('.'); runpy.run_path('gym_loop.py', run_name='__main__')"
    assert "reward 1.0 after 30 turns" in fresh(code, tmp_path)


def test_module_form_of_the_id_registers_by_itself(tmp_path):
    code = f"import gymnasium; e = gymnasium.make('envsynth.gym_ids.registered:{TRIP}'); print(e.spec.id); e.close()"
    assert fresh(code, tmp_path) == TRIP


def test_unknown_example_is_named():
    with pytest.raises(SpecNotFound, match="trip-planning"):
        load("nowhere", "")


STORE_LOOP = """
import gymnasium
from envsynth.gym_ids import hook
hook.install()

if __name__ == "__main__":
    print(gymnasium.make("envsynth/small-shop-v1").reset(seed=1)[1]["task"])
    envs = gymnasium.make_vec(
        "envsynth/small-shop-v1", 2, vectorization_mode="async", vector_kwargs={"context": "spawn"}
    )
    print(envs.reset(seed=1)[1]["task"][1])
    envs.close()
"""


def test_environment_of_a_users_store_resolves_in_fresh_and_spawned_interpreters(tmp_path, spec, task):
    store = tmp_path / "user store.db"
    with Store.open(store) as opened:
        opened.add_environment(spec)
        opened.add_task(task, GateReport(environment=spec.hash, task=task.hash, results=()))
    (tmp_path / "main.py").write_text(STORE_LOOP)
    code = "import runpy; runpy.run_path('main.py', run_name='__main__')"
    # A relative path must hold in workers too.
    assert fresh(code, tmp_path, ENVSYNTH_STORE=store.name) == f"{task.hash}\n{task.hash}"
    assert register_store(store) == ["envsynth/small-shop-v1"]
    made = gymnasium.make("envsynth/small-shop-v1")
    assert made.unwrapped.environment == spec
    made.close()
    del gymnasium.registry["envsynth/small-shop-v1"]
    assert register_store("postgresql://nowhere/x") == []
