"""Every operator of the TFLite writer, against onnxruntime."""

from collections import Counter
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from ai_edge_litert import schema_py_generated as schema
from tflite_written import answers, graph_file, written

from edgepack.converter.errors import UnsupportedModelError
from edgepack.converter.sources.source import Exported
from edgepack.converter.tflite_writer.operators.find import OPERATORS

# Input shape, and what makes y of x.
MATRIX = "float[N,6]"
SIGNAL = "float[N,4,12]"
IMAGE = "float[N,4,9,8]"
ELEMENTWISE = ["Abs", "Ceil", "Cos", "Elu", "Exp", "Floor", "HardSigmoid", "HardSwish", "Identity"]
ELEMENTWISE += ["LeakyRelu", "Neg", "Relu", "Round", "Sigmoid", "Sign", "Sin", "Softplus"]
ELEMENTWISE += ["Softsign", "Tanh", "Dropout"]
REDUCTIONS = ["ReduceL1", "ReduceL2", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin"]
REDUCTIONS += ["ReduceProd", "ReduceSumSquare"]
CASES: list[tuple[str, str]] = [
    *((MATRIX, f"y = {name}(x)") for name in ELEMENTWISE),
    (MATRIX, "a = Abs(x) b = Sqrt(a) c = Log(b) y = Reciprocal(c)"),
    (MATRIX, "y = Erf(x)"),
    (MATRIX, "y = Gelu(x)"),
    (MATRIX, 'y = Gelu<approximate="tanh">(x)'),
    (MATRIX, "l = Constant<value_float=-0.5>() h = Constant<value_float=0.25>() y = Clip(x, l, h)"),
    (MATRIX, "l = Constant<value_float=0.0>() h = Constant<value_float=6.0>() y = Clip(x, l, h)"),
    (MATRIX, 'l = Constant<value_float=0.1>() y = Clip(x, l, "")'.replace('""', "")),
    *((MATRIX, f"a = Exp(x) y = {name}(x, a)") for name in ("Add", "Sub", "Mul", "Div")),
    (MATRIX, "a = Abs(x) b = Constant<value_float=1.7>() y = Pow(a, b)"),
    (MATRIX, "b = Constant<value_float=2.0>() y = Pow(x, b)"),
    (MATRIX, "a = Abs(x) b = Constant<value_float=0.5>() y = Pow(a, b)"),
    (MATRIX, "a = Neg(x) b = Exp(x) y = Max(x, a, b)"),
    (MATRIX, "a = Neg(x) b = Exp(x) y = Min(x, a, b)"),
    (MATRIX, "a = Neg(x) b = Exp(x) c = Sum(x, a, b) y = Mean(x, c)"),
    *(
        (MATRIX, f"a = Neg(x) b = {name}(x, a) y = Where(b, x, a)")
        for name in ("Less", "LessOrEqual", "Greater", "GreaterOrEqual", "Equal")
    ),
    (
        MATRIX,
        "z = Constant<value_float=0.0>() a = Less(x, z) b = IsNaN(x) c = Or(a, b) d = Not(c) "
        "e = And(d, a) f = Or(c, e) y = Cast<to=1>(f)",
    ),
    (MATRIX, "a = Cast<to=7>(x) y = Cast<to=1>(a)"),
    (MATRIX, "s = Constant<value_floats=[0.1,0.2,0.3,0.4,0.5,0.6]>() y = PRelu(x, s)"),
    (IMAGE, "y = GlobalMaxPool(x)"),
    (IMAGE, "y = GlobalAveragePool(x)"),
    *((IMAGE, f"y = {name}<axes=[2,3]>(x)") for name in REDUCTIONS),
    *((IMAGE, f"y = {name}<axes=[1], keepdims=0>(x)") for name in REDUCTIONS),
    (IMAGE, "a = Constant<value_ints=[2]>() y = ReduceSum<keepdims=0>(x, a)"),
    (MATRIX, "y = ArgMax<axis=1>(x)"),
    (IMAGE, "y = ArgMin<axis=1, keepdims=0>(x)"),
    (IMAGE, "y = Softmax<axis=1>(x)"),
    (MATRIX, "y = LogSoftmax(x)"),
    (MATRIX, "a = Constant<value_int=1>() y = CumSum(x, a)"),
    (
        MATRIX,
        "s = Constant<value_floats=[1.0,2.0,3.0,4.0,5.0,6.0]>() y = LayerNormalization(x, s, s)",
    ),
    (IMAGE, "s = Constant<value_floats=[1.0,2.0,3.0,4.0]>() y = InstanceNormalization(x, s, s)"),
    (
        IMAGE,
        "s = Constant<value_floats=[1.0,2.0,3.0,4.0]>() y = BatchNormalization(x, s, s, s, s)",
    ),
    (IMAGE, "y = Transpose<perm=[0,2,3,1]>(x)"),
    (IMAGE, "y = Transpose<perm=[0,3,1,2]>(x)"),
    (IMAGE, "y = Flatten(x)"),
    (IMAGE, "s = Constant<value_ints=[0,-1,4]>() y = Reshape(x, s)"),
    (
        IMAGE,
        "s = Shape<start=0, end=1>(x) m = Constant<value_ints=[-1]>() "
        "t = Concat<axis=0>(s, m) y = Reshape(x, t)",
    ),
    (IMAGE, "a = GlobalAveragePool(x) b = Constant<value_ints=[2,3]>() y = Squeeze(a, b)"),
    (MATRIX, "b = Constant<value_ints=[1,3]>() a = Unsqueeze(x, b) y = Relu(a)"),
    (IMAGE, "a = Neg(x) y = Concat<axis=1>(x, a)"),
    (MATRIX, "a, b, c = Split<axis=1>(x) y = Concat<axis=1>(c, a, b)"),
    (
        IMAGE,
        "s = Constant<value_ints=[1,-3]>() e = Constant<value_ints=[3,100]>() "
        "a = Constant<value_ints=[1,3]>() y = Slice(x, s, e, a)",
    ),
    (
        IMAGE,
        "s = Constant<value_ints=[0,7]>() e = Constant<value_ints=[9,0]>() "
        "a = Constant<value_ints=[2,3]>() t = Constant<value_ints=[2,-3]>() "
        "y = Slice(x, s, e, a, t)",
    ),
    (IMAGE, "i = Constant<value_ints=[3,0,-1]>() y = Gather<axis=1>(x, i)"),
    (IMAGE, "i = Constant<value_int=2>() y = Gather<axis=2>(x, i)"),
    (
        MATRIX,
        "t = Constant<value_floats=[5.0,4.0,3.0,2.0,1.0,0.5]>() a = ArgMax<axis=1>(x) "
        "y = Gather(t, a)",
    ),
    (IMAGE, "p = Constant<value_ints=[0,0,1,2,0,0,3,0]>() y = Pad(x, p)"),
    (
        IMAGE,
        "p = Constant<value_ints=[0,0,1,2,0,0,3,0]>() v = Constant<value_float=2.5>() "
        "y = Pad(x, p, v)",
    ),
    (IMAGE, 'p = Constant<value_ints=[0,0,1,2,0,0,3,0]>() y = Pad<mode="reflect">(x, p)'),
    (MATRIX, "t = Constant<value_ints=[1,3]>() y = Tile(x, t)"),
    (
        MATRIX,
        "u = Constant<value_ints=[2]>() a = Unsqueeze(x, u) s = Constant<value_ints=[1,6,4]>()"
        " y = Expand(a, s)",
    ),
    (IMAGE, "y = DepthToSpace<blocksize=2>(x)"),
    ("float[N,3,4,6]", "y = SpaceToDepth<blocksize=2>(x)"),
    (
        IMAGE,
        "s = Constant<value_floats=[1.0,1.0,2.0,2.0]>() "
        'y = Resize<mode="nearest", coordinate_transformation_mode="asymmetric", '
        'nearest_mode="floor">(x, , s)',
    ),
    (
        IMAGE,
        's = Constant<value_floats=[1.0,1.0,2.0,3.0]>() y = Resize<mode="linear">(x, , s)',
    ),
    *(
        (IMAGE, f"y = MaxPool<kernel_shape=[3,2], {more}>(x)")
        for more in (
            "strides=[2,2]",
            "strides=[2,1], pads=[1,0,1,1]",
            "strides=[2,2], pads=[0,0,1,0], ceil_mode=1",
            'strides=[2,2], auto_pad="SAME_UPPER"',
        )
    ),
    *(
        (IMAGE, f"y = AveragePool<kernel_shape=[3,2], {more}>(x)")
        for more in (
            "strides=[2,2]",
            "strides=[2,1], pads=[1,1,1,0]",
            "strides=[2,1], pads=[1,1,1,0], count_include_pad=1",
            "strides=[2,2], ceil_mode=1",
            'strides=[2,2], auto_pad="SAME_UPPER"',
            'strides=[2,2], auto_pad="SAME_LOWER"',
        )
    ),
    (SIGNAL, "y = MaxPool<kernel_shape=[3], strides=[2], pads=[1,1]>(x)"),
    (SIGNAL, "y = AveragePool<kernel_shape=[2], strides=[2]>(x)"),
]
ML_CASES: list[str] = [
    "y = ai.onnx.ml.Scaler<offset=[1.0,2.0,3.0,4.0,5.0,6.0], scale=[0.5,1.0,2.0,1.0,1.0,3.0]>(x)",
    'y = ai.onnx.ml.Normalizer<norm="L2">(x)',
    'y = ai.onnx.ml.Normalizer<norm="L1">(x)',
    'y = ai.onnx.ml.Normalizer<norm="MAX">(x)',
    "y = ai.onnx.ml.Binarizer<threshold=0.2>(x)",
    "y = ai.onnx.ml.Imputer<imputed_value_floats=[7.0], replaced_value_float=0.0>(x)",
    "i = Constant<value_ints=[5,0,2]>() y = ai.onnx.ml.ArrayFeatureExtractor(x, i)",
    "a = Floor(x) y = ai.onnx.ml.LabelEncoder"
    "<keys_floats=[0.0,1.0,-1.0], values_floats=[3.5,4.5,5.5], default_float=9.0>(a)",
    "a = Floor(x) b = Cast<to=7>(a) y = ai.onnx.ml.OneHotEncoder"
    "<cats_int64s=[-3,-2,-1,0,1,2], zeros=1>(b)",
    "a = Neg(x) y = ai.onnx.ml.FeatureVectorizer<inputdimensions=[6,6]>(x, a)",
    "y = ai.onnx.ml.LinearRegressor<coefficients=[1.0,2.0,3.0,4.0,5.0,6.0], intercepts=[0.5]>(x)",
    "l, y = ai.onnx.ml.LinearClassifier<classlabels_ints=[0,1], "
    "coefficients=[1.0,2.0,3.0,4.0,5.0,6.0,1.0,-2.0,3.0,-4.0,5.0,-6.0], intercepts=[0.5,0.1], "
    'post_transform="SOFTMAX">(x)',
]


def parsed(shape: str, body: str) -> onnx.ModelProto:
    """A model of one input x and one output y, in ONNX's text form."""
    text = (
        '<ir_version: 8, opset_import: ["" : 20, "ai.onnx.ml" : 3]>'
        f" g ({shape} x) => (float y) {{ {body} }}"
    )
    if "axes=[" in body or "Split<axis=1>" in body:  # attributes of the older operator sets
        text = text.replace('"" : 20', '"" : 17' if "Split" not in body else '"" : 13')
    model = onnx.parser.parse_model(text)
    if "ArgM" in body and "Gather" not in body:
        model.graph.output[0].type.tensor_type.elem_type = onnx.TensorProto.INT64
    return model


def rows(shape: str, seed: int = 0) -> Any:
    """Random rows for an input's shape."""
    sizes = [int(size) for size in shape[len("float[N,") : -1].split(",")]
    return np.random.default_rng(seed).standard_normal((9, *sizes)).astype(np.float32)


def check(model: onnx.ModelProto, x: Any) -> Exported:
    """Write the file and compare it on rows that the writer did not see, alone and together."""
    file = written(graph_file(model), {"x": x})
    other = np.random.default_rng(9).standard_normal(x.shape).astype(np.float32)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    for given in (other, other[:1]):
        (expected,) = session.run(["y"], {"x": given})
        actual = answers(file, {"x": given})["y"]
        assert expected.dtype == actual.dtype
        np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)
    return file


