"""Every error of envsynth.

The tree (each class is also a standard exception, so callers may catch either):

    EnvsynthError
    ├── SpecError(ValueError)              a record is malformed or inconsistent; the message names the path of the key
    ├── AuthorError(RuntimeError)          no valid draft within the budget
    │   └── Rejected                       one proposal cannot become a task; `.code` says why; try the next one
    ├── ChatError(RuntimeError)            a model provider failed; `.retryable` says whether trying again may help
    ├── SandboxError(RuntimeError)         untrusted code could not be run, or its worker was killed
    │   └── SandboxTimeout(TimeoutError)   ... because it passed the hard deadline
    ├── ToolError(RuntimeError)            tool source failed: becomes an observation, never leaves `step()`
    ├── VerifierError(RuntimeError)        the verifier broke: the trajectory is VOID, never reward 0
    ├── EnvironmentVoid(RuntimeError)      a reset failed: the episode is VOID, never reward 0
    ├── StoreError(RuntimeError)           the store could not do what was asked
    │   ├── SpecNotFound(KeyError)         no record has that hash, prefix or slug
    │   └── SchemaTooNew(RuntimeError)     the store was written by a newer envsynth
    ├── SuiteError(ValueError)             a suite or an exported file is damaged or of another format
    ├── WorkError(RuntimeError)            one item of a mapped batch failed, or killed its worker process; `.item`
    ├── CheckpointError(RuntimeError)      incompatible or damaged
    ├── ExperimentError(RuntimeError)      a job of an experiment could not be finished as it was asked for
    └── MissingExtra(ImportError)          an optional library is absent; the message names the extra to install

Rules: a message says what happened, which value, and what to do. "Wrong answer" and "broken verifier" are different
facts: the first is a `Verdict`, the second an error. All errors survive pickling, so they cross process pools.
"""

from __future__ import annotations


class EnvsynthError(Exception):
    """Base of every error that envsynth raises on purpose."""


class SpecError(EnvsynthError, ValueError):
    """A record is malformed or inconsistent."""


class AuthorError(EnvsynthError, RuntimeError):
    """An author found no valid draft within its budget."""


class Rejected(AuthorError):
    """A proposal that cannot become a task: expected in large numbers, and data rather than a defect.

    Args:
        code: Stable short reason ("tie", "loose", "no_site").
        message: Which value, for people.
    """

    def __init__(self, code: str, message: str = "") -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message

    def __str__(self) -> str:
        return f"{self.code}: {self.message}" if self.message else self.code


class ChatError(EnvsynthError, RuntimeError):
    """A model provider failed.

    Args:
        message: What failed, at which endpoint, and what to do.
        retryable: Whether the same request may succeed later.
    """

    def __init__(self, message: str, retryable: bool = False) -> None:
        super().__init__(message, retryable)
        self.retryable = retryable

    def __str__(self) -> str:
        return str(self.args[0])


class SandboxError(EnvsynthError, RuntimeError):
    """Untrusted code could not be run, or its worker died or was killed.

    Args:
        message: What happened and what to do.
        failure: The value of `envsynth.sandbox.Failure` that classifies it.
    """

    def __init__(self, message: str, failure: str = "sandbox_unavailable") -> None:
        super().__init__(message, failure)
        self.failure = failure

    def __str__(self) -> str:
        return str(self.args[0])


class SandboxTimeout(SandboxError, TimeoutError):
    """A worker passed its hard deadline and was killed."""

    def __init__(self, message: str, failure: str = "hard_timeout") -> None:
        super().__init__(message, failure)


class ToolError(EnvsynthError, RuntimeError):
    """Tool source failed; the environment turns it into an observation."""


class VerifierError(EnvsynthError, RuntimeError):
    """The verifier crashed or gave no verdict; the trajectory becomes VOID."""


class EnvironmentVoid(EnvsynthError, RuntimeError):
    """The world could not be reset or lives no longer; the episode becomes VOID.

    Args:
        message: What happened.
        failure: The value of `envsynth.sandbox.Failure` that classifies it.
    """

    def __init__(self, message: str, failure: str = "sandbox_unavailable") -> None:
        super().__init__(message, failure)
        self.failure = failure

    def __str__(self) -> str:
        return str(self.args[0])


class StoreError(EnvsynthError, RuntimeError):
    """The store could not do what was asked."""


class SpecNotFound(StoreError, KeyError):
    """No record has that hash, prefix or slug."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class SchemaTooNew(StoreError):
    """The store was written by a newer envsynth than this one."""


class SuiteError(EnvsynthError, ValueError):
    """A suite or an exported file is damaged, or of another format."""


class WorkError(EnvsynthError, RuntimeError):
    """One item of a batch failed, or its worker process died more often than the retries allow.

    Args:
        message: What happened, and which item.
        index: Position of the item in the batch.
        item: The item itself.
    """

    def __init__(self, message: str, index: int = -1, item: object = None) -> None:
        super().__init__(message, index, item)
        self.index = index
        self.item = item

    def __str__(self) -> str:
        return str(self.args[0])


class CheckpointError(EnvsynthError, RuntimeError):
    """A checkpoint is incompatible or damaged."""


class ExperimentError(EnvsynthError, RuntimeError):
    """A job of an experiment could not be finished as it was asked for."""


class MissingExtra(EnvsynthError, ImportError):
    """An optional library is absent; install the extra that the message names."""
