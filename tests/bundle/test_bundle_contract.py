"""The contract: read strictly, every breach told at once, written canonically."""

import dataclasses
import json

import pytest
from bundle_factory import small_contract, small_variant

from edgepack.bundle import parse_contract, render_contract
from edgepack.bundle.contract import (
    Datatype,
    DeviceRequirements,
    EngineRequirements,
    Nonfinite,
    Parity,
    Task,
    TensorBinding,
    TensorSpec,
    Tolerances,
)
from edgepack.bundle.contract_rules import is_version
from edgepack.bundle.errors import (
    BundleDocumentError,
    ContractError,
    OversizedDocumentError,
    UnsupportedError,
)

X = TensorSpec(name="x", datatype=Datatype.FP32, shape=(-1, 4))
BINDING = TensorBinding(name="x", tensor="X", dtype=Datatype.FP32)


def full_contract():
    """A contract that uses everything."""
    inputs = (
        TensorSpec(
            name="sepal length (cm)",
            datatype=Datatype.FP32,
            shape=(-1, 2),
            feature_names=("größe", "重さ\u3000kg"),
            unit="K",
            minimum=-1.5,
            maximum=2.5,
            nonfinite=Nonfinite.NAN,
        ),
        TensorSpec(name="colour", datatype=Datatype.BYTES, shape=(-1, 1)),
    )
    outputs = (
        TensorSpec(name="label", datatype=Datatype.BYTES, shape=(-1,)),
        TensorSpec(name="probabilities", datatype=Datatype.FP32, shape=(-1, 3)),
    )
    bindings = {
        "inputs": (
            TensorBinding(
                name="sepal length (cm)",
                tensor="in0",
                dtype=Datatype.INT8,
                scale=0.1,
                zero_point=-3,
                layout="NHWC",
                batch=1,
            ),
            TensorBinding(name="colour", tensor="in1", dtype=Datatype.BYTES),
        ),
        "outputs": (
            TensorBinding(name="label", tensor="out0", dtype=Datatype.BYTES),
            TensorBinding(name="probabilities", tensor="out1", dtype=Datatype.FP32),
        ),
    }
    engine = EngineRequirements(
        engine="onnxruntime", opsets={"": 17, "ai.onnx.ml": 3}, operators=("::MatMul",)
    )
    return small_contract(
        version="1.0.0-rc.1+build.5",
        task=Task.CLASSIFICATION,
        inputs=inputs,
        outputs=outputs,
        class_names=("", "ok", "kaputt"),
        tolerances=Tolerances(rtol=0.0, atol=1e-9, max_drop=0.5),
        device=DeviceRequirements(min_memory_bytes=1, device_classes=("arm64",)),
        reference="reference.json",
        variants=(
            small_variant(engine=engine, **bindings),
            small_variant(
                name="onnx-int8",
                files=("onnx-int8/model.onnx", "onnx-int8/more.bin"),
                precision="int8",
                parity=Parity(rows=0, metric="agreement", value=1, bound=0.9, figures={"a": 1.5}),
                **bindings,
            ),
        ),
    )


@pytest.mark.parametrize("contract", [small_contract(), full_contract()])
def test_what_was_rendered_is_parsed_again(contract):
    """A contract comes back equal, and gives the same bytes again."""
    data = render_contract(contract)

    assert contract == parse_contract(data)
    assert data == render_contract(parse_contract(data))


def test_equal_contracts_give_the_same_bytes():
    """A whole number in a field of fractions is written as a fraction."""
    whole, fraction = (
        small_contract(
            variants=(small_variant(parity=Parity(rows=1, metric="r2", value=one, bound=one)),)
        )
        for one in (1, 1.0)
    )

    assert render_contract(whole) == render_contract(fraction)


def test_unknown_keys_are_ignored():
    """A later minor format may add to any object."""
    document = json.loads(render_contract(small_contract()))
    document["format"] = "1.9"
    document["added"] = {"later": True}
    document["inputs"][0]["added"] = 1
    document["variants"][0]["engine"]["added"] = []

    assert dataclasses.replace(small_contract(), format="1.9") == (
        parse_contract(json.dumps(document).encode())
    )


def test_an_unknown_requirement_is_refused_by_its_name():
    """Whoever must know a feature, and does not, says which."""
    document = {**json.loads(render_contract(small_contract())), "requires": ["stateful-v2"]}

    with pytest.raises(UnsupportedError, match="requires 'stateful-v2', which this version"):
        parse_contract(json.dumps(document).encode())


