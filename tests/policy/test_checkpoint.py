"""Checkpoints: whole or absent, checked when read, and refused with a reason."""

from __future__ import annotations

import json
import pickle
import random
from dataclasses import replace

import pytest
import torch

from envsynth.errors import CheckpointError
from envsynth.policy.checkpoint import (
    RECORD,
    TRAINING,
    WEIGHTS,
    CheckpointRecord,
    check_vocabulary,
    find_checkpoint,
    git_revision,
    list_checkpoints,
    load_checkpoint,
    save_checkpoint,
)
from envsynth.policy.config import AttentionConfig, ExpertsConfig, IndexerConfig, PolicyConfig
from envsynth.policy.model import Policy

TINY = PolicyConfig(
    vocab_size=12,
    hidden_size=16,
    num_hidden_layers=1,
    intermediate_size=24,
    first_k_dense_replace=0,
    max_position_embeddings=32,
    attention=AttentionConfig(
        num_attention_heads=2, q_lora_rank=12, kv_lora_rank=8, qk_nope_head_dim=8, qk_rope_head_dim=4, v_head_dim=8
    ),
    indexer=IndexerConfig(index_n_heads=2, index_head_dim=8, index_topk=6),
    experts=ExpertsConfig(n_routed_experts=4, num_experts_per_tok=2, n_shared_experts=1, moe_intermediate_size=12),
)
ABOUT = CheckpointRecord(
    config=TINY,
    vocabulary="ab" * 16,
    seed=7,
    step=12,
    phase="sft",
    data="cd" * 16,
    metrics_bytes=345,
    revision=None,
    state={"elapsed_s": 1.5, "options": {"x": [1, 2]}},
)


@pytest.fixture
def policy() -> Policy:
    made = Policy(TINY, seed=4)
    # The bias of the routers is a buffer that training changes: it must be stored as the weights are.
    made.layers[0].mlp.gate.e_score_correction_bias += torch.tensor([0.1, -0.2, 0.3, 0.0])
    return made


def test_load_gives_back_what_was_saved(tmp_path, policy):
    folder = tmp_path / "sft" / "step-00000012"
    save_checkpoint(folder, ABOUT, policy, {"optimizer.x": torch.arange(3.0), "reference.y": torch.ones(2)})
    found = load_checkpoint(folder)
    assert found.record == ABOUT
    loaded = found.policy()
    assert loaded.state_dict().keys() == policy.state_dict().keys()
    assert all(torch.equal(loaded.state_dict()[key], item) for key, item in policy.state_dict().items())
    assert torch.equal(found.part("optimizer")["x"], torch.arange(3.0))
    assert sorted(path.name for path in folder.iterdir()) == sorted([RECORD, WEIGHTS, TRAINING])
    assert not [path for path in folder.parent.iterdir() if path.name.startswith(".")]


def test_restore_rng_goes_back_to_the_same_numbers(tmp_path, policy):
    torch.manual_seed(5)
    random.seed(5)
    save_checkpoint(tmp_path / "a", ABOUT, policy)
    wanted = torch.rand(3), random.random()
    torch.rand(9)
    load_checkpoint(tmp_path / "a").restore_rng()
    assert torch.equal(torch.rand(3), wanted[0])
    assert random.random() == wanted[1]


def test_save_replaces_a_checkpoint_of_the_same_step(tmp_path, policy):
    for seed in (7, 8):
        save_checkpoint(tmp_path / "a", replace(ABOUT, seed=seed), policy)
    assert load_checkpoint(tmp_path / "a").record.seed == 8


def test_save_leaves_the_old_checkpoint_when_it_is_killed_half_way(tmp_path, policy, monkeypatch):
    folder = tmp_path / "step-00000012"
    save_checkpoint(folder, ABOUT, policy)
    calls = []

    def die(handle):
        calls.append(handle)
        raise OSError("no space left")

    monkeypatch.setattr("envsynth.policy.whole_folder.os.fsync", die)
    with pytest.raises(CheckpointError, match="no space left"):
        save_checkpoint(folder, replace(ABOUT, step=13), policy)
    assert calls
    assert load_checkpoint(folder).record.step == 12
    assert [path.name for path in tmp_path.iterdir()] == [folder.name]


