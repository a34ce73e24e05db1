"""From a caller's JSON to arrays and back."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.tiny_bundle import FEATURES, tiny_model

from edgepack.agent.serve.requests import to_answer, to_inputs, to_tensors
from edgepack.bundle.contract import Contract, Datatype, Nonfinite, Task, TensorSpec
from edgepack.runtime.errors import InputError
from edgepack.wire.errors import WireError
from edgepack.wire.infer import parse_request


def contract(*inputs: TensorSpec, task: Task = Task.CLASSIFICATION) -> Contract:
    outputs = (TensorSpec(name="label", datatype=Datatype.BYTES, shape=(-1,)),)
    return Contract(
        name="m",
        version="1.0.0",
        task=task,
        inputs=inputs,
        outputs=outputs,
        variants=(),
        golden="g",
    )


MATRIX = TensorSpec(name="x", datatype=Datatype.FP32, shape=(-1, 4), feature_names=FEATURES)
COLUMN = TensorSpec(name="Type", datatype=Datatype.BYTES, shape=(-1, 1), feature_names=("Type",))
COUNT = TensorSpec(name="n", datatype=Datatype.INT64, shape=(-1, 1), feature_names=("n",))


def inputs_of(value: object, *specs: TensorSpec) -> dict[str, np.ndarray]:
    return to_inputs(parse_request(json.dumps(value).encode()), contract(*specs))


def test_features_by_name_are_one_sample():
    """The order of the keys does not matter."""
    row = {name: float(i) for i, name in enumerate(FEATURES)}
    shuffled = dict(sorted(row.items()))
    inputs = inputs_of({**shuffled, "request_id": "a"}, MATRIX)
    np.testing.assert_array_equal(np.array([[0, 1, 2, 3]], np.float32), inputs["x"])
    assert np.float32 == inputs["x"].dtype


def test_a_whole_input_may_be_given_as_a_list():
    """A list under the input's name is that input."""
    inputs = inputs_of({"x": [1, 2, 3, 4]}, MATRIX)
    assert (1, 4) == inputs["x"].shape


def test_columns_of_different_kinds():
    """A string column and an integer column each become their own input."""
    inputs = inputs_of({"Type": "L", "n": 3}, COLUMN, COUNT)
    assert [["L"]] == inputs["Type"].tolist()
    assert (np.int64, [[3]]) == (inputs["n"].dtype, inputs["n"].tolist())


def test_open_inference_protocol_batches():
    """Tensors keep the shape that the caller gave."""
    value = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [2, 4], "data": list(range(8))}]}
    assert (2, 4) == inputs_of(value, MATRIX)["x"].shape


@pytest.mark.parametrize(
    ("value", "specs", "message"),
    [
        ({"torque": 1}, (MATRIX,), "misses features: 'air_temp', 'speed', 'wear'"),
        ({"x": [1, 2, 3, 4], "y": 1}, (MATRIX,), "unknown features: 'y'"),
        ({"x": [1, 2, 3]}, (MATRIX,), "shape [1, 4], got 3 values"),
        ({"x": [1, 2, 3, "4"]}, (MATRIX,), "must be FP32 numbers, got str"),
        ({"x": [1, 2, 3, None]}, (MATRIX,), "must be FP32 numbers, got null"),
        ({"x": [1, 2, 3, True]}, (MATRIX,), "must be FP32 numbers, got bool"),
        ({"x": [1, 2, 3, 10**400]}, (MATRIX,), "does not fit FP32"),
        ({"Type": 3}, (COLUMN,), "must be strings, got int"),
        ({"n": 1.5}, (COUNT,), "must be INT64 integers, got 1.5"),
        ({"n": 2**63}, (COUNT,), "must be INT64 integers"),
        (
            {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [1]}]},
            (MATRIX,),
            "must have 4 values, got 1",
        ),
        (
            {"inputs": [{"name": "x", "datatype": "FP33", "shape": [1], "data": [1]}]},
            (MATRIX,),
            "got 'FP33'",
        ),
    ],
)
def test_what_does_not_fit_the_contract_is_said_in_one_line(value, specs, message):
    """The caller learns what is wrong with the request."""
    with pytest.raises(InputError) as caught:
        inputs_of(value, *specs)
    assert message in str(caught.value)


def test_null_means_missing_where_the_model_takes_missing_values():
    """JSON has no NaN; null stands for it."""
    spec = TensorSpec(name="x", datatype=Datatype.FP32, shape=(-1, 2), nonfinite=Nonfinite.NAN)
    inputs = inputs_of({"x": [1, None]}, spec)
    assert math.isnan(inputs["x"][0, 1])


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(
    st.dictionaries(
        st.sampled_from(["x", "Type", "n", "inputs", "request_id", "id", *FEATURES]), JSON
    )
)
def test_whatever_is_asked_ends_in_arrays_or_in_a_documented_error(value):
    """Nothing else comes out."""
    try:
        made = inputs_of(value, MATRIX, COLUMN, COUNT)
    except (WireError, InputError):
        return
    assert all(isinstance(array, np.ndarray) for array in made.values())


def test_an_answer_is_the_first_sample():
    """Label and confidence of a classifier."""
    outputs = tiny_model().predict(np.ones((2, 4), np.float32))
    answer = to_answer(outputs, contract(MATRIX))
    assert outputs["label"][0] == answer.label
    assert float(outputs["probabilities"][0].max()) == answer.confidence


def test_a_regression_has_a_value():
    """One number."""
    answer = to_answer(
        {"value": np.array([2.5], np.float32)}, contract(MATRIX, task=Task.REGRESSION)
    )
    assert (2.5, None) == (answer.value, answer.label)


def test_several_labels_have_the_names_of_their_targets():
    """A model that labels a row several times answers each target under its own name."""
    spec = TensorSpec(
        name="label", datatype=Datatype.BYTES, shape=(-1, 2), feature_names=("pump", "valve")
    )
    named = replace(contract(MATRIX, task=Task.GENERIC), outputs=(spec,))
    labels = np.array([["worn", "shut"], ["ok", "open"]], np.object_)
    outputs = {"label": labels, "probabilities_0": np.zeros((2, 2), np.float32)}
    fields = to_answer(outputs, named).fields()
    assert {"label_pump": "worn", "label_valve": "shut"} == {
        key: value for key, value in fields.items() if value is not None
    }


def test_nan_in_an_output_is_null_in_json():
    """NaN is never written."""
    (tensor,) = to_tensors({"value": np.array([1.0, math.nan])})
    assert [1.0, None] == tensor.data
