"""Judge an episode: goal atoms over answer and state diff, frame by consumption, sandboxed free-form source.

Task source runs only in a fresh verifier worker of the sandbox. A wrong answer is a failed verdict; a broken verifier is
a void one and never scores 0.
"""

from __future__ import annotations

from envsynth.verifiers.kernel import row_diff
from envsynth.verifiers.strict import SchemaCheck, check_schema, hostile_problem, malformed, schema_problem
from envsynth.verifiers.verify import Bench, Ending, judge, verify, verify_all

__all__ = [
    "Bench",
    "Ending",
    "SchemaCheck",
    "check_schema",
    "hostile_problem",
    "judge",
    "malformed",
    "row_diff",
    "schema_problem",
    "verify",
    "verify_all",
]
