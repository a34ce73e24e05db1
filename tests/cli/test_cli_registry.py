"""`edgepack push` and `pull` at Debian's registry."""

import json

import pytest
from support.tiny_bundle import write_tiny_bundle

from edgepack.bundle import open_bundle


@pytest.fixture
def bundle(tmp_path):
    return write_tiny_bundle(tmp_path)


def test_push_and_pull(edgepack, registry, bundle, tmp_path, monkeypatch):
    """Each says what it did in a line or an object; the file comes back as it was."""
    reference = f"oci://{registry.host}/team/tiny"
    pushed = edgepack("push", bundle, reference)
    assert (0, "") == (pushed.code, pushed.err)
    assert pushed.out.startswith(f"{reference}:1.0.0: ")
    again = edgepack("push", bundle, f"{reference}:stable", "--json").document
    assert (0, f"{reference}:stable") == (again["sent_bytes"], again["reference"])
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    pulled = edgepack("pull", f"{reference}:stable", "--json").document
    assert {
        "path": "tiny-1.0.0.edgepack",
        "digest": open_bundle(bundle).digest,
        "signatures": 0,
    } == (pulled)
    assert bundle.read_bytes() == (tmp_path / "here" / "tiny-1.0.0.edgepack").read_bytes()
    named = edgepack("pull", f"{reference}:1.0.0", "-o", "other.edgepack")
    assert 0 == named.code
    assert "other.edgepack: tiny 1.0.0, 0 signatures (not verified)" in named.out
    assert ["other.edgepack", "tiny-1.0.0.edgepack"] == sorted(
        path.name for path in (tmp_path / "here").iterdir()
    )


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["pull", "http://x/y"], 2, "must be oci://"),
        (["pull", "oci://HOST/none:1"], 2, "is not there"),
        (["pull", "oci://HOST/none"], 2, "must name a tag or a digest"),
        (["pull", "oci://127.0.0.1:1/none:1"], 7, "refused"),
        (["push", "BUNDLE", "oci://127.0.0.1:1/none"], 7, "refused"),
        (["push", "BUNDLE", "oci://HOST/x@sha256:" + "0" * 64], 2, "must be for"),
        (["push", "/nowhere", "oci://HOST/x"], 4, "cannot read"),
        (["push", "BUNDLE", "oci://HOST/x", "--credentials", "/nowhere"], 2, "credentials"),
        (["push", "BUNDLE", "oci://HOST/x", "--ca-file", "/nowhere"], 2, "--ca-file"),
    ],
)
def test_what_goes_wrong_is_one_line(edgepack, registry, bundle, arguments, code, told):
    """With the documented exit code."""
    given = [
        str(bundle) if one == "BUNDLE" else one.replace("HOST", registry.host) for one in arguments
    ]
    ended = edgepack(*given)
    assert code == ended.code
    assert told in ended.err
    assert ended.err.count("\n") <= 2  # a line, perhaps a hint


def test_what_is_there_is_not_overwritten(edgepack, registry, bundle, tmp_path):
    """A file of that name stays."""
    reference = f"oci://{registry.host}/tiny"
    edgepack("push", bundle, reference)
    (tmp_path / "x").write_text("mine")
    assert 2 == edgepack("pull", f"{reference}:1.0.0", "-o", tmp_path / "x").code
    assert "mine" == (tmp_path / "x").read_text()


def test_a_docker_login_is_used(edgepack, registry, bundle, tmp_path, monkeypatch):
    """`$DOCKER_CONFIG/config.json`, where it is."""
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    (tmp_path / "config.json").write_text(json.dumps({"auths": 3}))
    ended = edgepack("push", bundle, f"oci://{registry.host}/tiny")
    assert (2, True) == (ended.code, "config.json" in ended.err)
