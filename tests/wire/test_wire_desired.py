"""The desired state: round trips, rules, and whatever bytes come."""

import contextlib
import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgepack.wire import (
    Audience,
    BlobRef,
    Desired,
    DesiredModel,
    Mode,
    WireError,
    parse_desired,
    render_desired,
)
from edgepack.wire.desired import MAX_MODELS

IDS = st.from_regex(r"[A-Za-z0-9_-]{1,12}", fullmatch=True).filter(lambda text: text != "blob")
DIGESTS = st.binary(min_size=32, max_size=32).map(lambda raw: f"sha256:{raw.hex()}")
SIZES = st.integers(0, 2**40)
MODELS = st.builds(
    DesiredModel,
    name=IDS,
    version=st.sampled_from(["1.0.0", "2.1.3-rc.1"]),
    digest=DIGESTS,
    manifest_size_bytes=SIZES,
    archive_size_bytes=SIZES,
    signatures=st.lists(st.builds(BlobRef, digest=DIGESTS, size_bytes=SIZES), max_size=2).map(
        tuple
    ),
    sources=st.lists(
        st.sampled_from(["mqtt:", "http://h/x", "https://h/x", "file:/x"]), max_size=2
    ).map(tuple),
    floor=SIZES,
    mode=st.sampled_from(Mode),
)
AUDIENCES = st.builds(Audience, prefix=st.just("edgepack/v1"), device=IDS) | st.builds(
    Audience, prefix=st.just("p"), group=st.sampled_from(["site=north", "line=1"])
)
DESIRED = st.builds(
    Desired,
    audience=AUDIENCES,
    generation=st.integers(1, 2**53 - 1),
    issued_s=st.integers(0, 2**33),
    expires_s=st.integers(2**33 + 1, 2**34),
    models=st.lists(MODELS, max_size=4, unique_by=lambda model: model.name).map(tuple),
)
PLAIN = Desired(
    audience=Audience(prefix="p", device="d"),
    generation=1,
    issued_s=10,
    expires_s=20,
    models=(DesiredModel(name="m", version="1.0.0", digest="sha256:" + "0" * 64),),
)


@given(DESIRED)
def test_what_is_rendered_parses_to_the_same(desired):
    """A desired state comes back as it was, and rendering it again gives the same bytes."""
    payload = render_desired(desired)
    assert desired == parse_desired(payload)
    assert payload == render_desired(parse_desired(payload))


@given(
    st.binary(max_size=200)
    | st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(["audience", "models", "generation", "x"]), inner)
        ),
        max_leaves=8,
    ).map(lambda value: json.dumps(value).encode())
)
def test_whatever_the_bytes_there_is_a_state_or_the_one_error(payload):
    """No payload makes the parser raise anything else."""
    with contextlib.suppress(WireError):
        assert parse_desired(payload).generation >= 1


@given(DESIRED, st.data())
def test_a_changed_byte_gives_a_state_or_the_one_error(desired, data):
    """Neither does a payload that is nearly right."""
    payload = bytearray(render_desired(desired))
    at = data.draw(st.integers(0, len(payload) - 1))
    payload[at] = data.draw(st.integers(0, 255))
    with contextlib.suppress(WireError):
        parse_desired(bytes(payload))


def test_keys_of_a_later_version_are_ignored():
    """A device reads what it knows of a state that a newer deploy has written."""
    document = json.loads(render_desired(PLAIN))
    document["later"] = {"a": 1}
    document["models"][0]["later"] = 1
    assert PLAIN == parse_desired(json.dumps(document).encode())


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"audience": Audience(prefix="p")}, "either a device or a group"),
        ({"audience": Audience(prefix="p", device="d", group="a=b")}, "either a device or a group"),
        ({"audience": Audience(prefix="p", group="north")}, "group must be KEY=VALUE"),
        ({"audience": Audience(prefix="p/#", device="d")}, "prefix must be"),
        ({"audience": Audience(prefix="p", device="../d")}, "device id must match"),
        ({"generation": 0}, "generation must be >= 1 and < 2"),
        ({"generation": 2**53}, "generation must be >= 1 and < 2"),
        ({"expires_s": 10}, "expires_s must be after issued_s, got 10"),
        ({"models": PLAIN.models * 2}, "model names must be unique"),
        ({"models": (replace(PLAIN.models[0], name="a/b"),)}, "model name must match"),
        ({"models": (replace(PLAIN.models[0], digest="sha256:XY"),)}, "digest must be sha256:HEX"),
        ({"models": (replace(PLAIN.models[0], sources=("ftp://x",)),)}, "source must be mqtt:"),
        ({"models": (replace(PLAIN.models[0], floor=-1),)}, "floor must be >= 0"),
    ],
)
def test_a_state_that_breaks_a_rule_is_neither_written_nor_read(change, expected):
    """The same rules hold on both sides, and the error names the rule."""
    from edgepack.trust.decode import encode

    broken = replace(PLAIN, **change)
    with pytest.raises(WireError, match=expected):
        render_desired(broken)
    with pytest.raises(WireError, match=expected):
        parse_desired(json.dumps(encode(broken)).encode())


def test_all_that_is_wrong_is_told_at_once():
    """Several broken rules are one error."""
    broken = replace(PLAIN, generation=0, expires_s=0)
    with pytest.raises(WireError, match=r"generation must .*; expires_s must"):
        render_desired(broken)


def test_a_state_never_grows_beyond_what_a_signed_message_may_have():
    """What cannot be sent signed in 8 KB is refused before it is signed."""
    models = tuple(
        replace(PLAIN.models[0], name=f"m{n}", sources=("https://h/" + "x" * 200,) * 3)
        for n in range(MAX_MODELS)
    )
    with pytest.raises(WireError, match="of 16 models must stay under 8192 bytes signed"):
        render_desired(replace(PLAIN, models=models))


def test_an_audience_means_one_device_or_those_with_a_tag():
    """Prefix and device, or prefix and tag, must fit."""
    one = Audience(prefix="p", device="d")
    group = Audience(prefix="p", group="site=north=1")
    assert [True, False, False] == [
        one.includes("p", "d", {}),
        one.includes("q", "d", {}),
        one.includes("p", "e", {}),
    ]
    assert [True, False, False, False] == [
        group.includes("p", "d", {"site": "north=1"}),
        group.includes("q", "d", {"site": "north=1"}),
        group.includes("p", "d", {"site": "north"}),
        group.includes("p", "d", {}),
    ]


def test_entries_of_several_modes_stand_side_by_side():
    """A model may be installed, offered in another version, and have a challenger."""
    (entry,) = PLAIN.models
    modes = tuple(replace(entry, mode=mode) for mode in Mode)
    desired = replace(PLAIN, models=modes)
    assert desired == parse_desired(render_desired(desired))


def test_a_mode_that_is_not_known_is_refused_by_its_name():
    """As an agent that is too old for challengers does: nothing is taken for something else."""
    document = json.loads(render_desired(PLAIN))
    document["models"][0]["mode"] = "canary"
    with pytest.raises(WireError, match=r"canary.* at models\[0\].mode"):
        parse_desired(json.dumps(document).encode())


def test_what_was_asked_for_in_the_future_is_refused():
    """An entry cannot be younger than the state that lists it."""
    (entry,) = PLAIN.models
    late = replace(PLAIN, models=(replace(entry, asked=PLAIN.generation + 1),))
    with pytest.raises(WireError, match="asked must be in 0"):
        render_desired(late)
