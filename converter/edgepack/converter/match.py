"""Decides a model's inputs from what the model knows and what the data has."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from edgepack.bundle.contract import Datatype, TensorSpec
from edgepack.converter.errors import UnfitDataError
from edgepack.converter.match_casts import casts
from edgepack.converter.sources.source import ModelFacts
from edgepack.runtime.dataset import Dataset
from edgepack.runtime.dataset_inputs import arrange, made_up_names
from edgepack.runtime.tensors import Array

_MAX_MADE_UP_NAMES = 1024
_FLOAT_KINDS = "f"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MatchedInputs:
    """Inputs as the contract will have them, and the data for them.

    Attributes:
        specs: The contract's inputs; numbers of a tabular model are FP32.
        arrays: For the original: by contract name, all rows; FP64 where the framework computes
            in float64, whatever the contract says.
        messages: What a person should know about the match.
    """

    specs: tuple[TensorSpec, ...]
    arrays: dict[str, Array]
    messages: tuple[str, ...]


def match_inputs(facts: ModelFacts, dataset: Dataset) -> MatchedInputs:
    """Match the data's columns to the model's inputs.

    Raises:
        DatasetError: A column is missing, or has another type or size than the model takes.
        UnfitDataError: A value is infinite, or a whole number that the input cannot hold.
    """
    if facts.inputs:
        specs = tuple(_sized(spec, facts, dataset) for spec in facts.inputs)
        arranged = arrange(dataset, specs)
        arrays = arranged.inputs
        messages = (*arranged.messages, *casts(specs, dataset))
        specs = tuple(_named_by_data(spec, specs, dataset) for spec in specs)
    else:
        specs, notes = _tabular_specs(facts, dataset)
        arranged = arrange(dataset, [_wide(spec) for spec in specs])
        arrays = arranged.inputs
        messages = (*notes, *arranged.messages)
    for spec in specs:
        _refuse_infinite(spec, arrays[spec.name])
    return MatchedInputs(
        specs=specs, arrays=arrays, messages=(*messages, *_empty_texts(specs, arrays))
    )


def narrow(specs: Sequence[TensorSpec], arrays: Mapping[str, Array]) -> dict[str, Array]:
    """The arrays with the contract's own datatypes: what a caller on a device gives."""
    found = {}
    for spec in specs:
        array = arrays[spec.name]
        found[spec.name] = array.astype(np.float32) if spec.datatype is Datatype.FP32 else array
    return found


def widened(specs: Sequence[TensorSpec]) -> tuple[TensorSpec, ...]:
    """The same inputs with FP64 for FP32."""
    return tuple(_wide(spec) for spec in specs)


def nan_columns(specs: Sequence[TensorSpec], arrays: Mapping[str, Array]) -> list[str]:
    """The columns that have NaN, each with its rows: "'a' (3 rows, the first is row 7)"."""
    found = []
    for spec in specs:
        array = arrays[spec.name]
        if array.dtype.kind not in _FLOAT_KINDS:
            continue
        missing = np.isnan(array).reshape(len(array), -1)
        counts = missing.sum(axis=0)
        names = spec.feature_names if len(spec.feature_names) == len(counts) else ()
        for index in np.flatnonzero(counts):
            name = names[index] if names else f"{spec.name}[{index}]"
            first = int(missing[:, index].argmax()) + 1
            rows = f"{counts[index]} rows, the first is" if counts[index] > 1 else "only"
            found.append(f"{name!r} ({rows} row {first})")
    return found


def nan_rows(arrays: Mapping[str, Array]) -> NDArray[np.intp]:
    """The rows, from 0, that have NaN in any input."""
    missing = [
        np.isnan(array).reshape(len(array), -1).any(axis=1)
        for array in arrays.values()
        if array.dtype.kind in _FLOAT_KINDS
    ]
    return np.flatnonzero(np.any(missing, axis=0)) if missing else np.empty(0, dtype=np.intp)


def nan_probe(specs: Sequence[TensorSpec], arrays: Mapping[str, Array]) -> dict[str, Array] | None:
    """Rows of which each has one NaN, in every column in turn; None if no input takes floats.

    At most 256 columns are tried.
    """
    columns = [
        (spec.name, index)
        for spec in specs
        if arrays[spec.name].dtype.kind in _FLOAT_KINDS and arrays[spec.name].ndim == 2
        for index in range(arrays[spec.name].shape[1])
    ][:256]
    if not columns:
        return None
    rows = np.zeros(len(columns), dtype=np.intp)
    probe = {name: array[rows].copy() for name, array in arrays.items()}
    for row, (name, index) in enumerate(columns):
        probe[name][row, index] = np.nan
    return probe


