"""The demo: the main job from three category sentences to a report, offline, on the CPU.

Nothing here is special to the demo: it calls the same functions as the other verbs, on a store in the given folder, and
is resumed by running it again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from envsynth import __version__
from envsynth.actors import actor_factory
from envsynth.author.procedural.reading import read_category
from envsynth.errors import StoreError
from envsynth.evaluate import EvaluationOptions, EvaluationReport, evaluate
from envsynth.pipeline import Unit, synthesize
from envsynth.record import content_hash
from envsynth.report import GateReport
from envsynth.rollout import play
from envsynth.spec import EnvironmentSpec, TaskVersion
from envsynth.store import Store
from envsynth.suite import export_jsonl, export_parquet, freeze
from envsynth.trajectory import Trajectory
from envsynth.view import (
    CategorySection,
    LadderRow,
    ReportData,
    SuiteSection,
    TrainingSection,
    write_report,
)

CATEGORIES = ("planning a travel itinerary", "booking laboratory equipment", "warehouse orders with discount coupons")
"""The sentences of the demo."""

Pair = tuple[EnvironmentSpec, TaskVersion]


@dataclass(frozen=True)
class DemoResult:
    """What the demo made."""

    report: Path
    """The HTML report."""
    lineage: tuple[tuple[TaskVersion, GateReport], ...]
    """One lineage, root first."""
    episode: Trajectory
    """The gold episode of its last version."""
    ladder: tuple[LadderRow, ...]
    """Evaluation of the actor ladder."""
    training: TrainingSection | None = None
    """How a policy learned, when one was trained."""


def run_demo(
    folder: Path,
    *,
    seed: int = 0,
    count: int = 2,
    workers: int = 2,
    say: Callable[[str], None] = lambda message: None,
    on_unit: Callable[[str], None] = lambda slug: None,
    categories: Sequence[str] = CATEGORIES,
    train: Callable[[Path], TrainingSection] | None = None,
) -> DemoResult:
    """Synthesize, harden, audit, store, play, evaluate, export and report; train a policy when given the means.

    Args:
        folder: Where store, suite, Parquet table and report go; made when missing.
        seed: Seed of everything.
        count: Environments per category.
        workers: Processes.
        say: Called with a line about each stage.
        on_unit: Called with the slug of each environment, whether made now or before.
        categories: The sentences.
        train: Trains a policy in a folder and says how it went; passed in, because only its caller may know torch.

    Returns:
        The report's path with what the terminal shows.

    Raises:
        StoreError: the folder or the store in it cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"cannot make folder {folder}: {error.strerror}: give another one") from error
    with Store.open(folder / "envsynth.db") as store:
        work = _Work(store, seed, count, workers, say, on_unit)
        sections = tuple(_section(work, category) for category in categories)
        pairs = _leaves(sections)
        # Named by content: a suite never changes, and the folder may hold a demo with other options.
        leaves = [task.hash for _, task in pairs]
        suite = freeze(store, f"demo-{content_hash(leaves)[:12]}", leaves, description="leaves of the demo")
        lineage = _deepest(store, sections)
        spec = store.environment(lineage[0][0].environment)
        say(f"playing the hardest task of {spec.slug}, turn by turn")
        episode, failure = _episodes(spec, lineage)
        store.add_trajectories([episode] if failure is None else [episode, failure])
        ladder = _ladder(pairs, work)
        say("exporting the suite as JSONL and Parquet")
        files = (folder / "suite.jsonl", folder / "suite.parquet")
        export_jsonl(suite, store, files[0])
        export_parquet(suite, store, files[1])
    training = None if train is None else train(folder / "training")
    sizes = tuple((path.name, path.stat().st_size) for path in files)
    data = ReportData(
        title="From a sentence to sound, hardened, playable environments",
        seed=seed,
        version=__version__,
        sections=sections,
        lineage=lineage,
        episode=episode,
        failure=failure,
        ladder=ladder,
        suite=SuiteSection(name=suite.name, tasks=len(suite.items), checksum=suite.checksum, files=sizes),
        training=training,
        commands=(
            f"envsynth list --tasks --store {folder}/envsynth.db",
            f"envsynth tree {spec.slug} --store {folder}/envsynth.db",
            f"envsynth play {lineage[-1][0].hash[:12]} --store {folder}/envsynth.db",
            f"envsynth evaluate {folder}/suite.jsonl --actor chat:<model>",
            *(() if training is None else (f"envsynth train --out {folder}/longer --sft-seconds 300",)),
        ),
    )
    return DemoResult(write_report(folder / "report.html", data), lineage, episode, ladder, training)


