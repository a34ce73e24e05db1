"""MLflow's model folders: written by hand as MLflow writes them, and by MLflow itself."""

import json
import pickle
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
from converter_models import run, table
from sklearn.linear_model import LogisticRegression

from edgepack.bundle import open_bundle
from edgepack.converter import (
    MissingPackageError,
    ModelFileError,
    Precision,
    UnsafeModelError,
    UnsupportedModelError,
)
from edgepack.converter.sources.find import recognise, source_named
from edgepack.converter.sources.source import LoadedModel, LoadOptions
from edgepack.runtime import load

pandas = pytest.importorskip("pandas")
yaml = pytest.importorskip("yaml")

ROWS = np.random.default_rng(0).normal(size=(200, 3))
LABELS = (ROWS[:, 0] > 0).astype(int)
NAMES = ("speed", "tool wear", "torque")
ML_MODEL = """\
flavors:
  python_function:
    env:
      conda: conda.yaml
      virtualenv: python_env.yaml
    loader_module: mlflow.{flavour}
    python_version: 3.11.7
  {flavour}:
    code: null
    {key}: {file}
is_signature_from_type_hint: false
mlflow_version: 3.17.2
model_uuid: f5df080c36444c52803c90c16bca56bf
saved_input_example_info:
  artifact_path: input_example.json
  pandas_orient: split
  type: dataframe
signature:
  inputs: '{inputs}'
  outputs: '[{{"type": "tensor", "tensor-spec": {{"dtype": "int64", "shape": [-1]}}}}]'
  params: null
utc_time_created: '2026-11-21 10:09:59.196227'
"""


def folder(path: Path, flavour: str, key: str, file: str, names: tuple[str, ...] = NAMES) -> Path:
    """A folder as MLflow writes it, still without the model's file."""
    path.mkdir()
    fields = [{"type": "double", "name": name, "required": True} for name in names]
    (path / "MLmodel").write_text(
        ML_MODEL.format(flavour=flavour, key=key, file=file, inputs=json.dumps(fields))
    )
    example = {"columns": list(names), "data": np.resize(ROWS, (3, len(names))).tolist()}
    (path / "input_example.json").write_text(json.dumps(example))
    return path


def opened(path: Path) -> LoadedModel:
    """As the child process loads it."""
    source = source_named(recognise(path).module)
    source.prepare()
    return source.load(path, LoadOptions())


def fitted() -> LogisticRegression:
    """A model that knows no names."""
    return LogisticRegression().fit(ROWS, LABELS)


def test_a_folder_is_recognised_by_its_flavour(tmp_path: Path) -> None:
    """What a folder holds is told without MLflow, YAML or the model's framework."""
    found = recognise(folder(tmp_path / "m", "sklearn", "pickled_model", "model.pkl"))
    assert "MLflow model folder, sklearn" == found.description
    assert "mlflow_folder" == found.module


def test_the_signature_names_the_columns(tmp_path: Path) -> None:
    """A model without names takes those of the signature; its example is answered."""
    path = folder(tmp_path / "m", "sklearn", "pickled_model", "model.pkl")
    joblib.dump(fitted(), path / "model.pkl")
    facts = opened(path).facts
    assert NAMES == facts.feature_names
    assert "the model answers the 3 rows of the folder's input example" in facts.messages


def test_the_model_knows_better(tmp_path: Path) -> None:
    """A model's own names stay, and its example's columns are matched to them."""
    path = folder(tmp_path / "m", "sklearn", "pickled_model", "model.pkl")
    frame = pandas.DataFrame(ROWS, columns=NAMES)[list(reversed(NAMES))]
    joblib.dump(LogisticRegression().fit(frame, LABELS), path / "model.pkl")
    facts = opened(path).facts
    assert tuple(reversed(NAMES)) == facts.feature_names
    assert any("answers the 3 rows" in message for message in facts.messages)


