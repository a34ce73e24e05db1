"""The list of operators in the documentation is the writer's own."""

from support.repository import REPOSITORY

from edgepack.converter.tflite_writer.listing import operator_table
from edgepack.converter.tflite_writer.operators.find import OPERATORS


def test_the_documentation_lists_every_operator() -> None:
    """docs/tflite-writer.md has the table that the code gives."""
    text = (REPOSITORY / "docs" / "tflite-writer.md").read_text(encoding="utf-8")

    shown = text.split("-->\n")[1].split("<!-- operators: end")[0].strip("\n") + "\n"

    assert operator_table() == shown, f"put this between the marks:\n{operator_table()}"
    assert all(f"`{name.removeprefix('ai.onnx.ml.')}`" in shown for name in OPERATORS)
