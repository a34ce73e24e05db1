"""Loads the model inside a folder by its own source, and adds what the signature says."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from edgepack.bundle.contract import TensorSpec
from edgepack.converter.errors import ModelFileError, UnfitDataError, UnsupportedModelError
from edgepack.converter.mlflow_model.folder import MlflowFolder, read_folder
from edgepack.converter.mlflow_model.model import MlflowModel
from edgepack.converter.sources.find import recognise, source_named
from edgepack.converter.sources.source import LoadedModel, LoadOptions, ModelFacts
from edgepack.runtime.tensors import Array

_TEXT = "string"


def load_model(path: Path, options: LoadOptions) -> LoadedModel:
    """Load the model of an MLflow folder.

    Raises:
        ModelFileError: The folder or the file inside is damaged.
        UnsafeModelError: The file asks for code that is not on the list.
        UnsupportedModelError: Its flavour is none that edgepack converts.
        MissingPackageError: The flavour's package is not installed.
    """
    folder = read_folder(path)
    found = recognise(folder.model)
    if found.module == "mlflow_folder":
        raise ModelFileError(f"{path.name} holds another MLflow folder as its model")
    source = source_named(found.module)
    source.prepare()
    model = source.load(folder.model, options)
    facts = _with_signature(model.facts, folder)
    facts = replace(facts, messages=(*facts.messages, *_tried(model, facts, folder)))
    return MlflowModel(model=model, facts=facts)


def _with_signature(facts: ModelFacts, folder: MlflowFolder) -> ModelFacts:
    """Names and text columns from the signature, where the model itself knows none."""
    names = tuple(column.name for column in folder.columns)
    text = tuple(index for index, column in enumerate(folder.columns) if column.kind == _TEXT)
    if not names:
        return facts
    if facts.inputs:
        return replace(facts, inputs=_named(facts.inputs, names))
    if facts.features not in (None, len(names)):
        note = (
            f"the signature has {len(names)} columns and the model takes {facts.features}: "
            "the signature is not used"
        )
        return (
            replace(facts, messages=(*facts.messages, note)) if not facts.feature_names else facts
        )
    if facts.feature_names:
        return facts
    return replace(
        facts,
        feature_names=names,
        features=len(names),
        text_features=tuple(sorted({*facts.text_features, *text})),
        messages=(*facts.messages, "the columns' names are those of the MLflow signature"),
    )


def _named(inputs: tuple[TensorSpec, ...], names: tuple[str, ...]) -> tuple[TensorSpec, ...]:
    """The one matrix of a model file with the signature's names for its columns."""
    if len(inputs) != 1 or len(inputs[0].shape) != 2 or inputs[0].shape[1] not in (-1, len(names)):
        return inputs
    return (replace(inputs[0], shape=(-1, len(names)), feature_names=names),)


def _tried(model: LoadedModel, facts: ModelFacts, folder: MlflowFolder) -> tuple[str, ...]:
    """What came of giving the model its own input example."""
    if folder.example is None or facts.task is None:
        return ()
    rows = len(folder.example)
    try:
        answers = model.run(facts.task, _feeds(facts, folder))
    except (UnfitDataError, UnsupportedModelError, ModelFileError) as exc:
        return (f"the model does not answer the folder's input example: {exc}",)
    if any(array.shape[:1] != (rows,) for array in answers.values()):
        return (f"the model does not answer the {rows} rows of the folder's input example",)
    return (f"the model answers the {rows} rows of the folder's input example",)


def _feeds(facts: ModelFacts, folder: MlflowFolder) -> dict[str, Array]:
    """The example as the conversion would give the data."""
    columns = [_column(cells) for cells in zip(*(folder.example or ()), strict=True)]
    names = folder.example_columns
    if facts.feature_names and set(facts.feature_names) <= set(names):
        columns = [columns[names.index(name)] for name in facts.feature_names]
    if facts.features not in (None, len(columns)):
        raise UnfitDataError(f"it takes {facts.features} columns, got {len(columns)}")
    if all(column.dtype.kind == "f" for column in columns):
        matrix = np.stack(columns, axis=1)
        if facts.inputs:
            (spec,) = facts.inputs[:1]
            return {spec.name: matrix.astype(np.float32)}
        return {"x": matrix}
    made_up = facts.feature_names or tuple(f"x{index}" for index in range(len(columns)))
    return {name: column[:, None] for name, column in zip(made_up, columns, strict=True)}


def _column(cells: tuple[object, ...]) -> Array:
    """Numbers as float64 with NaN for gaps, or text with "" for them."""
    if any(isinstance(cell, str) for cell in cells):
        text = np.empty(len(cells), dtype=np.object_)
        text[:] = ["" if cell is None else str(cell) for cell in cells]
        return text
    return np.array(
        [np.nan if cell is None else float(cell) for cell in cells],  # type: ignore[arg-type]
        dtype=np.float64,
    )
