"""What a conversion leaves behind: the bundle, its card, its provenance, its signature."""

import json
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
from converter_models import Table, digits, opened, run, variant

from edgepack.bundle import verify_bundle
from edgepack.bundle.contract import Task, Tolerances
from edgepack.converter import Precision, Progress, RequestError, Stage
from edgepack.runtime import load
from edgepack.runtime.golden import parse_golden
from edgepack.runtime.selftest import run_selftest
from edgepack.trust import KeyFileError, PrivateKey, Root, keygen


def test_without_flags_it_just_works(
    digits_model: Path, digits_table: Table, tmp_path: Path
) -> None:
    """Name from the stem, version 0.1.0, development keys made and said, and all of it verifies."""
    report = run(digits_model, digits_table, tmp_path)
    assert ("digits", "0.1.0") == (report.name, report.version)
    assert tmp_path / "out" / "digits-0.1.0.edgepack" == report.path
    assert tmp_path / "config-home" / "edgepack" / "keys" == report.keys
    assert any("development keys were made" in message for message in report.messages)
    root = Root.parse((report.keys / "root.json").read_bytes())
    statement = verify_bundle(opened(report), root)
    assert report.digest == statement.digest
    assert report.sequence == statement.sequence
    assert [report.path] == list((tmp_path / "out").iterdir())


def test_the_second_conversion_is_the_next_patch(
    digits_model: Path, digits_table: Table, tmp_path: Path
) -> None:
    """The version counts on from what is in the folder, and the keys are used again."""
    first = run(digits_model, digits_table, tmp_path, version="1.2.9", precision=Precision.FP32)
    second = run(digits_model, digits_table, tmp_path, precision=Precision.FP32)
    assert "1.2.10" == second.version
    assert second.keys is None
    assert first.key_id == second.key_id


def test_a_version_that_is_there_is_not_replaced(
    digits_model: Path, digits_table: Table, tmp_path: Path
) -> None:
    """The same version again is an error, unless overwriting is asked for."""
    first = run(digits_model, digits_table, tmp_path, version="1.0.0", sequence=1)
    before = first.path.read_bytes()
    with pytest.raises(RequestError, match="is there already"):
        run(digits_model, digits_table, tmp_path, version="1.0.0")
    assert before == first.path.read_bytes()
    second = run(digits_model, digits_table, tmp_path, version="1.0.0", sequence=1, overwrite=True)
    assert before == second.path.read_bytes()


def test_same_in_same_out(digits_mlp: Path, digits_table: Table, tmp_path: Path) -> None:
    """Model, data, sequence and keys the same: every byte the same, int8 included."""
    keys = keygen(tmp_path / "keys")
    made = [
        run(
            digits_mlp,
            digits_table,
            tmp_path / folder,
            sequence=1_700_000_000,
            keys=keys.release_key.parent,
        )
        for folder in ("a", "b")
    ]
    assert variant(made[0], "onnx-int8").kept
    assert made[0].path.read_bytes() == made[1].path.read_bytes()


