"""A bundle of one ONNX classifier in float32, as the converter would write it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgepack.bundle import Part, media_types, sign_bundle, write_bundle
from edgepack.bundle.contract import (
    Contract,
    Datatype,
    EngineRequirements,
    Parity,
    Task,
    TensorBinding,
    TensorSpec,
    Variant,
)
from edgepack.runtime.golden import Golden, render_golden
from edgepack.trust import PrivateKey


def write_classifier_bundle(
    folder: Path,
    given: TensorSpec,
    *,
    name: str,
    version: str = "1.0.0",
    classes: tuple[str, ...],
    model: bytes,
    samples: np.ndarray,
    outputs: Mapping[str, np.ndarray],
    tensor: Datatype = Datatype.FP32,
    key: PrivateKey | None = None,
    sequence: int = 1,
    **more: Any,
) -> Path:
    """Write NAME-VERSION.edgepack, signed with `key` if there is one.

    Args:
        folder: Where to.
        given: The one input.
        name: Of the bundle.
        version: Of the bundle.
        classes: The labels.
        model: ONNX, opset 17: the input's name to `label` and `probabilities`.
        samples: Golden inputs (64, …).
        outputs: What the original answers to them: `label` (64,), `probabilities` (64, classes).
        tensor: What the model itself takes.
        key: For the signature.
        sequence: For the signature.
        more: Further fields of the contract.
    """
    label, probabilities = (
        TensorSpec(name="label", datatype=Datatype.BYTES, shape=(-1,)),
        TensorSpec(name="probabilities", datatype=Datatype.FP32, shape=(-1, len(classes))),
    )
    golden = Golden(inputs={given.name: samples}, outputs=outputs, truth=outputs["label"])
    contract = Contract(
        name=name,
        version=version,
        task=Task.CLASSIFICATION,
        inputs=(given,),
        outputs=(label, probabilities),
        class_names=classes,
        golden="golden.safetensors",
        variants=(
            Variant(
                name="onnx-fp32",
                files=("onnx-fp32/model.onnx",),
                precision="fp32",
                size_bytes=len(model),
                engine=EngineRequirements(engine="onnxruntime", opsets={"": 17}),
                inputs=(TensorBinding(name=given.name, tensor=given.name, dtype=tensor),),
                outputs=tuple(
                    TensorBinding(name=spec.name, tensor=spec.name, dtype=spec.datatype)
                    for spec in (label, probabilities)
                ),
                parity=Parity(rows=64, metric="agreement", value=1.0, bound=1.0),
            ),
        ),
        **more,
    )
    path = folder / f"{name}-{version}.edgepack"
    parts = [
        Part(path="onnx-fp32/model.onnx", media_type=media_types.WEIGHTS, data=model),
        Part(path="golden.safetensors", media_type=media_types.DATASET, data=render_golden(golden)),
    ]
    write_bundle(path, contract, parts)
    if key is not None:
        sign_bundle(path, key, sequence=sequence)
    return path
