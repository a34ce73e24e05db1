"""A recipe: a TOML file that pins a conversion down, so that it can be repeated.

It holds what a person decides about a model and its data, and no paths: the same recipe serves on
every machine. Its digest goes into the provenance. What each key means: docs/recipe.md.
"""

import hashlib
import math
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final

from edgepack.bundle.contract import Task
from edgepack.bundle.contract_rules import is_name, is_version
from edgepack.bundle.errors import ContractError
from edgepack.bundle.pre_codec import MAX_SAMPLES, MAX_SIDE, parse_steps
from edgepack.bundle.pre_steps import Step
from edgepack.converter.errors import RequestError
from edgepack.converter.request import FORMATS, Precision
from edgepack.trust.decode import decode
from edgepack.trust.errors import DocumentError

MAX_RECIPE_BYTES: Final = 1 << 20
CALIBRATIONS: Final = ("minmax", "entropy", "percentile")
INTEGERS: Final = ("u8", "s8")
MAX_CALIBRATION_ROWS: Final = 1_000_000
MAX_SEED: Final = 2**32 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class RecipeModel:
    """The table [model]: what the bundle says of the model.

    Attributes:
        name, version, task: As in `ConvertRequest`.
        label: Column of the data with the true answers.
    """

    name: str | None = None
    version: str | None = None
    task: Task | None = None
    label: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RecipeData:
    """The table [data]: how a folder is read.

    Attributes:
        image_size: Height and width that images are resized to, in pixels.
        audio_samples: Length that signals are cut or filled up to.
    """

    image_size: tuple[int, ...] = ()
    audio_samples: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RecipeConvert:
    """The table [convert]: which variants are made, and how well they must do.

    Attributes:
        formats, precision: What to make; empty leaves it to the command.
        max_drop, rtol, atol: Tolerances.
        calibration_rows: How many rows calibrate static int8.
        calibration: How ranges are found: "minmax", "entropy" or "percentile".
        activation, weight: Integers of static int8 in ONNX: "u8" or "s8".
        reduce_range: Whether its weights have 7 bits.
        per_channel: Whether each output channel has a scale of its own.
        keep_float: Layers that are not quantized, by their names in the model file.
        seed: Of everything that is drawn by lot.
    """

    formats: tuple[str, ...] = ()
    precision: tuple[Precision, ...] = ()
    max_drop: float | None = None
    rtol: float | None = None
    atol: float | None = None
    calibration_rows: int | None = None
    calibration: str | None = None
    activation: str | None = None
    weight: str | None = None
    reduce_range: bool | None = None
    per_channel: bool | None = None
    keep_float: tuple[str, ...] = ()
    seed: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """What a recipe says; what it does not say is None or empty.

    Attributes:
        model, data, convert: Its tables.
        pre: Steps from the data to the model's inputs, as written: `steps_for` reads them.
        digest: "sha256:…" of the file.
    """

    model: RecipeModel = RecipeModel()
    data: RecipeData = RecipeData()
    convert: RecipeConvert = RecipeConvert()
    pre: tuple[dict[str, object], ...] = ()
    digest: str = ""

    @property
    def image_size(self) -> tuple[int, int] | None:
        """Height and width, if it says them."""
        size = self.data.image_size
        return (size[0], size[1]) if size else None

    def steps_for(self, inputs: Sequence[str]) -> tuple[Step, ...]:
        """The steps, for a model with inputs of these names.

        A step that names no input is for the only one.

        Raises:
            RequestError: The model has several inputs and a step names none.
        """
        if len(inputs) != 1 and any("input" not in step for step in self.pre):
            raise RequestError(
                f"recipe: each step of pre must name its input, one of {', '.join(inputs)[:200]}"
            )
        return parse_steps([{"input": inputs[0], **step} for step in self.pre])


_TABLES: Final[dict[str, type]] = {
    "model": RecipeModel,
    "data": RecipeData,
    "convert": RecipeConvert,
}


