"""Runs a module of the tests as a plain user.

A plain user may be unable to read the interpreter that runs the tests (one under root's home, say). So interpreters are
tried as that user, first this one, then the machine's; when none will do, this one is copied to where anybody can read
it. Nothing is skipped: when even the copy fails, `PlainUserError` says why.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

NOBODY = 65534
PROJECT = Path(__file__).resolve().parents[2]
NEEDED = ("msgspec", "orjson", "pydantic", "pydantic_core", "annotated_types", "typing_extensions", "typing_inspection")
_TRY = "import envsynth.sandbox, tests.sandbox.hostile_programs"


class PlainUserError(RuntimeError):
    """No interpreter on this machine runs as a plain user."""


@dataclass(frozen=True, kw_only=True)
class PlainPython:
    """An interpreter that a plain user can run, with the project importable."""

    executable: str
    environment: dict[str, str]
    how: str

    def run(self, *arguments: str, timeout_s: float = 300.0) -> subprocess.CompletedProcess[str]:
        """Run it as that user."""
        return subprocess.run(
            [self.executable, "-P", *arguments],
            env=self.environment,
            cwd="/",
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
            **_identity(),
        )


def _identity() -> dict[str, object]:
    if os.geteuid() != 0:
        return {}
    return {"user": NOBODY, "group": NOBODY, "extra_groups": []}


def _readable_packages() -> str:
    """Return the folder that the packages of this interpreter are in."""
    return str(Path(str(metadata.distribution("orjson").locate_file(""))).resolve())


def _python(executable: str, path: str, library: str, how: str) -> PlainPython:
    environment = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"}
    if library:
        environment["LD_LIBRARY_PATH"] = library
    return PlainPython(executable=executable, environment=environment, how=how)


def _works(python: PlainPython) -> bool:
    try:
        return python.run("-c", _TRY, timeout_s=60).returncode == 0
    except OSError:  # not executable for that user
        return False


def installed_pythons() -> Iterator[PlainPython]:
    """Propose interpreters that need no copy."""
    path = f"{PROJECT}{os.pathsep}{_readable_packages()}"
    library = f"{sys.base_prefix}/lib"
    yield _python(sys.executable, path, library, "this interpreter")
    name = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for candidate in (f"/usr/bin/{name}", f"/usr/local/bin/{name}", "/usr/bin/python3", "/usr/local/bin/python3"):
        if Path(candidate).exists():
            yield _python(candidate, path, "", f"the machine's {candidate}")


def copied_python(folder: Path) -> PlainPython:
    """Copy interpreter, standard library, project and needed packages to where anybody can read them."""
    folder.chmod(0o755)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    prefix = Path(sys.base_prefix)
    (folder / "bin").mkdir()
    shutil.copy2(Path(sys.executable).resolve(), folder / "bin" / version)
    unwanted = shutil.ignore_patterns(
        "site-packages", "test", "tests", "__pycache__", "config-*", "idlelib", "ensurepip"
    )
    shutil.copytree(prefix / "lib" / version, folder / "lib" / version, ignore=unwanted)
    for library in prefix.glob("lib/libpython*.so*"):
        shutil.copy2(library, folder / "lib" / library.name)
    project = folder / "project"
    caches = shutil.ignore_patterns("__pycache__")
    shutil.copytree(PROJECT / "envsynth", project / "envsynth", ignore=caches)
    shutil.copytree(PROJECT / "tests" / "sandbox", project / "tests" / "sandbox", ignore=caches)
    packages = Path(_readable_packages())
    for name in NEEDED:
        source = packages / name
        if source.is_dir():
            shutil.copytree(source, project / name, ignore=caches)
        else:
            shutil.copy2(source.with_suffix(".py"), project / f"{name}.py")
    for path in (folder, *folder.rglob("*")):
        path.chmod(path.stat().st_mode | (0o555 if path.is_dir() else 0o444))
    return _python(str(folder / "bin" / version), str(project), str(folder / "lib"), "a copy of this interpreter")


@contextlib.contextmanager
def plain_python(
    proposals: Callable[[], Iterator[PlainPython]] = installed_pythons,
) -> Iterator[PlainPython]:
    """Find or make an interpreter that runs as a plain user.

    Raises:
        PlainUserError: Not even a copy of this one does.
    """
    for python in proposals():
        if _works(python):
            yield python
            return
    with tempfile.TemporaryDirectory(prefix="envsynth-plain-") as folder:
        python = copied_python(Path(folder))
        if not _works(python):
            said = python.run("-c", _TRY, timeout_s=60)
            raise PlainUserError(f"no interpreter runs as a plain user; the copy says: {said.stderr[-800:]}")
        yield python
