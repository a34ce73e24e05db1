"""`edgepack keygen`."""

import argparse
from pathlib import Path

from edgepack.cli.console import note, print_json
from edgepack.trust import keygen


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of keygen."""
    parser.add_argument("folder", type=Path, metavar="DIR", help="where to; made if it is missing")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    """Make keys."""
    keys = keygen(args.folder)
    files = {
        "root_key": str(keys.root_key),
        "release_key": str(keys.release_key),
        "deploy_key": str(keys.deploy_key),
        "root_json": str(keys.root_json),
    }
    if args.json:
        print_json(files)
        return 0
    print(f"{keys.root_key}     private; signs the next root.json: take it offline now")
    print(f"{keys.release_key}  private; signs bundles")
    print(f"{keys.deploy_key}   private; signs what devices shall run")
    print(f"{keys.root_json}    public; goes to every device")
    note("whoever has a private key can act as you: keep them with mode 0600, and backed up")
    return 0
