"""What a fitted estimator and its ONNX form answer to the same rows, without a bundle."""

from typing import Any

import numpy as np
import onnxruntime
import pandas as pd

from edgepack.bundle.contract import Datatype, TensorSpec
from edgepack.converter.category_values import category_values
from edgepack.converter.sklearn_model.estimator import SklearnModel
from edgepack.converter.sources.source import ExportWish

_NUMBERS = {"fp32": (Datatype.FP32, np.float32), "fp64": (Datatype.FP64, np.float64)}


def both_answers(
    model: Any, frame: pd.DataFrame, precision: str = "fp64"
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The original's answers and the graph's, by output.

    Text columns are given as text, all others as numbers; one kind alone comes as one matrix.
    """
    loaded = SklearnModel(model)
    datatype, dtype = _NUMBERS[precision]
    arrays = {}
    for name in frame.columns:
        values = frame[name].tolist()
        is_text = any(isinstance(item, str) for item in values)
        column = ["" if item is None else item for item in values] if is_text else values
        arrays[name] = np.array(column, np.object_ if is_text else dtype).reshape(-1, 1)
    if len({array.dtype for array in arrays.values()}) == 1:
        arrays = {"x": np.concatenate(list(arrays.values()), axis=1)}
    task = loaded.facts.task
    assert task is not None
    wide = {n: a if a.dtype == np.object_ else a.astype(np.float64) for n, a in arrays.items()}
    expected = loaded.run(task, wide)
    specs = tuple(
        TensorSpec(
            name=name,
            datatype=Datatype.BYTES if array.dtype == np.object_ else datatype,
            shape=(-1, array.shape[1]),
        )
        for name, array in arrays.items()
    )
    wish = ExportWish(
        task=task,
        inputs=specs,
        outputs=tuple(expected),
        precision=precision,
        categories=category_values(loaded.facts, arrays),
    )
    exported = loaded.export(wish)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(exported.data, options)
    feeds = {
        item.tensor: array
        for item, array in zip(exported.facts.inputs, arrays.values(), strict=True)
    }
    names = [item.tensor for item in exported.facts.outputs]
    found = zip(exported.facts.outputs, session.run(names, feeds), strict=True)
    return expected, {item.name: a.reshape(expected[item.name].shape) for item, a in found}
