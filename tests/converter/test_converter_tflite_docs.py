"""The list of operators in the documentation, and the tool where its packages are missing."""

import sys

import pytest
from support.repository import REPOSITORY

from edgepack.converter.errors import UnsupportedModelError
from edgepack.converter.sources.source import Exported, ExportFacts, FileSummary
from edgepack.converter.tflite_writer.listing import operator_table
from edgepack.converter.tflite_writer.operators.find import OPERATORS
from edgepack.converter.tools.find import tool_named
from edgepack.converter.tools.tool import ToolJob


def test_the_documentation_lists_every_operator() -> None:
    """docs/tflite-writer.md has the table that the code gives."""
    text = (REPOSITORY / "docs" / "tflite-writer.md").read_text(encoding="utf-8")

    shown = text.split("-->\n")[1].split("<!-- operators: end")[0].strip("\n") + "\n"

    assert operator_table() == shown, f"put this between the marks:\n{operator_table()}"
    assert all(f"`{name.removeprefix('ai.onnx.ml.')}`" in shown for name in OPERATORS)


def test_a_missing_package_is_a_reason_for_no_tflite_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without LiteRT the tool says what to install, so that the ONNX files are still made."""
    for name in [name for name in sys.modules if "tflite_writer" in name]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "ai_edge_litert", None)
    summary = FileSummary(opsets={}, operators=(), weights=0, ir_version=8)
    facts = ExportFacts(inputs=(), outputs=(), summary=summary)

    with pytest.raises(UnsupportedModelError, match=r"pip install 'edgepack\[tflite\]'"):
        tool_named("write-tflite")(ToolJob(exported=Exported(data=b"", facts=facts)))
