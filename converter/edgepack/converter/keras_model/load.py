"""From a file of Keras's to a model with its exports."""

import tempfile
from collections import Counter
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import keras
import torch
from keras.src.utils import backend_utils

from edgepack.converter.errors import (
    ModelFileError,
    UnsafeModelError,
    UnsupportedModelError,
    one_line,
)
from edgepack.converter.keras_model.config import check_classes, check_code, layers
from edgepack.converter.keras_model.files import read_config, with_config
from edgepack.converter.keras_model.mend import mend
from edgepack.converter.keras_model.recurrent import one_operator, recurrent_steps
from edgepack.converter.onnx_fuse import fused
from edgepack.converter.sources.source import LoadOptions
from edgepack.converter.tensor_model import TensorModel
from edgepack.converter.tensor_shapes import OpenShape, close_shapes
from edgepack.converter.torch_model import to_tflite
from edgepack.converter.torch_model.flat import Flat
from edgepack.converter.torch_model.inputs import Input
from edgepack.converter.torch_model.to_onnx import Exportable, to_onnx
from edgepack.runtime.tensors import Array

_FRAMEWORK: Final = "Keras"
_MOST_WEIGHTS_TOLD: Final = 3

# Preprocessing layers ask whether they run in a graph of TensorFlow, and take its name among the
# modules (which the source put there to keep it away) for the thing itself.
backend_utils.in_tf_graph = lambda: False


class Positional(torch.nn.Module):  # type: ignore[misc]  # torch is not followed
    """A Keras model for torch's exporters: tensors by position, as it answers after training."""

    def __init__(self, model: Any) -> None:  # noqa: ANN401  (keras is not followed)
        super().__init__()
        self.model = model

    def forward(self, *inputs: torch.Tensor) -> Any:  # noqa: ANN401
        """The model's answer, in whatever structure it has."""
        return self.model(inputs[0] if len(inputs) == 1 else list(inputs), training=False)


def load_model(path: Path, options: LoadOptions) -> TensorModel:
    """Load a model and export it to ONNX.

    Raises:
        ModelFileError: The file is damaged, or holds no model.
        UnsafeModelError: It would run code.
        RequestError: The shapes that were given do not do.
        UnfitDataError: The data does not tell the inputs' shapes.
        UnsupportedModelError: It has custom classes, or no ONNX form.
    """
    model, messages = _load(path, trust_code=options.trust_pickle)
    inputs, rows = _inputs(model, options)
    flat = Flat(Positional(model)).eval()
    call = _caller(flat, inputs)
    outputs = _output_names(model)
    steps = recurrent_steps(model, inputs)
    exportable = Exportable(
        module=flat, inputs=inputs, outputs=outputs, call=call, rows=rows, recurrent=steps > 0
    )
    packages = {name: version(name) for name in ("keras", "torch")}
    convert = None
    if to_tflite.is_available() and rows in (None, 1):
        packages["litert-torch"] = version("litert-torch")

        def convert() -> Any:  # noqa: ANN401
            with one_operator():
                return to_tflite.to_tflite(flat, inputs, len(outputs), recurrent_steps=steps)

    with one_operator():
        onnx = fused(to_onnx(exportable))
    return TensorModel(
        framework=_FRAMEWORK,
        description=_described(model),
        packages=packages,
        onnx=onnx,
        call=call,
        to_tflite=convert,
        messages=messages,
    )


def _load(path: Path, *, trust_code: bool) -> tuple[Any, tuple[str, ...]]:
    config = read_config(path)
    if not trust_code:
        check_code(config, path.name)
    check_classes(config, path.name)
    _check_stateless(config)
    mended, messages = mend(config)
    with tempfile.TemporaryDirectory() as folder:
        source = path if mended == config and _has_ending(path) else None
        try:
            source = source or with_config(path, mended, Path(folder))
            model = keras.saving.load_model(source, compile=False, safe_mode=not trust_code)
        except (UnsafeModelError, ModelFileError):
            raise
        except Exception as exc:
            raise _refusal(path, exc) from exc
    model.trainable = False
    return model, messages


