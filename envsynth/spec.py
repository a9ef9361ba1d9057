"""The records that describe an environment and its tasks: frozen, hashed by content, refused when unknown keys appear.

Two records are stored apart. An `EnvironmentSpec` is one version of a world with its tools; many tasks share it. A
`TaskVersion` is one goal in that world with its prompt, solution and verifier; hardening never edits one but makes a
child whose `lineage.parent` is the hash of the old one, so lineage is a tree, like git.

Source: DeepSeek-V3.2, arXiv:2512.02556, section 3.2.3: the tuple of environment, tools, task, verifier.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self

from pydantic import (
    Field,
    JsonValue,
    SerializerFunctionWrapHandler,
    StringConstraints,
    model_serializer,
    model_validator,
)

from envsynth.delivery import AS_IT_IS, Delivery, Fault
from envsynth.record import ContentHash, Identifier, Record, Scalar

FORMAT = "envsynth/1"
"""Version of the record format; written into every stored and exported record."""


class Column(Record):
    """One column of a table."""

    name: Identifier
    """Name as tools see it."""
    type: Literal["INTEGER", "TEXT", "REAL"]
    """SQLite storage class."""
    nullable: bool = False
    """Whether NULL is allowed."""
    unique: bool = False
    """Whether values repeat never."""
    references: str | None = Field(default=None, pattern=r"^[A-Za-z_][A-Za-z0-9_]*\.[A-Za-z_][A-Za-z0-9_]*$")
    """`table.column` of a foreign key."""
    description: str = ""
    """What it means, with unit."""


class Table(Record):
    """One table of the world."""

    name: Identifier
    """Name in SQL."""
    columns: tuple[Column, ...] = Field(min_length=1)
    """Columns in order; rows list their cells in this order."""
    primary_key: tuple[Identifier, ...] = Field(min_length=1)
    """Columns that identify a row; the state diff is keyed by them."""
    checks: tuple[str, ...] = ()
    """SQL expressions of CHECK constraints."""
    description: str = ""
    """What one row stands for."""


class World(Record):
    """The state that an episode starts from."""

    tables: tuple[Table, ...] = Field(min_length=1)
    """The schema."""
    rows: dict[str, tuple[tuple[Scalar, ...], ...]]
    """Rows by table, each in the order of its table's columns."""
    now: str = Field(pattern=r"^\d{4}-\d\d-\d\d(T\d\d:\d\d:\d\d)?$")
    """The virtual clock at reset, ISO 8601; no wall clock is ever read."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        by_name = {table.name: table for table in self.tables}
        if len(by_name) != len(self.tables):
            raise ValueError("two tables have the same name")
        for table in self.tables:
            names = [column.name for column in table.columns]
            if len(set(names)) != len(names):
                raise ValueError(f"table {table.name!r} has two columns of the same name")
            if missing := [key for key in table.primary_key if key not in names]:
                raise ValueError(f"table {table.name!r}: primary key {missing} is no column")
            for column in table.columns:
                _check_reference(table, column, by_name)
        for name, rows in self.rows.items():
            if name not in by_name:
                raise ValueError(f"rows of unknown table {name!r}")
            width = len(by_name[name].columns)
            for index, row in enumerate(rows):
                if len(row) != width:
                    raise ValueError(f"rows.{name}[{index}] has {len(row)} cells, its table has {width} columns")
        return self

    def table(self, name: str) -> Table:
        """Return the table of that name.

        Raises:
            KeyError: there is none.
        """
        for table in self.tables:
            if table.name == name:
                return table
        raise KeyError(name)


def _check_reference(table: Table, column: Column, by_name: dict[str, Table]) -> None:
    if column.references is None:
        return
    target, _, key = column.references.partition(".")
    if target not in by_name or key not in {other.name for other in by_name[target].columns}:
        raise ValueError(f"{table.name}.{column.name} references {column.references!r}, which does not exist")


class Tool(Record):
    """One tool: source text over a database handle.

    The source defines a function of the tool's name: `def name(db, **arguments)`. `db` is a `sqlite3.Connection` whose
    rows are dictionaries. It refuses a call with `raise Refusal(code, message)` (a name that the sandbox provides);
    any other exception is a defect of the tool. What it returns must be JSON-able.
    """

    name: Identifier
    """Name in calls."""
    effect: Literal["read", "write"]
    """Whether it may change the world."""
    description: str
    """What it does, for the actor."""
    parameters: dict[str, JsonValue]
    """JSON Schema of the arguments: an object, `additionalProperties: false`."""
    returns: str = ""
    """What the result looks like, for the actor."""
    errors: tuple[str, ...] = ()
    """Codes it may refuse with."""
    source: str
    """Python source; runs in the sandbox only."""


class Provenance(Record):
    """Where a record came from. No wall-clock time: equal inputs give equal hashes."""

    author: str
    """Author and its version, such as `procedural/1`."""
    category: str
    """The category sentence it was made for."""
    seed: str
    """The seed that makes it again with the same author."""
    details: dict[str, JsonValue] = Field(default_factory=dict)
    """Author-specific facts: mechanisms, options, model, prompt hash."""


class EnvironmentSpec(Record):
    """One version of an environment: its world, tools and rules. Tasks refer to it by hash."""

    format: Literal["envsynth/1"] = FORMAT
    """Version of the record format."""
    slug: Annotated[str, StringConstraints(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$", max_length=80)]
    """Readable name; `envsynth/<slug>-v1` is its Gymnasium id."""
    title: str
    """One line for people."""
    world: World
    """Schema, rows, virtual clock."""
    tools: tuple[Tool, ...] = Field(min_length=1)
    """All tools."""
    policy: tuple[str, ...] = ()
    """Rules and definitions that every actor reads with the tools' documentation."""
    error_style: Literal["code", "terse", "verbose"] = "verbose"
    """How much an error observation tells."""
    public_docs: dict[str, JsonValue] = Field(default_factory=dict)
    """Words, labels, units and phrases of the prompts' language, for the re-parse; public."""
    previous: ContentHash | None = None
    """The environment version that this one was augmented from."""
    provenance: Provenance
    """Where it came from."""

    @model_validator(mode="after")
    def _distinct_tools(self) -> Self:
        names = [tool.name for tool in self.tools]
        if len(set(names)) != len(names):
            raise ValueError("two tools have the same name")
        return self

    @property
    def gym_id(self) -> str:
        """The id under which `gymnasium.make` finds it."""
        return f"envsynth/{self.slug}-v1"

    def tool(self, name: str) -> Tool | None:
        """Return the tool of that name, or None."""
        return next((tool for tool in self.tools if tool.name == name), None)


