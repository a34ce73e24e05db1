"""ONNX of TFLite files, by tf2onnx; and the real files from end to end."""

import io

import numpy as np
import pytest
from support.tflite_files import network_file

from edgepack.bundle.contract import Task
from edgepack.converter import ConvertRequest, convert
from edgepack.converter.sources.source import ExportWish
from edgepack.converter.tflite_model.original import TfliteModel

pytestmark = pytest.mark.heavy

ROWS = np.random.default_rng(7).normal(size=(50, 8)).astype(np.float32)


def test_onnx_of_a_tflite_file_answers_the_same():
    """Label and probabilities, for any number of rows."""
    import onnxruntime

    model = TfliteModel(network_file())
    expected = model.run(Task.CLASSIFICATION, {"x": ROWS})
    wish = ExportWish(
        task=Task.CLASSIFICATION,
        inputs=model.facts.inputs,
        outputs=("label", "probabilities"),
        precision="fp32",
        format="onnx",
    )
    exported = model.export(wish)
    session = onnxruntime.InferenceSession(exported.data, providers=["CPUExecutionProvider"])
    names = [binding.tensor for binding in exported.facts.outputs]
    found = session.run(names, {exported.facts.inputs[0].tensor: ROWS})
    answers = dict(zip((b.name for b in exported.facts.outputs), found, strict=True))

    assert expected["label"].tolist() == answers["label"].tolist()
    np.testing.assert_allclose(expected["probabilities"], answers["probabilities"], atol=1e-6)
    assert exported.facts.inputs[0].batch is None


@pytest.mark.parametrize(
    ("name", "variant", "accuracy"),
    [("kws_float32", "tflite-int8-weights", 0.900), ("kws_int8", "tflite-int8", 0.902)],
)
def test_keyword_spotting_files_are_packed_as_they_are(
    shared_data, tmp_path, name, variant, accuracy
):
    """As what they are, with the file's own answers on all rows, given real numbers."""
    folder = shared_data / "mlperf_tiny"
    data = np.load(io.BytesIO((folder / "kws01.npz").read_bytes()))
    samples = (data["mfcc_int8"].astype(np.float32) - data["zero_point"]) * data["scale"]
    path = tmp_path / "rows.npz"
    np.savez(path, input_1=samples.astype(np.float32), label=data["label"])
    report = convert(
        ConvertRequest(
            model=folder / f"{name}.tflite",
            data=path,
            label="label",
            output=tmp_path / "out",
            formats=("tflite",),
        )
    )
    first = report.variants[0]

    assert (variant, True) == (first.name, first.kept)
    assert first.parity.metric == "agreement"
    assert first.parity.value == 1.0
    assert accuracy == pytest.approx(first.parity.figures["accuracy"], abs=0.006)
