"""TFLite files read without an engine: what is in them, and what is wrong with them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.tflite_files import linear_file, quantized_file, two_outputs_file

from edgepack.bundle.contract import Datatype
from edgepack.runtime.flatbuffer import DamagedFileError
from edgepack.runtime.tflite_file import read_tflite

LINEAR = linear_file(np.eye(3, 2))


def test_tensors_and_operators_are_told():
    """Names, types, free sizes, constants and quantization as the file has them."""
    (graph,) = read_tflite(LINEAR).graphs
    x, w, y = graph.tensors

    assert ("x", (-1, 3), Datatype.FP32, 0) == (x.name, x.shape, x.datatype, x.constant_bytes)
    assert ("w", (2, 3), 24) == (w.name, w.shape, w.constant_bytes)
    assert ((0,), (2,)) == (graph.inputs, graph.outputs)
    assert "y" == y.name
    assert [(9, (0, 1), (2,))] == [(o.builtin, o.inputs, o.outputs) for o in graph.operators]

    (graph,) = read_tflite(quantized_file()).graphs
    x = graph.tensors[graph.inputs[0]]
    assert (Datatype.INT8, (0.5,), (3,)) == (x.datatype, x.scales, x.zero_points)


def test_outputs_are_in_the_file_s_order():
    """Not in the order in which they are computed."""
    (graph,) = read_tflite(two_outputs_file()).graphs

    assert ["sq", "sum"] == [graph.tensors[place].name for place in graph.outputs]


@pytest.mark.parametrize("cut", range(0, len(LINEAR), 7))
def test_a_cut_off_file_is_damaged(cut):
    """Wherever it ends; padding at the end apart, nothing can be missing."""
    with pytest.raises(DamagedFileError) as caught:
        read_tflite(LINEAR[:cut])

    assert "\n" not in str(caught.value)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.integers(0, len(LINEAR) - 1), st.integers(0, 255)), max_size=6))
def test_a_changed_file_is_a_value_or_damaged(changes):
    """Nothing else comes out, whatever bytes are changed."""
    data = bytearray(LINEAR)
    for place, value in changes:
        data[place] = value
    try:
        file = read_tflite(bytes(data))
    except DamagedFileError:
        return
    for graph in file.graphs:
        count = len(graph.tensors)
        assert all(0 <= place < count for place in (*graph.inputs, *graph.outputs))


def test_work_is_bounded():
    """A small file that names the same graph a million times is refused, soon."""
    data = bytearray(LINEAR)
    root = int.from_bytes(data[0:4], "little")
    vtable = root - int.from_bytes(data[root : root + 4], "little", signed=True)
    at = root + int.from_bytes(data[vtable + 8 : vtable + 10], "little")  # the graphs
    vector = at + int.from_bytes(data[at : at + 4], "little")
    graph = vector + 4 + int.from_bytes(data[vector + 4 : vector + 8], "little")
    count = 300_000
    begin = (len(data) + 3) // 4 * 4
    data += bytes(begin - len(data)) + count.to_bytes(4, "little")
    # Offsets lead forwards only, so the graph's table is copied behind them, without its fields.
    table = begin + 4 + 4 * count + 4
    for index in range(count):
        data += (table - (begin + 4 + 4 * index)).to_bytes(4, "little")
    data += b"\x04\x00\x04\x00" + (4).to_bytes(4, "little")
    data[at : at + 4] = (begin - at).to_bytes(4, "little")

    assert graph < table
    file = read_tflite(bytes(data))
    assert count == len(file.graphs)
