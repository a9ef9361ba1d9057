"""The planner: compiles a task program to one Python solver that may only call tools and think.

One of three backends of the task program; it shares no code with the oracle (SQL) and the goals (conditions on rows).
Skills are module-level flags of that one source. A skill-ablated solver is the same source with a flag overwritten, so
nothing is compiled anew and nothing but the skill differs.
"""

from envsynth.author.procedural.planner.compiler import compile_plan
from envsynth.author.procedural.planner.skills import (
    ASK_FLAGS,
    BUDGET_FLAGS,
    CARELESS,
    FAULT_FLAGS,
    FLAGS,
    SKILLS,
    applicable_skills,
)
from envsynth.author.procedural.planner.texts import PlannerWorld

__all__ = [
    "ASK_FLAGS",
    "BUDGET_FLAGS",
    "CARELESS",
    "FAULT_FLAGS",
    "FLAGS",
    "SKILLS",
    "PlannerWorld",
    "applicable_skills",
    "compile_plan",
]
