"""Weights from a file, and into a model."""

import pickle
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from edgepack.converter.errors import ModelFileError, UnsafeModelError, one_line
from edgepack.converter.sources.torch_kind import EXPORT_LINES, TorchFile, TorchKind

Weights = dict[str, torch.Tensor]

# Where training scripts and frameworks put the weights in a checkpoint.
_PLACES = ("state_dict", "model_state_dict", "model_state", "model", "net", "network", "weights")
# What DataParallel and torch.compile put before every name.
_WRAPPERS = ("module.", "_orig_mod.")
_MOST_SHOWN = 5


def load_object(path: Path, file: TorchFile, *, trust_pickle: bool) -> object:
    """Load what is in a file of weights or, if it is trusted, a pickled object.

    Raises:
        UnsafeModelError: It is a pickle that needs more than weights do.
        ModelFileError: It is damaged.
    """
    if file.kind is TorchKind.SAFETENSORS:
        return _load_safetensors(path)
    if file.kind is TorchKind.PICKLED and not trust_pickle:
        asks_for = _shown(_strangest(file.asks_for))
        raise UnsafeModelError(
            f"{path.name} is a pickle that asks for {asks_for}: loading it would run code, so it "
            f"was not loaded; where its class is, run {EXPORT_LINES} and convert that (or, if you "
            "made the file yourself: --trust-pickle)"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if file.container == "plain pickle":
                with path.open("rb") as stream:
                    return pickle.load(stream)  # noqa: S301  (only with --trust-pickle)
            found: object = torch.load(
                path, map_location="cpu", weights_only=file.kind is TorchKind.WEIGHTS
            )
            return found
    except Exception as exc:
        if "Unsupported global" in str(exc) or "Unsupported class" in str(exc):
            text = one_line(exc)
            raise UnsafeModelError(f"{path.name} asks for more than weights: {text}") from exc
        hint = ""
        if isinstance(exc, AttributeError | ModuleNotFoundError):
            hint = " (its classes must lie in modules that can be imported from here, not __main__)"
        raise ModelFileError(f"{path.name} cannot be loaded: {one_line(exc)}{hint}") from exc


def weights_in(found: object, path: Path) -> tuple[Weights, tuple[str, ...]]:
    """The weights in what a file held, which may be a whole checkpoint.

    Returns:
        Name → tensor; and what a person should know.

    Raises:
        ModelFileError: There are none.
    """
    if _are_weights(found):
        return dict(found), ()  # type: ignore[call-overload]
    if isinstance(found, Mapping):
        places = [key for key in _PLACES if _are_weights(found.get(key))]
        if len(places) == 1:
            note = f"the weights are the checkpoint's {places[0]!r}; the rest is left out"
            return dict(found[places[0]]), (note,)
        keys = _shown([str(key) for key in found])
        raise ModelFileError(
            f"{path.name} must hold the weights of one model, got a dictionary of {keys}; run "
            'torch.save(model.state_dict(), "weights.pt") and convert that'
        )
    raise ModelFileError(
        f"{path.name} must hold a model or its weights, got {type(found).__name__}"
    )


def fill(model: torch.nn.Module, weights: Weights, *, file: str, factory: str) -> tuple[str, ...]:
    """Give a model its weights, all of them and no others.

    Raises:
        ModelFileError: Names or shapes differ.
    """
    wanted = model.state_dict()
    weights, notes = _unwrapped(weights, wanted)
    missing = [name for name in wanted if name not in weights]
    present = {wanted[name].data_ptr() for name in wanted if name in weights}
    # Tied weights are stored once in safetensors files.
    missing = [name for name in missing if wanted[name].data_ptr() not in present]
    extra = [name for name in weights if name not in wanted]
    shapes = [
        f"{name} {list(weights[name].shape)} for {list(wanted[name].shape)}"
        for name in wanted
        if name in weights and weights[name].shape != wanted[name].shape
    ]
    problems = [
        f"{what} {len(names)} ({_shown(names)})"
        for what, names in (("missing", missing), ("unexpected", extra), ("other shape", shapes))
        if names
    ]
    if problems:
        raise ModelFileError(
            f"the weights in {file} do not fit the model of {factory}: {'; '.join(problems)}"
        )
    model.load_state_dict(weights, strict=False)  # the strict check is above, tied weights apart
    return notes


def _unwrapped(weights: Weights, wanted: Weights) -> tuple[Weights, tuple[str, ...]]:
    for wrapper in _WRAPPERS:
        if all(name.startswith(wrapper) for name in weights) and not set(weights) & set(wanted):
            found = {name.removeprefix(wrapper): tensor for name, tensor in weights.items()}
            return found, (f"{wrapper!r} before every weight's name is left out",)
    return weights, ()


def _strangest(names: Sequence[str]) -> list[str]:
    """Names of other packages first: they tell more than torch's own."""
    return sorted(names, key=lambda name: name.startswith(("torch.", "collections.")))


def _are_weights(found: object) -> bool:
    return (
        isinstance(found, Mapping)
        and len(found) > 0
        and all(
            isinstance(key, str) and isinstance(item, torch.Tensor) for key, item in found.items()
        )
    )


def _load_safetensors(path: Path) -> Weights:
    try:
        from safetensors.torch import load_file
    except ImportError:
        return _load_safetensors_ourselves(path)
    try:
        found: Weights = load_file(path)
    except Exception as exc:
        raise ModelFileError(f"{path.name} cannot be loaded: {one_line(exc)}") from exc
    return found


def _load_safetensors_ourselves(path: Path) -> Weights:
    """Without the package: it has bfloat16, which numpy lacks; everything else is the same."""
    from edgepack.runtime import safetensors

    arrays, _ = safetensors.parse(path.read_bytes(), what=path.name)
    return {name: torch.from_numpy(array.copy()) for name, array in arrays.items()}


def _shown(names: Sequence[str]) -> str:
    more = len(names) - _MOST_SHOWN
    text = ", ".join(name[:60] for name in names[:_MOST_SHOWN])
    return f"{text} and {more} more" if more > 0 else text
