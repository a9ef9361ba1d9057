"""A stranger's first minutes: clone, `make demo`, `make test`; both again without a network; the report in a browser.

The clone holds what is committed. Without a network means a network namespace of its own (`unshare -n`, as root) or,
elsewhere, proxies that point at a closed port. The browser line needs Chromium; without it the line says so and fails.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from acceptance.claims import Claims

ROOT = Path(__file__).resolve().parent.parent
QUIET = (
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
)
CLOSED = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")


def timed(command: list[str], folder: Path, changed: dict[str, str]) -> tuple[int, float, str]:
    """Run a command; return exit code, seconds and the end of its output."""
    environment = {key: value for key, value in os.environ.items() if key not in ("VIRTUAL_ENV", "ENVSYNTH_STORE")}
    began = time.monotonic()
    done = subprocess.run(
        command, cwd=folder, env={**environment, **changed}, capture_output=True, text=True, check=False
    )
    return done.returncode, time.monotonic() - began, (done.stdout + done.stderr)[-1500:]


def offline(command: list[str]) -> tuple[list[str], dict[str, str]]:
    """Wrap a command so that it has no network."""
    if os.geteuid() == 0 and shutil.which("unshare"):
        # Loopback stays: tests talk to servers of their own.
        return ["unshare", "-n", "sh", "-c", 'ip link set lo up 2>/dev/null; exec "$@"', "sh", *command], {}
    return command, CLOSED


def browser(report: Path, folder: Path) -> tuple[bool, str]:
    """Open the report in a headless browser; return whether it drew a page without console errors."""
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        return False, "no Chromium on this machine: install it to check this line"
    picture = folder / "report.png"
    command = [program, "--headless", "--no-sandbox", *QUIET, f"--user-data-dir={folder / 'profile'}"]
    command += ["--enable-logging=stderr", "--window-size=1200,3000", f"--screenshot={picture}", report.as_uri()]
    _, _, text = timed(command, folder, {})
    errors = [line for line in text.splitlines() if "CONSOLE" in line]
    size = picture.stat().st_size if picture.exists() else 0
    return size > 50_000 and not errors, f"picture of {size // 1000} kB, {len(errors)} console messages"


def main() -> int:
    """Print the lines."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--fast", action="store_true", help="nothing: this takes minutes")
    if parser.parse_args().fast:
        print("      left out with --fast: clone, install, demo and tests take minutes")
        return 0
    claims = Claims()
    with tempfile.TemporaryDirectory() as name:
        clone = Path(name, "envsynth")
        subprocess.run(["git", "clone", "-q", str(ROOT), str(clone)], check=True)
        for target, limit in (("demo", 600), ("test", 600)):
            code, seconds, text = timed(["make", target], clone, {})
            claims.line(
                f"make {target}, installation included",
                f"{seconds:.0f} s, exit {code}",
                f"<= {limit} s",
                code == 0 and seconds <= limit,
            )
            if code:
                print(text)
        ok, what = browser(clone / "demo" / "report.html", Path(name))
        claims.line("report in a headless browser", what, "a page, no console errors", ok)
        for target in ("demo", "test"):
            shutil.rmtree(clone / "demo", ignore_errors=True)
            command, changed = offline(["make", target])
            code, seconds, text = timed(command, clone, changed)
            claims.line(f"make {target} without network", f"{seconds:.0f} s, exit {code}", "exit 0", code == 0)
            if code:
                print(text)
    return claims.exit_code()


if __name__ == "__main__":
    sys.exit(main())
