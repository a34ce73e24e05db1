"""Between the ONNX graph and the draft of the file: which tensor holds which value, and how.

TFLite wants channels last, ONNX has them second. A value is therefore kept in whatever order its
operator gave it, with a note of that order; a transpose, a squeeze or a flatten only changes the
note. Where an operator needs another order it asks for it here, and only then is data moved.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from onnx import NodeProto, helper

from edgepack.converter.errors import UnsupportedModelError
from edgepack.converter.tflite_writer.draft import Draft, Shape, Tensor
from edgepack.converter.tflite_writer.trace import Trace
from edgepack.runtime.tensors import Array

Axes = tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Value:
    """A value of the ONNX graph.

    Attributes:
        name: In the ONNX graph.
        shape: As ONNX has it; negative where it follows the number of rows.
        dtype: In the file.
        tensor: What holds it in the file; None for a constant.
        axes: For each dimension of the tensor, which of the value's it is, or -1 for one of size
            1 that the value does not have. Dimensions of size 1 may be absent.
        constant: Its values, if it is a constant.
    """

    name: str
    shape: Shape
    dtype: str
    tensor: Tensor | None = None
    axes: Axes = ()
    constant: Array | None = field(default=None, repr=False)

    @property
    def rank(self) -> int:
        """Number of dimensions as ONNX counts them."""
        return len(self.shape)


class Step:
    """One ONNX node, read easily."""

    def __init__(self, node: NodeProto) -> None:
        """Wrap a node."""
        self._attributes = {item.name: item for item in node.attribute}
        self.operator = node.op_type if not node.domain else f"{node.domain}.{node.op_type}"
        self.inputs = list(node.input)
        self.outputs = list(node.output)
        self.output = node.output[0]

    def attribute(self, name: str, default: Any = None) -> Any:  # noqa: ANN401
        """An attribute's value; text as str."""
        if name not in self._attributes:
            return default
        value = helper.get_attribute_value(self._attributes[name])
        return value.decode() if isinstance(value, bytes) else value

    def has_input(self, index: int) -> bool:
        """Whether an optional input is given."""
        return index < len(self.inputs) and self.inputs[index] != ""

    def refuse(self, why: str) -> UnsupportedModelError:
        """The error that says what of this operator the writer does not take."""
        return UnsupportedModelError(f"the TFLite writer does not take {self.operator} {why}")


