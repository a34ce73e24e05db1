"""LiteRT behind the engine Protocol; where only its predecessor tflite-runtime is, that answers."""

import importlib.util
import os
import re
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from edgepack.bundle.contract import Variant
from edgepack.runtime.engine import Engine, Session
from edgepack.runtime.errors import (
    EngineError,
    EngineMissingError,
    UnsupportedModelError,
    one_line,
)
from edgepack.runtime.options import SessionOptions
from edgepack.runtime.tflite_file import read_tflite
from edgepack.runtime.tflite_session import TfliteSession
from edgepack.runtime.version import version_of

LITERT: Final = "litert"
TFLITE_RUNTIME: Final = "tflite-runtime"
# Package to import and distribution to ask for its version.
_PACKAGES: Final = {
    LITERT: ("ai_edge_litert", "ai-edge-litert"),
    TFLITE_RUNTIME: ("tflite_runtime", "tflite-runtime"),
}
_MAPPED_BYTES: Final = 1 << 20
_BUILT_IN: Final = re.compile(r"[A-Z][A-Z0-9_]*", re.ASCII)
# Operators of its own that the interpreter has under custom names.
_CUSTOM: Final = frozenset(
    {"AudioSpectrogram", "Mfcc", "NumericVerify", "TFLite_Detection_PostProcess"}
)


class TfliteEngine:
    """Runs `.tflite` files on the CPU, by the first of its packages that is installed."""

    def __init__(self, name: str, packages: tuple[str, ...]) -> None:
        self.name = name
        self._choice = packages

    def versions(self) -> dict[str, str]:
        """Name the installed interpreter; it is not imported."""
        found = self._installed()
        try:
            return {found: version_of(_PACKAGES[found][1])}
        except ModuleNotFoundError:
            # Linux distributions that package it themselves need not say so to Python.
            return {found: str(getattr(_import(found), "__version__", "0 (unknown)"))}

    def prepare(self) -> None:
        """Import the interpreter."""
        _import(self._installed())

    def check(self, variant: Variant) -> None:
        """Refuse another engine's variant, and operators that no interpreter here has."""
        if variant.engine.engine not in _PACKAGES:
            raise UnsupportedModelError(
                f"variant {variant.name!r} must be for {self.name}, got {variant.engine.engine!r}"
            )
        unknown = [
            name
            for name in sorted(variant.engine.opsets)
            if not _BUILT_IN.fullmatch(name) and name not in _CUSTOM
        ]
        if unknown:
            raise UnsupportedModelError(
                f"variant {variant.name!r} needs operators of {', '.join(unknown)[:200]}, "
                f"which {self.name} does not have"
            )
        self._installed()

    def open(
        self, files: Mapping[str, bytes], variant: Variant, options: SessionOptions
    ) -> Session:
        """Load the first file of the variant."""
        self.check(variant)
        found = self._installed()
        data = files[variant.files[0]]
        if found == TFLITE_RUNTIME:
            _check_offsets(data, variant)
        module = _import(found)

        def make() -> Any:  # noqa: ANN401  (it ships no types)
            return module.Interpreter(model_content=data, num_threads=options.threads)

        return TfliteSession(make, variant)

    def maps(self, variant: Variant) -> bool:
        """Whether the file is large: the kernels pack its weights anew, and need no other copy."""
        return variant.size_bytes >= _MAPPED_BYTES

    def open_on_disk(self, path: Path, variant: Variant, options: SessionOptions) -> Session:
        """Map the file where it lies."""
        self.check(variant)
        found = self._installed()
        try:
            if found == TFLITE_RUNTIME:
                _check_offsets(path.read_bytes(), variant)
            held = os.open(path, os.O_RDONLY)
        except OSError as exc:
            raise EngineError(f"{found} cannot map {path}: {exc.strerror}") from exc
        module = _import(found)

        def make() -> Any:  # noqa: ANN401  (it ships no types)
            # A second caller's interpreter is made when the file may be deleted already.
            again = Path(f"/proc/self/fd/{held}")
            place = again if again.exists() else path
            return module.Interpreter(model_path=str(place), num_threads=options.threads)

        try:
            session = TfliteSession(make, variant)
        except EngineError:
            os.close(held)
            raise
        weakref.finalize(session, os.close, held)
        return session

    def _installed(self) -> str:
        for name in self._choice:
            if importlib.util.find_spec(_PACKAGES[name][0]) is not None:
                return name
        raise EngineMissingError(
            f"{self.name} is not installed: pip install 'edgepack[agent-tflite]'"
        )


def _check_offsets(data: bytes, variant: Variant) -> None:
    """Look where the predecessor does not: a damaged file would end the process."""
    try:
        read_tflite(data)
    except EngineError as exc:
        raise EngineError(f"{TFLITE_RUNTIME} cannot load {variant.files[0]}: {exc}") from exc


def _import(name: str) -> Any:  # noqa: ANN401  (it ships no types)
    package = _PACKAGES[name][0]
    try:
        return importlib.import_module(f"{package}.interpreter")
    except ImportError as exc:  # a build for another numpy or another processor
        raise EngineMissingError(f"{name} cannot be imported: {one_line(exc)}") from exc


ENGINE: Engine = TfliteEngine(LITERT, (LITERT, TFLITE_RUNTIME))
