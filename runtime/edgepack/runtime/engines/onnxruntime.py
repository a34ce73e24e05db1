# ruff: noqa: ANN401  (onnxruntime ships no types; its objects stay inside this file)
"""onnxruntime behind the engine Protocol.

Only the CPU provider: the devices that edgepack is for have no other that is worth its memory.
"""

import functools
import importlib.util
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from types import ModuleType
from typing import Any, Final

import numpy as np

from edgepack.bundle.contract import Datatype, TensorBinding, Variant
from edgepack.runtime.engine import Abilities, Binding, Engine, Session
from edgepack.runtime.errors import (
    EngineError,
    EngineMissingError,
    InputError,
    UnsupportedModelError,
    one_line,
)
from edgepack.runtime.options import SessionOptions
from edgepack.runtime.tensors import Array
from edgepack.runtime.version import version_of

_NAME: Final = "onnxruntime"
_LOG_ERRORS_FATAL_ONLY: Final = 4
_MAPPED_BYTES: Final = 32 << 20  # see `SessionOptions.repack`
_DOMAINS: Final = frozenset({"", "ai.onnx", "ai.onnx.ml", "com.microsoft", "com.microsoft.nchwc"})
_TYPES: Final = {
    "tensor(bool)": Datatype.BOOL,
    "tensor(uint8)": Datatype.UINT8,
    "tensor(uint16)": Datatype.UINT16,
    "tensor(uint32)": Datatype.UINT32,
    "tensor(uint64)": Datatype.UINT64,
    "tensor(int8)": Datatype.INT8,
    "tensor(int16)": Datatype.INT16,
    "tensor(int32)": Datatype.INT32,
    "tensor(int64)": Datatype.INT64,
    "tensor(float16)": Datatype.FP16,
    "tensor(float)": Datatype.FP32,
    "tensor(double)": Datatype.FP64,
    "tensor(string)": Datatype.BYTES,
}


class OnnxRuntimeEngine:
    """Runs `.onnx` files on the CPU."""

    name = _NAME

    def versions(self) -> dict[str, str]:
        """Name the installed onnxruntime; the package is not imported."""
        try:
            return {_NAME: version_of(_NAME)}
        except ModuleNotFoundError:
            # Debian's package and some builds carry another distribution name.
            return {_NAME: str(_import().__version__)}

    def prepare(self) -> None:
        """Import onnxruntime."""
        _import()

    def abilities(self) -> Abilities:
        """Tell the operators whose definitions this build has."""
        state: Any = _import().capi.onnxruntime_pybind11_state
        try:
            schemas = [
                (item.domain, item.name, item.since_version)
                for item in state.get_all_operator_schema()
            ]
        except AttributeError as exc:  # a build without the definitions
            raise EngineError(f"{_NAME} does not tell its operators") from exc
        opsets: dict[str, int] = {}
        for domain, _, version in schemas:
            opsets[domain] = max(version, opsets.get(domain, 0))
        opsets["ai.onnx"] = opsets.get("", 0)
        operators = frozenset(f"{domain or 'ai.onnx'}::{name}" for domain, name, _ in schemas)
        return Abilities(opsets=opsets, operators=operators)

    def check(self, variant: Variant) -> None:
        """Refuse another engine's variant and operator domains that this build does not have."""
        if variant.engine.engine != _NAME:
            raise UnsupportedModelError(
                f"variant {variant.name!r} must be for {_NAME}, got {variant.engine.engine!r}"
            )
        unknown = sorted(set(variant.engine.opsets) - _DOMAINS)
        if unknown:
            raise UnsupportedModelError(
                f"variant {variant.name!r} needs operators of {', '.join(unknown)[:200]}, "
                f"which {_NAME} does not have"
            )
        if importlib.util.find_spec(_NAME) is None:
            _import()  # raises what says how to install it

    def open(
        self, files: Mapping[str, bytes], variant: Variant, options: SessionOptions
    ) -> Session:
        """Load the first file of the variant; large weights may be in others."""
        self.check(variant)
        outside = {outside_name(path, variant): files[path] for path in variant.files[1:]}
        settings = session_options(options, sum(map(len, outside.values())))
        model = files[variant.files[0]]
        if not outside:
            return _session(model, settings, variant)
        try:
            settings.add_external_initializers_from_files_in_memory(
                list(outside), list(outside.values()), [len(data) for data in outside.values()]
            )
        except AttributeError:  # before 1.24
            import tempfile  # not for a device that restarts

            with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
                path = Path(folder, "model.onnx")
                for name, data in {path.name: model, **outside}.items():
                    Path(folder, name).write_bytes(data)
                return _session(path, settings, variant)
        return _session(model, settings, variant)

    def maps(self, variant: Variant) -> bool:
        """Whether it has weights in files of their own: a model file itself is always copied."""
        return len(variant.files) > 1

    def open_on_disk(self, path: Path, variant: Variant, options: SessionOptions) -> Session:
        """Load the first file of the variant; it maps the others."""
        self.check(variant)
        names = [outside_name(item, variant) for item in variant.files[1:]]
        try:
            size_bytes = sum(path.with_name(name).stat().st_size for name in names)
        except OSError as exc:
            raise EngineError(f"{_NAME} cannot map {exc.filename}: {exc.strerror}") from exc
        return _session(path, session_options(options, size_bytes), variant)


