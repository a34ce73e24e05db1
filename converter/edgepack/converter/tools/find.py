"""Finds a tool by name without importing the others."""

import importlib
import importlib.util
from collections.abc import Callable

import edgepack.converter.tools as _package
from edgepack.converter.errors import UnsupportedModelError
from edgepack.converter.tools.tool import ToolJob, ToolResult

_NOT_TOOLS = frozenset({"ask", "find", "tool"})


def is_tool(name: str) -> bool:
    """Whether there is a tool of that name."""
    stem = name.replace("-", "_")
    if not stem.isidentifier() or stem in _NOT_TOOLS:
        return False
    return importlib.util.find_spec(f"{_package.__name__}.{stem}") is not None


def tool_named(name: str) -> Callable[[ToolJob], ToolResult]:
    """Find a tool: "quantize-onnx" is `edgepack.converter.tools.quantize_onnx.run`.

    Raises:
        UnsupportedModelError: There is none of that name.
    """
    if not is_tool(name):
        raise UnsupportedModelError(f"no tool is called {name[:80]!r}")
    path = f"{_package.__name__}.{name.replace('-', '_')}"
    run: Callable[[ToolJob], ToolResult] = importlib.import_module(path).run
    return run