def test_a_signature_of_another_model(tmp_path: Path) -> None:
    """A signature or an example that does not fit is said, and not used."""
    path = folder(tmp_path / "m", "sklearn", "pickled_model", "model.pkl", NAMES[:2])
    joblib.dump(fitted(), path / "model.pkl")
    facts = opened(path).facts
    assert () == facts.feature_names
    assert any("signature has 2 columns and the model takes 3" in text for text in facts.messages)
    assert any("does not answer" in message for message in facts.messages)


def test_a_folder_to_a_bundle(tmp_path: Path) -> None:
    """A folder of XGBoost becomes a bundle with the signature's names that answers the same."""
    xgboost = pytest.importorskip("xgboost")
    iris = table("iris", tmp_path)
    names = tuple(iris.train.columns)
    path = folder(tmp_path / "flowers", "xgboost", "data", "model.ubj", names)
    model = xgboost.XGBClassifier(n_estimators=10, n_jobs=1)
    model.fit(iris.train.to_numpy(), iris.train_labels)
    model.save_model(path / "model.ubj")
    report = run(path, iris, tmp_path, precision=Precision.FP32)
    rows = pandas.read_csv(iris.path).drop(columns="target").to_numpy()
    with load(open_bundle(report.path)) as bundle:
        assert names == bundle.contract.inputs[0].feature_names
        answers = bundle.predict({"x": rows.astype(np.float32)})
    assert model.predict(rows).tolist() == answers["label"].tolist()


def test_a_folder_inside_the_folder(tmp_path: Path) -> None:
    """A flavour may name a folder that holds the model's file."""
    path = folder(tmp_path / "m", "onnx", "data", "data")
    (path / "data").mkdir()
    with pytest.raises(ModelFileError, match="holds no model file"):
        opened(path)
    onnx = pytest.importorskip("onnx")
    from skl2onnx import to_onnx

    made = to_onnx(fitted(), ROWS[:1].astype(np.float32), options={"zipmap": False})
    onnx.save_model(made, path / "data" / "model.onnx")
    (spec,) = opened(path).facts.inputs
    assert NAMES == spec.feature_names


class Calls:
    """Pickles to a call of a function."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


def test_a_hostile_pickle_in_a_folder(tmp_path: Path) -> None:
    """A folder's pickle goes through the same list as any other."""
    import os

    mark = tmp_path / "pwned"
    path = folder(tmp_path / "m", "sklearn", "pickled_model", "model.pkl")
    (path / "model.pkl").write_bytes(pickle.dumps(Calls(os.system, f"touch {mark}")))
    with pytest.raises(UnsafeModelError, match="not on the list"):
        opened(path)
    assert not mark.exists()


@pytest.mark.parametrize("said", ["../outside.pkl", "/etc/passwd", "link.pkl"])
def test_a_file_outside_the_folder(said: str, tmp_path: Path) -> None:
    """A folder that names a file elsewhere is refused."""
    path = folder(tmp_path / "m", "sklearn", "pickled_model", said)
    joblib.dump(fitted(), tmp_path / "outside.pkl")
    (path / "link.pkl").symlink_to(tmp_path / "outside.pkl")
    with pytest.raises(ModelFileError, match="outside the folder"):
        opened(path)


DAMAGED = {
    "no flavors": ("artifact_path: model\n", ModelFileError, "names no flavors"),
    "no YAML": ("flavors:\n  sklearn:\n    a: [1\n", ModelFileError, "is no YAML"),
    "a list": ("flavors:\n  - sklearn\n", ModelFileError, "names no flavors"),
    "binary": (b"flavors:\n\xff\xfe", ModelFileError, "cannot be read as text"),
    "another flavour": ("flavors:\n  spark:\n    a: b\n", UnsupportedModelError, "flavor spark"),
    "python only": (
        "flavors:\n  python_function:\n    loader_module: mine\n",
        UnsupportedModelError,
        "flavor python_function; edgepack converts sklearn",
    ),
    "no file said": ("flavors:\n  sklearn:\n    a: b\n", ModelFileError, "does not say which file"),
    "no file there": (
        "flavors:\n  sklearn:\n    pickled_model: model.pkl\n",
        ModelFileError,
        "model.pkl is missing",
    ),
    "a tag that makes objects": (
        "flavors:\n  sklearn: !!python/object/apply:os.system [true]\n",
        ModelFileError,
        "is no YAML",
    ),
}


