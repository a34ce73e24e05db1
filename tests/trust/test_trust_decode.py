"""From parsed JSON to dataclasses: strict, collected, nothing coerced."""

from dataclasses import dataclass, field
from enum import StrEnum

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgepack.trust.decode import decode, encode
from edgepack.trust.errors import DocumentError


class Colour(StrEnum):
    RED = "red"
    BLUE = "blue"


@dataclass(frozen=True, slots=True, kw_only=True)
class Inner:
    size: int
    colour: Colour = Colour.RED


@dataclass(frozen=True, slots=True, kw_only=True)
class Outer:
    name: str
    ratio: float = 0.5
    on: bool = False
    inner: Inner | None = None
    items: tuple[Inner, ...] = ()
    counts: dict[str, int] = field(default_factory=dict)
    free: tuple[dict[str, object], ...] = ()


def decoded(value: object, *, ignore_unknown: bool = True) -> Outer:
    return decode(Outer, value, what="thing", ignore_unknown=ignore_unknown)


def test_every_kind_of_field_is_read():
    """Lists become tuples, objects become dataclasses, absent fields their defaults."""
    value = {
        "name": "a",
        "ratio": 2,
        "inner": {"size": 1, "colour": "blue"},
        "items": [{"size": 2}],
        "counts": {"x": 3},
        "free": [{"anything": [1, None]}],
    }

    assert Outer(
        name="a",
        ratio=2.0,
        inner=Inner(size=1, colour=Colour.BLUE),
        items=(Inner(size=2),),
        counts={"x": 3},
        free=({"anything": [1, None]},),
    ) == decoded(value)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"name": 1}, "expected str, got int 1 at name"),
        ({"name": None}, "expected str, got NoneType None at name"),
        ({}, "missing field at name"),
        ({"name": "a", "on": 1}, "expected bool, got int 1 at on"),
        ({"name": "a", "on": "true"}, "expected bool"),
        ({"name": "a", "ratio": "0.5"}, "expected a number, got str '0.5' at ratio"),
        ({"name": "a", "ratio": True}, "expected a number"),
        ({"name": "a", "ratio": 10**400}, "expected a number"),
        ({"name": "a", "inner": {"size": 1.0}}, "expected int, got float 1.0 at inner.size"),
        ({"name": "a", "inner": {"size": True}}, "expected int, got bool True"),
        ({"name": "a", "inner": {"size": 2**64}}, "expected at most 64 bits"),
        ({"name": "a", "inner": []}, "expected an object"),
        ({"name": "a", "inner": {"size": 1, "colour": "green"}}, "expected one of red, blue"),
        ({"name": "a", "inner": {"size": 1, "colour": []}}, "expected one of red, blue"),
        ({"name": "a", "items": "abc"}, "expected a list, got str 'abc' at items"),
        ({"name": "a", "items": {"size": 1}}, "expected a list"),
        ({"name": "a", "items": [{"size": "x"}]}, r"at items\[0\].size"),
        ({"name": "a", "counts": []}, "expected an object, got list"),
        ({"name": "a", "counts": {"x": "y"}}, r"at counts\['x'\]"),
        ([], r"thing: expected an object, got list \[\]"),
        (None, "thing: expected an object"),
    ],
)
def test_a_wrong_field_is_named_with_what_it_held(value, message):
    """Nothing is coerced; the error says where, what was expected and what was there."""
    with pytest.raises(DocumentError, match=message) as caught:
        decoded(value)

    assert "\n" not in str(caught.value)


def test_all_errors_are_told_at_once():
    """One error names every wrong field, up to five."""
    with pytest.raises(DocumentError) as caught:
        decoded({"name": 1, "ratio": "x", "on": 3, "items": [{"size": str(n)} for n in range(9)]})

    text = str(caught.value)
    assert ("at name" in text, "at ratio" in text, "at on" in text) == (True, True, True)
    assert text.endswith("and 7 more")


def test_an_unknown_key_is_ignored_or_refused():
    """Formats that grow ignore it; in a configuration it is a typing mistake."""
    value = {"name": "a", "nmae": 1, "inner": {"size": 1, "sice": 2}}

    assert "a" == decoded(value).name
    with pytest.raises(DocumentError, match="unknown key nmae"):
        decoded(value, ignore_unknown=False)
    with pytest.raises(DocumentError, match="unknown key sice at inner"):
        decoded(value, ignore_unknown=False)


names = st.sampled_from(
    ["\n", "name", "ratio", "on", "inner", "items", "counts", "free", "size", "x"]
)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=6),
    max_leaves=12,
)


@given(values, st.booleans())
def test_any_value_gives_a_dataclass_or_a_document_error(value, ignore_unknown):
    """No other exception leaves the decoder."""
    try:
        result = decoded(value, ignore_unknown=ignore_unknown)
    except DocumentError as exc:
        assert str(exc).isprintable()
    else:
        assert isinstance(result, Outer)


inners = st.builds(Inner, size=st.integers(-(2**63), 2**63), colour=st.sampled_from(Colour))
outers = st.builds(
    Outer,
    name=st.text(),
    ratio=st.floats(allow_nan=False, allow_infinity=False),
    on=st.booleans(),
    inner=st.none() | inners,
    items=st.lists(inners).map(tuple),
    counts=st.dictionaries(st.text(), st.integers(0, 2**60)),
)


@given(outers)
def test_what_was_encoded_is_decoded_again(outer):
    """A dataclass comes back equal."""
    assert outer == decoded(encode(outer), ignore_unknown=False)


def test_encode_refuses_what_is_no_document():
    """An object of another kind is a defect of ours and told as one."""
    with pytest.raises(TypeError, match="plain values, got set"):
        encode({1, 2})
