"""The commands `policy show`, `export` and `import`: what they print, and what they refuse."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from envsynth.policy.checkpoint import load_checkpoint, save_checkpoint
from envsynth.policy.huggingface import load_huggingface, save_huggingface
from tests.command_line import call
from tests.policy.test_checkpoint import ABOUT


@pytest.fixture
def run(tmp_path, policy):
    """The folder of a run with one checkpoint."""
    folder = tmp_path / "run"
    save_checkpoint(folder / "sft" / "step-00000012", replace(ABOUT, config=policy.config), policy)
    (folder / "config.json").write_text('{"seed": 0}')
    return folder


def test_show_a_preset(capsys):
    done = call(capsys, "policy", "show", "deepseek-v3.2")
    assert done.code == 0, done.err
    assert "total 671,877,929,216, of which a token uses 38,403,807,488" in done.out
    assert "3 dense, 58 with experts, 0 prediction" in done.out
    # 61 layers, each with 512 + 64 numbers of a latent and 128 of an indexer key.
    assert "cache per token: 85,888 bytes in bfloat16" in done.out


def test_show_gives_a_preset_another_vocabulary(capsys):
    totals = [
        json.loads(call(capsys, "policy", "show", "nano", "--vocab-size", size, "--json").out)["parameters"]["total"]
        for size in (200, 300)
    ]
    assert totals[1] - totals[0] == 2 * 100 * 128


def test_show_export_and_import_agree(capsys, tmp_path, run, policy):
    done = call(capsys, "policy", "export", run, tmp_path / "hf", "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out) == {"path": str(tmp_path / "hf"), "layers": 3, "vocab_size": 50}
    done = call(capsys, "policy", "import", tmp_path / "hf", tmp_path / "back", "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["vocabulary"] == load_checkpoint(tmp_path / "back").record.vocabulary
    shown = [
        json.loads(call(capsys, "policy", "show", item, "--json").out)
        for item in (run, tmp_path / "hf", tmp_path / "back")
    ]
    assert all({**item, "policy": ""} == {**shown[0], "policy": ""} for item in shown)
    assert shown[0]["config"] == policy.config.to_dict()
    assert shown[0]["parameters"]["total"] == sum(item.numel() for item in policy.parameters())
    assert load_huggingface(tmp_path / "hf").config == policy.config


def test_export_and_import_in_words(capsys, tmp_path, run):
    assert "3 layers, 50 token ids" in call(capsys, "policy", "export", run, tmp_path / "hf").out
    assert "3 layers, vocabulary" in call(capsys, "policy", "import", tmp_path / "hf", tmp_path / "back").out


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("show", "huge"), 2, "none of the presets nano, small"),
        (("show", "{hf}", "--vocab-size", "9"), 2, "only a preset"),
        (("show", "{empty}"), 1, "config.json cannot be read"),
        (("export", "{empty}", "{new}"), 1, "no checkpoint"),
        (("export", "{run}", "{hf}"), 1, "not empty"),
        (("import", "{empty}", "{new}"), 1, "config.json cannot be read"),
        (("import", "{hf}", "{run}"), 1, "not empty"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_commands_refuse_with_a_reason(capsys, tmp_path, run, policy, arguments, code, message):
    save_huggingface(policy, tmp_path / "hf")
    (tmp_path / "empty").mkdir()
    folders = {name: str(tmp_path / name) for name in ("hf", "empty", "new", "run")}
    done = call(capsys, "policy", *(item.format(**folders) for item in arguments))
    assert done.code == code
    assert message in done.said
    assert not (tmp_path / "new").exists()


def test_our_tasks_are_not_played_with_an_imported_policy(capsys, tmp_path, run):
    call(capsys, "policy", "export", run, tmp_path / "hf")
    call(capsys, "policy", "import", tmp_path / "hf", tmp_path / "back")
    done = call(capsys, "doctor", "train", tmp_path / "back")
    assert done.code == 1
    assert "trained on vocabulary" in done.said