# --------------------------------------------------------------------------------------------------------------- task


class GoalAtom(Record):
    """One condition that the final answer or state must meet."""

    id: str = Field(pattern=r"^[A-Za-z0-9_.]+$")
    """Stable name such as `picks.optimal`; verdicts list failed ids."""
    kind: Literal["answer", "state", "order"]
    """`answer`: the expression is truthy iff met. `state`: it returns the diff entries that it claims, or nothing. `order`:
    it is truthy iff one state is in order, and speaks of `db` alone, which for it are the final rows; where a change is
    left that no state atom claims it is not asked, and not met."""
    quote: str
    """The words of the prompt or policy that demand it."""
    expression: str
    """Python expression, evaluated only in a verifier worker; names: see `Verifier`."""


class Verifier(Record):
    """What decides an episode, in one of two forms; either runs only in a fresh verifier worker.

    Atoms: `definitions` is executed once, then each atom's expression is evaluated. Names in scope: `answer`, `db`
    (initial rows by table, each a list of dictionaries), `after` (final rows), `diff` (list of
    `{op, table, old, new, changed}`), and helpers of the verifier kernel. After all state atoms every diff entry must
    have been claimed: nothing else changed.

    Program: `program` defines `def verify(answer, before, after, diff)` and returns `{"ok": bool, "reasons": [str]}`.
    """

    form: Literal["atoms", "program"]
    """Which form."""
    definitions: str = ""
    """Atoms form: source of helper functions and descriptions."""
    atoms: tuple[GoalAtom, ...] = ()
    """Atoms form: the conditions."""
    program: str = ""
    """Program form: the source."""

    @model_validator(mode="after")
    def _one_form(self) -> Self:
        if self.form == "program" and (self.atoms or self.definitions or not self.program):
            raise ValueError("a program verifier has `program` and nothing else")
        if self.form == "atoms" and self.program:
            raise ValueError("an atoms verifier has no `program`")
        ids = [atom.id for atom in self.atoms]
        if len(set(ids)) != len(ids):
            raise ValueError("two atoms have the same id")
        return self


class RowChange(Record):
    """One changed row, as the relational oracle states it or as a mutant makes it."""

    op: Literal["insert", "update", "delete"]
    """What happens."""
    table: Identifier
    """Where."""
    row: dict[str, Scalar]
    """Insert: the cells (a missing primary key is filled). Update: primary key and new cells. Delete: primary key."""


