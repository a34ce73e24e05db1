"""The list of operators as docs/tflite-writer.md shows it; a test compares the two."""

from edgepack.converter.tflite_writer.operators import (
    activations,
    elementwise,
    linear_models,
    matrices,
    reductions,
    shaping,
    support_vectors,
    trees,
    windows,
)

_SUBJECTS = {
    "Number by number": elementwise,
    "Activations": activations,
    "Moving numbers": shaping,
    "Along dimensions": reductions,
    "Matrix products": matrices,
    "Windows": windows,
    "Linear models and preparation (ai.onnx.ml)": linear_models,
    "Support vectors (ai.onnx.ml)": support_vectors,
    "Trees (ai.onnx.ml)": trees,
}


def operator_table() -> str:
    """A Markdown table of all operators, by subject.

    >>> operator_table().splitlines()[6]
    '| Matrix products | `Gemm`, `MatMul` |'
    """
    rows = ["| subject | ONNX operators |", "|---|---|"]
    for subject, module in _SUBJECTS.items():
        names = sorted(name.removeprefix("ai.onnx.ml.") for name in module.OPERATORS)
        rows.append(f"| {subject} | {', '.join(f'`{name}`' for name in names)} |")
    return "\n".join(rows) + "\n"
