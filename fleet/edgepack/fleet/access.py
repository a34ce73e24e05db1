"""Who may write and read where, as mosquitto's access rules and settings. Pure.

A device writes only its own `out/` and reads only its own `in/`, the blobs, and its own `out/info`
and `out/status` (to notice others under its id); and beside the prefix what its `[[input]]`s read
and its `[[action]]`s publish, where the plan says so. It knows passwords of nobody: making users is
mosquitto's own `mosquitto_passwd`.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from edgepack.fleet.errors import TargetError
from edgepack.wire.commands import INSTALL, WATCH
from edgepack.wire.filters import check_filter, overlap
from edgepack.wire.topics import DEFAULT_PREFIX, check_id, check_prefix

_USER = re.compile(r"[A-Za-z0-9_.@-]{1,64}")
_DEVICE = "{device}"
_USERNAME = "%u"  # what mosquitto puts the user name in for
_MAX_PACKET_BYTES = 256 * 1024
_MAX_QUEUED_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessPlan:
    """Who there is.

    Attributes:
        prefix: MQTT topic prefix.
        operators: Users who deploy, watch and audit.
        applications: Users who send requests and truths, and read what devices say.
        technicians: Users who may take what is offered.
        viewers: Users who only look, as dashboards do.
        devices: Ids of the devices; empty: any user is the device of that name.
        device_user: Name of a device's user, with `{device}` in it.
        reads: Topic filters beside the prefix that every device may read, as its inputs do; a level
            `{device}` stands for its id.
        writes: Such filters that every device may write to, as its actions do.
    """

    prefix: str = DEFAULT_PREFIX
    operators: tuple[str, ...] = ("operator",)
    applications: tuple[str, ...] = ("application",)
    technicians: tuple[str, ...] = ("technician",)
    viewers: tuple[str, ...] = ("viewer",)
    devices: tuple[str, ...] = ()
    device_user: str = _DEVICE
    reads: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_prefix(self.prefix)
        if _DEVICE not in self.device_user:
            raise TargetError(
                f"name of a device's user must have {_DEVICE} in it, got {self.device_user!r}"
            )
        if self.device_user != _DEVICE and not self.devices:
            raise TargetError(
                "devices must be named where a device's user is not its id",
                hint="--devices press-7,press-8",
            )
        for device in self.devices:
            check_id(device, what="device id")
        for topic in self.reads:
            _check_topic("read", topic, f"{self.prefix}/+/in/#")
        for topic in self.writes:
            _check_topic("write", topic, f"{self.prefix}/#")
        known: set[str] = set()
        for user in self.users():
            if not _USER.fullmatch(user):
                raise TargetError(f"user must match [A-Za-z0-9_.@-]{{1,64}}, got {user[:80]!r}")
            if user in known:
                raise TargetError(f"user {user!r} must have one role, got two")
            known.add(user)

    def users(self) -> list[str]:
        """Everybody who needs a password or a certificate; without devices that are not named."""
        people = [*self.operators, *self.applications, *self.technicians, *self.viewers]
        return people + [self.user_of(device) for device in self.devices]

    def user_of(self, device: str) -> str:
        """Name of a device's user."""
        return self.device_user.replace(_DEVICE, device)


def _check_topic(access: str, topic: str, forbidden: str) -> None:
    """A rule that mosquitto takes as it is meant, and that opens nothing of edgepack's own."""
    levels = check_filter(topic).split("/")
    if not topic.isprintable() or topic != topic.strip():
        raise TargetError(f"topic to {access} must be one printable line, got {topic[:80]!r}")
    if any(_DEVICE in level and level != _DEVICE for level in levels):
        raise TargetError(f"{_DEVICE} must be all of a level of a topic, got {topic[:80]!r}")
    if "%" in topic:
        raise TargetError(
            f"topic to {access} must have no %, got {topic[:80]!r}",
            hint=f"a level {_DEVICE} stands for the device's id",
        )
    if levels[0] == "$share":
        raise TargetError(f"topic to {access} must stand without $share/GROUP/, got {topic[:80]!r}")
    if overlap(topic.replace(_DEVICE, "+"), forbidden):
        raise TargetError(
            f"topic to {access} must stand beside {forbidden}, got {topic[:80]!r}",
            hint="a device may read its own in/ and write its own out/ already",
        )


def render_rules(plan: AccessPlan) -> str:
    """The file for mosquitto's `acl_file`."""
    base = f"{plan.prefix}/+"
    readers = f"topic read {base}/out/#"
    parts = [_role(plan.operators, [readers, f"topic readwrite {base}/in/#", _blobs(plan)])]
    asks = [f"topic write {base}/in/infer/#", f"topic write {base}/in/truth/#"]
    watches = f"topic write {base}/in/cmd/{WATCH}"
    parts.append(_role(plan.applications, [readers, *asks]))
    parts.append(_role(plan.technicians, [readers, f"topic write {base}/in/cmd/{INSTALL}"]))
    parts.append(_role(plan.viewers, [readers, watches]))
    if plan.devices:
        parts += [_device("topic", plan, device, plan.user_of(device)) for device in plan.devices]
    else:
        parts.append(_device("pattern", plan, _USERNAME))
    return "\n".join(part for part in parts if part)


def _role(users: Sequence[str], rules: Sequence[str]) -> str:
    return "\n".join("\n".join([f"user {user}", *rules, ""]) for user in users)


def _blobs(plan: AccessPlan) -> str:
    return f"topic readwrite {plan.prefix}/blob/#"


def _device(kind: str, plan: AccessPlan, device: str, user: str = "") -> str:
    base = f"{plan.prefix}/{device}"
    lines = [f"user {user}"] if user else []
    lines += [
        f"{kind} write {base}/out/#",
        f"{kind} read {base}/in/#",
        f"{kind} read {base}/out/info",
        f"{kind} read {base}/out/status",
        f"{kind} read {plan.prefix}/blob/#",
        *(f"{kind} read {topic.replace(_DEVICE, device)}" for topic in plan.reads),
        *(f"{kind} write {topic.replace(_DEVICE, device)}" for topic in plan.writes),
        "",
    ]
    return "\n".join(lines)


def render_settings(acl_file: str, *, certificates: bool = False) -> str:
    """Lines for mosquitto.conf: who gets in, and limits that suit edgepack.

    Args:
        acl_file: Path of the rules.
        certificates: Whether devices show a client certificate; its common name is the user then.
    """
    if certificates:
        gate = ["require_certificate true", "use_identity_as_username true"]
    else:
        gate = ["password_file /etc/mosquitto/edgepack.passwd"]
    return "\n".join(
        [
            "# a listener of your own stands before this, with cafile, certfile and keyfile:",
            "#   listener 8883",
            "#   listener 443",
            "#   protocol websockets",
            "allow_anonymous false",
            *gate,
            f"acl_file {acl_file}",
            "# else each answer waits 40 ms for more to fill its packet",
            "set_tcp_nodelay true",
            f"max_packet_size {_MAX_PACKET_BYTES}",
            "# for each device that is away for a moment",
            "max_queued_messages 1000",
            f"max_queued_bytes {_MAX_QUEUED_BYTES}",
            "persistent_client_expiration 1d",
            "# what is retained is what devices shall run: it has to survive a restart",
            "persistence true",
            "persistence_location /var/lib/mosquitto/",
            "autosave_interval 60",
            "",
        ]
    )
