"""The pipeline: categories -> draft -> gates -> hardening -> store, in one process or several, resumable.

A unit of work is one environment with its lineages. Each unit is a function of category, seed and index, so it does not
matter which process makes it, in which order, or after which interruption: equal inputs give equal hashes.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, TypedDict, Unpack

from pydantic import JsonValue

from envsynth.author.procedural.author import Draft, ProceduralAuthor
from envsynth.author.procedural.nano import NanoAuthor
from envsynth.errors import AuthorError, SandboxError, SpecError
from envsynth.executors import Executor, run_all
from envsynth.gates import Rehearsal, check
from envsynth.hardening import MAX_STEPS, MAX_TRIES, Audit, Measure, Step, find_root, harden
from envsynth.record import content_hash
from envsynth.report import GateReport
from envsynth.sandbox import shared_jail
from envsynth.spec import EnvironmentSpec, TaskVersion
from envsynth.store import Rejection, Store

REDRAWS = 4
"""How often an environment is composed anew when no root task is found in it."""
_REDRAW_STEP = 1_000_000

Tier = Literal["full", "nano"]
"""How large worlds and tasks are: `full` composes mechanisms and hardens, `nano` makes tasks of one or two calls."""


@dataclass(frozen=True, kw_only=True)
class UnitRequest:
    """One environment to make."""

    category: str
    """The category sentence."""
    seed: str
    """Seed of the run."""
    index: int
    """Which environment of the category, from 0."""
    lineages: int = 2
    """Lineages of tasks in it."""
    steps: int = MAX_STEPS
    """Hardening steps per lineage at most."""
    tries: int = MAX_TRIES
    """Proposals per step."""
    tier: Tier = "full"
    """Which author."""
    held_out: bool = False
    """Nano tier: whether names come from the held-out lists."""
    audited: Audit = "all"
    """Which versions meet every gate: all, or the last of each lineage."""


@dataclass(frozen=True)
class Unit:
    """What became of a request."""

    index: int
    """Which environment of its category."""
    environment: EnvironmentSpec
    """The record."""
    tasks: tuple[tuple[TaskVersion, GateReport], ...]
    """Accepted versions, each parent before its children."""
    rejections: tuple[Rejection, ...]
    """Everything refused."""


@dataclass
class SynthesisResult:
    """What a run added, and what it refused."""

    run: str
    """Key of the run; the same arguments resume it."""
    environments: list[str] = field(default_factory=list[str])
    """Hashes in order of index."""
    tasks: list[str] = field(default_factory=list[str])
    """Hashes, each parent before its children."""
    rejections: Counter[str] = field(default_factory=Counter[str])
    """Refusals by code, of the units that this call made."""
    resumed: int = 0
    """Units that an earlier call had finished."""
    dataset: str = ""
    """Hash over the hashes of environments and tasks, in order of index (`Store.dataset_hash`)."""


class _Options(TypedDict):
    """How units are run."""

    workers: int
    executor: Executor | None
    ray_address: str | None


def make_unit(request: UnitRequest) -> Unit:
    """Make one environment with hardened tasks, without a store.

    Args:
        request: Which one.

    Returns:
        The environment, its accepted task versions and the refusals.

    Raises:
        AuthorError: no root task passed in several compositions.
        SandboxError: the sandbox failed twice.
    """
    try:
        return _make(request)
    except SandboxError:
        # The jail was ended from outside, as the kernel does when memory runs out; that says nothing about the unit,
        # which is a function of its request: made again in a fresh jail, it is the same.
        return _make(request)


def _author(category: str, seed: str | int, tier: Tier, *, held_out: bool) -> ProceduralAuthor:
    if tier == "nano":
        return NanoAuthor(category, seed, held_out=held_out)
    return ProceduralAuthor(category, seed)


def _make(request: UnitRequest) -> Unit:
    author = _author(request.category, request.seed, request.tier, held_out=request.held_out)
    rejections: list[Rejection] = []
    for redraw in range(REDRAWS):
        draft = author.draft(request.index + redraw * _REDRAW_STEP)
        with Rehearsal(draft.environment, shared_jail()) as rehearsal:
            tasks = _lineages(request, author, draft, rehearsal, rejections)
        if tasks:
            return Unit(request.index, draft.environment, tuple(tasks), tuple(rejections))
    codes = Counter(item.code for item in rejections).most_common(5)
    raise AuthorError(
        f"no task passed the gates for {request.category!r}, seed {request.seed}, index {request.index}, "
        f"in {REDRAWS} compositions; most frequent refusals: {codes}; try another seed"
    )


def _lineages(
    request: UnitRequest, author: ProceduralAuthor, draft: Draft, rehearsal: Rehearsal, rejections: list[Rejection]
) -> list[tuple[TaskVersion, GateReport]]:
    """Make the lineages of an environment; refusals are appended."""
    tasks: list[tuple[TaskVersion, GateReport]] = []
    programs: dict[str, None] = {}
    for number in range(request.lineages):
        root = find_root(draft, author, number, rehearsal=rehearsal, audited=request.audited)
        rejections += root.rejections
        if not root.steps or content_hash(root.steps[0].task.ir) in programs:
            continue
        start = root.steps[0]
        lineage = harden(
            draft, author, start, steps=request.steps, tries=request.tries, rehearsal=rehearsal, audited=request.audited
        )
        rejections += lineage.rejections
        programs.update(dict.fromkeys(content_hash(step.task.ir) for step in lineage.steps))
        tasks += [(step.task, step.report) for step in lineage.steps]
    return tasks


def read_categories(path: str | Path) -> tuple[str, ...]:
    """Read category sentences from a text file.

    Args:
        path: UTF-8, one sentence per line; empty lines, and lines that begin with `#`, are left out.

    Returns:
        The sentences in order.

    Raises:
        SpecError: there is no such file, it holds no category, a line holds no word, or two lines say the same.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise SpecError(f"cannot read categories from {path}: {reason}") from error
    found: dict[str, int] = {}
    for number, line in enumerate(lines, 1):
        sentence = line.strip()
        if not sentence or sentence.startswith("#"):
            continue
        if not any(sign.isalpha() for sign in sentence):
            raise SpecError(f"line {number} of {path} holds no word: {sentence!r}: give a sentence, or remove the line")
        if sentence in found:
            raise SpecError(
                f"line {number} of {path} repeats line {found[sentence]}, {sentence!r}: a category twice would make each "
                "of its environments twice; remove one line"
            )
        found[sentence] = number
    if not found:
        raise SpecError(f"{path} holds no category: write one sentence per line")
    return tuple(found)


