"""Labels that the runtime derives of scores: right on every path, whatever their datatype."""

import dataclasses

import numpy as np
import pytest
from onnx import helper
from runtime_models import FakeBundle, binding_of, bundle_of, graph_bytes, tensor

from edgepack.bundle.contract import Datatype, Task
from edgepack.runtime import EngineError, load
from edgepack.runtime.labels import classes_of


def classifier(
    *,
    datatype: Datatype = Datatype.BYTES,
    class_names: tuple[str, ...] = ("a", "b", "c"),
    with_scores: bool = True,
    batch: int | None = None,
) -> FakeBundle:
    """The scores are the input; the label is derived of them."""
    rows = -1 if batch is None else batch
    file = graph_bytes(
        [helper.make_node("Identity", ["x"], ["y"])],
        [("x", Datatype.FP32, (rows, 3))],
        [("y", Datatype.FP32, (rows, 3))],
    )
    x = tensor("x", Datatype.FP32, (-1, 3))
    label = tensor("label", datatype, (-1,))
    scores = tensor("scores", Datatype.FP32, (-1, 3))
    derived = binding_of(label, tensor="y", dtype=Datatype.FP32, derive="argmax", batch=batch)
    given = binding_of(scores, tensor="y", batch=batch)
    return bundle_of(
        file,
        [x],
        [label, scores] if with_scores else [label],
        task=Task.CLASSIFICATION,
        input_bindings=[binding_of(x, batch=batch)],
        output_bindings=[derived, given] if with_scores else [derived],
        class_names=class_names,
        requires=("derived-label",),
    )


ROWS = np.array([[0, 1, 0], [2, 1, 2], [-3, -2, -1], [1, 1, 1]], np.float32)
CALLS = 5  # the third and later calls of a shape take the quick path


@pytest.mark.parametrize("with_scores", [True, False])
@pytest.mark.parametrize(
    ("datatype", "names", "expected"),
    [
        (Datatype.BYTES, ("a", "b", "c"), ["b", "a", "c", "a"]),
        (Datatype.INT64, (), [1, 0, 2, 0]),
        (Datatype.INT64, ("7", "-1", "5"), [-1, 7, 5, 7]),
        (Datatype.INT32, ("x", "y", "z"), [1, 0, 2, 0]),
        (Datatype.FP32, ("0.5", "1", "2"), [1.0, 0.5, 2.0, 0.5]),
    ],
)
def test_the_label_is_the_class_of_the_largest_score(datatype, names, expected, with_scores):
    """Text, numbers or an index; the first of equal scores; alone or beside the scores."""
    bundle = classifier(datatype=datatype, class_names=names, with_scores=with_scores)
    with load(bundle) as model:
        for call in range(CALLS):
            rows = np.roll(ROWS, call, axis=0)
            answer = model.predict({"x": rows})

            assert np.roll(np.array(expected, object), call).tolist() == answer["label"].tolist()
            assert (4,) == answer["label"].shape
            if with_scores:
                np.testing.assert_array_equal(rows, answer["scores"])


def test_the_quick_path_derives_labels_too(monkeypatch):
    """After two plain calls of a shape no further one is plain."""
    with load(classifier()) as model:
        plain = []
        run = model._adapter.run
        monkeypatch.setattr(model._adapter, "run", lambda arrays: plain.append(1) or run(arrays))
        for _ in range(CALLS):
            assert ["b", "a", "c", "a"] == model.predict({"x": ROWS})["label"].tolist()

        assert [1, 1] == plain


@pytest.mark.parametrize("rows", [1, 2, 3, 4])
def test_a_file_of_a_fixed_batch_derives_labels(rows):
    """In whole batches, in parts of one, and on the quick path where the batch fits."""
    with load(classifier(batch=2)) as model:
        for _ in range(CALLS):
            answer = model.predict({"x": ROWS[:rows]})

            assert ["b", "a", "c", "a"][:rows] == answer["label"].tolist()
            np.testing.assert_array_equal(ROWS[:rows], answer["scores"])


def test_no_rows_give_no_labels():
    """The model is not run for them."""
    with load(classifier()) as model:
        assert (0,) == model.predict({"x": np.empty((0, 3), np.float32)})["label"].shape


def test_another_number_of_scores_than_classes_is_an_error():
    """The names would stand for the wrong columns."""
    bundle = classifier(class_names=("a", "b"))
    contract = dataclasses.replace(bundle.contract)
    with (
        load(FakeBundle(contract, bundle.files)) as model,
        pytest.raises(EngineError, match=r"tensor 'y' must have 2 scores .* got 3"),
    ):
        model.predict({"x": ROWS})


@pytest.mark.parametrize(
    ("names", "datatype", "expected"),
    [
        (("True", "False"), Datatype.BOOL, [True, False]),
        (("yes", "no"), Datatype.BOOL, None),
        (("1", "2.5"), Datatype.INT64, None),
        (("1", "300"), Datatype.INT8, None),
        (("3", "5"), Datatype.UINT8, [3, 5]),
        ((), Datatype.BYTES, None),
    ],
)
def test_classes_are_values_of_the_datatype_or_nothing(names, datatype, expected):
    """Names that are no such values leave the index."""
    found = classes_of(names, datatype)

    assert expected == (None if found is None else found.tolist())
