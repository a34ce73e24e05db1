"""Child process of the doctor: runs an engine or a model once, and prints what is wrong.

An engine that is built for another processor kills its process; here it kills only this one.
"""

import base64
import sys
from pathlib import Path

import numpy as np

# y = x + x for two numbers, as small as the formats allow
_ONNX = (
    "CAc6PQoOCgF4CgF4EgF5IgNBZGQSAWdaEwoBeBIOCgwIARIICgIIAQoCCAJiEwoBeRIOCgwIARIICgIIAQoCCAJCBAoA"
    "EA0="
)
_TFLITE = (
    "GAAAAFRGTDMAAA4AFAAQAAwACAAAAAQADgAAABAAAAAYAAAA/AAAAAMAAAABAAAABAAAAAz///8BAAAAFAAAAAAADgAY"
    "ABQAEAAMAAgABAAOAAAAFAAAABwAAABcAAAAYAAAAGQAAAAEAAAAbWFpbgAAAAABAAAAFAAAAAAADgAUAAAAEAAMAAsA"
    "BAAOAAAAEAAAAAAAAAsMAAAAEAAAAHj///8BAAAAAQAAAAIAAAAAAAAAAAAAAAEAAAABAAAAAQAAAAAAAAACAAAANAAA"
    "AAQAAADg////CAAAAAwAAAABAAAAeQAAAAIAAAABAAAAAgAAAAwADAAIAAAAAAAEAAwAAAAIAAAADAAAAAEAAAB4AAAA"
    "AgAAAAEAAAACAAAAAQAAAAgAAAAEAAQABAAAAA=="
)


def try_engine(name: str) -> str:
    """Let an engine add; what is wrong, or ""."""
    from edgepack.bundle.contract import (
        Datatype,
        EngineRequirements,
        Parity,
        TensorBinding,
        Variant,
    )
    from edgepack.runtime.engines import engine_named
    from edgepack.runtime.options import SessionOptions
    from edgepack.trust.errors import EdgepackError

    data = base64.b64decode(_ONNX if name == "onnxruntime" else _TFLITE)

    def bound(tensor: str) -> TensorBinding:
        return TensorBinding(name=tensor, tensor=tensor, dtype=Datatype.FP32, batch=1)

    variant = Variant(
        name="trial",
        files=("trial",),
        precision="fp32",
        size_bytes=len(data),
        engine=EngineRequirements(engine=name),
        inputs=(bound("x"),),
        outputs=(bound("y"),),
        parity=Parity(rows=1, metric="within_tolerance", value=1.0, bound=1.0),
    )
    try:
        session = engine_named(name).open({"trial": data}, variant, SessionOptions())
        (got,) = session.run([np.array([[1.0, 2.5]], np.float32)])
    except EdgepackError as exc:
        return str(exc)
    if got.tolist() != [[2.0, 5.0]]:
        return f"1 + 1, 2.5 + 2.5 must be 2, 5, got {got.tolist()}"
    return ""


def main(arguments: list[str]) -> int:
    """`engine NAME`, or `model STORE DIGEST VARIANT`."""
    if arguments[0] == "engine":
        wrong = try_engine(arguments[1])
    else:
        from edgepack.agent.upgrade.selfcheck import golden_failure

        wrong = golden_failure(Path(arguments[1]), arguments[2], arguments[3])
    sys.stdout.write(wrong)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