def operators_of(file: Exported) -> Counter[str]:
    """How often each operator stands in a file."""
    names = {v: k for k, v in vars(schema.BuiltinOperator).items() if isinstance(v, int)}
    model = schema.ModelT.InitFromPackedBuf(bytearray(file.data), 0)
    codes = [names[item.builtinCode] for item in model.operatorCodes]
    return Counter(codes[item.opcodeIndex] for item in model.subgraphs[0].operators)


def convolution(weights: Any, shape: str, attributes: str, after: str = "") -> onnx.ModelProto:
    """A model of one convolution and what comes after it, of its output c."""
    model = parsed(shape, f"c = Conv<{attributes}>(x, w, b) " + (after or "y = Identity(c)"))
    bias = np.arange(len(weights), dtype=np.float32)
    for name, values in (("w", weights), ("b", bias)):
        model.graph.initializer.append(onnx.numpy_helper.from_array(values, name))
    return model


def weights(*shape: int) -> Any:
    """Random weights."""
    return np.random.default_rng(1).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize(("shape", "body"), CASES, ids=[body for _, body in CASES])
def test_an_operator_answers_as_in_onnxruntime(shape: str, body: str) -> None:
    """Each operator of ONNX's own gives the same numbers."""
    check(parsed(shape, body), rows(shape))


