"""An archive as a stream and by ranges: the same blobs, whatever pieces they come in."""

import hashlib
import io
import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.tiny_bundle import write_tiny_bundle

from edgepack.agent.install.sources.archive import RangeFile
from edgepack.bundle import BundleError, open_bundle
from edgepack.bundle.archive import list_archive
from edgepack.bundle.member_reader import BlobBegins, BlobData, IndexCame, MemberReader


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    return write_tiny_bundle(tmp_path_factory.mktemp("bundle"), model=bytes(range(256)) * 150)


@pytest.fixture(scope="module")
def data(archive):
    return archive.read_bytes()


def streamed(data, cuts):
    """The blobs by digest, of an archive fed in pieces that are cut at these places."""
    reader, blobs, index, current = MemberReader(), {}, None, None
    places = [0, *sorted({cut % (len(data) + 1) for cut in cuts}), len(data)]
    for start, end in itertools.pairwise(places):
        for event in reader.feed(data[start:end]):
            if isinstance(event, BlobBegins):
                current = blobs[event.digest] = bytearray()
                assert event.size_bytes >= 0
            elif isinstance(event, BlobData):
                current += event.data
            else:
                assert isinstance(event, IndexCame)
                index = event.data
    reader.close()
    return {digest: bytes(blob) for digest, blob in blobs.items()}, index


@given(cuts=st.lists(st.integers(0, 10**6), max_size=30))
@settings(max_examples=60, deadline=None)
def test_a_stream_gives_every_blob(data, archive, cuts):
    """Wherever the pieces are cut."""
    blobs, index = streamed(data, cuts)
    bundle = open_bundle(archive)
    assert {blob.digest: bundle.read_blob(blob.digest) for blob in bundle.blobs()} == blobs
    assert bundle.digest.encode() in index


@given(
    changes=st.lists(st.tuples(st.integers(0, 10**6), st.integers(1, 255)), min_size=1, max_size=3),
    length=st.integers(0, 10**6),
)
@settings(max_examples=150, deadline=None)
def test_a_damaged_stream_is_an_error_or_gives_blobs_that_do_not_fit(data, changes, length):
    """Never anything else: no other exception, no blob under a digest that is not its own."""
    spoilt = bytearray(data)
    for place, difference in changes:
        spoilt[place % len(data)] ^= difference
    spoilt = bytes(spoilt[: length % (len(data) + 1)] if length % 3 == 0 else spoilt)
    good = set(streamed(data, [])[0])
    try:
        blobs, _ = streamed(spoilt, [])
    except BundleError:
        return
    fits = [f"sha256:{hashlib.sha256(blob).hexdigest()}" == name for name, blob in blobs.items()]
    assert not all(fits) or set(blobs) == good


class Memory:
    """A range reader of bytes that counts what is read."""

    name = "memory"

    def __init__(self, data):
        self.data = data
        self.size_bytes = len(data)
        self.given = 0

    def read(self, offset, size_bytes):
        piece = self.data[offset : offset + size_bytes]
        assert len(piece) == size_bytes
        self.given += size_bytes
        yield piece


@given(reads=st.lists(st.tuples(st.integers(0, 50_000), st.integers(0, 20_000)), max_size=20))
@settings(max_examples=60, deadline=None)
def test_a_range_file_is_a_file(data, reads):
    """Every read gives what a file would, past its end too."""
    ranges, plain = RangeFile(Memory(data)), io.BytesIO(data)
    for offset, size_bytes in reads:
        assert offset == ranges.seek(offset)
        plain.seek(offset)
        assert plain.read(size_bytes) == ranges.read(size_bytes)


@given(
    change=st.one_of(st.none(), st.tuples(st.integers(0, 10**6), st.integers(1, 255))),
    end=st.one_of(st.none(), st.integers(0, 10**6)),
)
@settings(max_examples=150, deadline=None)
def test_a_listing_by_ranges_is_that_of_the_file(data, change, end):
    """The same regions or the same error; never another exception."""
    spoilt = bytearray(data)
    if change is not None:
        spoilt[change[0] % len(data)] ^= change[1]
    if end is not None:
        spoilt = spoilt[: end % (len(data) + 1)]

    def listed(file):
        try:
            return list_archive(file, len(spoilt), "x")
        except BundleError as exc:
            return type(exc), str(exc)

    assert listed(io.BytesIO(bytes(spoilt))) == listed(RangeFile(Memory(bytes(spoilt))))


def test_a_listing_reads_little(tmp_path):
    """Headers and the index: kilobytes of megabytes."""
    path = write_tiny_bundle(tmp_path, model=bytes(3_000_000))
    memory = Memory(path.read_bytes())
    listing = list_archive(RangeFile(memory), memory.size_bytes, "x")
    assert open_bundle(path).digest == listing.model.digest
    assert memory.given < 40_000