def outside_name(path: str, variant: Variant) -> str:
    """The name that a model file knows one of its weight files by: they share a folder.

    Raises:
        UnsupportedModelError: They do not.
    """
    folder = PurePosixPath(variant.files[0]).parent
    if PurePosixPath(path).parent != folder:
        raise UnsupportedModelError(
            f"variant {variant.name!r}: file {path[:80]!r} must be in {str(folder)[:80]!r}"
        )
    return PurePosixPath(path).name


def _session(model: bytes | Path, settings: Any, variant: Variant) -> Session:
    ort = _import()
    path = variant.files[0]
    try:
        inference = ort.InferenceSession(
            str(model) if isinstance(model, Path) else model,
            settings,
            providers=["CPUExecutionProvider"],
        )
    except _failures() as exc:
        raise EngineError(f"{_NAME} cannot load {path}: {one_line(exc)}") from exc
    _check_tensors(inference.get_inputs(), variant.inputs, f"{path}: input")
    unfed = {node.name for node in inference.get_inputs()} - {b.tensor for b in variant.inputs}
    if unfed:
        raise UnsupportedModelError(f"{path}: nothing is bound to input {min(unfed)!r}")
    _check_tensors(inference.get_outputs(), variant.outputs, f"{path}: output")
    return _OnnxRuntimeSession(ort, inference, variant)


class _OnnxRuntimeSession:
    """An InferenceSession; it may run in several threads at once."""

    def __init__(self, ort: ModuleType, inference: Any, variant: Variant) -> None:
        self._ort = ort
        self._inference = inference
        self._names = [binding.name for binding in variant.inputs]
        self._inputs = [binding.tensor for binding in variant.inputs]
        self._outputs = [binding.tensor for binding in variant.outputs]
        self._variant = variant.name
        self._run = _quick_run(inference)

    def run(self, feeds: Sequence[Array]) -> list[Array]:
        """Run once."""
        if self._run is None:
            raise EngineError(f"variant {self._variant!r} is closed")
        try:
            return self._run(self._outputs, dict(zip(self._inputs, feeds, strict=False)), None)
        except _failures() as exc:
            from edgepack.runtime.categories import refused  # few models have any

            unknown = refused(str(exc), self._names, feeds)
            if unknown is not None:
                raise InputError(unknown) from exc
            raise EngineError(f"variant {self._variant!r} failed: {one_line(exc)}") from exc

    def bind(self, inputs: Sequence[Array], outputs: Sequence[Array]) -> Binding | None:
        """Join new buffers to the session."""
        if any(array.dtype == object for array in (*inputs, *outputs)):
            return None
        buffers_in = tuple(np.zeros(array.shape, array.dtype) for array in inputs)
        buffers_out = tuple(np.zeros(array.shape, array.dtype) for array in outputs)
        try:
            binding = self._inference.io_binding()
            for name, buffer in zip(self._inputs, buffers_in, strict=True):
                binding.bind_input(
                    name, "cpu", 0, buffer.dtype.type, buffer.shape, buffer.ctypes.data
                )
            for name, buffer in zip(self._outputs, buffers_out, strict=True):
                binding.bind_output(
                    name, "cpu", 0, buffer.dtype.type, buffer.shape, buffer.ctypes.data
                )
        except _failures() as exc:
            raise EngineError(
                f"variant {self._variant!r} cannot be bound: {one_line(exc)}"
            ) from exc
        return Binding(
            inputs=buffers_in,
            outputs=buffers_out,
            run=self._runner(binding),
            failures=_failures(),
        )

    def close(self) -> None:
        """Let the engine free its memory; bindings that are still alive keep it until then."""
        self._inference = self._run = None

    def _runner(self, binding: Any) -> Any:
        # The public method checks things for GPUs in Python at every call, which costs as much
        # as a small model. What it calls in the end is the same in every version since 1.4.
        session = getattr(self._inference, "_sess", None)
        native = getattr(binding, "_iobinding", None)
        if session is not None and native is not None:
            return functools.partial(session.run_with_iobinding, native, None)
        return functools.partial(self._inference.run_with_iobinding, binding)


