"""Topics: what they look like, and that ids cannot break out of them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgepack.wire import DEFAULT_PREFIX, DeviceTopics, WireError, blob_topic, chunk_count
from edgepack.wire.topics import (
    CHUNK_BYTES,
    OutTopic,
    check_id,
    check_prefix,
    model_of,
    parse_out_topic,
)

IDS = st.from_regex(r"[A-Za-z0-9_-]{1,64}", fullmatch=True).filter(lambda text: text != "blob")
PREFIXES = st.from_regex(r"[A-Za-z0-9_.-]{1,64}(/[A-Za-z0-9_.-]{1,64}){0,3}", fullmatch=True)
ANY = st.text(max_size=80) | st.from_regex(r"[A-Za-z0-9_/+#-]{0,80}", fullmatch=True)


def test_the_topics_of_a_device_are_what_the_documentation_says():
    """Every topic stands under the device's in/ or out/."""
    topics = DeviceTopics(DEFAULT_PREFIX, "pi-1")
    base = "edgepack/v1/pi-1"
    assert [
        f"{base}/in/desired",
        f"{base}/in/infer/digits",
        f"{base}/in/truth/digits",
        f"{base}/out/status",
        f"{base}/out/info",
        f"{base}/out/reported",
        f"{base}/out/metrics/digits",
        f"{base}/out/agent",
        f"{base}/out/latest/digits",
        f"{base}/out/prediction/digits",
        f"{base}/out/event/drift",
    ] == [
        topics.desired,
        topics.infer("digits"),
        topics.truth("digits"),
        topics.status,
        topics.info,
        topics.reported,
        topics.metrics("digits"),
        topics.agent,
        topics.latest("digits"),
        topics.prediction("digits"),
        topics.event("drift"),
    ]


@given(prefix=PREFIXES, device=IDS, model=IDS, kind=st.sampled_from(["metrics", "latest", "event"]))
def test_a_topic_of_a_device_is_taken_apart_into_what_it_was_made_of(prefix, device, model, kind):
    """Building and taking apart are each other's inverse."""
    topics = DeviceTopics(prefix, device)
    built = {"metrics": topics.metrics, "latest": topics.latest, "event": topics.event}[kind](model)
    assert OutTopic(device, kind, model) == parse_out_topic(prefix, built)
    assert OutTopic(device, "status", "") == parse_out_topic(prefix, topics.status)
    assert built.count("/") <= 7


@given(prefix=PREFIXES, topic=ANY)
def test_any_other_topic_is_the_documented_error(prefix, topic):
    """Whatever the topic, the answer is its parts or WireError."""
    try:
        parts = parse_out_topic(prefix, topic)
    except WireError:
        return
    assert topic.startswith(f"{prefix}/{parts.device}/out/{parts.kind}")


@given(ANY)
def test_an_id_never_holds_what_means_something_in_a_topic_or_path(text):
    """An accepted id has no separator, wildcard, dot or control character."""
    try:
        accepted = check_id(text, what="device id")
    except WireError:
        return
    assert not set(accepted) & set("/+#.\\ \x00\n")
    assert 1 <= len(accepted) <= 64


@pytest.mark.parametrize("text", ["", "a/b", "+", "#", "a b", "..", "é", "a\n", "x" * 65, "blob"])
def test_bad_device_ids_are_refused(text):
    """An id that could leave its topic, or is reserved, is an error that shows it."""
    with pytest.raises(WireError, match="device id"):
        DeviceTopics(DEFAULT_PREFIX, text)


@pytest.mark.parametrize("text", ["", "/a", "a/", "a//b", "a/+/b", "#", "a/b/c/d/e", "a\n"])
def test_bad_prefixes_are_refused(text):
    """A prefix has one to four plain levels."""
    with pytest.raises(WireError, match="prefix must be 1 to 4 levels"):
        check_prefix(text)


def test_the_model_is_the_last_level():
    """The model of a request is checked like every id."""
    assert "digits" == model_of("edgepack/v1/pi/in/infer/digits")
    with pytest.raises(WireError, match="model name"):
        model_of("edgepack/v1/pi/in/infer/..")


@pytest.mark.parametrize(
    ("size_bytes", "chunks"), [(0, 1), (1, 1), (CHUNK_BYTES, 1), (CHUNK_BYTES + 1, 2)]
)
def test_a_blob_has_as_many_chunks_as_it_needs(size_bytes, chunks):
    """Even an empty blob has a chunk, or nobody could tell it from a missing one."""
    assert chunks == chunk_count(size_bytes)


def test_a_chunk_is_named_by_digest_and_number():
    """Blob topics lie under a name that no device may have."""
    assert f"p/blob/{'ab' * 32}/3" == blob_topic("p", f"sha256:{'ab' * 32}", 3)