def _has_ending(path: Path) -> bool:
    """Keras goes by a file's name; edgepack goes by its content."""
    return path.suffix in (".keras", ".h5", ".hdf5")


def _refusal(path: Path, exc: Exception) -> Exception:
    text = str(exc)
    if "unsafe" in text or "safe_mode" in text:
        return UnsafeModelError(
            f"{path.name} holds Python code, which was not run (if you made the file yourself: "
            "--trust-pickle)"
        )
    if "Could not locate" in text or "Unknown layer" in text or "custom" in text.lower():
        return UnsupportedModelError(
            f"{path.name} needs classes or functions that are not in the file and that Keras "
            f"{keras.__version__} does not have: {one_line(exc)}"
        )
    if isinstance(exc, OSError | EOFError | KeyError):
        return ModelFileError(f"{path.name} is damaged: {one_line(exc)}")
    return ModelFileError(
        f"{path.name} cannot be loaded by Keras {keras.__version__} (it may be "
        f"of another version): {one_line(exc)}"
    )


def _check_stateless(config: dict[str, Any]) -> None:
    for item in layers(config):
        if item["config"].get("stateful") is True:
            raise UnsupportedModelError(
                f"layer {item['config'].get('name')!r} is stateful: its answer depends on the rows "
                "before, and a bundle keeps no state between requests"
            )


def _inputs(model: Any, options: LoadOptions) -> tuple[tuple[Input, ...], int | None]:  # noqa: ANN401
    tensors = getattr(model, "inputs", None)
    if not tensors:
        raise UnsupportedModelError(
            "the model has no fixed inputs: call it once on data and save it again, or make it "
            "with keras.Input"
        )
    opened = [
        OpenShape(name=name, shape=tuple(tensor.shape))
        for name, tensor in zip(_unique([t.name for t in tensors]), tensors, strict=True)
    ]
    batches = {item.shape[0] for item in opened}
    if len(batches) > 1:
        raise UnsupportedModelError("the model's inputs must have the same number of rows")
    shapes = close_shapes(opened, options)
    inputs = tuple(
        Input(name=item.name, shape=shape, dtype=_dtype(item.name, tensor.dtype))
        for item, shape, tensor in zip(opened, shapes, tensors, strict=True)
    )
    return inputs, batches.pop()


def _dtype(name: str, dtype: str) -> torch.dtype:
    found = getattr(torch, str(dtype), None)
    if not isinstance(found, torch.dtype):
        raise UnsupportedModelError(f"input {name!r} must be numbers, got {dtype}")
    return found


def _output_names(model: Any) -> tuple[str, ...]:  # noqa: ANN401
    names = [tensor._keras_history.operation.name for tensor in model.outputs]
    return tuple(_unique(names))


def _unique(names: Sequence[str]) -> list[str]:
    seen: Counter[str] = Counter()
    found = []
    for name in names:
        found.append(name if not seen[name] else f"{name}_{seen[name]}")
        seen[name] += 1
    return found


def _caller(flat: Flat, inputs: Sequence[Input]) -> Any:  # noqa: ANN401
    def call(arrays: Sequence[Array]) -> list[Array]:
        given = [
            torch.tensor(array, dtype=item.dtype)
            for array, item in zip(arrays, inputs, strict=True)
        ]
        with torch.no_grad():
            return [tensor.numpy() for tensor in flat(*given)]

    return call


def _described(model: Any) -> str:  # noqa: ANN401
    kinds = Counter(
        type(layer).__name__
        for layer in model._flatten_layers(include_self=False)
        if layer.weights and not getattr(layer, "layers", None)
    )
    most = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common(_MOST_WEIGHTS_TOLD))
    named = f" ({most})" if most else ""
    return f"{type(model).__name__} with {model.count_params():,} weights{named}"
