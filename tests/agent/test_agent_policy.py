"""Which predictions are published, and that the latest value always is in the end."""

import asyncio
import math

import pytest

from edgepack.agent.config import PredictionRule, PredictionsConfig, Publish
from edgepack.agent.config.sections import ModelPredictionsConfig
from edgepack.agent.serve.inference import Prediction
from edgepack.agent.serve.policy import PredictionPolicy, Told, is_same, seconds_until
from edgepack.agent.serve.requests import Answer


def label(text, confidence=0.9):
    return Answer(text, confidence, None, {})


def value(number):
    return Answer(None, None, number, {})


def several(**values):
    return Answer(None, None, None, values)


def prediction(answer, *, source="s", is_told=False, model="m"):
    return Prediction(
        model=model,
        version="1",
        request_id=None,
        inputs={},
        outputs={},
        answer=answer,
        is_told=is_told,
        source=source,
    )


A, B = label("a"), label("b")


@pytest.mark.parametrize(
    ("publish", "last", "answer", "now_s", "expected"),
    [
        (Publish.ON_CHANGE, None, A, 100, 0),
        (Publish.ON_CHANGE, A, A, 100, None),
        (Publish.ON_CHANGE, A, B, 103, 7),
        (Publish.ON_CHANGE, A, B, 110, 0),
        (Publish.INTERVAL, A, A, 103, 7),
        (Publish.INTERVAL, A, A, 110, 0),
        (Publish.ALL, A, A, 100, 0),
        (Publish.NONE, None, A, 100, None),
    ],
)
def test_a_prediction_is_due_by_policy(publish, last, answer, now_s, expected):
    """Now, later, or never."""
    rule = PredictionRule(publish=publish, interval_s=10)
    told = None if last is None else Told(100, last)
    assert expected == seconds_until(rule, told, answer, now_s)


@pytest.mark.parametrize(
    ("one", "other", "min_change", "expected"),
    [
        (label("a", 0.9), label("a", 0.2), 0, True),
        (label("a"), label("b"), 9, False),
        (value(1.0), value(1.0), 0, True),
        (value(1.0), value(1.001), 0, False),
        (value(1.0), value(1.4), 0.5, True),
        (value(1.0), value(1.5), 0.5, False),
        (value(math.nan), value(math.nan), 0, True),
        (value(math.nan), value(1.0), 9, False),
        (several(x_0=1.0, x_1=2.0), several(x_0=1.1, x_1=2.1), 0.5, True),
        (several(x_0=1.0, x_1=2.0), several(x_0=1.0, x_1=3.0), 0.5, False),
        (several(label_p="a", label_q="b"), several(label_p="a", label_q="c"), 0, False),
        (several(x_0=1.0), several(y_0=1.0), 9, False),
    ],
)
def test_answers_are_the_same_within_a_dead_band(one, other, min_change, expected):
    """Of every output that there is; confidence does not count."""
    assert expected == is_same(one, other, min_change)


def follow(config, steps, *, wait=True):
    """The labels that are sent when predictions come at once, and the time stands still."""
    sent = []

    async def main():
        policy = PredictionPolicy(
            config, lambda _, fields: sent.append(fields["label"]), clock=lambda: 0.0
        )
        for step in steps:
            policy.take(step)
        early = list(sent)
        if wait:
            deadline = asyncio.get_running_loop().time() + 10
            while len(sent) == len(early) and asyncio.get_running_loop().time() < deadline:
                await asyncio.sleep(0.01)
        else:
            policy.flush()
        return early

    return asyncio.run(main()), sent


SHORT = PredictionsConfig(interval_s=0.05)
LONG = PredictionsConfig(interval_s=3600)


def test_a_change_that_came_too_early_is_sent_when_the_interval_is_over():
    """Only the latest one."""
    steps = [prediction(label(text)) for text in "abc"]
    assert (["a"], ["a", "c"]) == follow(SHORT, steps)


def test_what_waits_is_sent_when_the_agent_stops():
    """An hour before its time."""
    steps = [prediction(label(text)) for text in "abc"]
    assert (["a"], ["a", "c"]) == follow(LONG, steps, wait=False)


def test_a_value_that_came_back_is_not_sent_again():
    """The latest value is the one that was told."""
    steps = [prediction(label(text)) for text in "aba"]
    assert (["a"], ["a"]) == follow(LONG, steps, wait=False)


def test_sources_and_models_are_told_by_themselves():
    """One press's state says nothing about another's."""
    steps = [
        prediction(A),
        prediction(A, source="t"),
        prediction(A, model="n"),
        prediction(A),
        prediction(B, source="t"),
    ]
    assert (["a", "a", "a"], ["a", "a", "a", "b"]) == follow(LONG, steps, wait=False)


def test_a_reply_counts_as_told():
    """Whoever listens to `out/prediction` has seen it."""
    steps = [
        prediction(A, source=None, is_told=True),
        prediction(A, source=None),
        prediction(B, source=None),
    ]
    assert ([], ["b"]) == follow(LONG, steps, wait=False)


def test_a_model_may_have_a_rule_of_its_own():
    """What it does not say holds for all."""
    own = ModelPredictionsConfig(publish=Publish.ALL)
    config = PredictionsConfig(interval_s=3600, models={"n": own})
    steps = [prediction(label(text), model=model) for model in "mn" for text in "aab"]
    assert (["a", "a", "a", "b"], ["a", "a", "a", "b", "b"]) == follow(config, steps, wait=False)
    assert PredictionRule(publish=Publish.ALL, interval_s=3600) == config.rule("n")
