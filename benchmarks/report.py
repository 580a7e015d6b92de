"""What was measured, as a page that says on which machine and when."""

import math
import os
import platform
from datetime import date
from importlib.metadata import version
from pathlib import Path


def missed(row: dict) -> bool:
    return row["limit"] is not None and row["measured"] > row["limit"]


def measured(row: dict) -> str:
    return "" if math.isnan(row["measured"]) else f"{row['measured']:.4g} {row['unit']}"


def processor() -> str:
    """The name that the system has for it, which on Linux only /proc knows."""
    about = Path("/proc/cpuinfo")
    lines = about.read_text().splitlines() if about.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def as_markdown(rows: list[dict], *, title: str = "Benchmarks", made_by: str = "make bench") -> str:
    head = [
        f"# {title}",
        "",
        f"{date.today().isoformat()}, {processor()}, {os.cpu_count()} cores, "
        f"Python {platform.python_version()}, torch {version('torch')}. `{made_by}` writes this page.",
        "",
        "| case | measured | limit | against | note |",
        "|---|---:|---:|---|---|",
    ]
    return "\n".join([*head, *map(_line, rows), ""])


def _line(row: dict) -> str:
    limit = "" if row["limit"] is None else f"{row['limit']}"
    over = " (missed)" if missed(row) else ""
    cells = [row["case"], measured(row) + over, limit, row["peer"], row["note"]]
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
