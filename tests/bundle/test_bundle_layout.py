"""Bundles in layout folders and in other tools' archives."""

import io
import json
import os
import shutil
import tarfile
import tracemalloc
from pathlib import Path

import pytest
from bundle_factory import (
    GOLDEN,
    MODEL,
    OTHER_KEY,
    RELEASE_KEY,
    STRANGER,
    Crafted,
    archive,
    descriptor,
    dump,
    member,
    small_contract,
    small_root,
    special_member,
    write_small,
)

from edgepack.bundle import (
    blobs_of_manifest,
    check_blob,
    digest_of,
    import_layout,
    media_types,
    open_bundle,
    open_layout,
    sign_bundle,
    verify_bundle,
)
from edgepack.bundle.errors import (
    ArchiveError,
    BundleFileError,
    BundleLimitError,
    DigestError,
    DuplicateError,
    ExtraBlobError,
    LinkError,
    ManifestError,
    MissingBlobError,
    OversizedDocumentError,
    TraversalError,
    TruncatedError,
    WrongKeyError,
)


@pytest.fixture
def path(tmp_path) -> Path:
    """A bundle with two signatures."""
    made = write_small(tmp_path / "a.edgepack")
    for key in (RELEASE_KEY, OTHER_KEY):
        sign_bundle(made, key, sequence=7)
    return made


@pytest.fixture
def folder(path, tmp_path) -> Path:
    """The same bundle as a layout folder."""
    with tarfile.open(path) as tar:
        tar.extractall(tmp_path / "layout", filter="data")
    return tmp_path / "layout"


def blob_file(folder: Path, digest: str) -> Path:
    return folder / "blobs" / "sha256" / digest.removeprefix("sha256:")


# ---- the store of a device ---------------------------------------------------------------------


def test_a_bundle_is_the_same_in_a_folder(path, folder):
    """File and folder give equal bundles, of the same size, that verify alike."""
    whole = open_bundle(path)

    bundle = open_layout(
        folder, whole.digest, signatures=[signature.digest for signature in whole.signatures]
    )

    assert whole == bundle
    assert whole.size_bytes == bundle.size_bytes
    assert MODEL == bundle.read("onnx-fp32/model.onnx")
    assert verify_bundle(whole, small_root()) == verify_bundle(bundle, small_root())


def test_a_device_fetches_blob_by_blob(path, tmp_path):
    """From digests and sizes of the manifests alone, every blob is found and checked."""
    whole = open_bundle(path)
    store = tmp_path / "store"
    wanted = [whole.manifest_blob, *(signature.manifest for signature in whole.signatures)]
    for manifest in list(wanted):
        wanted += blobs_of_manifest(whole.read_blob(manifest.digest))
    for blob in wanted:
        file = blob_file(store, blob.digest)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(check_blob(blob, whole.read_blob(blob.digest)))

    bundle = open_layout(store, whole.digest, signatures=[s.digest for s in whole.signatures])

    assert whole == bundle


def test_bundles_share_a_store(path, folder, tmp_path):
    """What else lies in the folder does not matter; a shared blob is there once."""
    other = write_small(tmp_path / "b.edgepack", version="2.0.0")
    with tarfile.open(other) as tar:
        tar.extractall(folder, filter="data")

    for file in (path, other):
        digest = open_bundle(file).digest
        assert digest == open_layout(folder, digest).digest


def test_a_changed_blob_in_a_store_is_found(path, folder):
    """When blobs are hashed on opening; otherwise when it is read."""
    whole = open_bundle(path)
    file = blob_file(folder, digest_of(MODEL))
    file.write_bytes(MODEL.upper())

    with pytest.raises(DigestError):
        open_layout(folder, whole.digest)
    bundle = open_layout(folder, whole.digest, hash_blobs=False)
    assert GOLDEN == bundle.read("golden.safetensors")
    with pytest.raises(DigestError):
        bundle.read("onnx-fp32/model.onnx")


