"""keygen: three private keys and the root that binds them."""

import stat

import pytest

from edgepack.trust import (
    DEPLOY,
    RELEASE,
    ROOT,
    KeyFileError,
    PrivateKey,
    Root,
    SignatureError,
    dsse,
    keygen,
)
from edgepack.trust.generate import key_path

TYPE = "application/vnd.test+json"
FILES = ["deploy.key", "release.key", "root.json", "root.key"]


def test_keygen_makes_three_keys_and_a_root(tmp_path):
    """Private keys are for their owner only, and each signs for its own role only."""
    keys = keygen(tmp_path / "keys")

    assert FILES == sorted(path.name for path in (tmp_path / "keys").iterdir())
    for path in (keys.root_key, keys.release_key, keys.deploy_key):
        assert 0o600 == stat.S_IMODE(path.stat().st_mode)
    root = Root.load(keys.root_json)
    assert root == keys.root
    for role, path in (
        (ROOT, keys.root_key),
        (RELEASE, keys.release_key),
        (DEPLOY, keys.deploy_key),
    ):
        assert path == key_path(tmp_path / "keys", role)
        envelope = dsse.sign(b"x", TYPE, [PrivateKey.load(path)])
        for other in (ROOT, RELEASE, DEPLOY):
            if other == role:
                assert b"x" == root.verify(other, envelope, TYPE)
            else:
                with pytest.raises(SignatureError):
                    root.verify(other, envelope, TYPE)


def test_every_keygen_makes_other_keys(tmp_path):
    """Nothing is derived from anything."""
    first, second = keygen(tmp_path / "a"), keygen(tmp_path / "b")

    assert not first.root.keys.keys() & second.root.keys.keys()


@pytest.mark.parametrize("name", FILES)
def test_keygen_never_overwrites(tmp_path, name):
    """If one of its files is there, none is touched and none is made."""
    (tmp_path / name).write_text("precious")

    with pytest.raises(KeyFileError, match=f"{name} is there already"):
        keygen(tmp_path)

    assert [name] == [path.name for path in tmp_path.iterdir()]
    assert "precious" == (tmp_path / name).read_text()


def test_keygen_leaves_nothing_behind_when_it_fails(tmp_path, monkeypatch):
    """A disk that fills up at the last file leaves no keys without a root."""
    monkeypatch.setattr("edgepack.trust.generate.write_new", _disk_full)

    with pytest.raises(KeyFileError, match="No space left"):
        keygen(tmp_path / "keys")

    assert [] == list((tmp_path / "keys").iterdir())


def _disk_full(path, data, *, mode):
    raise KeyFileError(f"cannot write {path}: No space left on device")


def test_a_folder_that_cannot_be_made_is_told(tmp_path):
    """A file in the way is one line, not a traceback."""
    (tmp_path / "file").write_text("")

    with pytest.raises(KeyFileError, match="cannot make the folder"):
        keygen(tmp_path / "file" / "keys")
