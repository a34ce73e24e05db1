"""Runs a contest with the bad engines in reach: BUNDLE and limits as JSON in, a report out."""

import json
import os
import sys

os.environ["OPENBLAS_NUM_THREADS"] = "1"

from support import bad_engines

from edgepack.bundle import open_bundle
from edgepack.runtime.contest.contest import run_contest
from edgepack.runtime.contest.values import ContestLimits
from edgepack.trust.decode import encode

if __name__ == "__main__":
    bad_engines.install()
    report = run_contest(open_bundle(sys.argv[1]), ContestLimits(**json.loads(sys.argv[2])))
    print(
        json.dumps(
            {
                "chosen": encode(report.chosen) if report.chosen else None,
                "figures": dict(report.figures),
                "tried": {item.candidate.label: item.result for item in report.tried},
            }
        )
    )
