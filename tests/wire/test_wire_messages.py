"""What devices say: round trips, and whatever a device or a forger sends."""

import contextlib
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgepack.wire import (
    Info,
    Release,
    Reported,
    ReportedModel,
    WireError,
    parse_info,
    parse_reported,
    render_flat,
    render_info,
    render_reported,
)
from edgepack.wire.messages import parse_flat
from edgepack.wire.topics import MAX_REPORT_BYTES

TEXT = st.text(max_size=20).filter(lambda text: text.isprintable())
TAGS = st.dictionaries(TEXT, TEXT, max_size=3)
INFOS = st.builds(
    Info,
    device=TEXT,
    agent_version=TEXT,
    instance=TEXT,
    tags=TAGS,
    machine=TEXT,
    cpu_count=st.integers(0, 64),
    memory_bytes=st.integers(0, 2**40),
    engines=TAGS,
)
RELEASES = st.none() | st.builds(Release, digest=TEXT, version=TEXT, sequence=st.integers(0, 2**53))
REPORTED = st.builds(
    Reported,
    device=TEXT,
    generation=st.integers(0, 2**53),
    models=st.lists(
        st.builds(
            ReportedModel,
            name=TEXT,
            phase=TEXT,
            target=TEXT,
            active=RELEASES,
            previous=RELEASES,
            confirmed=RELEASES,
            variant=TEXT,
            reason=TEXT,
            detail=TEXT,
            held=st.booleans(),
            self_test=st.dictionaries(TEXT, st.floats(allow_nan=False, allow_infinity=False)),
        ),
        max_size=3,
    ).map(tuple),
    refused=TEXT,
    ts=st.integers(0, 2**45),
)
DOCUMENTS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["device", "models", "generation", "tags", "ts"]), inner)
    ),
    max_leaves=8,
).map(lambda value: json.dumps(value).encode())


@given(INFOS)
def test_info_comes_back_as_it_was(info):
    """Rendering and parsing an info are each other's inverse."""
    assert info == parse_info(render_info(info))


@given(REPORTED)
def test_a_reported_state_comes_back_as_it_was(reported):
    """Rendering and parsing a reported state are each other's inverse."""
    assert reported == parse_reported(render_reported(reported))


@pytest.mark.parametrize("parse", [parse_info, parse_reported])
@given(payload=st.binary(max_size=200) | DOCUMENTS)
def test_whatever_the_bytes_there_is_a_value_or_the_one_error(parse, payload):
    """No payload makes a parser raise anything else."""
    with contextlib.suppress(WireError):
        assert isinstance(parse(payload).device, str)


def test_figures_that_are_not_finite_are_left_out():
    """A self-test whose difference is infinite can still be reported."""
    model = ReportedModel(
        name="m", phase="rejected", self_test={"agreement": 0.5, "diff": math.inf, "x": math.nan}
    )
    rendered = render_reported(Reported(device="d", generation=1, models=(model,)))
    assert {"agreement": 0.5} == parse_reported(rendered).models[0].self_test


def test_a_document_that_is_too_large_is_refused():
    """Nobody makes an operator's machine parse megabytes."""
    with pytest.raises(WireError, match=f"at most {MAX_REPORT_BYTES} bytes"):
        parse_info(b" " * (MAX_REPORT_BYTES + 1))


@given(
    st.dictionaries(
        TEXT, st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats() | TEXT
    )
)
def test_flat_documents_hold_numbers_that_every_reader_knows(fields):
    """What is missing or not finite is left out, everything else stays."""
    kept = {
        name: value
        for name, value in fields.items()
        if value is not None and not (isinstance(value, float) and not math.isfinite(value))
    }
    assert kept == parse_flat(render_flat(fields), what="metrics")


@given(st.binary(max_size=100) | DOCUMENTS)
def test_a_flat_document_is_an_object_or_an_error(payload):
    """Lists, numbers and broken JSON are refused."""
    with contextlib.suppress(WireError):
        assert isinstance(parse_flat(payload, what="metrics"), dict)
