import io
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from converter_models import Table, opened, run, variant
from onnx import helper
from onnx_nets import model_bytes

from edgepack.bundle.contract import Datatype as D
from edgepack.bundle.contract import Task, TensorSpec, Tolerances
from edgepack.converter import Precision
from edgepack.converter.draft import Draft
from edgepack.converter.errors import WorkerError
from edgepack.converter.parity import HeldOut
from edgepack.converter.search.cache import AnswerCache, key_of, state_of
from edgepack.converter.search.evidence import class_order
from edgepack.converter.search.pareto import Point, dominated
from edgepack.converter.search.plans import Pinned, Plan, plans_for
from edgepack.converter.search.pool import ToolPool
from edgepack.converter.search.verdict import judge_outputs
from edgepack.converter.sources.source import FileSummary
from edgepack.converter.worker_messages import Message

SUMMARY = FileSummary(opsets={"": 17}, operators=("ai.onnx::Conv",), weights=9000, ir_version=8)


def point(name: str, size: int, quality: float, family: str = "int8") -> Point:
    return Point(name=name, family=family, size_bytes=size, quality=quality)


@pytest.mark.parametrize(
    ("points", "losers"),
    [
        ([point("a", 100, 0.9), point("b", 100, 0.8)], {"b": "a"}),
        ([point("a", 100, 0.8), point("b", 100, 0.9)], {"a": "b"}),
        ([point("a", 100, 0.8), point("b", 200, 0.9)], {}),
        ([point("a", 100, 0.8), point("b", 200, 0.8)], {"b": "a"}),
        ([point("a", 100, 0.9), point("b", 101, 0.9)], {"b": "a"}),  # all but equal: the first
        ([point("b", 101, 0.9), point("a", 100, 0.9)], {"a": "b"}),
        ([point("a", 276, -0.0018), point("b", 297, 0.0)], {"a": "b"}),  # a tenth of the size
        ([point("a", 276, -0.0018), point("b", 344, 0.0)], {}),
        ([point("a", 100, 0.9), point("b", 200, 0.1, "fp16")], {}),  # families do not compete
        (
            [point("a", 100, 0.9), point("b", 100, 0.5), point("c", 100, 0.1)],
            {"b": "a", "c": "a"},
        ),
    ],
)
def test_only_what_is_smaller_or_better_stays(points: list[Point], losers: dict[str, str]) -> None:
    """Of two candidates that a device computes alike, one that is larger and worse goes."""
    assert losers == dominated(points)


def test_one_of_each_family_always_stays() -> None:
    """However near to each other the candidates are, they do not all knock each other out."""
    random = np.random.default_rng(0)
    for _ in range(200):
        points = [
            point(str(i), int(random.integers(100, 104)), float(random.normal(0.9, 0.001)))
            for i in range(6)
        ]
        assert len(dominated(points)) < len(points)


def plans(file_format: str, precision: Precision, **more: Any) -> list[Plan]:
    return plans_for(file_format, SUMMARY, Pinned(precisions=(precision,), **more))


def test_what_a_recipe_pins_is_in_every_plan() -> None:
    """One way to calibrate leaves one candidate of those that differed in it only."""
    found = plans("onnx", Precision.INT8, calibration="entropy", keep_float=("conv1",))
    assert {"entropy"} == {plan.wish.calibration for plan in found}
    assert {("conv1",)} == {plan.wish.keep_float for plan in found}
    assert len(found) == len({plan.wish for plan in found}) < len(plans("onnx", Precision.INT8))


def test_every_kind_of_static_int8_can_be_pinned() -> None:
    """Integers, range and scales are what the recipe says, and the names tell it."""
    kinds = {
        "onnx-int8-s8s8-entropy": {"activation": "s8", "reduce_range": False, "per_channel": True},
        "onnx-int8-u8s8-tensor-entropy": {
            "activation": "u8",
            "weight": "s8",
            "reduce_range": False,
            "per_channel": False,
        },
        "onnx-int8-u8s8-reduced-entropy": {"reduce_range": True, "per_channel": True},
        "onnx-int8-u8u8-entropy": {"weight": "u8", "per_channel": True},
    }
    for name, pins in kinds.items():
        (plan,) = plans("onnx", Precision.INT8, calibration="entropy", **pins)
        assert name == plan.name
        assert pins == {key: getattr(plan.wish, key) for key in pins}


