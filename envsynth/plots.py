"""Pictures of what synthesis brought: one figure for each question, as PNG and SVG.

Matplotlib is loaded on first use and never through `pyplot`, which keeps figures in a global list. Equal yields give equal
files with one version of it: no date, no random ids.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from envsynth.errors import MissingExtra
from envsynth.yields import STAGES, Yield, Yields

FORMATS = ("png", "svg")
"""Files of each figure."""
REASONS = 15
"""Most frequent reasons of refusals that a figure shows."""
BARS = 40
"""Histograms of more different values group them."""

_ACCEPTED, _REFUSED, _SECOND, _INK = "#2b6ca3", "#c9ced6", "#d5803b", "#333a44"
_STAGE_COLOURS = dict(zip(STAGES, ("#8a939f", "#d5803b", "#5a9a68"), strict=True))
_OTHER = "#9a6fb0"
_BELOW: dict[str, Any] = {"textcoords": "offset points", "ha": "center", "va": "top", "fontsize": 8.5}
_STYLE = {
    "axes.axisbelow": True,
    "axes.edgecolor": "#8a939f",
    "axes.grid": True,
    "axes.labelcolor": _INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlepad": 12,
    "axes.titlesize": 12,
    "axes.titleweight": "bold",
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    "grid.color": "#e6e9ee",
    "legend.frameon": False,
    "svg.fonttype": "path",
    "svg.hashsalt": "envsynth",
    "text.color": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
}


def write_plots(found: Yields, folder: Path) -> list[Path]:
    """Draw what synthesis brought.

    Args:
        found: What the store tells.
        folder: Where the files go; made when it is not there, files of the same names are replaced.

    Returns:
        The files: a PNG and an SVG for each question that the store has an answer to.

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    library, figures = _matplotlib()
    folder.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    for name, draw in _FIGURES.items():
        with library.rc_context(_STYLE):
            figure = figures.Figure(figsize=(7.2, 4.2), layout="constrained")
            if not draw(found, figure):
                continue
            for suffix in FORMATS:
                path = folder / f"{name}.{suffix}"
                metadata = {"Date": None} if suffix == "svg" else {"Software": None}
                figure.savefig(path, dpi=150, metadata=metadata)
                written.append(path)
    return written


def write_fidelity_plot(result: Mapping[str, Any], path: Path) -> Path:
    """Draw what `envsynth experiment dsa-fidelity` found: small multiples, one line for each number of indexer heads.

    Args:
        result: The record of the experiment, as its file has it.
        path: The picture; its end says the format. A file that is there is replaced.

    Returns:
        The picture.

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    library, figures = _matplotlib()
    with library.rc_context({**_STYLE, "axes.titlesize": 10.5, "axes.titlepad": 6, "font.size": 8.5}):
        figure = figures.Figure(figsize=(9.4, 5.9), layout="constrained")
        figure.get_layout_engine().set(hspace=0.05, wspace=0.05)
        grid = figure.subplots(2, 3)
        for axes, name in zip(grid[0], ("single", "multi", "copy"), strict=True):
            _fidelity_accuracy(result, axes, name)
        _fidelity_loss(result, grid[1][0])
        _fidelity_recall(result, grid[1][1])
        _fidelity_entropy(result, grid[1][2])
        lines, labels = grid[0][0].get_legend_handles_labels()
        figure.legend(lines, labels, loc="outside upper center", ncols=len(labels), fontsize=8.5)
        figure.savefig(path, dpi=150, metadata={"Date": None} if path.suffix == ".svg" else {"Software": None})
    return path


def write_overhead_plot(result: Mapping[str, Any], path: Path) -> Path:
    """Draw what `envsynth experiment dsa-overhead` found: time above, memory below, one column for each preset.

    Args:
        result: The record of the experiment, as its file has it.
        path: The picture; its end says the format. A file that is there is replaced.

    Returns:
        The picture.

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    library, figures = _matplotlib()
    presets = result["settings"]["presets"]
    with library.rc_context({**_STYLE, "axes.titlesize": 10.5, "axes.titlepad": 6, "font.size": 8.5}):
        figure = figures.Figure(figsize=(1.2 + 4.2 * len(presets), 6.6), layout="constrained")
        figure.get_layout_engine().set(hspace=0.05, wspace=0.05)
        grid = figure.subplots(2, len(presets), squeeze=False)
        for column, preset in enumerate(presets):
            _overhead_axes(result, grid[0][column], preset, "ms", "milliseconds per layer")
            _overhead_axes(result, grid[1][column], preset, "memory_bytes", "MiB per layer, beside inputs")
        lines, labels = grid[0][0].get_legend_handles_labels()
        figure.legend(lines, labels, loc="outside upper center", ncols=3, fontsize=8.5)
        figure.savefig(path, dpi=150, metadata={"Date": None} if path.suffix == ".svg" else {"Software": None})
    return path


