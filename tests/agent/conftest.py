"""Settings of this folder's tests."""

from hypothesis import HealthCheck, settings

# a busy machine is slow, and that is no defect
settings.register_profile(
    "agent", deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=80
)
settings.load_profile("agent")
