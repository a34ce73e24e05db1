"""What the original is for, and what it answers for the held-out rows."""

from collections.abc import Mapping

import numpy as np

from edgepack.bundle.contract import Datatype, Task
from edgepack.converter.errors import RequestError, UnfitDataError
from edgepack.converter.match import MatchedInputs, nan_columns, nan_rows
from edgepack.converter.request import ConvertRequest
from edgepack.converter.search.original import OriginalModel
from edgepack.converter.sources.source import ModelFacts
from edgepack.converter.truth import looks_like_classes
from edgepack.runtime.dataset import Dataset
from edgepack.runtime.tensors import Array

_MOST_NAN_ROWS = 256
_MOST_TEXT_ROWS = 256
_MOST_TOLD = 5


def ask_original(
    original: OriginalModel,
    facts: ModelFacts,
    task: Task,
    matched: MatchedInputs,
    inputs: Mapping[str, Array],
) -> dict[str, Array]:
    """Ask the original for its answers; a refusal is told by the columns that explain it.

    Raises:
        UnfitDataError: The model refuses the rows, or answers another number of them.
        ConvertError: The child failed.
    """
    try:
        expected = original.run(task, inputs)
    except UnfitDataError as exc:
        if nan_columns(matched.specs, matched.arrays):
            raise _no_nan(matched) from exc
        raise _with_text(exc, _text_columns(facts, matched)) from exc
    rows = next(iter(inputs.values())).shape[0]
    if not expected or any(array.shape[:1] != (rows,) for array in expected.values()):
        raise UnfitDataError(f"the model must answer {rows} rows with as many, got others")
    return expected


def check_nan(original: OriginalModel, task: Task, matched: MatchedInputs) -> None:
    """See to it that the original takes the data's NaN, in whichever rows that is.

    A neural network answers such a row with NaN rather than refuse it.

    Raises:
        UnfitDataError: It refuses them, or answers NaN where the task has a real answer.
        ConvertError: The child failed.
    """
    rows = nan_rows(matched.arrays)[:_MOST_NAN_ROWS]
    inputs = {name: array[rows] for name, array in matched.arrays.items()}
    try:
        answers = original.run(task, inputs)
    except UnfitDataError as exc:
        raise _no_nan(matched) from exc
    is_nan = any(np.isnan(array).any() for array in answers.values() if array.dtype.kind == "f")
    if is_nan and task is not Task.TRANSFORM:  # a transformer may hand NaN through
        raise _no_nan(matched)


def check_text(
    original: OriginalModel, facts: ModelFacts, task: Task, matched: MatchedInputs
) -> None:
    """See to it that the original takes text that is no number, in whichever rows that is.

    One such cell makes a whole column text, and need not be among the rows that are held out.

    Raises:
        UnfitDataError: It refuses such a row.
        ConvertError: The child failed.
    """
    columns = _text_columns(facts, matched)
    if not columns:
        return
    rows = np.unique(np.concatenate(list(columns.values())))[:_MOST_TEXT_ROWS]
    try:
        original.run(task, {name: array[rows] for name, array in matched.arrays.items()})
    except UnfitDataError as exc:
        raise _with_text(exc, columns) from exc


def _text_columns(facts: ModelFacts, matched: MatchedInputs) -> dict[str, Array]:
    """Columns of text that the model is not known to take, with the rows, from 0, of no number."""
    found: dict[str, Array] = {}
    place = 0
    for spec in matched.specs:
        for column, name in enumerate(spec.feature_names):
            if spec.datatype is Datatype.BYTES and place not in facts.text_features:
                cells = matched.arrays[spec.name][:, column]
                rows = [row for row, cell in enumerate(cells) if not _is_number(cell)]
                if rows:
                    found[name] = np.array(rows)
            place += 1
    return found


def _with_text(exc: UnfitDataError, columns: Mapping[str, Array]) -> UnfitDataError:
    """The refusal, with the columns that explain it."""
    if not columns:
        return exc
    told = [f"{name!r}, first in row {rows[0] + 1}" for name, rows in columns.items()]
    return UnfitDataError(f"{exc} (text in {'; '.join(told[:_MOST_TOLD])})")


def _is_number(cell: object) -> bool:
    try:
        float(cell)  # type: ignore[arg-type]  # what is none raises
    except (TypeError, ValueError):
        return False
    return True


def _no_nan(matched: MatchedInputs) -> UnfitDataError:
    columns = nan_columns(matched.specs, matched.arrays)
    more = f" and {len(columns) - _MOST_TOLD} more" if len(columns) > _MOST_TOLD else ""
    return UnfitDataError(
        f"the model takes no NaN, and the data has it in {', '.join(columns[:_MOST_TOLD])}{more}"
    )


def decide_task(facts: ModelFacts, dataset: Dataset, request: ConvertRequest) -> Task:
    """The task that was given, or that the model or the truth tells.

    Raises:
        RequestError: The task that was given is not the model's.
    """
    if request.task is not None:
        if facts.task not in (None, request.task) and not facts.outputs:
            raise RequestError(
                f"the model is for {facts.task.value if facts.task else '?'}, "
                f"got task {request.task.value}"
            )
        return request.task
    if facts.task is not None:
        return facts.task
    columns = facts.outputs[0].shape[-1] if facts.outputs else 0
    if dataset.truth is None:
        return Task.GENERIC
    return Task.CLASSIFICATION if looks_like_classes(dataset.truth, columns) else Task.REGRESSION
