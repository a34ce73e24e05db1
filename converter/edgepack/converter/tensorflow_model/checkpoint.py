"""Variables that the graph's own restoring leaves empty, from the checkpoint's list of objects.

`tf.saved_model.save` of a Keras 3 model writes every variable twice, and restores only the one of
the two that answers nothing: TensorFlow's present loader goes by the objects, and so does this.
"""

from collections.abc import Mapping
from typing import Any, Final

import tensorflow as tf
from tensorflow.core.protobuf import trackable_object_graph_pb2

_OBJECTS: Final = "_CHECKPOINTABLE_OBJECT_GRAPH"


def fill_variables(session: Any, prefix: str, saved_at: Mapping[str, int]) -> None:  # noqa: ANN401  (TensorFlow is not followed)
    """Give every variable that has no value the one of the same name in the checkpoint.

    Args:
        session: Holds the graph, restored by its own means.
        prefix: Of the checkpoint's files.
        saved_at: Variable → its place in the checkpoint's list of objects.
    """
    with session.graph.as_default():
        handles = {
            item.get_attr("shared_name").decode() or item.name: item
            for item in session.graph.get_operations()
            if item.type == "VarHandleOp"
        }
        known = [name for name in handles if name in saved_at]
        filled = session.run(
            [tf.raw_ops.VarIsInitializedOp(resource=handles[name].outputs[0]) for name in known]
        )
        empty = [name for name, has_value in zip(known, filled, strict=True) if not has_value]
        if not empty:
            return
        reader = tf.train.load_checkpoint(prefix)
        objects = trackable_object_graph_pb2.TrackableObjectGraph.FromString(
            reader.get_tensor(_OBJECTS)
        ).nodes
        for name in empty:
            (attribute,) = objects[saved_at[name]].attributes
            value = reader.get_tensor(attribute.checkpoint_key)
            dtype = tf.dtypes.as_dtype(handles[name].get_attr("dtype"))
            given = tf.compat.v1.placeholder(dtype, value.shape)
            assign = tf.raw_ops.AssignVariableOp(resource=handles[name].outputs[0], value=given)
            session.run(assign, {given: value})
