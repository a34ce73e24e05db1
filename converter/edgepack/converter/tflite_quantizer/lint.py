"""What LiteRT makes of a TFLite file: what stayed in float, and whether every device takes it."""

import re
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from typing import Final

from edgepack.bundle.contract import Datatype
from edgepack.converter.tflite_graph import WEIGHTED, operator_name, read
from edgepack.runtime.tflite_file import Graph

_LIMIT_S: Final = 120.0
_LONGEST_TEXT: Final = 300
_MISSING: Final = re.compile(r"(?:builtin opcode '|unresolved custom op: )([A-Za-z0-9_]+)")
_FLOATS: Final = (Datatype.FP32, Datatype.FP16)
_INTEGERS: Final = (Datatype.INT8, Datatype.UINT8, Datatype.INT16)
DEFAULT, REFERENCE = "default", "reference"


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """What was found.

    Attributes:
        float_operators: Operators with weights that compute in float → how many.
        left_over_qdq: Dequantize operators whose result is quantized again.
        missing_operators: Which LiteRT here does not have.
        messages: What is worth knowing.
    """

    float_operators: dict[str, int]
    left_over_qdq: int
    missing_operators: tuple[str, ...]
    messages: tuple[str, ...]


def lint(data: bytes) -> Findings:
    """Look at a file, and load it twice: as devices do, and without any delegate.

    Raises:
        ModelFileError: It is damaged.
    """
    graph = read(data).graphs[0]
    floats, integers = _computing(graph)
    left_over = _left_over(graph)
    messages = []
    if integers and floats:
        shown = ", ".join(f"{count} {name}" for name, count in sorted(floats.items()))
        messages.append(f"{shown} keep float weights beside {integers} operators with 8-bit ones")
    if left_over:
        messages.append(f"{left_over} tensors are dequantized and quantized again")
    missing: tuple[str, ...] = ()
    default = _load(data, DEFAULT)
    if default is not None:
        missing = (_missing_name(default),)
    else:
        reference = _load(data, REFERENCE)
        if reference is not None:
            messages.append(
                "only LiteRT's delegate (XNNPACK) takes this file; its own operators do not: "
                + reference
            )
    return Findings(
        float_operators=dict(sorted(floats.items())),
        left_over_qdq=left_over,
        missing_operators=missing,
        messages=tuple(messages),
    )


def _computing(graph: Graph) -> tuple[Counter[str], int]:
    floats: Counter[str] = Counter()
    integers = 0
    for operator in graph.operators:
        name = operator_name(operator)
        if name not in WEIGHTED or not operator.outputs:
            continue
        inputs = [graph.tensors[place] for place in operator.inputs if place >= 0]
        weights = [tensor for tensor in inputs if tensor.constant_bytes]
        if any(tensor.datatype in _INTEGERS for tensor in weights):
            integers += 1
        elif graph.tensors[operator.outputs[0]].datatype in _FLOATS:
            floats[name] += 1
    return floats, integers


def _left_over(graph: Graph) -> int:
    dequantized = {
        place
        for operator in graph.operators
        if operator_name(operator) == "DEQUANTIZE"
        and not any(graph.tensors[item].constant_bytes for item in operator.inputs)
        for place in operator.outputs
    }
    return sum(
        1
        for operator in graph.operators
        if operator_name(operator) == "QUANTIZE" and set(operator.inputs) & dequantized
    )


def _load(data: bytes, resolver: str) -> str | None:
    """Load and run once in a process of its own: kernels may end it. None if all is well."""
    try:
        done = subprocess.run(
            [
                sys.executable,
                "-P",
                "-m",
                "edgepack.converter.tflite_quantizer.load_child",
                resolver,
            ],
            input=data,
            capture_output=True,
            timeout=_LIMIT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"it gave no answer within {_LIMIT_S:g} s"
    if done.returncode == 0:
        return None
    if done.returncode < 0:
        return f"it was ended by signal {-done.returncode}"
    text = " ".join(done.stdout.decode(errors="replace").split())
    return text[:_LONGEST_TEXT] or f"it ended with code {done.returncode}"


def _missing_name(text: str) -> str:
    found = _MISSING.search(text)
    return found.group(1) if found else f"what it needs ({text})"
