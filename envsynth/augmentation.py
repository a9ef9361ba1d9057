"""Toolset augmentation: more tools make a new environment version, and every task is audited again in it.

An environment version is shared by its tasks, so tools are never added in place: what was proven in the old version says
nothing about the new one, where an extra tool may leak an answer or give a shortcut.

Source: DeepSeek-V3.2, arXiv:2512.02556, section 3.2.3: the toolset is augmented when it does not suffice for a task.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from envsynth.errors import SpecError
from envsynth.gates import check
from envsynth.record import content_hash
from envsynth.report import GateReport
from envsynth.sandbox import Jail
from envsynth.spec import EnvironmentSpec, TaskVersion, Tool


@dataclass(frozen=True)
class Augmented:
    """A new environment version with its tasks."""

    environment: EnvironmentSpec
    """The new version; `previous` names the old one."""
    tasks: tuple[tuple[TaskVersion, GateReport], ...]
    """Every task in the new version with its new report, each parent before its children."""

    @property
    def passed(self) -> tuple[tuple[TaskVersion, GateReport], ...]:
        """Tasks that passed the audit, without those whose parent did not."""
        kept: dict[str, tuple[TaskVersion, GateReport]] = {}
        for task, report in self.tasks:
            if report.ok and (task.lineage.parent is None or task.lineage.parent in kept):
                kept[task.hash] = (task, report)
        return tuple(kept.values())


def augment(
    environment: EnvironmentSpec,
    tools: Sequence[Tool],
    tasks: Sequence[TaskVersion],
    *,
    jail: Jail | None = None,
    on_report: Callable[[TaskVersion, GateReport], None] | None = None,
) -> Augmented:
    """Add tools to an environment: make the new version and audit all tasks again in it.

    Args:
        environment: The old version; it does not change.
        tools: New tools, at least one; none may have the name of an existing one.
        tasks: All tasks of the old version.
        jail: Where untrusted source runs; the process's own when None.
        on_report: Called with each task as soon as it is audited.

    Returns:
        The new version, its tasks and their reports; failing ones too, because why a task fails is what one must know.

    Raises:
        SpecError: no tool is given, a name is taken, or a task belongs to another environment or lacks its parent.
    """
    if not tools:
        raise SpecError(f"no tool was given to add to {environment.slug}")
    if taken := [tool.name for tool in tools if environment.tool(tool.name) is not None]:
        raise SpecError(f"environment {environment.slug} has tools of the names {taken} already: rename the new ones")
    mark = content_hash([tool.model_dump(mode="json") for tool in tools])[:6]
    grown = EnvironmentSpec.parse(
        {
            **environment.model_dump(mode="json"),
            "slug": f"{environment.slug[:73]}-{mark}",
            "tools": [tool.model_dump(mode="json") for tool in (*environment.tools, *tools)],
            "previous": environment.hash,
        }
    )
    moved: dict[str, TaskVersion] = {}
    audited: list[tuple[TaskVersion, GateReport]] = []
    for task in sorted(tasks, key=lambda item: (item.lineage.depth, item.hash)):
        new = _move(task, environment, grown, moved)
        moved[task.hash] = new
        report = check(grown, new, jail=jail)
        audited.append((new, report))
        if on_report is not None:
            on_report(new, report)
    return Augmented(grown, tuple(audited))


def _move(task: TaskVersion, old: EnvironmentSpec, new: EnvironmentSpec, moved: dict[str, TaskVersion]) -> TaskVersion:
    """Move a task into the new version; its parent becomes the parent's counterpart there.

    Raises:
        SpecError: the task is of another environment, or its parent was not moved before.
    """
    if task.environment != old.hash:
        raise SpecError(f"task {task.hash} belongs to environment {task.environment}, not to {old.hash}")
    parent = task.lineage.parent
    if parent is not None and parent not in moved:
        raise SpecError(f"task {task.hash} was given without its parent {parent}: give whole lineages")
    lineage = task.lineage if parent is None else task.lineage.model_copy(update={"parent": moved[parent].hash})
    return task.model_copy(update={"environment": new.hash, "lineage": lineage})