def read_recipe(path: Path) -> Recipe:
    """Read a recipe.

    Raises:
        RequestError: It cannot be read, is not TOML, or has a key or value that a recipe has not.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_RECIPE_BYTES + 1)
    except OSError as exc:
        raise RequestError(f"recipe {path.name} cannot be read: {exc.strerror}") from exc
    if len(data) > MAX_RECIPE_BYTES:
        raise RequestError(f"recipe {path.name} must be at most {MAX_RECIPE_BYTES} bytes")
    return parse_recipe(data, what=f"recipe {path.name}")


def parse_recipe(data: bytes, *, what: str = "recipe") -> Recipe:
    """Read a recipe's text.

    Raises:
        RequestError: It is not TOML, or has a key or value that a recipe has not.
    """
    try:
        document = tomllib.loads(data.decode())
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as exc:
        reason = " ".join(str(exc).split())[:160]
        raise RequestError(f"{what} is not TOML: {reason}") from exc
    _check_keys(document, what)
    if isinstance(document.get("convert"), dict):
        _as_list(document["convert"], "precision", "formats")
    document = {**document, "pre": document.get("pre", []), "digest": ""}
    try:
        recipe: Recipe = decode(Recipe, document, what=what, ignore_unknown=False)
    except DocumentError as exc:
        raise RequestError(str(exc)) from exc
    problems = tuple(_problems(recipe))
    if problems:
        raise RequestError(f"{what}: {'; '.join(problems[:5])}")
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    return Recipe(
        model=recipe.model, data=recipe.data, convert=recipe.convert, pre=recipe.pre, digest=digest
    )


def _check_keys(document: Mapping[str, Any], what: str) -> None:
    """Refuse what no recipe has, with what it may have."""
    _check_known(document, [*_TABLES, "pre"], what, "")
    for table, kind in _TABLES.items():
        found = document.get(table)
        if isinstance(found, dict):
            _check_known(found, [field.name for field in fields(kind)], what, f" in [{table}]")


def _check_known(found: Mapping[str, Any], known: Sequence[str], what: str, where: str) -> None:
    unknown = [key for key in found if key not in known]
    if unknown:
        raise RequestError(
            f"{what}: key{where} must be one of {', '.join(known)}, got {unknown[0][:80]!r}"
        )


def _as_list(table: dict[str, Any], *keys: str) -> None:
    for key in keys:
        if isinstance(table.get(key), str):
            table[key] = [table[key]]


def _problems(recipe: Recipe) -> Iterator[str]:
    name, version = recipe.model.name, recipe.model.version
    if name is not None and not is_name(name):
        yield f"name must be 1 to 64 of [A-Za-z0-9_-], got {name[:80]!r}"
    if version is not None and not is_version(version):
        yield f"version must be SemVer (1.0.0), got {version[:80]!r}"
    size = recipe.data.image_size
    if size and (len(size) != 2 or not all(1 <= side <= MAX_SIDE for side in size)):
        yield f"image_size must be [height, width], each 1 to {MAX_SIDE}, got {list(size)}"
    yield from _between("audio_samples", recipe.data.audio_samples, 1, MAX_SAMPLES)
    yield from _convert_problems(recipe.convert)
    try:
        parse_steps([{"input": "x", **step} for step in recipe.pre])
    except ContractError as exc:
        yield from exc.problems


def _convert_problems(convert: RecipeConvert) -> Iterator[str]:
    unknown = [item for item in convert.formats if item not in FORMATS]
    if unknown:
        yield f"formats must be of {', '.join(FORMATS)}, got {unknown[0][:40]!r}"
    if Precision.AUTO in convert.precision and len(convert.precision) > 1:
        yield "precision auto stands alone"
    for name in ("max_drop", "rtol", "atol"):
        value = getattr(convert, name)
        if value is not None and not 0 <= value < (1 if name == "max_drop" else math.inf):
            bound = "0 to below 1" if name == "max_drop" else ">= 0"
            yield f"{name} must be {bound}, got {value:g}"
    yield from _between("calibration_rows", convert.calibration_rows, 1, MAX_CALIBRATION_ROWS)
    yield from _between("seed", convert.seed, 0, MAX_SEED)
    if convert.calibration not in (None, *CALIBRATIONS):
        yield f"calibration must be one of {', '.join(CALIBRATIONS)}, got {convert.calibration!r}"
    for name in ("activation", "weight"):
        value = getattr(convert, name)
        if value not in (None, *INTEGERS):
            yield f"{name} must be one of {', '.join(INTEGERS)}, got {value[:40]!r}"
    if (convert.activation, convert.weight) == ("s8", "u8"):
        yield "activation s8 needs weight s8, got 'u8'"
    if convert.reduce_range and convert.weight == "u8":
        yield "reduce_range is for weight s8, got weight 'u8'"


def _between(name: str, value: int | None, low: int, high: int) -> Iterator[str]:
    if value is not None and not low <= value <= high:
        yield f"{name} must be {low} to {high}, got {value}"
