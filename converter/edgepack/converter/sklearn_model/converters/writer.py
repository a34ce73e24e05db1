"""Writes ONNX nodes as one writes numpy: `(x - mean) @ axes`.

A `Value` stands for a tensor of the graph; its operators and methods append nodes. Only what the
families of this package need is here, and only operators that onnxruntime has for float64 too.
"""

from collections.abc import Sequence
from typing import Any, Protocol, Union

import numpy as np
from onnx import NodeProto, TensorProto, helper, numpy_helper

from edgepack.runtime.tensors import Array

ML = "ai.onnx.ml"
FLOAT32 = np.dtype(np.float32)
FLOAT64 = np.dtype(np.float64)
INT64 = np.dtype(np.int64)
BOOL = np.dtype(np.bool_)
TEXT = np.dtype(np.object_)
_ELEMENTS = {
    FLOAT32: TensorProto.FLOAT,
    FLOAT64: TensorProto.DOUBLE,
    INT64: TensorProto.INT64,
    BOOL: TensorProto.BOOL,
    TEXT: TensorProto.STRING,
}
Operand = Union["Value", float, int, Array]


class Sink(Protocol):
    """What takes the nodes."""

    def name(self, hint: str) -> str:
        """A name that nothing else in the graph has."""

    def node(self, node: NodeProto) -> None:
        """Take a node."""

    def constant(self, tensor: TensorProto) -> None:
        """Take a constant."""


class Writer:
    """Appends to a graph.

    Attributes:
        dtype: float32 or float64: what floats are computed in.
    """

    def __init__(self, sink: Sink, dtype: Any) -> None:  # noqa: ANN401  (anything numpy takes)
        self.sink = sink
        self.dtype = np.dtype(dtype)

    def const(self, array: Any, dtype: Any = None) -> "Value":  # noqa: ANN401
        """A constant; floats get the writer's dtype unless another is given."""
        values = np.asarray(array)
        if dtype is not None:
            values = values.astype(dtype)
        elif values.dtype.kind == "f":
            with np.errstate(over="ignore"):
                values = values.astype(self.dtype)
        elif values.dtype.kind in "iu":
            values = values.astype(np.int64)
        name = self.sink.name("const")
        self.sink.constant(
            numpy_helper.from_array(np.ascontiguousarray(values).reshape(values.shape), name)
        )
        return Value(self, name, values.dtype)

    def op(
        self,
        operator: str,
        *inputs: "Value | None",
        dtype: Any = None,  # noqa: ANN401
        domain: str = "",
        **attributes: Any,  # noqa: ANN401
    ) -> "Value":
        """One node with one output, of the first input's dtype unless another is given."""
        return self.ops(operator, *inputs, dtypes=(dtype,), domain=domain, **attributes)[0]

    def ops(
        self,
        operator: str,
        *inputs: "Value | None",
        dtypes: Sequence[Any],
        domain: str = "",
        **attributes: Any,  # noqa: ANN401
    ) -> list["Value"]:
        """One node with an output for each of `dtypes`."""
        first = next(item for item in inputs if item is not None)
        names = [self.sink.name(operator.lower()) for _ in dtypes]
        self.sink.node(
            helper.make_node(
                operator,
                ["" if item is None else item.name for item in inputs],
                names,
                name=names[0],
                domain=domain,
                **attributes,
            )
        )
        return [
            Value(self, name, first.dtype if dtype is None else np.dtype(dtype))
            for name, dtype in zip(names, dtypes, strict=True)
        ]

    def like(self, operand: Operand, other: "Value") -> "Value":
        """A number or array as a constant of another value's dtype."""
        if isinstance(operand, Value):
            return operand
        return self.const(operand, other.dtype)

    def where(self, condition: "Value", yes: "Value", no: Operand) -> "Value":
        """`numpy.where`."""
        return self.op("Where", condition, yes, self.like(no, yes), dtype=yes.dtype)

    def concat(self, values: Sequence["Value"], axis: int = 1) -> "Value":
        """`numpy.concatenate`."""
        return values[0] if len(values) == 1 else self.op("Concat", *values, axis=axis)


