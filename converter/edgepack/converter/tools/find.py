"""Finds a tool by name without importing the others."""

import importlib
import importlib.util
from collections.abc import Callable

import edgepack.converter.tools as _package
from edgepack.converter.tools.tool import ToolJob, ToolResult

_NOT_TOOLS = frozenset({"ask", "find", "tool"})


def tool_named(name: str) -> Callable[[ToolJob], ToolResult]:
    """Find a tool: "quantize-onnx" is `edgepack.converter.tools.quantize_onnx.run`.

    Raises:
        ValueError: There is none of that name.
    """
    stem = name.replace("-", "_")
    path = f"{_package.__name__}.{stem}"
    if not stem.isidentifier() or stem in _NOT_TOOLS or importlib.util.find_spec(path) is None:
        raise ValueError(f"no tool is called {name[:80]!r}")
    run: Callable[[ToolJob], ToolResult] = importlib.import_module(path).run
    return run
