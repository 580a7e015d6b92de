"""`make bench`: every case of every room in one table, each with its peer and its limit."""

import importlib
import math
import sys
from pathlib import Path

rooms = sorted(path.stem for path in Path(__file__).parent.glob("bench_*.py"))
wanted = [room for room in rooms if not sys.argv[1:] or room.removeprefix("bench_") in sys.argv[1:]]
missed = 0
print(f"{'case':<80} {'measured':>12} {'limit':>9}  against")
for room in wanted:
    for row in importlib.import_module(f"benchmarks.{room}").cases():
        limit = row["limit"]
        over = limit is not None and row["measured"] > limit
        missed += over
        measured = "" if math.isnan(row["measured"]) else f"{row['measured']:.4g} {row['unit']}"
        print(
            f"{row['case']:<80} {measured:>12} {'' if limit is None else limit:>9}  "
            f"{row['peer']}{'; ' if row['note'] else ''}{row['note']}{'  MISSED' if over else ''}",
            flush=True,
        )
sys.exit(bool(missed))
