"""Steps of `pre` as JSON or TOML values: read strictly, written with every parameter.

A step or parameter that is not known would make a model answer wrongly: unlike a contract's other
keys it is not ignored.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from edgepack.bundle.errors import ContractError
from edgepack.bundle.pre_steps import (
    STEPS,
    CenterCrop,
    Channels,
    Dct,
    LogMel,
    Normalize,
    Reshape,
    Resize,
    ResizeMethod,
    Step,
    Transpose,
    Window,
    name_of,
)
from edgepack.trust.decode import decode, encode
from edgepack.trust.errors import DocumentError

MAX_STEPS: Final = 32
MAX_SIDE: Final = 8192  # pixels
MAX_SAMPLES: Final = 1 << 24  # of a signal
MAX_FFT: Final = 1 << 16
MAX_MELS: Final = 1024
MAX_CHANNELS: Final = 4096
MAX_DIMENSIONS: Final = 8


def parse_steps(pre: Sequence[Mapping[str, object]]) -> tuple[Step, ...]:
    """Read steps, {"step": "scale", "input": "image", "factor": 0.5}.

    Raises:
        ContractError: A step or parameter is not known, or a value is not what it takes;
            `.problems` names all of them.
    """
    problems: list[str] = []
    if len(pre) > MAX_STEPS:
        raise ContractError(f"pre must have at most {MAX_STEPS} steps, got {len(pre)}")
    steps = []
    for index, document in enumerate(pre):
        try:
            step = _parse(document)
        except DocumentError as exc:
            problems.append(f"pre[{index}]: {exc}")
            continue
        problems += [f"pre[{index}] {name_of(step)}: {text}" for text in _breaches(step)]
        steps.append(step)
    if problems:
        raise ContractError(*problems)
    return tuple(steps)


def render_steps(steps: Sequence[Step]) -> tuple[dict[str, object], ...]:
    """Write steps as a contract holds them, every parameter said."""
    documents: list[dict[str, object]] = []
    for step in steps:
        fields = encode(step)
        assert isinstance(fields, dict)
        documents.append({"step": name_of(step), **fields})
    return tuple(documents)


def _parse(document: object) -> Step:
    if not isinstance(document, Mapping):
        raise DocumentError(f"a step must be an object, got {type(document).__name__}")
    name = document.get("step")
    if not isinstance(name, str) or name not in STEPS:
        raise DocumentError(f"step must be one of {', '.join(STEPS)}, got {repr(name)[:40]}")
    fields = {key: value for key, value in document.items() if key != "step"}
    known = STEPS[name].__dataclass_fields__
    unknown = [str(key) for key in fields if key not in known]
    if unknown:
        raise DocumentError(
            f"{name}: parameter must be one of {', '.join(known)}, got {unknown[0][:80]!r}"
        )
    step: Step = decode(STEPS[name], fields, what=name, ignore_unknown=False)
    return step


def _breaches(step: Step) -> Iterator[str]:
    """What is wrong with a step, whatever it is applied to."""
    yield from _infinite(step)
    match step:
        case Transpose() | Reshape():
            yield from _dimension_breaches(step)
        case Resize() | CenterCrop():
            yield from _between(step, 1, MAX_SIDE, "height", "width")
            yield from _antialias_breaches(step)
        case Channels(to=to):
            if to not in (1, 3):
                yield f"to must be 1 or 3, got {to}"
        case Normalize():
            yield from _normalize_breaches(step)
        case Window():
            yield from _window_breaches(step)
        case LogMel():
            yield from _log_mel_breaches(step)
        case Dct():
            yield from _between(step, 1, MAX_MELS, "keep")
        case _:
            pass  # every value of the right type will do


def _dimension_breaches(step: Transpose | Reshape) -> Iterator[str]:
    if isinstance(step, Transpose):
        axes = step.axes
        if sorted(axes) != list(range(len(axes))) or axes[:1] != (0,):
            yield f"axes must be each of 0 to {len(axes) - 1} once, 0 first, got {list(axes)}"
    elif len(step.shape) >= MAX_DIMENSIONS:
        yield f"shape must have at most {MAX_DIMENSIONS - 1} sizes, got {len(step.shape)}"
    elif min(step.shape, default=1) < 1:
        yield f"shape must be of sizes >= 1, got {list(step.shape)}"


def _infinite(step: Step) -> Iterator[str]:
    for field in step.__dataclass_fields__:
        value = getattr(step, field)
        numbers = value if isinstance(value, tuple) else (value,)
        if any(isinstance(number, float) and not math.isfinite(number) for number in numbers):
            yield f"{field} must be finite, got {value}"


def _antialias_breaches(step: Resize | CenterCrop) -> Iterator[str]:
    if isinstance(step, Resize) and step.antialias and step.method is not ResizeMethod.BILINEAR:
        yield f"antialias is for the method bilinear, got {step.method}"


def _normalize_breaches(step: Normalize) -> Iterator[str]:
    if not 1 <= len(step.mean) <= MAX_CHANNELS or len(step.mean) != len(step.std):
        yield (
            f"mean and std must have as many numbers, 1 to {MAX_CHANNELS}, got {len(step.mean)} "
            f"and {len(step.std)}"
        )
    if any(std <= 0 for std in step.std):
        yield f"std must be > 0, got {min(step.std)}"
    if step.axis != -1 and not 1 <= step.axis < MAX_DIMENSIONS:
        yield f"axis must be -1 or 1 to {MAX_DIMENSIONS - 1}, got {step.axis}"


def _window_breaches(step: Window) -> Iterator[str]:
    yield from _between(step, 1, MAX_SAMPLES, "length")
    if (step.frame is None) != (step.hop is None):
        yield "frame and hop must be given together"
    elif step.frame is not None:
        yield from _between(step, 1, max(step.length, 1), "frame", "hop")


def _log_mel_breaches(step: LogMel) -> Iterator[str]:
    yield from _between(step, 1, MAX_SAMPLES, "rate")
    yield from _between(step, 2, MAX_FFT, "frame")
    yield from _between(step, 1, MAX_SAMPLES, "hop")
    yield from _between(step, 1, MAX_MELS, "mels")
    yield from _between(step, 1, 2, "power")
    if step.fft is not None and not step.frame <= step.fft <= MAX_FFT:
        yield f"fft must be {step.frame} (the frame) to {MAX_FFT}, got {step.fft}"
    if not 0 <= step.low_hz < step.top_hz <= step.rate / 2:
        yield (
            f"low_hz and high_hz must be ascending between 0 and {step.rate / 2:g} (rate / 2), "
            f"got {step.low_hz:g} and {step.top_hz:g}"
        )
    if step.floor < 0 or step.offset < 0 or step.floor + step.offset <= 0:
        yield f"floor + offset must be > 0, got {step.floor:g} and {step.offset:g}"


def _between(step: Step, low: int, high: int, *fields: str) -> Iterator[str]:
    for field in fields:
        value = getattr(step, field)
        if not low <= value <= high:
            yield f"{field} must be {low} to {high}, got {value}"
