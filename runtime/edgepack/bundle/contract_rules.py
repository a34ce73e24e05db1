"""What a contract must obey beyond the types of its fields.

Every rule is looked at and every breach is reported, so that a writer mends all at once.
"""

import math
import re
import unicodedata
from collections.abc import Iterable, Iterator

from edgepack.bundle.contract import (
    DERIVED_LABEL,
    PREPROCESSING,
    Contract,
    Datatype,
    Parity,
    Task,
    TensorBinding,
    TensorSpec,
    Variant,
)
from edgepack.bundle.errors import ArchiveError, ContractError, ManifestError
from edgepack.bundle.part_path import check_path

MAX_DIMENSIONS = 8
MAX_TEXT = 256
_FORMAT = re.compile(r"(0|[1-9][0-9]{0,5})\.(0|[1-9][0-9]{0,5})", re.ASCII)
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)
_VARIANT = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}", re.ASCII)
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", re.ASCII)
# semver.org, "Is there a suggested regular expression", written for fullmatch
_SEMVER = re.compile(
    r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)"
    r"(-(0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*)(\.(0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*))*)?"
    r"(\+[0-9a-zA-Z-]+(\.[0-9a-zA-Z-]+)*)?",
    re.ASCII,
)
MAX_VERSION_LENGTH = 64


def problems_of(contract: Contract) -> tuple[str, ...]:
    """List all that is wrong with a contract, each in a few words."""
    return tuple(_problems(contract))


def is_version(text: str) -> bool:
    """Tell whether a text is a SemVer 2.0 version of at most 64 characters."""
    return len(text) <= MAX_VERSION_LENGTH and _SEMVER.fullmatch(text) is not None


def is_name(text: str) -> bool:
    """Tell whether a text may be a model's name."""
    return _NAME.fullmatch(text) is not None


def _problems(contract: Contract) -> Iterator[str]:
    if not _FORMAT.fullmatch(contract.format):
        yield f"format must be MAJOR.MINOR, got {contract.format[:20]!r}"
    if not is_name(contract.name):
        yield f"name must be 1 to 64 of [A-Za-z0-9_-], got {contract.name[:64]!r}"
    if not is_version(contract.version):
        yield f"version must be SemVer (1.0.0), got {contract.version[:64]!r}"
    yield from _tensors("inputs", contract.inputs)
    yield from _tensors("outputs", contract.outputs)
    yield from _classes(contract)
    tolerances = contract.tolerances
    for name in ("rtol", "atol", "max_drop"):
        if not _sane(getattr(tolerances, name)):
            yield f"tolerances.{name} must be >= 0, got {getattr(tolerances, name)}"
    memory = contract.device.min_memory_bytes
    if memory is not None and memory < 0:
        yield f"device.min_memory_bytes must be >= 0, got {memory}"
    yield from _variants(contract)
    for field in ("golden", "reference"):
        path = getattr(contract, field)
        if path is not None:
            yield from _path(field, path)
    if contract.pre:
        yield from _pre(contract)
    if contract.post or contract.state is not None:
        yield "post and state are reserved in format 1.0 and must be absent"


def _tensors(field: str, specs: tuple[TensorSpec, ...]) -> Iterator[str]:
    if not specs:
        yield f"{field} must not be empty"
    yield from _unique(field, (spec.name for spec in specs))
    for spec in specs:
        where = f"{field} {spec.name[:64]!r}"
        yield from _text(f"{where} name", spec.name)
        if not 1 <= len(spec.shape) <= MAX_DIMENSIONS:
            yield f"{where}: shape must have 1 to {MAX_DIMENSIONS} dimensions"
        elif any(size < 1 and size != -1 for size in spec.shape):
            yield f"{where}: shape must be of sizes >= 1, or -1, got {list(spec.shape)}"
        elif spec.feature_names and spec.shape[-1] not in (-1, len(spec.feature_names)):
            yield (
                f"{where}: feature_names must be {spec.shape[-1]} (the last dimension), "
                f"got {len(spec.feature_names)}"
            )
        yield from _unique(f"{where}: feature_names", spec.feature_names)
        for name in spec.feature_names:
            yield from _text(f"{where}: feature name", name)
        if spec.unit is not None:
            yield from _text(f"{where}: unit", spec.unit)
        low, high = spec.minimum, spec.maximum
        if not all(math.isfinite(bound) for bound in (low, high) if bound is not None):
            yield f"{where}: minimum and maximum must be finite"
        elif low is not None and high is not None and low > high:
            yield f"{where}: minimum must be <= maximum, got {low} and {high}"


def _classes(contract: Contract) -> Iterator[str]:
    names = contract.class_names
    if names and contract.task is not Task.CLASSIFICATION:
        yield f"class_names are for classification, got task {contract.task.value}"
    yield from _unique("class_names", names)
    for name in names:
        yield from _text("class name", name, shortest=0)  # "" is a label like any other
    for spec in contract.outputs:
        if names and spec.name == "probabilities" and spec.shape[-1:] not in ((-1,), (len(names),)):
            yield f"class_names must be {spec.shape[-1]} (probabilities), got {len(names)}"