def _matplotlib() -> tuple[Any, Any]:
    try:
        return importlib.import_module("matplotlib"), importlib.import_module("matplotlib.figure")
    except ImportError as error:
        message = "plots need matplotlib, which is not installed: pip install 'envsynth[plots]'"
        raise MissingExtra(message) from error


# ------------------------------------------------------------------------------------------------------ kinds of figures


def _axes(figure: Any, title: str, x: str, y: str) -> Any:
    axes = figure.add_subplot()
    axes.set(title=title, xlabel=x, ylabel=y)
    return axes


def _lying(figure: Any, names: Sequence[str], title: str, x: str) -> Any:
    """Axes for horizontal bars, the first on top; the figure is as high as they need."""
    figure.set_size_inches(7.2, max(2.4, 1.5 + 0.28 * len(names)))
    axes = _axes(figure, title, x, "")
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.margins(x=0.18, y=0.02)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)
    return axes


def _tell(axes: Any, ends: Sequence[float], texts: Sequence[str]) -> None:
    """Write what a horizontal bar says at its end."""
    for position, (end, text) in enumerate(zip(ends, texts, strict=True)):
        axes.annotate(text, (end, position), (4, 0), textcoords="offset points", va="center", fontsize=8.5)


def _standing(figure: Any, counts: Mapping[int, int], title: str, x: str) -> Any:
    """Bars over whole numbers, of which many are put together into groups of equal width."""
    low, high = min(counts), max(counts)
    width = -(-(high - low + 1) // BARS)
    groups: dict[int, int] = {}
    for value, count in counts.items():
        start = low + (value - low) // width * width
        groups[start] = groups.get(start, 0) + count
    axes = _axes(figure, title, x if width == 1 else f"{x} (bars of {width})", "leaf tasks")
    axes.bar([start + (width - 1) / 2 for start in groups], groups.values(), width=0.86 * width, color=_ACCEPTED)
    axes.grid(visible=False, axis="x")
    if high - low < BARS / 2:
        axes.set_xticks(range(low, high + 1))
        for start, count in groups.items():
            axes.annotate(f"{count:,}", (start, count), (0, 3), textcoords="offset points", ha="center", fontsize=8.5)
    axes.set_xlim(low - 1, high + width)
    axes.margins(y=0.1)
    axes.yaxis.get_major_locator().set_params(integer=True)
    return axes


def _proposals(figure: Any, rows: Sequence[Yield], title: str) -> bool:
    if not rows:
        return False
    names, accepted = [row.name for row in rows], [row.accepted for row in rows]
    axes = _lying(figure, names, title, "proposals")
    axes.barh(range(len(rows)), accepted, color=_ACCEPTED, label="accepted")
    axes.barh(range(len(rows)), [row.refused for row in rows], left=accepted, color=_REFUSED, label="refused")
    _tell(axes, [row.accepted + row.refused for row in rows], [f"{row.share:.0%} accepted" for row in rows])
    axes.legend(loc="lower right")
    return True


# -------------------------------------------------------------------------------------------------------- the questions


def _stages(found: Yields, figure: Any) -> bool:
    bars = {"accepted": found.tasks, **{f"refused by {stage}": count for stage, count in found.refused.items()}}
    total = sum(bars.values())
    if not total:
        return False
    axes = _lying(figure, list(bars), f"What became of {total:,} proposals", "proposals")
    colours = [_ACCEPTED, *(_STAGE_COLOURS.get(stage, _OTHER) for stage in found.refused)]
    axes.barh(range(len(bars)), list(bars.values()), color=colours)
    _tell(axes, list(bars.values()), [f"{count:,} ({count / total:.1%})" for count in bars.values()])
    return True


def _reasons(found: Yields, figure: Any) -> bool:
    rows = found.reasons[:REASONS]
    if not rows:
        return False
    total = sum(found.refused.values())
    axes = _lying(figure, [code for _, code, _ in rows], "Most frequent reasons of refusals", "refused proposals")
    for stage in [stage for stage in found.refused if any(owner == stage for owner, *_ in rows)]:
        mine = {at: count for at, (owner, _, count) in enumerate(rows) if owner == stage}
        axes.barh(list(mine), list(mine.values()), color=_STAGE_COLOURS.get(stage, _OTHER), label=f"by {stage}")
    _tell(axes, [count for *_, count in rows], [f"{count:,} ({count / total:.1%})" for *_, count in rows])
    axes.legend(loc="lower right")
    return True


def _operators(found: Yields, figure: Any) -> bool:
    return _proposals(figure, found.operators, "Which operators' proposals are accepted?")


def _mechanisms(found: Yields, figure: Any) -> bool:
    return _proposals(figure, found.mechanisms, "In worlds of which mechanisms are proposals accepted?")


def _shares(found: Yields, figure: Any, counts: Mapping[str, int], title: str) -> bool:
    if not counts or not found.leaves:
        return False
    axes = _lying(figure, list(counts), title, "leaf tasks")
    axes.barh(range(len(counts)), list(counts.values()), color=_ACCEPTED)
    _tell(axes, list(counts.values()), [f"{count:,} ({count / found.leaves:.0%})" for count in counts.values()])
    return True


def _kinds(found: Yields, figure: Any) -> bool:
    return _shares(found, figure, found.kinds, f"Classes of {found.leaves:,} leaf tasks")


def _needed(found: Yields, figure: Any) -> bool:
    return _shares(found, figure, found.needed, "Which skills do leaf tasks need?")


def _depths(found: Yields, figure: Any) -> bool:
    if found.depths:
        _standing(figure, found.depths, "How often were leaf tasks hardened?", "accepted hardening steps")
    return bool(found.depths)


def _skills(found: Yields, figure: Any) -> bool:
    if found.skills:
        _standing(figure, found.skills, "How difficult are leaf tasks?", "skills that the task needs")
    return bool(found.skills)


def _calls(found: Yields, figure: Any) -> bool:
    if not found.gold_calls:
        return False
    axes = _standing(
        figure, found.gold_calls, "How long are the solutions of leaf tasks?", "tool calls of the solution"
    )
    for name, style in (("median", "-"), ("p90", "--")):
        axes.axvline(found.calls[name], color=_SECOND, linestyle=style, label=f"{name}: {found.calls[name]}")
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2)
    return True