def _tabular_specs(
    facts: ModelFacts, dataset: Dataset
) -> tuple[tuple[TensorSpec, ...], tuple[str, ...]]:
    names, notes = _column_names(facts, dataset)
    text = _text_positions(facts, dataset, names)
    if not text or len(text) == len(names):
        return (
            TensorSpec(
                name="x",
                datatype=Datatype.BYTES if text else Datatype.FP32,
                shape=(-1, len(names)),
                feature_names=names if len(names) <= _MAX_MADE_UP_NAMES else (),
            ),
        ), notes
    specs = [
        TensorSpec(
            name=name,
            datatype=Datatype.BYTES if index in text else Datatype.FP32,
            shape=(-1, 1),
            feature_names=(name,),
        )
        for index, name in enumerate(names)
    ]
    return tuple(specs), notes


def _column_names(facts: ModelFacts, dataset: Dataset) -> tuple[tuple[str, ...], tuple[str, ...]]:
    if facts.feature_names:
        if dataset.named and dataset.is_table:
            return tuple(_in_data(name, dataset) for name in facts.feature_names), ()
        return facts.feature_names, ("the data has no column names: matched by order",)
    columns = list(dataset.arrays)
    if dataset.named and dataset.is_table:
        if facts.features not in (None, len(columns)):
            hint = "; is one of them the label?" if len(columns) == facts.features + 1 else ""
            raise UnfitDataError(
                f"the model takes {facts.features} columns and has no names for them; the data "
                f"has {len(columns)}{hint}"
            )
        return tuple(columns), ("columns are matched by order: the model has no column names",)
    if facts.features is not None:
        return made_up_names("x", facts.features), ()
    widths = [array[0].size for array in dataset.arrays.values() if array.ndim > 1]
    return made_up_names("x", widths[0] if widths else len(columns)), ()


def _in_data(name: str, dataset: Dataset) -> str:
    """The data's name for a column: LightGBM writes "tool_wear" for "tool wear"."""
    if name in dataset.arrays:
        return name
    alike = [item for item in dataset.arrays if "_".join(item.split()) == name]
    return alike[0] if len(alike) == 1 else name


def _text_positions(facts: ModelFacts, dataset: Dataset, names: Sequence[str]) -> set[int]:
    found = set(facts.text_features)
    for index, name in enumerate(names):
        array = dataset.arrays.get(name)
        if array is not None and array.dtype == np.object_:
            found.add(index)
    tensors = [array for array in dataset.arrays.values() if array.ndim > 1]
    if len(tensors) == 1 and tensors[0].dtype == np.object_:
        found.update(range(len(names)))
    return found


def _sized(spec: TensorSpec, facts: ModelFacts, dataset: Dataset) -> TensorSpec:
    """Take the width that a file leaves open from the data, where there is only one candidate."""
    if len(facts.inputs) != 1 or len(spec.shape) != 2 or spec.shape[1] != -1:
        return spec
    if dataset.names:  # signals, of any length
        return spec
    tensors = [array for array in dataset.arrays.values() if array.ndim == 2]
    if dataset.is_table:
        width = len(dataset.arrays)
    elif len(tensors) == 1:
        width = tensors[0].shape[1]
    else:
        return spec
    return replace(spec, shape=(-1, width), feature_names=made_up_names(spec.name, width))


def _named_by_data(spec: TensorSpec, specs: Sequence[TensorSpec], dataset: Dataset) -> TensorSpec:
    """The data's column names, for a model whose one input has none of its own."""
    usable = len(specs) == 1 and len(spec.shape) == 2 and dataset.named and dataset.is_table
    if usable and spec.shape[1] == len(dataset.arrays) and spec.name not in dataset.arrays:
        return replace(spec, feature_names=tuple(dataset.arrays))
    return spec


def _wide(spec: TensorSpec) -> TensorSpec:
    return replace(spec, datatype=Datatype.FP64) if spec.datatype is Datatype.FP32 else spec


def _empty_texts(specs: Sequence[TensorSpec], arrays: Mapping[str, Array]) -> Iterator[str]:
    """ONNX has no missing text: what a device gives for it is said."""
    for spec in specs:
        if spec.datatype is Datatype.BYTES:
            empty = int((arrays[spec.name] == "").sum())
            if empty:
                yield (
                    f"input {spec.name!r} has {empty} missing values: devices give empty text "
                    "for one"
                )


def _refuse_infinite(spec: TensorSpec, array: Array) -> None:
    if array.dtype.kind not in _FLOAT_KINDS:
        return
    infinite = np.isinf(array).reshape(len(array), -1)
    if infinite.any():
        row, column = np.argwhere(infinite)[0]
        named = len(spec.feature_names) == infinite.shape[1]
        name = spec.feature_names[column] if named else f"{spec.name}[{column}]"
        raise UnfitDataError(f"column {name!r} must be finite, got infinity in row {row + 1}")
