"""TFLite by litert-torch: float32, one row at a time.

A free number of rows is refused by litert-torch for most layers; the runtime loops.
"""

import importlib.util
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path

import torch

from edgepack.converter.errors import UnsupportedModelError, one_line
from edgepack.converter.tensor_model import TfliteFile
from edgepack.converter.torch_model.inputs import Input, example

PACKAGES = ("litert_torch", "ai_edge_litert")
_SIGNATURE = "serving_default"
_NODE = " While executing "  # what follows is for those who write litert-torch
_MOST_STEPS = 512  # litert-torch writes every step out: a minute, and 800 kB


def is_available() -> bool:
    """Tell whether the packages are installed."""
    return all(importlib.util.find_spec(name) is not None for name in PACKAGES)


def to_tflite(
    module: torch.nn.Module, inputs: Sequence[Input], outputs: int, *, recurrent_steps: int = 0
) -> TfliteFile:
    """Convert a module that takes tensors by position and gives a tuple of them.

    Args:
        module: What to convert.
        inputs: What it takes.
        outputs: How many tensors it gives.
        recurrent_steps: Of its recurrent layers together.

    Raises:
        UnsupportedModelError: litert-torch cannot.
    """
    if recurrent_steps > _MOST_STEPS:
        raise UnsupportedModelError(
            f"litert-torch writes out every step of recurrent layers: at most {_MOST_STEPS} may "
            f"be, got {recurrent_steps}"
        )
    import litert_torch

    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = Path(folder, "model.tflite")
        try:
            litert_torch.convert(module, example(inputs, 1)).export(str(path))
            data = path.read_bytes()
        except Exception as exc:
            reason = one_line(exc).partition(_NODE)[0]
            raise UnsupportedModelError(f"litert-torch cannot convert it: {reason}") from exc
    return _with_names(data, len(inputs), outputs)


def _with_names(data: bytes, inputs: int, outputs: int) -> TfliteFile:
    """Find which tensor is which: the signature numbers them in the order of the call."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    interpreter = Interpreter(
        model_content=data,
        num_threads=1,
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )
    runner = interpreter.get_signature_runner(_SIGNATURE)
    taken, given = runner.get_input_details(), runner.get_output_details()
    if len(taken) != inputs or len(given) != outputs:
        raise UnsupportedModelError(
            f"litert-torch must keep {inputs} inputs and {outputs} outputs, "
            f"got {len(taken)} and {len(given)}"
        )
    return TfliteFile(
        data=data,
        inputs=tuple(str(taken[f"args_{i}"]["name"]) for i in range(inputs)),
        outputs=tuple(str(given[f"output_{i}"]["name"]) for i in range(outputs)),
    )
