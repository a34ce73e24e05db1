"""The writer's file inside a bundle, from the model's file to the device's answers."""

from pathlib import Path

import numpy as np
import pytest
from converter_models import save, table
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from edgepack.converter import ConvertRequest, convert
from edgepack.converter.request import Precision
from edgepack.runtime import load


@pytest.mark.filterwarnings("ignore:Stochastic Optimizer")
def test_a_bundle_of_tflite_gives_text_labels(tmp_path: Path) -> None:
    """A pipeline's TFLite variant answers with scikit-learn's own class names."""
    data = table("wine", tmp_path)
    names = np.array(["barolo", "grignolino", "barbera"])
    frame = data.path.read_text(encoding="utf-8").splitlines()
    rows = [line.rsplit(",", 1) for line in frame[1:]]
    text = [frame[0], *(f"{head},{names[int(place)]}" for head, place in rows)]
    data.path.write_text("\n".join(text) + "\n", encoding="utf-8")
    network = MLPClassifier((16,), max_iter=600, random_state=0)
    model = make_pipeline(StandardScaler(), network).fit(
        data.train, names[np.asarray(data.train_labels)]
    )

    report = convert(
        ConvertRequest(
            model=save(model, tmp_path / "wine.joblib"),
            data=data.path,
            label="target",
            output=tmp_path / "out",
            precision=(Precision.FP32,),
            formats=("tflite",),
        )
    )

    x = data.train.to_numpy()
    with load(report.path, variant="tflite-fp32") as loaded:
        found = loaded.predict({"x": x.astype(np.float32)})
    assert model.predict(data.train).tolist() == found["label"].tolist()
