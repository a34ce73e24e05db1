"""Exported programs (`.pt2`) and TorchScript: files that bring their own code, as graphs."""

import io
import re
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import torch

from edgepack.converter.errors import (
    ModelFileError,
    UnsafeModelError,
    UnsupportedModelError,
    one_line,
    what_is_wrong,
)
from edgepack.converter.sources.torch_kind import EXPORT_LINES
from edgepack.converter.sources.torch_program import checked_copy
from edgepack.converter.torch_model.inputs import Input

# TorchScript cannot leave torch's own operators, but some of those reach files.
_REACHES_FILES: Final = re.compile(
    r"\b(?:from_file|ops\.(?!prim\b|aten\b|quantized\b|torchvision\b)\w+|"
    r"(?:torch|ops\.aten)\.(?:save|load|_save_parameters))\b"
)
_TRAINING_ARGUMENTS: Final = {"dropout": ("train", 2), "batch_norm": ("training", 5)}


def load_program(path: Path, *, trust_pickle: bool) -> torch.export.ExportedProgram:
    """Load an exported program, without unpickling anything but tensors.

    Raises:
        UnsafeModelError: It asks for more.
        ModelFileError: It is damaged, or of a version of torch that cannot be read.
        UnsupportedModelError: It was exported as it trains.
    """
    source = path if trust_pickle else checked_copy(path)
    try:
        with _weights_only(active=not trust_pickle):
            program = torch.export.load(source)
    except UnsafeModelError:
        raise
    except Exception as exc:
        raise ModelFileError(
            f"{path.name} cannot be loaded by torch {torch.__version__} (it may be of another "
            f"version): {one_line(exc)}"
        ) from exc
    _check_not_training(program)
    return program


def program_inputs(program: torch.export.ExportedProgram) -> tuple[tuple[Input, ...], int | None]:
    """What a program takes, and the fixed number of rows, None if any.

    Raises:
        UnsupportedModelError: It takes something that is not a tensor with rows.
    """
    nodes = {node.name: node for node in program.graph.nodes if node.op == "placeholder"}
    found: list[Input] = []
    batches: set[int | None] = set()
    for name in program.graph_signature.user_inputs:
        value: Any = nodes[name].meta.get("val") if isinstance(name, str) else None
        if not isinstance(value, torch.Tensor) or value.ndim == 0:
            raise UnsupportedModelError(
                f"input {str(name)[:60]!r} of the program must be a tensor with rows"
            )
        rows = value.shape[0]
        batches.add(rows if isinstance(rows, int) else None)
        found.append(Input(name=name, shape=_sizes(value), dtype=value.dtype))
    if len(batches) != 1:
        raise UnsupportedModelError(
            f"the program's inputs must have the same number of rows, got {batches or 'no inputs'}"
        )
    return tuple(found), batches.pop()


def load_script(path: Path, *, trust_pickle: bool) -> torch.jit.ScriptModule:
    """Load a TorchScript module.

    Raises:
        UnsafeModelError: Its code reaches files or operators from outside torch.
        ModelFileError: It is damaged.
    """
    source = path if trust_pickle else _checked_script(path)
    try:
        module: torch.jit.ScriptModule = torch.jit.load(source, map_location="cpu")
    except Exception as exc:
        raise ModelFileError(
            f"{path.name} cannot be loaded by torch {torch.__version__}: {one_line(exc)}; "
            f"where its class is, run {EXPORT_LINES} and convert that"
        ) from exc
    return module


def script_as_program(
    module: torch.jit.ScriptModule, example: tuple[torch.Tensor, ...]
) -> torch.nn.Module | None:
    """The same as an exported program's module, for exporters that take nothing else."""
    try:
        from torch._export.converter import TS2EPConverter

        converted: torch.nn.Module = TS2EPConverter(module, example, {}).convert().module()
    except Exception:  # noqa: BLE001  (a private converter, for some modules only)
        return None
    return converted


@contextmanager
def _weights_only(*, active: bool) -> Iterator[None]:
    """torch.export.load tries weights-only first and then runs the pickle all the same."""
    original = torch.load

    def load(*args: Any, **options: Any) -> Any:  # noqa: ANN401
        options["weights_only"] = True
        try:
            return original(*args, **options)
        except Exception as exc:
            raise UnsafeModelError(
                "the program holds a pickle of more than tensors, which was not run (if you made "
                "the file yourself: --trust-pickle)"
            ) from exc

    if active:
        torch.load = load
    try:
        yield
    finally:
        torch.load = original


def _checked_script(path: Path) -> io.BytesIO:
    """A copy with what was looked at: torch's own reader may see another file in the same bytes."""
    copy = io.BytesIO()
    try:
        with zipfile.ZipFile(path) as archive, zipfile.ZipFile(copy, "w") as safe:
            names = archive.namelist()
            if len(set(names)) < len(names):
                raise UnsafeModelError(f"{path.name} holds two members of one name; refused")
            for name in names:
                data = archive.read(name)
                if name.endswith(".py"):
                    _check_code(data.decode(errors="replace"))
                safe.writestr(zipfile.ZipInfo(name), data)
    except (zipfile.BadZipFile, OSError, EOFError, NotImplementedError, RuntimeError) as exc:
        raise ModelFileError(f"{path.name} is a damaged zip file: {what_is_wrong(exc)}") from exc
    copy.seek(0)
    return copy


def _check_code(code: str) -> None:
    found = _REACHES_FILES.search(code)
    if found:
        raise UnsafeModelError(
            f"the TorchScript code asks for {found.group()[:60]!r}, which reaches outside the "
            "model; it was not loaded (if you made the file yourself: --trust-pickle)"
        )


def _check_not_training(program: torch.export.ExportedProgram) -> None:
    for node in program.graph.nodes:
        name = getattr(node.target, "__name__", "").partition(".")[0]
        keyword, place = _TRAINING_ARGUMENTS.get(name, ("", 0))
        if not keyword:
            continue
        value = node.args[place] if len(node.args) > place else node.kwargs.get(keyword)
        if value is True:
            raise UnsupportedModelError(
                f"the program was exported as it trains ({name} is active): call model.eval() "
                f"first, then {EXPORT_LINES}"
            )


def _sizes(value: torch.Tensor) -> tuple[int, ...]:
    """Sizes after the rows; a free one as its example's, which the tensor carries as a hint."""
    found = []
    for size in value.shape[1:]:
        hint = size if isinstance(size, int) else getattr(size.node, "hint", None)
        found.append(int(hint) if hint else 1)
    return tuple(found)
