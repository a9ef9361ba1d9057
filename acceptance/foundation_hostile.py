"""Claim: all hostile programs are contained, as root and as a plain user, with all layers and with seccomp alone.

`python -m acceptance.foundation_hostile [--fast]`; without root it says that it ran as a plain user only. The whole
matrix, and programs from a grammar, are the business of `acceptance.jail_hostile`.
"""

from __future__ import annotations

import argparse

from acceptance.claims import Claims
from acceptance.hostile_rows import PLAIN, ROOT, play_rows

MODES = ("default", "seccomp only", "exposed")
"""All layers; seccomp alone; seccomp alone with ctypes, subprocess and the like preloaded."""


def main() -> int:
    """Run the programs; return 1 when one is not contained."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fast", action="store_true", help="only with all layers")
    modes = MODES[:1] if parser.parse_args().fast else MODES
    claims = Claims()
    for _ in play_rows(claims, [(who, mode) for who in (ROOT, PLAIN) for mode in modes]):
        pass
    return claims.exit_code()


if __name__ == "__main__":
    raise SystemExit(main())
