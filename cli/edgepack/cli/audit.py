"""`edgepack audit verify` and `edgepack audit export`."""

import argparse
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from edgepack.cli.commands import add_verbose
from edgepack.cli.config import add_broker_arguments, settings
from edgepack.cli.console import count, note, print_json, print_table, say
from edgepack.cli.errors import UsageError
from edgepack.cli.event_loop import run_async
from edgepack.cli.exit_codes import epilog
from edgepack.fleet.audit import Expected, Proof, prove
from edgepack.fleet.audit_broker import read_history
from edgepack.fleet.connection import parse_broker_url
from edgepack.trust import PublicKey, Root
from edgepack.trust.key_files import read_small
from edgepack.wire.audit import AuditEvent
from edgepack.wire.topics import check_id, check_prefix

MAX_HISTORY_BYTES = 64 * 1024 * 1024
_HEX_KEY_CHARACTERS = 64
_HEAD = ("EVENT", "TIME (UTC)", "MODEL", "WHAT", "VERSION", "ANSWERS", "VARIANT", "BY", "REASON")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verbs of audit."""
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    verify = verbs.add_parser(
        "verify",
        help="prove what ran on a device, and that nothing of its history is missing",
        description="Check a device's signed history, from files or from the broker. Ends with 5 "
        "if an event was removed, changed, moved, forged or is another device's.",
        epilog=epilog(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verify.add_argument(
        "files",
        nargs="*",
        type=Path,
        metavar="FILE",
        help="what export or `edgepack-agent audit` wrote; several of one device are read as one "
        "history (default: read the broker)",
    )
    verify.add_argument(
        "--key",
        action="append",
        default=[],
        metavar="HEX|FILE",
        help="the device's public key, as you recorded it; may be given again "
        "(default: the history's own word, which proves that it is one piece, not whose)",
    )
    verify.add_argument(
        "--root",
        action="append",
        default=[],
        type=Path,
        metavar="FILE",
        help="root.json: whoever told the device what to run must have been allowed to; may be "
        "given again, for several versions",
    )
    verify.add_argument("--list", action="store_true", help="show every event")
    _add_device(verify, needed=False)
    verify.set_defaults(verb=run_verify)
    export = verbs.add_parser(
        "export",
        help="write what the broker has of a device's signed history, as JSON lines",
        description="Write the signed events that the broker retains, one to a line.",
        epilog=epilog(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    export.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help="must not exist (default: print them)"
    )
    _add_device(export, needed=True)
    export.set_defaults(verb=run_export)
    for verb in (verify, export):
        verb.add_argument("--json", action="store_true", help="print one JSON object")
        add_verbose(verb)


def run(args: argparse.Namespace) -> int:
    """Run one verb."""
    code: int = args.verb(args)
    return code


def run_verify(args: argparse.Namespace) -> int:
    """Check a history."""
    keys = tuple(_key(text) for text in args.key)
    events = 0
    roots = {root.version: root for root in map(Root.load, args.root)}
    device = None if args.device is None else check_id(args.device, what="device id")
    if args.files:
        files = {str(path): _read(path) for path in args.files}
        expected = Expected(keys=keys, device=device, prefix=args.prefix, roots=roots)
    elif device is None:
        raise UsageError("name a FILE, or --device ID to read the broker")
    else:
        found = settings(args)
        prefix = check_prefix(found.prefix)
        history = run_async(read_history(parse_broker_url(found.broker), prefix, device))
        files = {"the broker": list(history.lines)}
        events = history.events
        expected = Expected(
            keys=keys,
            claimed=history.key,
            device=device,
            prefix=prefix,
            roots=roots,
            from_start=False,
        )
    proof = prove(files, expected)
    if told := _withheld(proof, events):
        proof = replace(proof, notes=(*proof.notes, told))
    if args.json:
        print_json(proof)
    else:
        _print(proof, listed=args.list)
    proof.raise_findings()
    return 0


def run_export(args: argparse.Namespace) -> int:
    """Write what the broker has."""
    found = settings(args)
    device = check_id(args.device, what="device id")
    prefix = check_prefix(found.prefix)
    history = run_async(read_history(parse_broker_url(found.broker), prefix, device))
    data = b"".join(line + b"\n" for line in history.lines)
    if args.output is None:
        print(data.decode(), end="")
        return 0
    try:
        with args.output.open("xb") as file:
            file.write(data)
    except FileExistsError:
        raise UsageError(f"{args.output} is there already", hint="name another file") from None
    if args.json:
        print_json({"path": args.output, "events": len(history.lines), "key": history.key})
    else:
        say(f"{args.output}: {count(len(history.lines), 'event')}")
    return 0


def _withheld(proof: Proof, events: int) -> str:
    last = max((event.number for event in proof.events), default=0)
    if last >= events:
        return ""
    return f"the device has {events} events, the broker {last}: not signed yet, lost, or withheld"


def _add_device(parser: argparse.ArgumentParser, *, needed: bool) -> None:
    parser.add_argument("--device", metavar="ID", required=needed, help="whose history it is")
    add_broker_arguments(parser)


def _read(path: Path) -> list[bytes]:
    data = read_small(path, max_bytes=MAX_HISTORY_BYTES)
    return [line for line in data.split(b"\n") if line.strip()]


def _key(text: str) -> PublicKey:
    if len(text) != _HEX_KEY_CHARACTERS:
        text = read_small(Path(text), max_bytes=4096).decode("ascii", "replace").strip()
    try:
        return PublicKey(bytes.fromhex(text))
    except ValueError as exc:
        raise UsageError(
            f"a device's key must be 64 hex characters, got {text[:80]!r}",
            hint="`edgepack-agent audit --key` prints it",
        ) from exc


def _print(proof: Proof, *, listed: bool) -> None:
    if listed:
        print_table(_HEAD, [_row(event) for event in proof.events])
        print()
    for finding in proof.findings:
        say(f"{finding.kind}: {finding.detail}")
    verdict = "does NOT hold" if proof.findings else "holds"
    first, last = proof.events[:1], proof.events[-1:]
    span = f", {_time(first[0])} to {_time(last[0])}" if first else ""
    say(f"{proof.device}: {count(len(proof.events), 'event')}{span}: the history {verdict}")
    for text in proof.notes:
        note(f"note: {text}")
    if not proof.pinned:
        note(
            f"note: nobody but the history says that {', '.join(proof.keys)} is this device's "
            "key; --key pins it"
        )


def _row(event: AuditEvent) -> tuple[str, ...]:
    by = event.actor
    if event.actor == "desired":
        signers = ",".join(key_id[:8] for key_id in event.signers)
        by = f"generation {event.generation} by {signers}"
    what = event.phase or event.kind
    doubt = "" if event.clock == "plausible" else " (clock wrong)"
    return (
        str(event.number),
        _time(event) + doubt,
        event.model,
        what,
        event.version,
        event.active.removeprefix("sha256:")[:12],
        event.variant,
        by,
        event.reason,
    )


def _time(event: AuditEvent) -> str:
    try:
        return f"{datetime.fromtimestamp(event.ts / 1000, UTC):%Y-%m-%d %H:%M:%S}"
    except (OverflowError, ValueError, OSError):
        return f"{event.ts} ms"
