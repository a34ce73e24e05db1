"""The way to the broker: name, connection, TLS, login, access rules, and who else has this id."""

import socket
import ssl
from collections.abc import Iterator

from edgepack.agent.config import BrokerAddress, broker_address
from edgepack.agent.doctor.finding import Finding, fail, ok, warn
from edgepack.agent.doctor.patient import Patient
from edgepack.agent.errors import ConfigError
from edgepack.wire.errors import WireError
from edgepack.wire.messages import parse_info
from edgepack.wire.topics import DeviceTopics

_TIMEOUT_S = 10.0
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
    address = broker_address(config.url)
    where = f"{address.host} port {address.port}"
    wrong = _reach(address, where)
    if wrong is not None:
        yield wrong
        return
    try:
        context = _context(patient, address)
        secure = _handshake(address, context) if context is not None else "without TLS"
    except (ssl.SSLError, ssl.CertificateError, OSError) as exc:
        yield _tls(patient, exc)
        return
    from edgepack.agent.doctor.probe import probe

    topics = DeviceTopics(patient.config.prefix, patient.config.device)
    try:
        seen = probe(config, address, topics, context)
    except ConfigError as exc:
        yield fail("broker", str(exc), "put the password's file there, readable for this user")
        return
    except OSError as exc:
        yield fail("broker", f"{where} broke off: {exc}", "look at the broker's log")
        return
    if seen.refused:
        who = config.username or "nobody (no username in agent.toml)"
        yield fail(
            "broker",
            f"{where} lets {who} not in: {seen.refused}",
            "compare username and password_file in agent.toml with the broker's",
        )
        return
    yield ok("broker", f"{where}, {seen.protocol}, {secure}")
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


def _reach(address: BrokerAddress, where: str) -> Finding | None:
    try:
        found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    except OSError as exc:
        mend = "look at /etc/resolv.conf, the network, and the spelling in agent.toml"
        return fail("broker", f"the name {address.host} is not found: {exc.strerror}", mend)
    try:
        socket.create_connection((address.host, address.port), timeout=_TIMEOUT_S).close()
    except OSError as exc:
        reason = exc.strerror or str(exc)
        mend = (
            f"is the broker running, and may this device reach {found[0][4][0]}? (firewall, port)"
        )
        return fail("broker", f"no connection to {where}: {reason}", mend)
    return None


def _context(patient: Patient, address: BrokerAddress) -> ssl.SSLContext | None:
    if not address.tls:
        return None
    config = patient.config.broker
    context = ssl.create_default_context(cafile=config.ca_file)
    if config.cert_file:
        context.load_cert_chain(config.cert_file, config.key_file)
    return context


def _handshake(address: BrokerAddress, context: ssl.SSLContext) -> str:
    with (
        socket.create_connection((address.host, address.port), timeout=_TIMEOUT_S) as plain,
        context.wrap_socket(plain, server_hostname=address.host) as secure,
    ):
        return secure.version() or "TLS"


def _tls(patient: Patient, exc: Exception) -> Finding:
    text = f"TLS: {getattr(exc, 'verify_message', '') or exc}"[:300]
    mend = "ca_file in agent.toml must hold who signed the broker's certificate"
    if "not yet valid" in text or "expired" in text:
        mend = "set this device's clock" if patient.clock.complaint else "renew the certificate"
        mend += f" (it is {patient.clock.now_s:.0f} s since 1970 here)"
    elif "mismatch" in text or "doesn't match" in text:
        mend = "the url in agent.toml must name the broker as its certificate does"
    elif isinstance(exc, FileNotFoundError):
        mend = "ca_file, cert_file or key_file in agent.toml is not there"
    return fail("broker", text, mend)


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
