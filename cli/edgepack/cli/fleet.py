"""`edgepack deploy`, `remove` and `rollback`."""

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edgepack.cli.config import (
    add_broker_arguments,
    add_keys_argument,
    add_root_argument,
    settings,
)
from edgepack.cli.console import count, note, print_json, progress, safe, say, size
from edgepack.cli.errors import UsageError
from edgepack.cli.event_loop import run_async
from edgepack.fleet import MergePolicy, Operator, Outcome, Signer, Targets, parse_broker_url
from edgepack.fleet.blobs import UploadProgress
from edgepack.fleet.follow import DeviceProgress, Verdict
from edgepack.trust import DEPLOY, PrivateKey
from edgepack.trust.generate import key_path
from edgepack.trust.key_folder import local_chain
from edgepack.wire.desired import DEFAULT_LIFETIME_S, Mode
from edgepack.wire.topics import check_prefix

_DAY_S = 24 * 3600
_DEFAULT_TIMEOUT_S = 300.0


def add_deploy(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of deploy."""
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="NAME-VERSION.edgepack")
    _add_common(parser)
    parser.add_argument(
        "--via",
        action="append",
        default=[],
        metavar="SOURCE",
        help="where devices fetch the bundle: http(s)://…, oci://…, file:/… or mqtt:; ending in / "
        "it gets the file's name; given again, devices try one after the other "
        "(default: mqtt:, through the broker)",
    )
    parser.add_argument(
        "--offer",
        action="store_true",
        help="do not install it: a person asks for it, on the device or over in/cmd/install",
    )
    parser.add_argument(
        "--shadow",
        action="store_true",
        help="let it see what the model sees, beside it; nobody gets its answers, the "
        "disagreement is reported",
    )
    parser.add_argument(
        "--floor",
        type=int,
        default=0,
        metavar="SEQUENCE",
        help="devices refuse bundles of this model signed before, from now on; `edgepack verify` "
        "shows a bundle's sequence, in seconds since 1970 (default: as it was)",
    )
    parser.add_argument(
        "--keep-blobs",
        action="store_true",
        help="leave what the replaced version needs on the broker",
    )
    parser.add_argument(
        "--no-verify",
        action="store_true",
        help="send it though the root here does not trust it; devices decide for themselves",
    )


def run_deploy(args: argparse.Namespace) -> int:
    """Deploy a bundle."""
    from edgepack.bundle import open_bundle
    from edgepack.fleet import DeployOptions, deploy

    targets, policy = _targets(args), _policy(args)
    bundle = open_bundle(args.bundle)
    options = DeployOptions(
        via=tuple(args.via),
        floor=args.floor,
        check=not args.no_verify,
        keep_blobs=args.keep_blobs,
        policy=policy,
        mode=_mode(args) or Mode.INSTALL,
    )
    return _run(args, lambda operator: deploy(operator, bundle, targets, options))


def add_remove(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of remove."""
    parser.add_argument("model", metavar="MODEL", help="the model's name")
    _add_common(parser)
    parser.add_argument("--offer", action="store_true", help="take away only what is offered")
    parser.add_argument("--shadow", action="store_true", help="take away only its challenger")
    parser.add_argument("--keep-blobs", action="store_true", help="leave its bundle on the broker")


def run_remove(args: argparse.Namespace) -> int:
    """Take a model away."""
    from edgepack.fleet import remove

    targets, policy = _targets(args), _policy(args)
    return _run(
        args,
        lambda operator: remove(
            operator,
            args.model,
            targets,
            keep_blobs=args.keep_blobs,
            policy=policy,
            mode=_mode(args),
        ),
    )


def add_rollback(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of rollback."""
    parser.add_argument("model", metavar="MODEL", help="the model's name")
    _add_common(parser)


def run_rollback(args: argparse.Namespace) -> int:
    """Send devices back to the version before."""
    from edgepack.fleet import rollback

    targets, policy = _targets(args), _policy(args)
    return _run(args, lambda operator: rollback(operator, args.model, targets, policy=policy))


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--device",
        action="append",
        default=[],
        metavar="ID",
        help="a device, seen before or not; may be given again",
    )
    parser.add_argument(
        "--tag",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="every device with this tag; given again, those with all of them",
    )
    parser.add_argument(
        "--all", action="store_true", help="every device that has ever connected to this broker"
    )
    add_broker_arguments(parser)
    add_keys_argument(parser)
    add_root_argument(parser)
    parser.add_argument(
        "--wait",
        action="store_true",
        help="follow the devices until each has confirmed or refused; the exit code tells",
    )
    parser.add_argument(
        "--timeout",
        type=float,
        default=_DEFAULT_TIMEOUT_S,
        metavar="SECONDS",
        help="how long --wait waits (default: %(default)g)",
    )
    parser.add_argument(
        "--expires",
        type=float,
        default=DEFAULT_LIFETIME_S / _DAY_S,
        metavar="DAYS",
        help="devices that come back later do not start it any more (default: %(default)g)",
    )
    parser.add_argument(
        "--replace",
        action="store_true",
        help="the devices shall run nothing else, whatever the broker retains",
    )
    parser.add_argument(
        "--keep-reported",
        action="store_true",
        help="where the broker has lost the desired state, keep what the device says that it runs",
    )
    parser.add_argument(
        "--sign-with",
        action="append",
        default=[],
        type=Path,
        metavar="KEY",
        help="one more private deploy key, where the root wants more than one; may be given again",
    )
    parser.add_argument(
        "--keep-retired",
        action="store_true",
        help="after a planned rotation of the deploy key, take over the desired state that the old "
        "key has signed; never after a theft",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object at the end")


def _mode(args: argparse.Namespace) -> Mode | None:
    if args.offer and args.shadow:
        raise UsageError("--offer and --shadow contradict each other")
    if args.offer:
        return Mode.OFFER
    return Mode.SHADOW if args.shadow else None


def _targets(args: argparse.Namespace) -> Targets:
    tags = {}
    for tag in args.tag:
        key, equals, value = tag.partition("=")
        if not key or not equals:
            raise UsageError(f"--tag must be KEY=VALUE, got {tag!r}")
        tags[key] = value
    return Targets(devices=tuple(args.device), tags=tags, everyone=args.all)


def _policy(args: argparse.Namespace) -> MergePolicy:
    if args.replace and (args.keep_reported or args.keep_retired):
        raise UsageError("--replace contradicts --keep-reported and --keep-retired")
    return MergePolicy(
        replace=args.replace, keep_reported=args.keep_reported, keep_retired=args.keep_retired
    )


def _run(args: argparse.Namespace, change: Callable[[Operator], Any]) -> int:
    if args.timeout <= 0 or args.expires <= 0:
        raise UsageError(f"--timeout and --expires must be > 0, got {args.timeout}, {args.expires}")
    found = settings(args)
    *retired, root = local_chain(found.root)
    key = PrivateKey.load(key_path(found.keys, DEPLOY))
    more = tuple(PrivateKey.load(path) for path in args.sign_with)
    signer = Signer(key=key, more=more, root=root, retired=tuple(retired))
    with _showing(quiet=args.json) as (on_upload, on_device):
        operator = Operator(
            broker=parse_broker_url(found.broker),
            signer=signer,
            prefix=check_prefix(found.prefix),
            lifetime_s=max(1, round(args.expires * _DAY_S)),
            wait_s=args.timeout if args.wait else None,
            on_upload=on_upload,
            on_device=on_device,
            on_note=note,
        )
        outcome: Outcome = run_async(change(operator))
    if args.json:
        print_json(outcome)
    else:
        _print(outcome)
    outcome.raise_refusals()
    return 0


@contextmanager
def _showing(
    *, quiet: bool
) -> Iterator[tuple[Callable[[UploadProgress], None], Callable[[DeviceProgress], None]]]:
    with progress(quiet=quiet) as bars:
        upload = None if bars is None else bars.add_task("bundle to the broker", visible=False)

        def on_upload(step: UploadProgress) -> None:
            if bars is not None and upload is not None:
                bars.update(upload, completed=step.done_bytes, total=step.total_bytes, visible=True)

        def on_device(step: DeviceProgress) -> None:
            if quiet:
                return
            why = f": {step.reason or step.detail}" if step.reason or step.detail else ""
            away = " (offline)" if step.online is False else ""
            line = f"{step.device}: {step.phase}{away}{why}"
            if bars is not None:
                bars.console.print(safe(line), highlight=False, markup=False)
            else:
                note(line)

        yield on_upload, on_device


def _print(outcome: Outcome) -> None:
    what = "removed" if outcome.digest is None and not outcome.version else outcome.version
    sent = f", {size(outcome.sent_bytes)} to the broker" if outcome.sent_bytes else ""
    devices = count(len(outcome.generations), "device")
    say(f"{outcome.model} {what}: {devices}{sent}")
    ends = {one.device: one for one in outcome.devices}
    for device, generation in sorted(outcome.generations.items()):
        end = ends.get(device)
        told = "told; not waited for" if end is None else end.phase
        bad = end is not None and end.verdict is Verdict.REFUSED
        refused = " (refused)" if bad else ""
        say(f"  {device}: generation {generation}, {told}{refused}")
