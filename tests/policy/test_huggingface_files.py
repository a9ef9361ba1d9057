"""Folders of Hugging Face, both ways: whole, checked before they are read, and refused with a reason."""

from __future__ import annotations

import json
import logging
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from envsynth.errors import CheckpointError, SpecError
from envsynth.policy.checkpoint import check_vocabulary, load_checkpoint, save_checkpoint
from envsynth.policy.huggingface import (
    export_checkpoint,
    huggingface_state_dict,
    import_huggingface,
    load_huggingface,
    read_policy_config,
    save_huggingface,
)
from envsynth.policy.huggingface.blocks import dequantize_blocks, scale_shape
from envsynth.policy.huggingface.exchange import foreign_vocabulary
from envsynth.policy.model import Policy
from envsynth.policy.tokens import VOCABULARY_HASH
from tests.policy.test_checkpoint import ABOUT

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
GATE = "model.layers.1.mlp.experts.{}.gate_proj.weight"


@pytest.fixture
def folder(tmp_path: Path, policy: Policy) -> Path:
    """The tiny policy as it is exported."""
    save_huggingface(policy, tmp_path / "hf")
    return tmp_path / "hf"


def assert_equal(one: Policy, other: Policy) -> None:
    assert one.config == other.config
    ours, theirs = one.state_dict(), other.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())
    # Buffers that no file holds are computed again.
    buffers = dict(other.named_buffers())
    assert all(torch.equal(buffer, buffers[name]) for name, buffer in one.named_buffers())
    assert all(parameter.requires_grad for parameter in one.parameters())


def change(folder: Path, **changed: Any) -> None:
    """Change keys of config.json."""
    data = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**data, **changed}))


def rewrite(folder: Path, edit: Any) -> None:
    """Change the tensors of the single file."""
    tensors = load_file(folder / WEIGHTS)
    edit(tensors)
    save_file(tensors, folder / WEIGHTS, {"format": "pt"})


@pytest.fixture(scope="module")
def peer() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = pytest.importorskip("transformers.models.deepseek_v32", reason="needs the optional peer transformers")
        assert module.DeepseekV32ForCausalLM
        return module


def from_pretrained(peer: Any, folder: Path) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return peer.DeepseekV32ForCausalLM.from_pretrained(
            folder, output_loading_info=True, attn_implementation="eager", experts_implementation="eager"
        )


@pytest.mark.parametrize("shard_bytes", [5_000_000_000, 20_000, 1], ids=["one", "some", "each"])
def test_load_gives_back_what_was_saved(tmp_path, policy, shard_bytes):
    save_huggingface(policy, tmp_path / "hf", shard_bytes=shard_bytes)
    assert_equal(load_huggingface(tmp_path / "hf"), policy)
    names = {path.name for path in (tmp_path / "hf").iterdir()}
    assert [path.name for path in tmp_path.iterdir()] == ["hf"]
    if shard_bytes > 10**6:
        assert names == {"config.json", WEIGHTS}
        return
    index = json.loads((tmp_path / "hf" / INDEX).read_text())
    files = set(index["weight_map"].values())
    assert names == {"config.json", INDEX, *files}
    tensors = [load_file(tmp_path / "hf" / name) for name in sorted(files)]
    assert index["metadata"]["total_size"] == sum(item.nbytes for part in tensors for item in part.values())
    assert all(len(part) == 1 or sum(item.nbytes for item in part.values()) <= shard_bytes for part in tensors)


