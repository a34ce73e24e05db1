"""The archive: one form for one content, and everything else refused by its name."""

import io
import os
import subprocess
import sys
import tarfile
import time
import tracemalloc

import pytest
from bundle_factory import (
    GOLDEN,
    MODEL,
    Crafted,
    archive,
    blob_member,
    dump,
    member,
    small_contract,
    small_parts,
    special_member,
    write_small,
)

from edgepack.bundle import (
    BundleError,
    Part,
    bundle_filename,
    describe,
    media_types,
    open_bundle,
    write_bundle,
)
from edgepack.bundle.errors import (
    BundleFileError,
    BundleLimitError,
    BundleWriteError,
    ContractError,
    DigestError,
    DuplicateError,
    ExtraBlobError,
    LinkError,
    ManifestError,
    MissingBlobError,
    NotCanonicalError,
    OversizedDocumentError,
    TrailingBytesError,
    TraversalError,
    TruncatedError,
)
from edgepack.bundle.limits import MAX_MEMBERS
from edgepack.bundle.tar_header import END, render_header


@pytest.fixture
def members() -> list[bytes]:
    """The members of a whole bundle, in their order."""
    return Crafted().members()


@pytest.fixture
def refused(tmp_path):
    """Opens some bytes as a bundle and gives the error."""

    def open_and_fail(data: bytes) -> BundleError:
        (tmp_path / "bad.edgepack").write_bytes(data)
        with pytest.raises(BundleError) as caught:
            open_bundle(tmp_path / "bad.edgepack")
        assert "\n" not in str(caught.value)
        return caught.value

    return open_and_fail


def test_what_was_written_is_opened(tmp_path):
    """Contract, files and identity come back."""
    digest = write_bundle(tmp_path / "a.edgepack", small_contract(), small_parts())

    bundle = open_bundle(tmp_path / "a.edgepack")

    assert digest == bundle.digest
    assert small_contract() == bundle.contract
    assert () == bundle.signatures
    assert ("contract.json", "README.md", "golden.safetensors", "onnx-fp32/model.onnx") == (
        bundle.paths
    )
    assert MODEL == bundle.read("onnx-fp32/model.onnx")
    assert GOLDEN == bundle.read("golden.safetensors")


def test_the_form_that_the_tests_take_for_right_is_the_writers(tmp_path):
    """The factory of broken bundles starts from what the writer writes."""
    whole = write_small(tmp_path / "a.edgepack").read_bytes()

    assert whole == archive(Crafted().members())


def test_every_blob_is_listed_with_its_digest_and_size(tmp_path):
    """Whoever publishes a bundle blob by blob publishes all of it."""
    bundle = open_bundle(write_small(tmp_path / "a.edgepack"))

    blobs = bundle.blobs()

    assert sorted(blobs) == list(blobs)
    assert 6 == len({blob.digest for blob in blobs})
    for blob in blobs:
        assert blob == describe(bundle.read_blob(blob.digest))
        assert blob == describe(b"".join(bundle.stream_blob(blob.digest)))


def test_the_size_is_that_of_the_file(tmp_path):
    """A device knows before a download how large it is."""
    path = write_small(tmp_path / "a.edgepack")

    assert path.stat().st_size == open_bundle(path).size_bytes


def test_python_tarfile_renders_the_same_bytes(tmp_path):
    """The archive is an ordinary ustar, byte for byte what another writer makes of the settings."""
    whole = write_small(tmp_path / "a.edgepack").read_bytes()
    again = io.BytesIO()

    with (
        tarfile.open(fileobj=io.BytesIO(whole)) as old,
        tarfile.open(fileobj=again, mode="w", format=tarfile.USTAR_FORMAT) as new,
    ):
        for info in old:
            plain = tarfile.TarInfo(info.name)
            plain.size, plain.mode = info.size, 0o644
            new.addfile(plain, old.extractfile(info))

    assert whole == again.getvalue()[: len(whole)]
    assert not any(again.getvalue()[len(whole) :])  # tarfile fills up its last record


