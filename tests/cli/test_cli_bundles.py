"""keygen, inspect, verify, sign, extract and import, as a person calls them."""

import json
import stat
import tarfile

import pytest
from support.tiny_bundle import write_tiny_bundle

from edgepack.bundle import open_bundle


def test_keygen_makes_private_keys_that_only_their_owner_reads(edgepack, keys):
    """Three keys with mode 0600 and one public file; they are never overwritten."""
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in keys.iterdir()}
    private = ["deploy.key", "release.key", "root.key"]
    assert [*private, "root.json"] == sorted(modes, key=lambda name: (name == "root.json", name))
    assert {0o600} == {modes[name] for name in private}
    again = edgepack("keygen", keys)
    assert (5, "never overwritten" in again.err) == (again.code, True)


def test_inspect_shows_the_contract(edgepack, bundle):
    """Inputs, outputs, classes, variants and files are there, as text and as JSON."""
    ended = edgepack("inspect", bundle)
    assert 0 == ended.code
    for expected in ("tiny 1.0.0", "air_temp", "ok, worn, broken", "onnx-fp32", "contract.json"):
        assert expected in ended.out
    facts = edgepack("inspect", bundle, "--json").document
    opened = open_bundle(bundle)
    assert (opened.digest, 1) == (facts["digest"], len(facts["signatures"]))
    assert bundle.stat().st_size == facts["size_bytes"]
    assert "tiny" == facts["contract"]["name"]


def test_verify_takes_the_right_root_only(edgepack, bundle, keys, tmp_path):
    """The root that vouches ends with 0, another with 5, an unsigned bundle with 5."""
    right = edgepack("verify", bundle, "--root", keys / "root.json")
    assert (0, True) == (right.code, "sequence 100" in right.out)
    statement = edgepack("verify", bundle, "--root", keys / "root.json", "--json").document
    assert {
        "name": "tiny",
        "version": "1.0.0",
        "sequence": 100,
        "digest": open_bundle(bundle).digest,
    } == statement
    edgepack("keygen", tmp_path / "others")
    assert 5 == edgepack("verify", bundle, "--root", tmp_path / "others" / "root.json").code
    unsigned = write_tiny_bundle(tmp_path, name="unsigned")
    assert 5 == edgepack("verify", unsigned, "--root", keys / "root.json").code


def test_a_flipped_bit_is_a_bad_bundle(edgepack, bundle, keys):
    """A bundle with one bit changed is refused with code 4."""
    data = bytearray(bundle.read_bytes())
    data[len(data) // 2] ^= 1
    bundle.write_bytes(data)
    assert 4 == edgepack("verify", bundle, "--root", keys / "root.json").code


def test_sign_adds_a_signature_and_keeps_the_digest(edgepack, bundle, tmp_path, monkeypatch):
    """A second key's signature is added; the sequence comes from flag, environment or clock."""
    before = open_bundle(bundle).digest
    edgepack("keygen", tmp_path / "others")
    signed = edgepack(
        "sign", bundle, "--keys", tmp_path / "others", "--sequence", "200", "--json"
    ).document
    assert {"digest": before, "sequence": 200, "signatures": 2} == signed
    root = tmp_path / "others" / "root.json"
    assert 200 == edgepack("verify", bundle, "--root", root, "--json").document["sequence"]
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "yesterday")
    assert 2 == edgepack("sign", bundle, "--keys", tmp_path / "others").code


def test_extract_writes_ordinary_files(edgepack, bundle, tmp_path):
    """Every variant's model and the contract become files; a full folder is not touched."""
    folder = tmp_path / "out"
    assert 0 == edgepack("extract", bundle, folder).code
    contract = json.loads((folder / "contract.json").read_text())
    assert "tiny" == contract["name"]
    opened = open_bundle(bundle)
    model = (folder / "onnx-fp32" / "model.onnx").read_bytes()
    assert opened.read("onnx-fp32/model.onnx") == model
    assert 2 == edgepack("extract", bundle, folder).code


@pytest.mark.parametrize("named", [True, False])
def test_import_makes_the_same_bundle_of_a_layout(edgepack, bundle, tmp_path, monkeypatch, named):
    """A layout that another tool unpacked becomes the canonical file again."""
    layout = tmp_path / "layout"
    with tarfile.open(bundle) as tar:
        tar.extractall(layout, filter="data")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    arguments = ["-o", "mine.edgepack"] if named else []
    ended = edgepack("import", layout, *arguments, "--json")
    path = tmp_path / "here" / ("mine.edgepack" if named else "tiny-1.0.0.edgepack")
    assert (0, open_bundle(bundle).digest) == (ended.code, ended.document["digest"])
    assert bundle.read_bytes() == path.read_bytes()
    assert [path.name] == [one.name for one in path.parent.iterdir()]
    assert 2 == edgepack("import", layout, *arguments).code