def distinct_categories(given: str | Sequence[str]) -> tuple[str, ...]:
    """Take one category sentence or several different ones.

    Args:
        given: The sentences.

    Returns:
        The sentences without space around them.

    Raises:
        SpecError: there is none, or one is given twice.
    """
    found = tuple(item.strip() for item in ([given] if isinstance(given, str) else given))
    if not found:
        raise SpecError("no category is given: give a sentence such as 'planning a travel itinerary'")
    for item, times in Counter(found).items():
        if times > 1:
            raise SpecError(
                f"category {item!r} is given {times} times: each of its environments would be made as often"
            )
    return found


def synthesize(  # noqa: PLR0913 -- one verb with its options, all keyword-only
    category: str | Sequence[str],
    *,
    count: int,
    seed: str | int = 0,
    store: Store | None = None,
    lineages: float = 2,
    steps: int = MAX_STEPS,
    tries: int = MAX_TRIES,
    workers: int = 1,
    tier: Tier = "full",
    held_out: bool = False,
    executor: Executor | None = None,
    ray_address: str | None = None,
    audited: Audit = "all",
    on_start: Callable[[int], None] | None = None,
    on_unit: Callable[[Unit], None] | None = None,
) -> SynthesisResult:
    """Make environments with hardened tasks from category sentences.

    Units that an earlier call with the same arguments finished are not made again. Each unit is stored in one
    transaction as soon as it is done, so an interruption loses at most the units in work.

    Several categories take turns: with three of them, environments 0, 3, 6 and so on are of the first one. Each is the
    environment that a run of its category alone would make.

    Args:
        category: A sentence such as "planning a travel itinerary", or several different ones.
        count: Environments, of all categories together.
        seed: Equal seeds give equal hashes.
        store: Where they go; the default store when None.
        lineages: Lineages of tasks per environment; of 2.5, every second environment of a category gets three.
        steps: Hardening steps per lineage at most.
        tries: Proposals per step.
        workers: Processes.
        tier: Which author; a nano task is a lineage of one version.
        held_out: Nano tier: take nouns and fields from the held-out lists.
        executor: What makes the units; `serial` for one worker and `pool` for more when None. All give equal hashes.
        ray_address: Executor `ray`: address of the cluster, see `envsynth.executors.run_all`.
        audited: Which versions meet every gate: `all`, or with `leaves` the last of each lineage alone, which takes less than
            half of the time. Its ancestors are rehearsed, and stay unaudited until somebody checks them.
        on_start: Called once with the number of units that are to be made, before the first of them.
        on_unit: Called in this process with each unit, after it was stored.

    Returns:
        The hashes, in order of index, and the refusals.

    Raises:
        AuthorError: a category is empty.
        SpecError: no category is given, or one twice.
        WorkError: a unit failed; its cause says why, such as an `AuthorError` when it found no task. Or Ray failed.
        MissingExtra: Ray is not installed.
        ValueError: `count`, `lineages` or `workers` is below 1, or `held_out` is asked of another tier than nano.
    """
    if not math.isfinite(lineages):
        raise ValueError(f"lineages must be a number, got {lineages}")
    for name, value in (("count", count), ("lineages", lineages), ("workers", workers)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    if held_out and tier != "nano":
        raise ValueError(f"held_out names belong to the nano tier, not to {tier!r}")
    categories = distinct_categories(category)
    # Refuses what no unit could be made of, before a run is recorded.
    authors = [_author(item, seed, tier, held_out=held_out) for item in categories]
    own = store is None
    store = store or Store.open()
    try:
        params: dict[str, JsonValue] = {"author": authors[0].name, "seed": str(seed)}
        params |= {"lineages": int(lineages) if lineages == int(lineages) else lineages}
        params |= _named(categories, steps=steps, tries=tries, held_out=held_out, audited=audited)
        key = content_hash(params)
        store.start_run(key, "synthesize", params)
        done = store.done_units(key)
        every = UnitRequest(
            category="", seed=str(seed), index=0, steps=steps, tries=tries, tier=tier,
            held_out=held_out, audited=audited,
        )  # fmt: skip
        open_ = [number for number in range(count) if number not in done]
        requests = {number: _request(every, number, categories, lineages) for number in open_}
        result = SynthesisResult(run=key, resumed=count - len(requests))
        if on_start is not None:
            on_start(len(requests))
        _work(requests, store, result, on_unit, workers=workers, executor=executor, ray_address=ray_address)
        _collect(store, count, result)
        store.finish_run(key)
    finally:
        if own:
            store.close()
    return result


def _named(
    categories: Sequence[str], *, steps: int, tries: int, held_out: bool, audited: Audit
) -> dict[str, JsonValue]:
    """What names a run. The count does not: asking for more later continues the same run."""
    params: dict[str, JsonValue] = (
        {"category": categories[0]} if len(categories) == 1 else {"categories": [*categories]}
    )
    params |= {"steps": steps, "tries": tries}
    params |= {"held_out": True} if held_out else {}
    return params | ({"audited": audited} if audited != "all" else {})


def _request(every: UnitRequest, number: int, categories: Sequence[str], lineages: float) -> UnitRequest:
    """The unit of a number: categories take turns, and a broken number of lineages is met on average."""
    index = number // len(categories)
    each = math.floor((index + 1) * lineages) - math.floor(index * lineages)
    return replace(every, category=categories[number % len(categories)], index=index, lineages=each)


def _work(
    requests: Mapping[int, UnitRequest],
    store: Store,
    result: SynthesisResult,
    on_unit: Callable[[Unit], None] | None,
    **options: Unpack[_Options],
) -> None:
    numbers = list(requests)

    def keep(position: int, unit: Unit) -> None:
        store.commit_unit(
            result.run,
            numbers[position],
            environment=unit.environment,
            tasks=unit.tasks,
            rejections=unit.rejections,
        )
        result.rejections.update(item.code for item in unit.rejections)
        if on_unit is not None:
            on_unit(unit)

    # A unit is stored when it arrives: none is kept here, as thousands would not fit into memory.
    # Each process waits for its jailed workers, one at a time: on the same processor they wake up soonest.
    run_all(make_unit, list(requests.values()), on_result=keep, keep=False, bind=True, **options)


def _collect(store: Store, count: int, result: SynthesisResult) -> None:
    for unit in store.units(result.run):
        if unit.unit < count:
            result.environments += [unit.environment] if unit.environment else []
            result.tasks += unit.tasks
    result.dataset = store.dataset_hash(result.run, count)


@dataclass(frozen=True, kw_only=True)
class Hardened:
    """What hardening a stored task brought."""

    parent: TaskVersion
    """The task; it never changes."""
    steps: tuple[Step, ...]
    """Accepted children, each the parent of the next."""
    new: frozenset[str]
    """Hashes of those that the store did not hold before."""
    refused: tuple[Rejection, ...]
    """Proposals that were refused."""


def harden_stored(
    ref: str,
    *,
    store: Store,
    steps: int = MAX_STEPS,
    tries: int = MAX_TRIES,
    on_step: Callable[[Step], None] | None = None,
    measure: Measure | None = None,
) -> Hardened:
    """Harden a stored task further. Each child is stored as soon as it is accepted.

    Args:
        ref: The task.
        store: The store that holds it, and gets the children.
        steps: Accepted steps at most.
        tries: Proposals per step.
        on_step: Called with each child, after it was stored.
        measure: Says in place of the ladder whether a child is harder; see `envsynth.calibrate.ActorMeasure`.

    Returns:
        The children and the refusals; the same for the same task.

    Raises:
        SpecNotFound: there is no such task.
        SpecError: its environment is by another author, or the task does not pass its gates.
    """
    task = store.task(ref)
    author, draft = ProceduralAuthor.again(store.environment(task.environment))
    report = store.latest_report(task.hash)
    if report is None or not report.whole:
        report = check(draft.environment, task)
    if not report.ok:
        bad = next(result.code for result in report.results if result.status not in ("pass", "skipped"))
        raise SpecError(f"task {task.hash} does not pass gate {bad}: only a sound task can be hardened")
    known = {entry.hash for entry in store.descendants(task.hash)}

    def keep(step: Step) -> None:
        store.add_task(step.task, None if step.task.hash in known else step.report)
        if on_step is not None:
            on_step(step)

    with Rehearsal(draft.environment, shared_jail()) as rehearsal:
        start = Step(task, report)
        lineage = harden(
            draft, author, start, steps=steps, tries=tries, on_step=keep, rehearsal=rehearsal, measure=measure
        )
    store.add_rejections(lineage.rejections)
    children = lineage.steps[1:]
    new = frozenset(step.task.hash for step in children if step.task.hash not in known)
    return Hardened(parent=task, steps=children, new=new, refused=lineage.rejections)