def test_the_same_model_gives_the_same_bytes(tmp_path):
    """Neither the order of the parts, nor the time, the folder or the host name is in a bundle."""
    first = write_small(tmp_path / "a.edgepack").read_bytes()
    script = """
import sys, time
from pathlib import Path
from bundle_factory import small_contract, small_parts
from edgepack.bundle import write_bundle
time.time = lambda: 4e9
write_bundle(sys.argv[1], small_contract(), small_parts()[::-1])
"""
    (tmp_path / "elsewhere").mkdir()
    subprocess.run(
        [sys.executable, "-c", script, "b.edgepack"],
        check=True,
        cwd=tmp_path / "elsewhere",
        env={
            **os.environ,
            "PYTHONHASHSEED": "7",
            "PYTHONPATH": os.pathsep.join(sys.path),
            "TZ": "Asia/Tokyo",
            "HOSTNAME": "another",
            "USER": "another",
        },
    )

    assert first == (tmp_path / "elsewhere" / "b.edgepack").read_bytes()


def test_the_name_of_a_bundles_file():
    """NAME-VERSION.edgepack."""
    assert "pump-1.2.3.edgepack" == bundle_filename(small_contract())


def test_writing_replaces_a_file_at_once_and_leaves_nothing_beside_it(tmp_path):
    """An old file of that name is replaced; no temporary file stays."""
    (tmp_path / "a.edgepack").write_text("old")

    write_small(tmp_path / "a.edgepack")

    assert ["a.edgepack"] == [path.name for path in tmp_path.iterdir()]
    assert "1.2.3" == open_bundle(tmp_path / "a.edgepack").contract.version


def test_a_bundle_that_cannot_be_is_not_written(tmp_path):
    """A contract that names an absent file leaves the old file as it was."""
    (tmp_path / "a.edgepack").write_text("old")

    with pytest.raises(ContractError, match=r"names the file 'golden\.safetensors'"):
        write_bundle(tmp_path / "a.edgepack", small_contract(), small_parts()[:1])

    assert "old" == (tmp_path / "a.edgepack").read_text()
    assert ["a.edgepack"] == [path.name for path in tmp_path.iterdir()]


def test_a_disk_that_refuses_is_told(tmp_path):
    """No such folder, in one line, with the exit code of a disk."""
    with pytest.raises(BundleWriteError, match="No such file") as caught:
        write_small(tmp_path / "none" / "a.edgepack")

    assert 9 == caught.value.exit_code


def part(path: str, data: bytes = b"other", media_type: str = media_types.DOC) -> Part:
    return Part(path=path, media_type=media_type, data=data)


@pytest.mark.parametrize(
    ("extra", "error"),
    [
        (part("../evil"), TraversalError),
        (part("/evil"), TraversalError),
        (part("a/../b"), TraversalError),
        (part("readme.MD"), DuplicateError),
        (part("contract.json"), DuplicateError),
        (part("README.md/x"), DuplicateError),
        (part("copy.onnx", MODEL), DuplicateError),
        (part(".hidden"), ManifestError),
        (part("a b"), ManifestError),
        (part("x", media_type="text/plain"), ManifestError),
    ],
)
def test_a_part_that_no_reader_would_take_is_not_written(tmp_path, extra, error):
    """The writer refuses what the reader refuses."""
    with pytest.raises(error):
        write_bundle(tmp_path / "a.edgepack", small_contract(), [*small_parts(), extra])

    assert [] == list(tmp_path.iterdir())


# ---- what the reader refuses -------------------------------------------------------------------


@pytest.mark.parametrize("name", ["../evil", "/etc/passwd", "blobs/sha256/../../../evil", ".."])
def test_traversal(members, refused, name):
    """A member whose name leads out is refused by that reason."""
    error = refused(archive([*members, member(name, b"x")]))

    assert (TraversalError, "traversal") == (type(error), error.reason)


@pytest.mark.parametrize("kind", [b"1", b"2", b"3", b"4", b"6"])
@pytest.mark.parametrize("place", [0, 2])
def test_links_and_devices(members, refused, kind, place):
    """A link, hard or symbolic, a device or a FIFO is refused wherever it stands."""
    link = special_member("blobs/sha256/" + "f" * 64, kind, "/etc/passwd")

    error = refused(archive([*members[:place], link, *members[place:]]))

    assert (LinkError, "link") == (type(error), error.reason)


def test_folders(members, refused):
    """Not even an empty folder has a place in the one form."""
    assert isinstance(
        refused(archive([*members, special_member("blobs/", b"5")])), NotCanonicalError
    )