def _ladder(found: Yields, figure: Any) -> bool:
    if not found.ladder:
        return False
    axes = _axes(
        figure,
        "Do solvers that lack one skill fail more, step by step?",
        "accepted hardening steps",
        "solvers that pass",
    )
    depths = [item.depth for item in found.ladder]
    axes.plot(depths, [item.passing for item in found.ladder], "o-", color=_ACCEPTED, label="all task versions")
    deep = {item.depth: item.deep for item in found.ladder if item.deep is not None}
    if depths[-1]:
        label = f"the lineages with {depths[-1]} steps alone"
        axes.plot(list(deep), list(deep.values()), "s--", color=_SECOND, label=label, markersize=4)
    for item in found.ladder:
        text = f"{item.passing:.0%}\nn = {item.versions:,}"
        axes.annotate(text, (item.depth, item.passing), (0, -8), **_BELOW)
    axes.set_ylim(0, 1)
    axes.set_xlim(-0.4, depths[-1] + 0.4)
    axes.set_xticks(depths)
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0 %", "25 %", "50 %", "75 %", "100 %"])
    axes.legend(loc="upper right")
    return True


def _signatures(found: Yields, figure: Any) -> bool:
    if not found.distinct:
        return False
    axes = _axes(figure, "How many environments differ in structure?", "environments", "different structures")
    sizes = [size for size, _ in found.distinct]
    label = f"this store: {found.distinct[-1][1]:,} of {sizes[-1]:,}"
    axes.plot([0, sizes[-1]], [0, sizes[-1]], ":", color="#8a939f", label="all different")
    axes.plot([0, *sizes], [0, *(unique for _, unique in found.distinct)], "o-", color=_ACCEPTED, label=label)
    for axis in (axes.xaxis, axes.yaxis):
        axis.get_major_locator().set_params(integer=True)
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    axes.legend(loc="upper left")
    return True


# ------------------------------------------------------------------------------------------------------------- fidelity

_HEAD_COLOURS = ("#9cc3e6", "#4a90c4", "#2b6ca3", "#123a5e")
"""Few to many heads of the indexer; more numbers of heads repeat the last."""
_FAILS = {"marker": "o", "linestyle": "none", "markersize": 9, "markerfacecolor": "none", "color": "#c0392b"}
_TITLES = {"single": "Needles, both ids right", "multi": "Groups, every value right", "copy": "Spans, every id right"}