class Outcome(Record):
    """A final answer with the changes of state that go with it."""

    answer: dict[str, JsonValue]
    """The final answer."""
    changes: tuple[RowChange, ...] = ()
    """All changed rows."""


class ProbeCase(Record):
    """An outcome with the verdict that it must get: a mutant to refuse, or another valid answer to accept."""

    name: str
    """Class and variant, such as `constraint/drop/X1.atom0`."""
    accept: bool
    """The verdict it must get."""
    outcome: Outcome
    """What is judged."""


class OverlayRow(Record):
    """A distractor row of this task version, added to the environment's rows; the environment's hash stays."""

    table: Identifier
    """Where."""
    row: dict[str, Scalar]
    """All cells."""


class Lineage(Record):
    """Where a task version stands in its tree."""

    parent: ContentHash | None = None
    """Hash of the version it was hardened from; None at the root."""
    operator: str | None = None
    """Hardening operator that made it; None at the root."""
    params: dict[str, JsonValue] = Field(default_factory=dict)
    """What the operator did."""
    depth: int = Field(default=0, ge=0)
    """Accepted hardening steps from the root."""

    @model_validator(mode="after")
    def _root_or_child(self) -> Self:
        if (self.parent is None) != (self.operator is None) or (self.parent is None) != (self.depth == 0):
            raise ValueError("parent, operator and depth > 0 go together")
        return self


class TaskVersion(Record):
    """One immutable version of a task. The private half (oracle, probes, verifier, solution) never reaches an actor."""

    format: Literal["envsynth/1"] = FORMAT
    """Version of the record format."""
    environment: ContentHash
    """The environment version it plays in."""
    kind: Literal["read", "plan", "optimise", "infeasible", "act", "service", "diagnose", "recover"]
    """Derived class: `infeasible` asks for a choice that does not exist; `act` changes state;
    `service` asks for a change that may be denied; `diagnose` asks to find and repair what is out of order; `recover`
    changes state with tools that fail; `optimise` and `plan` accept any (best) feasible choice; else `read`."""
    prompt: str = Field(min_length=1)
    """What the actor is asked."""
    answer_schema: dict[str, JsonValue]
    """JSON Schema of the final answer (an object); public."""
    max_turns: int = Field(ge=1)
    """Turns after which the episode is truncated."""
    overlay: tuple[OverlayRow, ...] = ()
    """Distractor rows."""
    faults: tuple[Fault, ...] = ()
    """Calls that fail; private. A task without any is written, and hashed, without this key."""
    solution: str
    """Source of `def solve(call)`; may only use `call(tool, **arguments)` and logic; runs in the sandbox only."""
    delivery: Delivery = AS_IT_IS
    """Limit of calls, withheld tools and what a user tells. Written, and hashed, only where there is something."""
    ablations: dict[str, dict[str, JsonValue]] = Field(default_factory=dict)
    """Skill-ablated solvers: skill -> module-level names of the solution that are overwritten."""
    verifier: Verifier
    """Decides the episode."""
    oracle: Outcome
    """The outcome by the relational oracle, which shares no code with solution and verifier."""
    probes: tuple[ProbeCase, ...] = ()
    """Mutants and alternatives that the author derived, and exploits found later."""
    ir: JsonValue = None
    """The typed task program, when the author has one."""
    lineage: Lineage = Lineage()
    """Its place in the tree."""
    provenance: Provenance
    """Where it came from."""

    @model_validator(mode="after")
    def _one_fate(self) -> Self:
        fated = [(fault.tool, fault.call + more) for fault in self.faults for more in range(fault.calls)]
        if twice := [tool for index, (tool, call) in enumerate(fated) if (tool, call) in fated[:index]]:
            raise ValueError(f"faults: a call of {twice[0]!r} fails in two ways")
        return self

    @model_serializer(mode="wrap")
    def _without_what_is_empty(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # Versions that were made before there were faults and deliveries keep their hashes.
        written: dict[str, Any] = handler(self)
        if not self.faults:
            written.pop("faults", None)
        if self.delivery == AS_IT_IS:
            written.pop("delivery", None)
        return written


def slugify(text: str, limit: int = 48) -> str:
    """Make a lower-case, hyphenated name of at most `limit` characters from any text."""
    words = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "environment"
    return words[:limit].strip("-")
