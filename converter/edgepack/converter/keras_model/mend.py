"""Configurations of older versions, mended where that changes nothing.

A layer of Keras 2 wrote arguments that the same layer of Keras 3 does not take any more. Where
such an argument holds what it did when nobody set it, it is dropped, and that is said; where it
was set, the model cannot be had from the file.
"""

import inspect
from collections import Counter
from collections.abc import Mapping
from copy import deepcopy
from typing import Any, Final

from edgepack.converter.errors import UnsupportedModelError
from edgepack.converter.keras_model.config import (
    Config,
    entries,
    is_model,
    layer_class,
    layers,
)

# What every layer takes, although its own signature may not name it.
_EVERY_LAYER: Final = frozenset(
    (
        *("name", "dtype", "trainable", "activity_regularizer", "autocast", "batch_size"),
        *("batch_shape", "batch_input_shape", "input_shape", "input_dim", "input_length"),
    )
)
# What vanished arguments held when nobody set them; None and False stand for "not set" anywhere.
_OLD_DEFAULTS: Final[Mapping[str, tuple[object, ...]]] = {
    "groups": (1,),  # convolutions that never had groups wrote it all the same
    "implementation": (0, 1, 2),  # of recurrent layers: how, not what
    "fused": (True,),  # of batch normalization: how, not what
    "experimental_autocast": (True,),
    "experimental_run_tf_function": (True,),
    "interpolation_order": (1,),
}
_INNER: Final = ("layer", "backward_layer", "cell", "cells")  # of wrappers and RNN
_MOVED: Final = {  # class → where Keras 3 has it; older files name modules that are gone
    "Functional": "keras.src.models.functional",
    "Sequential": "keras",
    "Model": "keras",
}


def mend(config: Config) -> tuple[Config, tuple[str, ...]]:
    """Make a configuration that Keras 3 takes.

    Args:
        config: As the file has it; it is not changed.

    Returns:
        The mended configuration, and what was dropped, one line a kind of layer.

    Raises:
        UnsupportedModelError: An argument that is gone was set.
    """
    mended = deepcopy(config)
    for item in entries(mended):
        _spell_anew(item)
    dropped: Counter[tuple[str, str, str]] = Counter()
    for item in layers(mended):
        if is_model(item):
            _move(item)
            continue
        for name, value in _drop_refused(item).items():
            dropped[item["class_name"], name, str(value)[:40]] += 1
    return mended, tuple(
        f"{name}={value} was dropped from {count} {layer}: an older Keras wrote it, Keras 3 does "
        "not take it, and it changes nothing"
        for (layer, name, value), count in dropped.items()
    )


def _drop_refused(item: Config) -> dict[str, object]:
    """Drop the arguments of a layer that its class does not take; gives those dropped."""
    cls = layer_class(item)
    if cls is None or _accepts(cls, item):
        return {}
    known = _EVERY_LAYER | set(inspect.signature(cls.__init__).parameters)  # type: ignore[misc]
    unknown = {name: value for name, value in item["config"].items() if name not in known}
    old = {name: value for name, value in unknown.items() if _is_old_default(name, value)}
    for name in old:
        del item["config"][name]
    if _accepts(cls, item):
        return old
    for name in unknown.keys() - old.keys():
        raise UnsupportedModelError(
            f"layer {item['config'].get('name')!r} was made with {name}="
            f"{str(unknown[name])[:40]}, which {item['class_name']} of Keras 3 does not have"
        )
    return old  # what else is wrong, Keras itself tells when it loads the model


def _accepts(cls: Any, item: Config) -> bool:  # noqa: ANN401  (keras is not followed)
    try:
        cls.from_config(deepcopy(item["config"]))
    except Exception:  # noqa: BLE001  (whatever a layer raises for arguments that it lacks)
        return False
    return True


def _is_old_default(name: str, value: object) -> bool:
    if value is None or value is False:
        return True
    return any(type(value) is type(old) and value == old for old in _OLD_DEFAULTS.get(name, ()))


def _spell_anew(item: Config) -> None:
    """Write what older versions wrote in another way as Keras 3 writes it."""
    policy = item.get("dtype")
    if isinstance(policy, dict) and policy.get("class_name") == "Policy":
        item["dtype"] = policy.get("config", {}).get("name", "float32")
    _name_modules(item)
    if item.get("class_name") != "Sequential":
        return
    if isinstance(item.get("config"), list):  # the first versions of Keras 2
        item["config"] = {"name": "sequential", "layers": item["config"]}
    inside = item["config"].get("layers") if isinstance(item.get("config"), dict) else None
    if not inside or not isinstance(inside[0].get("config"), dict):
        return
    first = inside[0]["config"]
    shape = first.get("batch_input_shape")
    if shape is None or inside[0].get("class_name") == "InputLayer":
        return
    del first["batch_input_shape"]  # Keras 3 would take the rows for a dimension
    name = f"{first.get('name', 'first')}_input"
    taken = {"batch_input_shape": shape, "dtype": "float32", "name": name}
    inside.insert(0, {"class_name": "InputLayer", "config": taken})


def _name_modules(item: Config) -> None:
    """Say where the layers inside wrappers are: Keras 3 finds only outer ones by class alone."""
    for key in _INNER:
        inner = item.get(key)
        for part in inner if isinstance(inner, list) else [inner]:
            if isinstance(part, dict) and isinstance(part.get("class_name"), str):
                part.setdefault("module", _MOVED.get(part["class_name"], "keras.layers"))
                part.setdefault("registered_name", None)


def _move(item: Config) -> None:
    module = str(item.get("module") or "")
    if module.startswith("keras.src.engine"):
        item["module"] = _MOVED[item["class_name"]]
        item["registered_name"] = None
