"""Damages manifests, indexes, golden sets and ONNX files, and checks that each ends as a refusal with a code, or runs.

.venv/bin/python scripts/fuzz_models.py --minutes 10           # numbers it has not had before: from the clock
.venv/bin/python scripts/fuzz_models.py --from 1234 --count 1  # one case again

The last line is one JSON object. Exit status 1 where a case ended without a code, 0 otherwise.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPO))

from tests.support import fuzz  # noqa: E402

BATCH = 700


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, metavar="N", help="go on for N minutes")
    parser.add_argument("--from", type=int, dest="start", metavar="N", help="number of the first case")
    parser.add_argument("--count", type=int, metavar="N", help="so many cases (default: until the minutes are over)")
    parser.add_argument("--json", action="store_true", help="write nothing but the JSON object to standard output")
    given = parser.parse_args(arguments)
    if given.minutes is None and given.count is None:
        parser.error("give --minutes or --count")
    start = int(time.time()) * 1000 if given.start is None else given.start
    shared = REPO.parent / "shared" / "data" / "models"
    deadline = time.monotonic() + (given.minutes or 1e9) * 60
    total, all_bad, codes, replaced = 0, [], {}, 0
    while time.monotonic() < deadline and (given.count is None or total < given.count):
        count = BATCH if given.count is None else min(BATCH, given.count - total)
        with tempfile.TemporaryDirectory() as folder:
            bench = fuzz.Bench(Path(folder), shared if shared.is_dir() else None)
            outcomes = bench.run(range(start + total, start + total + count))
        total += outcomes.total
        replaced += outcomes.replaced
        for code, number in outcomes.codes().items():
            codes[code] = codes.get(code, 0) + number
        all_bad += outcomes.bad
        for line in outcomes.bad:
            print(line, file=sys.stderr if given.json else sys.stdout)
        print(f"{total} cases from {start}, {len(all_bad)} without a code", file=sys.stderr)
    document = {
        "schema": "lineside.fuzz-models/1",
        "from": start,
        "cases": total,
        "without_code": len(all_bad),
        "children_replaced": replaced,
        "by_code": dict(sorted(codes.items())),
    }
    print(json.dumps(document))
    return 1 if all_bad else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
