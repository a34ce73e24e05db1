"""Derived labels in the contract: read, written, and held to their rules."""

import dataclasses
import json

import pytest
from bundle_factory import small_contract, small_variant

from edgepack.bundle import parse_contract, render_contract
from edgepack.bundle.contract import Contract, Datatype, Task, TensorBinding, TensorSpec
from edgepack.bundle.errors import ContractError

LABEL = TensorBinding(name="label", tensor="scores", dtype=Datatype.FP32, derive="argmax")
SCORES = TensorBinding(name="probabilities", tensor="scores", dtype=Datatype.FP32)


def classifier(label: TensorBinding = LABEL, **changes) -> Contract:
    """Text labels of three classes, made of the tensor that also gives the probabilities."""
    fields = {
        "task": Task.CLASSIFICATION,
        "class_names": ("a", "b", "c"),
        "outputs": (
            TensorSpec(name="label", datatype=Datatype.BYTES, shape=(-1,)),
            TensorSpec(name="probabilities", datatype=Datatype.FP32, shape=(-1, 3)),
        ),
        "variants": (small_variant(outputs=(label, SCORES)),),
        "requires": ("derived-label",),
    }
    return small_contract(**{**fields, **changes})


def test_a_derived_label_comes_back_as_it_was_written():
    """The scores' tensor may be bound to an output of its own as well."""
    data = render_contract(classifier())

    assert classifier() == parse_contract(data)
    assert "argmax" == json.loads(data)["variants"][0]["outputs"][0]["derive"]


def test_a_binding_to_a_tensor_of_the_file_does_not_name_it():
    """Contracts without derived labels have the bytes that they had before there were any."""
    assert b"derive" not in render_contract(small_contract())


@pytest.mark.parametrize(
    ("contract", "message"),
    [
        (classifier(requires=()), "derive needs 'derived-label' in requires"),
        (classifier(dataclasses.replace(LABEL, derive="max")), "must be argmax, got 'max'"),
        (classifier(class_names=()), "a text label can be derived of class_names only"),
        (
            classifier(dataclasses.replace(LABEL, derive=None)),
            "outputs: tensors: 'scores' stands twice",
        ),
        (
            classifier(
                variants=(
                    small_variant(
                        inputs=(dataclasses.replace(LABEL, name="x"),), outputs=(LABEL, SCORES)
                    ),
                )
            ),
            "inputs 'x': derive is for outputs",
        ),
    ],
)
def test_a_breach_is_told(contract, message):
    """Each rule has its words."""
    with pytest.raises(ContractError, match=message):
        render_contract(contract)