@pytest.mark.parametrize("index", range(8))
def test_duplicates(members, refused, index):
    """A member that stands twice is refused, whichever it is."""
    error = refused(archive([*members[: index + 1], *members[index:]]))

    assert (DuplicateError, "duplicate") == (type(error), error.reason)


def test_truncation_at_every_block(members, refused):
    """Wherever the file ends too early, that is what is told."""
    whole = archive(members)
    cuts = {*range(0, len(whole), 512), *range(1, len(whole), 997), len(whole) - 1}

    assert {"truncated"} == {refused(whole[:cut]).reason for cut in cuts}


@pytest.mark.parametrize("extra", [b"\0", b"x", bytes(512), bytes(10240), b"x" * 512])
def test_trailing_bytes(members, refused, extra):
    """Not one byte follows the end mark."""
    error = refused(archive(members) + extra)

    assert (TrailingBytesError, "trailing_bytes") == (type(error), error.reason)


def test_a_second_archive_behind_the_first(members, refused):
    """Two bundles in one file are not one bundle."""
    assert "trailing_bytes" == refused(archive(members) * 2).reason


@pytest.mark.parametrize("index", range(2, 8))
def test_a_wrong_digest(members, refused, index):
    """A blob with one other byte, under its old name, is refused by its digest."""
    changed = bytearray(members[index])
    changed[512] ^= 1

    error = refused(archive([*members[:index], bytes(changed), *members[index + 1 :]]))

    assert (DigestError, "wrong_digest") == (type(error), error.reason)


@pytest.mark.parametrize("index", range(2, 8))
def test_a_wrong_size(members, refused, index):
    """A blob that is one byte longer than its descriptor says is refused."""
    name = members[index][:100].rstrip(b"\0").decode()
    longer = member(name, members[index][512:].rstrip(b"\0") + b"\n")

    assert "wrong_digest" == (
        refused(archive([*members[:index], longer, *members[index + 1 :]])).reason
    )


@pytest.mark.parametrize("index", range(2, 8))
def test_a_missing_blob(members, refused, index):
    """Every blob that is named must be there."""
    error = refused(archive([*members[:index], *members[index + 1 :]]))

    assert (MissingBlobError, "missing_blob") == (type(error), error.reason)


def test_an_extra_blob(members, refused):
    """Nothing may be in the archive that nothing names."""
    error = refused(archive([*members[:2], *sorted([*members[2:], blob_member(b"extra")])]))

    assert (ExtraBlobError, "extra_blob") == (type(error), error.reason)


@pytest.mark.parametrize("name", ["readme.txt", "blobs/sha256/abc", "blobs/sha512/" + "0" * 64])
def test_an_extra_member(members, refused, name):
    """A member that is no blob is refused too."""
    assert "extra_blob" == refused(archive([*members, member(name, b"x")])).reason


def test_the_order_of_members(members, refused):
    """Members out of order are refused: the same blobs have one archive."""
    for swapped in ([1, 0, *range(2, 8)], [0, 1, 3, 2, *range(4, 8)], [2, 0, 1, *range(3, 8)]):
        error = refused(archive([members[index] for index in swapped]))

        assert (NotCanonicalError, "not_canonical") == (type(error), error.reason)


@pytest.mark.parametrize("missing", [[0], [1], [0, 1]])
def test_an_archive_without_layout_or_index(members, refused, missing):
    """Both documents must be there."""
    left = [item for index, item in enumerate(members) if index not in missing]

    assert "not_canonical" == refused(archive(left)).reason


def test_an_empty_archive(refused):
    """An end mark alone is no bundle."""
    assert "not_canonical" == refused(END).reason


HEADER_CHANGES = {
    "mode": (100, b"0000755"),
    "uid": (108, b"0001000"),
    "gid": (116, b"0001000"),
    "mtime": (136, b"00000000001"),
    "link name": (157, b"x"),
    "version": (263, b" \0"),
    "user": (265, b"root"),
    "group": (297, b"root"),
    "device": (329, b"0000000"),
    "prefix": (345, b"x"),
    "end": (511, b"x"),
    "old type": (156, b"\0"),
    "contiguous": (156, b"7"),
    "spaces": (124, b"         26 "),
}


