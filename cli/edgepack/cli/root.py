"""`edgepack root show`, `rotate`, `sign`, `adopt` and `publish`."""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

from edgepack.cli.commands import add_verbose
from edgepack.cli.config import (
    Settings,
    add_broker_arguments,
    add_keys_argument,
    add_root_argument,
    settings,
)
from edgepack.cli.console import count, note, print_json, say
from edgepack.cli.errors import UsageError
from edgepack.cli.event_loop import run_async
from edgepack.cli.exit_codes import epilog
from edgepack.cli.root_change import Prepared, prepare
from edgepack.fleet.connection import connect, parse_broker_url
from edgepack.fleet.publish_roots import publish_roots
from edgepack.trust import ROOT, PrivateKey, Root
from edgepack.trust.errors import KeyFileError, RootError
from edgepack.trust.generate import key_path
from edgepack.trust.key_files import read_small, replace_file
from edgepack.trust.key_folder import Adopted, adopt, local_chain, save_prepared
from edgepack.trust.root_chain import chain_file
from edgepack.trust.root_document import MAX_ROOT_BYTES, ROLES, read_document
from edgepack.trust.rotation import Lacking, lacking, sign_next
from edgepack.wire.topics import check_prefix


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verbs of root."""
    verbs = parser.add_subparsers(metavar="VERB", required=True)

    def verb(
        name: str, run_verb: Callable[[argparse.Namespace], int], text: str
    ) -> argparse.ArgumentParser:
        added = verbs.add_parser(
            name,
            help=text,
            description=f"{text[0].upper()}{text[1:]}.",
            epilog=epilog(),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        added.set_defaults(verb=run_verb)
        return added

    show = verb("show", run_show, "show roles, keys, thresholds, and who has signed")
    show.add_argument("file", nargs="?", type=Path, metavar="FILE", help="default: --root")
    rotate = verb("rotate", run_rotate, "prepare the next root.json: other keys, other rules")
    _add_changes(rotate)
    sign = verb("sign", run_sign, "add signatures to a root.json that is being prepared")
    sign.add_argument("file", type=Path, metavar="FILE", help="root.N.json, changed in place")
    for one in (rotate, sign):
        one.add_argument(
            "--sign-with",
            action="append",
            default=[],
            type=Path,
            metavar="KEY",
            help="a private root key; may be given again (default: root.key among the keys)",
        )
    follow = verb("adopt", run_adopt, "follow the next root.json on this workstation")
    follow.add_argument("files", nargs="+", type=Path, metavar="FILE", help="root.N.json")
    publish = verb(
        "publish", run_publish, "adopt what is prepared, and put every version on the broker"
    )
    publish.add_argument(
        "files", nargs="*", type=Path, metavar="FILE", help="default: what rotate has prepared"
    )
    add_broker_arguments(publish)
    for one in (show, rotate, sign, follow, publish):
        add_root_argument(one)
        add_keys_argument(one)
        one.add_argument("--json", action="store_true", help="print one JSON object")
        add_verbose(one)


def run(args: argparse.Namespace) -> int:
    """Run one verb."""
    code: int = args.verb(args)
    return code


def run_show(args: argparse.Namespace) -> int:
    """Show a root.json; one that is being prepared, too."""
    found = settings(args)
    path = args.file or found.root
    data = read_small(path, max_bytes=MAX_ROOT_BYTES)
    document = read_document(data)
    needed = _lacking(data, found, path)
    if args.json:
        print_json({"path": path, "document": document, "lacking": needed})
        return 0
    say(f"{path}: root.json version {document.version}{_state(needed)}")
    for name in ROLES:
        role = document.roles[name]
        models = f", models {', '.join(role.models)}" if role.models is not None else ""
        say(f"{name:8} {role.threshold} of {count(len(role.keys), 'key')}{models}")
        for key_id in role.keys:
            say(f"         {key_id}")
    return 0


def run_rotate(args: argparse.Namespace) -> int:
    """Prepare the next root.json."""
    found = settings(args)
    old = Root.load(found.root)
    made = prepare(args, old, found.keys)
    signers = _signers(args, found.keys, old, made)
    data = made.sign(old, signers)
    path, keys = save_prepared(found.root, found.keys, old.version + 1, data, made.new_keys)
    needed = lacking(data, old)
    if args.json:
        print_json({"path": path, "version": old.version + 1, "new_keys": keys, "lacking": needed})
        return 0
    for role, key in keys.items():
        say(f"{key}  private; the new {role} key, in use once version {old.version + 1} is adopted")
    say(f"{path}  public; root.json version {old.version + 1}{_state(needed)}")
    note(_next_step(needed, path))
    return 0


def run_sign(args: argparse.Namespace) -> int:
    """Add signatures to a root.json."""
    found = settings(args)
    data = read_small(args.file, max_bytes=MAX_ROOT_BYTES)
    keys = [PrivateKey.load(path) for path in args.sign_with or [key_path(found.keys, ROOT)]]
    document = read_document(data)
    allowed = set(document.roles[ROOT].keys)
    old = _old(found, document.version)
    if old is not None:
        allowed |= set(old.roles[ROOT].keys)
    strangers = [key.public.key_id for key in keys if key.public.key_id not in allowed]
    if strangers:
        raise RootError(
            f"key {strangers[0][:12]}… is in no root role that version {document.version} needs"
        )
    data = sign_next(data, keys)
    replace_file(args.file, data, mode=0o644)
    needed = lacking(data, old)
    if args.json:
        print_json({"path": args.file, "version": document.version, "lacking": needed})
        return 0
    say(f"{args.file}: root.json version {document.version}{_state(needed)}")
    if old is None:
        note(f"the version before is not at {found.root}: its root role's signatures are not seen")
    note(_next_step(needed, args.file))
    return 0


def run_adopt(args: argparse.Namespace) -> int:
    """Follow the next root.json here."""
    found = settings(args)
    adopted = _adopt(found, args.files)
    if args.json:
        print_json({"version": adopted.root.version, "keys": adopted.keys})
    else:
        _say_adopted(found, adopted)
    return 0


def run_publish(args: argparse.Namespace) -> int:
    """Adopt what is prepared, and put every version on the broker."""
    found = settings(args)
    prefix = check_prefix(found.prefix)
    broker = parse_broker_url(found.broker)
    prepared = chain_file(found.root.parent, Root.load(found.root).version + 1)
    files = args.files or ([prepared] if prepared.exists() else [])
    adopted = _adopt(found, files) if files else None
    chain = local_chain(found.root)
    roots = [root for root in chain if root.version > 1]
    if not roots:
        raise UsageError(
            f"{found.root} is version 1, which devices are given by hand: nothing to publish",
            hint="`edgepack root rotate` prepares version 2",
        )

    async def send() -> tuple[int, ...]:
        async with connect(broker) as client:
            return await publish_roots(client, prefix, roots)

    sent = run_async(send())
    if args.json:
        keys = adopted.keys if adopted is not None else {}
        print_json({"version": roots[-1].version, "sent": sent, "keys": keys})
        return 0
    if adopted is not None:
        _say_adopted(found, adopted)
    what = f"version {', '.join(map(str, sent))} sent" if sent else "had all"
    say(f"{broker}: root.json up to version {roots[-1].version} ({what})")
    if roots[0].version > 2:
        note(
            f"versions before {roots[0].version} are not beside {found.root}: devices that are "
            "further behind need them by hand"
        )
    return 0


def _add_changes(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--new",
        action="append",
        default=[],
        choices=ROLES,
        help="make a new key for this role, in place of the one that this folder has; may be given "
        "again",
    )
    parser.add_argument(
        "--add",
        action="append",
        default=[],
        metavar="ROLE=HEX|FILE",
        help="give a role one more key: 64 hex characters, or a private key file of which only the "
        "public part is taken",
    )
    parser.add_argument(
        "--remove",
        action="append",
        default=[],
        metavar="KEYID",
        help="take a key out of every role; 8 characters of its id or more",
    )
    parser.add_argument(
        "--threshold",
        action="append",
        default=[],
        metavar="ROLE=N",
        help="how many keys of a role must sign (default: as it was)",
    )
    models = parser.add_mutually_exclusive_group()
    models.add_argument(
        "--models",
        metavar="PATTERNS",
        help="names of models that the release role may sign: shell patterns, with commas",
    )
    models.add_argument(
        "--all-models", action="store_true", help="the release role may sign every model"
    )


def _signers(args: argparse.Namespace, keys: Path, old: Root, made: Prepared) -> list[PrivateKey]:
    signers = [PrivateKey.load(path) for path in args.sign_with]
    own = key_path(keys, ROOT)
    if not args.sign_with and own.exists():
        signers.append(PrivateKey.load(own))
    if ROOT in made.new_keys:
        signers.append(made.new_keys[ROOT])
    wanted = {*old.roles[ROOT].keys, *made.root_keys}
    if not [key for key in signers if key.public.key_id in wanted]:
        raise KeyFileError(
            f"no root key is at hand: {own} is not there; name one with --sign-with KEY"
        )
    return [key for key in signers if key.public.key_id in wanted]


def _lacking(data: bytes, found: Settings, path: Path) -> Lacking:
    version = read_document(data).version
    old = None if path == found.root else _old(found, version)
    return lacking(data, old)


def _old(found: Settings, version: int) -> Root | None:
    """The version before, from beside root.json."""
    for path in (found.root, chain_file(found.root.parent, version - 1)):
        try:
            root = Root.load(path)
        except (KeyFileError, RootError):
            continue
        if root.version == version - 1:
            return root
    return None


def _state(needed: Lacking) -> str:
    if needed.complete:
        return ", signed"
    parts = [
        f"{count(number, 'signature')} of the {which} root role"
        for number, which in ((needed.old, "old"), (needed.new, "new"))
        if number
    ]
    return f", lacks {' and '.join(parts)}"


def _next_step(needed: Lacking, path: Path) -> str:
    if needed.complete:
        return (
            "next: `edgepack root publish`; without a broker `edgepack-agent root` on each device"
        )
    return f"next: `edgepack root sign {path.name} --sign-with KEY` where the other root keys are"


def _adopt(found: Settings, files: Sequence[Path]) -> Adopted:
    candidates = [read_small(path, max_bytes=MAX_ROOT_BYTES) for path in files]
    adopted: Adopted | None = None
    for data in sorted(candidates, key=lambda data: read_document(data).version):
        step = adopt(found.root, found.keys, data)
        keys = {**(adopted.keys if adopted is not None else {}), **step.keys}
        adopted = Adopted(root=step.root, keys=keys)
    if adopted is None:
        raise UsageError("name at least one FILE")
    return adopted


def _say_adopted(found: Settings, adopted: Adopted) -> None:
    say(f"{found.root}: root.json version {adopted.root.version} is followed here")
    for role, path in adopted.keys.items():
        say(f"{path}: the new {role} key is in use")
