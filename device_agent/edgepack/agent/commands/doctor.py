"""`edgepack-agent doctor`."""

import argparse
import json
from pathlib import Path

from edgepack.agent.commands.asking import add_json
from edgepack.trust.decode import encode
from edgepack.wire.installation import Installation

_FAILED = 6


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of doctor."""
    parser.add_argument(
        "--prefix",
        type=Path,
        default=Path("/"),
        metavar="DIR",
        help="where opt/edgepack and the unit lie (default: %(default)s)",
    )
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Look at everything, and say what to mend; 6 where something does not work."""
    from edgepack.agent.doctor.examine import examine
    from edgepack.agent.doctor.finding import Level

    findings = []
    for finding in examine(args.config.absolute(), Installation(args.prefix)):
        findings.append(finding)
        if not args.json:
            print(f"{finding.level.value:<5} {finding.check:<12} {finding.text}", flush=True)
            if finding.mend:
                print(f"{'':<18} -> {finding.mend}", flush=True)
    failed = sum(finding.level is Level.FAIL for finding in findings)
    if args.json:
        print(json.dumps({"failed": failed, "findings": [encode(one) for one in findings]}))
    return _FAILED if failed else 0