@pytest.mark.parametrize("body", ML_CASES)
def test_an_ml_operator_answers_as_in_onnxruntime(body: str) -> None:
    """Each operator of ai.onnx.ml gives the same numbers."""
    check(parsed(MATRIX, body), rows(MATRIX))


@pytest.mark.parametrize(
    ("shape", "size", "attributes"),
    [
        (IMAGE, (6, 4, 3, 3), "group=1"),
        (IMAGE, (6, 4, 3, 3), "pads=[1,1,1,1]"),
        (IMAGE, (6, 4, 3, 3), "pads=[1,1,1,1], strides=[2,2]"),
        (IMAGE, (6, 4, 3, 2), "pads=[0,2,1,0], strides=[1,2]"),
        (IMAGE, (6, 4, 3, 3), "pads=[2,2,2,2], dilations=[2,2]"),
        (IMAGE, (6, 4, 3, 3), 'auto_pad="SAME_UPPER", strides=[2,2]'),
        (IMAGE, (6, 4, 3, 3), 'auto_pad="SAME_LOWER", strides=[2,2]'),
        (IMAGE, (4, 1, 3, 3), "group=4, pads=[1,1,1,1]"),
        (IMAGE, (8, 1, 3, 3), "group=4, dilations=[2,2]"),
        (IMAGE, (6, 2, 3, 3), "group=2, pads=[1,1,1,1]"),
        (IMAGE, (6, 4, 1, 1), "group=1"),
        (SIGNAL, (6, 4, 3), "pads=[1,1]"),
        (SIGNAL, (6, 4, 5), "strides=[2], dilations=[2]"),
        (SIGNAL, (4, 1, 3), "group=4, pads=[1,1]"),
    ],
)
def test_a_convolution_answers_as_in_onnxruntime(
    shape: str, size: tuple[int, ...], attributes: str
) -> None:
    """Strides, paddings, dilations, groups; images and signals."""
    check(convolution(weights(*size), shape, attributes), rows(shape))


