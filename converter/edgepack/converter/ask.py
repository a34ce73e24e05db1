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
        text = [
            repr(name)
            for index, name in enumerate(n for s in matched.specs for n in s.feature_names)
            if index not in facts.text_features and _is_text(matched, name)
        ]
        if text:
            raise UnfitDataError(f"{exc} (text columns: {', '.join(text[:5])})") from exc
        raise
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


def _no_nan(matched: MatchedInputs) -> UnfitDataError:
    columns = nan_columns(matched.specs, matched.arrays)
    more = f" and {len(columns) - _MOST_TOLD} more" if len(columns) > _MOST_TOLD else ""
    return UnfitDataError(
        f"the model takes no NaN, and the data has it in {', '.join(columns[:_MOST_TOLD])}{more}"
    )


def _is_text(matched: MatchedInputs, name: str) -> bool:
    return any(
        spec.datatype is Datatype.BYTES and name in spec.feature_names for spec in matched.specs
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
