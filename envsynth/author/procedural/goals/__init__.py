"""The goals: compiles a task program to conditions on the final answer and the final state.

One of three backends of the task program; it shares no code with the oracle (SQL) and the planner (tool calls). The
plan is never replayed: each description is checked on the initial rows, each action by the property that its changes
must have, and what no atom claims fails the frame. The only product of the oracle that it reads is the best total of a
`Choose` with a goal.
"""

from envsynth.author.procedural.goals.atoms import compile_goals
from envsynth.author.procedural.goals.expressions import GoalsWorld

__all__ = ["GoalsWorld", "compile_goals"]