def test_tflite_has_one_kind_of_integers() -> None:
    """What a recipe says of ONNX's integers does not make TFLite's candidates impossible."""
    pins = {"activation": "u8", "weight": "u8", "reduce_range": True, "per_channel": False}
    (plan,) = plans("tflite", Precision.INT8, calibration="minmax", **pins)
    assert "tflite-int8-tensor-minmax" == plan.name
    assert ("s8", "s8", False) == (
        plan.wish.activation,
        plan.wish.weight,
        plan.wish.reduce_range,
    )


def test_classes_are_listed_as_the_model_has_them() -> None:
    """Then by number, so that 10 comes after 9, and other text last."""
    assert ["up", "down"] == sorted(["down", "up"], key=class_order(["up", "down"]))
    assert ["-1", "2", "10", "b"] == sorted(["b", "10", "2", "-1"], key=class_order([]))


def test_a_plan_is_made_for_what_was_asked_only() -> None:
    """int8 asked for by name brings no fp16 and nothing dynamic."""
    assert {"int8 static"} == {p.family for p in plans("onnx", Precision.INT8)}
    assert {"fp16"} == {p.family for p in plans("tflite", Precision.FP16)}
    auto = plans("onnx", Precision.AUTO)
    assert {"int8 static", "int8 dynamic", "fp16"} == {p.family for p in auto}
    assert [] == plans("onnx", Precision.FP32)


def judged(right: int, ours: int, rows: int = 100, truth: bool = True):
    labels = np.zeros(rows, np.int64)
    labels[right:] = 1  # the original is wrong there
    got = np.zeros(rows, np.int64)
    got[ours:] = 1
    draft = Draft(
        name="m",
        version="1.0.0",
        task=Task.CLASSIFICATION,
        inputs=(TensorSpec(name="x", datatype=D.FP32, shape=(-1, 1)),),
        outputs=(TensorSpec(name="label", datatype=D.INT64, shape=(-1,)),),
        class_names=("0", "1"),
        tolerances=Tolerances(max_drop=0.02),
    )
    held_out = HeldOut(
        inputs={"x": np.zeros((rows, 1))},
        expected={"label": labels},
        truth=np.zeros(rows, np.int64) if truth else None,
    )
    return judge_outputs(draft, "int8", held_out, {"label": got})


def test_with_truth_the_accuracy_decides() -> None:
    """Two points lost of 100 rows pass at 0.02, three do not, and the interval is said."""
    assert judged(95, 93).passed
    worse = judged(95, 92)
    assert not worse.passed
    assert "accuracy drops by 0.0300" in worse.reason
    assert worse.parity is not None
    figures = worse.parity.figures
    assert figures["drop_low"] < 0.03 < figures["drop_high"]
    assert 0.95 == figures["accuracy_original"]


def test_without_truth_agreement_decides() -> None:
    """What differs from the original counts, even where it would have been right."""
    assert not judged(95, 98, truth=False).passed
    assert judged(95, 98).passed
    same = judged(95, 95, truth=False)
    assert same.parity is not None
    assert 0.0 == same.parity.figures["drop"]
    assert same.parity.figures["drop_high"] > 0.0  # 100 rows are no proof of sameness


def test_gains_by_chance_do_not_outweigh_changed_answers() -> None:
    """Who answers as the original is ranked above who was luckier with other answers."""
    same, lucky, lost = judged(90, 90), judged(90, 93), judged(90, 89)
    assert lost.quality < lucky.quality < same.quality
    assert dominated([point("lucky", 276, lucky.quality), point("same", 297, same.quality)]) == {
        "lucky": "same"
    }


def test_the_device_is_held_to_what_was_measured() -> None:
    """The stored bound is the measured agreement less the drop, not an ideal."""
    verdict = judged(95, 93)
    assert verdict.parity is not None
    assert ("agreement", 0.98) == (verdict.parity.metric, verdict.parity.value)
    assert pytest.approx(0.96) == verdict.parity.bound


