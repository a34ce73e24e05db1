"""Looks through an exported program (`.pt2`) before torch reads it.

`torch.export.load` trusts its file: it unpickles weights that say so, evaluates sizes as Python,
takes any function that torch's namespace can reach (`torch.os.system`) as an operator, imports
modules that the structure of inputs names, executes guards, and loads machine code that is packed
beside the program. Here every such string must be of the form that `torch.export.save` writes for
tensors, and torch gets a copy with nothing but what was looked at.
"""

import io
import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from edgepack.converter.errors import ModelFileError, UnsafeModelError

_NAMESPACES: Final = "aten|prim|prims|quantized|quantized_decomposed|torchvision"
_CONTROL_FLOW: Final = (
    "cond|while_loop|scan|map_impl|associative_scan|wrap_with_set_grad_enabled|wrap_with_autocast"
)
_OPERATOR: Final = re.compile(
    rf"torch\.ops\.(?:{_NAMESPACES})\.[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)?|"
    rf"torch\.ops\.higher_order\.(?:{_CONTROL_FLOW})"
)
_SYMBOLIC: Final = re.compile(
    r"torch\._?sym_\w+|math\.(?:ceil|floor|trunc|sqrt|log2|pow)|"
    r"_operator\.(?:getitem|add|sub|mul|floordiv|truediv|mod|neg|pos|pow|eq|ne|lt|le|gt|ge|"
    r"and_|or_|not_|lshift|rshift)"
)
_REACHES_FILES: Final = ("from_file", "save", "load", "print")
_TOKEN: Final = re.compile(
    r"\s*(?:(?P<call>[A-Za-z_]\w*)\s*\(|(?P<name>[A-Za-z_]\w*)|'[A-Za-z_]\w*'|"
    r"\d+(?:\.\d+)?(?:e[-+]?\d+)?|[-+*/%(),=<>!&|~])"
)
_CALLS: Final = frozenset(
    [
        "Symbol",
        "Integer",
        "Float",
        "Rational",
        "Add",
        "Mul",
        "Pow",
        "Abs",
        "Max",
        "Min",
        "Mod",
        "And",
        "Or",
        "Not",
        "Eq",
        "Ne",
        "Lt",
        "Le",
        "Gt",
        "Ge",
        "Equality",
        "Unequality",
        "StrictLessThan",
        "LessThan",
        "StrictGreaterThan",
        "GreaterThan",
        "ExprCondPair",
        "Piecewise",
        "ceiling",
        "floor",
        "sqrt",
        "FloorDiv",
        "ModularIndexing",
        "Where",
        "PythonMod",
        "CleanDiv",
        "CeilToInt",
        "FloorToInt",
        "CeilDiv",
        "LShift",
        "RShift",
        "PowByNatural",
        "FloatPow",
        "FloatTrueDiv",
        "IntTrueDiv",
        "IsNonOverlappingAndDenseIndicator",
        "TruncToFloat",
        "TruncToInt",
        "RoundToInt",
        "RoundDecimal",
        "ToFloat",
        "Identity",
        "BitwiseFn_bitwise_and",
        "BitwiseFn_bitwise_or",
    ]
)
_SIZE_NAME: Final = re.compile(
    r"z?[suf]{1,2}\d+|oo|int_oo|True|False|true|false|positive|integer|nonnegative|nonzero|real|"
    r"evaluate|precision|dps"
)
# Names end up in Python text that torch writes and runs; everything else is data.
_NAME: Final = re.compile(r"[\w.$:+\- ]*")
_DATA: Final = ("as_string", "as_strings")
_OBJECTS: Final = ("as_custom_obj", "custom_obj", "custom_obj_values")
_NOT_READ: Final = "metadata"  # where a node came from
_MACHINE_CODE: Final = "aotinductor"
_STRUCTURES: Final = (
    "builtins.tuple",
    "builtins.list",
    "builtins.dict",
    "collections.OrderedDict",
)
_TENSOR_CONSTANT: Final = "tensor_"
_MAX_BYTES: Final = 8 << 30
_MOST_SHOWN: Final = 60
_Json = Any  # what json.loads gives


def checked_copy(path: Path) -> io.BytesIO:
    """A copy of an exported program that is safe to load if its pickles are loaded weights-only.

    Raises:
        UnsafeModelError: It asks for something that a program of tensors does not need.
        ModelFileError: It is damaged.
    """
    copy = io.BytesIO()
    try:
        with zipfile.ZipFile(path) as archive, zipfile.ZipFile(copy, "w") as safe:
            entries = archive.infolist()
            names = [entry.filename for entry in entries]
            if len(set(names)) < len(names):
                raise UnsafeModelError(f"{path.name} holds two members of one name; refused")
            if sum(entry.file_size for entry in entries) > _MAX_BYTES:
                raise ModelFileError(f"{path.name} unpacks to more than {_MAX_BYTES >> 30} GiB")
            for name in names:
                if _MACHINE_CODE in name:
                    raise UnsafeModelError(
                        f"{path.name} holds machine code of AOTInductor; refused"
                    )
                data = archive.read(name)
                if name.endswith(".json"):
                    data = _checked_json(data, name)
                safe.writestr(zipfile.ZipInfo(name), data)
    except (zipfile.BadZipFile, OSError, EOFError, NotImplementedError, ValueError) as exc:
        raise ModelFileError(f"{path.name} is a damaged exported program: {exc}") from exc
    except RuntimeError as exc:
        raise ModelFileError(f"{path.name} is an encrypted zip file") from exc
    copy.seek(0)
    return copy


