"""What the running agent costs with a TFLite engine, beside a bare process of that engine."""

import tempfile
from pathlib import Path
from typing import Final

from edgepack.bench import agent_footprint as footprint
from edgepack.bench.figure import Figure
from edgepack.converter import Precision

LARGEST_MEMORY_RATIO: Final = 1.4

_BARE: Final = """
import sys
import numpy as np
from ai_edge_litert.interpreter import Interpreter
interpreter = Interpreter(model_content=open(sys.argv[1], "rb").read(), num_threads=1)
interpreter.allocate_tensors()
(given,) = interpreter.get_input_details()
def run():
    interpreter.set_tensor(given["index"], np.ones(given["shape"], np.float32))
    interpreter.invoke()
    for detail in interpreter.get_output_details():
        interpreter.get_tensor(detail["index"])
run()
print("answered", flush=True)
for _ in range(int(sys.argv[2])):
    run()
print("worked", flush=True)
sys.stdin.read()
"""


def measure() -> Figure:
    """Start both in turns."""
    with tempfile.TemporaryDirectory(prefix="edgepack-bench-") as name:
        folder = Path(name)
        files = footprint.prepare(folder, formats=("tflite",), precision=Precision.FP32)
        model_file = files / "tflite-fp32" / "model.tflite"
        with footprint.broker(folder) as port:
            config = footprint.write_config(folder, port)
            pairs = footprint.pairs_of(
                config, port, folder, lambda: footprint.bare_cost(model_file, _BARE)
            )
    return Figure(
        name="agent_footprint_tflite",
        title="The same with LiteRT",
        method=(
            "As above, with the digits pipeline as TFLite in float32 only, and a bare process that "
            "imports numpy and ai_edge_litert, makes an interpreter of the same file with one "
            f"thread and runs it. {footprint.PAIRS} starts each, in turns."
        ),
        lines=footprint.lines_of(pairs, largest_memory_ratio=LARGEST_MEMORY_RATIO),
    )
