"""A broker that lets a device in and takes nothing from it."""

import asyncio
import logging

import aiomqtt
import pytest
from support.brokers import Mosquitto, mosquitto_binary

from edgepack.agent.broker_client import make_client
from edgepack.agent.config import BrokerConfig


@pytest.mark.broker
def test_what_the_broker_does_not_take_is_said_once(tmp_path, caplog):
    """Once a connection, and only where something was refused."""
    mosquitto_binary()
    rules = tmp_path / "rules"
    rules.write_text("topic write fine\n")
    rules.chmod(0o600)
    mosquitto = Mosquitto(tmp_path, extra=f"allow_anonymous true\nacl_file {rules}")
    mosquitto.start()

    async def publish(*topics):
        client = make_client(
            BrokerConfig(url=mosquitto.url),
            "d1",
            aiomqtt.ProtocolVersion.V5,
            status_topic=None,
            session_s=0,
            forget=False,
        )
        async with client:
            for topic in topics:
                await client.publish(topic, b"x", qos=1)

    def said():
        return [one.getMessage() for one in caplog.records if "broker.refused" in one.getMessage()]

    try:
        with caplog.at_level(logging.WARNING):
            asyncio.run(publish("fine"))
            assert [] == said()
            asyncio.run(publish("other", "fine", "other"))
    finally:
        mosquitto.stop()
    assert ["broker.refused error=Not authorized"] == said()
