"""`envsynth experiment dsa-overhead`: what is measured on a CPU, what is refused, and that it goes on where it stopped."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from envsynth import plots
from envsynth.errors import CheckpointError, ExperimentError, MissingExtra, SpecError
from envsynth.kernels.dispatch import UnsupportedError
from envsynth.policy.presets import PRESETS
from envsynth.train.overhead import __main__ as program
from envsynth.train.overhead import dense, experiment, parts
from envsynth.train.overhead.checks import relative_error
from envsynth.train.overhead.config import OverheadConfig, profile
from envsynth.train.overhead.experiment import DENSE, measurements, refusals, run_overhead, summary
from envsynth.train.overhead.inputs import Inputs, shared_keys, sizes_of
from envsynth.train.overhead.parts import PARTS
from envsynth.train.overhead.record import NAME
from envsynth.train.overhead.timing import measure_call
from tests.command_line import Ran, call

Cli = Callable[..., Ran]
TINY = replace(profile("smoke"), lengths=(16, 32), topks=(4,), slots=2, repeat_ms=0.1)
CPU = torch.device("cpu")


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Cli:
    return partial(call, capsys)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The record of a whole run."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        done = run_overhead(Path(tmp_path_factory.mktemp("overhead")), TINY)
    finally:
        torch.set_num_threads(threads)
    return json.loads(done.file.read_text())


def test_everything_is_measured_and_checked(finished: dict[str, Any]) -> None:
    found = [(row["preset"], row["length"], row["k"], row["part"]) for row in finished["rows"]]
    assert found == measurements(TINY)
    assert len(found) == 2 * (len(PARTS) + len(DENSE))
    assert all(row["ms"] > 0 and row["memory_bytes"] is None and not row["refused"] for row in finished["rows"])
    assert {row["backend"] for row in finished["rows"] if row["k"] is None} == {"default"}
    assert finished["complete"]
    assert all(item["passes"] for item in finished["checks"]["nano"]["checks"])
    assert finished["settings"] == TINY.to_dict()
    first = finished["rows"][0]
    assert first["part"] == "selection"
    assert 0 < first["neighbour_share"] <= 1
    assert 4 <= first["tile_keys"] <= 4 * first["tile_queries"]


def test_budget_keeps_what_is_finished_and_the_same_call_goes_on(tmp_path: Path) -> None:
    ticks = iter(range(1000))
    done = run_overhead(tmp_path, TINY, budget_s=7, clock=lambda: next(ticks))
    kept = json.loads(done.file.read_text())
    assert not done.complete
    assert 0 < len(kept["rows"]) < len(measurements(TINY))
    assert not kept["complete"]
    told: list[str] = []
    again = run_overhead(tmp_path, TINY, on_measured=told.append)
    assert again.complete
    assert again.result["rows"][: len(kept["rows"])] == kept["rows"]
    assert len(told) == len(again.result["rows"]) == len(measurements(TINY))


def test_stop_in_the_middle_of_a_length_keeps_its_measurements(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(given: Inputs, k: int) -> parts.Call:
        raise KeyboardInterrupt

    monkeypatch.setattr(experiment, "check_all", lambda given, topks: [])
    monkeypatch.setattr(experiment, "PARTS", {**PARTS, "index_loss": stop})
    with pytest.raises(KeyboardInterrupt):
        run_overhead(tmp_path, TINY)
    kept = json.loads((tmp_path / NAME).read_text())["rows"]
    assert [row["part"] for row in kept] == list(PARTS)[: list(PARTS).index("index_loss")]


def test_record_of_other_settings_is_refused(tmp_path: Path) -> None:
    run_overhead(tmp_path, TINY, budget_s=0)
    with pytest.raises(CheckpointError, match="settings"):
        run_overhead(tmp_path, replace(TINY, slots=3), budget_s=0)
    (tmp_path / NAME).write_text("{")
    with pytest.raises(CheckpointError, match="damaged"):
        run_overhead(tmp_path, TINY, budget_s=0)


@pytest.mark.parametrize("operator", ["index_select", "sparse_attention", "selected_kl", "sparse_attention_decode"])
def test_wrong_operator_ends_the_experiment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, operator: str) -> None:
    right = getattr(parts, operator)

    def wrong(*args: Any, **options: Any) -> Any:
        found = right(*args, **options)
        if operator == "index_select":
            return found[0], found[1] * 1.01
        if operator == "sparse_attention":
            return found._replace(out_BTHR=found.out_BTHR * 1.01)
        return found * 1.01

    monkeypatch.setattr(parts, operator, wrong)
    if operator == "index_select":
        # The parts time it, the checks call it: one fault reaches both.
        monkeypatch.setattr("envsynth.train.overhead.checks.index_select", wrong)
    with pytest.raises(ExperimentError, match="differs from references"):
        run_overhead(tmp_path, TINY)
    assert json.loads((tmp_path / NAME).read_text())["rows"] == []


def test_wrong_dense_attention_ends_the_experiment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    right = dense.attend
    monkeypatch.setattr(dense, "attend", lambda *args: right(*args) * 1.01)
    with pytest.raises(ExperimentError, match="dense mha by default"):
        run_overhead(tmp_path, TINY)


def test_refusals_and_lack_of_memory_stand_in_the_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(given: Inputs, k: int) -> parts.Call:
        raise torch.OutOfMemoryError("tried to allocate 80 GiB")

    def unsupported(given: Inputs, k: int) -> parts.Call:
        raise UnsupportedError("128 heads")

    def refuse(*args: Any) -> Any:
        raise RuntimeError("No available kernel. Aborting execution.")

    monkeypatch.setattr(experiment, "check_all", lambda given, topks: [])
    monkeypatch.setattr(experiment, "PARTS", {"selection": full, "layer_training": unsupported})
    monkeypatch.setattr(dense, "attend", refuse)
    done = run_overhead(tmp_path, replace(TINY, lengths=(16,)))
    assert done.complete
    assert all(row["ms"] is None for row in done.result["rows"])
    lines = "\n".join(refusals(done.result))
    assert "selection with 4 keys: out of memory: tried to allocate 80 GiB" in lines
    assert "layer_training with 4 keys: refused: 128 heads" in lines
    assert "dense_mha_forward: by every backend" in lines
    backends = done.result["rows"][-1]["backends"]
    assert "No available kernel" in backends["default"]["refused"]
    assert summary(done.result)[0][experiment.COLUMNS.index("select")] == "-"


def test_operator_that_cannot_run_is_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unsupported(*args: Any, **options: Any) -> Any:
        raise UnsupportedError("sparse_attention: 300 heads")

    monkeypatch.setattr(parts, "sparse_attention", unsupported)
    done = run_overhead(tmp_path, replace(TINY, lengths=(16,)))
    assert done.complete
    refused = {row["part"] for row in done.result["rows"] if row["refused"] == "refused: sparse_attention: 300 heads"}
    assert refused == {name for name in PARTS if not name.startswith(("selection", "decode"))}
    assert any(item["name"] == "selection, k 4: scores" for item in done.result["checks"]["nano"]["checks"])


def test_backend_far_behind_is_left_out_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(experiment, "check_all", lambda given, topks: [])
    monkeypatch.setattr(experiment, "PARTS", {})
    monkeypatch.setattr(dense, "backends_of", lambda given: ("quick", "slow"))
    cost = {"quick": 1.0, "slow": 4.0}
    right = measure_call(lambda: None, CPU, 0.1)
    monkeypatch.setattr(dense, "accepted", lambda item, name, backward: (dense.Form(True, False), name))
    monkeypatch.setattr(dense, "call_of", lambda used, form, name, backward: name)
    monkeypatch.setattr(dense, "measure_call", lambda name, device, repeat_ms: replace(right, ms=cost[name]))
    rows = run_overhead(tmp_path, TINY).result["rows"]
    by_length = {row["length"]: row["backends"]["slow"] for row in rows if row["part"] == "dense_mha_forward"}
    assert by_length[16]["ms"] == 4.0
    assert by_length[32]["ms"] is None
    assert by_length[32]["refused"] == "left out: 4.0 times the best one's time at 16 tokens"
    assert {row["backend"] for row in rows} == {"quick"}


@pytest.mark.parametrize(
    "changes",
    [
        {"presets": ("gigantic",)},
        {"presets": ()},
        {"presets": ("nano", "nano")},
        {"lengths": (128, 64)},
        {"lengths": (0, 64)},
        {"topks": (8, 8)},
        {"topks": (65,)},
        {"slots": 0},
        {"precision": "float64"},
        {"repeat_ms": 0.0},
    ],
)
def test_impossible_settings_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(SpecError):
        replace(profile("smoke"), **changes)


def test_profiles_are_what_was_asked_for() -> None:
    found = profile("gpu", presets=("base",), topks=(128,))
    assert (found.presets, found.topks, found.lengths[-1]) == (("base",), (128,), 131072)
    with pytest.raises(SpecError, match="huge"):
        profile("huge")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_gpu_profile_without_gpu_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="GPU"):
        run_overhead(tmp_path, profile("gpu"))
    assert not list(tmp_path.iterdir())


def test_sizes_are_the_presets() -> None:
    sizes, attention = sizes_of("base"), PRESETS["base"](512).attention
    assert sizes.scale == pytest.approx(attention.softmax_scale)
    assert (sizes.heads, sizes.rank + sizes.rope, sizes.nope + sizes.rope, sizes.value) == (8, 160, 80, 48)


def test_inputs_follow_from_their_names_and_drift() -> None:
    config: OverheadConfig = replace(profile("smoke"), lengths=(512,), topks=(32,), period=64)
    query_TX = Inputs(config, "nano", 512).index.query_BTIJ[0].flatten(1)
    assert torch.equal(query_TX, Inputs(config, "nano", 512).index.query_BTIJ[0].flatten(1))
    near = torch.cosine_similarity(query_TX[1:], query_TX[:-1]).mean()
    far = torch.cosine_similarity(query_TX[128:], query_TX[:-128]).mean()
    assert near > 0.9 > 0.3 > far
    calm = shared_keys(Inputs(config, "nano", 512).selection(32)[0], 4)
    wild = shared_keys(Inputs(replace(config, query_noise=50.0), "nano", 512).selection(32)[0], 4)
    assert calm["neighbour_share"] > 0.5 > wild["neighbour_share"]
    assert calm["tile_keys"] < wild["tile_keys"]


def test_shared_keys_counts() -> None:
    same_BTK = torch.arange(4, dtype=torch.int32).expand(1, 64, 4)
    assert shared_keys(same_BTK, 4) == {"neighbour_share": 1.0, "tile_queries": 4.0, "tile_keys": 4.0}
    # Each query reads its own four keys.
    apart_BTK = torch.arange(256, dtype=torch.int32).reshape(1, 64, 4)
    assert shared_keys(apart_BTK, 4) == {"neighbour_share": 0.0, "tile_queries": 4.0, "tile_keys": 16.0}


def test_padded_values_and_repeated_heads_give_the_same() -> None:
    given = Inputs(TINY, "nano", 16)
    for kind in ("mha", "mqa", "decode"):
        item = dense.operands(given, kind)
        truth = dense.truth(item, 4 if kind == "decode" else 16)
        for form in (
            dense.Form(True, False),
            dense.Form(True, True),
            dense.Form(False, False),
            dense.Form(False, True),
        ):
            used = dense.padded(item) if form.padded else item
            found = dense.attend(used, form, "default")[..., : item.value.shape[-1]]
            assert relative_error(found, truth) < 1e-5


def test_relative_error_sees_nan_and_infinity() -> None:
    good = torch.tensor([1.0, float("inf")])
    assert relative_error(good, good) == 0
    assert relative_error(torch.tensor([1.0, float("nan")]), good) == float("inf")
    assert relative_error(torch.tensor([1.0, float("-inf")]), good) == float("inf")


# -------------------------------------------------------------------------------------------------------- the commands


def test_command_prints_a_table_and_draws(cli: Cli, tmp_path: Path) -> None:
    found = cli(
        *("experiment", "dsa-overhead", "--profile", "smoke", "--lengths", "16", "--topk", "4", "--out", str(tmp_path))
    )
    assert found.code == 0
    lines = found.out.splitlines()
    assert lines[0].split()[:3] == ["preset", "tokens", "k"]
    assert lines[1].split()[:3] == ["nano", "16", "4"]
    assert f"measurements {len(PARTS) + len(DENSE)}/" in found.err
    assert (tmp_path / "dsa-overhead.svg").read_text().startswith("<?xml")
    again = cli(
        *("experiment", "dsa-overhead", "--profile", "smoke", "--lengths", "16", "--topk", "4", "--out", str(tmp_path)),
        "--json",
    )
    assert json.loads(again.out) == json.loads((tmp_path / NAME).read_text())


def test_command_out_of_budget_is_exit_code_1(cli: Cli, tmp_path: Path) -> None:
    found = cli("experiment", "dsa-overhead", "--profile", "smoke", "--out", str(tmp_path), "--budget-s", "0")
    assert found.code == 1
    assert "62 measurements not started" in found.err


@pytest.mark.parametrize("wrong", [("--profile", "huge"), ("--lengths", "64,x"), ("--topk", "999"), ("--presets", "x")])
def test_command_with_wrong_arguments_is_wrong_usage(cli: Cli, tmp_path: Path, wrong: tuple[str, str]) -> None:
    options = dict([("--profile", "smoke"), wrong])
    found = cli(
        "experiment", "dsa-overhead", "--out", str(tmp_path), *(part for pair in options.items() for part in pair)
    )
    assert found.code == 2
    assert wrong[1].split(",")[-1] in found.said


def test_command_without_matplotlib_names_the_extra(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent() -> None:
        raise MissingExtra("plots need matplotlib: pip install 'envsynth[plots]'")

    monkeypatch.setattr(plots, "_matplotlib", absent)
    found = cli("experiment", "dsa-overhead", "--profile", "smoke", "--out", str(tmp_path), "--budget-s", "0")
    assert "envsynth[plots]" in found.err
    assert not (tmp_path / "dsa-overhead.svg").exists()


def test_program_without_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    common = ["--profile", "smoke", "--lengths", "16", "--topk", "4", "--out", str(tmp_path)]
    assert program.main([*common, "--budget-s", "0"]) == 1
    assert "were not started" in capsys.readouterr().err
    assert program.main(common) == 0
    said = capsys.readouterr()
    assert said.out.splitlines()[1].split()[:3] == ["nano", "16", "4"]
    assert "18/18" in said.err
    assert program.main([*common, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads((tmp_path / NAME).read_text())
    assert program.main(["--profile", "smoke", "--presets", "gigantic", "--out", str(tmp_path)]) == 2
    with pytest.raises(SystemExit):
        program.main(["--lengths", "x"])


# --------------------------------------------------------------------------------------------------------- the picture


def made_up() -> dict[str, Any]:
    """A record of two presets with kernels ahead from 16,384 tokens on; the last dense training ran out of memory."""
    config = replace(profile("gpu"), lengths=(8192, 16384, 32768))
    rows = []
    for preset, length, k, part in measurements(config):
        ms = length / 4096 * (1 + (k or 0) / 256) if k else (length / 8192) ** 2 * (1.5 if "mqa" in part else 1.0)
        lost = part.endswith("_training") and k is None and length == 32768
        rows.append(
            {
                "preset": preset, "length": length, "k": k, "part": part, "ms": None if lost else ms,
                "memory_bytes": length * 1000, "neighbour_share": 0.6, "refused": "out of memory: x" if lost else "",
            }
        )  # fmt: skip
    return {"settings": config.to_dict(), "rows": rows}


def test_write_overhead_plot_draws_every_line_of_each_preset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sound = made_up()
    partial_record = copy.deepcopy(sound)
    partial_record["rows"] = partial_record["rows"][:3]
    drawn: list[list[tuple[list[float], list[float]]]] = []
    _, figures = plots._matplotlib()

    class Watched(figures.Figure):
        def savefig(self, path: Path, **options: Any) -> None:
            drawn.append([(list(x.get_xdata()), list(x.get_ydata())) for axes in self.axes for x in axes.lines])
            super().savefig(path, **options)

    monkeypatch.setattr(figures, "Figure", Watched)
    for at, record in enumerate((sound, partial_record)):
        assert plots.write_overhead_plot(record, tmp_path / f"{at}.svg").stat().st_size > 10_000
    whole, some = drawn
    # Four panels of ten lines: four parts for two numbers of keys, and dense attention twice.
    assert len(whole) == len(some) == 40
    assert whole[8] == ([8192, 16384, 32768], [1.0, 4.0, 16.0])  # MHA, the faster form
    assert whole[9] == ([8192, 16384], [1.0, 4.0])  # training, the last point lost
    assert whole[20][1] == pytest.approx([length * 1000 / 2**20 for length in (8192, 16384, 32768)])
    assert sum(bool(x) for x, _ in some) == 4


def gains(record: dict[str, Any]) -> dict[tuple[str, ...], str]:
    """Give each line's gain by preset, tokens, k and what."""
    return {row[:4]: dict(zip(experiment.COLUMNS, row, strict=True))["gain"] for row in summary(record)}


def test_summary_names_ratios_and_losses() -> None:
    record = made_up()
    found = gains(record)
    assert len(found) == 2 * 3 * 2 * 3  # presets, lengths, numbers of keys, and three kinds of work without graphs
    assert found["base", "8,192", "256", "forward"] == "0.25x"  # 1 ms beside 4
    assert found["base", "32,768", "256", "forward"] == "1.00x"
    assert found["base", "32,768", "256", "training"] == ""
    for row in record["rows"]:
        # Only selected keys have launches to save here; the faster form of dense attention is the same one.
        row["captured_ms"] = row["ms"] and row["ms"] / (2 if row["k"] else 1)
    captured = gains(record)
    assert captured["base", "8,192", "256", "training, graph"] == "0.50x"
    assert captured["base", "8,192", "256", "training"] == "0.25x"
    assert captured["base", "32,768", "256", "training, graph"] == ""
    assert len(refusals(record)) == 4
