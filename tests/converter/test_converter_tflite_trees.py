"""Trees and forests that the TFLite writer makes into matrix products, with rows on thresholds."""

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper
from sklearn import datasets, ensemble, tree
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from tflite_written import answers, exported, graph_file, written

from edgepack.bundle.contract import Task
from edgepack.converter.errors import UnsupportedModelError
from edgepack.converter.sources.source import Exported
from edgepack.runtime.tensors import Array

CLASSIFIERS = [
    tree.DecisionTreeClassifier(random_state=0),
    tree.ExtraTreeClassifier(random_state=0),
    ensemble.RandomForestClassifier(25, max_depth=6, random_state=0),
    ensemble.ExtraTreesClassifier(15, max_depth=5, random_state=0),
    ensemble.GradientBoostingClassifier(n_estimators=20, random_state=0),
    ensemble.HistGradientBoostingClassifier(max_iter=6, random_state=0),
    ensemble.BaggingClassifier(n_estimators=4, random_state=0),
    ensemble.AdaBoostClassifier(n_estimators=8, random_state=0),
]
REGRESSORS = [
    tree.DecisionTreeRegressor(max_depth=7, random_state=0),
    ensemble.RandomForestRegressor(20, max_depth=6, random_state=0),
    ensemble.GradientBoostingRegressor(n_estimators=30, random_state=0),
    ensemble.HistGradientBoostingRegressor(max_iter=6, random_state=0),
]


def _name(model: Any) -> str:
    return type(model).__name__


def thresholds(source: Exported) -> dict[int, list[float]]:
    """Every threshold of a file's trees, by column."""
    found: dict[int, list[float]] = {}
    for node in onnx.load_from_string(source.data).graph.node:
        held = {item.name: helper.get_attribute_value(item) for item in node.attribute}
        if "nodes_values" in held:
            for column, value, mode in zip(
                held["nodes_featureids"], held["nodes_values"], held["nodes_modes"], strict=True
            ):
                if mode != b"LEAF":
                    found.setdefault(column, []).append(value)
    return found


def on_thresholds(source: Exported, x: Array) -> Array:
    """Rows of which every column that is asked for lies on a threshold or right beside one."""
    generator = np.random.default_rng(3)
    rows = x[generator.integers(0, len(x), 1500)].copy()
    for column, values in thresholds(source).items():
        exact = np.array(values, dtype=np.float32)[generator.integers(0, len(values), len(rows))]
        side = generator.integers(0, 3, len(rows))
        below, above = (
            np.nextafter(exact, np.float32(-np.inf)),
            np.nextafter(exact, np.float32(np.inf)),
        )
        rows[:, column] = np.choose(side, [exact, below, above])
    return rows


def by_onnxruntime(source: Exported, rows: Array) -> list[Array]:
    """What the ONNX file answers."""
    session = onnxruntime.InferenceSession(source.data)
    names = [binding.tensor for binding in source.facts.outputs]
    found: list[Array] = session.run(names, {source.facts.inputs[0].tensor: rows})
    return found


@pytest.mark.parametrize("data", ["iris", "wine", "breast"])
@pytest.mark.parametrize("model", CLASSIFIERS, ids=_name)
def test_a_classifier_of_trees_is_exact_on_its_thresholds(model: Any, data: str) -> None:
    """Rows on every threshold and one step beside it take the same branches as in onnxruntime."""
    loaders = {"iris": datasets.load_iris, "wine": datasets.load_wine}
    loaded = loaders.get(data, datasets.load_breast_cancer)()
    x = loaded.data.astype(np.float32)
    model.fit(x, np.array(loaded.target_names)[loaded.target])
    source = exported(model, x.shape[1], Task.CLASSIFICATION, ["label", "probabilities"])
    rows = np.concatenate([x, on_thresholds(source, x)])

    file = written(source, {"x": x}, [str(name) for name in model.classes_])

    found = answers(file, {"x": rows}, model.classes_)
    label, probabilities = by_onnxruntime(source, rows)
    np.testing.assert_allclose(found["probabilities"], probabilities, rtol=1e-5, atol=2e-6)
    first, second = np.sort(probabilities, axis=1)[:, :-3:-1].T
    clear = first - second > 1e-5  # which class of equal votes wins is the last bit's choice
    assert label[clear].tolist() == found["label"][clear].tolist()


@pytest.mark.parametrize("model", REGRESSORS, ids=_name)
def test_a_regressor_of_trees_is_exact_on_its_thresholds(model: Any) -> None:
    """Rows on every threshold and one step beside it give the same sums."""
    x, y = datasets.load_diabetes(return_X_y=True)
    x = x.astype(np.float32)
    model.fit(x, y)
    source = exported(model, 10, Task.REGRESSION, ["value"])
    rows = np.concatenate([x, on_thresholds(source, x)])

    file = written(source, {"x": x})

    (expected,) = by_onnxruntime(source, rows)
    np.testing.assert_allclose(answers(file, {"x": rows})["value"], expected, rtol=2e-6)


