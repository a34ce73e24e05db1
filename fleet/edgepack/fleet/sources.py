"""Where devices fetch a bundle: the broker, a server, a registry, a file. Pure."""

from urllib.parse import urlsplit

from edgepack.bundle import Bundle, bundle_filename
from edgepack.fleet.errors import TargetError
from edgepack.wire.errors import WireError

MQTT_SOURCE = "mqtt:"
_MAX_SOURCES = 8


def sources_of(bundle: Bundle, via: tuple[str, ...]) -> tuple[str, ...]:
    """The sources of a desired state, in the order that devices try them.

    Args:
        bundle: What is deployed.
        via: What a person named: `mqtt:`, `http(s)://…`, `oci://…`, `file:/…`; an http or file
            URL that ends in "/" gets the bundle's file name. Nothing: the broker.

    Raises:
        TargetError: One of them is none that a device can fetch from, or carries a password.
    """
    if len(via) > _MAX_SOURCES:
        raise TargetError(f"via must be named at most {_MAX_SOURCES} times, got {len(via)}")
    return tuple(dict.fromkeys(_source(bundle, one) for one in via)) or (MQTT_SOURCE,)


def _source(bundle: Bundle, via: str) -> str:
    if via == MQTT_SOURCE:
        return via
    try:
        parts = urlsplit(via)
        secret = parts.password is not None
    except ValueError:
        raise TargetError(f"via is no URL: {via.partition(':')[0][:20]}:…") from None
    if secret:
        raise TargetError("via must not hold a password: every device and the broker can read it")
    if parts.scheme == "oci":
        from edgepack.wire.oci.reference import parse_reference

        try:
            named = parse_reference(via)
        except WireError as exc:
            raise TargetError(f"via {exc}") from exc
        if named.digest not in (None, bundle.digest):
            raise TargetError(f"via must be for {bundle.digest}, got {named.digest}")
        return via
    known = parts.scheme in ("http", "https", "file")
    if not known or (parts.scheme != "file" and not parts.netloc):
        raise TargetError(f"via must be mqtt:, http(s)://…, oci://… or file:/…, got {via[:80]!r}")
    return via + bundle_filename(bundle.contract) if via.endswith("/") else via
