"""The command line: each verb parses its arguments, calls one documented function, and prints.

Data go to stdout, progress and messages to stderr. Exit codes: 0 good, 1 error (one line and a hint), 2 usage, 3 a gate
failed or training is unhealthy, 130 interrupted (everything finished is stored; the same command goes on).
"""

from __future__ import annotations

import errno
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn, cast

import typer
from rich.console import Console
from rich.measure import Measurement
from rich.panel import Panel
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Column, Table
from rich.text import Text
from rich.tree import Tree

from envsynth import __version__
from envsynth.errors import EnvsynthError, SpecError, WorkError

if TYPE_CHECKING:
    from envsynth.executors import Executor
    from envsynth.pipeline import SynthesisResult, Unit
    from envsynth.yields import Funnel, Yields

app = typer.Typer(
    name="envsynth",
    help="Synthesize verifiable, tool-using environments; check, harden, store, play, evaluate and export them.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    add_completion=False,
    pretty_exceptions_enable=False,
)
out = Console(highlight=False)
err = Console(stderr=True, highlight=False)

StoreOption = Annotated[
    str | None,
    typer.Option(
        "--store",
        "--db",
        help="Store: a file, or postgresql+psycopg://USER@HOST/DATABASE; default $ENVSYNTH_STORE or ./envsynth.db.",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON to stdout.")]
SeedOption = Annotated[int, typer.Option("--seed", min=0, help="Equal seeds give equal results.")]
LineagesOption = Annotated[
    float, typer.Option("--lineages", min=1, help="Lineages of tasks per environment; 2.5: three in every second one.")
]
AuditOption = Annotated[
    str,
    typer.Option(
        "--audit",
        help="all: every version meets every gate. leaves: the last of each lineage does, which takes half of the time; "
        "its ancestors are rehearsed, and stay unaudited until `envsynth check` looks at them.",
    ),
]
WorkersOption = Annotated[int, typer.Option("--workers", "-j", min=1, help="Processes.")]

EXIT_ERROR, EXIT_GATE, EXIT_INTERRUPTED = 1, 3, 130
POLICY_SLOTS = 32
"""Episodes that a checkpoint plays at the same time: it decides for all of them in one pass."""
SHOWN_CHARS = 300
"""Characters of an observation on the terminal; `--json` has all."""
SHOWN_TURNS, SHOWN_ENDS = 25, 8
"""Most turns that are printed whole; of a longer episode, this many from its beginning and its end."""
SHOWN_FINDINGS = 10
"""Most findings of a rule for sets that are printed."""
VOID_RETRIES = 3
"""How often a calibration plays a void episode again."""
PAUSE_S = 2.0
"""Seconds between two lines of progress where there is no terminal."""


# --------------------------------------------------------------------------------------------------- the whole program


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit. Every error of ours becomes one line; any other exception is a bug and shows itself.

    Args:
        arguments: What follows the program's name; `sys.argv` when None.
    """
    signal.signal(signal.SIGTERM, _terminated)
    code: int | str | None = 0
    try:
        with _flushed():
            app(args=None if arguments is None else list(arguments), prog_name="envsynth")
    except SystemExit as stop:
        code = stop.code
    except KeyboardInterrupt:
        code = EXIT_INTERRUPTED
    except WorkError as error:
        if not isinstance(error.__cause__, EnvsynthError | None):
            raise
        code = _complain(str(error))
    except EnvsynthError as error:
        code = _complain(str(error))
    except OSError as error:
        if error.filename is not None or error.errno not in _LOST_OUTPUT:
            raise
        # Whoever read our output has gone, or the disk is full; Python would try again at its own exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = EXIT_ERROR if error.errno == errno.EPIPE else _complain(f"cannot write the output: {error.strerror}")
    if code == EXIT_INTERRUPTED:
        _say(
            err,
            "\ninterrupted: what was stored is kept; synthesize, demo, calibrate, evaluate --save, train --resume and experiment go on from there when run again",
            "yellow",
        )
    raise SystemExit(code)


_PRIVATE = ("faults", "delivery", "solution", "verifier", "oracle", "probes", "ir", "ablations")
"""Keys of a task that an actor must never see."""

_LOST_OUTPUT = (errno.EPIPE, errno.ENOSPC, errno.EDQUOT, errno.EIO)


@contextmanager
def _flushed() -> Generator[None]:
    """Flush at the end of the block, so that output which cannot be written is noticed."""
    try:
        yield
    finally:
        sys.stdout.flush()


def _terminated(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _complain(message: str) -> int:
    _say(err, Text("error: ", style="bold red") + Text(message))
    return EXIT_ERROR


@contextmanager
def _usage(name: str) -> Generator[None]:
    """Report a refused value of a parameter as wrong usage."""
    try:
        yield
    except SpecError as error:
        raise typer.BadParameter(str(error), param_hint=name) from error


# ------------------------------------------------------------------------------------------------------------- printing


def _say(console: Console, text: str | Text, style: str = "") -> None:
    """Print text without markup; a terminal gets it wrapped at words, a pipe or a file gets each line whole."""
    console.print(Text(text, style) if isinstance(text, str) else text, soft_wrap=not console.is_terminal)


def _print_json(value: Any) -> None:
    ascii_only = "utf" not in (sys.stdout.encoding or "").lower()
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=ascii_only) + "\n")


def _print_table(table: Table) -> None:
    """Print a table; where there is no terminal, as wide as it needs, so that nothing is cut."""
    if out.is_terminal:
        out.print(table)
        return
    wanted = Measurement.get(out, out.options.update(max_width=100_000), table).maximum
    wide = Console(highlight=False, width=max(wanted, 1))
    with wide.capture() as text:
        wide.print(table)
    sys.stdout.writelines(line.rstrip() + "\n" for line in text.get().splitlines())


def _table(*columns: str, right: Sequence[str] = (), title: str | None = None) -> Table:
    """A table without lines; all but the last column stay on one line, the last one is folded and never cut."""
    table = Table(
        box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0), title=title, title_justify="left"
    )
    for name in columns:
        table.add_column(
            name, justify="right" if name in right else "left", no_wrap=name != columns[-1], overflow="fold"
        )
    return table


def _panel(text: str | Text, title: str) -> None:
    out.print(Panel(Text(text) if isinstance(text, str) else text, title=title, title_align="left", border_style="dim"))


def _short(value: Any) -> str:
    return (", ".join(map(str, cast("list[Any]", value))) or "none") if isinstance(value, list) else str(value)


def _cut(text: str, limit: int = SHOWN_CHARS) -> str:
    return text if len(text) <= limit else f"{text[:limit]} … ({len(text) - limit} more characters)"


def _count(n: int, one: str) -> str:
    return f"{n} {one}" if n == 1 else f"{n} {one}s"


@contextmanager
def _progress(label: str, total: int) -> Generator[Callable[[str], None]]:
    """Progress on stderr with count, rate and time left; yields a function that advances it by one.

    A terminal gets a bar, anything else a line now and then.
    """
    began = time.monotonic()
    done, told = 0, began - PAUSE_S

    def rate() -> str:
        spent = max(time.monotonic() - began, 1e-6)
        return f"{60 * done / spent:.1f}/min"

    if not err.is_terminal:

        def tell(note: str = "") -> None:
            nonlocal done, told
            done += 1
            now = time.monotonic()
            if now - told >= PAUSE_S or done == total:
                told = now
                left = f", {(total - done) * (now - began) / done:.0f} s left" if done < total else ""
                _say(err, f"{label} {done}/{total} ({rate()}{left}) {note}".rstrip())

        yield tell
        return
    note_column = TextColumn(
        "[dim]{task.fields[note]}", table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1), markup=True
    )
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(bar_width=16), MofNCompleteColumn())
    with Progress(
        *columns, TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(), note_column, console=err, expand=True
    ) as bar:
        task = bar.add_task(label, total=total, note="")

        def advance(note: str = "") -> None:
            nonlocal done
            done += 1
            bar.update(task, advance=1, note=f"{rate()} {note}".replace("[", "\\["))

        yield advance


def _version(value: bool) -> None:
    if value:
        _say(out, f"envsynth {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Synthesize verifiable, tool-using environments."""


# ----------------------------------------------------------------------------------------------------------- synthesize


def _tier(name: str, held_out: bool) -> Literal["full", "nano"]:
    """Check which author is meant.

    Raises:
        typer.BadParameter: there is no such tier, or it has no held-out names.
    """
    if name not in ("full", "nano"):
        raise typer.BadParameter(f"{name!r} is neither full nor nano", param_hint="--tier")
    if held_out and name != "nano":
        raise typer.BadParameter("only the nano tier has held-out names", param_hint="--held-out")
    return name


def _audit(name: str) -> Literal["all", "leaves"]:
    """Check which versions are to be audited.

    Raises:
        typer.BadParameter: there is no such choice.
    """
    if name not in ("all", "leaves"):
        raise typer.BadParameter(f"{name!r} is neither all nor leaves", param_hint="--audit")
    return name


def _sentences(given: Sequence[str], file: Path | None) -> tuple[str, ...]:
    """Take the categories from the arguments or from a file.

    Raises:
        typer.BadParameter: there is none, there are both, or a sentence seems to have lost its quotes.
    """
    from envsynth.pipeline import distinct_categories, read_categories

    if file is not None and given:
        raise typer.BadParameter("give CATEGORY arguments or a file, not both", param_hint="--categories")
    if file is not None:
        with _usage("--categories"):
            return read_categories(file)
    if not given:
        raise typer.BadParameter("give a category sentence, or a file with --categories", param_hint="CATEGORY")
    if len(given) > 1 and all(len(item.split()) == 1 for item in given):
        raise typer.BadParameter(
            f"{len(given)} categories of one word each: put a sentence in quotes, {' '.join(given)!r}; "
            "one-word categories can stand in a file (--categories)",
            param_hint="CATEGORY",
        )
    with _usage("CATEGORY"):
        return distinct_categories(given)


def _explain_categories(sentences: Sequence[str]) -> None:
    """Say how sentences are understood: one of them at length, of several what is chosen."""
    from envsynth.author.procedural.reading import read_category

    if len(sentences) == 1:
        _say(err, read_category(sentences[0]).explain(), "dim")
        return
    for sentence in sentences:
        reading = read_category(sentence)
        why = "" if reading.domain_words else ", as no word matched another one"
        always = f"; always {' and '.join(reading.required)}" if reading.required else ""
        _say(err, f"category: {reading.category}: pack {reading.pack.name!r}{why}{always}", "dim")


def _executor(name: str | None, ray_address: str | None) -> Executor | None:
    """Check which executor is meant.

    Raises:
        typer.BadParameter: there is no such executor, or it has no address.
    """
    from envsynth.executors import EXECUTORS

    if ray_address is not None and name != "ray":
        raise typer.BadParameter("only the executor ray has an address", param_hint="--ray-address")
    if name is None:
        return None
    if name not in EXECUTORS:
        raise typer.BadParameter(f"{name!r} is none of {', '.join(EXECUTORS)}", param_hint="--executor")
    return name


@contextmanager
def _unit_progress(count: int, funnel: Funnel) -> Generator[tuple[Callable[[int], None], Callable[[Unit], None]]]:
    """Progress over the units that are still to be made; yields what to call with their number and with each unit.

    Says first how many of the `count` units had been made before.
    """
    with ExitStack() as shown:
        advance: list[Callable[[str], None]] = []

        def begin(missing: int) -> None:
            if missing < count:
                there = f"{count - missing} of" if missing else "all"
                _say(err, f"{there} {_count(count, 'environment')} had been made before")
            if missing:
                advance.append(shown.enter_context(_progress("environments", missing)))

        def show(unit: Unit) -> None:
            funnel.add(len(unit.tasks), unit.rejections)
            advance[0](f"{funnel}; {unit.environment.slug}: {_count(len(unit.tasks), 'task version')}")

        yield begin, show


@app.command()
def synthesize(
    category: Annotated[
        list[str] | None,
        typer.Argument(help='A task category, such as "planning a travel itinerary"; several take turns.'),
    ] = None,
    categories: Annotated[
        Path | None, typer.Option("--categories", help="A file of categories, one per line, in place of CATEGORY.")
    ] = None,
    count: Annotated[int, typer.Option("--count", "-n", min=1, help="Environments, of all categories together.")] = 1,
    seed: SeedOption = 0,
    lineages: LineagesOption = 2,
    steps: Annotated[int, typer.Option(min=0, help="Hardening steps per lineage at most.")] = 4,
    audit: AuditOption = "all",
    tier: Annotated[
        str, typer.Option(help="full: mechanisms, hardened. nano: two tables, invented words, one or two calls.")
    ] = "full",
    held_out: Annotated[bool, typer.Option("--held-out", help="Nano tier: names that no training world has.")] = False,
    workers: WorkersOption = 2,
    executor: Annotated[
        str | None,
        typer.Option(help="serial, pool or ray (extra [ray]); default: serial for one worker, else pool."),
    ] = None,
    ray_address: Annotated[
        str | None, typer.Option(help="Ray cluster: HOST:PORT or auto; default $RAY_ADDRESS, or one of its own.")
    ] = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make environments with hardened tasks and store them. The same command resumes an interrupted run."""
    from envsynth.pipeline import synthesize as run
    from envsynth.store import Store
    from envsynth.yields import Funnel

    author = _tier(tier, held_out)
    sentences = _sentences(category or (), categories)
    if author == "full":
        _explain_categories(sentences)
    funnel = Funnel()
    with Store.open(store) as opened:
        with _unit_progress(count, funnel) as (begin, show):
            result = run(
                sentences,
                count=count,
                seed=seed,
                store=opened,
                tier=author,
                held_out=held_out,
                audited=_audit(audit),
                executor=_executor(executor, ray_address),
                lineages=lineages,
                steps=steps,
                workers=workers,
                ray_address=ray_address,
                on_start=begin,
                on_unit=show,
            )
        entries = {entry.hash: entry.slug for entry in opened.environment_entries()}
    if as_json:
        _print_json(_synthesized(result, funnel))
    else:
        _print_synthesized(result, entries)


def _synthesized(result: SynthesisResult, funnel: Funnel) -> dict[str, Any]:
    from dataclasses import asdict

    facts = {name: getattr(result, name) for name in ("run", "environments", "tasks", "resumed", "dataset")}
    gates = [asdict(item) for item in funnel.passages()]
    return {**facts, "rejections": dict(sorted(result.rejections.items())), "gates": gates}


def _print_synthesized(result: SynthesisResult, slugs: dict[str, str]) -> None:
    count = len(result.environments)
    for digest in result.environments:
        _say(out, f"{digest[:12]}  envsynth/{slugs[digest]}-v1")
    counts = f"{_count(count, 'environment')}, {_count(len(result.tasks), 'task version')}"
    _say(out, f"{counts}, dataset {result.dataset}")


# ---------------------------------------------------------------------------------------------------------------- stats


@app.command()
def stats(
    limit: Annotated[
        int, typer.Option(min=0, help="Tasks per tier whose solution is played for lengths; 0: none.")
    ] = 100,
    plots: Annotated[
        Path | None, typer.Option("--plots", help="Draw it too, as PNG and SVG files in this folder (extra plots).")
    ] = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say what synthesis brought, by stage, operator and mechanism, and how long episodes are."""
    from dataclasses import asdict

    from envsynth.lengths import stored_lengths
    from envsynth.store import Store
    from envsynth.yields import stored_yields

    with Store.open(store, readonly=True) as opened:
        found = stored_yields(opened)
        drawn = _draw(found, plots) if plots is not None else []
        lengths = [asdict(item) for item in stored_lengths(opened, limit=limit)] if limit else []
    if as_json:
        _print_json({"yields": asdict(found), "lengths": lengths, "plots": drawn})
        return
    if not found.tasks and not found.reasons:
        _say(err, "nothing there; `envsynth synthesize` makes some")
        return
    _print_yields(found)
    if found.reasons:
        _print_reasons(found)
    if lengths:
        _print_lengths(lengths)
    if drawn:
        _say(err, f"{_count(len(drawn), 'picture')} in {plots}")


def _draw(found: Yields, folder: Path) -> list[str]:
    """Draw the figures into a folder.

    Raises:
        EnvsynthError: the files cannot be written, or matplotlib is not there.
    """
    from envsynth.plots import write_plots

    try:
        return [str(path) for path in write_plots(found, folder)]
    except OSError as error:
        raise EnvsynthError(f"cannot write pictures into {folder}: {error.strerror}: choose another folder") from error


def _print_yields(found: Yields) -> None:
    proposals = found.tasks + sum(found.refused.values())
    refused = ", ".join(f"{count:,} by {stage}" for stage, count in found.refused.items())
    out.print(f"{proposals:,} proposals: {found.tasks:,} task versions accepted, refused {refused}", soft_wrap=True)
    depths = ", ".join(f"{depth}: {count:,}" for depth, count in found.depths.items())
    out.print(
        f"{found.environments:,} environments, {found.leaves:,} leaves; by hardening steps {depths or 'none'}",
        soft_wrap=True,
    )
    if found.kinds:
        kinds = ", ".join(f"{kind} {count:,} ({count / found.leaves:.0%})" for kind, count in found.kinds.items())
        out.print(f"leaves by class: {kinds}", soft_wrap=True)
    if found.skills:
        needed = ", ".join(f"{skills}: {count:,}" for skills, count in found.skills.items())
        out.print(f"leaves by number of skills needed: {needed}", soft_wrap=True)
    if found.ladder:
        rates = ", ".join(f"{item.depth}: {item.passing:.0%}" for item in found.ladder)
        out.print(f"solvers that lack one skill and pass, by hardening steps: {rates}", soft_wrap=True)
    if found.calls:
        out.print(
            "calls of a leaf's solution: " + ", ".join(f"{name} {count}" for name, count in found.calls.items()),
            soft_wrap=True,
        )
    if found.distinct:
        curve = ", ".join(f"{unique:,} of {size:,}" for size, unique in found.distinct)
        out.print(f"different structures of environments: {curve}", soft_wrap=True)
    for what, rows in (("operator", found.operators), ("mechanism", found.mechanisms)):
        if not rows:
            continue
        out.print()
        table = _table(what, "accepted", "refused", "share", "most refused for", right=("accepted", "refused", "share"))
        for row in rows:
            reasons = ", ".join(f"{code} {count:,}" for code, count in row.reasons)
            table.add_row(row.name, f"{row.accepted:,}", f"{row.refused:,}", f"{row.share:.0%}", reasons)
        _print_table(table)


def _print_reasons(found: Yields) -> None:
    out.print()
    table = _table("refused for", "times", "by", right=("times",))
    for stage, code, count in found.reasons:
        table.add_row(code, f"{count:,}", stage)
    _print_table(table)


def _print_lengths(lengths: list[dict[str, Any]]) -> None:
    out.print()
    table = _table("tier", "length in", "tasks", "median", "p90", "max", right=("tasks", "median", "p90", "max"))
    for row in lengths:
        for what in ("tokens", "characters"):
            found = row[what]
            table.add_row(row["tier"], what, str(row["n"]), *(str(found[key]) for key in ("median", "p90", "max")))
    _print_table(table)


# ---------------------------------------------------------------------------------------------------------------- check

TargetArgument = Annotated[
    str,
    typer.Argument(
        help="Task or environment (hash, prefix, slug), suite of the store, suite file (.jsonl), "
        "or file of an environment with its task (.json).",
    ),
]


@app.command()
def check(
    target: TargetArgument,
    select: Annotated[list[str] | None, typer.Option("--select", help="Only these gate codes.")] = None,
    save: Annotated[bool, typer.Option("--save", help="Keep the reports in the store.")] = False,
    thorough: Annotated[
        bool, typer.Option("--thorough", help="Play 192 random walks, and judge the rarer hostile answers as well.")
    ] = False,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Run all gates on a task, or on each task of an environment or a suite. Exit code 3 when one fails."""
    from envsynth.gates import check as run
    from envsynth.gates import find_gate
    from envsynth.store import Store
    from envsynth.suite.targets import find_pairs

    with _usage("--select"):
        codes = [find_gate(code).code for code in select] if select else None
    found = find_pairs(target, store)
    if save and not found.stored:
        raise typer.BadParameter(
            "needs tasks of a store: import the file first (envsynth suite import)", param_hint="--save"
        )
    reports: list[Any] = []
    with _progress("checks", len(found.pairs)) as advance:
        for spec, task in found.pairs:
            reports.append(run(spec, task, select=codes, thorough=thorough))
            advance(f"{task.hash[:12]} {'pass' if reports[-1].ok else 'FAIL'}")
    if save:
        with Store.open(store) as keep:
            for report in reports:
                keep.add_report(report)
    if as_json:
        _print_json([report.model_dump(mode="json") | {"ok": report.ok} for report in reports])
    else:
        _print_reports(reports)
    if not all(report.ok for report in reports):
        raise typer.Exit(EXIT_GATE)


def _print_reports(reports: Sequence[Any]) -> None:
    """One report whole; of several, the sound ones in a line each."""
    for report in reports:
        if report.ok and len(reports) > 1:
            ran = sum(result.status == "pass" for result in report.results)
            _say(out, Text("pass", "green") + Text(f"  task {report.task[:12]}: {_count(ran, 'gate')}"))
        else:
            _print_report(report)
    if len(reports) > 1:
        _say(out, f"{sum(report.ok for report in reports)} of {len(reports)} tasks pass")


def _print_report(report: Any) -> None:
    table = _table(
        "gate", "result", "evidence", title=f"task {report.task[:12]}: {'all gates pass' if report.ok else 'FAILED'}"
    )
    styles = {"pass": "green", "fail": "bold red", "void": "yellow", "skipped": "dim"}
    for result in report.results:
        lines = [", ".join(f"{key} {_short(value)}" for key, value in sorted(result.evidence.items()))]
        lines += [item.message + (f" -> {item.fix}" if item.fix else "") for item in result.findings]
        table.add_row(
            result.code, Text(result.status, style=styles[result.status]), Text("\n".join(filter(None, lines)))
        )
    _print_table(table)


@app.command()
def explain(
    code: Annotated[str | None, typer.Argument(help="Gate code, such as VF305; all codes when left out.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Explain a gate or a rule for sets: what it does, why, and how to mend a finding."""
    from envsynth.gates import all_gates
    from envsynth.gates import explain as run
    from envsynth.set_audit import all_rules, explain_rule

    if code is not None:
        with _usage("CODE"):
            page = explain_rule(code) if code.upper().startswith("ST") else run(code)
        if as_json:
            _print_json({"code": code.upper(), "page": page})
        else:
            _say(out, "\n\n".join(" ".join(part.split()) for part in page.split("\n\n")))
        return
    if as_json:
        _print_json({item.code: item.title for item in (*all_gates(), *all_rules())})
        return
    for item in (*all_gates(), *all_rules()):
        _say(out, Text(item.code, "bold") + Text(f"  {item.title}"))


# --------------------------------------------------------------------------------------------------------------- harden


@app.command()
def harden(
    task: Annotated[str, typer.Argument(help="Task of the store: hash or unique prefix.")],
    steps: Annotated[int, typer.Option(min=1, help="Accepted steps at most.")] = 2,
    tries: Annotated[int, typer.Option(min=1, help="Proposals per step.")] = 60,
    actor: Annotated[
        str | None,
        typer.Option(
            help="Accept a child when this actor's pass rate falls, instead of by the ladder: noisy:<share>, ablated:<skill>, "
            "chat:<model>, or the folder of a run or checkpoint."
        ),
    ] = None,
    temperature: Annotated[float, typer.Option(min=0.0, help="Of a checkpoint.")] = 1.0,
    pilot: Annotated[int, typer.Option("--pilot", min=1, help="With --actor: episodes of each child.")] = 16,
    commit: Annotated[
        int,
        typer.Option("--commit", min=0, help="With --actor: further episodes of one that does worse than its parent."),
    ] = 48,
    seed: SeedOption = 0,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Harden a stored task further: children are stored, the task itself never changes. Equal tasks get equal children."""
    from envsynth.pipeline import harden_stored
    from envsynth.store import Store

    measure = None if actor is None else _actor_measure(actor, temperature, pilot, commit, seed)
    with Store.open(store) as opened, _progress("hardening steps", steps) as advance:
        result = harden_stored(
            task,
            store=opened,
            steps=steps,
            tries=tries,
            on_step=lambda step: advance(str(step.task.lineage.operator)),
            measure=measure,
        )
    if as_json:
        children = [
            {
                "task": step.task.hash,
                "operator": step.task.lineage.operator,
                "depth": step.task.lineage.depth,
                "skills": sorted(step.skills),
                "calls": step.calls,
                "new": step.task.hash in result.new,
            }
            for step in result.steps
        ]
        _print_json({"parent": result.parent.hash, "children": children, "refused": len(result.refused)})
        return
    for step in result.steps:
        known = "" if step.task.hash in result.new else " (was there already)"
        skills = _short(sorted(step.skills))
        _say(
            out,
            f"{step.task.hash[:12]}  {step.task.lineage.operator}: {_count(step.calls, 'call')}, needs {skills}{known}",
        )
    _say(out, f"{_count(len(result.steps), 'step')} accepted, {_count(len(result.refused), 'proposal')} refused")


def _actor_measure(actor: str, temperature: float, pilot: int, commit: int, seed: int) -> Any:
    """What accepts a child when an actor does worse on it."""
    from envsynth.actors import actor_factory
    from envsynth.calibrate import ActorMeasure, CalibrationOptions
    from envsynth.evaluate import EvaluationOptions

    options = CalibrationOptions(pilot=pilot, more=commit)
    evaluation = EvaluationOptions(slots=_slots(actor), retries=VOID_RETRIES)
    if Path(actor).is_dir():
        checkpoint = _policy_factory(Path(actor), temperature, 0)
        return ActorMeasure(lambda tasks: checkpoint, options, seed, evaluation)
    with _usage("--actor"):
        actor_factory(actor)
    return ActorMeasure(lambda tasks: actor_factory(actor, tasks), options, seed, evaluation)


def _slots(actor: str) -> int:
    """Episodes that an actor plays at the same time."""
    return POLICY_SLOTS if Path(actor).is_dir() else 8 if actor.startswith("chat:") else 1


# ------------------------------------------------------------------------------------------------------------ calibrate


@app.command()
def calibrate(
    targets: Annotated[
        list[str],
        typer.Argument(
            help="Tasks, environments, suites of the store, or suite files (.jsonl), which are only measured."
        ),
    ],
    actor: Annotated[
        str,
        typer.Option(
            help="oracle, random, noisy:<share>, ablated:<skill>, chat:<model>, or the folder of a run or checkpoint."
        ),
    ],
    pilot: Annotated[int, typer.Option("--pilot", min=1, help="Episodes of every task.")] = 16,
    commit: Annotated[
        int, typer.Option("--commit", min=0, help="Further episodes where 12.5 to 75 % of the pilot passed.")
    ] = 48,
    band: Annotated[str, typer.Option(help="Pass rates between which a task trains well.")] = "0.2:0.8",
    certify: Annotated[
        int, typer.Option(min=0, help="Most episodes to find one pass where the pilot has none; the paper has 100.")
    ] = 0,
    temperature: Annotated[float, typer.Option(min=0.0, help="Of a checkpoint; 0 plays greedily.")] = 1.0,
    seed: SeedOption = 0,
    workers: WorkersOption = 1,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure how difficult tasks are for an actor, and route them: harden, train, hard, or park; the same command resumes.

    Episodes and routes of stored tasks are kept. A task without a pass is parked and never deleted; void episodes are played
    again and never counted.
    """
    from envsynth.calibrate import CalibrationOptions, summarize_pool
    from envsynth.evaluate import EvaluationOptions
    from envsynth.suite.targets import find_pairs

    with _usage("--band and counts"):
        options = CalibrationOptions(pilot=pilot, more=commit, band=_band(band), certify=certify)
    found = [find_pairs(target, store) for target in dict.fromkeys(targets)]
    pairs = list({task.hash: (spec, task) for item in found for spec, task in item.pairs}.values())
    # Seeds of episodes tell them apart; an actor's own seed would make two kinds of one name.
    factory = (
        _policy_factory(Path(actor), temperature, 0)
        if Path(actor).is_dir()
        else _factory(actor, [task for _, task in pairs], 0)
    )
    slots = _slots(actor)
    how = EvaluationOptions(workers=1 if slots > 1 else workers, slots=slots, retries=VOID_RETRIES)
    stored = all(item.stored for item in found)
    calibrations = (_calibrated if stored else _calibrated_file)(pairs, factory, options, seed, how, store)
    summary = summarize_pool(calibrations, seed)
    if as_json:
        tasks = [item.model_dump(mode="json") for item in calibrations]
        _print_json({"actor": factory.name, "summary": _pool(summary), "tasks": tasks})
    else:
        _print_calibrations(calibrations, summary)


def _calibrated(pairs: Sequence[Any], factory: Any, options: Any, seed: int, how: Any, store: str | None) -> list[Any]:
    """Calibrate stored tasks; episodes and routes are stored as they come."""
    from envsynth.calibrate import calibrate as run
    from envsynth.store import Store

    with ExitStack() as stack:
        stage, begin = _stages(stack)
        opened = stack.enter_context(Store.open(store))

        def keep(item: Any) -> None:
            opened.add_trajectories([item])
            stage(item.verdict.status)

        return run(
            pairs,
            factory,
            options,
            seed,
            evaluation=how,
            done=lambda task: opened.trajectories(task, factory.name),
            on_done=keep,
            on_task=opened.add_calibration,
            on_stage=begin,
        )


def _calibrated_file(
    pairs: Sequence[Any], factory: Any, options: Any, seed: int, how: Any, store: str | None
) -> list[Any]:
    """Calibrate tasks that no store holds; nothing is kept."""
    from envsynth.calibrate import calibrate as run

    _say(err, "a file is among the targets, so nothing is kept: import it first (envsynth suite import)", "yellow")
    with ExitStack() as stack:
        stage, begin = _stages(stack)

        def advance(item: Any) -> None:
            stage(item.verdict.status)

        return run(pairs, factory, options, seed, evaluation=how, on_done=advance, on_stage=begin)


def _band(text: str) -> tuple[float, float]:
    """Read two shares with a colon between them.

    Raises:
        SpecError: these are no two numbers.
    """
    low, _, high = text.partition(":")
    try:
        return float(low), float(high)
    except ValueError:
        raise SpecError(f"{text!r} is no band such as 0.2:0.8") from None


def _stages(stack: ExitStack) -> tuple[Callable[[str], None], Callable[[str, int], None]]:
    """Progress of stages that follow each other; returns what advances the current one, and what begins the next."""
    shown = stack.enter_context(ExitStack())
    current: list[Callable[[str], None]] = []

    def begin(name: str, count: int) -> None:
        shown.close()
        current[:] = [shown.enter_context(_progress(f"{name} episodes", count))]

    return lambda note: current[0](note), begin


def _pool(summary: Any) -> dict[str, Any]:
    rates = [
        {"k": k, "value": value, "low": span.low, "high": span.high, "method": span.method}
        for k, value, span in summary.rates
    ]
    return {
        "routes": summary.routes,
        "tasks": summary.tasks,
        "informative": summary.informative,
        "rates": rates,
        "void": summary.void,
    }


def _print_calibrations(calibrations: Sequence[Any], summary: Any) -> None:
    names = ("task", "passed", "pass@1", "95 % interval", "route", "why")
    table = _table(*names, right=("passed", "pass@1"))
    for item in calibrations:
        first = item.rates[0] if item.rates else None
        rate = ("-", "-") if first is None else (f"{first.value:.3f}", f"{first.low:.3f} to {first.high:.3f}")
        table.add_row(item.task[:12], f"{item.c} of {item.n}", *rate, item.route, _why(item))
    _print_table(table)
    _say(out, f"{_count(len(calibrations), 'task')}: " + ", ".join(f"{n} {name}" for name, n in summary.routes.items()))
    for k, value, span in summary.rates:
        _say(out, f"pass@{k} {value:.3f} ({span.low:.3f} to {span.high:.3f}, {span.method})")
    if summary.informative is not None:
        _say(out, f"tasks with both passes and failures: {summary.informative:.0%}")
    if summary.void:
        _say(out, f"{_count(summary.void, 'episode')} void, in no rate: run it again", "yellow")


def _why(item: Any) -> str:
    if item.route == "unmeasured":
        return "episodes of the pilot stayed void: run it again"
    if item.route != "park":
        return f"passed once in {item.n} episodes" if item.certification is not None else ""
    solved = {True: "its own solution passes: too hard", False: "its own solution fails: check it", None: "not tried"}
    return f"at most {item.highest:.3f} of the episodes pass (95 %); {solved[item.planner]}"


# -------------------------------------------------------------------------------------------------------- list show tree


@app.command("list")
def list_(
    category: Annotated[str | None, typer.Option(help="Only this category sentence.")] = None,
    tasks: Annotated[bool, typer.Option("--tasks", help="List tasks instead of environments.")] = False,
    leaves: Annotated[bool, typer.Option("--leaves", help="List the hardest task of each lineage only.")] = False,
    rejected: Annotated[
        bool, typer.Option("--rejected", help="Count distinct refusals by stage and code, with an example.")
    ] = False,
    runs: Annotated[bool, typer.Option("--runs", help="List runs.")] = False,
    limit: Annotated[int, typer.Option(min=1, help="Rows at most; JSON has all.")] = 50,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """List what is in the store: environments, or tasks, refusals, runs."""
    from dataclasses import asdict

    from envsynth.store import Store, TaskQuery

    if (tasks or leaves) + rejected + runs > 1:
        raise typer.BadParameter("list one kind at a time: --tasks or --leaves, --rejected, --runs")
    with Store.open(store, readonly=True) as opened:
        if rejected:
            rows = _refusals(opened.rejections())
            columns = {"stage": "stage", "code": "code", "count": "count", "example": "example"}
        elif runs:
            rows = [asdict(entry) for entry in opened.runs()]
            columns = {
                "run": "key",
                "finished": "finished",
                "units": "n_units",
                "tasks": "n_tasks",
                "refused": "n_rejections",
                "of": "params",
            }
        elif tasks or leaves:
            rows = [asdict(entry) for entry in opened.task_entries(TaskQuery(category=category, leaves_only=leaves))]
            columns = {"task": "hash", "kind": "kind", "depth": "depth", "operator": "operator", "audit": "status"}
        else:
            rows = [asdict(entry) for entry in opened.environment_entries(category)]
            columns = {
                "environment": "hash",
                "tables": "n_tables",
                "tools": "n_tools",
                "rows": "n_rows",
                "slug": "slug",
            }
    if as_json:
        _print_json(rows)
    else:
        _print_rows(rows, columns, limit)


def _print_rows(rows: list[dict[str, Any]], columns: dict[str, str], limit: int) -> None:
    if not rows:
        _say(err, "nothing there; `envsynth synthesize` makes some")
        return
    # A slug may be half as wide as a terminal, so tasks stand below the one of their environment.
    titles = dict.fromkeys(
        row["slug"] if "slug" in row and "slug" not in columns.values() else "" for row in rows[:limit]
    )
    for title in titles:
        table = _table(
            *columns, right=("tables", "tools", "rows", "depth", "count", "units", "refused"), title=title or None
        )
        for row in rows[:limit]:
            if not title or row["slug"] == title:
                table.add_row(*(Text(_cell(key, row[key])) for key in columns.values()))
        _print_table(table)
    if len(rows) > limit:
        _say(err, f"{len(rows) - limit} more: raise --limit or use --json")


def _cell(key: str, value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if key == "params":
        return ", ".join(f"{name} {value[name]}" for name in ("category", "seed") if name in value)
    return str(value)[:12] if key in ("hash", "key") else str(value)


def _refusals(rejections: Iterable[Any]) -> list[dict[str, Any]]:
    """Count refusals by stage and code, the most frequent first; the first message of each is its example."""
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for item in rejections:
        row = rows.setdefault(
            (item.stage, item.code), {"stage": item.stage, "code": item.code, "count": 0, "example": item.message}
        )
        row["count"] += 1
    return sorted(rows.values(), key=lambda row: (-row["count"], row["stage"], row["code"]))


@app.command()
def show(
    ref: Annotated[str, typer.Argument(help="Hash, unique prefix or slug of an environment or task.")],
    private: Annotated[bool, typer.Option("--private", help="Also the solution, verifier and oracle.")] = False,
    rejections: Annotated[
        bool,
        typer.Option(
            "--rejections",
            help="Instead: which proposals were refused in this environment, or as children of this task, and why.",
        ),
    ] = False,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show an environment or a task: what an actor reads, and with --private what judges it."""
    from envsynth.store import Store
    from envsynth.suite.targets import find_target

    target = find_target(ref, store)
    report, refused = None, []
    if target.stored:
        with Store.open(store, readonly=True) as opened:
            if rejections:
                named = {"parent": target.task.hash} if target.task else {"environment": target.environment.hash}
                refused = opened.rejections(**named)
            elif target.task is not None:
                report = opened.latest_report(target.task.hash)
    hidden: set[str] = set() if private else {*_PRIVATE}
    if rejections:
        _show_rejections(refused, as_json=as_json)
    elif target.task is None and as_json:
        _print_json(target.environment.model_dump(mode="json"))
    elif target.task is None:
        _print_environment(target.environment, target.tasks)
    elif as_json:
        _print_json(target.task.model_dump(mode="json", exclude=hidden))
    else:
        _print_task(target.environment, target.task, report, private=private)


def _show_rejections(refused: Sequence[Any], *, as_json: bool) -> None:
    if as_json:
        _print_json([item.model_dump(mode="json") for item in refused])
        return
    _print_rows(
        _refusals(refused),
        {"stage": "stage", "code": "code", "count": "count", "example": "example"},
        limit=len(refused),
    )
    _say(err, f"{_count(len(refused), 'refusal')}; --json has each one, `envsynth explain CODE` documents the gates")


def _print_task(spec: Any, task: Any, report: Any, *, private: bool) -> None:
    _say(
        out,
        Text(f"task {task.hash}", "bold")
        + Text(f"  {task.kind}, depth {task.lineage.depth}, at most {task.max_turns} turns"),
    )
    _say(out, f"in {spec.slug}")
    if task.delivery.max_calls is not None:
        _say(out, f"at most {_count(task.delivery.max_calls, 'tool call')}")
    if task.delivery.withheld:
        _say(out, f"without the tools {', '.join(task.delivery.withheld)}")
    _panel(task.prompt, "prompt")
    if private:
        for fact in task.delivery.user:
            _say(out, f"the user, asked about {fact.topic}: {fact.says}")
        for fault in task.faults:
            _say(out, f"{fault.kind}: call {fault.call} of {fault.tool}, {_count(fault.calls, 'call')} in a row")
        _panel(task.oracle.to_json(), "oracle outcome")
        for atom in task.verifier.atoms:
            _say(out, f"{atom.id}  [{atom.kind}]  {atom.expression}\n    because: {atom.quote}")
        _panel(task.solution, "solution")
    if report is not None:
        _print_report(report)
    else:
        _say(out, f"not audited in this store: envsynth check {task.hash[:12]} --save")


def _print_environment(spec: Any, tasks: Sequence[Any]) -> None:
    _say(
        out, Text(spec.slug, "bold") + Text(f"  {spec.hash}\n{spec.title}\nplay it: gymnasium.make({spec.gym_id!r})\n")
    )
    tables = _table("table", "rows", "columns", right=("rows",))
    for item in spec.world.tables:
        tables.add_row(
            item.name, str(len(spec.world.rows.get(item.name, ()))), ", ".join(column.name for column in item.columns)
        )
    _print_table(tables)
    _say(out, "")
    tools = _table("tool", "effect", "description")
    for tool in spec.tools:
        tools.add_row(tool.name, tool.effect, Text(tool.description))
    _print_table(tools)
    _say(out, "")
    for rule in spec.policy:
        _say(out, f"- {rule}")
    _say(out, f"\n{_count(len(tasks), 'task version')}: envsynth tree {spec.slug}")


@app.command()
def tree(
    ref: Annotated[str, typer.Argument(help="Task or environment: hash, unique prefix or slug.")],
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show lineages: which operator made each version, what it needs, what it cost."""
    from envsynth.store import Store
    from envsynth.suite.targets import find_target

    target = find_target(ref, store)
    spec, found = target.environment, {task.hash: task for task in target.tasks}
    reports: dict[str, Any] = {}
    if target.stored:
        with Store.open(store, readonly=True) as opened:
            if target.task is not None:
                root = opened.lineage(target.task.hash)[0]
                found = {entry.hash: opened.task(entry.hash) for entry in opened.descendants(root.hash)}
            reports = {digest: opened.latest_report(digest) for digest in found}
    nodes = [
        _lineage_node(digest, found, reports) for digest, task in found.items() if task.lineage.parent not in found
    ]
    if as_json:
        _print_json({"environment": spec.hash, "slug": spec.slug, "lineages": nodes})
        return
    picture = Tree(Text(spec.slug, "bold"))
    for node in nodes:
        _grow(picture, node)
    out.print(picture)


def _lineage_node(digest: str, tasks: dict[str, Any], reports: dict[str, Any]) -> dict[str, Any]:
    task, report = tasks[digest], reports.get(digest)
    return {
        "task": digest,
        "operator": task.lineage.operator,
        "params": task.lineage.params,
        "kind": task.kind,
        "skills": sorted(report.evidence("DF401").get("skills", [])) if report else [],
        "calls": report.evidence("EX201").get("calls") if report else None,
        "prompt": task.prompt,
        "children": [
            _lineage_node(key, tasks, reports) for key, child in tasks.items() if child.lineage.parent == digest
        ],
    }


def _grow(picture: Tree, node: dict[str, Any]) -> None:
    calls = "not audited" if node["calls"] is None else _count(node["calls"], "call")
    text = (
        Text(str(node["operator"] or "root"), "bold")
        + Text(f" {node['task'][:12]}")
        + Text(f" {node['kind']}, {calls}\n", "dim")
    )
    text.append(node["prompt"], "not dim")
    text.append(f"\nneeds: {_short(node['skills'])}", style="cyan")
    branch = picture.add(text)
    for child in node["children"]:
        _grow(branch, child)


# ----------------------------------------------------------------------------------------------------------------- play


@app.command()
def play(
    target: TargetArgument,
    actor: Annotated[
        str,
        typer.Option(help="human, oracle, idle, empty, echo, random, ablated:<skill>, noisy:<share> or chat:<model>."),
    ] = "human",
    seed: SeedOption = 0,
    save: Annotated[bool, typer.Option("--save", help="Keep the trajectory in the store.")] = False,
    full: Annotated[bool, typer.Option("--full", help="Print every turn and whole observations.")] = False,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Play one episode (of several tasks: the hardest), yourself or with an actor; a person at the tools finds most."""
    from envsynth.rollout import play as run
    from envsynth.store import Store
    from envsynth.suite.targets import find_pairs

    found = find_pairs(target, store)
    if save and not found.stored:
        raise typer.BadParameter(
            "needs a task of a store: import the file first (envsynth suite import)", param_hint="--save"
        )
    spec, task = max(found.pairs, key=lambda pair: pair[1].lineage.depth)
    player = _factory(actor, [task], seed, ask=_ask, tell=_tell)()
    try:
        trajectory = run(spec, task, player, seed=seed)
    finally:
        player.close()
    if save:
        with Store.open(store) as opened:
            opened.add_trajectories([trajectory])
    if as_json:
        _print_json(trajectory.model_dump(mode="json"))
        return
    if actor != "human":
        _say(out, f"{actor} plays task {task.hash[:12]} of {spec.slug}")
        _panel(task.prompt, "prompt")
        _print_turns(trajectory.turns, full=full)
    _print_verdict(trajectory)


def _factory(actor: str, tasks: Sequence[Any], seed: int, **human: Callable[..., Any]) -> Any:
    """The factory of an actor by its name; a name that is no actor's is wrong usage."""
    from envsynth.actors import actor_factory

    options: dict[str, Any] = {"seed": seed} if actor == "random" else dict(human) if actor == "human" else {}
    if actor == "human" and not human:
        raise typer.BadParameter("a person plays with `envsynth play`", param_hint="--actor")
    kind, _, skill = actor.partition(":")
    known = list(dict.fromkeys(name for task in tasks for name in task.ablations))
    if kind == "ablated" and skill not in known:
        raise typer.BadParameter(
            f"no task here can lack the skill {skill!r}: there are {_short(known)}", param_hint="--actor"
        )
    with _usage("--actor"):
        return actor_factory(actor, tasks, **options)


def _ask(prompt: str) -> str:
    try:
        return err.input(Text(f"{prompt} ", "bold cyan"))
    finally:
        if not sys.stdin.isatty():
            err.line()


def _tell(text: str) -> None:
    """Show a person an observation; a tool's documentation, which is JSON for models, as a call with its meaning."""
    lines = Text()
    for line in text.split("\n"):
        lines.append(_signature(json.loads(line)) if line.startswith('{"name":') else Text(line + "\n"))
    lines.rstrip()
    err.print(Panel(lines, border_style="dim"))


def _signature(tool: dict[str, Any]) -> Text:
    schema = tool["parameters"]
    needed = schema.get("required", [])
    names = [name if name in needed else f"[{name}]" for name in schema.get("properties", {})]
    return Text.assemble((f"{tool['name']}({', '.join(names)})\n", "bold"), f"    {tool['description']}\n")


def _print_turns(turns: Sequence[Any], *, full: bool = False, hint: str = "--full shows all") -> None:
    numbered = list(enumerate(turns, 1))
    head, rest = (
        (numbered, []) if full or len(turns) <= SHOWN_TURNS else (numbered[:SHOWN_ENDS], numbered[-SHOWN_ENDS:])
    )
    table = Table.grid(padding=(0, 1))
    table.add_column(justify="right", style="dim")
    table.add_column(overflow="fold")
    for number, turn in head:
        _add_turn(table, number, turn, full=full)
    if rest:
        table.add_row("", Text(f"... {_count(len(turns) - 2 * SHOWN_ENDS, 'more turn')}, {hint}", "dim"))
    for number, turn in rest:
        _add_turn(table, number, turn, full=full)
    _print_table(table)


def _add_turn(table: Table, number: int, turn: Any, *, full: bool) -> None:
    action = turn.action
    if turn.call is not None:
        arguments = (f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in turn.call.arguments.items())
        action = f"{turn.call.tool}({', '.join(arguments)})"
    table.add_row(str(number), Text(action if full else _cut(action), "cyan"))
    table.add_row("", Text(turn.observation if full else _cut(turn.observation), "red" if turn.error else ""))


def _print_verdict(trajectory: Any) -> None:
    verdict = trajectory.verdict
    style = {"pass": "bold green", "fail": "bold red", "void": "bold yellow"}[verdict.status]
    _say(
        out,
        Text(verdict.status, style) + Text(f" after {_count(len(trajectory.turns), 'turn')} ({trajectory.stop.value})"),
    )
    for item in verdict.checks:
        if not item.ok:
            _say(out, f"  not met: {item.id}: {item.reason}" + (f" (because: {item.quote})" if item.quote else ""))
    if verdict.failure:
        _say(out, f"  no judgement: {verdict.failure}")


# ----------------------------------------------------------------------------------------------------- suite and export

suites = typer.Typer(
    help="Freeze, list, audit and import suites: fixed, checksummed lists of tasks.", no_args_is_help=True
)
app.add_typer(suites, name="suite")


@suites.command("freeze")
def suite_freeze(
    name: Annotated[str, typer.Argument(help="Name of the suite.")],
    category: Annotated[str | None, typer.Option(help="Only this category sentence.")] = None,
    leaves: Annotated[bool, typer.Option("--leaves/--all", help="Only the hardest version of each lineage.")] = True,
    kind: Annotated[
        str | None, typer.Option(help="Only read, plan, optimise, infeasible, act, service, diagnose or recover tasks.")
    ] = None,
    description: Annotated[str, typer.Option(help="What it is for.")] = "",
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Freeze the tasks of a query into a named suite. A frozen suite never changes."""
    from envsynth.store import Store, TaskQuery
    from envsynth.suite import freeze

    if kind not in (None, "read", "plan", "optimise", "infeasible", "act", "service", "diagnose", "recover"):
        raise typer.BadParameter(
            f"{kind!r} is none of read, plan, optimise, infeasible, act, service, diagnose, recover",
            param_hint="--kind",
        )
    query = TaskQuery(category=category, leaves_only=leaves, kind=kind, status="passed")  # type: ignore[arg-type]
    with Store.open(store) as opened:
        suite = freeze(opened, name, query, description=description)
    _print_suites([suite], as_json=as_json, one=True)


def _print_suites(found: Sequence[Any], *, as_json: bool, one: bool = False) -> None:
    facts = [{"name": item.name, "tasks": len(item.items), "checksum": item.checksum} for item in found]
    if as_json:
        _print_json(facts[0] if one else facts)
        return
    for item in facts:
        _say(out, f"{item['name']}: {_count(item['tasks'], 'task')}, checksum {item['checksum']}")


@suites.command("list")
def suite_list(store: StoreOption = None, as_json: JsonOption = False) -> None:
    """List the frozen suites of the store."""
    from envsynth.store import Store

    with Store.open(store, readonly=True) as opened:
        found = [opened.suite(name) for name in opened.suites()]
    _print_suites(found, as_json=as_json)
    if not found and not as_json:
        _say(err, "no suite there; `envsynth suite freeze NAME` makes one")


@suites.command("check")
def suite_check(
    targets: Annotated[
        list[str] | None,
        typer.Argument(
            help="Suite file (.jsonl), suite of the store, environment or task; of several, each is a split. Left out: all "
            "of the store."
        ),
    ] = None,
    against: Annotated[
        list[str] | None,
        typer.Option(
            "--against",
            help="A suite that the tasks must not contain: suite file, prompts (.jsonl or text), or tasks of the store.",
        ),
    ] = None,
    leaves: Annotated[
        bool, typer.Option("--leaves/--all", help="Of all of a store, only the hardest version of each lineage.")
    ] = True,
    select: Annotated[list[str] | None, typer.Option("--select", help="Only these codes.")] = None,
    near: Annotated[
        float, typer.Option("--near", help="Likeness of prompts (Jaccard, 0 to 1) above which two are nearly the same.")
    ] = 0.8,
    window: Annotated[int, typer.Option("--window", help="Words in a row that a prompt may not share.")] = 13,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Audit tasks as a set: duplicates, diversity by structure, contamination, leaks between splits; 3 when a rule fails."""
    from envsynth.set_audit import SetLimits, audit_set, find_rule

    with _usage("--select"):
        codes = [find_rule(code).code for code in select] if select else None
    with _usage("--near and --window"):
        limits = SetLimits(near=near, window=window)
    report = audit_set(
        targets or (), against=against or (), store=store, leaves_only=leaves, select=codes, limits=limits
    )
    if as_json:
        _print_json(report.model_dump(mode="json") | {"ok": report.ok})
    else:
        _print_set_report(report)
    if not report.ok:
        raise typer.Exit(EXIT_GATE)


def _print_set_report(report: Any) -> None:
    counts = f"{_count(report.tasks, 'task')} of {_count(report.environments, 'environment')}"
    table = _table("rule", "result", "evidence", title=f"{counts}: {'sound as a set' if report.ok else 'FAILED'}")
    styles = {"pass": "green", "fail": "bold red", "skipped": "dim"}
    for result in report.results:
        lines = _evidence_lines(result.evidence)
        lines += [item.message for item in result.findings[:SHOWN_FINDINGS]]
        if len(result.findings) > SHOWN_FINDINGS:
            lines.append(f"{len(result.findings) - SHOWN_FINDINGS} more: --json has all")
        fixes = dict.fromkeys(item.fix for item in result.findings if item.fix)
        lines += [f"-> {fix}" for fix in fixes]
        table.add_row(result.code, Text(result.status, style=styles[result.status]), Text("\n".join(lines)))
    _print_table(table)


def _evidence_lines(evidence: dict[str, Any]) -> list[str]:
    """Counts on one line, what has parts on a line each."""
    plain = ", ".join(f"{key} {value}" for key, value in evidence.items() if not isinstance(value, dict | list))
    lines = [plain] if plain else []
    for key, value in evidence.items():
        if isinstance(value, list):
            lines.append(f"{key}: " + ", ".join(f"{count} of {size}" for size, count in cast("list[Any]", value)))
        elif isinstance(value, dict):
            parts = cast("dict[str, Any]", value).items()
            lines.append(f"{key}: " + ", ".join(f"{name} {_flat(part)}" for name, part in parts))
    return lines


def _flat(value: Any) -> str:
    if not isinstance(value, dict):
        return str(value)
    return "(" + ", ".join(f"{name} {part}" for name, part in cast("dict[str, Any]", value).items()) + ")"


@suites.command("import")
def suite_import(
    path: Annotated[Path, typer.Argument(help="A suite file (.jsonl).")],
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Import a suite file. Its tasks count as unaudited until `envsynth check --save` has run on them."""
    from dataclasses import asdict

    from envsynth.store import Store
    from envsynth.suite import import_jsonl

    with Store.open(store) as opened:
        result = import_jsonl(path, opened)
    if as_json:
        _print_json(asdict(result))
    else:
        _say(out, str(result))


@app.command()
def export(
    suite: Annotated[str, typer.Argument(help="Name of a frozen suite.")],
    path: Annotated[Path, typer.Argument(help="File to write: .jsonl or .parquet.")],
    public: Annotated[
        bool, typer.Option("--public", help="Leave out solutions, verifiers and oracles (Parquet).")
    ] = False,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Export a frozen suite as JSONL (complete, importable) or Parquet (a table for data tools)."""
    from envsynth.store import Store
    from envsynth.suite import export_jsonl, export_parquet

    if path.suffix not in (".jsonl", ".parquet"):
        raise typer.BadParameter(f"{path}: the name must end in .jsonl or .parquet", param_hint="PATH")
    if public and path.suffix == ".jsonl":
        raise typer.BadParameter("a JSONL suite is complete: --public is for .parquet", param_hint="--public")
    with Store.open(store, readonly=True) as opened:
        frozen = opened.suite(suite)
        if path.suffix == ".jsonl":
            export_jsonl(frozen, opened, path)
        else:
            export_parquet(frozen, opened, path, include_private=not public)
    if as_json:
        _print_json({"path": str(path), "suite": frozen.name, "tasks": len(frozen.items), "checksum": frozen.checksum})
    else:
        _say(out, f"{path}: {_count(len(frozen.items), 'task')}, checksum {frozen.checksum}")


# ------------------------------------------------------------------------------------------------------------- evaluate


@app.command()
def evaluate(
    target: TargetArgument,
    actor: Annotated[
        str,
        typer.Option(
            help="oracle, idle, empty, echo, random, ablated:<skill>, noisy:<share>, chat:<model>, or the folder of a run or "
            "checkpoint."
        ),
    ] = "oracle",
    temperature: Annotated[float, typer.Option(min=0.0, help="Of a checkpoint; 0 plays greedily.")] = 0.0,
    n: Annotated[int, typer.Option("--episodes", "-n", min=1, help="Episodes per task.")] = 1,
    k: Annotated[list[int] | None, typer.Option("-k", help="Report pass@k for these k; 1 when left out.")] = None,
    seed: SeedOption = 0,
    workers: WorkersOption = 1,
    save: Annotated[
        bool, typer.Option("--save", help="Keep the trajectories in the store; those it has are not played again.")
    ] = False,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Evaluate an actor: unbiased pass@k and pass^k with confidence intervals; void episodes are counted apart."""
    from envsynth.evaluate import EvaluationOptions
    from envsynth.evaluate import evaluate as run
    from envsynth.evaluate.report import check_ks
    from envsynth.store import Store
    from envsynth.suite.targets import find_pairs

    ks = tuple(k or [1])
    with _usage("-k"):
        check_ks(n, ks)
    found = find_pairs(target, store)
    if save and not found.stored:
        raise typer.BadParameter(
            "needs tasks of a store: import the file first (envsynth suite import)", param_hint="--save"
        )
    plays_policy = Path(actor).is_dir()
    factory = (
        _policy_factory(Path(actor), temperature, seed)
        if plays_policy
        else _factory(actor, [task for _, task in found.pairs], seed)
    )
    slots = POLICY_SLOTS if plays_policy else 8 if actor.startswith("chat:") else 1
    options = EvaluationOptions(workers=1 if slots > 1 else workers, slots=slots)
    with _progress("episodes", len(found.pairs) * n) as advance:
        if not save:
            report = run(
                found.pairs, factory, n, ks, seed, options=options, on_done=lambda item: advance(item.verdict.status)
            )
        else:
            with Store.open(store) as opened:
                done = [item for _, task in found.pairs for item in opened.trajectories(task.hash, actor=factory.name)]

                def keep(item: Any) -> None:
                    opened.add_trajectories([item])
                    advance(item.verdict.status)

                report = run(found.pairs, factory, n, ks, seed, options=options, done=done, on_done=keep)
    if as_json:
        _print_json(report.model_dump(mode="json"))
    else:
        _print_evaluation(report)


def _print_evaluation(report: Any) -> None:
    names = ("k", "pass@k", "95 % interval", "pass^k", "95 % interval ", "tasks")
    table = _table(
        *names, right=names, title=f"{report.actor}: {report.passed} of {report.scored} scored episodes passed"
    )
    for rate in report.rates:
        at = (_share(rate.pass_at), _span(rate.pass_at_interval))
        table.add_row(str(rate.k), *at, _share(rate.pass_hat), _span(rate.pass_hat_interval), str(rate.tasks))
    _print_table(table)
    if report.void:
        causes = ", ".join(f"{cause} {count}" for cause, count in report.causes.items())
        _say(out, f"{_count(report.void, 'episode')} void (infrastructure failed: {causes}), in no rate", "yellow")


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _span(value: tuple[float, float] | None) -> str:
    return "-" if value is None else f"{value[0]:.3f} to {value[1]:.3f}"


# ---------------------------------------------------------------------------------------------------------------- train


def _torch_wing(module: str, wing: str = "train") -> Any:
    """Load a module that needs torch; its absence is an error with the extra to install."""
    import importlib

    from envsynth.errors import MissingExtra

    try:
        return importlib.import_module(f"envsynth.{wing}.{module}")
    except ModuleNotFoundError as error:
        if error.name not in ("torch", "safetensors"):
            raise
        raise MissingExtra(
            f"{error.name} is not installed: training and playing checkpoints, and reading policies, need the extra"
            " [train], for example `pip install 'envsynth[train]'`"
        ) from error


def _policy_factory(folder: Path, temperature: float, seed: int) -> Any:
    from envsynth.errors import CheckpointError

    module = _torch_wing("actor")
    try:
        return module.policy_factory(folder, temperature=temperature, seed=seed, n_slots=POLICY_SLOTS)
    except CheckpointError as error:
        raise typer.BadParameter(str(error), param_hint="--actor") from error


@app.command()
def train(
    folder: Annotated[Path, typer.Option("--out", help="Folder of the run: metrics and checkpoints.")] = Path("run"),
    tier: Annotated[str, typer.Option(help="Which tasks: nano.")] = "nano",
    sft_seconds: Annotated[
        float | None, typer.Option(min=0.1, help="Seconds of imitation; 210 when no budget is given.")
    ] = None,
    sft_steps: Annotated[int | None, typer.Option(min=1, help="Steps of imitation, instead of seconds.")] = None,
    grpo_seconds: Annotated[float | None, typer.Option(min=0.1, help="Seconds of reinforcement learning.")] = None,
    grpo_steps: Annotated[int | None, typer.Option(min=1, help="Steps of it, instead of seconds.")] = None,
    lessons: Annotated[int, typer.Option(min=1, help="Tasks whose solutions are imitated.")] = 6000,
    indexer: Annotated[
        str, typer.Option(help="The indexer in reinforcement learning: kl (learns from its own loss alone) or frozen.")
    ] = "kl",
    seed: SeedOption = 0,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue the run in the folder as it was asked for.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Train a policy from random weights on the CPU: imitation, then reinforcement learning. Needs the extra [train]."""
    module = _torch_wing("training")
    config = None
    if not resume:
        if all(value is None for value in (sft_seconds, sft_steps, grpo_seconds, grpo_steps)):
            sft_seconds = 210.0
        with _usage("--tier, --indexer and budgets"):
            config = module.TrainConfig(
                tier=tier,
                seed=seed,
                indexer=indexer,
                sft_steps=sft_steps,
                sft_seconds=sft_seconds,
                grpo_steps=grpo_steps,
                grpo_seconds=grpo_seconds,
                lessons=lessons,
            )
        with _usage("--out"):
            module.new_run(folder)
    with _training_progress(folder) as watch:
        trained = module.run_training(folder, config, watch=module.Watch(on_lessons=watch[0], on_step=watch[1]))
    found = {"sft": trained.sft, "grpo": trained.grpo}
    shown = {phase: None if path is None else str(path) for phase, path in found.items()}
    if as_json:
        _print_json({"run": str(folder), "threads": trained.threads, "indexer": trained.indexer, "checkpoints": shown})
        return
    for phase, path in shown.items():
        if path is not None:
            _say(out, f"{phase}: {path}")
    if trained.grpo is not None:
        how = "learned from its own loss alone" if trained.indexer == "kl" else "was frozen"
        _say(err, f"in reinforcement learning the indexer {how}", "dim")
    _say(err, f"play it with: envsynth evaluate TARGET --actor {folder}", "dim")


@contextmanager
def _training_progress(folder: Path) -> Generator[tuple[Callable[[int], None], Callable[[Any], None]]]:
    """Progress of a run on stderr: share of the budget, rate, time left, and how well it does.

    A terminal gets a bar per phase, anything else a line now and then.
    """
    told, made, tokens, began, before = time.monotonic(), 0, 0, 0.0, ""
    bar = Progress(
        SpinnerColumn(), TextColumn("{task.description}"), BarColumn(bar_width=24), TextColumn("{task.fields[note]}"),
        console=err,
    )  # fmt: skip
    task = bar.add_task("lessons", total=None, note="")

    def tell(label: str, note: str, fraction: float | None) -> None:
        nonlocal told
        bar.update(task, description=label, note=note, total=None if fraction is None else 1.0, completed=fraction or 0)
        if not err.is_terminal and time.monotonic() - told >= PAUSE_S:
            told = time.monotonic()
            share = "" if fraction is None else f" {100 * fraction:.0f} %"
            _say(err, f"{label}{share} {note}")

    def lessons(count: int) -> None:
        nonlocal made
        made += count
        tell("lessons", str(made), None)

    def step(report: Any) -> None:
        nonlocal tokens, began, before
        if report.phase != before:
            # The first step told of was under way before.
            tokens, began, before = 0, time.monotonic() - report.elapsed_s / report.step, report.phase
        tokens += report.tokens
        rate = tokens / max(time.monotonic() - began, 1e-6)
        left = report.elapsed_s * (1 - report.fraction) / max(report.fraction, 1e-6)
        names = {"accuracy/action": "accuracy", "loss/sft": "loss", "reward/mean": "reward"}
        marks = ", ".join(
            f"{short} {report.metrics[name]:.3f}" for name, short in names.items() if name in report.metrics
        )
        tell(report.phase, f"step {report.step}, {rate:.0f} tokens/s, {left:.0f} s left, {marks}", report.fraction)

    _say(err, f"metrics: {folder / 'metrics.jsonl'}", "dim")
    if err.is_terminal:
        with bar:
            yield lessons, step
    else:
        yield lessons, step


# --------------------------------------------------------------------------------------------------------------- policy

policies = typer.Typer(
    help="Look at policies; write and read them as Hugging Face folders. Needs the extra [train].", no_args_is_help=True
)
app.add_typer(policies, name="policy")


@policies.command("show")
def policy_show(
    what: Annotated[str, typer.Argument(help="A preset, a Hugging Face folder, a checkpoint, or the folder of a run.")],
    vocab_size: Annotated[
        int | None, typer.Option(min=2, help="Token ids of a preset; by default those that it is meant for.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show how large a policy is: parameters by part, those that a token uses, and the cache; without its numbers."""
    sizes = _torch_wing("size", "policy")
    config = _policy_config(what, sizes.VOCABULARIES if vocab_size is None else {what: vocab_size})
    size = sizes.policy_size(config)
    layers = {
        "dense": config.first_k_dense_replace,
        "with experts": config.n_moe_layers,
        "prediction": config.num_nextn_predict_layers,
    }
    cache = {name: size.cache_numbers * width for name, width in (("bfloat16", 2), ("float32", 4))}
    if as_json:
        _print_json(
            {
                "policy": what,
                "vocab_size": config.vocab_size,
                "layers": layers,
                "parameters": {"total": size.total, "active": size.active, "parts": dict(size.parts)},
                "cache_bytes_per_token": cache,
                "config": config.to_dict(),
            }
        )
        return
    table = _table("part", "parameters", right=("parameters",))
    for part, count in size.parts.items():
        table.add_row(part, f"{count:,}")
    _print_table(table)
    _say(out, f"total {size.total:,}, of which a token uses {size.active:,}; prediction layers are in neither")
    _say(out, "layers: " + ", ".join(f"{count} {name}" for name, count in layers.items()))
    _say(out, "cache per token: " + ", ".join(f"{count:,} bytes in {name}" for name, count in cache.items()))


def _policy_config(what: str, vocabularies: Mapping[str, int]) -> Any:
    """The configuration of a preset, of one of our checkpoints, or of a Hugging Face folder."""
    presets = _torch_wing("presets", "policy")
    if what in presets.PRESETS:
        return presets.PRESETS[what](vocabularies[what])
    folder = Path(what)
    if not folder.is_dir():
        known = ", ".join(presets.PRESETS)
        raise typer.BadParameter(f"{what} is no folder, and none of the presets {known}", param_hint="WHAT")
    if what in vocabularies:
        raise typer.BadParameter("only a preset is given another vocabulary", param_hint="--vocab-size")
    checkpoints = _torch_wing("checkpoint", "policy")
    if (folder / checkpoints.RECORD).is_file() or checkpoints.list_checkpoints(folder):
        return checkpoints.load_checkpoint(folder).record.config
    return _torch_wing("huggingface", "policy").read_policy_config(folder)


@policies.command("export")
def policy_export(
    source: Annotated[Path, typer.Argument(help="A checkpoint, or the folder of a run: its newest one.")],
    folder: Annotated[Path, typer.Argument(help="Folder to write; absent or empty.")],
    as_json: JsonOption = False,
) -> None:
    """Write a checkpoint as a folder that transformers reads (DeepseekV32ForCausalLM). Its tokens stay behind."""
    config = _torch_wing("huggingface", "policy").export_checkpoint(source, folder)
    if as_json:
        _print_json({"path": str(folder), "layers": config.num_hidden_layers, "vocab_size": config.vocab_size})
    else:
        _say(out, f"{folder}: {_count(config.num_hidden_layers, 'layer')}, {config.vocab_size} token ids")


@policies.command("import")
def policy_import(
    folder: Annotated[Path, typer.Argument(help="A Hugging Face folder of DeepSeek-V3.2's architecture.")],
    path: Annotated[Path, typer.Argument(help="Checkpoint to write; absent or empty.")],
    as_json: JsonOption = False,
) -> None:
    """Write a Hugging Face folder as a checkpoint. Its tokens are not ours, so our tasks are not trained with it."""
    record = _torch_wing("huggingface", "policy").import_huggingface(folder, path)
    layers = record.config.num_hidden_layers
    if as_json:
        _print_json({"path": str(path), "layers": layers, "vocabulary": record.vocabulary})
    else:
        _say(out, f"{path}: {_count(layers, 'layer')}, vocabulary {record.vocabulary[:12]}")


# ---------------------------------------------------------------------------------------------------------- experiments

experiments = typer.Typer(
    help="Experiments on the policy: they train, measure and keep a record. Need the extra [train].",
    no_args_is_help=True,
)
app.add_typer(experiments, name="experiment")


@experiments.command("dsa-fidelity")
def experiment_dsa_fidelity(
    folder: Annotated[Path, typer.Argument(metavar="OUT", help="Folder; one of equal settings is gone on with.")],
    size: Annotated[
        str,
        typer.Option(
            "--profile",
            help="smoke: seconds, for tests. cpu: minutes, a demonstration. gpu: context 8,192 and 24 cells.",
        ),
    ] = "cpu",
    devices: Annotated[
        int | None, typer.Option(min=1, help="Processes, each on a device of its own; all GPUs, or one CPU.")
    ] = None,
    seeds: Annotated[int | None, typer.Option(min=1, help="Repetitions; the profile's when absent.")] = None,
    deadline_s: Annotated[
        float | None, typer.Option("--deadline-s", min=0, help="No job starts that would not finish by then.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Compare sparse attention with its dense twin, for numbers of selected keys and of indexer heads.

    A cell that is more than 5 % worse than the twin is marked FAILED. That is a result: the exit code is 0 when every job
    is finished, and 1 when a job failed or was not started.
    """
    experiment = _torch_wing("fidelity.experiment")
    with _usage("--profile"):
        config = _torch_wing("fidelity.config").profile(size, seeds=seeds)
    with _usage("--devices"):
        places = _torch_wing("fidelity.grid").find_devices("cuda" if size == "gpu" else "cpu", devices)

    def tell(event: Any) -> None:
        _say(err, experiment.describe(event))

    done = experiment.run_experiment(folder, config, places, deadline_s=deadline_s, on_event=tell)
    picture = _draw_fidelity(done)
    if as_json:
        _print_json(done.result)
    else:
        _print_fidelity(experiment, done)
    _say(err, f"record: {done.file}" + (f"; picture: {picture}" if picture else ""), "dim")
    for name, reason in {**done.outcome.failed, **done.outcome.skipped}.items():
        _say(err, Text("not finished: ", style="bold red") + Text(f"{name}: {reason}"))
    if not done.complete:
        _say(err, "the same command goes on with what is not finished", "yellow")
        raise typer.Exit(EXIT_ERROR)


@experiments.command("dsa-overhead")
def experiment_dsa_overhead(
    folder: Annotated[
        Path,
        typer.Option("--out", metavar="FOLDER", help="Folder of the record; one of equal settings is gone on with."),
    ] = Path("dsa-overhead"),
    size: Annotated[
        str,
        typer.Option(
            "--profile", help="smoke: seconds on a CPU, by references. gpu: kernels, 8,192 to 131,072 tokens."
        ),
    ] = "gpu",
    presets: Annotated[str | None, typer.Option(help="Presets: base,large; the profile's when absent.")] = None,
    lengths: Annotated[str | None, typer.Option(help="Tokens, ascending: 8192,16384.")] = None,
    topk: Annotated[str | None, typer.Option(help="Keys kept per query, ascending: 256,512.")] = None,
    budget_s: Annotated[
        float | None, typer.Option("--budget-s", min=0, help="Seconds after which no measurement starts.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Measure time and memory of a sparse-attention layer's parts beside dense attention, as the length grows.

    Everything is compared with references first. What a backend refuses, and what runs out of memory, is a result and
    stands in the record; the exit code is 1 when the budget was over before the last measurement.
    """
    experiment = _torch_wing("overhead.experiment")
    with _usage("--profile, --presets, --lengths and --topk"):
        config = _torch_wing("overhead.config").profile(
            size,
            presets=None if presets is None else tuple(presets.split(",")),
            lengths=_numbers(lengths, "--lengths"),
            topks=_numbers(topk, "--topk"),
        )
    with _progress("measurements", len(experiment.measurements(config))) as advance:
        done = experiment.run_overhead(folder, config, budget_s=budget_s, on_measured=advance)
    picture = _draw_overhead(done)
    if as_json:
        _print_json(done.result)
    else:
        table = _table(*experiment.COLUMNS, right=experiment.COLUMNS[1:])
        for row in experiment.summary(done.result):
            table.add_row(*row)
        _print_table(table)
    _say(err, f"record: {done.file}" + (f"; picture: {picture}" if picture else ""), "dim")
    for line in experiment.refusals(done.result):
        _say(err, Text("no time: ", style="bold yellow") + Text(line))
    if not done.complete:
        _say(err, f"{_count(len(done.missing), 'measurement')} not started; the same command goes on", "yellow")
        raise typer.Exit(EXIT_ERROR)


def _numbers(text: str | None, option: str) -> tuple[int, ...] | None:
    """Read numbers with commas between them.

    Raises:
        typer.BadParameter: a part is no number.
    """
    try:
        return None if text is None else tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise typer.BadParameter(f"{text!r} is not numbers with commas between them", param_hint=option) from error


def _draw_overhead(done: Any) -> Path | None:
    """Draw the picture beside the record; without matplotlib say which extra brings it."""
    from envsynth.errors import MissingExtra
    from envsynth.plots import write_overhead_plot

    try:
        return write_overhead_plot(done.result, done.file.with_suffix(".svg"))
    except MissingExtra as error:
        _say(err, str(error), "yellow")
    return None


def _draw_fidelity(done: Any) -> Path | None:
    """Draw the picture beside the record; without matplotlib say which extra brings it."""
    from envsynth.errors import MissingExtra
    from envsynth.plots import write_fidelity_plot

    try:
        return write_fidelity_plot(done.result, done.file.with_suffix(".svg"))
    except MissingExtra as error:
        _say(err, str(error), "yellow")
    return None


def _print_fidelity(experiment: Any, done: Any) -> None:
    columns = experiment.COLUMNS
    table = _table(*columns, right=columns[:-1])
    for row in experiment.summary(done.result):
        style = {"ok": "green", "twin": "bold"}.get(row[-1], "red" if row[-1].startswith("FAILED") else "yellow")
        table.add_row(*row[:-1], Text(row[-1], style))
    _print_table(table)
    if done.result["unlearned"]:
        names = ", ".join(done.result["unlearned"])
        _say(out, f"the dense twin itself is below 50 % in {names}: comparisons of these tell little", "yellow")


# ---------------------------------------------------------------------------------------------------------- demo doctor


@app.command()
def demo(
    folder: Annotated[Path, typer.Option("--out", help="Folder for store, suite, trajectories and report.")] = Path(
        "demo"
    ),
    seed: SeedOption = 0,
    count: Annotated[int, typer.Option("--count", min=1, help="Environments per category.")] = 2,
    workers: WorkersOption = 2,
    training: Annotated[
        bool | None,
        typer.Option(
            "--train/--no-train", help="Train a policy, about 4 minutes.", show_default="if the extra [train] is there"
        ),
    ] = None,
    long: Annotated[
        bool, typer.Option("--long", help="10 minutes of rewards beside a control, after few lessons; 300 tasks.")
    ] = False,
) -> None:
    """The main job on three categories, offline: synthesize, harden, audit, store, play, evaluate, export, report."""
    from importlib.util import find_spec

    from envsynth.demo import CATEGORIES, run_demo

    if training is None and not long:
        training = find_spec("torch") is not None
        if not training:
            _say(err, "no policy is trained: the extra [train] is not installed", "dim")
    learn = _demo_training(seed, long=long) if training or long else None
    with _progress("environments", count * len(CATEGORIES)) as advance:
        result = run_demo(
            folder,
            seed=seed,
            count=count,
            workers=workers,
            say=lambda line: _say(err, line),
            on_unit=advance,
            train=learn,
        )
    for task, report in result.lineage:
        skills = report.evidence("DF401").get("skills", [])
        title = f"{task.lineage.operator or 'root'}: {report.evidence('EX201').get('calls')} calls"
        _panel(Text(task.prompt) + Text(f"\nneeds: {_short(skills)}", "cyan"), title)
    _print_turns(result.episode.turns, hint="see the report")
    _print_verdict(result.episode)
    _print_ladder(result.ladder)
    if result.training is not None:
        table = _table("weights", "played", "pass@1", "95 % interval", "episodes", right=("pass@1", "episodes"))
        for row in result.training.rows:
            interval = f"{row.low:.2f} to {row.high:.2f}"
            table.add_row(row.stage, row.manner, f"{row.rate:.2f}", interval, str(row.episodes))
        _print_table(table)
    _say(out, "the report, for a browser:")
    typer.echo(str(result.report))


def _demo_training(seed: int, *, long: bool) -> Callable[[Path], Any]:
    """What the demo trains with."""
    module = _torch_wing("showcase")
    longer = {"few": 1000, "grpo_seconds": 600.0, "groups": 24, "tasks": 300} if long else {}
    config = module.ShowcaseConfig(seed=seed, **longer)

    def say(line: str) -> None:
        _say(err, line)

    def learn(folder: Path) -> Any:
        with _training_progress(folder / "run") as (lessons, step):
            return module.run_showcase(folder, config, say=say, on_lessons=lessons, on_step=step)

    return learn


def _print_ladder(ladder: Iterable[Any]) -> None:
    names = ("actor", "passed", "pass@1", "95 % interval", "mean calls")
    table = _table(*names, right=names[1:])
    for row in ladder:
        interval = f"{row.low:.2f} to {row.high:.2f}"
        table.add_row(row.actor, f"{row.passed} of {row.scored}", f"{row.rate:.2f}", interval, f"{row.mean_calls:.1f}")
    _print_table(table)


@app.command()
def doctor(
    topic: Annotated[str, typer.Argument(help="What to look at: all, sandbox, store or train.")] = "all",
    run: Annotated[
        Path | None, typer.Argument(help="train: folder of a run or checkpoint; without it a small run is made.")
    ] = None,
    store: StoreOption = None,
    seed: SeedOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Look at this machine: the sandbox's layers with a self-test, the store, optional extras. Exit code 1 when unsafe.

    `train` looks at training instead: eight checks on real episodes. Exit code 3 when one finds a fault. Needs the extra
    [train].
    """
    if topic not in ("all", "sandbox", "store", "train"):
        raise typer.BadParameter(f"{topic!r} is none of all, sandbox, store, train", param_hint="TOPIC")
    if topic == "train":
        _doctor_train(run, seed, as_json=as_json)
        return
    if run is not None:
        raise typer.BadParameter("only the topic train looks at a run", param_hint="RUN")
    from envsynth.doctor import examine

    found = examine(topic, store)
    if as_json:
        _print_json(found)
    else:
        for section, facts in found.items():
            _say(out, section, "bold")
            _print_facts(facts, "  ")
    if not found.get("sandbox", {}).get("ok", True):
        raise typer.Exit(EXIT_ERROR)


def _doctor_train(run: Path | None, seed: int, *, as_json: bool) -> None:
    module = _torch_wing("doctor.examine")
    if run is None:
        _say(err, "a small run is trained first, then examined", "dim")
    found = module.examine_training(run, seed=seed)
    if as_json:
        _print_json(found.to_dict())
    else:
        _say(out, f"{found.checkpoint}: {found.episodes} episodes, {found.tokens} sampled tokens")
        names = ("check", "state", "value", "limit")
        table = _table(*names, right=names[2:])
        for item in found.findings:
            value = "no evidence" if item.value is None else f"{item.value:.2g}"
            table.add_row(item.name, item.state, value, f"{item.limit:.2g}")
        _print_table(table)
        for item in found.unhealthy:
            _say(out, item.name, "bold")
            _say(out, f"  {item.meaning}: {item.value:.3g}")
            _say(out, f"  {item.advice}")
    if found.unhealthy:
        raise typer.Exit(EXIT_GATE)


def _print_facts(facts: Any, indent: str) -> None:
    for name, value in facts.items():
        if isinstance(value, dict | list):
            _say(out, f"{indent}{name}")
        if isinstance(value, dict):
            _print_facts(value, indent + "  ")
        elif isinstance(value, list):
            _print_items(value, indent + "  - ")
        elif value != "":
            _say(out, f"{indent}{name}: {_cell(name, value)}")


def _print_items(items: Any, indent: str) -> None:
    for item in items:
        attack = not isinstance(item, str)
        _say(
            out,
            indent
            + (f"{item['attempt']}: {'contained' if item['contained'] else 'NOT CONTAINED'}" if attack else item),
        )


if __name__ == "__main__":
    main()
