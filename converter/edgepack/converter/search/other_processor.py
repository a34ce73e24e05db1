"""Whether int8 that was wished by hand also holds on a processor of the other kernel family.

What the search makes by itself answers the same on both and needs no look. Signed weights of all
8 bits do not: AVX2's 16-bit sums saturate (see `edgepack.converter.kernel_family`).
"""

from dataclasses import replace
from typing import Final

from edgepack.bundle.contract import TensorBinding
from edgepack.converter.draft import Candidate, Draft
from edgepack.converter.errors import WorkerError
from edgepack.converter.kernel_family import answers_on_haswell, why_not_here
from edgepack.converter.match import narrow
from edgepack.converter.parity import HeldOut
from edgepack.converter.search.verdict import judge_outputs
from edgepack.converter.tools.tool import Quantization
from edgepack.runtime.affine import dequantize, quantize
from edgepack.runtime.errors import ParityError
from edgepack.runtime.tensors import DTYPES, Array

_MOST_ROWS: Final = 256  # an emulated row takes some twenty times as long


def may_saturate(file_format: str, wish: Quantization) -> bool:
    """Tell whether a kind of int8 depends on the processor."""
    signed = wish.weight == "s8" and not wish.reduce_range
    return file_format == "onnx" and wish.scheme == "static" and signed


def look_there(draft: Draft, candidate: Candidate, held_out: HeldOut) -> tuple[str | None, str]:
    """Judge a candidate by its answers on an emulated Haswell.

    Returns:
        Why it must not be packed, or None; and what was found.
    """
    missing = why_not_here()
    if missing is not None:
        return None, f"its answers on a processor without VNNI are not known: {missing}"
    some = _first_rows(held_out)
    prepared = draft.prepared(narrow(draft.inputs, some.inputs))
    feeds = {item.tensor: _as_file(item, prepared[item.name]) for item in candidate.facts.inputs}
    try:
        there = answers_on_haswell(candidate.data, feeds) or {}
        got = {
            item.name: _as_contract(item, there[item.tensor], some.expected[item.name])
            for item in candidate.facts.outputs
        }
        verdict = judge_outputs(draft, candidate.precision, some, got)
    except (WorkerError, ParityError, KeyError, ValueError) as exc:
        return f"it cannot be judged on a processor without VNNI: {exc}", ""
    found = f"on an emulated Haswell {verdict.reason}, {some.rows} rows"
    return (None, found) if verdict.passed else (found, "")


def _as_file(binding: TensorBinding, array: Array) -> Array:
    if binding.scale is None:
        return array
    return quantize(array, binding.scale, binding.zero_point or 0, DTYPES[binding.dtype])


def _as_contract(binding: TensorBinding, answer: Array, expected: Array) -> Array:
    if binding.scale is not None:
        answer = dequantize(answer, binding.scale, binding.zero_point or 0)
    return answer.reshape(expected.shape)


def _first_rows(held_out: HeldOut) -> HeldOut:
    def first(arrays: dict[str, Array]) -> dict[str, Array]:
        return {name: array[:_MOST_ROWS] for name, array in arrays.items()}

    truth = held_out.truth
    return replace(
        held_out,
        inputs=first(held_out.inputs),
        expected=first(held_out.expected),
        truth=None if truth is None else truth[:_MOST_ROWS],
    )
