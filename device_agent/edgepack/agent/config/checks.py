"""What agent.toml must hold beyond its types."""

import math
import os
import re
from typing import TYPE_CHECKING

from edgepack.agent.config.actions import action_problems
from edgepack.agent.config.broker import broker_address
from edgepack.agent.config.http import http_problems
from edgepack.agent.config.input_checks import input_problems
from edgepack.agent.errors import ConfigError
from edgepack.wire.errors import WireError
from edgepack.wire.topics import check_id, check_prefix

if TYPE_CHECKING:
    from edgepack.agent.config import AgentConfig

MAX_ATTEMPTS = 10  # how many failures of a version are remembered
_MAX_KEEPALIVE_S = 65_535  # MQTT's field has two bytes
_MAX_SESSION_S = 86_400  # a request that is older is worth nothing to anybody
_PROXY = re.compile(r"(http://)?([^\s/@]+@)?[^\s/@]+/?")
_MAX_STATE_PATH_BYTES = 96  # of the 107 that a unix socket's path may have


def problems(config: "AgentConfig") -> list[str]:
    """What is wrong with a configuration, a line each; empty if nothing is."""
    wrong = []
    try:
        check_id(config.device, what="device id")
        check_prefix(config.prefix)
        if config.broker.url is not None:
            broker_address(config.broker.url)
    except (WireError, ConfigError) as exc:
        wrong.append(str(exc))
    wrong += _wrong_numbers(config)
    wrong += http_problems(config.http)
    has_broker = config.broker.url is not None
    wrong += input_problems(config.input, has_broker=has_broker)
    base = f"{config.prefix}/{config.device}"
    wrong += action_problems(config.action, base, has_broker=has_broker)
    if config.fetch.proxy and not _PROXY.fullmatch(config.fetch.proxy):
        wrong.append("fetch.proxy must be http://[USER:PASSWORD@]HOST[:PORT], or empty for none")
    if len(os.fsencode(config.state)) > _MAX_STATE_PATH_BYTES:
        wrong.append(
            f"state must be a path of at most {_MAX_STATE_PATH_BYTES} bytes, "
            f"got {len(os.fsencode(config.state))} (a socket in it may not have a longer name)"
        )
    return wrong


def _wrong_numbers(config: "AgentConfig") -> list[str]:
    wrong = []
    for name, number in (
        ("broker.keepalive_s", config.broker.keepalive_s),
        ("metrics.interval_s", config.metrics.interval_s),
        ("metrics.slow_s", config.metrics.slow_s),
        ("probation.requests", config.probation.requests),
        ("probation.seconds", config.probation.seconds),
        ("probation.max_latency_factor", config.probation.max_latency_factor),
        ("probation.max_latency_ms", config.probation.max_latency_ms),
        ("probation.min_samples", config.probation.min_samples),
        ("probation.max_mae_factor", config.probation.max_mae_factor),
        ("probation.max_mae", config.probation.max_mae),
        ("probation.min_truths", config.probation.min_truths),
        ("probation.max_attempts", config.probation.max_attempts),
        ("probation.attempts_window_s", config.probation.attempts_window_s),
        ("shadow.memory_mb", config.shadow.memory_mb),
        ("shadow.queue", config.shadow.queue),
        ("shadow.queue_mb", config.shadow.queue_mb),
        ("drift.window", config.drift.window),
        ("drift.consecutive", config.drift.consecutive),
        ("limits.max_bundle_mb", config.limits.max_bundle_mb),
        ("limits.outbox_rows", config.limits.outbox_rows),
        ("limits.pending_requests", config.limits.pending_requests),
        ("limits.self_test_s", config.limits.self_test_s),
        ("limits.self_test_variant_s", config.limits.self_test_variant_s),
        ("limits.self_test_compare_s", config.limits.self_test_compare_s),
        ("limits.max_latency_ms", config.limits.max_latency_ms),
        ("limits.max_memory_mb", config.limits.max_memory_mb),
        ("fetch.stall_s", config.fetch.stall_s),
        *config.outbox.numbers(),
        ("log.max_mb", config.log.max_mb),
        ("log.flush_s", config.log.flush_s),
    ):
        if number is not None and not 0 < number < math.inf:
            wrong.append(f"{name} must be > 0 and finite, got {number}")
    for name, number, most in (
        ("probation.max_attempts", config.probation.max_attempts, MAX_ATTEMPTS),
        ("broker.keepalive_s", config.broker.keepalive_s, _MAX_KEEPALIVE_S),
        ("broker.session_s", config.broker.session_s, _MAX_SESSION_S),
    ):
        if number > most:
            wrong.append(f"{name} must be at most {most}, got {number}")
    for name, number in (
        ("broker.session_s", config.broker.session_s),
        ("predictions.interval_s", config.predictions.interval_s),
        ("predictions.min_change", config.predictions.min_change),
        *(
            (f"predictions.models.{model}.{name}", number)
            for model, own in config.predictions.models.items()
            for name, number in (("interval_s", own.interval_s), ("min_change", own.min_change))
            if number is not None
        ),
        ("probation.truths", config.probation.truths),
        ("probation.latency_slack_ms", config.probation.latency_slack_ms),
        ("limits.download_kbps", config.limits.download_kbps),
        ("fetch.jitter_s", config.fetch.jitter_s),
    ):
        if not 0 <= number < math.inf:
            wrong.append(f"{name} must be >= 0 and finite, got {number}")
    for name, share in (
        ("probation.max_error_rate", config.probation.max_error_rate),
        ("probation.max_accuracy_drop", config.probation.max_accuracy_drop),
        ("probation.min_accuracy", config.probation.min_accuracy),
        ("drift.alpha", config.drift.alpha),
    ):
        if share is not None and not 0 <= share <= 1:
            wrong.append(f"{name} must be in 0..1, got {share}")
    return wrong