def test_source_date_epoch_is_the_sequence(
    digits_model: Path, digits_table: Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`SOURCE_DATE_EPOCH` is honoured, and refused when it is no number."""
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1234567890")
    assert 1234567890 == run(digits_model, digits_table, tmp_path).sequence
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "yesterday")
    with pytest.raises(RequestError, match="SOURCE_DATE_EPOCH"):
        run(digits_model, digits_table, tmp_path)


def test_a_key_that_is_named_is_used(
    digits_model: Path, digits_table: Table, tmp_path: Path
) -> None:
    """A release key by its file; a folder without one is an error before any work."""
    key = PrivateKey.generate()
    key.save(tmp_path / "mine.key")
    report = run(digits_model, digits_table, tmp_path, key=tmp_path / "mine.key")
    assert key.public.key_id == report.key_id
    with pytest.raises(KeyFileError, match="edgepack keygen"):
        run(digits_model, digits_table, tmp_path, keys=tmp_path / "nowhere")


def test_golden_samples_are_real_rows_with_the_originals_answers(
    digits_model: Path, digits_table: Table, tmp_path: Path
) -> None:
    """Golden inputs are rows of the file, their outputs the original's, their truth the label."""
    import joblib

    report = run(digits_model, digits_table, tmp_path)
    bundle = opened(report)
    golden = parse_golden(bundle.read("golden.safetensors"), bundle.contract)
    assert 64 <= golden.rows <= 256
    assert report.rows.golden == golden.rows
    with np.load(digits_table.path) as file:
        rows = {row.tobytes(): label for row, label in zip(file["X"], file["y"], strict=True)}
    inputs = golden.inputs["x"].astype(np.float64)
    assert golden.truth is not None
    assert [rows[row.tobytes()] for row in inputs] == golden.truth.tolist()
    original = joblib.load(digits_model)
    assert original.predict(inputs).tolist() == golden.outputs["label"].tolist()
    np.testing.assert_allclose(
        golden.outputs["probabilities"], original.predict_proba(inputs), rtol=1e-6
    )


def test_every_packed_variant_passes_the_devices_self_test(
    digits_mlp: Path, digits_table: Table, tmp_path: Path
) -> None:
    """What devices do before they switch succeeds here."""
    report = run(digits_mlp, digits_table, tmp_path)
    bundle = opened(report)
    golden = parse_golden(bundle.read("golden.safetensors"), bundle.contract)
    names = [item.name for item in bundle.contract.variants]
    assert "onnx-fp32" == names[0]
    assert "onnx-int8" in names
    for name in names:
        with load(bundle, variant=name) as model:
            assert run_selftest(model, golden).passed


def test_int8_is_smaller_close_and_does_not_saturate(
    digits_mlp: Path, digits_table: Table, tmp_path: Path
) -> None:
    """int8 loses at most a point, is smaller, and its weights are unsigned or within 7 bits."""
    import onnx
    from onnx import TensorProto, numpy_helper

    report = run(digits_mlp, digits_table, tmp_path)
    int8, fp32 = variant(report, "onnx-int8"), variant(report, "onnx-fp32")
    assert int8.parity is not None
    assert int8.parity.figures["drop"] <= 0.01
    assert pytest.approx(int8.parity.value - 0.01) == int8.parity.bound
    assert (int8.size_bytes or 0) < 0.5 * (fp32.size_bytes or 0)
    file = onnx.load_model_from_string(opened(report).read("onnx-int8/model.onnx"))
    weights = [
        numpy_helper.to_array(item)
        for item in file.graph.initializer
        if item.data_type in (TensorProto.INT8, TensorProto.UINT8) and len(item.dims) == 2
    ]
    assert weights
    assert all(item.dtype == np.uint8 or np.abs(item.astype(int)).max() <= 64 for item in weights)


@pytest.mark.parametrize("max_drop", [-0.01, 1.0, 5.0, float("nan")])
def test_a_drop_is_a_fraction(
    max_drop: float, digits_model: Path, digits_table: Table, tmp_path: Path
) -> None:
    """5 for five percent would let everything pass."""
    with pytest.raises(RequestError, match="tolerance max_drop must be"):
        run(digits_model, digits_table, tmp_path, tolerances=Tolerances(max_drop=max_drop))


def test_calibration_rows_are_never_compared(
    digits_mlp: Path, digits_table: Table, tmp_path: Path
) -> None:
    """Calibration and held-out rows together are the file, and no row is both."""
    report = run(digits_mlp, digits_table, tmp_path)
    rows = report.rows
    assert rows.total == rows.calibration + rows.held_out
    parity = variant(report, "onnx-int8").parity
    assert parity is not None
    assert rows.held_out == parity.rows


def test_the_card_says_what_a_person_needs(
    digits_mlp: Path, digits_table: Table, tmp_path: Path
) -> None:
    """Inputs, outputs, parity of each variant, the data's digest and the limits."""
    report = run(digits_mlp, digits_table, tmp_path)
    card = opened(report).read("README.md").decode()
    for text in (
        "# digits_mlp 0.1.0",
        "`x`: FP32 (N, 64), 0 to 16 in the data",
        "`probabilities`: FP32 (N, 10)",
        "| onnx-int8 |",
        "sha256:",
        "Which of these rows the model was trained on is not known",
    ):
        assert text in card


def test_provenance_names_no_place_time_or_person(
    digits_model: Path, digits_table: Table, tmp_path: Path
) -> None:
    """Versions, digests and the command, and nothing of this machine."""
    command = ("edgepack", "convert", str(digits_model), f"--output={tmp_path}/out", "--label", "y")
    report = run(digits_model, digits_table, tmp_path, command=command)
    text = opened(report).read("provenance.json").decode()
    found = json.loads(text)
    assert ["edgepack", "convert", "digits.joblib", "--output=out", "--label", "y"] == found[
        "command"
    ]
    assert {"edgepack", "scikit-learn", "skl2onnx", "onnxruntime"} <= set(found["packages"])
    assert re.fullmatch(r"sha256:[0-9a-f]{64}", found["model"]["digest"])
    assert str(tmp_path) not in text
    assert '"/' not in text
    assert found["git"] is None


def test_provenance_has_the_commit_of_the_models_work_tree(
    digits_model: Path, digits_table: Table, tmp_path: Path
) -> None:
    """A model in a git work tree carries its commit and whether tracked files differ."""
    tree = tmp_path / "tree"
    tree.mkdir()
    model = tree / "digits.joblib"
    model.write_bytes(digits_model.read_bytes())

    def git(*arguments: str) -> str:
        identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
        done = subprocess.run(
            ["git", *identity, *arguments], cwd=tree, check=True, capture_output=True
        )
        return done.stdout.decode().strip()

    git("init", "-q")
    git("add", ".")
    git("commit", "-qm", "model")
    expected = {"commit": git("rev-parse", "HEAD"), "dirty": False}
    for dirty in (False, True):
        report = run(model, digits_table, tmp_path, precision=Precision.FP32)
        found = json.loads(opened(report).read("provenance.json"))["git"]
        assert expected | {"dirty": dirty} == found
        model.touch()
        model.write_bytes(model.read_bytes() + b"")
        model.chmod(0o755)


def test_the_reference_watches_the_contracts_inputs(
    digits_model: Path, digits_table: Table, tmp_path: Path
) -> None:
    """The drift reference is packed and names the features of the contract."""
    from edgepack.monitor.reference import parse_reference

    report = run(digits_model, digits_table, tmp_path)
    bundle = opened(report)
    assert bundle.contract.reference is not None
    reference = parse_reference(bundle.read(bundle.contract.reference))
    assert report.rows.total == reference.rows
    names = tuple(feature.name for feature in reference.features)
    assert bundle.contract.inputs[0].feature_names == names


def test_progress_goes_through_the_stages(
    digits_mlp: Path, digits_table: Table, tmp_path: Path
) -> None:
    """Every stage is told, and the step never goes back."""
    from edgepack.converter import ConvertRequest, convert

    seen: list[Progress] = []
    request = ConvertRequest(model=digits_mlp, data=digits_table.path, output=tmp_path / "out")
    convert(request, seen.append)
    assert set(Stage) == {item.stage for item in seen}
    steps = [item.step for item in seen]
    assert sorted(steps) == steps
    assert {len(Stage)} == {item.steps for item in seen}


def test_a_licence_is_packed(digits_model: Path, tmp_path: Path) -> None:
    """The licence file that is named goes into the bundle."""
    source = digits(tmp_path)
    licence = tmp_path / "terms.txt"
    licence.write_text("Do what you like.\n")
    report = run(digits_model, source, tmp_path, license_file=licence, precision=Precision.FP32)
    assert b"Do what you like.\n" == opened(report).read("LICENSE")
    assert Task.CLASSIFICATION is report.task