def message(value: int) -> Message:
    return Message(
        kind="run",
        fields={"task": "classification"},
        arrays={
            "x": np.full((3, 2), value, np.float32),
            "t": np.array(["a", "ü"], np.object_),
        },
    )


def test_the_cache_gives_back_what_was_put_in(tmp_path: Path) -> None:
    """By content: another value, another context or another text is another key."""
    cache = AnswerCache(tmp_path / "cache")
    key = key_of(message(1), "digest")
    assert cache.get(key) is None
    cache.put(key, message(2))
    found = cache.get(key)
    assert found is not None
    assert np.array_equal(found.arrays["x"], np.full((3, 2), 2, np.float32))
    assert ["a", "ü"] == found.arrays["t"].tolist()
    others = {key_of(message(2), "digest"), key_of(message(1), "other"), key_of(message(1))}
    assert 3 == len(others - {key})
    assert 0o700 == (tmp_path / "cache").stat().st_mode & 0o777


def test_a_damaged_answer_is_a_missing_one(tmp_path: Path) -> None:
    """A flipped byte, a cut file: the answer is asked for again, and the file is gone."""
    cache = AnswerCache(tmp_path)
    cache.put("k", message(1))
    whole = (tmp_path / "k").read_bytes()
    for damaged in (whole[:-1], whole[:40] + bytes([whole[40] ^ 1]) + whole[41:], b""):
        (tmp_path / "k").write_bytes(damaged)
        assert cache.get("k") is None
        assert not (tmp_path / "k").exists()


def test_the_cache_is_bounded(tmp_path: Path) -> None:
    """The answers that were not used for longest go first; a huge one is not kept at all."""
    one = len(answer_bytes(message(1))) + 32
    cache = AnswerCache(tmp_path, most_bytes=4 * one)
    for index in range(4):
        cache.put(str(index), message(index))
        os.utime(tmp_path / str(index), (time.time() - 100 + index,) * 2)
    assert cache.get("0") is not None  # used now
    cache.put("4", message(4))
    assert {"0", "2", "3", "4"} == {item.name for item in tmp_path.iterdir()}
    AnswerCache(tmp_path, most_bytes=one).put("5", message(5))
    assert not (tmp_path / "5").exists()


def answer_bytes(one: Message) -> bytes:
    from edgepack.converter.worker_messages import write_message

    buffer = io.BytesIO()
    write_message(buffer, one)
    return buffer.getvalue()


def test_a_cache_that_cannot_be_written_is_none(tmp_path: Path) -> None:
    """A file where the folder should be, no folder: nothing fails."""
    (tmp_path / "file").write_text("")
    for cache in (AnswerCache(tmp_path / "file"), AnswerCache(None)):
        cache.put("k", message(1))
        assert cache.get("k") is None


def test_weights_beside_a_model_are_part_of_its_state(tmp_path: Path) -> None:
    """Another time or size of a second file makes earlier answers void."""
    (tmp_path / "net.onnx").write_bytes(b"x")
    (tmp_path / "other.csv").write_bytes(b"x")
    before = state_of(tmp_path / "net.onnx")
    (tmp_path / "other.csv").write_bytes(b"yy")
    assert before == state_of(tmp_path / "net.onnx")
    (tmp_path / "net.onnx.data").write_bytes(b"w")
    assert before != state_of(tmp_path / "net.onnx")