@pytest.mark.parametrize("data", [b"", MODEL + b"x", MODEL[:-1]])
def test_a_blob_of_another_size_in_a_store_is_found_without_hashing(path, folder, data):
    """A half-written file is noticed on opening in any case."""
    digest = open_bundle(path).digest
    blob_file(folder, digest_of(MODEL)).write_bytes(data)

    with pytest.raises(DigestError):
        open_layout(folder, digest, hash_blobs=False)


def test_a_blob_that_grew_after_opening_is_not_read(path, folder):
    """The size is compared before anything is read into memory."""
    bundle = open_layout(folder, open_bundle(path).digest)
    with blob_file(folder, digest_of(MODEL)).open("r+b") as file:
        file.truncate(64 * 1024**3)
    tracemalloc.start()

    with pytest.raises(DigestError, match="must have 22 bytes, got 68719476736"):
        bundle.read("onnx-fp32/model.onnx")

    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes < 1024**2


def test_the_signatures_of_a_store_are_bounded(path, folder):
    """Whoever names them: seventeen are too many."""
    whole = open_bundle(path)

    with pytest.raises(BundleLimitError, match="at most 16 signatures, got 17"):
        open_layout(folder, whole.digest, signatures=[whole.signatures[0].digest] * 17)


def test_a_signature_that_is_named_twice_counts_as_one(path, folder):
    """The bundle lists it once, as its file does."""
    whole = open_bundle(path)
    signatures = [signature.digest for signature in whole.signatures]

    assert whole == open_layout(folder, whole.digest, signatures=signatures * 2)


def test_a_missing_blob_in_a_store_is_named(path, folder):
    """Whichever it is."""
    whole = open_bundle(path)
    signatures = [signature.digest for signature in whole.signatures]
    for blob in whole.blobs():
        file = blob_file(folder, blob.digest)
        data = file.read_bytes()
        file.unlink()
        with pytest.raises(MissingBlobError) as caught:
            open_layout(folder, whole.digest, signatures=signatures)
        assert blob.digest == caught.value.digest
        file.write_bytes(data)


def test_a_store_does_not_follow_links(path, folder, tmp_path):
    """A blob that is a link, a FIFO or a folder is no blob."""
    digest = open_bundle(path).digest
    file = blob_file(folder, digest_of(MODEL))
    (tmp_path / "model").write_bytes(MODEL)

    file.unlink()
    file.symlink_to(tmp_path / "model")
    with pytest.raises(LinkError):
        open_layout(folder, digest)
    file.unlink()
    os.mkfifo(file)
    with pytest.raises(BundleFileError):
        open_layout(folder, digest)
    file.unlink()
    file.mkdir()
    with pytest.raises(BundleFileError):
        open_layout(folder, digest)


@pytest.mark.parametrize("digest", ["", "sha256:../../etc/passwd", "sha256:" + "A" * 64, "abc"])
def test_a_digest_cannot_lead_out_of_a_store(tmp_path, digest):
    """What is no digest is never made a path of."""
    with pytest.raises(ManifestError, match="must be sha256:HEX"):
        open_layout(tmp_path, digest)


# ---- import ------------------------------------------------------------------------------------


def rewritten(path: Path, target: Path, format_: int = tarfile.PAX_FORMAT, **fields) -> Path:
    """The same members as another tool would write them: folders, times, owners, any order."""
    with tarfile.open(path) as old, tarfile.open(target, "w", format=format_) as new:
        for name in (".", "./blobs", "./blobs/sha256"):
            info = tarfile.TarInfo(name)
            info.type, info.mode, info.mtime = tarfile.DIRTYPE, 0o755, 1234567890.5
            new.addfile(info)
        for info in reversed(old.getmembers()):
            data = old.extractfile(info)
            info.name = f"./{info.name}"
            info.mtime, info.uname, info.gid, info.mode = 1234567890.25, "jo", 1000, 0o600
            for key, value in fields.items():
                setattr(info, key, value)
            new.addfile(info, data)
    return target