def test_another_major_format_is_refused_before_its_fields_are_read():
    """Format 2 may look like anything."""
    with pytest.raises(UnsupportedError, match=r"format must be 1\.x, got '2\.0'"):
        parse_contract(b'{"format": "2.0", "model": {}}')


@pytest.mark.parametrize("written", ["1", "1.", "1.x", "01.0", "1.0.0", ""])
def test_a_format_is_major_dot_minor(written):
    """Anything else is refused."""
    document = {**json.loads(render_contract(small_contract())), "format": written}

    with pytest.raises(ContractError, match="format must be"):
        parse_contract(json.dumps(document).encode())


BROKEN = [
    ({"name": "a b"}, "name must be 1 to 64 of"),
    ({"name": ""}, "name must be"),
    ({"name": "x" * 65}, "name must be"),
    ({"name": "pump\n"}, "name must be"),
    ({"version": "1.0"}, "version must be SemVer"),
    ({"version": "v1.0.0"}, "version must be SemVer"),
    ({"inputs": ()}, "inputs must not be empty"),
    ({"outputs": ()}, "outputs must not be empty"),
    ({"inputs": (X, X)}, "inputs: 'x' stands twice"),
    ({"inputs": (dataclasses.replace(X, name=""),)}, "1 to 256 printable characters"),
    ({"inputs": (dataclasses.replace(X, name="a\x1b[2J"),)}, "printable"),
    ({"inputs": (dataclasses.replace(X, name="a\u202eb"),)}, "printable"),
    ({"inputs": (dataclasses.replace(X, shape=()),)}, "shape must have 1 to 8 dimensions"),
    ({"inputs": (dataclasses.replace(X, shape=(-1,) * 9),)}, "1 to 8 dimensions"),
    ({"inputs": (dataclasses.replace(X, shape=(-1, 0)),)}, r"sizes >= 1, or -1, got \[-1, 0\]"),
    ({"inputs": (dataclasses.replace(X, shape=(-2, 4)),)}, "sizes >= 1"),
    ({"inputs": (dataclasses.replace(X, feature_names=("a",)),)}, r"must be 4 .*, got 1"),
    ({"inputs": (dataclasses.replace(X, feature_names=("a",) * 4),)}, "'a' stands twice"),
    ({"inputs": (dataclasses.replace(X, unit=""),)}, "unit must be"),
    ({"inputs": (dataclasses.replace(X, minimum=2.0, maximum=1.0),)}, "minimum must be <="),
    ({"inputs": (dataclasses.replace(X, minimum=float("nan")),)}, "must be finite"),
    ({"class_names": ("a",)}, "class_names are for classification"),
    ({"task": Task.CLASSIFICATION, "class_names": ("a", "a")}, "'a' stands twice"),
    ({"tolerances": Tolerances(rtol=-1.0)}, "tolerances.rtol must be >= 0"),
    ({"tolerances": Tolerances(atol=float("inf"))}, "tolerances.atol"),
    ({"device": DeviceRequirements(min_memory_bytes=-1)}, "min_memory_bytes must be >= 0"),
    ({"variants": ()}, "variants must not be empty"),
    ({"variants": (small_variant(), small_variant())}, "'onnx-fp32' stands twice"),
    ({"variants": (small_variant(name="../x"),)}, "name must be 1 to 64 of"),
    ({"variants": (small_variant(files=()),)}, "files must not be empty"),
    ({"variants": (small_variant(files=("model.onnx",)),)}, "must lie in the folder 'onnx-fp32'"),
    ({"variants": (small_variant(files=("onnx-fp32/../x",)),)}, "leads out"),
    ({"variants": (small_variant(files=("onnx-fp32/m",) * 2),)}, "stands twice"),
    ({"variants": (small_variant(size_bytes=-1),)}, "size_bytes must be >= 0"),
    ({"variants": (small_variant(precision=""),)}, "precision must be a word"),
    ({"variants": (small_variant(engine=EngineRequirements(engine="a/b")),)}, "engine must be"),
    (
        {"variants": (small_variant(engine=EngineRequirements(engine="a", opsets={"": 0})),)},
        "opset of '' must be >= 1",
    ),
    ({"variants": (small_variant(inputs=()),)}, "inputs must bind 'x', each once, got none"),
    ({"variants": (small_variant(inputs=(BINDING, BINDING)),)}, "must bind 'x', each once"),
    (
        {"variants": (small_variant(inputs=(dataclasses.replace(BINDING, name="y"),)),)},
        "must bind 'x', each once, got 'y'",
    ),
    (
        {"variants": (small_variant(inputs=(dataclasses.replace(BINDING, scale=1.0),)),)},
        "scale and zero_point must be given together",
    ),
    (
        {
            "variants": (
                small_variant(inputs=(dataclasses.replace(BINDING, scale=0.0, zero_point=0),)),
            )
        },
        "scale must be > 0",
    ),
    (
        {"variants": (small_variant(inputs=(dataclasses.replace(BINDING, batch=0),)),)},
        "batch must be >= 1",
    ),
    (
        {"variants": (small_variant(inputs=(dataclasses.replace(BINDING, layout="?"),)),)},
        "layout must be a word",
    ),
    (
        {"variants": (small_variant(parity=Parity(rows=-1, metric="r2", value=1, bound=1)),)},
        "parity.rows must be >= 0",
    ),
    (
        {
            "variants": (
                small_variant(parity=Parity(rows=1, metric="r2", value=float("nan"), bound=1)),
            )
        },
        "finite numbers",
    ),
    (
        {"variants": (small_variant(parity=Parity(rows=1, metric="", value=1, bound=1)),)},
        "metric must be a word",
    ),
    ({"golden": "/etc/passwd"}, "golden: path '/etc/passwd' leads out"),
    ({"reference": "a b"}, "reference: path 'a b' must have parts"),
    ({"post": ({"name": "scale"},)}, "post and state are reserved"),
    ({"state": {}}, "post and state are reserved"),
]


