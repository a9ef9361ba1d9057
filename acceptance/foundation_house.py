"""The house: floors, ruff, pyright clean; a light import without torch; the wheel works outside the checkout."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

from acceptance.claims import Claims

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
LIGHT = """
import sys, envsynth
heavy = [name for name in ("torch", "triton", "pydantic", "sqlmodel", "gymnasium", "openai", "typer") if name in sys.modules]
print(",".join(heavy) or "none")
"""
OUTSIDE = """
import pathlib, sys, gymnasium, envsynth
assert "site-packages" in envsynth.__file__, envsynth.__file__
env = gymnasium.make("envsynth/trip-planning-v1")
observation, info = env.reset(seed=1)
observation, reward, terminated, truncated, info = env.step('{"answer": {}}')
env.close()
from envsynth.pipeline import UnitRequest, make_unit
unit = make_unit(UnitRequest(category="planning a travel itinerary", seed="1", index=0, lineages=1, steps=0))
print(reward, terminated, len(unit.tasks))
"""


def run(command: list[str], cwd: Path = ROOT, **changed: str) -> tuple[int, str]:
    """Run a command; return its exit code and the end of what it printed."""
    environment = {**os.environ, **changed}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    return done.returncode, (done.stdout + done.stderr).strip()


def main() -> int:
    """Print the lines."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--fast", action="store_true", help="leave out what CI runs as steps of its own, and the wheel")
    fast = parser.parse_args().fast
    claims = Claims()
    checks = {
        "import floors": [str(BIN / "lint-imports")],
        "ruff": [str(BIN / "ruff"), "check", "."],
        "format": [str(BIN / "ruff"), "format", "--check", "."],
        "pyright": [str(BIN / "pyright")],
        "pre-commit hooks on all files": [str(BIN / "pre-commit"), "run", "--all-files"],
        "pre-push hooks on all files": [str(BIN / "pre-commit"), "run", "--all-files", "--hook-stage", "pre-push"],
    }
    for name, command in {} if fast else checks.items():
        code, text = run(command)
        lines = text.splitlines() or [str(code)]
        # Of several hooks the last line is that of the last one, which may have passed.
        found = next((line for line in lines if code and "Failed" in line), lines[-1])
        claims.line(name, found, "clean", code == 0)
    code, text = run([sys.executable, "-c", LIGHT])
    claims.line("heavy libraries loaded by `import envsynth`", text, "none", code == 0 and text == "none")
    if not fast:
        _wheel(claims)
    return claims.exit_code()


def _wheel(claims: Claims) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        code, text = run([sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", name, str(ROOT)])
        wheels = list(folder.glob("*.whl"))
        claims.line(
            "wheel builds", wheels[0].name if wheels else text[-300:], "a wheel", code == 0 and len(wheels) == 1
        )
        if not wheels:
            return
        venv.create(folder / "venv", with_pip=True)
        python = str(folder / "venv" / "bin" / "python")
        code, text = run([python, "-m", "pip", "install", "-q", "-c", str(ROOT / "constraints.txt"), str(wheels[0])])
        code, text = run([python, "-c", OUTSIDE], cwd=folder, ENVSYNTH_STORE=str(folder / "none.db"))
        claims.line(
            "the wheel plays and synthesizes outside the checkout",
            text[-200:],
            "0.0 True 1",
            code == 0 and text == "0.0 True 1",
        )


if __name__ == "__main__":
    raise SystemExit(main())