@pytest.mark.parametrize("format_", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
def test_an_archive_of_another_tool_becomes_canonical(path, tmp_path, format_):
    """Other times, owners, folders, order and formats: the same bundle, byte for byte."""
    foreign = rewritten(path, tmp_path / "foreign.tar", format_)
    with pytest.raises(ArchiveError):
        open_bundle(foreign)

    imported = import_layout(foreign, tmp_path / "imported.edgepack")

    assert open_bundle(path) == imported
    assert path.read_bytes() == (tmp_path / "imported.edgepack").read_bytes()


def test_a_folder_becomes_canonical(path, folder, tmp_path):
    """A layout's folder gives the same file; whatever else lies in it is left behind."""
    (folder / "README").write_text("notes")
    (folder / "blobs" / "sha256" / ("0" * 64)).write_text("garbage")

    import_layout(folder, tmp_path / "imported.edgepack")

    assert path.read_bytes() == (tmp_path / "imported.edgepack").read_bytes()


def test_a_bundle_imports_as_itself(path, tmp_path):
    """The canonical form is one of the forms that are taken."""
    import_layout(path, tmp_path / "imported.edgepack")

    assert path.read_bytes() == (tmp_path / "imported.edgepack").read_bytes()


def test_a_folder_as_destination_gets_a_file_of_the_bundles_name(folder, tmp_path):
    """NAME-VERSION.edgepack."""
    (tmp_path / "out").mkdir()

    import_layout(folder, tmp_path / "out")

    assert ["pump-1.2.3.edgepack"] == [file.name for file in (tmp_path / "out").iterdir()]


def test_an_index_that_says_less_is_enough(path, folder, tmp_path):
    """Artifact types and annotations are read from the manifests themselves."""
    index = json.loads((folder / "index.json").read_bytes())
    for item in index["manifests"]:
        del item["artifactType"]
        item.pop("annotations", None)
    del index["mediaType"]
    (folder / "index.json").write_text(json.dumps(index, indent=2))

    import_layout(folder, tmp_path / "imported.edgepack")

    assert path.read_bytes() == (tmp_path / "imported.edgepack").read_bytes()


def test_signatures_are_found_in_a_referrers_index(path, folder, tmp_path):
    """The index that stands in for the referrers API is followed, one level deep."""
    index = json.loads((folder / "index.json").read_bytes())
    model, *signatures = index["manifests"]
    nested = dump({"schemaVersion": 2, "mediaType": media_types.INDEX, "manifests": signatures})
    blob_file(folder, digest_of(nested)).write_bytes(nested)
    entry = descriptor(
        nested,
        media_types.INDEX,
        annotations={media_types.REF_NAME_ANNOTATION: model["digest"].replace(":", "-")},
    )
    (folder / "index.json").write_bytes(dump({**index, "manifests": [model, entry]}))

    import_layout(folder, tmp_path / "imported.edgepack")

    assert path.read_bytes() == (tmp_path / "imported.edgepack").read_bytes()


def test_only_the_models_own_signatures_come_along(folder, tmp_path):
    """A signature of another model, and artifacts of other kinds, are left behind."""
    other = write_small(tmp_path / "b.edgepack", version="2.0.0")
    sign_bundle(other, RELEASE_KEY, sequence=9)
    with tarfile.open(other) as tar:
        tar.extractall(tmp_path / "other", filter="data")
    shutil.copytree(tmp_path / "other" / "blobs", folder / "blobs", dirs_exist_ok=True)
    foreign = json.loads((tmp_path / "other" / "index.json").read_bytes())["manifests"][1]
    sbom = dump(
        {"schemaVersion": 2, "mediaType": media_types.MANIFEST, "artifactType": "text/spdx"}
    )
    blob_file(folder, digest_of(sbom)).write_bytes(sbom)
    index = json.loads((folder / "index.json").read_bytes())
    index["manifests"] += [foreign, descriptor(sbom, media_types.MANIFEST)]
    (folder / "index.json").write_bytes(dump(index))

    imported = import_layout(folder, tmp_path / "imported.edgepack")

    assert 2 == len(imported.signatures)


@pytest.mark.parametrize("count", [0, 2])
def test_a_layout_holds_exactly_one_model(folder, tmp_path, count):
    """Neither nothing nor a choice is imported."""
    other = write_small(tmp_path / "b.edgepack", version="2.0.0")
    with tarfile.open(other) as tar:
        tar.extractall(tmp_path / "other", filter="data")
    shutil.copytree(tmp_path / "other" / "blobs", folder / "blobs", dirs_exist_ok=True)
    index = json.loads((folder / "index.json").read_bytes())
    models = [
        index["manifests"][0],
        json.loads((tmp_path / "other" / "index.json").read_bytes())["manifests"][0],
    ]
    (folder / "index.json").write_bytes(dump({**index, "manifests": models[:count]}))

    with pytest.raises(ManifestError, match=f"exactly one model, got {count}"):
        import_layout(folder, tmp_path / "imported.edgepack")


def test_an_import_may_demand_a_signature(folder, tmp_path):
    """With a root that does not vouch for it nothing is written."""
    target = tmp_path / "imported.edgepack"

    with pytest.raises(WrongKeyError):
        import_layout(folder, target, root=small_root(keys=[STRANGER]))
    assert not target.exists()

    import_layout(folder, target, root=small_root())
    assert target.exists()


def test_a_damaged_layout_is_not_imported(path, folder, tmp_path):
    """A wrong digest and a missing blob leave no file."""
    target = tmp_path / "imported.edgepack"
    file = blob_file(folder, digest_of(MODEL))

    file.write_bytes(MODEL.upper())
    with pytest.raises(DigestError):
        import_layout(folder, target)
    file.unlink()
    with pytest.raises(MissingBlobError):
        import_layout(folder, target)

    assert not target.exists()
    assert {path, folder} == set(tmp_path.iterdir()) - {tmp_path / "config-home"}


@pytest.mark.parametrize("name", ["blobs", "blobs/sha256", "index.json", "oci-layout"])
def test_a_layout_with_links_is_not_imported(folder, tmp_path, name):
    """Nothing outside the folder is read through it."""
    (folder / name).rename(tmp_path / "moved")
    (folder / name).symlink_to(tmp_path / "moved")

    with pytest.raises(LinkError):
        import_layout(folder, tmp_path / "imported.edgepack")


def test_a_link_for_a_blob_is_not_imported(folder, tmp_path):
    """Not even one that leads to the right bytes."""
    file = blob_file(folder, digest_of(MODEL))
    file.rename(tmp_path / "moved")
    file.symlink_to(tmp_path / "moved")

    with pytest.raises(LinkError):
        import_layout(folder, tmp_path / "imported.edgepack")


def test_what_is_no_layout_is_not_imported(tmp_path):
    """An empty folder, a folder of something else and a file of text are refused."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "text").write_text("hello " * 200)
    (tmp_path / "none.tar").write_bytes(archive([]))

    for source, error in (
        ("empty", BundleFileError),
        ("text", ArchiveError),
        ("none.tar", ManifestError),
        ("absent", BundleFileError),
    ):
        with pytest.raises(error):
            import_layout(tmp_path / source, tmp_path / "imported.edgepack")


def test_another_layout_version_is_not_imported(folder, tmp_path):
    """The version is checked, the spelling of the document is not."""
    (folder / "oci-layout").write_text('{ "imageLayoutVersion": "1.0.0", "more": 1 }')
    import_layout(folder, tmp_path / "imported.edgepack")

    (folder / "oci-layout").write_text('{"imageLayoutVersion": "2.0.0"}')
    with pytest.raises(ManifestError, match=r"imageLayoutVersion must be '1\.0\.0'"):
        import_layout(folder, tmp_path / "imported.edgepack")


def test_an_oversized_index_is_not_read(folder, tmp_path):
    """In a folder as in an archive."""
    (folder / "index.json").write_bytes(b" " * 70_000 + b"{}")

    with pytest.raises(OversizedDocumentError):
        import_layout(folder, tmp_path / "imported.edgepack")


def foreign_header(name: str, size: int, kind: bytes = b"0", **fields: tuple[int, bytes]) -> bytes:
    header = bytearray(special_member(name, kind))
    header[124:136] = b"%011o\0" % size
    for start, value in fields.values():
        header[start : start + len(value)] = value
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header)


def pax(record: bytes, kind: bytes = b"x") -> bytes:
    return foreign_header("pax", len(record), kind) + record + bytes(-len(record) % 512)


@pytest.mark.parametrize(
    ("extra", "error"),
    [
        (member("../evil", b"x"), TraversalError),
        (member("/evil", b"x"), TraversalError),
        (member("a/../../evil", b"x"), TraversalError),
        (special_member("link", b"2", "/etc/passwd"), LinkError),
        (special_member("link", b"1", "index.json"), LinkError),
        (special_member("device", b"3"), LinkError),
        (special_member("fifo", b"6"), LinkError),
        (member("index.json", b"x"), DuplicateError),
        (member("./index.json", b"x"), DuplicateError),
        (member(".//index.json", b"x"), DuplicateError),
        (special_member("index.json", b"5"), DuplicateError),
        (special_member("long", b"L"), ArchiveError),
        (special_member("sparse", b"S"), ArchiveError),
        (pax(b"19 path=index.json\n"), ArchiveError),
        (pax(b"10 size=9\n", b"g"), ArchiveError),
        (pax(b"12 linkpath=x\n"), ArchiveError),
        (pax(b"22 GNU.sparse.major=1\n"), ArchiveError),
        (pax(b"no record"), ArchiveError),
        (pax(b"99999 a=b\n"), ArchiveError),
        (pax(b"5 a=b"), ArchiveError),
        (foreign_header("pax", 70_000, b"x") + bytes(70_144), BundleLimitError),
        (foreign_header("big", 0, raw=(124, b"\x80" + b"\0" * 10 + b"\x01")), ArchiveError),
        (foreign_header("odd", 0, raw=(124, b"9" * 11)), ArchiveError),
        (b"x" * 512, ArchiveError),
        (foreign_header("huge", 8**11 - 1), TruncatedError),
    ],
)
def test_an_ambiguous_archive_is_not_imported(tmp_path, extra, error):
    """Whatever two readers could see differently is refused, however other tools take it."""
    source = tmp_path / "foreign.tar"
    source.write_bytes(archive([*Crafted().members(), extra]))

    with pytest.raises(error) as caught:
        import_layout(source, tmp_path / "imported.edgepack")

    assert error is type(caught.value)
    assert not (tmp_path / "imported.edgepack").exists()


def test_a_compressed_archive_is_told_as_such(path, tmp_path):
    """The hint is to unpack it first."""
    import gzip

    (tmp_path / "a.tar.gz").write_bytes(gzip.compress(path.read_bytes()))

    with pytest.raises(ArchiveError, match="is compressed; it must be a plain tar"):
        import_layout(tmp_path / "a.tar.gz", tmp_path / "imported.edgepack")


def test_a_truncated_archive_is_not_imported(path, tmp_path):
    """Wherever it ends too early."""
    whole = path.read_bytes()
    source = tmp_path / "cut.tar"
    for cut in range(0, len(whole) - 1024, 509):
        source.write_bytes(whole[:cut])
        with pytest.raises(TruncatedError):
            import_layout(source, tmp_path / "imported.edgepack")


def test_long_names_are_split_between_prefix_and_name(path, tmp_path):
    """Both halves of a ustar name count; GNU's other use of that field does not."""
    target = tmp_path / "foreign.tar"
    with tarfile.open(path) as old, tarfile.open(target, "w", format=tarfile.USTAR_FORMAT) as new:
        for info in old:
            new.addfile(info, old.extractfile(info))
        info = tarfile.TarInfo("x" * 90 + "/" + "y" * 90)
        new.addfile(info, io.BytesIO())

    assert open_bundle(path) == import_layout(target, tmp_path / "imported.edgepack")


def test_extra_blobs_are_refused_in_a_bundle_but_left_behind_by_an_import(tmp_path):
    """Strict where it counts, helpful where a person asks."""
    source = tmp_path / "foreign.tar"
    source.write_bytes(archive([*Crafted().members(), member("manifest.json", b"[]")]))

    with pytest.raises(ExtraBlobError):
        open_bundle(source)
    imported = import_layout(source, tmp_path / "imported.edgepack")
    assert small_contract() == imported.contract
