"""The commands and examples that README and docs show are run as they stand, offline, in an empty folder.

A block is run when the comment `<!-- docs-test -->` stands before it. The blocks of a page share a folder and run in
order, as a reader would run them.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MARK = "<!-- docs-test -->"
BLOCK = re.compile(rf"^{re.escape(MARK)}\n```(bash|python)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
CLOSED = "http://127.0.0.1:9"
"""A port of this machine that nobody serves: whoever asks a proxy for the network fails at once."""


def blocks(page: Path) -> list[tuple[str, str]]:
    """Language and text of each marked block."""
    return BLOCK.findall(page.read_text(encoding="utf-8"))


def _pages() -> list[Path]:
    pages = sorted(ROOT.glob("*.md")) + sorted((ROOT / "docs").rglob("*.md"))
    return [page for page in pages if blocks(page)]


def _environment(folder: Path) -> dict[str, str]:
    keep = {name: os.environ[name] for name in ("HOME", "LANG", "TMPDIR") if name in os.environ}
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    proxies = dict.fromkeys(
        ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"), CLOSED
    )
    return {
        **keep,
        **proxies,
        "PATH": path,
        "NO_COLOR": "1",
        "PYTHONWARNINGS": "error::ResourceWarning",
        "PWD": str(folder),
    }


def run_block(language: str, text: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run one block in a folder."""
    command = ["bash", "-euo", "pipefail", "-c", text] if language == "bash" else [sys.executable, "-c", text]
    return subprocess.run(
        command, cwd=folder, env=_environment(folder), capture_output=True, text=True, timeout=400, check=False
    )


@pytest.mark.docs
@pytest.mark.parametrize("page", _pages(), ids=lambda path: str(path.relative_to(ROOT)))
def test_examples_of_page_run(page, tmp_path):
    for language, text in blocks(page):
        done = run_block(language, text, tmp_path)
        assert done.returncode == 0, f"{text}\n--- stdout\n{done.stdout[-2000:]}\n--- stderr\n{done.stderr[-2000:]}"


def test_every_mark_stands_before_a_block_that_is_run():
    for page in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]:
        assert page.read_text(encoding="utf-8").count(f"\n{MARK}\n") == len(blocks(page)), page


def test_readme_shows_all_three_ways_in():
    shown = "\n".join(text for _, text in blocks(ROOT / "README.md"))
    for needed in ("envsynth synthesize", "gymnasium.make(", "load_suite("):
        assert needed in shown


def test_a_failing_block_is_noticed(tmp_path):
    assert run_block("bash", "false\ntrue\n", tmp_path).returncode != 0
    assert run_block("python", "raise SystemExit(3)\n", tmp_path).returncode == 3


def test_make_targets_of_the_texts_exist():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    for name in ("README.md", "CONTRIBUTING.md", "AGENTS.md"):
        text = (ROOT / name).read_text(encoding="utf-8")
        named = set(re.findall(r"(?:^|`)make ([a-z-]+)", text, re.MULTILINE))
        assert named <= targets, f"{name}: {sorted(named - targets)}"
        assert named, name
