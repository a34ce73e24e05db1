"""From a file of PyTorch's to a model with its exports."""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from edgepack.converter.errors import (
    ModelFileError,
    RequestError,
)
from edgepack.converter.sources.source import LoadOptions
from edgepack.converter.sources.torch_kind import (
    EXPORT_LINES,
    TorchFile,
    TorchKind,
    torch_file,
)
from edgepack.converter.tensor_model import TensorModel, TfliteFile
from edgepack.converter.torch_model import to_tflite
from edgepack.converter.torch_model.factory import make_model
from edgepack.converter.torch_model.flat import Flat, output_names
from edgepack.converter.torch_model.inputs import Input, example, find_inputs
from edgepack.converter.torch_model.programs import (
    load_program,
    load_script,
    program_inputs,
    script_as_program,
)
from edgepack.converter.torch_model.recurrent import recurrent_steps
from edgepack.converter.torch_model.to_onnx import Exportable, to_onnx
from edgepack.converter.torch_model.weights import fill, load_object, weights_in
from edgepack.runtime.tensors import Array

_HEAD_BYTES = 4096
_FRAMEWORK = "PyTorch"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Loaded:
    """A model as torch has it.

    Attributes:
        module: Takes tensors by position.
        description: What it is.
        required, optional: Names of its inputs.
        program: The exported program that it came from.
        script: It is TorchScript.
        messages: What a person should know.
    """

    module: torch.nn.Module
    description: str
    required: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    program: Any = None
    script: bool = False
    messages: tuple[str, ...] = field(default=())


def load_model(path: Path, options: LoadOptions) -> TensorModel:
    """Load a model and export it to ONNX.

    Raises:
        ModelFileError: The file is damaged, or holds no model.
        UnsafeModelError: It would run code.
        RequestError: The factory or the shapes that were given do not do.
        UnfitDataError: The data does not tell the inputs' shapes.
        UnsupportedModelError: The model has no ONNX form.
    """
    with path.open("rb") as stream:
        file = torch_file(path, stream.read(_HEAD_BYTES))
    if file is None:
        raise ModelFileError(f"{path.name} is no file of PyTorch's")
    loaded = _load(path, file, options)
    if loaded.program is not None:
        inputs, rows = program_inputs(loaded.program)
    else:
        inputs, rows = find_inputs(loaded.required, loaded.optional, options, loaded.module)
    return _as_tensor_model(loaded, inputs, rows)


def _as_tensor_model(loaded: _Loaded, inputs: tuple[Input, ...], rows: int | None) -> TensorModel:
    with torch.no_grad():
        outputs = output_names(loaded.module(*example(inputs, rows or 2)))
    flat = Flat(loaded.module)
    call = _caller(flat, inputs)
    exportable = Exportable(
        module=loaded.program if loaded.program is not None else flat,
        inputs=inputs,
        outputs=outputs,
        call=call,
        script=loaded.module if loaded.script else None,
        rows=rows,
        recurrent=recurrent_steps(loaded.module, inputs) > 0,
    )
    messages = list(loaded.messages)
    if rows is not None:
        messages.append(f"the model takes {rows} row{'' if rows == 1 else 's'} at once")
        if loaded.program is not None:
            messages[-1] += (
                '; exported with dynamic_shapes=({0: torch.export.Dim("batch")},) it takes any '
                "number"
            )
    packages = {"torch": version("torch")}
    convert = _tflite_converter(loaded, flat, inputs, len(outputs), rows)
    if convert is not None:
        packages["litert-torch"] = version("litert-torch")
    return TensorModel(
        framework=_FRAMEWORK,
        description=loaded.description,
        packages=packages,
        onnx=to_onnx(exportable),
        call=call,
        to_tflite=convert,
        messages=messages,
    )


def _tflite_converter(
    loaded: _Loaded, flat: Flat, inputs: tuple[Input, ...], outputs: int, rows: int | None
) -> Callable[[], TfliteFile] | None:
    if not to_tflite.is_available() or rows not in (None, 1):
        return None
    module: torch.nn.Module = flat
    if loaded.script:
        converted = script_as_program(loaded.module, example(inputs, 1))
        if converted is None:
            return None
        module = Flat(converted)
    steps = recurrent_steps(loaded.module, inputs)
    return lambda: to_tflite.to_tflite(module, inputs, outputs, recurrent_steps=steps)


def _load(path: Path, file: TorchFile, options: LoadOptions) -> _Loaded:
    trusted = options.trust_pickle
    if file.kind is TorchKind.PROGRAM:
        program = load_program(path, trust_pickle=trusted)
        return _Loaded(
            module=program.module(check_guards=False),
            description=_described("ExportedProgram", program.state_dict.values()),
            program=program,
        )
    if file.kind is TorchKind.SCRIPT:
        script = load_script(path, trust_pickle=trusted).eval()
        names = [argument.name for argument in script.forward.schema.arguments[1:]]
        return _Loaded(
            module=script,
            description=_described(
                f"TorchScript {script.original_name}", script.state_dict().values()
            ),
            required=tuple(names),
            script=True,
        )
    found = load_object(path, file, trust_pickle=trusted)
    if isinstance(found, torch.jit.ScriptModule):
        raise ModelFileError(f"{path.name} is TorchScript inside a pickle; save it with model.save")
    if isinstance(found, torch.nn.Module):
        return _from_module(found, ())
    weights, notes = weights_in(found, path)
    if options.model_factory is None:
        raise RequestError(
            f"{path.name} holds weights only, not the model that they belong to: name what makes "
            f"it with --model-factory module:callable, or run {EXPORT_LINES} and convert that"
        )
    model = make_model(options.model_factory)
    notes += fill(model, weights, file=path.name, factory=options.model_factory)
    return _from_module(model, notes)


def _from_module(model: torch.nn.Module, notes: tuple[str, ...]) -> _Loaded:
    model = model.cpu().eval()
    types = {str(item.dtype) for item in model.parameters() if item.is_floating_point()}
    if types - {"torch.float32"}:
        notes += (f"the weights are {', '.join(sorted(types))}: they are taken as float32",)
        model = model.float()
    required: list[str] = []
    optional: list[str] = []
    for name, parameter in inspect.signature(model.forward).parameters.items():
        if parameter.kind is parameter.VAR_POSITIONAL:
            required.append("input")
        elif parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD):
            (required if parameter.default is parameter.empty else optional).append(name)
    return _Loaded(
        module=model,
        description=_described(type(model).__name__, model.state_dict().values()),
        required=tuple(required),
        optional=tuple(optional),
        messages=notes,
    )


def _caller(flat: Flat, inputs: Sequence[Input]) -> Callable[[Sequence[Array]], list[Array]]:
    def call(arrays: Sequence[Array]) -> list[Array]:
        given = [
            torch.tensor(array, dtype=item.dtype)
            for array, item in zip(arrays, inputs, strict=True)
        ]
        with torch.no_grad():
            return [tensor.numpy() for tensor in flat(*given)]

    return call


def _described(name: str, tensors: Any) -> str:  # noqa: ANN401  (torch is not followed)
    return f"{name} with {sum(tensor.numel() for tensor in tensors):,} weights"
