"""The embedded broker: MQTT 3.1.1 inside Python, for a first try and for tests."""

from edgepack.fleet.broker.embedded import (
    BrokerOptions,
    EmbeddedBroker,
    is_loopback,
    make_password,
    serve,
)

__all__ = ["BrokerOptions", "EmbeddedBroker", "is_loopback", "make_password", "serve"]
