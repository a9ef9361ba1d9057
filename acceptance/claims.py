"""One line per claim: value, target, PASS or FAIL."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Claims:
    """Collects the lines of one script."""

    failed: list[str] = field(default_factory=list)

    def line(self, name: str, value: object, target: str, ok: bool) -> None:
        """Print one claim."""
        print(f"{'PASS' if ok else 'FAIL'}  {name}: {value}  (target {target})", flush=True)
        if not ok:
            self.failed.append(name)

    def exit_code(self) -> int:
        """Return 1 when a claim failed."""
        return 1 if self.failed else 0