def _checked_json(data: bytes, name: str) -> bytes:
    document = json.loads(data)
    if not isinstance(document, dict):
        raise ModelFileError(f"{name} in the program must be an object")
    if "guards_code" in document:
        document["guards_code"] = []  # Python text; the contract checks inputs itself
    if isinstance(document.get("config"), dict):
        _check_payloads(document["config"])
    for key, value in _walk(document):
        if isinstance(value, str):
            _check_text(key, value)
        elif key == "range_constraints" and isinstance(value, dict):
            for size in value:
                _check_expression(size)
        elif key in _OBJECTS and value:
            raise _unsafe("an object that is no tensor:", str(value))
    return json.dumps(document).encode()


def _check_payloads(config: dict[str, _Json]) -> None:
    for name, payload in config.items():
        payload = payload if isinstance(payload, dict) else {}  # noqa: PLW2901
        file = str(payload.get("path_name"))
        if payload.get("use_pickle") is not False or "/" in file:
            raise _unsafe("a pickle in place of a tensor for", name)
        if not file.startswith((_TENSOR_CONSTANT, "weight_")):
            raise _unsafe("an object that is no tensor for", name)


def _check_text(key: str, text: str) -> None:
    if key in ("target", "as_operator"):
        reaches = {part for part in text.split(".")[-2:] if part in _REACHES_FILES}
        if reaches or not (_OPERATOR.fullmatch(text) or _SYMBOLIC.fullmatch(text)):
            raise _unsafe("the operator", text)
    elif key == "expr_str":
        _check_expression(text)
    elif key in ("in_spec", "out_spec"):
        if text:
            _check_structure(json.loads(text))
    elif key not in _DATA and not _NAME.fullmatch(text):
        raise _unsafe("the name", text)


def _check_expression(text: str) -> None:
    """A size is evaluated as Python: only numbers, symbols and known functions may be in it."""
    position = 0
    while position < len(text.rstrip()):
        token = _TOKEN.match(text, position)
        if token is None:
            raise _unsafe("the size", text)
        call, name = token.group("call"), token.group("name")
        unknown_call = call is not None and call not in _CALLS
        if unknown_call or (name is not None and not _SIZE_NAME.fullmatch(name)):
            raise _unsafe("the size", text)
        position = token.end()


def _check_structure(node: _Json) -> None:
    """How inputs and outputs nest: lists, tuples and dictionaries whose keys are names."""
    if isinstance(node, list):
        for part in node:
            _check_structure(part)
    if not isinstance(node, dict):
        return
    kind, context = node.get("type"), node.get("context")
    if kind is not None and kind not in _STRUCTURES:
        raise _unsafe("inputs or outputs of the type", str(kind))
    keys = json.loads(context) if isinstance(context, str) else context
    for key in keys if isinstance(keys, list) else [keys]:
        if key is not None and not (isinstance(key, str) and _NAME.fullmatch(key)):
            raise _unsafe("inputs or outputs of the name", str(key))
    _check_structure(node.get("children_spec"))


def _walk(value: _Json) -> Iterator[tuple[str, _Json]]:
    """Every value with the key that it lies under, and every key as a name."""
    waiting: list[tuple[str, _Json]] = [("", value)]
    while waiting:
        key, item = waiting.pop()
        yield key, item
        if isinstance(item, dict):
            for name, inner in item.items():
                if name == _NOT_READ and _is_history(item, inner):
                    continue
                waiting += [("name", name), (name, inner)]
        elif isinstance(item, list):
            waiting += [(key, inner) for inner in item]


def _is_history(node: dict[str, _Json], metadata: _Json) -> bool:
    """Tell whether this is where a node came from; a tensor may be called "metadata" too."""
    return (
        isinstance(node.get("target"), str)
        and isinstance(metadata, dict)
        and all(isinstance(item, str) for item in metadata.values())
    )


def _unsafe(what: str, value: str) -> UnsafeModelError:
    shown = " ".join(value.split())[:_MOST_SHOWN]
    return UnsafeModelError(
        f"the program asks for {what} {shown!r}, which a program of tensors does not need; it was "
        "not loaded (if you made the file yourself: --trust-pickle)"
    )
