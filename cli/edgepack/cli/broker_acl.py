"""`edgepack broker-acl`."""

import argparse
from pathlib import Path

from edgepack.cli.console import note, print_json
from edgepack.fleet.access import AccessPlan, render_rules, render_settings
from edgepack.wire.topics import DEFAULT_PREFIX

RULES_FILE = "edgepack.acl"
SETTINGS_FILE = "edgepack.conf"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of broker-acl."""
    parser.epilog = (
        "Prints the rules; with --output writes them and the settings that go with them.\n\n"
        f"{parser.epilog}"
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="DIR",
        help=f"write {RULES_FILE} and {SETTINGS_FILE} (to include in mosquitto.conf) here "
        "(default: print the rules)",
    )
    parser.add_argument(
        "--conf", action="store_true", help="print the settings instead of the rules"
    )
    parser.add_argument(
        "--prefix", default=DEFAULT_PREFIX, help="MQTT topic prefix (default: %(default)s)"
    )
    for option, role, what in (
        ("--operators", "operator", "deploy, watch and audit"),
        ("--applications", "application", "send requests and truths"),
        ("--technicians", "technician", "may take what is offered"),
        ("--viewers", "viewer", "only look: dashboards"),
    ):
        parser.add_argument(
            option,
            type=_names,
            default=(role,),
            metavar="USER[,USER…]",
            help=f"users who {what}; '' for none (default: {role})",
        )
    parser.add_argument(
        "--devices",
        type=_names,
        default=(),
        metavar="ID[,ID…]",
        help="only these devices (default: each user is the device of that name)",
    )
    parser.add_argument(
        "--device-user",
        default="{device}",
        metavar="NAME",
        help="name of a device's user, with {device} in it; needs --devices (default: %(default)s)",
    )
    for option, what in (
        ("--read", "every device may read, as an [[input]] does"),
        ("--write", "every device may write to, as an [[action]] does"),
    ):
        parser.add_argument(
            option,
            action="append",
            default=[],
            metavar="TOPIC",
            help=f"what {what}, besides its own; + and # as in MQTT, a level {{device}} for its "
            "id; again for more",
        )
    parser.add_argument(
        "--certificates",
        action="store_true",
        help="devices show client certificates whose common names are their users",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    """Write access rules for mosquitto."""
    plan = AccessPlan(
        prefix=args.prefix,
        operators=args.operators,
        applications=args.applications,
        technicians=args.technicians,
        viewers=args.viewers,
        devices=args.devices,
        device_user=args.device_user,
        reads=tuple(dict.fromkeys(args.read)),
        writes=tuple(dict.fromkeys(args.write)),
    )
    folder = args.output.absolute() if args.output else Path("/etc/mosquitto")
    rules = render_rules(plan)
    settings = render_settings(str(folder / RULES_FILE), certificates=args.certificates)
    if args.output:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / RULES_FILE).write_text(rules, encoding="utf-8")
        (folder / SETTINGS_FILE).write_text(settings, encoding="utf-8")
    if args.json:
        print_json({"rules": rules, "settings": settings, "users": plan.users()})
    elif args.output:
        print(f"{folder / RULES_FILE}   who may write and read where")
        print(f"{folder / SETTINGS_FILE}  to include in mosquitto.conf")
        if not args.certificates:
            note(
                "each user needs a password: mosquitto_passwd /etc/mosquitto/edgepack.passwd USER "
                f"({', '.join(plan.users())}, and each device)"
            )
    else:
        print(settings if args.conf else rules, end="")
    return 0


def _names(text: str) -> tuple[str, ...]:
    return tuple(name for name in text.split(",") if name)
