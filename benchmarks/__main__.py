"""`make bench`: every case of every room in one table, each with its peer and its limit.

Run in full, it leaves the table in benchmarks/RESULTS.md, with the machine and the date.
"""

import importlib
import sys
from pathlib import Path

from benchmarks import report

rooms = sorted(path.stem for path in Path(__file__).parent.glob("bench_*.py"))
wanted = [room for room in rooms if not sys.argv[1:] or room.removeprefix("bench_") in sys.argv[1:]]
rows = []
print(f"{'case':<80} {'measured':>12} {'limit':>9}  against")
for room in wanted:
    for row in importlib.import_module(f"benchmarks.{room}").cases():
        rows.append(row)
        limit = "" if row["limit"] is None else row["limit"]
        told = f"{row['peer']}{'; ' if row['note'] else ''}{row['note']}"
        over = "  MISSED" if report.missed(row) else ""
        print(f"{row['case']:<80} {report.measured(row):>12} {limit:>9}  {told}{over}", flush=True)
if wanted == rooms:
    (Path(__file__).parent / "RESULTS.md").write_text(report.as_markdown(rows), encoding="utf-8")
sys.exit(any(map(report.missed, rows)))
