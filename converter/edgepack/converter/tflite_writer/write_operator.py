"""What one operator's writer looks like."""

from collections.abc import Callable, Mapping
from typing import TypeAlias

from edgepack.converter.tflite_writer.graph import Graph, Step

WriteOperator: TypeAlias = Callable[[Graph, Step], None]
Operators: TypeAlias = Mapping[str, WriteOperator]