@pytest.mark.parametrize(("text", "error", "message"), DAMAGED.values(), ids=DAMAGED.keys())
def test_damaged_folders(
    text: str | bytes, error: type[Exception], message: str, tmp_path: Path
) -> None:
    """Whatever is wrong with MLmodel is one line."""
    data = text if isinstance(text, bytes) else text.encode()
    (tmp_path / "MLmodel").write_bytes(data)
    with pytest.raises(error, match=message) as caught:
        opened(tmp_path)
    assert "\n" not in str(caught.value)


EXAMPLES = ["", "{", "[]", "[[]]", "[[1, 2], [3]]", "[[[1]]]", '{"data": 1}', '{"inputs": [[1]]}']


@pytest.mark.parametrize("example", EXAMPLES)
def test_strange_examples(example: str, tmp_path: Path) -> None:
    """An example that is no table is left aside."""
    path = folder(tmp_path / "m", "sklearn", "pickled_model", "model.pkl")
    joblib.dump(fitted(), path / "model.pkl")
    (path / "input_example.json").write_text(example)
    assert not any("example" in message for message in opened(path).facts.messages)


def test_an_example_with_too_many_names(tmp_path: Path) -> None:
    """Names that are not as many as the example's cells are left aside."""
    path = folder(tmp_path / "m", "sklearn", "pickled_model", "model.pkl")
    joblib.dump(fitted(), path / "model.pkl")
    example = {"columns": [*NAMES, "more"], "data": ROWS[:2].tolist()}
    (path / "input_example.json").write_text(json.dumps(example))
    assert any("answers the 2 rows" in message for message in opened(path).facts.messages)


def test_without_yaml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without PyYAML the line says what to install."""
    import sys

    for name in ("load", "folder"):
        monkeypatch.delitem(sys.modules, f"edgepack.converter.mlflow_model.{name}", raising=False)
    monkeypatch.setitem(sys.modules, "yaml", None)
    path = folder(tmp_path / "m", "sklearn", "pickled_model", "model.pkl")
    with pytest.raises(MissingPackageError, match=r"yaml: pip install 'edgepack\[mlflow\]'"):
        opened(path)


@pytest.mark.parametrize("flavour", ["sklearn", "sklearn cloudpickle", "xgboost", "onnx"])
def test_what_mlflow_itself_writes(
    flavour: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Folders of the real MLflow are read, with its signature and example."""
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "runs").as_uri())
    frame = pandas.DataFrame(ROWS, columns=NAMES)
    path = tmp_path / "model"
    more: dict[str, Any] = {
        "path": str(path),
        "signature": mlflow.models.infer_signature(frame, LABELS),
        "pip_requirements": ["scikit-learn"],  # finding them out would take a process and seconds
    }
    if flavour == "xgboost":
        xgboost = pytest.importorskip("xgboost")
        import mlflow.xgboost as writer

        model = xgboost.XGBClassifier(n_estimators=5, n_jobs=1).fit(ROWS, LABELS)
    elif flavour == "onnx":
        import mlflow.onnx as writer
        from skl2onnx import to_onnx

        model = to_onnx(fitted(), ROWS[:1].astype(np.float32), options={"zipmap": False})
    else:
        import mlflow.sklearn as writer

        model = fitted()
        if "cloudpickle" in flavour:
            more["serialization_format"] = "cloudpickle"
    writer.save_model(model, **more)
    loaded = opened(path)
    named = loaded.facts.inputs[0].feature_names if flavour == "onnx" else None
    assert NAMES == (named or loaded.facts.feature_names)
    assert loaded.facts.task is not None
    original = fitted() if flavour == "onnx" else model
    name = loaded.facts.inputs[0].name if flavour == "onnx" else "x"
    rows = ROWS.astype(np.float32 if flavour == "onnx" else np.float64)
    answers = loaded.run(loaded.facts.task, {name: rows})
    assert original.predict(ROWS).tolist() == answers["label"].tolist()
