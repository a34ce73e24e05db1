"""JSON paths and MQTT topic filters."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgepack.wire.errors import WireError
from edgepack.wire.filters import check_filter, check_topic, fewest, match, overlap, wildcards
from edgepack.wire.json_path import MISSING, look_up, parse_path


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a", ("a",)),
        ("$", ()),
        ("$.a", ("a",)),
        ("$[0].a", (0, "a")),
        ("a.b[0].c", ("a", "b", 0, "c")),
        ("a[-1][2]", ("a", -1, 2)),
        ('["a b"].c', ("a b", "c")),
        (r'a["x\"]\\"]', ("a", 'x"]\\')),
        ("a-b:c/d", ("a-b:c/d",)),
    ],
)
def test_a_path_names_one_place(text, expected):
    """Keys, indexes, quoted keys, and a dollar before them."""
    assert expected == parse_path(text)


@pytest.mark.parametrize(
    "text", ["", ".", "a.", ".a", "a..b", "$a", "a[", "a[x]", "a b", 'a["b]', "a.[0]", "x" * 300]
)
def test_what_is_no_path_is_refused(text):
    """In one line."""
    with pytest.raises(WireError, match="a JSON path is like"):
        parse_path(text)


@given(st.text(max_size=40))
def test_any_text_is_a_path_or_refused(text):
    """Nothing else is raised."""
    try:
        path = parse_path(text)
    except WireError:
        return
    assert all(isinstance(part, str | int) for part in path)


DOCUMENT = {"a": [{"b": 1}, {"b": None}], "c": "text"}


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("a[0].b", 1),
        ("a[-1].b", None),
        ("c", "text"),
        ("$", DOCUMENT),
        ("a[2]", MISSING),
        ("a[-3]", MISSING),
        ("a.b", MISSING),
        ("c[0]", MISSING),
        ("a[0].b.c", MISSING),
    ],
)
def test_a_value_is_looked_up(path, expected):
    """What is not there is MISSING, which null is not."""
    assert expected == look_up(DOCUMENT, parse_path(path))


@pytest.mark.parametrize(
    ("text", "topic", "expected"),
    [
        ("a/b", "a/b", ()),
        ("a/b", "a/c", None),
        ("a/b", "a/b/c", None),
        ("a/b/c", "a/b", None),
        ("a/+", "a/b", ("b",)),
        ("a/+", "a/", ("",)),
        ("a/+", "a", None),
        ("a/#", "a", ("",)),
        ("a/#", "a/b/c", ("b/c",)),
        ("#", "a/b", ("a/b",)),
        ("#", "$SYS/x", None),
        ("+/x", "$SYS/x", None),
        ("$SYS/#", "$SYS/x", ("x",)),
        ("+/b/+", "a/b/c", ("a", "c")),
    ],
)
def test_a_filter_matches_as_mqtt_says(text, topic, expected):
    """And tells what its wildcards stand for."""
    assert expected == match(text, topic)


@pytest.mark.parametrize("text", ["", "a+", "a/#/b", "#a", "a/b#", "a\0", "x" * 1025])
def test_what_is_no_filter_is_refused(text):
    """By MQTT's rules, and a bound."""
    with pytest.raises(WireError):
        check_filter(text)


@pytest.mark.parametrize("text", ["a/+", "#", "$SYS/x", ""])
def test_a_topic_to_publish_to_has_no_wildcards(text):
    """Nor is it the broker's own."""
    with pytest.raises(WireError):
        check_topic(text)


_LEVEL = st.sampled_from(["a", "b", "+"])
_FILTERS = st.lists(_LEVEL, min_size=1, max_size=3).flatmap(
    lambda levels: st.sampled_from(["/".join(levels), "/".join([*levels, "#"])])
)


@given(
    st.lists(_FILTERS, min_size=1, max_size=5),
    st.lists(st.sampled_from("abc"), min_size=1, max_size=4),
)
def test_the_fewest_filters_match_the_same_topics(filters, levels):
    """A filter that another one covers is left out, and nothing is lost by that."""
    topic = "/".join(levels)
    kept = fewest(filters)
    assert set(kept) <= set(filters)
    assert any(match(one, topic) is not None for one in filters) == any(
        match(one, topic) is not None for one in kept
    )


def test_what_another_filter_covers_is_left_out():
    """Else a broker may send a message twice."""
    assert ["a/#", "b/+"] == fewest(["a/b", "a/+", "a/#", "b/+", "b/c", "b/+", "a"])
    assert ["a/+/c", "a/b/+"] == fewest(["a/+/c", "a/b/+"])
    assert ("+", "#") == wildcards("a/+/b/#")


_TOPICS = ["/".join(t) for n in (1, 2, 3, 4, 5) for t in itertools.product("ab", repeat=n)]


@given(_FILTERS, _FILTERS)
def test_filters_overlap_where_a_topic_matches_both(one, other):
    """As trying every topic says."""
    both = any(match(one, t) is not None and match(other, t) is not None for t in _TOPICS)
    assert both == overlap(one, other) == overlap(other, one)


def test_a_wildcard_does_not_overlap_with_the_brokers_own_topics():
    """MQTT 5, 4.7.2."""
    assert (False, True) == (overlap("#", "$SYS/x"), overlap("$SYS/#", "$SYS/x"))