def _variants(contract: Contract) -> Iterator[str]:
    if not contract.variants:
        yield "variants must not be empty"
    yield from _unique("variants", (variant.name for variant in contract.variants))
    for variant in contract.variants:
        where = f"variant {variant.name[:64]!r}"
        if not _VARIANT.fullmatch(variant.name):
            yield f"{where}: name must be 1 to 64 of [a-z0-9_-]"
        yield from _files(where, variant)
        if not _WORD.fullmatch(variant.precision):
            yield f"{where}: precision must be a word, got {variant.precision[:64]!r}"
        if not _WORD.fullmatch(variant.engine.engine):
            yield f"{where}: engine must be a word, got {variant.engine.engine[:64]!r}"
        for domain, opset in variant.engine.opsets.items():
            if opset < 1 or len(domain) > MAX_TEXT:
                yield f"{where}: opset of {domain[:64]!r} must be >= 1, got {opset}"
        yield from _bindings(f"{where} inputs", variant.inputs, contract.inputs)
        yield from _bindings(f"{where} outputs", variant.outputs, contract.outputs)
        yield from _derived(where, variant, contract)
        yield from _parity(where, variant.parity)


def _files(where: str, variant: Variant) -> Iterator[str]:
    if not variant.files:
        yield f"{where}: files must not be empty"
    yield from _unique(f"{where}: files", variant.files)
    for path in variant.files:
        yield from _path(f"{where}: file", path)
        if not path.startswith(f"{variant.name}/"):
            yield f"{where}: files must lie in the folder {variant.name[:64]!r}, got {path[:80]!r}"
    if variant.size_bytes < 0:
        yield f"{where}: size_bytes must be >= 0, got {variant.size_bytes}"


def _bindings(
    where: str, bindings: tuple[TensorBinding, ...], specs: tuple[TensorSpec, ...]
) -> Iterator[str]:
    bound = [binding.name for binding in bindings]
    wanted = [spec.name for spec in specs]
    if sorted(bound) != sorted(wanted):
        yield f"{where} must bind {_shown(wanted)}, each once, got {_shown(bound)}"
    tensors = [binding.tensor for binding in bindings if binding.derive is None]
    yield from _unique(f"{where}: tensors", tensors)
    for binding in bindings:
        name = f"{where} {binding.name[:64]!r}"
        yield from _text(f"{name} tensor", binding.tensor)
        if (binding.scale is None) != (binding.zero_point is None):
            yield f"{name}: scale and zero_point must be given together"
        if binding.scale is not None and not (_sane(binding.scale) and binding.scale > 0):
            yield f"{name}: scale must be > 0, got {binding.scale}"
        if binding.batch is not None and binding.batch < 1:
            yield f"{name}: batch must be >= 1, got {binding.batch}"
        if binding.layout is not None and not _WORD.fullmatch(binding.layout):
            yield f"{name}: layout must be a word, got {binding.layout[:64]!r}"


def _pre(contract: Contract) -> Iterator[str]:
    from edgepack.bundle.pre_shapes import model_inputs  # most models have no steps

    if PREPROCESSING not in contract.requires:
        yield f"pre needs {PREPROCESSING!r} in requires"
    try:
        model_inputs(contract)
    except ContractError as exc:
        yield from exc.problems


def _derived(where: str, variant: Variant, contract: Contract) -> Iterator[str]:
    datatypes = {spec.name: spec.datatype for spec in contract.outputs}
    for binding in variant.inputs:
        if binding.derive is not None:
            yield f"{where} inputs {binding.name[:64]!r}: derive is for outputs"
    for binding in variant.outputs:
        if binding.derive is None:
            continue
        name = f"{where} outputs {binding.name[:64]!r}"
        if binding.derive != "argmax":
            yield f"{name}: derive must be argmax, got {binding.derive[:64]!r}"
        if datatypes.get(binding.name) is Datatype.BYTES and not contract.class_names:
            yield f"{name}: a text label can be derived of class_names only, which are absent"
        if DERIVED_LABEL not in contract.requires:
            yield f"{name}: derive needs {DERIVED_LABEL!r} in requires"


def _parity(where: str, parity: Parity) -> Iterator[str]:
    if parity.rows < 0:
        yield f"{where}: parity.rows must be >= 0, got {parity.rows}"
    if not _WORD.fullmatch(parity.metric):
        yield f"{where}: parity.metric must be a word, got {parity.metric[:64]!r}"
    if not all(map(math.isfinite, (parity.value, parity.bound, *parity.figures.values()))):
        yield f"{where}: parity must be of finite numbers"


def _path(field: str, path: str) -> Iterator[str]:
    try:
        check_path(path)
    except (ArchiveError, ManifestError) as exc:
        yield f"{field}: {exc}"


def _text(where: str, text: str, *, shortest: int = 1) -> Iterator[str]:
    # Spaces of other scripts are not "printable" to Python, but columns are named with them.
    shown = "".join(" " if unicodedata.category(char) == "Zs" else char for char in text[:MAX_TEXT])
    if not shortest <= len(text) <= MAX_TEXT or not shown.isprintable():
        yield f"{where} must be {shortest} to {MAX_TEXT} printable characters, got {text[:64]!r}"


def _unique(where: str, names: Iterable[str]) -> Iterator[str]:
    seen = set()
    for name in names:
        if name in seen:
            yield f"{where}: {name[:64]!r} stands twice"
        seen.add(name)


def _sane(number: float) -> bool:
    return math.isfinite(number) and number >= 0


def _shown(names: list[str]) -> str:
    text = ", ".join(repr(name[:64]) for name in names[:5])
    return f"{text}, … ({len(names)} in all)" if len(names) > 5 else text or "none"
