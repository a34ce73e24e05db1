"""The way to one broker: name, connection, TLS, login; the first step that fails ends it."""

import socket
import ssl
from collections.abc import Sequence

from edgepack.agent.config import BrokerAddress, BrokerConfig, broker_address
from edgepack.agent.doctor.finding import Finding, fail, ok
from edgepack.agent.doctor.probe import Seen, probe
from edgepack.agent.errors import ConfigError
from edgepack.agent.install.clock import Verdict
from edgepack.wire.topics import DeviceTopics

_TIMEOUT_S = 10.0


def go(
    config: BrokerConfig,
    clock: Verdict,
    *,
    topics: DeviceTopics | None = None,
    filters: Sequence[str] = (),
) -> tuple[Finding, Seen | None]:
    """Go as far as it leads.

    Args:
        config: The broker; it has a URL.
        clock: What this device's clock is worth.
        topics: This device's, on its own broker.
        filters: Topic filters that are listened to, on another one.

    Returns:
        What was found, check "broker"; and what was seen there, None where it was not reached.
    """
    address = broker_address(config.url or "")
    where = f"{address.host} port {address.port}"
    wrong = _reach(address, where)
    if wrong is not None:
        return wrong, None
    try:
        context = _context(config, address)
        secure = _handshake(address, context) if context is not None else "without TLS"
    except (ssl.SSLError, ssl.CertificateError, OSError) as exc:
        return _tls(clock, exc), None
    try:
        seen = probe(config, address, topics, context, filters=filters)
    except ConfigError as exc:
        return fail(
            "broker", str(exc), "put the password's file there, readable for this user"
        ), None
    except OSError as exc:
        return fail("broker", f"{where} broke off: {exc}", "look at the broker's log"), None
    if seen.refused:
        who = config.username or "nobody (no username in agent.toml)"
        mend = "compare username and password_file in agent.toml with the broker's"
        return fail("broker", f"{where} lets {who} not in: {seen.refused}", mend), None
    over = "" if address.path is None else " over WebSocket"
    return ok("broker", f"{where}, {seen.protocol}{over}, {secure}"), seen


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


def _context(config: BrokerConfig, address: BrokerAddress) -> ssl.SSLContext | None:
    if not address.tls:
        return None
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


def _tls(clock: Verdict, exc: Exception) -> Finding:
    text = f"TLS: {getattr(exc, 'verify_message', '') or exc}"[:300]
    mend = "ca_file in agent.toml must hold who signed the broker's certificate"
    if "not yet valid" in text or "expired" in text:
        mend = "set this device's clock" if clock.complaint else "renew the certificate"
        mend += f" (it is {clock.now_s:.0f} s since 1970 here)"
    elif "mismatch" in text or "doesn't match" in text:
        mend = "the url in agent.toml must name the broker as its certificate does"
    elif isinstance(exc, FileNotFoundError):
        mend = "ca_file, cert_file or key_file in agent.toml is not there"
    return fail("broker", text, mend)