@dataclass(frozen=True)
class _Work:
    store: Store
    seed: int
    count: int
    workers: int
    say: Callable[[str], None]
    on_unit: Callable[[str], None]


def _section(work: _Work, category: str) -> CategorySection:
    reading = read_category(category).explain()
    work.say(f"{category!r}: synthesizing, hardening and auditing")
    made: list[str] = []

    def on_unit(unit: Unit) -> None:
        made.append(unit.environment.hash)
        work.say(
            f"  {unit.environment.slug}: {len(unit.tasks)} task versions accepted, {len(unit.rejections)} proposals refused"
        )
        work.on_unit(unit.environment.slug)

    store = work.store
    result = synthesize(category, count=work.count, seed=work.seed, store=store, workers=work.workers, on_unit=on_unit)
    tasks = tuple(_audited(store, digest) for digest in result.tasks)
    environments = tuple(store.environment(digest) for digest in result.environments)
    refused: dict[str, int] = {}
    for environment in environments:
        if environment.hash not in made:
            work.say(f"  {environment.slug}: made by an earlier call")
            work.on_unit(environment.slug)
        for rejection in store.rejections(environment.hash):
            refused[rejection.code] = refused.get(rejection.code, 0) + 1
    return CategorySection(
        category=category,
        reading=reading,
        environments=environments,
        tasks=tasks,
        rejections=dict(sorted(refused.items())),
    )


def _audited(store: Store, digest: str) -> tuple[TaskVersion, GateReport]:
    report = store.latest_report(digest)
    if report is None:
        raise LookupError(f"task {digest} has no gate report, although the pipeline stored it with one")
    return store.task(digest), report


def _leaves(sections: Sequence[CategorySection]) -> list[Pair]:
    """The last version of each lineage that the demo made, in the order in which they were made."""
    specs = {environment.hash: environment for section in sections for environment in section.environments}
    tasks = [task for section in sections for task, _ in section.tasks]
    parents = {task.lineage.parent for task in tasks}
    return [(specs[task.environment], task) for task in tasks if task.hash not in parents]


def _deepest(store: Store, sections: Sequence[CategorySection]) -> tuple[tuple[TaskVersion, GateReport], ...]:
    tasks = [task for section in sections[:1] for task, _ in section.tasks] or [
        task for section in sections for task, _ in section.tasks
    ]
    last = max(tasks, key=lambda task: (task.lineage.depth, task.kind == "act", task.hash))
    return tuple(_audited(store, version.hash) for version in store.lineage(last.hash))


def _episodes(
    spec: EnvironmentSpec, lineage: Sequence[tuple[TaskVersion, GateReport]]
) -> tuple[Trajectory, Trajectory | None]:
    """The gold episode of the last version, and one of the solver that lacks the skill which came last."""
    task, report = lineage[-1]
    gold = _episode(spec, task, "oracle")
    new = report.evidence("DF402").get("new") or report.evidence("DF401").get("skills")
    if not isinstance(new, list) or not new:
        return gold, None
    return gold, _episode(spec, task, f"ablated:{new[0]}")


def _episode(spec: EnvironmentSpec, task: TaskVersion, name: str) -> Trajectory:
    actor = actor_factory(name, [task])()
    try:
        return play(spec, task, actor)
    finally:
        actor.close()


def _ladder(pairs: Sequence[Pair], work: _Work) -> tuple[LadderRow, ...]:
    skills = list(dict.fromkeys(skill for _, task in pairs for skill in task.ablations))
    names = ["oracle", *(f"ablated:{skill}" for skill in skills), "random", "empty", "idle"]
    work.say(f"evaluating {len(names)} actors on {len(pairs)} tasks")
    rows: list[LadderRow] = []
    for name in names:
        skill = name.partition(":")[2]
        some = [pair for pair in pairs if not skill or skill in pair[1].ablations]
        factory = actor_factory(name, [task for _, task in some])
        rows.append(_row(evaluate(some, factory, seed=work.seed, options=EvaluationOptions(workers=work.workers))))
        work.say(f"  {name}: {rows[-1].passed} of {rows[-1].scored}")
    return tuple(rows)


def _row(report: EvaluationReport) -> LadderRow:
    rate = report.rate(1)
    low, high = rate.pass_at_interval or (0.0, 1.0)
    return LadderRow(
        actor=report.actor,
        tasks=len(report.tasks),
        passed=report.passed,
        scored=report.scored,
        void=report.void,
        rate=rate.pass_at or 0.0,
        low=low,
        high=high,
        mean_calls=report.mean_calls or 0.0,
    )
