"""Whatever the bytes: the same bundle, or a BundleError, and nothing else."""

import tempfile
from pathlib import Path

import pytest
from bundle_factory import (
    OTHER_KEY,
    RELEASE_KEY,
    Crafted,
    archive,
    dump,
    small_contract,
    small_root,
    write_small,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from edgepack.bundle import (
    BundleError,
    blobs_of_manifest,
    extract_bundle,
    import_layout,
    open_bundle,
    parse_contract,
    render_contract,
    sign_bundle,
    verify_bundle,
)
from edgepack.trust import TrustError

HEADER_BYTES = 512


def signed(folder: Path) -> Path:
    path = write_small(folder / "small.edgepack")
    for key in (RELEASE_KEY, OTHER_KEY):
        sign_bundle(path, key, sequence=5)
    return path


with tempfile.TemporaryDirectory() as _folder:
    WHOLE = signed(Path(_folder)).read_bytes()


@pytest.fixture(scope="module")
def scratch(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("scratch") / "changed.edgepack"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return open_bundle(signed(tmp_path_factory.mktemp("whole")))


def opened(path: Path, data: bytes):
    path.write_bytes(data)
    try:
        return open_bundle(path)
    except BundleError as exc:
        assert str(exc).isprintable()
        return exc


def test_one_bit_of_every_byte(scratch):
    """A flip of one bit is refused, wherever in the file it happens."""
    accepted = []
    changed = bytearray(WHOLE)
    for index in range(len(WHOLE)):
        bit = 1 << (index * 5 + index // 8) % 8
        changed[index] ^= bit
        if not isinstance(opened(scratch, changed), BundleError):
            accepted.append((index, bit))
        changed[index] ^= bit

    assert [] == accepted


def test_every_bit_of_a_header_and_of_the_end_mark(scratch):
    """All eight bits of every byte that is not content are checked."""
    accepted = []
    changed = bytearray(WHOLE)
    places = [*range(HEADER_BYTES), *range(len(WHOLE) - 1024, len(WHOLE), 7)]
    for index in places:
        for bit in range(8):
            changed[index] ^= 1 << bit
            if not isinstance(opened(scratch, changed), BundleError):
                accepted.append((index, bit))
            changed[index] ^= 1 << bit

    assert [] == accepted


@given(st.binary(max_size=3000))
def test_any_bytes_are_no_bundle(scratch, data):
    """Random bytes are refused with a BundleError."""
    assert isinstance(opened(scratch, data), BundleError)


@st.composite
def mutations(draw) -> bytes:
    """The whole bundle, changed one to three times at places that matter."""
    data = WHOLE
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(data))) // draw(st.sampled_from([1, 512])) * 1
        end = min(len(data), at + draw(st.sampled_from([0, 1, 4, 512, 1024, 4096])))
        piece = data[at:end]
        kind = draw(st.sampled_from(["replace", "delete", "insert", "copy", "move", "cut", "flip"]))
        if kind == "replace":
            data = data[:at] + draw(st.binary(max_size=8)) + data[end:]
        elif kind == "delete":
            data = data[:at] + data[end:]
        elif kind == "insert":
            data = data[:at] + draw(st.binary(max_size=600)) + data[at:]
        elif kind == "copy":
            to = draw(st.integers(0, len(data)))
            data = data[:to] + piece + data[to:]
        elif kind == "move":
            rest = data[:at] + data[end:]
            to = draw(st.integers(0, len(rest)))
            data = rest[:to] + piece + rest[to:]
        elif kind == "cut":
            data = data[:at]
        elif at < len(data):
            data = data[:at] + bytes([data[at] ^ 1 << draw(st.integers(0, 7))]) + data[at + 1 :]
    return data


@settings(max_examples=400)
@given(mutations())
def test_a_changed_bundle_is_refused_and_an_unchanged_one_equal(scratch, bundle, data):
    """Flipped, cut, copied, moved: only the very same bytes are the bundle."""
    result = opened(scratch, data)

    if data == WHOLE:
        assert bundle == result
    else:
        assert isinstance(result, BundleError)


def _members(data: bytes) -> list[bytes]:
    found, at = [], 0
    while any(data[at : at + HEADER_BYTES]):
        size = int(data[at + 124 : at + 135], 8)
        end = at + HEADER_BYTES + size + -size % 512
        found.append(data[at:end])
        at = end
    return found


MEMBERS = _members(WHOLE)


@given(st.lists(st.sampled_from(range(len(MEMBERS))), max_size=len(MEMBERS) + 2))
def test_members_left_out_doubled_or_reordered(scratch, bundle, order):
    """Any selection of the members but the right one is refused."""
    result = opened(scratch, archive([MEMBERS[index] for index in order]))

    if order == list(range(len(MEMBERS))):
        assert bundle == result
    else:
        assert isinstance(result, BundleError)


json_leaves = (
    st.none()
    | st.booleans()
    | st.integers(-5, 5)
    | st.floats()
    | st.text(max_size=4)
    | st.sampled_from(["\n", "\x1b[2J", []])
)


@st.composite
def edits(draw):
    """A function that changes one value anywhere in a document."""
    steps = draw(st.lists(st.integers(0, 30), min_size=1, max_size=7))
    leaf = draw(json_leaves | st.just("delete") | st.just({"a": 1}))

    def edit(document):
        node = document
        for depth, step in enumerate(steps):
            keys = sorted(node) if isinstance(node, dict) else list(range(len(node)))
            if not keys:
                return
            key = keys[step % len(keys)]
            last = depth == len(steps) - 1 or not isinstance(node[key], dict | list)
            if last and leaf == "delete":
                del node[key]
            elif last:
                node[key] = leaf
            if last:
                return
            node = node[key]
        return

    return edit


@settings(max_examples=300)
@given(
    st.sampled_from(["edit_contract", "edit_config", "edit_manifest", "edit_index"]),
    edits(),
)
def test_a_changed_document_gives_a_bundle_or_a_bundle_error(scratch, document, edit):
    """With every digest made to fit, a hostile writer still gets no other exception."""
    crafted = Crafted(**{document: edit})

    result = opened(scratch, archive(crafted.members()))

    if not isinstance(result, BundleError):
        with tempfile.TemporaryDirectory() as folder:
            files = extract_bundle(result, Path(folder) / "out")
            assert all(path.is_relative_to(folder) for path in files)
        with pytest.raises((BundleError, TrustError)):
            verify_bundle(result, small_root())


@settings(max_examples=300)
@given(edits())
def test_a_changed_signature_manifest_gives_a_bundle_or_a_bundle_error(scratch, edit):
    """A signature's manifest is parsed as strictly as the model's."""
    crafted = Crafted(envelopes=[b"no envelope"], edit_signature=edit)

    result = opened(scratch, archive(crafted.members()))

    if not isinstance(result, BundleError):
        with pytest.raises(BundleError):
            verify_bundle(result, small_root())


@settings(max_examples=300)
@given(mutations())
def test_importing_changed_bytes_gives_a_bundle_or_a_bundle_error(scratch, bundle, data):
    """The reader of other tools' archives takes more, but raises nothing else."""
    scratch.write_bytes(data)

    try:
        imported = import_layout(scratch, scratch.with_suffix(".imported"))
    except BundleError as exc:
        assert str(exc).isprintable()
    else:
        assert bundle.digest == imported.digest
        assert bundle.contract == imported.contract


@given(st.binary(max_size=400))
def test_any_bytes_as_documents_give_a_bundle_error(data):
    """Contract and manifest parsers raise nothing else."""
    for parse in (parse_contract, blobs_of_manifest):
        with pytest.raises(BundleError):
            parse(data)


@settings(max_examples=300)
@given(edits())
def test_a_changed_contract_is_refused_or_rendered_alike(edit):
    """What a reader takes, a writer can write, and it reads back equal."""
    import json

    document = json.loads(render_contract(small_contract()))
    edit(document)
    try:
        contract = parse_contract(dump(document))
    except BundleError:
        return

    assert contract == parse_contract(render_contract(contract))
