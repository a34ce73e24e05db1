"""When actions are carried out, and what they publish."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgepack.agent.config.actions import ActionConfig, On, ResetConfig, WhenConfig
from edgepack.agent.feed.condition import Condition, Decision, holds, misfits
from edgepack.agent.feed.template import fill
from edgepack.bundle.contract import Contract, Datatype, Task, TensorSpec

FIELDS = {
    "label": "broken",
    "confidence": 0.75,
    "value": None,
    "source": "press-7",
    "model": "m",
    "nan": float("nan"),
}


@pytest.mark.parametrize(
    ("when", "fields", "expected"),
    [
        ({"labels": ("worn", "broken")}, {"label": "broken"}, True),
        ({"labels": ("worn",)}, {"label": "broken"}, False),
        ({"labels": ("worn",)}, {}, False),
        ({"not_labels": ("ok",)}, {"label": "broken"}, True),
        ({"not_labels": ("ok",)}, {"label": "ok"}, False),
        ({"not_labels": ("ok",)}, {}, False),
        ({"min_confidence": 0.8}, {"confidence": 0.8}, True),
        ({"min_confidence": 0.8}, {"confidence": 0.79}, False),
        ({"min_confidence": 0.8}, {"confidence": None}, False),
        ({"labels": ("a",), "min_confidence": 0.8}, {"label": "a", "confidence": 0.1}, False),
        ({"above": 3}, {"value": 3.0}, False),
        ({"above": 3}, {"value": 3.1}, True),
        ({"below": 3}, {"value": 3.0}, False),
        ({"below": 3}, {"value": -1.0}, True),
        ({"above": 1, "below": 3}, {"value": 2.0}, True),
        ({"above": 1}, {"value": float("nan")}, False),
        ({"above": 1, "field": "probabilities_2"}, {"probabilities_2": 2.0, "value": 0.0}, True),
        ({"labels": ("x",), "field": "label_twf"}, {"label_twf": "x"}, True),
    ],
)
def test_a_condition_holds_for_a_prediction(when, fields, expected):
    """All of it; what a prediction does not have, it does not meet."""
    assert expected == holds(WhenConfig(**when), fields)


def decisions(labels, **config):
    """A letter for each prediction: A where it acts, R for a reset, a dot for nothing."""
    condition = Condition(
        ActionConfig(name="a", model="m", when=WhenConfig(labels=("x",)), **config)
    )
    return "".join(
        {Decision.ACT: "A", Decision.RESET: "R", None: "."}[
            condition.step("s", {"label": label}, now_s=now_s)
        ]
        for now_s, label in enumerate(labels)
    )


RESET = ResetConfig()


@pytest.mark.parametrize(
    ("labels", "config", "expected"),
    [
        ("oxxxoxx", {}, ".A...A."),
        ("oxxxoxx", {"on": On.EACH}, ".AAA.AA"),
        ("xxoxxxx", {"in_a_row": 3}, ".....A."),
        ("xxxxx", {"in_a_row": 3, "on": On.EACH}, "..AAA"),
        ("xxxxxxx", {"on": On.EACH, "cool_down_s": 3}, "A..A..A"),
        ("xoxoxxx", {"cool_down_s": 5}, "A....A."),
        ("xxoox", {"reset": RESET}, "A.R.A"),
        ("xooxoo", {"reset": ResetConfig(in_a_row=2)}, "A.R" + "A.R"),
        ("xoxoxoo", {"reset": ResetConfig(in_a_row=2)}, "A.....R"),
        ("xoxo", {"reset": RESET, "cool_down_s": 9}, "AR.."),
        ("oo", {"reset": RESET}, ".."),
        ("xx", {"source": "t"}, ".."),
    ],
)
def test_an_action_is_carried_out(labels, config, expected):
    """When it begins to hold, N in a row, not too often; and a reset when it ends."""
    assert expected == decisions(labels, **config)


def test_each_source_is_counted_by_itself():
    """Two presses that are broken once each are not one that is broken twice."""
    config = ActionConfig(name="a", model="m", when=WhenConfig(labels=("x",)), in_a_row=2)
    condition = Condition(config)
    found = [condition.step(source, {"label": "x"}, now_s=0) for source in "stst"]
    assert [None, None, Decision.ACT, Decision.ACT] == found


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        ("OFF", b"OFF"),
        ("${label} at ${confidence}", b"broken at 0.75"),
        ('{"why": "${label}", "none": "${value}"}', b'{"why": "broken", "none": ""}'),
        (
            {"stop": True, "why": "${label}", "sure": "${confidence}", "of": ["${source}!", 1]},
            b'{"of":["press-7!",1],"stop":true,"sure":0.75,"why":"broken"}',
        ),
        ({"v": "${value}", "n": "${nan}", "u": "${unknown}"}, b'{"n":null,"u":null,"v":null}'),
        (None, b'{"confidence":0.75,"label":"broken","model":"m","source":"press-7"}'),
        ("$label ${} {label}", b"$label ${} {label}"),
    ],
)
def test_a_payload_is_filled_in(payload, expected):
    """Text stays text; a table becomes JSON, and a field that stands alone keeps its type."""
    assert expected == fill(payload, FIELDS)


@given(st.text(st.characters(exclude_categories=("Cs",))))
def test_no_label_can_add_to_a_payload(label):
    """It is escaped in text that looks like JSON, and rendered in a table."""
    fields = {"label": label}
    assert {"why": label} == json.loads(fill('{"why": "${label}"}', fields))
    assert {"why": label, "also": f"<{label}>"} == json.loads(
        fill({"why": "${label}", "also": "<${label}>"}, fields)
    )


def contract(task=Task.CLASSIFICATION, outputs=("label", "probabilities"), names=("ok", "broken")):
    return Contract(
        name="m",
        version="1",
        task=task,
        inputs=(TensorSpec(name="x", datatype=Datatype.FP32, shape=(-1, 1)),),
        outputs=tuple(
            TensorSpec(name=name, datatype=Datatype.FP32, shape=(-1,)) for name in outputs
        ),
        class_names=names,
        variants=(),
        golden="g",
    )


@pytest.mark.parametrize(
    ("config", "model", "expected"),
    [
        ({"when": WhenConfig(labels=("broken",))}, contract(), ""),
        ({"when": WhenConfig(labels=("brokn",))}, contract(), "no class 'brokn', it has 'ok'"),
        (
            {"when": WhenConfig(labels=("ok",), min_confidence=0.5)},
            contract(outputs=("label",)),
            "gives no probabilities",
        ),
        ({"when": WhenConfig(above=1)}, contract(), "above and below need a field"),
        (
            {"when": WhenConfig(above=1)},
            contract(Task.REGRESSION, ("value",), ()),
            "",
        ),
        (
            {"when": WhenConfig(labels=("ok",)), "payload": {"a": ["${lable}"]}},
            contract(),
            "have no field 'lable'",
        ),
        (
            {"when": WhenConfig(above=0.5, field="probabilities_1"), "payload": "${source}"},
            contract(),
            "",
        ),
    ],
)
def test_an_action_that_can_never_be_carried_out_says_why(config, model, expected):
    """As soon as the model is there."""
    found = misfits(ActionConfig(name="a", model="m", **config), model)
    assert (bool(expected), True) == (bool(found), expected in found)
