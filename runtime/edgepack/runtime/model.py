"""A loaded model: `predict`, and how long it took."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from time import perf_counter_ns
from types import TracebackType
from typing import TYPE_CHECKING, Self

from edgepack.bundle.contract import Contract, Variant
from edgepack.monitor.latency import LatencyHistogram
from edgepack.runtime.adapter import Adapter
from edgepack.runtime.engine import Session
from edgepack.runtime.errors import EngineError
from edgepack.runtime.inputs import check_inputs
from edgepack.runtime.quick import QuickPath
from edgepack.runtime.tensors import Array

if TYPE_CHECKING:
    from edgepack.runtime.preprocess import Preparation


class Model:
    """One variant of a bundle, ready to answer; `edgepack.runtime.load` makes it.

    Several threads may call `predict` at once.

    Attributes:
        contract: What goes in and comes out.
        variant: Which form of the model this is.
        digest: Digest of the bundle it came from ("sha256:…").
        latency: Of every `predict` that answered, checks and copies included.
    """

    def __init__(
        self, contract: Contract, variant: Variant, session: Session, *, digest: str
    ) -> None:
        """Wrap a session that was opened with `to_open(variant)`, in the contract's order."""
        self.contract = contract
        self.variant = variant
        self.digest = digest
        self.latency = LatencyHistogram()
        self._session = session
        self._preparation = _preparation(contract)
        if self._preparation is not None:
            contract = replace(contract, inputs=self._preparation.outputs)
        self._adapter = Adapter(contract, variant, session)
        self._quick = QuickPath(contract, variant, session)
        # Raw inputs are never what the quick path takes: it is asked once they are prepared.
        self._answer: Callable[[dict[str, object]], dict[str, Array] | None] = (
            self._quick.answer if self._preparation is None else _no_answer
        )
        self._record = self.latency.record
        self._names = tuple(spec.name for spec in contract.outputs)
        self._closed = False

    def predict(self, inputs: Mapping[str, object]) -> dict[str, Array]:
        """Answer for a batch of samples.

        Args:
            inputs: By the contract's names, as they are before the steps of `pre`. Arrays, or
                what numpy makes arrays of; cast where nothing is lost (see
                `edgepack.runtime.inputs`). The first dimension is the sample; none at all gives
                outputs without rows.

        Returns:
            New arrays by the contract's names, with its dtypes; text has dtype object.

        Raises:
            InputError: The inputs are not what the contract says; the model was not run.
            EngineError: The engine failed, or the model is closed.
        """
        started = perf_counter_ns()
        outputs = self._answer(inputs) if type(inputs) is dict else None
        if outputs is None:
            outputs = self._predict_plainly(inputs)
        self._record(perf_counter_ns() - started)
        return outputs

    def close(self) -> None:
        """Free the engine's memory; closing twice does nothing."""
        if not self._closed:
            self._closed = True
            self._quick.close()
            self._session.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _predict_plainly(self, inputs: Mapping[str, object]) -> dict[str, Array]:
        if self._closed:
            raise EngineError(f"model {self.contract.name!r} is closed")
        arrays = check_inputs(inputs, self.contract.inputs)
        if self._preparation is not None:
            arrays = self._preparation.apply(arrays)
            names = (spec.name for spec in self.contract.inputs)
            found = self._quick.answer(dict(zip(names, arrays, strict=True)))
            if found is not None:
                return found
        outputs, raw = self._adapter.run(arrays)
        self._quick.learn(arrays, outputs, raw)
        return dict(zip(self._names, outputs, strict=True))


def _preparation(contract: Contract) -> "Preparation | None":
    if not contract.pre:
        return None
    from edgepack.runtime.preprocess import Preparation, parse_steps  # most models have no steps

    return Preparation(contract.inputs, parse_steps(contract.pre))


def _no_answer(_inputs: dict[str, object]) -> None:
    return None
