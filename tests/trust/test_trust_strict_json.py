"""JSON from outside: bounded, unambiguous, and nothing but a value or a DocumentError."""

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgepack.trust.errors import DocumentError, DocumentLimitError
from edgepack.trust.strict_json import parse, render

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda children: st.lists(children) | st.dictionaries(st.text(), children),
    max_leaves=20,
)


def parsed(data: bytes, **limits):
    return parse(data, what="document", **{"max_bytes": 10_000, **limits})


@given(json_values)
def test_what_was_rendered_is_parsed_again(value):
    """Whatever can be written comes back equal."""
    assert value == parse(render(value), what="document", max_bytes=10**6)


@given(json_values)
def test_rendering_is_canonical(value):
    """Parsing and rendering again gives the same bytes."""
    data = render(value)

    assert data == render(parse(data, what="document", max_bytes=10**6))


@given(st.binary() | st.text(alphabet='{}[]",:\\u0d8e1.-+ntf', max_size=200).map(str.encode))
def test_any_bytes_give_a_value_or_a_document_error(data):
    """No other exception leaves the parser."""
    try:
        value = parsed(data)
    except DocumentError:
        return
    render(value)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b'{"a": 1, "a": 2}', "key 'a' stands twice"),
        (b'{"x": {"b": 1, "b": 1}}', "key 'b' stands twice"),
        (b"[NaN]", "NaN is not a JSON number"),
        (b"[Infinity]", "Infinity is not a JSON number"),
        (b"[1e999]", "1e999 is too large"),
        (b"[-1e999]", "-1e999 is too large"),
        (b'"\xff"', "not valid JSON"),
        (b"\xef\xbb\xbf{}", "not valid JSON"),
        (b'["\\ud800"]', "not valid JSON"),
        (b'{"\\udfff": 1}', "not valid JSON"),
        (b"", "not valid JSON"),
        (b"{} {}", "not valid JSON"),
        (b"[1,]", "not valid JSON"),
        (b"[" + b"9" * 5000 + b"]", "not valid JSON"),
    ],
)
def test_ambiguous_or_broken_json_is_refused(data, message):
    """What two readers could see differently is refused, with the reason."""
    with pytest.raises(DocumentError, match=message) as caught:
        parsed(data)

    assert "\n" not in str(caught.value)


def test_an_escaped_pair_of_surrogates_is_a_character():
    """Only lone surrogates are refused."""
    assert ["😀"] == parsed(b'["\\ud83d\\ude00"]')


def test_a_document_larger_than_the_limit_is_refused_unread():
    """The size decides before the content does."""
    with pytest.raises(DocumentLimitError, match="at most 4 bytes, got 5"):
        parsed(b"oops!", max_bytes=4)


@pytest.mark.parametrize("opening", [b"[", b'{"a":'])
def test_nesting_is_bounded(opening):
    """A document nested as deep as the limit is read, one deeper is refused."""
    closing = b"]" if opening == b"[" else b"}"
    deep = b"1"
    for _ in range(5):
        deep = opening + deep + closing

    assert parsed(deep, max_depth=5) is not None
    with pytest.raises(DocumentLimitError, match="nested at most 4 deep"):
        parsed(deep, max_depth=4)


def test_a_hundred_thousand_brackets_are_no_recursion_error():
    """Nesting is counted before the recursive parser sees it."""
    with pytest.raises(DocumentLimitError):
        parsed(b"[" * 100_000, max_bytes=10**6)


def test_brackets_in_strings_are_text():
    """Only structure counts as nesting."""
    text = "[" * 50 + '"' + "{" * 50

    assert [text] == parsed(json.dumps([text]).encode(), max_depth=1)


@pytest.mark.parametrize(
    "data",
    [
        b'"' + rb"\"" * 500_000,
        b'"' * 999_999,
        b"{" + b",".join(b'"%d":1' % n for n in range(90_000)) + b',"89999":1}',
    ],
    ids=["escaped quotes", "quotes", "late duplicate"],
)
def test_a_hostile_megabyte_is_refused_in_linear_time(data):
    """No input makes the parser look at it again and again."""
    start_s = time.perf_counter()

    with pytest.raises(DocumentError):
        parsed(data, max_bytes=2**20)

    assert time.perf_counter() - start_s < 5  # quadratic would take minutes


def test_nan_is_never_written():
    """Rendering refuses what parsing would refuse."""
    with pytest.raises(ValueError, match="JSON"):
        render([float("nan")])