def test_a_forest_behind_a_scaler_gives_sklearns_labels() -> None:
    """Trees inside a pipeline are written too."""
    x, y = datasets.load_wine(return_X_y=True)
    x = x.astype(np.float32)
    model = make_pipeline(
        StandardScaler(), ensemble.RandomForestClassifier(10, max_depth=5, random_state=0)
    ).fit(x, y)

    file = written(exported(model, 13, Task.CLASSIFICATION, ["label", "probabilities"]), {"x": x})

    found = answers(file, {"x": x}, model.classes_)
    assert model.predict(x).tolist() == found["label"].tolist()


def test_settled_ties_are_derived_of_the_steps() -> None:
    """Of equal votes the first class wins, as in scikit-learn, where the export settles ties."""
    x, y = datasets.load_iris(return_X_y=True)
    x = x.astype(np.float32)
    model = ensemble.RandomForestClassifier(4, max_depth=2, random_state=1).fit(x, y)
    outputs = ["label", "probabilities"]
    source = exported(model, 4, Task.CLASSIFICATION, outputs, settle_ties=True)

    file = written(source, {"x": x})

    assert "edgepack_rounded" == file.facts.outputs[0].tensor
    assert model.predict(x).tolist() == answers(file, {"x": x}, [0, 1, 2])["label"].tolist()


def test_missing_numbers_turn_as_in_onnxruntime() -> None:
    """NaN goes where histogram gradient boosting learned that it goes."""
    x, y = datasets.load_wine(return_X_y=True)
    x = x.astype(np.float32)
    x[np.random.default_rng(0).random(x.shape) < 0.3] = np.nan
    model = ensemble.HistGradientBoostingClassifier(max_iter=6, random_state=0).fit(x, y)
    source = exported(model, 13, Task.CLASSIFICATION, ["label", "probabilities"])

    file = written(source, {"x": np.nan_to_num(x)})

    found = answers(file, {"x": x}, model.classes_)
    np.testing.assert_allclose(found["probabilities"], model.predict_proba(x), atol=1e-5)


@pytest.mark.parametrize(
    "mode", ["BRANCH_LEQ", "BRANCH_LT", "BRANCH_GT", "BRANCH_GTE", "BRANCH_EQ", "BRANCH_NEQ"]
)
@pytest.mark.parametrize("second", ["BRANCH_LEQ", "BRANCH_GTE"])
def test_every_kind_of_question(mode: str, second: str) -> None:
    """All comparisons, also two kinds in one tree, NaN among the values."""
    node = helper.make_node(
        "TreeEnsembleRegressor",
        ["x"],
        ["y"],
        domain="ai.onnx.ml",
        n_targets=1,
        nodes_treeids=[0] * 5,
        nodes_nodeids=list(range(5)),
        nodes_featureids=[0, 1, 0, 0, 0],
        nodes_values=[0.5, -1.0, 0.0, 0.0, 0.0],
        nodes_modes=[mode, second, "LEAF", "LEAF", "LEAF"],
        nodes_truenodeids=[1, 3, 0, 0, 0],
        nodes_falsenodeids=[2, 4, 0, 0, 0],
        nodes_missing_value_tracks_true=[0, 1, 0, 0, 0],
        target_treeids=[0, 0, 0],
        target_nodeids=[2, 3, 4],
        target_ids=[0, 0, 0],
        target_weights=[1.0, 2.0, 4.0],
        base_values=[10.0],
    )
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 1])],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    source = graph_file(helper.make_model(graph, opset_imports=opsets, ir_version=8))
    values = [0.5, np.nextafter(np.float32(0.5), np.float32(1)), 0.4, -1.0, -1.1, np.nan, 0.0]
    rows = np.array([[a, b] for a in values for b in values], dtype=np.float32)

    file = written(source, {})

    (expected,) = by_onnxruntime(source, rows)
    assert expected.tolist() == answers(file, {"x": rows})["y"].tolist()


def test_a_forest_that_is_too_large_is_refused_in_one_line() -> None:
    """The message says how large the matrices would be."""
    x, y = datasets.load_diabetes(return_X_y=True)
    model = ensemble.ExtraTreesRegressor(60, random_state=0).fit(x.astype(np.float32), y)

    with pytest.raises(UnsupportedModelError, match=r"60 trees of up to .* at most 2,000,000"):
        written(exported(model, 10, Task.REGRESSION, ["value"]), {"x": x.astype(np.float32)})
