"""The agent's own broker: the way there, access rules, and who else has this id."""

from collections.abc import Iterator

from edgepack.agent.doctor.finding import Finding, fail, ok, warn
from edgepack.agent.doctor.patient import Patient
from edgepack.agent.doctor.way import go
from edgepack.wire.errors import WireError
from edgepack.wire.messages import parse_info
from edgepack.wire.topics import DeviceTopics

_RULES = (
    "a device writes only under its own out/ and reads its own in/: its user name must be its id "
    "(`edgepack broker-acl` writes the rules)"
)


def check_broker(patient: Patient) -> Iterator[Finding]:
    """Each step on the way; the first that fails ends it."""
    config = patient.config.broker
    if config.url is None:
        yield ok("broker", "none configured: the agent works alone")
        return
    topics = DeviceTopics(patient.config.prefix, patient.config.device)
    finding, seen = go(config, patient.clock, topics=topics)
    yield finding
    if seen is None:
        return
    yield from _rules(patient, seen.echoed, seen.denied, desired=seen.desired)
    yield from _twin(patient, seen.info)


def check_agent(patient: Patient) -> Iterator[Finding]:
    """What the running agent says of its connection, and of others with its id."""
    answer = patient.answer
    if answer is None:
        return
    if patient.config.broker.url is not None and not answer.get("connected"):
        yield fail(
            "connected",
            "the running agent is not connected",
            "its log says why: broker.lost in `journalctl -u edgepack-agent`",
        )
    mends = {
        "conflict": "give one of the two another `device` in agent.toml; a copied disk also needs "
        "a new state folder and machine-id",
        "clock": "set the clock",
        "root": "`edgepack-agent root` says what is followed",
    }
    for kind, detail in answer.get("notices", {}).items():
        check = "duplicate" if kind == "conflict" else kind
        yield warn(check, detail, mends.get(kind, "docs/operations.md, Notices, says more"))


def _rules(
    patient: Patient, echoed: bool | None, denied: list[str], *, desired: bool
) -> Iterator[Finding]:
    if denied:
        yield fail("rules", f"the broker refuses to let {', '.join(denied)} be read", _RULES)
    if echoed is False:
        base = DeviceTopics(patient.config.prefix, patient.config.device).base
        yield fail("rules", f"what is written to {base}/out/ does not arrive", _RULES)
    elif echoed:
        yield ok("rules", "out/ can be written")
    if desired:
        yield ok("rules", "in/ can be read")
    elif patient.memory.generation > 0:
        yield warn(
            "rules",
            f"no desired state comes, though generation {patient.memory.generation} was accepted",
            f"the broker lost what it retained (deploy again), or {_RULES}",
        )


def _twin(patient: Patient, payload: bytes | None) -> Iterator[Finding]:
    """Whether `out/info` is this installation's."""
    own = patient.memory.instance
    if payload is None or not own:
        return
    try:
        info = parse_info(payload)
    except WireError:
        return
    if info.instance != own:
        yield fail(
            "duplicate",
            f"installation {info.instance[:8]} used this device's id last, this one is {own[:8]}",
            "give one of the two another `device` in agent.toml; one that was installed anew says "
            "so by itself at its next start",
        )
