"""The root of trust: roles, thresholds, rotation."""

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgepack.trust import (
    DEPLOY,
    RELEASE,
    ROOT,
    ROOT_PAYLOAD_TYPE,
    KeyFileError,
    PrivateKey,
    Role,
    Root,
    RootError,
    SignatureError,
    dsse,
    sign_root,
)
from edgepack.trust.strict_json import render

TYPE = "application/vnd.test+json"
KEYS = [PrivateKey(bytes([n]) * 32) for n in range(8)]
ROOT_1, ROOT_2, RELEASE_1, RELEASE_2, DEPLOY_1, NEW_1, NEW_2, STRANGER = KEYS


def role(*keys: PrivateKey, threshold: int = 1, models: tuple[str, ...] | None = None) -> Role:
    return Role(keys=tuple(key.public.key_id for key in keys), threshold=threshold, models=models)


ROLES = {
    ROOT: role(ROOT_1, ROOT_2, threshold=2),
    RELEASE: role(RELEASE_1, RELEASE_2),
    DEPLOY: role(DEPLOY_1),
}


def made(*, version: int = 1, signers=(ROOT_1, ROOT_2), **roles: Role) -> bytes:
    return sign_root(
        version=version,
        keys=[key.public for key in KEYS],
        roles={**ROLES, **roles},
        signers=signers,
    )


def test_a_role_verifies_what_its_key_signed_and_no_other_role_does():
    """A release key cannot deploy, and a deploy key cannot release."""
    root = Root.parse(made())
    envelope = dsse.sign(b"x", TYPE, [RELEASE_1])

    assert b"x" == root.verify(RELEASE, envelope, TYPE)
    for other in (ROOT, DEPLOY):
        with pytest.raises(SignatureError, match=f"role {other}: must be signed by"):
            root.verify(other, envelope, TYPE)


def test_a_threshold_counts_different_keys():
    """Two keys of two are enough, one is not."""
    root = Root.parse(made(release=role(RELEASE_1, RELEASE_2, threshold=2)))

    assert b"x" == root.verify(RELEASE, dsse.sign(b"x", TYPE, [RELEASE_1, RELEASE_2]), TYPE)
    with pytest.raises(SignatureError, match="signed by 2 of"):
        root.verify(RELEASE, dsse.sign(b"x", TYPE, [RELEASE_1]), TYPE)


@pytest.mark.parametrize(
    ("patterns", "model", "allowed"),
    [
        (None, "pump", True),
        (("*",), "pump", True),
        (("pump-*", "fan"), "pump-a", True),
        (("pump-*", "fan"), "fan", True),
        (("pump-*", "fan"), "fan2", False),
        (("pump-?",), "pump-10", False),
        (("Pump",), "pump", False),
    ],
)
def test_a_release_role_may_be_bound_to_model_names(patterns, model, allowed):
    """A name that no pattern matches is refused although the signature is good."""
    root = Root.parse(made(release=role(RELEASE_1, models=patterns)))
    envelope = dsse.sign(b"x", TYPE, [RELEASE_1])

    if allowed:
        assert b"x" == root.verify(RELEASE, envelope, TYPE, model=model)
    else:
        with pytest.raises(SignatureError, match="may sign models"):
            root.verify(RELEASE, envelope, TYPE, model=model)


def test_a_root_that_too_few_of_its_own_keys_signed_is_refused():
    """A root vouches for itself first."""
    with pytest.raises(RootError, match="not signed by its own root role"):
        Root.parse(made(signers=(ROOT_1, STRANGER)))


def test_a_new_root_takes_over():
    """Signed under the old role and the new one, it is taken, and its keys count."""
    new = made(version=2, signers=(ROOT_1, ROOT_2, NEW_1), root=role(NEW_1), release=role(NEW_2))

    root = Root.parse(made()).update(new)

    assert 2 == root.version
    assert b"x" == root.verify(RELEASE, dsse.sign(b"x", TYPE, [NEW_2]), TYPE)
    with pytest.raises(SignatureError):
        root.verify(RELEASE, dsse.sign(b"x", TYPE, [RELEASE_1]), TYPE)


@pytest.mark.parametrize(
    ("signers", "message"),
    [
        ((NEW_1,), "not signed by the root role of version 1"),
        ((ROOT_1, NEW_1), "not signed by the root role of version 1"),
        ((ROOT_1, ROOT_2), "not signed by its own root role"),
    ],
)
def test_a_new_root_needs_the_old_threshold_and_the_new(signers, message):
    """Neither the new keys alone nor the old keys alone can replace a root."""
    new = made(version=2, signers=signers, root=role(NEW_1))

    with pytest.raises(RootError, match=message):
        Root.parse(made()).update(new)


