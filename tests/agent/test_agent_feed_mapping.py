"""From messages to tensors: pure, so nothing runs here."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from edgepack.agent.config.inputs import (
    FeatureConfig,
    FilesConfig,
    InputConfig,
    Missing,
    TimeUnit,
    WindowConfig,
)
from edgepack.agent.feed.errors import MessageError, MismatchError
from edgepack.agent.feed.mapping import Mapper, Message
from edgepack.agent.feed.plan import make_plan
from edgepack.bundle.contract import Contract, Datatype, Nonfinite, Task, TensorSpec

F32 = Datatype.FP32


def contract(*specs):
    return Contract(
        name="m",
        version="1",
        task=Task.CLASSIFICATION,
        inputs=specs,
        outputs=(TensorSpec(name="label", datatype=Datatype.BYTES, shape=(-1,)),),
        variants=(),
        golden="g",
    )


TABLE = contract(
    TensorSpec(name="x", datatype=F32, shape=(-1, 2), feature_names=("temp", "speed")),
    TensorSpec(name="kind", datatype=Datatype.BYTES, shape=(-1, 1)),
)
NAN = contract(
    TensorSpec(
        name="x", datatype=F32, shape=(-1, 1), feature_names=("temp",), nonfinite=Nonfinite.NAN
    )
)
ONE = contract(TensorSpec(name="x", datatype=F32, shape=(-1, 1), feature_names=("temp",)))
SERIES = contract(TensorSpec(name="x", datatype=F32, shape=(-1, 4, 2), feature_names=("ax", "ay")))


def mapper(model, **config):
    made = InputConfig(model="m", name="m", **{"topic": "t/+", **config})
    return Mapper(made, make_plan(made, model))


def take(made, document, topic="t/a", now_s=0.0, **options):
    return made.take(Message(document=document, topic=topic, **options), now_s=now_s)


def rows(made, *documents, **options):
    """The values of the input `x` of all samples that the documents give."""
    return [
        one.inputs["x"].tolist()
        for document in documents
        for one in take(made, document, **options)
    ]


def test_keys_that_are_called_like_features_need_no_configuration():
    """Two inputs of two kinds are filled from one message; other keys are passed over."""
    (sample,) = take(mapper(TABLE), {"kind": "L", "temp": 1.5, "speed": "20", "other": None})
    assert {"x": [[1.5, 20.0]], "kind": [["L"]]} == {
        name: array.tolist() for name, array in sample.inputs.items()
    }
    assert ("a", np.dtype("float32")) == (sample.source, sample.inputs["x"].dtype)


@pytest.mark.parametrize(
    ("rule", "document", "expected"),
    [
        ({"path": "a.b[1].c"}, {"a": {"b": [0, {"c": 7}]}}, 7),
        ({"path": "a[-1]"}, {"a": [1, 2, 3]}, 3),
        ({"path": '["x.y"]'}, {"x.y": 4}, 4),
        ({"path": "$"}, 21.5, 21.5),
        ({"scale": 0.001, "offset": -273.15}, {"temp": 300150}, 27.0),
        ({"map": {"ON": 1, "OFF": 0}}, {"temp": "ON"}, 1),
        ({"map": {"true": 5, "3": 6}}, {"temp": True}, 5),
        ({"map": {"true": 5, "3": 6}}, {"temp": 3}, 6),
        ({}, {"temp": False}, 0),
        ({"value": 9}, {"temp": None}, 9),
        ({"value": 9, "map": {"a": 1}}, {"temp": "unknown"}, 9),
        ({"missing": Missing.VALUE, "value": -1, "scale": 10}, {}, -1),
    ],
)
def test_a_value_is_found_and_brought_to_the_models_unit(rule, document, expected):
    """By path, unit, category, and the rule for what is missing."""
    made = mapper(ONE, features={"temp": FeatureConfig(**rule)})
    (((found,),),) = rows(made, document)
    assert expected == pytest.approx(found)


@pytest.mark.parametrize(
    ("document", "reason", "message"),
    [
        ({}, "missing", "feature 'temp' is missing"),
        ({"temp": "warm"}, "wrong_value", "feature 'temp' must be a number, got str 'warm'"),
        ({"temp": {"a": 1}}, "wrong_value", "feature 'temp' must be a number, got dict"),
        ({"temp": [1, 2]}, "wrong_value", "must be FP32 numbers, got list"),
        ([1], "missing", "feature 'temp' is missing"),
        ({"temp": 1e39}, None, None),
    ],
)
def test_what_cannot_be_used_is_refused_with_a_word(document, reason, message):
    """The word is counted; the line says what was got. What overflows the model itself refuses."""
    if reason is None:
        assert [[[np.inf]]] == rows(mapper(ONE), document)
        return
    with pytest.raises(MessageError, match=message) as caught:
        take(mapper(ONE), document)
    assert reason == caught.value.reason


def test_nan_stands_for_a_missing_value_where_the_model_takes_it():
    """And where it does not, the input does not fit."""
    features = {"temp": FeatureConfig(missing=Missing.NAN)}
    assert np.isnan(rows(mapper(NAN, features=features), {})).all()
    with pytest.raises(MismatchError, match="the model takes no NaN"):
        mapper(ONE, features=features)


def test_the_last_value_is_kept_for_each_stream_and_grows_old():
    """One press's temperature never stands in for another's."""
    made = mapper(ONE, features={"temp": FeatureConfig(missing=Missing.LAST, max_age_s=60)})
    take(made, {"temp": 5}, topic="t/a", now_s=0)
    (sample,) = take(made, {}, topic="t/a", now_s=60)
    assert [[5.0]] == sample.inputs["x"].tolist()
    with pytest.raises(MessageError, match="is older than 60 s") as caught:
        take(made, {}, topic="t/a", now_s=61)
    assert "stale" == caught.value.reason
    with pytest.raises(MessageError, match="is missing"):
        take(made, {}, topic="t/b", now_s=1)


def test_several_topics_are_joined_by_what_their_wildcards_stand_for():
    """The latest of each counts; the trigger decides when; a topic without wildcards is shared."""
    made = mapper(
        TABLE,
        topic=None,
        trigger=("speed/+",),
        features={
            "temp": FeatureConfig(topic="temp/+", path="$", max_age_s=10),
            "speed": FeatureConfig(topic="speed/+", path="rpm"),
            "kind": FeatureConfig(topic="plant/kind", path="$"),
        },
    )
    assert [] == take(made, "L", topic="plant/kind")
    assert [] == take(made, 20.0, topic="temp/a", now_s=1)
    assert [] == take(made, 30.0, topic="temp/b", now_s=2)
    (sample,) = take(made, {"rpm": 100}, topic="speed/b", now_s=3)
    assert ("b", [[30.0, 100.0]], [["L"]]) == (
        sample.source,
        sample.inputs["x"].tolist(),
        sample.inputs["kind"].tolist(),
    )
    with pytest.raises(MessageError, match="'temp' is older than 10"):
        take(made, {"rpm": 100}, topic="speed/a", now_s=12)
    with pytest.raises(MessageError, match="'temp' is missing"):
        take(made, {"rpm": 100}, topic="speed/c", now_s=12)


def test_a_retained_message_is_remembered_and_makes_no_prediction():
    """It would be made again after every reconnect."""
    made = mapper(ONE, features={"temp": FeatureConfig(missing=Missing.LAST)})
    assert [] == take(made, {"temp": 3}, is_retained=True)
    assert [[[3.0]]] == rows(made, {})


def test_sensors_that_share_a_topic_are_told_apart_by_a_path():
    """Their windows are not mixed."""
    made = mapper(SERIES, topic="t", stream="id", window=WindowConfig(length=4))
    samples = [
        one
        for step in range(4)
        for name in ("l", "r")
        for one in take(made, {"id": name, "ax": step, "ay": name == "l"}, topic="t")
    ]
    assert ["l", "r"] == [one.source for one in samples]
    assert [[0, 1], [1, 1], [2, 1], [3, 1]] == samples[0].inputs["x"][0].tolist()


def test_predictions_of_a_stream_are_thinned_by_an_interval():
    """A sensor that talks ten times a second is asked for once."""
    made = mapper(ONE, min_interval_s=1)
    found = [len(take(made, {"temp": 1}, now_s=tenth / 10)) for tenth in range(21)]
    assert [0, 10, 20] == [tenth for tenth, count in enumerate(found) if count]


def sample_times(window, times, *, now=False, **config):
    """The first channel of every window, of samples numbered 0, 1, … that came at these times."""
    made = mapper(SERIES, topic="t", window=WindowConfig(**window), **config)
    found = []
    for number, moment in enumerate(times):
        document = {"ax": number, "ay": 0} | ({} if now else {"t": moment})
        try:
            samples = take(made, document, topic="t", now_s=moment if now else 0.0)
        except MessageError as exc:
            found.append(exc.reason)
            continue
        found += [one.inputs["x"][0, :, 0].tolist() for one in samples]
    return found, made.gaps


TIMED = {"rate_hz": 10, "time": "t"}


@pytest.mark.parametrize(
    ("window", "times", "expected", "gaps"),
    [
        ({}, [0] * 9, [[0, 1, 2, 3], [4, 5, 6, 7]], 0),
        ({"stride": 2}, [0] * 7, [[0, 1, 2, 3], [2, 3, 4, 5]], 0),
        ({"stride": 6}, [0] * 11, [[0, 1, 2, 3], [6, 7, 8, 9]], 0),
        (TIMED, [0, 0.1, 0.2, 0.5, 0.6, 0.7, 0.8], [[3, 4, 5, 6]], 1),
        (TIMED | {"fill_s": 0.2}, [0, 0.1, 0.3, 0.4], [[0, 1, 1.5, 2]], 0),
        (TIMED | {"fill_s": 0.1}, [0, 0.1, 0.5, 0.6, 0.7, 0.8], [[2, 3, 4, 5]], 1),
        (TIMED, [0, 0.13, 0.18, 0.31], [[0, 1, 2, 3]], 0),
        (TIMED, [0, 0.1, 0.1, 0.2, 0.3], ["late", [0, 1, 3, 4]], 0),
        (TIMED, [100, 100.1, 0, 0.1, 0.2, 0.3], [[2, 3, 4, 5]], 1),
    ],
    ids=["whole", "half over", "with holes", "gap", "filled", "too long", "jitter", "twice", "set"],
)
def test_windows_are_cut_and_gaps_are_seen(window, times, expected, gaps):
    """A window never spans what was not measured, but where it may be filled."""
    assert (expected, gaps) == sample_times(window, times)


def test_without_times_a_window_begins_anew_only_after_a_second():
    """A network that holds messages back is no gap."""
    arrivals = [0, 0.9, 0.9, 0.9, 3, 3.1, 3.2, 3.3]
    assert ([[0, 1, 2, 3], [4, 5, 6, 7]], 1) == sample_times({"rate_hz": 10}, arrivals, now=True)


def test_a_message_may_hold_a_block_of_samples():
    """As sensors with a buffer send them."""
    made = mapper(SERIES, topic="t", window=WindowConfig(length=4, stride=2))
    blocks = [{"ax": [0, 1, 2], "ay": [0, 0, 0]}, {"ax": [3, 4, 5, 6, 7], "ay": [0] * 5}]
    found = [window[0] for window in rows(made, *blocks, topic="t")]
    assert [[0, 1, 2, 3], [2, 3, 4, 5], [4, 5, 6, 7]] == [
        [sample[0] for sample in window] for window in found
    ]
    with pytest.raises(MessageError, match="as many samples as one another"):
        take(made, {"ax": [1, 2], "ay": [1]}, topic="t")
    ((window,),) = rows(made, {"ax": [8, 9], "ay": 5}, topic="t")  # one value for a whole block
    assert [[6, 0], [7, 0], [8, 5], [9, 5]] == window


@pytest.mark.parametrize(
    ("model", "config", "message"),
    [
        (ONE, {"features": {"tmp": FeatureConfig()}}, "unknown features 'tmp', the model has"),
        (
            TABLE,
            {"topic": None, "features": {"temp": FeatureConfig(topic="a")}},
            "features 'speed', 'kind' have no topic",
        ),
        (SERIES, {"window": WindowConfig(length=5)}, "window.length must be 4, got 5"),
        (TABLE, {"window": WindowConfig()}, "needs a model of one input, got 2"),
        (
            contract(TensorSpec(name="x", datatype=F32, shape=(-1, 4, 3))),
            {"window": WindowConfig(), "features": {"a": FeatureConfig()}},
            "takes 3 channels, got 1",
        ),
        (
            contract(TensorSpec(name="x", datatype=F32, shape=(-1, 8))),
            {},
            "has no names for its features|and no names for its features",
        ),
        (
            contract(TensorSpec(name="x", datatype=F32, shape=(-1, -1, 2))),
            {"window": WindowConfig(), "features": {"a": FeatureConfig(), "b": FeatureConfig()}},
            "window.length must be given",
        ),
        (ONE, {"features": {"temp": FeatureConfig(map={"a": "b"})}}, "must hold numbers"),
        (ONE, {"topic": None, "files": FilesConfig(path="p")}, "files are images or signals"),
        (TABLE, {"topic": None, "files": FilesConfig(path="p")}, r"takes .*: \[-1, 2\], \[-1, 1\]"),
        (TABLE, {"features": {"kind": FeatureConfig(scale=2)}}, "text has no scale"),
    ],
)
def test_an_input_that_does_not_fit_says_why(model, config, message):
    """Before the first message."""
    with pytest.raises(MismatchError, match=message):
        mapper(model, **config)


def test_a_model_without_feature_names_takes_features_in_their_order():
    """Channels of a window, or a list by the input's name."""
    model = contract(TensorSpec(name="x", datatype=F32, shape=(-1, 2, 2)))
    features = {"ay": FeatureConfig(path="y"), "ax": FeatureConfig(path="x")}
    made = mapper(model, window=WindowConfig(), features=features)
    assert [[[[2, 1], [4, 3]]]] == rows(made, {"x": 1, "y": 2}, {"x": 3, "y": 4})
    flat = contract(TensorSpec(name="x", datatype=F32, shape=(-1, 3)))
    made = mapper(flat, features={"x": FeatureConfig(path="values", scale=2)})
    assert [[[2, 4, 6]]] == rows(made, {"values": [1, 2, 3]})


_SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([10**400, -(10**400), 2**63, 1e308, -1e308]),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=5),
    st.sampled_from(["nan", "inf", "1e999", "0x10", "1_0", "\u0661"]),
)
_VALUES = st.recursive(
    _SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner),
)
_KEYS = st.sampled_from(["temp", "speed", "kind", "ax", "ay", "t", "id", "n"])
_MESSAGES = st.lists(st.dictionaries(_KEYS, _VALUES, max_size=8) | _VALUES, min_size=1, max_size=6)
_INT = contract(
    TensorSpec(name="x", datatype=Datatype.INT16, shape=(-1, 1), feature_names=("temp",)),
    TensorSpec(name="b", datatype=Datatype.BOOL, shape=(-1, 1), feature_names=("speed",)),
)
_INT_SERIES = contract(
    TensorSpec(name="x", datatype=Datatype.INT8, shape=(-1, 4, 2), feature_names=("ax", "ay"))
)


@pytest.mark.parametrize(
    ("model", "config"),
    [
        (TABLE, {"stream": "id", "request_id": "n"}),
        (ONE, {"features": {"temp": FeatureConfig(scale=1e300, offset=1e300)}}),
        (_INT, {"features": {"temp": FeatureConfig(missing=Missing.LAST, scale=0.5)}}),
        (SERIES, {"window": WindowConfig(stride=1, rate_hz=10, time="t", fill_s=1)}),
        (SERIES, {"window": WindowConfig(rate_hz=10), "stream": "id"}),
        (_INT_SERIES, {"window": WindowConfig(time="t", time_unit=TimeUnit.ISO)}),
    ],
)
@settings(max_examples=25)
@given(messages=_MESSAGES)
@example(messages=[{"ax": [10**400] * 4, "ay": [1] * 4, "t": 1, "id": "a"}])
@example(messages=[{"ax": [1e308] * 4, "ay": [1000] * 4, "t": "2020-01-01", "id": 1}])
@example(messages=[{"temp": 10**400, "speed": 10**400, "kind": "a", "id": "b"}])
def test_any_message_is_mapped_or_refused(model, config, messages):
    """Nothing else is raised, whatever a sensor sends."""
    made = mapper(model, **config)
    for number, document in enumerate(messages):
        try:
            samples = take(made, document, now_s=float(number))
        except MessageError as exc:
            assert "\n" not in str(exc)
            continue
        for one in samples:
            assert set(one.inputs) == {spec.name for spec in model.inputs}
            assert all(array.shape[0] == 1 for array in one.inputs.values())