def test_a_repeated_conversion_asks_nothing_again(
    digits_mlp: Path, digits_table: Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second time no child process is asked, and the bundle is the same byte for byte."""
    cache = tmp_path / "cache"
    wish = {"cache": cache, "version": "1.0.0", "sequence": 1, "overwrite": True}
    first = run(digits_mlp, digits_table, tmp_path, **wish).path.read_bytes()

    def refuse(*_: object) -> None:
        raise WorkerError("asked")

    monkeypatch.setattr("edgepack.converter.worker_process.WorkerProcess.send", refuse)
    assert first == run(digits_mlp, digits_table, tmp_path, **wish).path.read_bytes()
    with pytest.raises(WorkerError, match="asked"):
        run(digits_mlp, digits_table, tmp_path, **{**wish, "cache": tmp_path / "new"})


def test_too_few_rows_to_calibrate_leave_out_static_int8_only(
    digits_mlp: Path, digits_table: Table, tmp_path: Path
) -> None:
    """What needs no rows is still made, and the reason names how many rows it takes."""
    data = np.load(digits_table.path)
    few = tmp_path / "few.npz"
    np.savez(few, X=data["X"][:79], y=data["y"][:79])
    report = run(digits_mlp, Table(None, None, few, "y"), tmp_path, formats=("onnx",))
    assert 0 == report.rows.calibration
    assert {"onnx-fp32", "onnx-fp16"} <= {item.name for item in report.variants if item.kept}
    static = variant(report, "onnx-int8-u8s8-reduced")
    assert not static.kept
    assert "no rows are left for calibration: give at least 80 without NaN" == static.reason


def test_both_formats_come_of_a_linear_model(
    digits_model: Path, digits_table: Table, tmp_path: Path
) -> None:
    """ONNX and TFLite, each with the original's own labels."""
    report = run(digits_model, digits_table, tmp_path)
    for name in ("onnx-fp32", "tflite-fp32"):
        parity = variant(report, name).parity
        assert parity is not None
        assert 1.0 == parity.value
    only = run(digits_model, digits_table, tmp_path, formats=("tflite",))
    assert {"tflite"} == {v.name.partition("-")[0] for v in opened(only).contract.variants}
    reason = variant(only, "onnx-fp32").reason
    assert "only tflite was asked for" == reason


@pytest.fixture
def spoiled(tmp_path: Path) -> tuple[Path, Table]:
    """Three layers, of which the second has weights that are large and idle; then a reshape."""
    rng = np.random.default_rng(0)
    constants = {f"w{i}": rng.normal(size=(32, 32)) / 6 for i in range(3)}
    constants["w0"][:, 0] = 0  # so that the large weights make no large activations
    constants["w1"][0, :] = 30
    constants["shape"] = np.array([-1, 8, 4], dtype=np.int64)
    nodes = [
        helper.make_node("MatMul", ["x", "w0"], ["a"], name="first"),
        helper.make_node("MatMul", ["a", "w1"], ["b"], name="spoiled"),
        helper.make_node("MatMul", ["b", "w2"], ["c"], name="last"),
        helper.make_node("Reshape", ["c", "shape"], ["y"], name="folded"),
    ]
    model = tmp_path / "net.onnx"
    model.write_bytes(model_bytes(nodes, [("x", (None, 32))], [("y", (None, 8, 4))], constants))
    np.savez(tmp_path / "rows.npz", x=rng.normal(size=(200, 32)).astype(np.float32))
    return model, Table(None, None, tmp_path / "rows.npz", "y")


def test_a_static_int8_that_misses_is_repaired(spoiled: tuple[Path, Table], tmp_path: Path) -> None:
    """The layer that loses most stays in float; every candidate without that is left out."""
    report = run(*spoiled, tmp_path, formats=("onnx",))
    made = variant(report, "onnx-int8")
    assert made.kept
    assert "-mixed; 1 of 3 layers in float (spoiled)" in (made.reason or "")
    static = [v for v in report.variants if v.name.startswith("onnx-int8-u8")]
    assert len(static) > 2
    assert not any(v.kept for v in static)


def test_a_repair_that_cannot_be_tried_is_told(
    spoiled: tuple[Path, Table], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the layers cannot be measured, the reason is listed as any candidate's."""
    use = ToolPool.use

    def broken(self: ToolPool, name: str, job: Any) -> Any:
        if name.startswith("rank-"):
            raise WorkerError("it crashed")
        return use(self, name, job)

    monkeypatch.setattr(ToolPool, "use", broken)
    report = run(*spoiled, tmp_path, formats=("onnx",))
    mixed = next(v for v in report.variants if v.name.endswith("-mixed"))
    assert not mixed.kept
    assert "which layers need float cannot be measured: it crashed" == mixed.reason
