"""`edgepack push` and `pull`."""

import argparse
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edgepack.bundle import open_bundle
from edgepack.cli.console import count, print_json, progress, say, size
from edgepack.cli.errors import UsageError
from edgepack.fleet.registry import OnTransfer, Transfer, pull, push
from edgepack.wire.http import Credentials, HttpClient, HttpSettings, read_credentials
from edgepack.wire.http.connection import parse_proxy
from edgepack.wire.oci import Reference, Registry, parse_reference

_REFERENCE = "oci://HOST[:PORT]/REPOSITORY"


def add_push(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of push."""
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="NAME-VERSION.edgepack")
    parser.add_argument(
        "reference",
        metavar="REFERENCE",
        help=f"{_REFERENCE}[:TAG] (default tag: the bundle's version)",
    )
    parser.add_argument(
        "--mount-from",
        metavar="REPOSITORY",
        help="another repository of the registry that may have the same weights (default: none)",
    )
    _add_common(parser)


def run_push(args: argparse.Namespace) -> int:
    """Put a bundle into a registry."""
    reference = parse_reference(args.reference)
    bundle = open_bundle(args.bundle)
    with _registry(args, reference) as registry, _showing("push", quiet=args.json) as on_progress:
        done = push(
            registry, reference, bundle, mount_from=args.mount_from, on_progress=on_progress
        )
    if args.json:
        print_json(done)
    else:
        kept = done.total_bytes - done.sent_bytes
        signatures = count(done.signatures, "signature")
        say(
            f"{done.reference}: {size(done.sent_bytes)} sent, {size(kept)} were there; {signatures}"
        )
        say(done.digest)
    return 0


def add_pull(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of pull."""
    parser.add_argument("reference", metavar="REFERENCE", help=f"{_REFERENCE}[:TAG|@DIGEST]")
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        default=Path(),
        metavar="FILE",
        help="the bundle to write; must not exist (default: NAME-VERSION.edgepack here)",
    )
    _add_common(parser)


def run_pull(args: argparse.Namespace) -> int:
    """Make a bundle's file of what a registry has; the signature is NOT verified."""
    reference = parse_reference(args.reference)
    if not args.output.is_dir() and args.output.exists():
        raise UsageError(f"{args.output} is there already", hint="name another file with -o")
    with _registry(args, reference) as registry, _showing("pull", quiet=args.json) as on_progress:
        bundle, path = pull(registry, reference, args.output, on_progress=on_progress)
    if args.json:
        print_json({"path": path, "digest": bundle.digest, "signatures": len(bundle.signatures)})
    else:
        signatures = count(len(bundle.signatures), "signature")
        say(
            f"{path}: {bundle.contract.name} {bundle.contract.version}, {signatures} (not verified)"
        )
        say(bundle.digest)
    return 0


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--credentials",
        type=Path,
        metavar="FILE",
        help="users and passwords, as docker login writes them "
        "(default: $DOCKER_CONFIG/config.json, ~/.docker/config.json)",
    )
    parser.add_argument(
        "--ca-file",
        type=Path,
        metavar="FILE",
        help="PEM file of authorities that are trusted besides the system's (default: none)",
    )
    parser.add_argument(
        "--plain-http",
        action="store_true",
        help="speak to the registry without TLS (one on this machine always is)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")


@contextmanager
def _registry(args: argparse.Namespace, reference: Reference) -> Iterator[Registry]:
    for name in ("http_proxy", "https_proxy"):
        if os.environ.get(name):
            parse_proxy(os.environ[name])
    if args.ca_file is not None and not args.ca_file.is_file():
        raise UsageError(f"--ca-file {args.ca_file} is not there")
    settings = HttpSettings(ca_file=None if args.ca_file is None else str(args.ca_file))
    client = HttpClient(settings)
    try:
        yield Registry(
            client,
            reference,
            _credentials(args.credentials),
            (reference.host,) if args.plain_http else (),
        )
    finally:
        client.close()


def _credentials(named: Path | None) -> Credentials:
    if named is not None:
        return read_credentials(named)
    folder = os.environ.get("DOCKER_CONFIG")
    path = (Path(folder) if folder else Path.home() / ".docker") / "config.json"
    return read_credentials(path) if path.is_file() else Credentials()


@contextmanager
def _showing(what: str, *, quiet: bool) -> Iterator[OnTransfer]:
    with progress(quiet=quiet) as bars:
        task = None if bars is None else bars.add_task(what, total=None)

        def on_progress(step: Transfer) -> None:
            if bars is not None and task is not None:
                bars.update(task, completed=step.done_bytes, total=step.total_bytes)

        yield on_progress
