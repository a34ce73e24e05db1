"""One model that answers: its session, its counters, its quality and drift.

`predict` runs on a worker thread; everything else on the event loop.
"""

import asyncio
import logging
import math
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from edgepack.agent.install.judge import Figures, Latency
from edgepack.agent.install.slot import Installed
from edgepack.agent.serve.marks import Mark
from edgepack.agent.serve.pace import Pace
from edgepack.agent.serve.requests import Answer, to_answer
from edgepack.bundle.contract import Contract, Task
from edgepack.monitor.latency import LatencyHistogram
from edgepack.monitor.quality import ClassificationQuality, RegressionQuality, TruthJoiner
from edgepack.runtime import EngineError, InputError, Model
from edgepack.runtime.tensors import Array
from edgepack.wire.infer import Truth
from edgepack.wire.messages import Scalar

if TYPE_CHECKING:
    from edgepack.monitor.drift import DriftDetector, DriftResult

logger = logging.getLogger(__name__)

_REMEMBERED_REQUESTS = 4096
_PERCENTILES = ((0.5, "latency_p50_ms"), (0.9, "latency_p90_ms"), (0.99, "latency_p99_ms"))


class ServedModel:
    """A loaded bundle that answers requests.

    Args:
        installed: What it is.
        model: The loaded model; owned from here on.
        trusted_truths: Whether truths may count for or against it.
        mark: Entered while the engine is at work, or None.
    """

    def __init__(
        self,
        installed: Installed,
        model: Model,
        *,
        trusted_truths: bool = False,
        mark: Mark | None = None,
    ) -> None:
        self._mark = mark
        self.installed = installed
        self._trusted_truths = trusted_truths
        self._past = LatencyHistogram()  # what `metrics` took out of the model's own
        self.contract: Contract = model.contract
        self._model = model
        self._pace = Pace()
        self._joiner: TruthJoiner[str | float] = TruthJoiner(_REMEMBERED_REQUESTS)
        self._classes = ClassificationQuality()
        self._values = RegressionQuality()
        self._detector: DriftDetector | None = None
        self.drift: DriftResult | None = None
        self.latest: Answer | None = None
        self.requests = 0
        self.failures = 0
        self.refused = 0
        self._changed = asyncio.Event()

    def predict(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run the model; called on a worker thread, or on the event loop where it is quick.

        Raises:
            InputError: The caller's fault; never counts against the model.
            EngineError: The model's fault.
        """
        if self._mark is None:
            return self._model.predict(inputs)
        with self._mark:
            return self._model.predict(inputs)

    def predict_one(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """As `predict`, for one small sample: the model's pace is learnt from those."""
        began_s = time.perf_counter()
        outputs = self.predict(inputs)
        self._pace.took(time.perf_counter() - began_s)
        return outputs

    @property
    def is_quick(self) -> bool:
        """Whether one small sample is answered in less time than a thread takes to begin."""
        return self._pace.is_quick

    def answered(
        self, request_id: str | None, inputs: Mapping[str, Array], outputs: Mapping[str, Array]
    ) -> Answer:
        """Count an answer and feed the monitors; gives the first sample's prediction."""
        self.requests += 1
        answer = to_answer(outputs, self.contract)
        self.latest = answer
        if request_id is not None:
            known = answer.label if answer.label is not None else answer.value
            # what is not finite has no error to measure
            if isinstance(known, str) or (known is not None and math.isfinite(known)):
                self._joiner.predicted(request_id, known)
        self._changed.set()
        return answer

    def watch_drift(self, detector: "DriftDetector") -> None:
        """From now on `observe` compares inputs with the detector's reference."""
        self._detector = detector

    @property
    def watches_drift(self) -> bool:
        """Whether `observe` compares anything."""
        return self._detector is not None

    def observe(self, inputs: Mapping[str, Array]) -> "DriftResult | None":
        """Look at inputs for drift; a result when they completed a window."""
        if self._detector is None:
            return None
        try:
            result = self._detector.observe(inputs)
        except ValueError as exc:
            # A contract may leave sizes free (images) that its reference has fixed.
            logger.warning("drift.stopped model=%s reason=%s", self.contract.name, exc)
            self._detector = None
            return None
        if result is not None:
            self.drift = result
        return result

    def failed(self, exc: EngineError | InputError) -> None:
        """Count a request that got no answer."""
        if isinstance(exc, InputError):
            self.refused += 1
            return
        self.failures += 1
        self._changed.set()

    def truth(self, truth: Truth) -> bool:
        """Join a truth with its prediction; False when the request is not known (any more)."""
        predicted = self._joiner.truth(truth.request_id)
        if predicted is None:
            return False
        if self.contract.task is Task.REGRESSION:
            if truth.value is None or not isinstance(predicted, float):
                return False
            self._values.add(truth.value, predicted)
            self._changed.set()
            return True
        if truth.label is None or not isinstance(predicted, str):
            return False
        self._classes.add(truth.label, predicted)
        self._changed.set()
        return True

    def figures(self) -> Figures:
        """What was counted since the switch; truths only where their source is trusted."""
        figures = Figures(requests=self.requests, failures=self.failures, latency=self._latency())
        if not self._trusted_truths:
            return figures
        if self.contract.task is not Task.REGRESSION:
            return replace(figures, truths=self._classes.count, right=self._classes.right)
        values = self._values
        if not values.count:
            return figures
        return replace(figures, truths=values.count, mae=values.mae, rmse=values.rmse)

    async def changed(self) -> None:
        """Return when something was counted since the last call."""
        await self._changed.wait()
        self._changed.clear()

    def _latency(self) -> Latency | None:
        latency = self.latency()
        count = latency.count
        if not count:
            return None
        low, high = latency.median_interval()
        return Latency(
            count=count,
            median_ms=latency.quantile(0.5) / 1e6,
            low_ms=low / 1e6,
            high_ms=high / 1e6,
        )

    def latency(self) -> LatencyHistogram:
        """Every inference since the switch."""
        latency = self._model.latency.snapshot()
        latency.merge(self._past)
        return latency

    def metrics(self) -> dict[str, Scalar | None]:
        """Flat figures since the last call (latency) and since the switch (everything else)."""
        latency: LatencyHistogram = self._model.latency.take()
        self._past.merge(latency)
        fields: dict[str, Scalar | None] = {
            "model_version": self.installed.release.version,
            "variant": self.installed.variant,
            "latency_count": latency.count,
        }
        if latency.count:
            fields |= {name: latency.quantile(q) / 1e6 for q, name in _PERCENTILES}
        return fields | self.standing()

    def standing(self) -> dict[str, Scalar | None]:
        """Counts, quality and drift since the switch."""
        fields: dict[str, Scalar | None] = {
            "requests": self.requests,
            "errors": self.failures,
            "refused": self.refused,
        }
        if self._classes.count:
            low, high = self._classes.interval()
            fields |= {
                "truths": self._classes.count,
                "coverage": self._classes.count / max(1, self.requests),
                "accuracy": self._classes.accuracy,
                "accuracy_low": low,
                "accuracy_high": high,
            }
        if self._values.count:
            fields |= {
                "truths": self._values.count,
                "coverage": self._values.count / max(1, self.requests),
                "mae": self._values.mae,
                "rmse": self._values.rmse,
                "r2": self._values.r2,
            }
        if self.drift is not None:
            fields |= {
                "drift_features": len(self.drift.drifted),
                "drift_score_max": max(self.drift.scores.values(), default=0.0),
                "drift_threshold": self.drift.threshold,
                "drift_alarm": self.drift.alarm,
            }
        return fields

    def close(self) -> None:
        """Free the session."""
        self._model.close()