@pytest.mark.parametrize("version", [1, 3])
def test_the_next_root_has_the_next_version(version):
    """Neither an old root nor one that skips is taken."""
    with pytest.raises(RootError, match=f"must have version 2, got {version}"):
        Root.parse(made()).update(made(version=version))


def test_signatures_of_a_root_can_be_collected():
    """The keys of a threshold need never meet."""
    partly = made(signers=(ROOT_1,))

    assert 1 == Root.parse(dsse.add_signatures(partly, ROOT_PAYLOAD_TYPE, [ROOT_2])).version


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"version": 0}, "version must be 1 to"),
        ({"release": role(RELEASE_1, RELEASE_1)}, "role release names a key twice"),
        ({"release": role(RELEASE_1, threshold=2)}, "threshold must be 1 to 1, got 2"),
        ({"release": role(RELEASE_1, threshold=0)}, "threshold must be 1 to 1, got 0"),
        ({"release": Role(keys=())}, "role release: threshold"),
        ({"release": Role(keys=("ab",))}, "unknown key 'ab'"),
        ({"release": role(RELEASE_1, models=())}, "models must be 1 to 64 patterns"),
        ({"release": role(RELEASE_1, models=("a b",))}, "models must be"),
        ({"deploy": role(DEPLOY_1, models=("*",))}, "role deploy must not have models"),
    ],
)
def test_a_root_that_does_not_hold_together_cannot_be_made(changes, message):
    """Every breach of the rules is told before anything is signed."""
    with pytest.raises(RootError, match=message):
        made(**changes)


def document() -> dict:
    return json.loads(dsse.unverified_payload(made(), ROOT_PAYLOAD_TYPE))


def signed(value: object) -> bytes:
    return dsse.sign(render(value), ROOT_PAYLOAD_TYPE, [ROOT_1, ROOT_2])


def _without_role(value: dict) -> None:
    del value["roles"]["deploy"]


def _other_key_id(value: dict) -> None:
    value["keys"]["0" * 64] = next(iter(value["keys"].values()))


def _other_key_type(value: dict) -> None:
    next(iter(value["keys"].values()))["type"] = "rsa"


def _short_key(value: dict) -> None:
    next(iter(value["keys"].values()))["public"] = "abcd"


def _major_format(value: dict) -> None:
    value["format"] = "2.0"


def _no_format(value: dict) -> None:
    del value["format"]


def _text_version(value: dict) -> None:
    value["version"] = "1"


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (_without_role, "role deploy is missing"),
        (_other_key_id, "SHA-256 of its bytes"),
        (_other_key_type, "type ed25519, got 'rsa'"),
        (_short_key, "32 bytes in lower-case hex"),
        (_major_format, "format must be 1.x, got '2.0'"),
        (_no_format, "missing field at format"),
        (_text_version, "expected int, got str '1' at version"),
    ],
)
def test_a_signed_root_must_obey_the_rules_all_the_same(edit, message):
    """Being signed does not make a document right."""
    value = document()
    edit(value)

    with pytest.raises(RootError, match=message):
        Root.parse(signed(value))


def test_unknown_keys_of_a_later_minor_format_are_ignored():
    """A newer writer may add to the document."""
    value = {**document(), "format": "1.7", "comment": "added later"}

    assert 1 == Root.parse(signed(value)).version


@given(st.binary(max_size=300))
def test_any_bytes_give_a_root_error(data):
    """Nothing that is not a root passes, and nothing else is raised."""
    with pytest.raises(RootError):
        Root.parse(data)


@given(st.data())
def test_no_change_of_a_root_gives_another_root(data):
    """Whatever is changed: the same root, or RootError."""
    whole = made()
    start = data.draw(st.integers(0, len(whole)))
    end = data.draw(st.integers(start, min(len(whole), start + 2)))
    changed = whole[:start] + data.draw(st.binary(max_size=2)) + whole[end:]

    try:
        root = Root.parse(changed)
    except RootError:
        return
    assert Root.parse(whole) == dataclasses.replace(root, data=whole)


def test_a_root_is_loaded_from_a_bounded_file(tmp_path):
    """What is in the file is parsed; a file that is too large is not read."""
    (tmp_path / "root.json").write_bytes(made())
    (tmp_path / "huge.json").write_bytes(bytes(65 * 1024))

    assert Root.parse(made()) == Root.load(tmp_path / "root.json")
    with pytest.raises(KeyFileError, match="at most 65536 bytes"):
        Root.load(tmp_path / "huge.json")
    with pytest.raises(KeyFileError, match="No such file"):
        Root.load(tmp_path / "none.json")
