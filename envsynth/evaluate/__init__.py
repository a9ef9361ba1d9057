"""How good an actor is on some tasks: unbiased pass@k and pass^k with intervals, void episodes left out and counted."""

from __future__ import annotations

from envsynth.evaluate.report import EvaluationReport, PassRate, TaskScore, summarize
from envsynth.evaluate.run import ActorMaker, EvaluationOptions, evaluate
from envsynth.evaluate.statistics import Interval, cluster_interval, pass_at_k, pass_hat_k, wilson

__all__ = [
    "ActorMaker",
    "EvaluationOptions",
    "EvaluationReport",
    "Interval",
    "PassRate",
    "TaskScore",
    "cluster_interval",
    "evaluate",
    "pass_at_k",
    "pass_hat_k",
    "summarize",
    "wilson",
]