@pytest.mark.parametrize(("changes", "message"), BROKEN)
def test_a_breach_is_told(changes, message):
    """Every rule has its words, and neither writer nor reader lets a breach pass."""
    broken = small_contract(**changes)

    with pytest.raises(ContractError, match=message) as caught:
        render_contract(broken)

    assert "\n" not in str(caught.value)
    assert len(caught.value.problems) >= 1


def test_a_reader_tells_the_same_breach_as_the_writer():
    """The rules are the same on both sides."""
    document = json.loads(render_contract(small_contract()))
    document["variants"][0]["inputs"] = []
    document["golden"] = "../golden"

    with pytest.raises(ContractError) as caught:
        parse_contract(json.dumps(document).encode())

    assert 2 == len(caught.value.problems)


def test_class_names_fit_the_probabilities():
    """Three columns want three names."""
    contract = dataclasses.replace(full_contract(), class_names=("a", "b"))

    with pytest.raises(ContractError, match=r"class_names must be 3 \(probabilities\), got 2"):
        render_contract(contract)


def test_all_breaches_are_told_at_once():
    """One error carries every problem and shows five."""
    broken = small_contract(
        name="", version="", inputs=(), golden="/", reference="/", post=({},), variants=()
    )

    with pytest.raises(ContractError, match="and 2 more") as caught:
        render_contract(broken)

    assert 7 == len(caught.value.problems)


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"[]", BundleDocumentError),
        (b"{}", ContractError),
        (b'{"format": 1}', ContractError),
        (b"{" + b" " * 4 * 1024**2 + b"}", OversizedDocumentError),
    ],
)
def test_what_is_no_contract_is_refused(data, error):
    """Each by its own class."""
    with pytest.raises(error):
        parse_contract(data)


def test_a_contract_too_large_to_be_read_is_not_written():
    """The writer knows the reader's limit."""
    names = tuple(f"{n:0256d}" for n in range(20_000))
    inputs = (dataclasses.replace(X, shape=(-1, 20_000), feature_names=names),)

    with pytest.raises(OversizedDocumentError, match="at most 4194304 bytes"):
        render_contract(small_contract(inputs=inputs))


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("0.0.0", True),
        ("1.2.3-alpha.1+x.y", True),
        ("1.0.0--", True),
        ("01.0.0", False),
        ("1.0.0-01", False),
        ("1.0.0+", False),
        ("1.0.0\n", False),
        ("1.0.0+" + "x" * 60, False),
        ("\u0661.0.0", False),
    ],
)
def test_versions_are_those_of_semver(text, right):
    """As semver.org says, and at most 64 characters."""
    assert right == is_version(text)