@pytest.mark.parametrize("name", [WEIGHTS, TRAINING])
@pytest.mark.parametrize("damage", ["cut", "flip", "gone"])
def test_load_refuses_a_damaged_file(tmp_path, policy, name, damage):
    folder = tmp_path / "a"
    save_checkpoint(folder, ABOUT, policy)
    file = folder / name
    data = bytearray(file.read_bytes())
    if damage == "gone":
        file.unlink()
    else:
        data[-1] ^= 1
        file.write_bytes(data[:-5] if damage == "cut" else data)
    with pytest.raises(CheckpointError, match=r"damaged.*earlier"):
        load_checkpoint(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "other/9"}, "other/9"),
        ({"config": {}}, "cannot be read"),
        ({"files": {}}, "damaged"),
    ],
)
def test_load_refuses_another_record(tmp_path, policy, change, message):
    folder = tmp_path / "a"
    save_checkpoint(folder, ABOUT, policy)
    content = json.loads((folder / RECORD).read_text())
    (folder / RECORD).write_text(json.dumps(content | change))
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(folder)


def test_load_refuses_text_that_is_no_record(tmp_path, policy):
    save_checkpoint(tmp_path / "a", ABOUT, policy)
    for text in ("{", "[1]"):
        (tmp_path / "a" / RECORD).write_text(text)
        with pytest.raises(CheckpointError, match=r"use an earlier one|train again"):
            load_checkpoint(tmp_path / "a")


def test_policy_refuses_weights_of_another_size(tmp_path, policy):
    other = replace(TINY, hidden_size=32)
    save_checkpoint(tmp_path / "a", replace(ABOUT, config=other), policy)
    with pytest.raises(CheckpointError, match="do not fit"):
        load_checkpoint(tmp_path / "a").policy()


def test_find_takes_the_newest_checkpoint_of_the_later_phase(tmp_path, policy):
    for phase, step in (("sft", 120), ("sft", 90), ("grpo", 5), ("grpo", 10)):
        save_checkpoint(tmp_path / phase / f"step-{step:08d}", replace(ABOUT, step=step, phase=phase), policy)
    assert find_checkpoint(tmp_path) == tmp_path / "grpo" / "step-00000010"
    assert [path.name[-3:] for path in list_checkpoints(tmp_path)] == ["090", "120", "005", "010"]
    # What a killed process left behind is no checkpoint.
    (tmp_path / "grpo" / ".step-00000015.new").mkdir()
    assert find_checkpoint(tmp_path).name == "step-00000010"
    with pytest.raises(CheckpointError, match="no checkpoint"):
        find_checkpoint(tmp_path / "sft" / "nothing")


def test_check_vocabulary_refuses_another_one():
    check_vocabulary(ABOUT, ABOUT.vocabulary)
    with pytest.raises(CheckpointError, match="vocabulary") as caught:
        check_vocabulary(ABOUT, "ee" * 16)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


@pytest.mark.parametrize("packed", [False, True])
def test_git_revision_reads_the_checkout(tmp_path, packed):
    git = tmp_path / ".git"
    (git / "refs" / "heads").mkdir(parents=True)
    (git / "HEAD").write_text("ref: refs/heads/main\n")
    if packed:
        (git / "packed-refs").write_text(f"# pack-refs\n{'1' * 40} refs/heads/other\n{'2' * 40} refs/heads/main\n")
    else:
        (git / "refs" / "heads" / "main").write_text("2" * 40 + "\n")
    assert git_revision(tmp_path) == "2" * 40
    (tmp_path / "a").mkdir()
    assert git_revision(tmp_path / "a") is None
    (git / "HEAD").write_text("3" * 40)
    assert git_revision(tmp_path) == "3" * 40


def test_git_revision_is_none_outside_of_a_checkout(tmp_path):
    assert git_revision(tmp_path) is None