def _fidelity_lines(result: Mapping[str, Any]) -> dict[int, tuple[str, list[Mapping[str, Any]]]]:
    """Finished cells of each number of heads, with its colour, in the order of k."""
    heads = sorted({cell["heads"] for cell in result["cells"]})
    found: dict[int, tuple[str, list[Mapping[str, Any]]]] = {}
    for at, count in enumerate(heads):
        mine = [cell for cell in result["cells"] if cell["heads"] == count and cell["verdict"] != "missing"]
        # With few lines the colours are taken from the dark end, where they are easier to see.
        colour = _HEAD_COLOURS[min(at + max(0, len(_HEAD_COLOURS) - len(heads)), len(_HEAD_COLOURS) - 1)]
        found[count] = (colour, sorted(mine, key=lambda cell: cell["topk"]))
    return found


def _fidelity_axes(result: Mapping[str, Any], axes: Any, title: str) -> None:
    """Axes over k, whose values stand there as they are."""
    ks = sorted({cell["topk"] for cell in result["cells"]})
    axes.set_title(title)
    axes.set_xlabel("selected keys k")
    axes.set_xscale("log", base=2)
    axes.set_xticks(ks, [f"{k:,}" for k in ks])
    axes.minorticks_off()


def _fidelity_marks(axes: Any, cells: Sequence[Mapping[str, Any]], measure: str) -> None:
    """Circle the cells that fail in a measure."""
    for cell in cells:
        found = next(item for item in cell["comparisons"] if item["measure"] == measure)
        if any(line.startswith(f"{measure}:") for line in cell["failures"]):
            axes.plot([cell["topk"]], [found["cell"]], **_FAILS)


def _heads(count: int) -> str:
    return "1 head" if count == 1 else f"{count} heads"


def _fidelity_accuracy(result: Mapping[str, Any], axes: Any, name: str) -> None:
    _fidelity_axes(result, axes, _TITLES[name])
    if (twin := result["twin"]) is not None:
        share = twin["accuracy"][name]
        axes.axhspan(share["low"], share["high"], color="#e9ebef", linewidth=0)
        axes.axhline(share["share"], color=_INK, linestyle="--", linewidth=1.2, label="dense twin")
    for count, (colour, cells) in _fidelity_lines(result).items():
        shares = [cell["after"]["accuracy"][name] for cell in cells]
        middle = [share["share"] for share in shares]
        spans = [
            [max(0.0, at - share["low"]) for at, share in zip(middle, shares, strict=True)],
            [max(0.0, share["high"] - at) for at, share in zip(middle, shares, strict=True)],
        ]
        axes.errorbar(
            [cell["topk"] for cell in cells], middle, yerr=spans, fmt="o-", color=colour, markersize=4, linewidth=1.5,
            elinewidth=0.8, label=_heads(count),
        )  # fmt: skip
        _fidelity_marks(axes, cells, name)
    axes.plot([], [], **_FAILS, label="more than 5 % worse than the twin")
    axes.set_ylim(-0.04, 1.04)
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0 %", "25 %", "50 %", "75 %", "100 %"])


def _fidelity_loss(result: Mapping[str, Any], axes: Any) -> None:
    _fidelity_axes(result, axes, "Loss of answers (nats per id)")
    if (twin := result["twin"]) is not None:
        axes.axhline(twin["loss"]["answer"], color=_INK, linestyle="--", linewidth=1.2)
    for colour, cells in _fidelity_lines(result).values():
        losses = [cell["after"]["loss"]["answer"] for cell in cells]
        axes.plot([cell["topk"] for cell in cells], losses, "o-", color=colour, markersize=4)
        _fidelity_marks(axes, cells, "answer_loss")
    axes.set_ylim(0, 1.05 * axes.get_ylim()[1])


