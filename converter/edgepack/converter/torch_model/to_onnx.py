"""PyTorch's own ONNX exporters, one after the other until an export answers as the model does.

The newer exporter (torch.export) comes first; the older one (tracing) takes TorchScript and some
modules that the newer refuses. A free number of rows is tried before a fixed one.
"""

import io
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

import numpy as np
import onnx
import onnx.inliner
import onnx.version_converter
import onnxruntime
import torch
from onnx import ModelProto

from edgepack.converter.errors import UnsupportedModelError, one_line
from edgepack.converter.torch_model.flat import Flat
from edgepack.converter.torch_model.inputs import Input, example
from edgepack.runtime.tensors import Array

_OPSET: Final = 18  # the newer exporter's own: another would be converted to
_OLD_OPSET: Final = 17
_OPSETS: Final = range(17, 21)  # what onnxruntime 1.17 runs
_IR_VERSIONS: Final = {17: 8, 18: 8, 19: 9, 20: 9}  # later ones are refused by onnxruntime 1.17
_ROWS_TO_COMPARE: Final = (1, 3)
_MEANS_TO_COMPARE: Final = (0.0, 3.0, -3.0)  # a model may branch on what it sees
_ROWS_TO_TRACE: Final = 2  # torch.export takes 1 for a constant
_WORST_DIFFERENCE: Final = 1e-2  # of the largest value; parity is judged later, nonsense here
_ERROR_SEVERITY: Final = 3

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Exportable:
    """What is exported.

    Attributes:
        module: Takes tensors by position, gives a tuple of tensors (`Flat`); an exported program
            is one already.
        inputs: What it takes.
        outputs: Names of what it gives.
        call: The model's answers, to compare with.
        script: The same as TorchScript, which only the older exporter takes.
        rows: The fixed number of rows that it takes, None if any.
        recurrent: It has recurrent layers, with which the newer exporter takes minutes.
    """

    module: Any
    inputs: tuple[Input, ...]
    outputs: tuple[str, ...]
    call: Callable[[Sequence[Array]], list[Array]]
    script: Any = None
    rows: int | None = None
    recurrent: bool = False


def to_onnx(model: Exportable) -> ModelProto:
    """Export with all weights inside.

    Raises:
        UnsupportedModelError: No exporter takes the model.
    """
    reasons: list[str] = []
    for attempt in _attempts(model):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found = _tidy(attempt())
            reason = _difference(found, model)
        except Exception as exc:
            _logger.debug("torch.export_failed", exc_info=True)
            reason = _first_cause(exc)
        if not reason:
            return found
        reasons.append(reason)
    raise UnsupportedModelError(f"PyTorch cannot export the model to ONNX: {reasons[0]}")


def _attempts(model: Exportable) -> Iterator[Callable[[], ModelProto]]:
    if isinstance(model.module, torch.export.ExportedProgram):
        yield lambda: _newer(model, rows=model.rows or _ROWS_TO_TRACE, free=False)
        # programs whose free sizes the exporter loses (MLflow's) are exported anew
        model = replace(model, module=Flat(model.module.module()))
    attempts = [_newer, _older]
    if model.script is not None:
        attempts.remove(_newer)
    elif model.recurrent:
        attempts.reverse()
    if model.rows is None:
        yield from (partial(export, model, rows=_ROWS_TO_TRACE, free=True) for export in attempts)
    yield from (partial(export, model, rows=model.rows or 1, free=False) for export in attempts)


def _newer(model: Exportable, *, rows: int, free: bool) -> ModelProto:
    free_rows = tuple({0: torch.export.Dim.DYNAMIC} for _ in model.inputs)
    is_program = isinstance(model.module, torch.export.ExportedProgram)
    program = torch.onnx.export(
        model.module,
        () if is_program else example(model.inputs, rows),
        dynamo=True,
        opset_version=_OPSET,
        dynamic_shapes=(free_rows,) if free else None,
        input_names=[item.name for item in model.inputs],
        output_names=list(model.outputs),
        verbose=False,
    )
    found: ModelProto = program.model_proto
    return found


def _older(model: Exportable, *, rows: int, free: bool) -> ModelProto:
    names = [item.name for item in model.inputs]
    buffer = io.BytesIO()
    torch.onnx.export(
        model.module if model.script is None else model.script,
        example(model.inputs, rows),
        buffer,
        dynamo=False,
        opset_version=_OLD_OPSET,
        input_names=names,
        output_names=list(model.outputs),
        dynamic_axes={name: {0: "rows"} for name in (*names, *model.outputs)} if free else None,
        do_constant_folding=True,
    )
    return onnx.load_model_from_string(buffer.getvalue())


def _tidy(model: ModelProto) -> ModelProto:
    """Functions inlined, traces of source files removed, a file format that old engines read."""
    if model.functions:
        model = onnx.inliner.inline_local_functions(model)
    version = next(item.version for item in model.opset_import if item.domain in ("", "ai.onnx"))
    if version not in _OPSETS:
        model = onnx.version_converter.convert_version(model, _OPSET)
        version = _OPSET
    model.ir_version = _IR_VERSIONS[version]
    graph = model.graph
    del model.metadata_props[:], graph.metadata_props[:], graph.value_info[:]
    for item in (*graph.node, *graph.initializer, *graph.input, *graph.output):
        item.doc_string = ""
        del item.metadata_props[:]
    onnx.checker.check_model(model)
    return model


def _difference(found: ModelProto, model: Exportable) -> str:
    """Why an export does not stand for the model; empty if it does."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _ERROR_SEVERITY
    session = onnxruntime.InferenceSession(
        found.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    names = [item.name for item in session.get_inputs()]
    if names != [item.name for item in model.inputs]:
        return f"the export takes {', '.join(names) or 'nothing'}"
    batch = session.get_inputs()[0].shape[0]
    for rows in (batch,) if isinstance(batch, int) else _ROWS_TO_COMPARE:
        if isinstance(batch, int) and batch == _ROWS_TO_TRACE and model.rows != batch:
            return "the number of rows became a constant"
        for mean in _MEANS_TO_COMPARE:
            arrays = [tensor.numpy() for tensor in example(model.inputs, rows, mean=mean)]
            got = session.run(list(model.outputs), dict(zip(names, arrays, strict=True)))
            for name, answer, expected in zip(model.outputs, got, model.call(arrays), strict=True):
                if not _alike(answer, expected):
                    return f"the export's {name!r} differs from the model's for {rows} rows"
    return ""


def _alike(got: Array, expected: Array) -> bool:
    if got.shape != expected.shape:
        return False
    finite = np.isfinite(expected)
    if not np.array_equal(finite, np.isfinite(got)):
        return False
    expected, got = expected[finite].astype(np.float64), got[finite].astype(np.float64)
    largest = float(np.abs(expected).max(initial=1.0))
    return float(np.abs(got - expected).max(initial=0.0)) <= _WORST_DIFFERENCE * largest


def _first_cause(exc: BaseException) -> str:
    """The exporter wraps its errors in pages of advice: the first cause tells what is wrong."""
    while exc.__cause__ is not None:
        exc = exc.__cause__
    return one_line(exc)
