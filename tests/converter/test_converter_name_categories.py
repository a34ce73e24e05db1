"""A refused category is told with the input that it came in, where that is certain."""

import numpy as np
import onnx
import pandas as pd
import pytest
from onnx import TensorProto, helper
from skl2onnx import convert_sklearn
from skl2onnx.common.data_types import FloatTensorType, StringTensorType
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from edgepack.bundle.contract import (
    Datatype,
    EngineRequirements,
    Parity,
    TensorBinding,
    Variant,
)
from edgepack.converter.onnx_quantizer.compact import compact
from edgepack.converter.sklearn_model.name_categories import name_categories
from edgepack.runtime import InputError
from edgepack.runtime.categories import refused
from edgepack.runtime.engines import engine_named
from edgepack.runtime.options import SessionOptions

TEXTS, NUMBERS = ["site", "grade"], ["speed", "tool"]


@pytest.fixture(scope="module")
def model():
    """Two texts in inputs of their own, two numbers in a matrix, of which one is a category."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "site": rng.choice(["north", "south"], 60),
            "grade": rng.choice(["L", "M"], 60),
            "speed": np.zeros(60),
            "tool": rng.integers(0, 3, 60).astype(float),
        }
    )
    places = [
        ("text", OneHotEncoder(), [0, 1]),
        ("tool", OneHotEncoder(), [3]),
        ("mean", make_pipeline(SimpleImputer(), OneHotEncoder()), [2]),
        ("all", OneHotEncoder(handle_unknown="ignore"), [0, 1]),
    ]
    columns = ColumnTransformer(places)
    pipeline = make_pipeline(columns, LogisticRegression())
    pipeline.fit(frame, rng.integers(0, 2, 60))
    types = [
        ("x0", StringTensorType([None, 1])),
        ("x1", StringTensorType([None, 1])),
        ("x2", FloatTensorType([None, 2])),
    ]
    made = convert_sklearn(
        pipeline, initial_types=types, target_opset=17,
        options={id(pipeline.steps[-1][1]): {"zipmap": False}},
    )  # fmt: skip
    name_categories(made, ["x0", "x1", "x2"])
    return made


def names(model):
    return sorted(n.name for n in model.graph.node if n.op_type == "OneHotEncoder")


def test_encoders_are_called_after_their_columns(model):
    """Not behind what changes values, nor what takes all; a file that is made small keeps them."""
    found = ["category 0.0", "category 1.0", "category 2.1"]
    assert found == [name for name in names(model) if name.startswith("category ")]
    assert ["", "", "", *found] == names(compact(copied(model)))


def copied(model):
    other = onnx.ModelProto()
    other.CopyFrom(model)
    return other


@pytest.fixture(scope="module")
def session(model):
    inputs = (("site", Datatype.BYTES), ("grade", Datatype.BYTES), ("numbers", Datatype.FP32))
    data = model.SerializeToString()
    variant = Variant(
        name="onnx-fp32",
        files=("model.onnx",),
        precision="fp32",
        size_bytes=len(data),
        engine=EngineRequirements(engine="onnxruntime", opsets={}),
        inputs=tuple(
            TensorBinding(name=name, tensor=f"x{number}", dtype=dtype)
            for number, (name, dtype) in enumerate(inputs)
        ),
        outputs=(TensorBinding(name="label", tensor="label", dtype=Datatype.INT64),),
        parity=Parity(rows=1, metric="agreement", value=1.0, bound=1.0),
    )
    opened = engine_named("onnxruntime").open({"model.onnx": data}, variant, SessionOptions())
    yield opened
    opened.close()


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        ((0, 0), "west", "input 'site' must be"),
        ((1, 0), "XL", "input 'grade' must be"),
        ((2, 1), 7.0, "input 'numbers', column 1 must be"),
    ],
)
def test_a_refusal_names_the_input_and_a_value_that_is_the_only_one(session, place, value, said):
    """Of several rows with different values nobody knows which one it was."""
    number, column = place
    for rows, got in ((1, repr(value)), (3, "another")):
        feeds = [
            np.full((rows, 1), "north", object),
            np.full((rows, 1), "M", object),
            np.zeros((rows, 2), np.float32),
        ]
        session.run(feeds)
        feeds[number][rows - 1, column] = value
        with pytest.raises(InputError) as caught:
            session.run(feeds)
        expected = f"{said} one of the categories that the model was fitted to, got {got}"
        assert expected == str(caught.value)


UNKNOWN = "a value must be one of the categories that the model was fitted to, got another"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("running MatMul node. Name:'category 0.0' Status Message: dimension mismatch", None),
        ("Name:'OneHotEncoder1' Status Message: Unknown Category and zeros = 0.", UNKNOWN),
        ("Name:'category 1.0' Status Message: Unknown Category", UNKNOWN),
        ("Name:'category 0.5' Status Message: Unknown Category", UNKNOWN),
        ("Name:'category 9999999.0' Status Message: Unknown Category", UNKNOWN),
    ],
)
def test_a_name_that_says_nothing(text, expected):
    """Other failures, files of older versions, and names that fit no input."""
    assert expected == refused(text, ["a"], [np.array([["x"]], object)])


def test_a_value_is_followed_through_joined_and_picked_columns():
    """Through Concat, Gather and casts, by the widths of what is joined; else not at all."""
    encode = {"cats_int64s": [1], "zeros": 0, "domain": "ai.onnx.ml"}
    nodes = [
        helper.make_node("Concat", ["a", "b"], ["all"], axis=1),
        helper.make_node("ArrayFeatureExtractor", ["all", "two"], ["c"], domain="ai.onnx.ml"),
        helper.make_node("Cast", ["c"], ["d"], to=TensorProto.INT64),
        helper.make_node("OneHotEncoder", ["d"], ["e"], name="one", **encode),
        helper.make_node("Neg", ["all"], ["n"]),
        helper.make_node("Gather", ["n", "two"], ["g"], axis=1),
        helper.make_node("OneHotEncoder", ["g"], ["h"], name="other", **encode),
    ]
    inputs = [("a", TensorProto.FLOAT, [None, 2]), ("b", TensorProto.FLOAT, [None, 3])]
    graph = helper.make_graph(
        nodes, "g",
        [helper.make_tensor_value_info(*one) for one in inputs],
        [helper.make_tensor_value_info("h", TensorProto.FLOAT, None)],
        [helper.make_tensor("two", TensorProto.INT64, [1], [3])],
    )  # fmt: skip
    made = helper.make_model(graph)
    name_categories(made, ["b", "a"])
    assert ["category 0.1", "other"] == names(made)