@pytest.mark.parametrize("change", HEADER_CHANGES)
def test_any_other_header(members, refused, change):
    """A header that another tool would accept, with its checksum right, is refused all the same."""
    start, value = HEADER_CHANGES[change]
    header = bytearray(members[0][:512])
    header[start : start + len(value)] = value
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)

    error = refused(archive([bytes(header) + members[0][512:], *members[1:]]))

    assert NotCanonicalError is type(error)


def test_padding_is_zero(members, refused):
    """What stands between the end of a blob and the next header is checked too."""
    padded = bytearray(members[-1])
    padded[-1] = 1

    assert "not_canonical" == refused(archive([*members[:-1], bytes(padded)])).reason


def test_the_end_mark_is_two_zero_blocks(members, refused):
    """The second block counts as well."""
    assert "not_canonical" == refused(archive(members, END[:-1] + b"\1")).reason


@pytest.mark.parametrize(
    "edit",
    [
        lambda index: index.update(annotations={}),
        lambda index: index["manifests"][0].update(platform={}),
        lambda index: index["manifests"][0]["annotations"].update(x="y"),
        lambda index: index["manifests"][0].pop("annotations"),
        lambda index: index.pop("mediaType"),
        lambda index: dump(index) + b"\n",
        lambda index: dump(index).replace(b'"size":', b'"size": '),
        lambda index: dump(index).replace(b'"size"', b'"siz\\u0065"'),
    ],
)
def test_the_index_has_one_form(tmp_path, edit):
    """An index that says the same in another way, or says more, is refused."""
    path = Crafted(edit_index=edit).write(tmp_path / "bad.edgepack")

    with pytest.raises(NotCanonicalError, match=r"index\.json is not in its canonical form"):
        open_bundle(path)


@pytest.mark.parametrize(
    "edit",
    [
        lambda index: index.update(manifests=[]),
        lambda index: index.update(manifests={}),
        lambda index: index.update(schemaVersion=1),
        lambda index: index.update(schemaVersion=True),
        lambda index: index.update(layers=[]),
        lambda index: index.update(mediaType="text/plain"),
        lambda index: index["manifests"].append(index["manifests"][0]),
        lambda index: index["manifests"].append(1),
        lambda index: index["manifests"][0].pop("artifactType"),
        lambda index: index["manifests"][0].update(digest="sha256:AB"),
        lambda index: index["manifests"][0].update(digest="sha512:" + "0" * 128),
        lambda index: index["manifests"][0].update(size=-1),
        lambda index: index["manifests"][0].update(size=1.0),
        lambda index: index["manifests"][0].update(size=2**63),
        lambda index: index["manifests"][0].update(urls=["http://x"]),
        lambda index: index["manifests"][0].update(data="e30="),
        lambda index: index["manifests"][0].update(annotations={"x": 1}),
        lambda index: index["manifests"][0].update(annotations=[]),
        lambda index: index["manifests"][0].update(mediaType=""),
    ],
)
def test_the_index_lists_one_model_and_its_signatures(tmp_path, edit):
    """An index of anything else is refused."""
    path = Crafted(edit_index=edit).write(tmp_path / "bad.edgepack")

    with pytest.raises(ManifestError):
        open_bundle(path)


@pytest.mark.parametrize("layout", [b"{}", b'{"imageLayoutVersion": "1.0.0"}', b""])
def test_the_layout_file_has_one_form(tmp_path, layout):
    """`oci-layout` is compared byte for byte."""
    path = Crafted(layout=layout).write(tmp_path / "bad.edgepack")

    with pytest.raises(NotCanonicalError, match="oci-layout"):
        open_bundle(path)


DEEP = b"[" * 200 + b"]" * 200
DOCUMENTS = ["edit_index", "edit_manifest", "edit_config", "edit_contract"]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_deeply_nested_json(tmp_path, document):
    """Every document is bounded in depth, with one reason."""
    path = Crafted(**{document: lambda _: b'{"x":' + DEEP + b"}"}).write(tmp_path / "bad.edgepack")

    with pytest.raises(OversizedDocumentError, match="nested at most") as caught:
        open_bundle(path)

    assert "oversized_document" == caught.value.reason


@pytest.mark.parametrize("document", DOCUMENTS)
def test_oversized_json(tmp_path, document):
    """Every document is bounded in size, with the same reason."""
    size = {"edit_index": 64 * 1024, "edit_contract": 4 * 1024**2}.get(document, 1024**2) + 1
    path = Crafted(**{document: lambda _: b"{" + b" " * (size - 2) + b"}"}).write(
        tmp_path / "bad.edgepack"
    )

    with pytest.raises(OversizedDocumentError, match=f"at most {size - 1} bytes, got {size}"):
        open_bundle(path)


