"""How long one step may take: what takes longer is ended, and costs only what it was to make."""

from pathlib import Path

import numpy as np
import pytest
from support.model_child import model_child

from edgepack.bundle.contract import Datatype, Task, TensorSpec, Tolerances
from edgepack.converter.draft import Draft
from edgepack.converter.errors import WorkerError
from edgepack.converter.parity import HeldOut
from edgepack.converter.search.formats import other_format
from edgepack.converter.search.search import Ground
from edgepack.converter.sources.source import ExportWish, ModelFacts


def test_a_question_that_takes_too_long_is_not_the_end_of_the_model(
    digits_model: Path, tmp_path: Path
) -> None:
    """The child is ended in time, and the next question finds the model in a new one."""
    rows = {"x": np.zeros((2, 64))}
    with model_child("scikit_learn", tmp_path) as child:
        model = child.load(digits_model)
        before = model.run(Task.CLASSIFICATION, rows)
        wish = ExportWish(task=Task.CLASSIFICATION, inputs=(), outputs=("label",), precision="fp32")
        with pytest.raises(WorkerError, match=r"no answer within 1e-06 s .*--timeout"):
            model.export(wish, limit_s=1e-6)
        after = model.run(Task.CLASSIFICATION, rows)
    np.testing.assert_array_equal(before["label"], after["label"])


class Hangs:
    """An original whose exporter is ended."""

    def export(self, wish: ExportWish, *, limit_s: float | None) -> None:
        raise WorkerError(f"{wish.format} gave no answer within {limit_s:g} s")


def test_an_exporter_that_hangs_costs_its_own_format_only() -> None:
    """The other format is left out with the reason, and nothing is raised."""
    spec = TensorSpec(name="x", datatype=Datatype.FP32, shape=(-1, 3))
    draft = Draft(
        name="m",
        version="1.0.0",
        task=Task.GENERIC,
        inputs=(spec,),
        outputs=(spec,),
        class_names=(),
        tolerances=Tolerances(),
    )
    ground = Ground(
        draft=draft,
        held_out=HeldOut(inputs={}, expected={}, truth=None),
        arrays={},
        calibration=np.arange(0),
    )
    facts = ModelFacts(
        framework="Keras", description="m", packages={}, formats=("onnx", "tflite"), task=None
    )
    found = other_format("tflite", Hangs(), facts, None, ground, limit_s=300.0)  # type: ignore[arg-type]
    assert found.candidate is None
    assert not found.report.kept
    assert "tflite gave no answer within 300 s" == found.report.reason
