"""Settings of this folder's tests, and an operator at a broker of their own."""

import pytest
from hypothesis import HealthCheck, settings
from support.agent_process import Operator
from support.brokers import Mosquitto, running

from edgepack.trust import keygen

# a busy machine is slow, and that is no defect
settings.register_profile(
    "agent", deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=80
)
settings.load_profile("agent")


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    return keygen(tmp_path_factory.mktemp("keys"))


@pytest.fixture
def alone(tmp_path):
    """A broker that nobody else uses."""
    with running(Mosquitto(tmp_path)) as broker:
        yield broker


@pytest.fixture
def operator(alone, keys):
    made = Operator(alone.port, keys)
    yield made
    made.close()