def test_layouts_cancel_and_activations_are_fused() -> None:
    """A network of an image moves data at its beginning only, and has no activations of its own."""
    body = (
        "a = Relu(c) n = BatchNormalization(a, s, s, s, s) d = Conv<pads=[1,1,1,1]>(n, v) "
        "e = BatchNormalization(d, s, s, s, s) f = Clip(e, zero, six) g = Add(f, n) "
        "h = MaxPool<kernel_shape=[2,2], strides=[2,2]>(g) i = GlobalAveragePool(h) j = Flatten(i) "
        "k = Gemm<transB=1>(j, m) y = Softmax(k)"
    )
    model = convolution(weights(6, 4, 3, 3), IMAGE, "pads=[1,1,1,1]", body)
    extra = {
        "v": weights(6, 6, 3, 3),
        "s": np.arange(1, 7, dtype=np.float32),
        "m": weights(3, 6),
        "zero": np.float32(0),
        "six": np.float32(6),
    }
    for name, values in extra.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(values), name))

    file = check(model, rows(IMAGE))

    expected = {"TRANSPOSE": 1, "CONV_2D": 2, "MUL": 1, "ADD": 2, "MAX_POOL_2D": 1, "MEAN": 1}
    expected |= {"RESHAPE": 1, "FULLY_CONNECTED": 1, "SOFTMAX": 1}
    assert expected == operators_of(file)


def test_a_signal_network_reshapes_at_its_ends_only() -> None:
    """Convolutions of a signal in a row do not go back and forth between signal and image."""
    body = (
        "a = Relu(c) d = Conv<pads=[1,1]>(a, v) e = Relu(d) f = GlobalAveragePool(e) y = Flatten(f)"
    )
    model = convolution(weights(4, 4, 3), SIGNAL, "pads=[1,1]", body)
    model.graph.initializer.append(onnx.numpy_helper.from_array(weights(5, 4, 3), "v"))

    file = check(model, rows(SIGNAL))

    assert {"TRANSPOSE": 1, "RESHAPE": 2, "CONV_2D": 2, "MEAN": 1} == operators_of(file)


