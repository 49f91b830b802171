"""Whether two run folders hold the same, file by file, but for what depends on the clock, on memory and on the command:

python3 same.py ONE OTHER
"""

import csv
import sys
from pathlib import Path

MEASURED_ANEW = {"seconds", "tokens_per_second", "peak_memory_bytes"}
# The command and the machine; the lock; what only one of them has.
LEFT_OUT = {"run.toml", ".lock", "job.sh", "parts", "logs"}


def files(run):
    found = {path.relative_to(run): path for path in run.rglob("*") if path.is_file()}
    return {name: path for name, path in found.items() if name.parts[0] not in LEFT_OUT}


def content(path):
    if path.suffix != ".csv":
        return path.read_bytes()
    # A row of outcomes may be long.
    csv.field_size_limit(sys.maxsize)
    with open(path, newline="") as text:
        rows = [[(name, value) for name, value in row.items() if name not in MEASURED_ANEW] for row in csv.DictReader(text)]
    return rows


one, other = (files(Path(run)) for run in sys.argv[1:])
wrong = [f"{name} is in one only" for name in sorted(one.keys() ^ other.keys())]
wrong += [f"{name} differs" for name in sorted(one.keys() & other.keys()) if content(one[name]) != content(other[name])]
assert len(one) > 10, f"only {len(one)} files"
print("\n".join(wrong) or f"{len(one)} files are the same")
sys.exit(1 if wrong else 0)
