"""Golden samples: real inputs, the ORIGINAL model's outputs for them, and the truth if known.

They stand in the bundle as one safetensors file. Tensors are named `input.<name>` and
`output.<name>` after the contract, and `truth`. Strings are a flat U8 tensor in length-prefixed
form (see `tensors.encode_strings`); their shape stands in the file's metadata under the tensor's
name, as "64,1".
"""

import math
import re
from typing import Final

import numpy as np

from edgepack.bundle.contract import Contract, Datatype, TensorSpec
from edgepack.runtime import safetensors
from edgepack.runtime.errors import TensorFileError
from edgepack.runtime.tensors import (
    DTYPES,
    Array,
    datatype_of,
    decode_strings,
    encode_strings,
    fits,
    strings,
)
from edgepack.trust.values import dataclass

_WHAT = "golden samples"
_TRUTH = "truth"
_INPUT = "input."
_OUTPUT = "output."
_SHAPE = re.compile(r"[0-9]{1,12}(,[0-9]{1,12}){0,7}")
_TRUTH_DATATYPES: Final = frozenset(
    {Datatype.BOOL, Datatype.INT64, Datatype.FP32, Datatype.FP64, Datatype.BYTES}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Golden:
    """Samples that a variant must reproduce.

    Attributes:
        inputs: By contract name, in the contract's order; the first dimension is the sample.
        outputs: What the original model answered, by contract name.
        truth: What was really so, (N,) or (N, T): bool, int64, float or str; None if unknown.
    """

    inputs: dict[str, Array]
    outputs: dict[str, Array]
    truth: Array | None = None

    @property
    def rows(self) -> int:
        """Number of samples."""
        return next(iter(self.inputs.values())).shape[0]


def render_golden(golden: Golden) -> bytes:
    """Write golden samples; the same samples always give the same bytes.

    Raises:
        ValueError: An array's dtype has no form in the file.
    """
    tensors = {_INPUT + name: array for name, array in golden.inputs.items()}
    tensors |= {_OUTPUT + name: array for name, array in golden.outputs.items()}
    if golden.truth is not None:
        tensors[_TRUTH] = golden.truth
    shapes = {}
    for name, array in tensors.items():
        if array.dtype.kind in "OU":
            tensors[name] = np.frombuffer(encode_strings(array), np.uint8)
            shapes[name] = ",".join(str(size) for size in array.shape)
    return safetensors.render(tensors, shapes)


def parse_golden(data: bytes, contract: Contract) -> Golden:
    """Read golden samples and check them against the contract.

    Raises:
        TensorFileError: The file is malformed, lacks a tensor, or has one that the contract
            does not describe.
    """
    tensors, shapes = safetensors.parse(data, what=_WHAT)
    for name, shape in shapes.items():
        if name in tensors:
            tensors[name] = _strings(name, tensors[name], shape)
    inputs = _take(tensors, _INPUT, contract.inputs)
    outputs = _take(tensors, _OUTPUT, contract.outputs)
    truth = tensors.pop(_TRUTH, None)
    if tensors:
        raise TensorFileError(f"{_WHAT}: unknown tensor {min(tensors)[:80]!r}")
    golden = Golden(inputs=inputs, outputs=outputs, truth=truth)
    if truth is not None and datatype_of(truth) not in _TRUTH_DATATYPES:
        raise TensorFileError(
            f"{_WHAT}: truth must be bool, int64, float or text, got {truth.dtype}"
        )
    named = [(_INPUT + name, array) for name, array in inputs.items()]
    named += [(_OUTPUT + name, array) for name, array in outputs.items()]
    named += [(_TRUTH, truth)] if truth is not None else []
    for name, array in named:
        if array.shape[:1] != (golden.rows,):
            raise TensorFileError(
                f"{_WHAT}: {name!r} must have {golden.rows} rows, got shape {array.shape}"
            )
    if golden.rows == 0:
        raise TensorFileError(f"{_WHAT} must have at least one row, got 0")
    return golden


def _take(
    tensors: dict[str, Array], prefix: str, specs: tuple[TensorSpec, ...]
) -> dict[str, Array]:
    found: dict[str, Array] = {}
    for spec in specs:
        array = tensors.pop(prefix + spec.name, None)
        if array is None:
            raise TensorFileError(f"{_WHAT}: tensor {prefix + spec.name!r} is missing")
        if array.dtype != DTYPES[spec.datatype] or not fits(array.shape, spec.shape):
            raise TensorFileError(
                f"{_WHAT}: tensor {prefix + spec.name!r} must be {spec.datatype} "
                f"{list(spec.shape)}, got {array.dtype} {list(array.shape)}"
            )
        found[spec.name] = array
    return found


def _strings(name: str, flat: Array, shape_text: str) -> Array:
    where = f"{_WHAT}: tensor {name[:80]!r}"
    if not _SHAPE.fullmatch(shape_text):
        raise TensorFileError(f"{where}: shape must be numbers and commas, got {shape_text[:40]!r}")
    shape = tuple(int(size) for size in shape_text.split(","))
    if flat.dtype != np.uint8 or flat.ndim != 1:
        raise TensorFileError(f"{where}: text must be a flat U8 tensor, got {flat.dtype}")
    found = decode_strings(flat.tobytes(), what=where)
    if math.prod(shape) != len(found):
        raise TensorFileError(f"{where}: expected {math.prod(shape)} strings, got {len(found)}")
    return strings(found, shape)