def _quick_run(inference: Any) -> Callable[..., list[Array]] | None:
    """What `InferenceSession.run` calls in the end, without what it looks at in Python before."""
    session = getattr(inference, "_sess", None)
    run: Callable[..., list[Array]] = (inference if session is None else session).run
    return run


def _import() -> ModuleType:
    # From 1.29 on, importing it makes an identifier and a cache on disk and starts an uploader
    # (2 MB and a thread); only this variable, set before the import, prevents all of that.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    try:
        import onnxruntime as ort
    except ImportError as exc:
        raise EngineMissingError(
            "onnxruntime is not installed: pip install 'edgepack[agent-onnx]'"
        ) from exc
    ort.disable_telemetry_events()
    module: ModuleType = ort
    return module


@functools.cache
def _failures() -> tuple[type[Exception], ...]:
    """Every kind of exception that onnxruntime raises; its own share no base class."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    own = [kind for kind in vars(state).values() if isinstance(kind, type)]
    return (
        RuntimeError,
        ValueError,
        TypeError,
        *(kind for kind in own if issubclass(kind, Exception)),
    )


def session_options(options: SessionOptions, outside_bytes: int = 0) -> Any:
    """Say it in onnxruntime's own words.

    Args:
        options: What is wanted.
        outside_bytes: Size of the weights that are in files of their own.

    Raises:
        EngineMissingError: The engine is not installed.
    """
    ort = _import()
    settings = ort.SessionOptions()
    settings.intra_op_num_threads = options.threads
    settings.inter_op_num_threads = 1
    settings.enable_cpu_mem_arena = options.arena
    spinning = "1" if options.spinning else "0"
    settings.add_session_config_entry("session.intra_op.allow_spinning", spinning)
    settings.add_session_config_entry("session.inter_op.allow_spinning", spinning)
    repack = options.repack
    if not (outside_bytes < _MAPPED_BYTES if repack is None else repack):
        settings.add_session_config_entry("session.disable_prepacking", "1")
        # The level above rearranges the weights of convolutions, into memory.
        settings.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    # What it logs as an error it also raises, and it writes to stderr past any log handler.
    settings.log_severity_level = _LOG_ERRORS_FATAL_ONLY
    return settings


def _check_tensors(nodes: Sequence[Any], bindings: Sequence[TensorBinding], where: str) -> None:
    types = {node.name: node.type for node in nodes}
    for binding in bindings:
        got = types.get(binding.tensor)
        if got is None:
            raise UnsupportedModelError(
                f"{where} must be one of {', '.join(sorted(types))[:200]}, got {binding.tensor!r}"
            )
        if _TYPES.get(got) != binding.dtype:
            raise UnsupportedModelError(
                f"{where} {binding.tensor!r} must be {binding.dtype}, got {got}"
            )


ENGINE: Engine = OnnxRuntimeEngine()