def test_transformers_reads_what_we_write_and_we_read_what_it_writes(tmp_path, peer, lively, tokens):
    # Every key is read, so that no tie decides.
    config = lively().config
    policy = lively(indexer=replace(config.indexer, index_topk=20))
    save_huggingface(policy, tmp_path / "ours", shard_bytes=20_000)
    model, found = from_pretrained(peer, tmp_path / "ours")
    assert not any(found[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    batch = tokens(2, 20)
    with torch.no_grad():
        assert (model.eval()(batch).logits - policy(batch).logits_BTV).abs().max() <= 1e-5
        model.save_pretrained(tmp_path / "theirs", max_shard_size="20KB")
    assert len(list((tmp_path / "theirs").glob("*.safetensors"))) > 1
    assert_equal(load_huggingface(tmp_path / "theirs"), policy)


def test_half_precision_goes_both_ways(tmp_path, peer, policy):
    half = policy.to(torch.bfloat16)
    save_huggingface(half, tmp_path / "hf")
    loaded = load_huggingface(tmp_path / "hf")
    assert_equal(loaded, half)
    assert loaded.embed_tokens.weight.dtype == torch.bfloat16
    assert loaded.layers[1].mlp.gate.e_score_correction_bias.dtype == torch.float32
    assert from_pretrained(peer, tmp_path / "hf")[0].dtype == torch.bfloat16
    wide = load_huggingface(tmp_path / "hf", dtype=torch.float32)
    assert wide.embed_tokens.weight.dtype == torch.float32
    with pytest.raises(SpecError, match="int8"):
        load_huggingface(tmp_path / "hf", dtype=torch.int8)


def test_load_reads_stacks_of_experts(folder, policy):
    save_file(huggingface_state_dict(policy), folder / WEIGHTS)
    assert "model.layers.1.mlp.experts.gate_up_proj" in load_file(folder / WEIGHTS)
    assert_equal(load_huggingface(folder), policy)


def test_files_name_each_expert_and_their_format(folder):
    with safe_open(folder / WEIGHTS, framework="pt") as file:
        assert file.metadata() == {"format": "pt"}
        assert {GATE.format(expert) for expert in range(8)} <= set(file.keys())


def test_load_reads_the_old_form_of_the_rotation(folder, policy):
    data = json.loads((folder / "config.json").read_text())
    theta = data.pop("rope_parameters")["rope_theta"]
    old = {**data, "rope_theta": theta, "rope_scaling": None, "torch_dtype": "float32", "ep_size": 1}
    (folder / "config.json").write_text(json.dumps(old))
    assert read_policy_config(folder) == policy.config
    assert_equal(load_huggingface(folder), policy)


# --------------------------------------------------------------------------------------------------------- eight bits


def quantized(tensor: torch.Tensor, block: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Round to eight bits with a power of two per block, as the released files do."""
    scale = torch.empty(scale_shape(tuple(tensor.shape), block))
    rounded = torch.empty(tensor.shape, dtype=torch.float8_e4m3fn)
    for row in range(scale.shape[0]):
        for column in range(scale.shape[1]):
            rows = slice(row * block[0], (row + 1) * block[0])
            columns = slice(column * block[1], (column + 1) * block[1])
            scale[row, column] = 2.0 ** torch.ceil(torch.log2(tensor[rows, columns].abs().max() / 448))
            rounded[rows, columns] = (tensor[rows, columns] / scale[row, column]).to(torch.float8_e4m3fn)
    return rounded, scale


def test_dequantize_blocks_multiplies_each_block_by_its_scale():
    weight = torch.ones(3, 5).to(torch.float8_e4m3fn)
    scale = torch.tensor([[1.0, 2.0, 4.0], [8.0, 16.0, 32.0]])
    wide = dequantize_blocks(weight, scale, (2, 2))
    top, low = [1.0, 1.0, 2.0, 2.0, 4.0], [8.0, 8.0, 16.0, 16.0, 32.0]
    assert wide.dtype == torch.float32
    assert wide.tolist() == [top, top, low]


@pytest.mark.parametrize("block", [(8, 8), (128, 128), (5, 3)], ids=str)
def test_load_reads_eight_bits_with_scales_per_block(folder, policy, block):
    expected = {}

    def edit(tensors):
        for name in [name for name in tensors if name.endswith("proj.weight") and "weights_proj" not in name]:
            rounded, scale = quantized(tensors[name], block)
            expected[name] = dequantize_blocks(rounded, scale, block)
            assert not torch.equal(expected[name], tensors[name])
            assert (expected[name] - tensors[name]).abs().max() <= 0.07 * tensors[name].abs().max()
            tensors[name], tensors[f"{name}_scale_inv"] = rounded, scale

    rewrite(folder, edit)
    change(folder, quantization_config={"quant_method": "fp8", "fmt": "e4m3", "weight_block_size": list(block)})
    loaded = load_huggingface(folder)
    o_proj = loaded.layers[2].self_attn.o_proj.weight
    assert torch.equal(o_proj, expected["model.layers.2.self_attn.o_proj.weight"])
    assert torch.equal(loaded.layers[1].mlp.experts.gate_proj[3], expected[GATE.format(3)])
    assert torch.equal(loaded.norm.weight, policy.norm.weight)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda tensors: tensors.pop(GATE.format(0) + "_scale_inv"), "1 missing: .*_scale_inv"),
        (lambda tensors: tensors.update({GATE.format(0) + "_scale_inv": torch.ones(3, 1)}), "without scales per block"),
        (lambda tensors: tensors.update({GATE.format(1) + "_scale_inv": torch.ones(2, 4)}), "1 unexpected"),
    ],
    ids=["no scale", "wrong scale", "scale of nothing"],
)
def test_load_refuses_scales_that_do_not_fit(folder, edit, message):
    def quantize(tensors):
        tensors[GATE.format(0)], tensors[GATE.format(0) + "_scale_inv"] = quantized(tensors[GATE.format(0)], (8, 8))
        edit(tensors)

    rewrite(folder, quantize)
    change(folder, quantization_config={"quant_method": "fp8", "weight_block_size": [8, 8]})
    with pytest.raises(CheckpointError, match=message):
        load_huggingface(folder)


def test_load_refuses_eight_bits_that_the_configuration_does_not_announce(folder):
    def quantize(tensors):
        tensors[GATE.format(0)], tensors[GATE.format(0) + "_scale_inv"] = quantized(tensors[GATE.format(0)], (8, 8))

    rewrite(folder, quantize)
    with pytest.raises(CheckpointError, match="without scales per block"):
        load_huggingface(folder)


# ----------------------------------------------------------------------------------------------------- what is refused


def test_load_lists_missing_unexpected_and_misshapen_tensors(folder):
    def edit(tensors):
        for expert in range(7):
            del tensors[GATE.format(expert)]
        tensors["model.layers.0.self_attn.q_proj.weight"] = torch.ones(2)
        tensors["lm_head.weight"] = torch.ones(2, 3)
        tensors["model.norm.weight"] = torch.ones(32, dtype=torch.int64)

    rewrite(folder, edit)
    with pytest.raises(CheckpointError) as caught:
        load_huggingface(folder)
    said = str(caught.value)
    assert f"7 missing: {GATE.format(0)}" in said
    assert "and 2 more" in said
    assert "1 unexpected: model.layers.0.self_attn.q_proj.weight" in said
    assert "1 of another shape: lm_head.weight (2, 3) instead of (50, 32)" in said
    assert "1 of another type: model.norm.weight I64" in said


@pytest.mark.parametrize("damage", ["cut", "empty", "gone", "text"])
def test_load_refuses_a_damaged_file(folder, damage):
    path = folder / WEIGHTS
    data = path.read_bytes()
    path.write_bytes({"cut": data[:-7], "empty": b"", "gone": b"", "text": b"not tensors at all"}[damage])
    if damage == "gone":
        path.unlink()
    with pytest.raises(CheckpointError, match=r"cannot be read|has neither"):
        load_huggingface(folder)


@pytest.mark.parametrize("text", [None, "{", "[1]"])
def test_load_refuses_a_damaged_configuration(folder, text):
    (folder / "config.json").unlink()
    if text is not None:
        (folder / "config.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"config\.json"):
        load_huggingface(folder)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda index: index.pop("weight_map"), "no 'weight_map'"),
        (lambda index: index["weight_map"].update(new=sorted(index["weight_map"].values())[0]), "lack: new"),
        (lambda index: index["weight_map"].update(new="../other.safetensors"), "no file of this folder"),
        (lambda index: index["weight_map"].update(new="absent.safetensors"), "cannot be read"),
    ],
    ids=["no map", "no tensor", "outside", "no file"],
)
def test_load_refuses_a_wrong_index(tmp_path, policy, edit, message):
    save_huggingface(policy, tmp_path / "hf", shard_bytes=20_000)
    index = json.loads((tmp_path / "hf" / INDEX).read_text())
    edit(index)
    (tmp_path / "hf" / INDEX).write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match=message):
        load_huggingface(tmp_path / "hf")


def test_load_refuses_a_tensor_in_two_files(tmp_path, policy):
    save_huggingface(policy, tmp_path / "hf", shard_bytes=20_000)
    first, second = sorted((tmp_path / "hf").glob("*.safetensors"))[:2]
    save_file({**load_file(second), **load_file(first)}, second)
    with pytest.raises(CheckpointError, match="two files"):
        load_huggingface(tmp_path / "hf")


def test_load_refuses_an_unknown_type(folder):
    change(folder, torch_dtype="int4")
    with pytest.raises(SpecError, match="int4"):
        load_huggingface(folder)


def test_an_interrupted_write_leaves_nothing(tmp_path, policy, monkeypatch):
    calls = []

    def fail(tensors, path, metadata):
        calls.append(path)
        Path(path).write_bytes(b"half")
        if len(calls) == 2:
            raise OSError("no space left")

    monkeypatch.setattr("envsynth.policy.huggingface.writing.save_file", fail)
    with pytest.raises(CheckpointError, match="no space left"):
        save_huggingface(policy, tmp_path / "hf", shard_bytes=20_000)
    assert len(calls) == 2
    assert not list(tmp_path.iterdir())


def test_save_refuses_what_it_would_destroy_or_cannot_represent(tmp_path, lively, tiny):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("years of work")
    with pytest.raises(CheckpointError, match="not empty"):
        save_huggingface(lively(), tmp_path / "full")
    with pytest.raises(CheckpointError, match="not empty"):
        save_huggingface(lively(), tmp_path / "full" / "thesis.txt")
    with pytest.raises(SpecError, match="rotates halves"):
        save_huggingface(lively(indexer=replace(tiny.indexer, index_rope_interleave=True)), tmp_path / "hf")
    with pytest.raises(SpecError, match="shard_bytes"):
        save_huggingface(lively(), tmp_path / "hf", shard_bytes=0)
    assert [path.name for path in tmp_path.iterdir()] == ["full"]
    (tmp_path / "empty").mkdir()
    save_huggingface(lively(), tmp_path / "empty")
    assert (tmp_path / "empty" / "config.json").is_file()


# --------------------------------------------------------------------------------------------------- prediction layers


def test_prediction_layers_go_both_ways(tmp_path, lively):
    policy = lively(num_nextn_predict_layers=2)
    save_huggingface(policy, tmp_path / "hf")
    tensors = load_file(tmp_path / "hf" / WEIGHTS)
    for layer in (3, 4):
        prefix = f"model.layers.{layer}"
        assert torch.equal(tensors[f"{prefix}.shared_head.norm.weight"], policy.mtp_layers[layer - 3].norm.weight)
        assert torch.equal(tensors[f"{prefix}.eh_proj.weight"], policy.mtp_layers[layer - 3].eh_proj.weight)
        assert torch.equal(tensors[f"{prefix}.embed_tokens.weight"], policy.embed_tokens.weight)
        assert torch.equal(tensors[f"{prefix}.shared_head.head.weight"], policy.lm_head.weight)
        assert f"{prefix}.mlp.experts.7.down_proj.weight" in tensors
    assert_equal(load_huggingface(tmp_path / "hf"), policy)


def test_prediction_layers_need_no_copies_of_embedding_and_head(tmp_path, lively):
    policy = lively(num_nextn_predict_layers=1)
    save_huggingface(policy, tmp_path / "hf")
    rewrite(tmp_path / "hf", lambda tensors: tensors.pop("model.layers.3.embed_tokens.weight"))
    assert_equal(load_huggingface(tmp_path / "hf"), policy)


@pytest.mark.parametrize("name", ["embed_tokens", "shared_head.head"])
def test_prediction_layers_with_an_embedding_or_head_of_their_own_are_refused(tmp_path, lively, name):
    save_huggingface(lively(num_nextn_predict_layers=1), tmp_path / "hf")
    rewrite(tmp_path / "hf", lambda tensors: tensors[f"model.layers.3.{name}.weight"].add_(1.0))
    with pytest.raises(CheckpointError, match=f"{name}.*differs from the main"):
        load_huggingface(tmp_path / "hf")


def test_prediction_layers_that_nobody_asks_for_are_skipped_and_told(tmp_path, lively, peer, caplog):
    policy = lively(num_nextn_predict_layers=1)
    save_huggingface(policy, tmp_path / "hf")
    unexpected = from_pretrained(peer, tmp_path / "hf")[1]["unexpected_keys"]
    assert unexpected
    assert all(name.startswith("model.layers.3.") for name in unexpected)
    change(tmp_path / "hf", num_nextn_predict_layers=0)
    with caplog.at_level(logging.INFO):
        loaded = load_huggingface(tmp_path / "hf")
    assert "prediction layers are skipped, from layer 3 on" in caplog.text
    assert loaded.config.num_nextn_predict_layers == 0
    assert torch.equal(loaded.layers[2].self_attn.o_proj.weight, policy.layers[2].self_attn.o_proj.weight)


def test_absent_prediction_layers_are_named_with_a_way_out(folder):
    change(folder, num_nextn_predict_layers=1)
    with pytest.raises(CheckpointError, match=r"missing: model\.layers\.3.*num_nextn_predict_layers must be 0"):
        load_huggingface(folder)


# ------------------------------------------------------------------------------------------------------ our checkpoints


def test_checkpoints_are_exported_and_imported(tmp_path, policy):
    save_checkpoint(tmp_path / "run" / "sft" / "step-00000012", replace(ABOUT, config=policy.config), policy)
    assert export_checkpoint(tmp_path / "run", tmp_path / "hf") == policy.config
    record = import_huggingface(tmp_path / "hf", tmp_path / "back")
    found = load_checkpoint(tmp_path / "back")
    assert found.record == record
    assert (record.phase, record.step, record.state) == ("import", 0, {"source": "hf"})
    assert_equal(found.policy(), policy)
    with pytest.raises(CheckpointError, match="vocabulary"):
        check_vocabulary(record, VOCABULARY_HASH)
    with pytest.raises(CheckpointError, match="not empty"):
        import_huggingface(tmp_path / "hf", tmp_path / "back")


def test_the_vocabulary_of_an_imported_policy_is_its_tokenizer(folder):
    without = foreign_vocabulary(folder)
    (folder / "tokenizer.json").write_text('{"model": "words"}')
    other = foreign_vocabulary(folder)
    assert len({without, other, VOCABULARY_HASH}) == 3
    assert import_huggingface(folder, folder.parent / "out").vocabulary == other