def _fidelity_recall(result: Mapping[str, Any], axes: Any) -> None:
    """Recall from the first step of the warm-up to the last of sparse training, for the k that the warm-up measures."""
    ks = result["settings"]["topks"]
    middle = ks[len(ks) // 2]
    axes.set(title=f"Recall at k = {middle:,}", xlabel="steps: warm-up, then sparse training")
    axes.text(0.02, 0.93, "dashed: the most that k keys can hold", transform=axes.transAxes, fontsize=8, color=_INK)
    warmup = result["settings"]["warmup"]["steps"]
    axes.axvline(warmup, color="#8a939f", linewidth=0.8, linestyle=":")
    for count, (colour, _) in _fidelity_lines(result).items():
        points: list[tuple[float, float]] = []
        most: list[tuple[float, float]] = []
        for kind, topk, offset in (("warmup", None, 0), ("sparse", middle, warmup)):
            for job in result["jobs"]:
                if (job["kind"], job["heads"], job["topk"], job["seed"]) == (kind, count, topk, 0):
                    curve = job["training"]["curve"]
                    points += [(point["step"] + offset, point["recall"]) for point in curve if "recall" in point]
                    most += [(point["step"] + offset, point["best"]) for point in curve if "best" in point]
        axes.plot([step for step, _ in points], [recall for _, recall in points], "o-", color=colour, markersize=3)
        axes.plot([step for step, _ in most], [best for _, best in most], "--", color=colour, linewidth=0.8)
    axes.set_ylim(-0.04, 1.04)
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0 %", "25 %", "50 %", "75 %", "100 %"])


def _fidelity_entropy(result: Mapping[str, Any], axes: Any) -> None:
    _fidelity_axes(result, axes, "Entropy of index scores (nats)")
    for colour, cells in _fidelity_lines(result).values():
        found = [(cell["topk"], cell["after"]["selection"]) for cell in cells]
        known = [(topk, selection["entropy"]) for topk, selection in found if selection is not None]
        axes.plot([topk for topk, _ in known], [entropy for _, entropy in known], "o-", color=colour, markersize=4)
    axes.set_ylim(0, 1.05 * axes.get_ylim()[1])


# ------------------------------------------------------------------------------------------------------------- overhead

_OVERHEAD_LINES = {
    "selection": ("selection", "#5a9a68", "-"),
    "core_forward": ("attention to selected keys", "#9a6fb0", "-"),
    "layer_forward": ("sparse layer, forward", _ACCEPTED, "-"),
    "layer_training": ("sparse layer, training", _ACCEPTED, "--"),
    "dense_{}_forward": ("dense, forward", _SECOND, "-"),
    "dense_{}_training": ("dense, training", _SECOND, "--"),
}
"""Part of the record -> label, colour and style; of dense attention the faster of its two forms is drawn."""


def _overhead_axes(result: Mapping[str, Any], axes: Any, preset: str, measure: str, label: str) -> None:
    """Draw one measure of a preset over lengths; a second number of keys has thinner lines, without names."""
    lengths, topks = result["settings"]["lengths"], result["settings"]["topks"]
    keys = ", thin: ".join(f"{k:,}" for k in topks)
    axes.set(title=f"{preset}, k = {keys}", xlabel="tokens", ylabel=label, yscale="log")
    axes.set_xscale("log", base=2)
    axes.set_xticks(lengths, [f"{length:,}" for length in lengths])
    axes.minorticks_off()
    for part, (name, colour, style) in _OVERHEAD_LINES.items():
        for at, k in enumerate([None] if part.startswith("dense") else topks):
            points = _overhead_points(result, (preset, part, k), measure)
            look = {"color": colour, "linestyle": style, "linewidth": 1.5 if at == 0 else 0.7, "markersize": 3}
            axes.plot(list(points), list(points.values()), marker="o", label=name if at == 0 else None, **look)


def _overhead_points(result: Mapping[str, Any], line: tuple[str, str, int | None], measure: str) -> dict[int, float]:
    """Length -> value of a line, where there is one; a logarithm has no place for zero."""
    preset, part, k = line
    names = [part.format(kind) for kind in ("mha", "mqa")]
    found: dict[int, Any] = {}
    for row in result["rows"]:
        is_mine = row["preset"] == preset and row["part"] in names and row["k"] == k and row["ms"] is not None
        if is_mine and row["ms"] < found.get(row["length"], {"ms": float("inf")})["ms"]:
            found[row["length"]] = row
    scale = 1 / 2**20 if measure == "memory_bytes" else 1.0
    return {length: scale * row[measure] for length, row in sorted(found.items()) if row.get(measure)}


_FIGURES: Mapping[str, Callable[[Yields, Any], bool]] = {
    "stages": _stages,
    "reasons": _reasons,
    "operators": _operators,
    "mechanisms": _mechanisms,
    "kinds": _kinds,
    "depths": _depths,
    "ladder": _ladder,
    "skills": _skills,
    "needed": _needed,
    "calls": _calls,
    "signatures": _signatures,
}
"""File -> what draws it; it returns False where the store has no answer."""
