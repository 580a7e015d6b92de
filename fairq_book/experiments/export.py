"""By what, where and when something was made."""

from __future__ import annotations

import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fairq_book.experiments.code import code_digest, versions


def made_by() -> dict[str, Any]:
    """By what, where and when."""
    return {
        "versions": versions("fairq-utils", "torch", "torchvision", "numpy", "pandas", "scipy"),
        "python": platform.python_version(),
        "code": code_digest("fairq_book.experiments.studies"),
        "git_revision": _git_revision(),
        "hardware": f"{platform.system()} {platform.machine()}, {_processor()}",
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    }


def _git_revision() -> str | None:
    """The commit that this code is of, with a plus when files differ from it; None outside a checkout."""
    return git("describe", "--always", "--abbrev=40", "--dirty=+")


def git(*arguments: str) -> str | None:
    """What git says of the checkout that this package lies in; None where there is none."""
    command = ["git", "-C", str(Path(__file__).parents[1]), *arguments]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def _processor() -> str:
    """Its name where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{len(names)} x {names[0]}" if names else platform.processor() or "unknown processor"