class Value:
    """A tensor of the graph."""

    __array_priority__ = 1000  # numpy leaves `array - value` to us
    __array_ufunc__ = None
    __hash__ = None  # type: ignore[assignment]  # == makes a node

    def __init__(self, writer: Writer, name: str, dtype: Any) -> None:  # noqa: ANN401
        self.writer = writer
        self.name = name
        self.dtype = np.dtype(dtype)

    def _with(
        self,
        operator: str,
        other: Operand,
        *,
        swap: bool = False,
        dtype: Any = None,  # noqa: ANN401
    ) -> "Value":
        right = self.writer.like(other, self)
        pair = (right, self) if swap else (self, right)
        return self.writer.op(operator, *pair, dtype=dtype)

    def __add__(self, other: Operand) -> "Value":
        return self._with("Add", other)

    def __radd__(self, other: Operand) -> "Value":
        return self._with("Add", other, swap=True)

    def __sub__(self, other: Operand) -> "Value":
        return self._with("Sub", other)

    def __rsub__(self, other: Operand) -> "Value":
        return self._with("Sub", other, swap=True)

    def __mul__(self, other: Operand) -> "Value":
        return self._with("Mul", other)

    def __rmul__(self, other: Operand) -> "Value":
        return self._with("Mul", other, swap=True)

    def __truediv__(self, other: Operand) -> "Value":
        return self._with("Div", other)

    def __rtruediv__(self, other: Operand) -> "Value":
        return self._with("Div", other, swap=True)

    def __pow__(self, other: Operand) -> "Value":
        return self._with("Pow", other)

    def __matmul__(self, other: Operand) -> "Value":
        return self._with("MatMul", other)

    def __neg__(self) -> "Value":
        return self.writer.op("Neg", self)

    def __lt__(self, other: Operand) -> "Value":
        return self._with("Less", other, dtype=BOOL)

    def __le__(self, other: Operand) -> "Value":
        return self._with("LessOrEqual", other, dtype=BOOL)

    def __gt__(self, other: Operand) -> "Value":
        return self._with("Greater", other, dtype=BOOL)

    def __ge__(self, other: Operand) -> "Value":
        return self._with("GreaterOrEqual", other, dtype=BOOL)

    def equals(self, other: Operand) -> "Value":
        """Elementwise equality."""
        return self._with("Equal", other, dtype=BOOL)

    def both(self, other: "Value") -> "Value":
        """Logical and."""
        return self.writer.op("And", self, other)

    def either(self, other: "Value") -> "Value":
        """Logical or."""
        return self.writer.op("Or", self, other)

    def __invert__(self) -> "Value":
        return self.writer.op("Not", self)

    def unary(self, operator: str) -> "Value":
        """A function of each element: "Exp", "Log", "Tanh", "Sigmoid", "Abs" and so on."""
        return self.writer.op(operator, self)

    def exp(self) -> "Value":
        """E to the power of each."""
        return self.unary("Exp")

    def log(self) -> "Value":
        """Natural logarithm."""
        return self.unary("Log")

    def sqrt(self) -> "Value":
        """Square root."""
        return self.unary("Sqrt")

    def no(self) -> "Value":
        """False for each."""
        return self.writer.op("Less", self, self, dtype=BOOL)

    def is_nan(self) -> "Value":
        """Whether NaN."""
        return self.writer.op("IsNaN", self, dtype=BOOL)

    def at_least(self, low: Operand) -> "Value":
        """The larger of both."""
        return self._with("Max", low)

    def at_most(self, high: Operand) -> "Value":
        """The smaller of both."""
        return self._with("Min", high)

    def sum(self, axis: int = 1, *, keep: bool = False) -> "Value":
        """Sum along an axis."""
        axes = self.writer.const(np.array([axis]))
        return self.writer.op("ReduceSum", self, axes, keepdims=int(keep))

    def mean(self, axis: int = 1, *, keep: bool = False) -> "Value":
        """Mean along an axis."""
        return self.writer.op("ReduceMean", self, axes=[axis], keepdims=int(keep))

    def max(self, axis: int = 1, *, keep: bool = False) -> "Value":
        """Largest along an axis."""
        return self.writer.op("ReduceMax", self, axes=[axis], keepdims=int(keep))

    def min(self, axis: int = 1, *, keep: bool = False) -> "Value":
        """Smallest along an axis."""
        return self.writer.op("ReduceMin", self, axes=[axis], keepdims=int(keep))

    def argmax(self, axis: int = 1) -> "Value":
        """Where the largest is: the first of equals."""
        return self.writer.op("ArgMax", self, axis=axis, keepdims=0, dtype=INT64)

    def argmin(self, axis: int = 1) -> "Value":
        """Where the smallest is: the first of equals."""
        return self.writer.op("ArgMin", self, axis=axis, keepdims=0, dtype=INT64)

    def softmax(self) -> "Value":
        """Along the last axis."""
        return self.writer.op("Softmax", self, axis=-1)

    def take(self, indices: Operand, axis: int = 0) -> "Value":
        """`numpy.take` with constant or computed indices."""
        places = indices if isinstance(indices, Value) else self.writer.const(indices, np.int64)
        return self.writer.op("Gather", self, places, axis=axis)

    def columns(self, indices: Sequence[int] | Array) -> "Value":
        """Some columns of a matrix."""
        return self.take(np.asarray(indices, dtype=np.int64), axis=1)

    def column(self, index: int) -> "Value":
        """One column as a vector (N,)."""
        return self.take(np.array(index), axis=1)

    def reshape(self, *shape: int) -> "Value":
        """Another shape; -1 is what is left."""
        return self.writer.op("Reshape", self, self.writer.const(np.array(shape)))

    def unsqueeze(self, axis: int) -> "Value":
        """One more axis of size 1."""
        return self.writer.op("Unsqueeze", self, self.writer.const(np.array([axis])))

    def transpose(self, *order: int) -> "Value":
        """Axes in another order."""
        return self.writer.op("Transpose", self, perm=list(order))

    def cast(self, dtype: Any) -> "Value":  # noqa: ANN401
        """Another dtype."""
        wanted = np.dtype(dtype)
        if wanted == self.dtype:
            return self
        return self.writer.op("Cast", self, to=_ELEMENTS[wanted], dtype=wanted)

    def floats(self) -> "Value":
        """Of the dtype that floats are computed in."""
        return self.cast(self.writer.dtype)