class Graph:
    """What operators are written with."""

    def __init__(self, trace: Trace) -> None:
        """Begin with nothing written."""
        self.draft = Draft()
        self.trace = trace
        self._values: dict[str, Value] = {}
        self._arranged: dict[tuple[Tensor, Axes, Shape], Tensor] = {}

    def value(self, name: str) -> Value:
        """A value that was written, or a constant."""
        if name not in self._values:
            self._values[name] = self._constant(name)
        return self._values[name]

    def shape(self, name: str) -> Shape:
        """A value's shape as ONNX has it, written or not."""
        return self.trace.tensors[name].shape

    def dtype(self, name: str) -> str:
        """A value's type in the file: what is float64 in between is float32 there."""
        dtype = self.trace.tensors[name].dtype
        return "float32" if dtype == "float64" else dtype

    def static(self, step: Step, index: int) -> Array:
        """An input whose value must not depend on the data nor on the number of rows.

        Raises:
            UnsupportedModelError: It does.
        """
        values = self.trace.tensors[step.inputs[index]].values
        if not values or any(not np.array_equal(values[0], other) for other in values[1:]):
            raise step.refuse(f"whose input {index} is computed from the data")
        return values[0]

    def is_static(self, name: str) -> bool:
        """Whether a value depends neither on the data nor on the number of rows."""
        values = self.trace.tensors[name].values
        return bool(values) and all(np.array_equal(values[0], other) for other in values[1:])

    def put(self, name: str, tensor: Tensor, axes: Axes | None = None) -> None:
        """Say which tensor holds a value, in the order of ONNX if nothing else is said."""
        shape = self.shape(name)
        axes = tuple(range(len(shape))) if axes is None else axes
        expected = tuple(1 if axis < 0 else shape[axis] for axis in axes)
        if tensor.shape != expected:  # ours to mend: never to be seen by a user
            raise AssertionError(f"{name} must be held as {expected}, got {tensor.shape}")
        self._values[name] = Value(
            name=name, shape=shape, dtype=tensor.dtype, tensor=tensor, axes=axes
        )

    def alias(self, name: str, value: Value, axes: Axes | None = None) -> None:
        """Say that a value is another one, perhaps with its dimensions renamed."""
        if value.tensor is None:
            values = np.asarray(value.constant).reshape([abs(n) for n in self.shape(name)])
            self._values[name] = replace(value, name=name, shape=self.shape(name), constant=values)
        else:
            self.put(name, value.tensor, value.axes if axes is None else axes)

    def lifted(self, value: Value, rank: int) -> Value:
        """The value with dimensions of size 1 put in front, as broadcasting does."""
        extra = rank - value.rank
        if extra <= 0:
            return value
        axes = tuple(axis + extra if axis >= 0 else -1 for axis in value.axes)
        constant = value.constant
        if constant is not None:
            constant = constant.reshape((1,) * extra + constant.shape)
        return replace(value, shape=(1,) * extra + value.shape, axes=axes, constant=constant)

    def plain(self, name: str) -> Tensor:
        """The tensor that holds a value in the order of ONNX."""
        value = self.value(name)
        return self.arranged(value, tuple(range(value.rank)))

    def arranged(self, value: Value, axes: Axes) -> Tensor:
        """The tensor that holds a value in this order, moved there if need be."""
        shape = tuple(1 if axis < 0 else value.shape[axis] for axis in axes)
        if value.constant is not None:
            return self._arranged_constant(value, axes, shape)
        tensor = value.tensor
        if tensor is None:
            raise AssertionError(f"{value.name} is held by nothing")
        if value.axes == axes:
            return tensor
        key = (tensor, tuple(value.axes.index(a) if a in value.axes else -1 for a in axes), shape)
        if key not in self._arranged:
            self._arranged[key] = self._moved(value, tensor, axes, shape)
        return self._arranged[key]

    def reshaped(self, tensor: Tensor, shape: Shape) -> Tensor:
        """The tensor's values in another shape; a shape taken back costs nothing."""
        maker = self.draft.makers.get(tensor)
        if tensor.shape != shape and maker is not None and maker.code == "RESHAPE":
            tensor = maker.inputs[0] or tensor
        if tensor.shape == shape:
            return tensor
        if sum(size < 0 for size in shape) > 1 or 0 in shape:
            raise UnsupportedModelError(f"the TFLite writer cannot make the shape {list(shape)}")
        sizes = [max(size, -1) for size in shape]
        return self.draft.add(
            "RESHAPE",
            [tensor, self.draft.integers(sizes, "shape")],
            shape,
            name=f"{tensor.name}_reshaped",
            dtype=tensor.dtype,
            options=schema.ReshapeOptionsT(newShape=sizes),
        )

    def in_order(self, name: str) -> Tensor:
        """A tensor that holds the value's numbers in ONNX's order, whatever its shape."""
        value = self.value(name)
        if value.tensor is not None:
            large = [axis for axis in value.axes if axis >= 0 and value.shape[axis] != 1]
            if large == sorted(large):
                return value.tensor
        return self.plain(name)

    def transposed(self, tensor: Tensor, order: Sequence[int], name: str) -> Tensor:
        """Move the dimensions of a tensor."""
        if list(order) == list(range(len(order))):
            return tensor
        return self.draft.add(
            "TRANSPOSE",
            [tensor, self.draft.integers(order, "order")],
            tuple(tensor.shape[axis] for axis in order),
            name=name,
            dtype=tensor.dtype,
            options=schema.TransposeOptionsT(),
        )

    def _constant(self, name: str) -> Value:
        traced = self.trace.tensors[name]
        if not traced.values:
            raise UnsupportedModelError(
                f"the TFLite writer does not compute {name[:80]!r}, a label inside the model"
            )
        values = traced.values[0]
        if not self.is_static(name):
            for axis, size in enumerate(traced.shape):  # all rows alike: one of them says it all
                if size < 0:
                    values = values.take([0], axis=axis)
            if any(not np.all(values == other) for other in traced.values):
                raise UnsupportedModelError(
                    f"the TFLite writer cannot take {name[:80]!r}, which counts the rows"
                )
        if values.dtype == np.float64:
            values = values.astype(np.float32)
        if values.dtype.kind in "OUS":
            raise UnsupportedModelError(f"the TFLite writer takes no text, got {name[:80]!r}")
        return Value(name=name, shape=values.shape, dtype=values.dtype.name, constant=values)

    def _arranged_constant(self, value: Value, axes: Axes, shape: Shape) -> Tensor:
        values = np.asarray(value.constant)
        order = [axis for axis in axes if axis >= 0]
        order += [axis for axis in range(values.ndim) if axis not in order]
        return self.draft.constant(values.transpose(order).reshape(shape), value.name)

    def _moved(self, value: Value, tensor: Tensor, axes: Axes, shape: Shape) -> Tensor:
        name = f"{value.name}_transposed"
        large = [axis for axis in value.axes if axis >= 0 and value.shape[axis] != 1]
        target = [axis for axis in axes if axis >= 0 and value.shape[axis] != 1]
        if large == target:
            return self.reshaped(tensor, shape)
        if sorted(axes) == sorted(value.axes) and len(set(axes)) == len(axes):
            return self.transposed(tensor, [value.axes.index(axis) for axis in axes], name)
        short = self.reshaped(tensor, tuple(value.shape[axis] for axis in large))
        moved = self.transposed(short, [large.index(axis) for axis in target], name)
        return self.reshaped(moved, shape)
