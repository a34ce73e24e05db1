"""`GET /metrics`: what the agent counts, as Prometheus reads it."""

from collections.abc import Callable, Mapping
from typing import Final

from edgepack.agent.serve.http.catalog import Catalog
from edgepack.agent.serve.http.exposition import CONTENT_TYPE, Exposition
from edgepack.agent.serve.http.messages import Request, Response, Traffic
from edgepack.agent.serve.inference import Inference
from edgepack.agent.serve.served import ServedModel
from edgepack.wire.messages import Scalar

_BOUNDS_S: Final = (
    *(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05),
    *(0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
)
# What the agent counts under its own names: Prometheus' name, what it is.
_AGENT_GAUGES: Final = {
    "uptime_s": ("edgepack_agent_uptime_seconds", "Since the agent started."),
    "memory_bytes": ("process_resident_memory_bytes", "Resident memory of the agent."),
    "outbox_rows": ("edgepack_outbox_reports", "Reports that wait for the broker."),
    "outbox_bytes": ("edgepack_outbox_bytes", "What they take."),
    "connected": ("edgepack_broker_connected", "1 while the broker is connected."),
}
_AGENT_COUNTERS: Final = {
    "cpu_s": ("process_cpu_seconds_total", "Processor time of the agent."),
    "outbox_dropped": ("edgepack_outbox_dropped_total", "Reports that found no room."),
    "outbox_dropped_events": ("edgepack_outbox_dropped_events_total", "Events among them."),
    "reconnects": ("edgepack_broker_reconnects_total", "Connections after the first."),
}
_MODEL_COUNTERS: Final = {
    "requests": ("edgepack_model_requests_total", "Requests answered, over every way in."),
    "errors": ("edgepack_model_failures_total", "Requests that the model failed to answer."),
    "refused": ("edgepack_model_refused_total", "Requests that broke the contract."),
    "truths": ("edgepack_model_truths_total", "True answers that were joined."),
    "shadow_requests": ("edgepack_shadow_requests_total", "Requests that the challenger saw."),
    "shadow_dropped": ("edgepack_shadow_dropped_total", "Requests it had no time for."),
    "shadow_errors": ("edgepack_shadow_failures_total", "Requests it failed to answer."),
    "input_messages": ("edgepack_input_messages_total", "Messages of configured inputs."),
    "input_predictions": ("edgepack_input_predictions_total", "Predictions made of them."),
    "input_rejected": ("edgepack_input_rejected_total", "Messages that could not be used."),
    "input_dropped": ("edgepack_input_dropped_total", "Messages that came too fast."),
    "input_gaps": ("edgepack_input_gaps_total", "Windows begun anew for missing samples."),
    "actions": ("edgepack_actions_total", "Messages that actions published."),
    "actions_lost": ("edgepack_actions_lost_total", "Messages that no broker took in time."),
}
_MODEL_GAUGES: Final = {
    "coverage": ("edgepack_model_truth_coverage_ratio", "Truths by requests."),
    "accuracy": ("edgepack_model_accuracy_ratio", "Right answers by truths."),
    "accuracy_low": ("edgepack_model_accuracy_low_ratio", "Lower end of its 95 % interval."),
    "accuracy_high": ("edgepack_model_accuracy_high_ratio", "Upper end of it."),
    "mae": ("edgepack_model_mean_absolute_error", "Of truths, in the target's unit."),
    "rmse": ("edgepack_model_root_mean_square_error", "Of truths, in the target's unit."),
    "r2": ("edgepack_model_r2", "Coefficient of determination of truths."),
    "drift_features": ("edgepack_model_drifted_features", "Features that drifted."),
    "drift_score_max": ("edgepack_model_drift_score", "Of the feature that drifted most."),
    "drift_threshold": ("edgepack_model_drift_threshold", "Score from which it is drift."),
    "drift_alarm": ("edgepack_model_drift_alarm", "1 while drift is reported."),
    "shadow_memory_bytes": ("edgepack_shadow_memory_bytes", "Private memory of the challenger."),
}


class Metrics:
    """The endpoint.

    Args:
        inference: Counts what runs.
        catalog: Which models there are.
        traffic: What the HTTP server saw.
        agent_figures: What the agent says of itself, by the names of `out/agent`.
    """

    def __init__(
        self,
        inference: Inference,
        catalog: Catalog,
        traffic: Callable[[], Traffic],
        agent_figures: Callable[[], Mapping[str, Scalar | None]],
    ) -> None:
        self._inference = inference
        self._catalog = catalog
        self._traffic = traffic
        self._agent_figures = agent_figures

    async def metrics(self, _: Request) -> Response:
        """`GET /metrics`."""
        text = Exposition()
        _say(text, self._agent_figures(), _AGENT_GAUGES, _AGENT_COUNTERS, {})
        text.gauge(
            "edgepack_ready", "1 while every installed model answers.", self._catalog.is_ready
        )
        text.gauge("edgepack_requests_running", "That wait or run now.", self._inference.running)
        _say_traffic(text, self._traffic())
        mirrors = self._catalog.registry.mirrors
        for name, served in sorted(self._catalog.registry.all().items()):
            labels = {"model": name, "version": served.installed.release.version}
            text.gauge(
                "edgepack_model_info",
                "What answers.",
                1,
                {
                    **labels,
                    "variant": served.installed.variant,
                    "digest": served.installed.digest,
                },
            )
            figures = dict(served.standing())
            if name in mirrors:
                figures |= mirrors[name].metrics()
            figures |= self._catalog.registry.input_figures(name)
            _say(text, figures, _MODEL_GAUGES, _MODEL_COUNTERS, labels)
            _say_latency(text, served, labels)
        return Response(status=200, body=(text.render(),), content_type=CONTENT_TYPE)


def _say(
    text: Exposition,
    figures: Mapping[str, Scalar | None],
    gauges: Mapping[str, tuple[str, str]],
    counters: Mapping[str, tuple[str, str]],
    labels: Mapping[str, str],
) -> None:
    for key, (name, about) in gauges.items():
        value = figures.get(key)
        if isinstance(value, int | float):
            text.gauge(name, about, value, labels)
    for key, (name, about) in counters.items():
        value = figures.get(key)
        if isinstance(value, int | float):
            text.counter(name, about, value, labels)


def _say_traffic(text: Exposition, traffic: Traffic) -> None:
    text.gauge("edgepack_http_connections", "Open now.", traffic.open_connections)
    text.counter(
        "edgepack_http_connections_refused_total",
        "Connections beyond http.max_connections.",
        traffic.refused_connections,
    )
    for status, count in sorted(traffic.answers.items()):
        text.counter(
            "edgepack_http_responses_total", "Answers by status.", count, {"status": str(status)}
        )


def _say_latency(text: Exposition, served: ServedModel, labels: Mapping[str, str]) -> None:
    latency = served.latency()
    text.histogram(
        "edgepack_model_latency_seconds",
        "One inference, checks and copies included; counts are within 1 % of the bounds.",
        _BOUNDS_S,
        latency.counts_up_to([bound * 1e9 for bound in _BOUNDS_S]),
        count=latency.count,
        total=latency.sum_ns / 1e9,
        labels=labels,
    )