@pytest.mark.parametrize("document", DOCUMENTS)
@pytest.mark.parametrize("data", [b"", b"[]", b"{", b'{"a":1,"a":1}', b'{"a":NaN}', b"\xff"])
def test_documents_that_are_none(tmp_path, document, data):
    """Every document is strict JSON and an object."""
    path = Crafted(**{document: lambda _: data}).write(tmp_path / "bad.edgepack")

    with pytest.raises(BundleError) as caught:
        open_bundle(path)

    assert "bad_document" == caught.value.reason


def test_a_claimed_size_is_not_allocated(tmp_path):
    """A header that promises gigabytes costs nothing, whether the file has them or not."""
    short = tmp_path / "short.edgepack"
    short.write_bytes(render_header("oci-layout", 8 * 1024**3 - 1) + bytes(512))
    sparse = tmp_path / "sparse.edgepack"
    with sparse.open("wb") as file:
        file.write(render_header("oci-layout", 2 * 1024**3))
        file.truncate(512 + 2 * 1024**3)
        file.seek(0, os.SEEK_END)
        file.write(render_header("index.json", 0) + END)
    huge = tmp_path / "huge.edgepack"
    with huge.open("wb") as file:
        file.truncate(17 * 1024**3)
    tracemalloc.start()

    for path, error in (
        (short, TruncatedError),
        (sparse, OversizedDocumentError),
        (huge, BundleLimitError),
    ):
        with pytest.raises(error):
            open_bundle(path)

    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes < 1024**2


def test_too_many_members(refused):
    """The number of members is bounded before anything is made of them."""
    crafted = Crafted().members()[:2]
    many = [member(f"blobs/sha256/{n:064x}", b"") for n in range(MAX_MEMBERS)]

    assert isinstance(refused(archive([*crafted, *many])), BundleLimitError)


def test_opening_does_not_hold_a_large_file_in_memory(tmp_path):
    """A model of 48 MB is hashed in pieces."""
    large = os.urandom(1024) * (48 * 1024)
    contract = small_contract()
    parts = [*small_parts(), part("extra.bin", large, media_types.DATASET)]
    write_bundle(tmp_path / "a.edgepack", contract, parts)
    del parts, large
    tracemalloc.start()

    bundle = open_bundle(tmp_path / "a.edgepack")

    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert bundle.layer("extra.bin").blob.size_bytes == 48 * 1024**2
    assert peak_bytes < 8 * 1024**2


def test_a_bundle_is_a_regular_file(tmp_path):
    """A folder, a FIFO, a device and nothing at all are refused without waiting."""
    os.mkfifo(tmp_path / "fifo")
    start_s = time.perf_counter()

    for path in (tmp_path, tmp_path / "fifo", "/dev/zero", tmp_path / "none"):
        with pytest.raises(BundleFileError) as caught:
            open_bundle(path)
        assert "file" == caught.value.reason

    assert time.perf_counter() - start_s < 5


def test_what_is_read_later_is_verified_again(tmp_path):
    """A file that changes after it was opened is noticed when it is read."""
    path = write_small(tmp_path / "a.edgepack")
    bundle = open_bundle(path)
    data = path.read_bytes()

    path.write_bytes(data.replace(MODEL, MODEL.upper()))
    with pytest.raises(DigestError):
        bundle.read("onnx-fp32/model.onnx")
    path.write_bytes(data[:1000])
    with pytest.raises(TruncatedError):
        bundle.read("onnx-fp32/model.onnx")
    path.unlink()
    with pytest.raises(BundleFileError):
        bundle.read("onnx-fp32/model.onnx")


def test_what_is_not_in_the_bundle_cannot_be_read(tmp_path):
    """Neither a path nor a digest that the bundle does not have."""
    bundle = open_bundle(write_small(tmp_path / "a.edgepack"))

    with pytest.raises(ManifestError, match="no file 'none'"):
        bundle.read("none")
    with pytest.raises(MissingBlobError, match="is not of this bundle"):
        bundle.read_blob("sha256:" + "0" * 64)
