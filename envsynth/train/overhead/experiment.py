"""The whole experiment on costs: the one call behind both commands, and its table."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch

from envsynth.errors import SpecError
from envsynth.kernels.dispatch import UnsupportedError
from envsynth.train.overhead import dense
from envsynth.train.overhead.checks import check_all
from envsynth.train.overhead.config import OverheadConfig
from envsynth.train.overhead.inputs import Inputs, shared_keys
from envsynth.train.overhead.parts import PARTS
from envsynth.train.overhead.record import (
    CAPTURED,
    Key,
    OverheadRecord,
    Row,
    as_captured,
    dense_best,
    find_row,
    ratio,
)
from envsynth.train.overhead.timing import measure_call

DENSE: Final[Mapping[str, tuple[dense.Kind, bool]]] = {
    "dense_mha_forward": ("mha", False),
    "dense_mha_training": ("mha", True),
    "dense_mqa_forward": ("mqa", False),
    "dense_mqa_training": ("mqa", True),
    "dense_decode": ("decode", False),
}
"""Part -> which dense attention, and whether backward runs too."""
COLUMNS: Final = ("preset", "tokens", "k", "what", "sparse", "dense", "gain", "select", "attend", "shared")
"""Columns of `summary`; times are milliseconds per layer, `gain` is dense by sparse, `shared` what neighbours have in
common of their keys."""


@dataclass(frozen=True, kw_only=True)
class Overhead:
    """What a run of the experiment gives."""

    result: Mapping[str, Any]
    """The record, as the file has it."""
    file: Path
    """Where it stands."""
    missing: tuple[str, ...]
    """Measurements that the budget left no time for, in words."""

    @property
    def complete(self) -> bool:
        """Whether every measurement was made; a refusal or an out-of-memory is a result."""
        return not self.missing


def measurements(config: OverheadConfig) -> list[Key]:
    """Name all measurements, in the order in which they are made.

    Args:
        config: The settings.

    Returns:
        Preset, length, k (None for dense attention) and part of each.
    """
    found: list[Key] = []
    for preset in config.presets:
        for length in config.lengths:
            found += [(preset, length, k, part) for k in config.topks for part in PARTS]
            found += [(preset, length, None, part) for part in DENSE]
    return found


def words(key: Key) -> str:
    """Say which measurement it is.

    Args:
        key: Preset, length, k and part.

    Returns:
        A short text.
    """
    preset, length, k, part = key
    return f"{preset}, {length} tokens, {part}" + ("" if k is None else f" with {k} keys")


def run_overhead(
    folder: Path,
    config: OverheadConfig,
    *,
    budget_s: float | None = None,
    on_measured: Callable[[str], None] | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Overhead:
    """Run the experiment, or what is left of it, and write its record after each length.

    Args:
        folder: Where the record stands; one of equal settings, hardware and libraries is gone on with.
        config: The settings.
        budget_s: Seconds from now after which no measurement starts; None: no limit.
        on_measured: Told each measurement, also those of an earlier run.
        clock: Seconds.

    Returns:
        The record, and what is missing in it.

    Raises:
        SpecError: the settings ask for a GPU, and there is none.
        ExperimentError: what would be timed differs from references.
        CheckpointError: the folder holds a damaged record, or one of other settings, hardware or libraries.
    """
    if config.device == "cuda" and not torch.cuda.is_available():
        raise SpecError("this experiment needs a GPU, and torch finds none; try the profile smoke")
    ends = None if budget_s is None else clock() + budget_s
    record = OverheadRecord.open(folder, config)
    tell = on_measured or (lambda _: None)
    for preset, length in ((preset, length) for preset in config.presets for length in config.lengths):
        keys = [key for key in measurements(config) if key[:2] == (preset, length)]
        left = [key for key in keys if record.row(key) is None]
        for key in keys[: len(keys) - len(left)]:
            tell(words(key))
        if not left or _is_over(clock, ends):
            continue
        try:
            _check_once(record, config, preset)
            for key, row in _measured(record, config, left, lambda: _is_over(clock, ends)):
                record.rows.append(row)
                tell(words(key))
        finally:
            # Also where something fails or the user stops it: what is measured is kept.
            record.write()
    missing = tuple(words(key) for key in measurements(config) if record.row(key) is None)
    record.content["complete"] = not missing
    return Overhead(result=record.content, file=record.write(), missing=missing)


def _is_over(clock: Callable[[], float], ends: float | None) -> bool:
    return ends is not None and clock() >= ends


def _check_once(record: OverheadRecord, config: OverheadConfig, preset: str) -> None:
    """Compare with references at the shortest length, unless this revision did."""
    revision, checks = record.content["revisions"][-1], record.content["checks"]
    if preset in checks and checks[preset]["revision"] == revision:
        return
    given = Inputs(config, preset, config.lengths[0])
    found = check_all(given, config.topks)
    checks[preset] = {
        "revision": revision,
        "tokens": given.length,
        "checks": [{**item.to_dict(), "passes": item.passes} for item in found],
    }
    del given
    _release(config)


def _measured(
    record: OverheadRecord, config: OverheadConfig, left: Sequence[Key], is_over: Callable[[], bool]
) -> Iterator[tuple[Key, Row]]:
    """Make the measurements of one preset and length that are left, as long as there is time."""
    given = Inputs(config, left[0][0], left[0][1])
    for key in left:
        if is_over():
            return
        preset, length, k, part = key
        head = {"preset": preset, "length": length, "k": k, "part": part}
        found = _dense_row(record, given, part) if k is None else _part_row(given, part, k)
        yield key, {**head, **found}
    _release(config)


def _release(config: OverheadConfig) -> None:
    if config.device == "cuda":
        torch.cuda.empty_cache()


def _part_row(given: Inputs, part: str, k: int) -> Row:
    """Time a part of sparse attention."""
    try:
        call = PARTS[part](given, k)
        found = measure_call(call, given.device, given.config.repeat_ms).to_dict()
    except torch.OutOfMemoryError as error:
        torch.cuda.empty_cache()
        return {"ms": None, "refused": f"out of memory: {dense.first_line(error)}"}
    except UnsupportedError as refusal:
        return {"ms": None, "refused": f"refused: {refusal}"}
    more = shared_keys(given.selection(k)[0], given.sizes.heads) if part == "selection" else {}
    return {**found, **more, "refused": ""}


def _dense_row(record: OverheadRecord, given: Inputs, part: str) -> Row:
    """Time dense attention by every backend, and put the best one first."""
    kind, backward = DENSE[part]
    try:
        tried = dense.try_backends(
            given, kind, backward=backward, left_out=_hopeless(record, given, part), repeat_ms=given.config.repeat_ms
        )
    except torch.OutOfMemoryError as error:  # of the tensors themselves
        torch.cuda.empty_cache()
        return {"ms": None, "backend": None, "backends": {}, "refused": f"out of memory: {dense.first_line(error)}"}
    backends = {name: item.to_dict() for name, item in tried.items()}
    timed = {name: item for name, item in tried.items() if item.timing is not None}
    best = min(timed, key=lambda name: backends[name]["ms"], default=None)
    if best is None:
        return {"ms": None, "backend": None, "backends": backends, "refused": "by every backend"}
    timing = timed[best].timing
    assert timing is not None
    return {**timing.to_dict(), "backend": best, "backends": backends, "refused": ""}


def _hopeless(record: OverheadRecord, given: Inputs, part: str) -> dict[str, str]:
    """Name the backends that were far slower than the best one at the length before, with the reasons."""
    shorter = [length for length in given.config.lengths if length < given.length]
    row = record.row((given.preset, shorter[-1], None, part)) if shorter else None
    if row is None or row["ms"] is None:
        return {}
    found: dict[str, str] = {}
    for name, item in row["backends"].items():
        if item["ms"] is None:
            # What a backend refuses, it refuses by widths and types, not by lengths.
            found[name] = item["refused"] if item["refused"].startswith(("left out", "refused")) else ""
        elif item["ms"] > dense.HOPELESS * row["ms"]:
            found[name] = f"left out: {item['ms'] / row['ms']:.1f} times the best one's time at {shorter[-1]} tokens"
    return {name: reason for name, reason in found.items() if reason}


def summary(result: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Give the table of the record: a line for each preset, length, k and kind of work.

    Args:
        result: The record.

    Returns:
        Rows of texts, as `COLUMNS` names them; `graph` is replayed from a CUDA graph, and is not there on a CPU. Dense
        attention is the faster of MHA and MQA; an empty cell was not measured, a dash was refused or ran out of memory.
    """
    rows, settings = result["rows"], result["settings"]
    graphs = any(row.get(CAPTURED) is not None for row in rows)
    lines: list[tuple[str, ...]] = []
    for preset in settings["presets"]:
        for length in settings["lengths"]:
            for k in settings["topks"]:
                names = ("selection", "core_forward", "layer_forward", "layer_training", "decode_layer")
                select, core, layer, training, decode = (find_row(rows, (preset, length, k, name)) for name in names)
                pairs = [("forward", layer, dense_best(rows, preset, length, "forward"))]
                pairs.append(("training", training, dense_best(rows, preset, length, "training")))
                if graphs:
                    best = dense_best(rows, preset, length, "training", CAPTURED)
                    pairs.append(("training, graph", as_captured(training), as_captured(best)))
                dense_decode = find_row(rows, (preset, length, None, "dense_decode"))
                pairs.append(("decode", decode, dense_decode))
                if graphs:
                    pairs.append(("decode, graph", as_captured(decode), as_captured(dense_decode)))
                share = "" if select is None or select["ms"] is None else f"{select['neighbour_share']:.0%}"
                for what, ours, theirs in pairs:
                    parts = (_ms(select), _ms(core), share) if what == "forward" else ("", "", "")
                    cells = (_ms(ours), _ms(theirs), _times(ratio(theirs, ours)))
                    lines.append((preset, f"{length:,}", str(k), what, *cells, *parts))
    return lines


def refusals(result: Mapping[str, Any]) -> list[str]:
    """Name what was refused or ran out of memory.

    Args:
        result: The record.

    Returns:
        A line for each measurement without a time.
    """
    return [
        f"{words((row['preset'], row['length'], row['k'], row['part']))}: {row['refused']}"
        for row in result["rows"]
        if row["ms"] is None
    ]


def _ms(row: Row | None) -> str:
    if row is None:
        return ""
    return "-" if row["ms"] is None else f"{row['ms']:.3g}" if row["ms"] < 100 else f"{row['ms']:.0f}"


def _times(found: float | None) -> str:
    return "" if found is None else f"{found:.2f}x"
