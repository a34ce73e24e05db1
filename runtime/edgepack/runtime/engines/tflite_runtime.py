"""tflite-runtime, LiteRT's predecessor, for processors and systems that have nothing newer."""

from edgepack.runtime.engine import Engine
from edgepack.runtime.engines.litert import TFLITE_RUNTIME, TfliteEngine

ENGINE: Engine = TfliteEngine(TFLITE_RUNTIME, (TFLITE_RUNTIME,))
