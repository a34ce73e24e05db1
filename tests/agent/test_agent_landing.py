"""Where blobs arrive: kept, bounded, and nobody's but this process's."""

import hashlib

import pytest

from edgepack.agent.errors import FetchError, RejectedError, StoreError
from edgepack.agent.install.blobs import BlobStore
from edgepack.wire.desired import BlobRef

DATA = bytes(range(256)) * 10
BUNDLES = ["sha256:" + letter * 64 for letter in "abc"]


def ref_of(data):
    return BlobRef(digest=f"sha256:{hashlib.sha256(data).hexdigest()}", size_bytes=len(data))


REF = ref_of(DATA)


def arrive(store, bundle, data, ref=REF):
    with store.landing_for(bundle).arrive(ref) as arrival:
        arrival.write(data)
        if not arrival.left_bytes:
            arrival.finish()


def kept(tmp_path):
    folder = tmp_path / "staging" / "fetched"
    return sorted(path.parent.name[0] for path in folder.rglob("*") if path.is_file())


def test_what_landed_is_kept_until_nobody_wants_it(tmp_path):
    """Over restarts; a bundle that is no longer desired, or was refused, goes."""
    store = BlobStore(tmp_path)
    for bundle in BUNDLES:
        arrive(store, bundle, DATA[:100])
    assert ["a", "b", "c"] == kept(tmp_path)
    again = BlobStore(tmp_path)
    again.clear_staging()
    assert ["a", "b", "c"] == kept(tmp_path)
    again.discard_staging_except(BUNDLES[:2])
    assert ["a", "b"] == kept(tmp_path)
    again.discard_staging(BUNDLES[0])
    assert ["b"] == kept(tmp_path)


def test_what_was_installed_leaves_nothing_behind(tmp_path):
    """Its blobs are in the store then."""
    store = BlobStore(tmp_path)
    arrive(store, BUNDLES[0], DATA)
    landing = store.landing_for(BUNDLES[0])
    assert landing.has(REF)
    staging = store.staging_for(BUNDLES[0])
    landing.lay_out([REF], staging)
    store.adopt(staging, [REF.digest])
    assert [] == kept(tmp_path)
    assert DATA == store.path(REF.digest).read_bytes()
    assert not (staging / "blobs").exists()


def test_what_children_see_is_not_what_the_next_run_goes_on_with(tmp_path):
    """Links in a folder of this run: a child that deletes them takes nothing away."""
    store = BlobStore(tmp_path)
    arrive(store, BUNDLES[0], DATA)
    landing = store.landing_for(BUNDLES[0])
    assert landing.has(REF)
    staging = store.staging_for(BUNDLES[0])
    landing.lay_out([REF], staging)
    (staging / "blobs" / "sha256" / REF.digest.removeprefix("sha256:")).unlink()
    assert BlobStore(tmp_path).landing_for(BUNDLES[0]).has(REF)


def test_a_rotten_blob_of_the_store_is_fetched_again(tmp_path):
    """And takes the rotten one's place."""
    store = BlobStore(tmp_path)
    store.path(REF.digest).write_bytes(DATA[:-1] + b"x")
    landing = store.landing_for(BUNDLES[0])
    assert not landing.has(REF)
    arrive(store, BUNDLES[0], DATA)
    assert landing.has(REF)
    staging = store.staging_for(BUNDLES[0])
    landing.lay_out([REF], staging)
    store.adopt(staging, [REF.digest])
    assert DATA == store.path(REF.digest).read_bytes()


@pytest.mark.parametrize("cut", [0, 1, 1000, len(DATA) - 1, len(DATA)])
def test_it_goes_on_anywhere(tmp_path, cut):
    """From the first byte to past the last; what is here is hashed, not believed."""
    store = BlobStore(tmp_path)
    landing = store.landing_for(BUNDLES[0])
    landing._part(REF.digest).write_bytes(DATA[:cut])
    with landing.arrive(REF) as arrival:
        assert cut == arrival.offset
        arrival.write(DATA[cut:])
        arrival.finish()
    assert landing.has(REF)


def test_more_than_a_blob_has_is_cut_off(tmp_path):
    """A part that is too long is what another run left of something else."""
    landing = BlobStore(tmp_path).landing_for(BUNDLES[0])
    landing._part(REF.digest).write_bytes(DATA + b"more")
    with landing.arrive(REF) as arrival:
        assert 0 == arrival.left_bytes
        arrival.finish()
    assert DATA == landing.read(REF)


def test_what_does_not_fit_its_digest(tmp_path):
    """Fresh, it is refused; resumed, it is fetched anew; too long, it is refused at once."""
    store = BlobStore(tmp_path)
    landing = store.landing_for(BUNDLES[0])
    wrong = bytes(len(DATA))
    with landing.arrive(REF) as arrival, pytest.raises(RejectedError):
        arrival.write(wrong)
        arrival.finish()
    landing._part(REF.digest).write_bytes(wrong[:10])
    with landing.arrive(REF) as arrival, pytest.raises(FetchError, match="not good any more"):
        arrival.write(wrong[10:])
        arrival.finish()
    assert [] == kept(tmp_path)
    with landing.arrive(REF) as arrival, pytest.raises(RejectedError, match="got more"):
        arrival.write(DATA + b"x")


def test_a_disk_that_takes_nothing_is_said(tmp_path):
    """One line that names the file, of the error that says whose turn it is."""
    arrival = BlobStore(tmp_path).landing_for(BUNDLES[0]).arrive(REF)
    arrival.close()
    with open("/dev/full", "ab", buffering=0) as full:
        arrival._handle = full
        with pytest.raises(StoreError, match="disk full"):
            arrival.write(DATA)
