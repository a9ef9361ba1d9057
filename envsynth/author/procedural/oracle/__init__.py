"""The relational oracle: what a task's answer and changes are, by SQL over the world's tables.

One of three backends of the task program. It reads the SQL texts of derived attributes and actions, enumerates sets
exactly for `Choose`, and shares no code with the planner (tool calls) and the goals (conditions on rows). Every
description, condition and operand denotes the state before the first write; `Oracle.order_sensitive` tells whether a
reader who performs the steps one by one would come to another result.
"""

from envsynth.author.procedural.oracle.outcome import (
    Change,
    LetInfo,
    OracleResult,
    Reject,
    apply_changes,
    certificates,
)
from envsynth.author.procedural.oracle.relations import OracleWorld
from envsynth.author.procedural.oracle.repeats import done_twice
from envsynth.author.procedural.oracle.run import Oracle
from envsynth.author.procedural.oracle.sets import MAX_SETS

__all__ = [
    "MAX_SETS",
    "Change",
    "LetInfo",
    "Oracle",
    "OracleResult",
    "OracleWorld",
    "Reject",
    "apply_changes",
    "certificates",
    "done_twice",
]
