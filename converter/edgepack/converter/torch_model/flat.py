"""A module that takes tensors by position and gives a flat tuple of tensors, whatever it wraps."""

from collections.abc import Mapping
from typing import Any

import torch

from edgepack.converter.errors import UnsupportedModelError


class Flat(torch.nn.Module):  # type: ignore[misc]  # torch is not followed
    """Wraps a module for the exporters: outputs in dictionaries, lists and dataclasses are told."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model
        self.training = False  # what is inside is so already; a program's module refuses eval()

    def forward(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The tensors of the wrapped module's answer, in the order of `output_names`."""
        return tuple(tensor for _, tensor in _flattened(self.model(*inputs), ""))


def output_names(answer: object) -> tuple[str, ...]:
    """Names for the tensors of an answer: a dictionary's keys, "output", "output_1".

    Raises:
        UnsupportedModelError: There are none.
    """
    found = _flattened(answer, "")
    if not found:
        raise UnsupportedModelError(f"the model must give tensors, got {type(answer).__name__}")
    if len(found) == 1 and isinstance(answer, torch.Tensor | list | tuple):
        return ("output",)
    return tuple(name for name, _ in found)


def _flattened(answer: Any, name: str) -> list[tuple[str, torch.Tensor]]:  # noqa: ANN401
    if isinstance(answer, torch.Tensor):
        return [(name or "output", answer)]
    if isinstance(answer, Mapping):
        parts = [(str(key), item) for key, item in answer.items()]
    elif isinstance(answer, list | tuple):
        names = getattr(answer, "_fields", [f"{name or 'output'}_{i}" for i in range(len(answer))])
        parts = list(zip(names, answer, strict=True))
        return [pair for key, item in parts for pair in _flattened(item, key)]
    else:
        return []  # None where an optional output is not made; numbers are no answers of a row
    prefix = f"{name}_" if name else ""
    return [pair for key, item in parts for pair in _flattened(item, prefix + key)]