def test_matrix_products_of_every_kind() -> None:
    """Constant and computed sides, three dimensions, factors, a transposed right side."""
    for shape, body in (
        (MATRIX, "y = MatMul(x, w)"),
        (MATRIX, "y = Gemm<alpha=0.5, beta=2.0>(x, w, b)"),
        (MATRIX, "a = MatMul(x, w) c = Add(a, b) y = Relu(c)"),
        ("float[N,5,6]", "a = MatMul(x, w) y = Add(b, a)"),
        ("float[N,5,6]", "t = Transpose<perm=[0,2,1]>(x) y = MatMul(x, t)"),
    ):
        model = parsed(shape, body)
        for name, values in (("w", weights(6, 3)), ("b", weights(3))):
            model.graph.initializer.append(onnx.numpy_helper.from_array(values, name))
        check(model, rows(shape))


def test_equal_weights_are_stored_once() -> None:
    """Two layers of the same weights share them."""
    model = parsed(MATRIX, "a = MatMul(x, w) b = Tanh(a) y = MatMul(b, v)")
    for name in ("w", "v"):
        model.graph.initializer.append(onnx.numpy_helper.from_array(weights(6, 6), name))

    file = check(model, rows(MATRIX))

    assert 1 == file.data.count(weights(6, 6).T.tobytes())


def test_constants_lie_at_multiples_of_sixteen() -> None:
    """Kernels may read weights with aligned loads, wherever the file is mapped."""
    model = parsed(MATRIX, "a = MatMul(x, w) y = MatMul(a, v)")
    for name, values in (("w", weights(6, 5)), ("v", weights(5, 3))):
        model.graph.initializer.append(onnx.numpy_helper.from_array(values, name))

    file = check(model, rows(MATRIX))

    for values in (weights(6, 5), weights(5, 3)):
        assert 0 == file.data.index(values.T.tobytes()) % 16


def test_a_fixed_batch_is_said() -> None:
    """A file of a fixed number of rows says so in its bindings."""
    model = parsed("float[4,6]", "y = Relu(x)")
    x = rows(MATRIX)[:8]

    file = written(graph_file(model), {"x": x})

    assert [4, 4] == [file.facts.inputs[0].batch, file.facts.outputs[0].batch]
    np.testing.assert_array_equal(np.maximum(x, 0), answers(file, {"x": x})["y"])


def test_without_rows_random_ones_are_compared() -> None:
    """The file is checked even if the caller has no rows."""
    file = written(graph_file(parsed(MATRIX, "y = Tanh(x)")), {})

    assert ("tflite::TANH",) == file.facts.summary.operators


@pytest.mark.parametrize(
    ("shape", "body", "message"),
    [
        (MATRIX, "y = Asinh(x)", "has no operator Asinh"),
        (MATRIX, "a = Tan(x) y = Asinh(a)", "has no operator Tan"),
        (MATRIX, "y = Elu<alpha=2.0>(x)", "does not take Elu with an alpha"),
        (MATRIX, "y = ReduceMean<axes=[0]>(x)", "does not take ReduceMean over the rows"),
        ("float[N,M]", "y = Relu(x)", "has a free size besides the number of rows"),
        ("float16[N,6]", "a = Cast<to=1>(x) y = Relu(a)", "takes no FP16"),
    ],
)
def test_what_cannot_be_written_is_refused_in_one_line(shape: str, body: str, message: str) -> None:
    """The message names the first operator outside the list, or what is asked of it."""
    with pytest.raises(UnsupportedModelError, match=message) as caught:
        written(graph_file(parsed(shape, body)), {})
    assert "\n" not in str(caught.value)


def test_every_operator_is_tried_here() -> None:
    """No operator is in the list without a test above or among the trees."""
    bodies = " ".join([body for _, body in CASES] + ML_CASES)
    elsewhere = {"Conv", "Gemm", "MatMul", "BatchNormalization"}
    elsewhere |= {f"ai.onnx.ml.TreeEnsemble{kind}" for kind in ("Classifier", "Regressor")}
    elsewhere |= {"ai.onnx.ml.SVMRegressor"}
    untried = {
        name
        for name in OPERATORS
        if f" {name}(" not in f" {bodies}" and f" {name}<" not in f" {bodies}"
    }
    assert untried <= elsewhere
