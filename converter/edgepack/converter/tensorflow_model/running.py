"""A graph in a session: TensorFlow's own answers, and the graph with its variables as constants."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf
from tensorflow.python.framework import op_def_registry

from edgepack.converter.errors import ModelFileError, one_line
from edgepack.converter.tensorflow_model.checkpoint import fill_variables
from edgepack.converter.tensorflow_model.inline import inlined
from edgepack.converter.tensorflow_model.operators import check_operators
from edgepack.converter.tensorflow_model.saved import SavedGraph, node_of, reachable
from edgepack.runtime.tensors import Array

_VARIABLES = ("variables", "variables")
_VARIABLE_OPERATORS = ("VarHandleOp", "VariableV2", "Variable")


class RunningGraph:
    """A SavedModel's graph with its variables restored.

    Raises:
        UnsafeModelError: Its operators reach outside the model; nothing was run.
        UnsupportedModelError: Its operators are not TensorFlow's own.
        ModelFileError: It is damaged, or its variables are.
    """

    def __init__(self, path: Path, saved: SavedGraph) -> None:
        check_operators(saved.answering, _is_stateful, saver=False)
        check_operators(saved.restoring, _is_stateful, saver=True)
        self._outputs = [tensor.name for tensor in saved.outputs.values()]
        self._inputs = [tensor.name for tensor in saved.inputs.values()]
        self._graph = tf.Graph()
        try:
            with self._graph.as_default():
                tf.import_graph_def(saved.graph, name="")
                _add_reads(self._graph)
            self._session = tf.compat.v1.Session(graph=self._graph)
            if saved.restore is not None and _has_variables(path, self._graph):
                operation, filename = saved.restore
                prefix = str(path.joinpath(*_VARIABLES))
                self._session.run(_operation(self._graph, operation), {filename: prefix})
                fill_variables(self._session, prefix, saved.saved_at)
            for name in saved.init:
                self._session.run(self._graph.get_operation_by_name(name))
        except ModelFileError:
            raise
        except Exception as exc:
            raise ModelFileError(
                f"{path.name} cannot be loaded by TensorFlow {tf.__version__}: {one_line(exc)}"
            ) from exc

    def answer(self, arrays: Sequence[Array]) -> list[Array]:
        """TensorFlow's answers, in the order of the signature's outputs."""
        found: list[Array] = self._session.run(
            self._outputs, dict(zip(self._inputs, arrays, strict=True))
        )
        return found

    def frozen(self) -> Any:  # noqa: ANN401  (TensorFlow is not followed)
        """The graph with constants in the place of variables, as a protobuf."""
        frozen = tf.compat.v1.graph_util.convert_variables_to_constants(
            self._session, self._graph.as_graph_def(), [node_of(name) for name in self._outputs]
        )
        needed = reachable(frozen, [*self._inputs, *self._outputs])
        return inlined(needed, self._inputs, self._outputs)


def _has_variables(path: Path, graph: Any) -> bool:  # noqa: ANN401  (TensorFlow is not followed)
    """Whether there is something to restore; a graph that needs it and has nothing is damaged."""
    folder = path.joinpath(*_VARIABLES[:1])
    if folder.is_dir():
        return True
    needing = [item for item in graph.get_operations() if item.type in _VARIABLE_OPERATORS]
    if needing:
        raise ModelFileError(
            f"{path.name} has no folder {folder.name!r} and its graph has {len(needing)} "
            "variables: copy the whole SavedModel folder"
        )
    return False


def _is_stateful(name: str) -> bool | None:
    found = op_def_registry.get(name)
    return None if found is None else bool(found.is_stateful)


def _add_reads(graph: Any) -> None:  # noqa: ANN401
    """Freezing reads each variable through an operation of this name, which older files lack."""
    for operation in graph.get_operations():
        name = f"{operation.name}/Read/ReadVariableOp"
        if operation.type != "VarHandleOp":
            continue
        try:
            graph.get_operation_by_name(name)
        except KeyError:
            tf.raw_ops.ReadVariableOp(
                resource=operation.outputs[0], dtype=operation.get_attr("dtype"), name=name
            )


def _operation(graph: Any, name: str) -> Any:  # noqa: ANN401
    """Older files name the operation, newer ones a tensor of it."""
    return graph.as_graph_element(name, allow_tensor=True, allow_operation=True)
