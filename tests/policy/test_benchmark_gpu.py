"""The benchmark of whole policies on a GPU: what of it runs on a CPU, and that losses of memory are told."""

from __future__ import annotations

import copy
import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import policy_gpu as benchmark
from envsynth.policy.model import Policy


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark, "SECONDS", 0.0)
    monkeypatch.setattr(benchmark, "NEW_TOKENS", 4)


def test_modes_agree_and_the_record_is_whole(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "policy.json"
    assert benchmark.main(["--preset", "nano", "--lengths", "64", "--device", "cpu", "--out", str(out)]) == 0
    record = json.loads(out.read_text())
    assert record["complete"]
    rows = {(row["what"], row["mode"]): row for row in record["rows"]}
    assert list(rows) == [
        *(("training", mode) for mode in benchmark.TRAINED),
        *(("generation", mode) for mode in benchmark.GENERATING),
    ]
    assert all(row["tokens_per_s"] > 0 and row["memory_bytes"] is None for row in rows.values())
    # Steps are of length zero, so all modes train the same weights.
    sparse = [rows["training", mode]["loss"] for mode in ("kernels", "mqa", "fused", "off")]
    assert max(sparse) - min(sparse) < 1e-5
    assert rows["training", "dense"]["loss"] < min(sparse)  # without the indexer's loss
    assert len({row["last_token"] for key, row in rows.items() if key[0] == "generation"}) == 1


@pytest.mark.parametrize("mode", benchmark.GENERATING)
def test_half_precision_generates(mode: str) -> None:
    policy = benchmark.make_policy("nano", 64, torch.device("cpu")).to(torch.bfloat16)
    assert benchmark.generate(policy, mode, 48, 2)["tokens_per_s"] > 0


def test_decoding_is_that_of_the_engine_prefix() -> None:
    policy = benchmark.make_policy("nano", 64, torch.device("cpu")).eval()
    prompt = torch.arange(40) % policy.config.vocab_size
    output, filled = policy.prefill(prompt)
    cache = policy.new_cache(1, 44)
    cache.latent_LNSC[:, :, :40], cache.index_key_LNSJ[:, :, :40] = filled.latent_LNSC, filled.index_key_LNSJ
    first = output.logits_BTV[0, -1].argmax()[None]
    last = benchmark.decode_tokens(partial(benchmark.decode_from_python, policy, cache), first, 40, 3)
    whole = [*prompt.tolist(), int(first)]
    for _ in range(3):
        logits = policy.prefill(torch.tensor(whole))[0].logits_BTV
        whole.append(int(logits[0, -1].argmax()))
    assert int(last) == whole[-1]


def test_lack_of_memory_and_failures_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[str, int]] = []

    def train(policy: Policy, mode: str, length: int, step_tokens: int) -> dict[str, Any]:
        calls.append((mode, length))
        if mode == "mqa":
            raise torch.OutOfMemoryError("tried to allocate 80 GiB")
        raise RuntimeError("no kernel")

    monkeypatch.setattr(benchmark, "train", train)
    monkeypatch.setattr(benchmark, "GENERATING", ())
    out = tmp_path / "policy.json"
    options = ["--presets", "nano", "--lengths", "64,32", "--modes", "mqa,dense", "--device", "cpu", "--out", str(out)]
    assert benchmark.main(options) == 1
    assert calls == [("mqa", 32), ("dense", 32), ("dense", 64)]
    told = [row["refused"] for row in json.loads(out.read_text())["rows"]]
    lost = "out of memory: tried to allocate 80 GiB"
    assert told == [lost, "failed: no kernel", "out of memory at a shorter length", "failed: no kernel"]


def test_budget_stops_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "policy.json"
    common = ["--presets", "nano", "--lengths", "32", "--device", "cpu", "--out", str(out)]
    assert benchmark.main([*common, "--budget-s", "0"]) == 1
    assert json.loads(out.read_text()) | {"rows": [], "complete": False} == json.loads(out.read_text())
    assert "the time was over" in capsys.readouterr().err


@pytest.mark.parametrize("wrong", [("--presets", "huge"), ("--modes", "mha"), ("--lengths", "x")])
def test_unknown_arguments_are_refused(wrong: tuple[str, str]) -> None:
    with pytest.raises(SystemExit):
        benchmark.parse([*wrong])


def test_float32_names_survive_half_precision() -> None:
    policy = benchmark.make_policy("nano", 32, torch.device("cpu"))
    half = copy.deepcopy(policy).to(torch.bfloat16)
    assert half.lm_head.weight.dtype == torch.float32
    assert half.embed_tokens.weight.dtype == torch.bfloat16
    assert policy.embed_tokens.weight.dtype == torch.float32
