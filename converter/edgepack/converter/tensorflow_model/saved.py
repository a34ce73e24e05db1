"""A SavedModel as it lies on the disk: which graph and signature, and what of it would run.

TensorFlow's present loader refuses what an older Keras wrote, for objects that no answer needs;
so the folder is read here, by its protobuf alone, and nothing runs.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from tensorflow.core.framework import graph_pb2
from tensorflow.core.protobuf import saved_model_pb2

from edgepack.converter.errors import ModelFileError, UnsupportedModelError
from edgepack.converter.sources.saved_model import MODEL

_SERVING: Final = "serve"
_SIGNATURE: Final = "serving_default"
_INIT: Final = "__saved_model_init_op"
_INIT_COLLECTIONS: Final = ("saved_model_main_op", "legacy_init_op")
_MAX_BYTES: Final = 2**31 - 1  # what one protobuf message can hold


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedGraph:
    """The part of a SavedModel that answers.

    Attributes:
        graph: As a protobuf: what the answers, the restoring and the initialization need.
        answering: Names of the operators that run to answer, and to initialize.
        restoring: Names of those that run to restore variables.
        signature: Its name.
        inputs, outputs: Name → the protobuf's description of the tensor.
        init: Names of the operations that initialize tables.
        restore: The operation that restores variables, and the tensor that takes the file's name.
        saved_at: Variable → its place in the checkpoint's list of objects.
        version: The TensorFlow that wrote it.
    """

    graph: Any = field(repr=False)
    answering: frozenset[str]
    restoring: frozenset[str]
    signature: str
    inputs: dict[str, Any]
    outputs: dict[str, Any]
    init: tuple[str, ...]
    restore: tuple[str, str] | None
    saved_at: dict[str, int]
    version: str


def read_saved_model(path: Path) -> SavedGraph:
    """Read a SavedModel folder without running anything.

    Raises:
        ModelFileError: It is damaged.
        UnsupportedModelError: It has no signature, or several.
    """
    meta = _meta_graph(path)
    name, signature = _signature(meta, path.name)
    inputs, outputs = dict(signature.inputs), dict(signature.outputs)
    for kind, tensors in (("input", inputs), ("output", outputs)):
        for key, tensor in tensors.items():
            if tensor.WhichOneof("encoding") != "name":
                raise UnsupportedModelError(f"{kind} {key!r} must be a plain tensor")
    if not inputs or not outputs:
        raise UnsupportedModelError(f"signature {name!r} must have inputs and outputs")
    init = tuple(_init_operations(meta))
    saver = meta.saver_def
    restore = (saver.restore_op_name, saver.filename_tensor_name)
    answers = [node_of(tensor.name) for tensor in (*inputs.values(), *outputs.values())]
    restores = [node_of(part) for part in restore if part]
    graph, kinds = _reachable(meta.graph_def, {"answer": [*answers, *init], "saver": restores})
    return SavedGraph(
        graph=graph,
        answering=kinds["answer"],
        restoring=kinds["saver"],
        signature=name,
        inputs=inputs,
        outputs=outputs,
        init=init,
        restore=restore if all(restore) else None,
        saved_at=_places(meta.object_graph_def),
        version=meta.meta_info_def.tensorflow_version or "1",
    )


def node_of(tensor: str) -> str:
    """The node that a tensor or a control input comes from."""
    return tensor.removeprefix("^").partition(":")[0]


def reachable(graph: Any, outputs: Iterable[str]) -> Any:  # noqa: ANN401
    """A graph without what its outputs do not need, functions among that."""
    return _reachable(graph, {"": [node_of(name) for name in outputs]})[0]


def _meta_graph(path: Path) -> Any:  # noqa: ANN401
    file = path / MODEL
    try:
        if file.stat().st_size > _MAX_BYTES:
            raise ModelFileError(f"{path.name}: {MODEL} must be at most {_MAX_BYTES} bytes")
        saved = saved_model_pb2.SavedModel.FromString(file.read_bytes())
    except (DecodeError, OSError) as exc:
        raise ModelFileError(f"{path.name}: {MODEL} is damaged or cannot be read") from exc
    tagged = {tuple(sorted(m.meta_info_def.tags)): m for m in saved.meta_graphs}
    if not tagged:
        raise ModelFileError(f"{path.name}: {MODEL} holds no graph")
    serving = [m for tags, m in tagged.items() if _SERVING in tags]
    exact = tagged.get((_SERVING,))
    found = [exact] if exact is not None else serving or list(tagged.values())
    if len(found) > 1:
        texts = ["+".join(tags) or "no tag" for tags in tagged]
        raise UnsupportedModelError(
            f"{path.name} must hold one graph with the tag {_SERVING!r}, got {', '.join(texts[:8])}"
        )
    return found[0]


def _signature(meta: Any, file: str) -> tuple[str, Any]:  # noqa: ANN401
    signatures = {name: s for name, s in meta.signature_def.items() if name != _INIT and s.outputs}
    if _SIGNATURE in signatures:
        return _SIGNATURE, signatures[_SIGNATURE]
    if not signatures:
        raise UnsupportedModelError(
            f"{file} has no signature, so that nothing says what to give it: save it with "
            "tf.saved_model.save(model, path, signatures=model.__call__.get_concrete_function(…))"
        )
    if len(signatures) > 1:
        raise UnsupportedModelError(
            f"{file} must have one signature, or one called {_SIGNATURE!r}, got "
            + ", ".join(sorted(signatures)[:8])
        )
    ((name, signature),) = signatures.items()
    return name, signature


def _places(objects: Any) -> dict[str, int]:  # noqa: ANN401
    """Where the variables are that have a name of their own."""
    named = [
        (item.variable.name, place)
        for place, item in enumerate(objects.nodes)
        if item.WhichOneof("kind") == "variable"
    ]
    counts = Counter(name for name, _ in named)
    return {name: place for name, place in named if counts[name] == 1}


def _init_operations(meta: Any) -> Iterator[str]:  # noqa: ANN401
    if _INIT in meta.signature_def:
        yield from (node_of(t.name) for t in meta.signature_def[_INIT].outputs.values())
        return
    for name in _INIT_COLLECTIONS:
        if name in meta.collection_def:
            yield from map(node_of, meta.collection_def[name].node_list.value)
            return


def _reachable(
    graph: Any,  # noqa: ANN401
    roots: dict[str, list[str]],
) -> tuple[Any, dict[str, frozenset[str]]]:
    """What some nodes need, as a graph, and the operators of each group of them."""
    nodes = {node.name: node for node in graph.node}
    functions = {function.signature.name: function for function in graph.library.function}
    kept_nodes: set[str] = set()
    kept_functions: set[str] = set()
    kinds = {}
    for group, names in roots.items():
        reached = _nodes_behind(nodes, names)
        called = _functions_behind(functions, [nodes[name] for name in reached])
        bodies = [node for name in called for node in functions[name].node_def]
        operators = {node.op for node in (*(nodes[name] for name in reached), *bodies)}
        kinds[group] = frozenset(operators - functions.keys())
        kept_nodes |= reached
        kept_functions |= called
    found = graph_pb2.GraphDef(versions=graph.versions)
    found.node.extend(node for node in graph.node if node.name in kept_nodes)
    found.library.function.extend(f for n, f in functions.items() if n in kept_functions)
    return found, kinds


def _nodes_behind(nodes: dict[str, Any], names: Iterable[str]) -> set[str]:
    found: set[str] = set()
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        if name not in nodes:
            raise ModelFileError(f"the graph is damaged: it has no node {name[:80]!r}")
        found.add(name)
        waiting += map(node_of, nodes[name].input)
    return found


def _functions_behind(functions: dict[str, Any], nodes: Iterable[Any]) -> set[str]:
    found: set[str] = set()
    waiting = list(nodes)
    while waiting:
        node = waiting.pop()
        called = {node.op}
        for attribute in node.attr.values():
            called.add(attribute.func.name)
            called.update(item.name for item in attribute.list.func)
        for name in (called & functions.keys()) - found:
            found.add(name)
            waiting += functions[name].node_def
    return found
