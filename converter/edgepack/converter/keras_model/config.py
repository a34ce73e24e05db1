"""A model's configuration, before Keras acts on it: code in it, classes that Keras lacks.

Pure: it looks at the JSON that a file holds, and at the names of Keras's own classes.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import keras

from edgepack.converter.errors import UnsafeModelError, UnsupportedModelError

Config = dict[str, Any]

_HINT = "if you made the file yourself: --trust-pickle"
# Layers that run what a file holds or names: pickled modules, saved graphs, marshalled Python.
_CODE_LAYERS = ("TFSMLayer", "TorchModuleWrapper", "JaxLayer", "FlaxLayer")
_MODELS = ("Functional", "Model", "Sequential")


def check_code(config: Config, file: str) -> None:
    """Refuse a configuration that carries code.

    Raises:
        UnsafeModelError: It does; nothing of it was run.
    """
    layer: object = "?"
    for item in entries(config):
        name, inner = item.get("class_name"), item.get("config")
        if isinstance(inner, dict) and {"name", "trainable"} <= inner.keys():
            layer = inner["name"]
        if name == "__lambda__" or (name == "Lambda" and _is_code(inner)):
            raise UnsafeModelError(
                f"{file} holds Python code (in layer {_short(layer)}), which was not run: use "
                f"keras.layers or keras.ops instead of a Lambda ({_HINT})"
            )
        if name in _CODE_LAYERS:
            raise UnsafeModelError(
                f"{file}: layer {_short(layer)} ({name}) runs what another file or a pickle "
                f"holds; it was not loaded ({_HINT})"
            )


def check_classes(config: Config, file: str) -> None:
    """Refuse a configuration of layers that Keras does not have.

    Raises:
        UnsupportedModelError: It names some.
    """
    foreign = sorted({name for name in map(_foreign, layers(config)) if name})
    if foreign:
        raise UnsupportedModelError(
            f"{file} uses {', '.join(map(_short, foreign[:5]))}, which Keras "
            f"{keras.__version__} does not have (custom classes and functions are not in the "
            "file): where they are, run model.export('model.onnx', format='onnx') and convert that"
        )


def entries(config: object) -> Iterator[Config]:
    """Every object of a configuration, the outer first."""
    waiting = [config]
    while waiting:
        item = waiting.pop()
        if isinstance(item, dict):
            yield item
            waiting += reversed(list(item.values()))
        elif isinstance(item, list):
            waiting += reversed(item)


def layers(config: Config) -> Iterator[Config]:
    """Every layer, models among them, wherever it is nested."""
    for item in entries(config):
        if not isinstance(item.get("class_name"), str) or not isinstance(item.get("config"), dict):
            continue
        if "name" in item["config"] or item["class_name"] in _MODELS:
            yield item


def is_model(item: Mapping[str, Any]) -> bool:
    """Tell whether a layer is itself a model of layers."""
    return item["class_name"] in _MODELS


def layer_class(item: Mapping[str, Any]) -> type | None:
    """Keras's own class of a layer, None if it is another's."""
    module = item.get("module")
    if module is not None and not str(module).startswith("keras"):
        return None
    found = getattr(keras.layers, item["class_name"], None)
    return found if isinstance(found, type) else None


def _foreign(item: Config) -> str:
    """The class of a layer, if Keras has no such; policies and tensors have names, too."""
    name, module = item["class_name"], item.get("module")
    if is_model(item) or layer_class(item) is not None:
        return ""
    if module is None:  # an older file: only what has rows and neighbours is surely a layer
        return name if "inbound_nodes" in item or "trainable" in item["config"] else ""
    if str(module).split(".")[0] in ("keras", "builtins") and module != "keras.layers":
        return ""
    return f"{module}.{name}" if module != "keras.layers" else name


def _is_code(inner: object) -> bool:
    if not isinstance(inner, dict):
        return False
    function = inner.get("function")
    return inner.get("function_type") == "lambda" or isinstance(function, list)


def _short(name: object) -> str:
    return repr(str(name)[:80])
