"""What a workstation and a device agree on: default ids, signed wheels, where files lie."""

import doctest
import json
from pathlib import Path

import pytest

import edgepack.wire.device_id
from edgepack.trust import RELEASE, PrivateKey, Role, Root, SignatureError, keygen, sign_root
from edgepack.trust.errors import EdgepackError
from edgepack.wire.device_id import default_device_id
from edgepack.wire.errors import WheelhouseError
from edgepack.wire.installation import Installation
from edgepack.wire.topics import check_id
from edgepack.wire.wheelhouse import (
    MANIFEST_NAME,
    check_wheels,
    copy_wheels,
    open_wheelhouse,
    parse_wheelhouse,
    render_wheelhouse,
    sign_wheelhouse,
)

MACHINE = "9a1d0c5f7b3e4d2a8c6b0f1e2d3c4b5a"
AGENT_WHEEL = "edgepack-0.2.0-py3-none-any.whl"


@pytest.fixture
def keys(tmp_path):
    return keygen(tmp_path / "keys")


@pytest.fixture
def house(tmp_path, keys):
    """A folder of wheels that the release key signed."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    (folder / AGENT_WHEEL).write_bytes(b"agent" * 1000)
    (folder / "h11-0.16.0-py3-none-any.whl").write_bytes(b"h11")
    sign_wheelhouse(folder, [PrivateKey.load(keys.release_key)], sequence=7)
    return folder


def test_the_example_of_a_default_id_is_right():
    """It is what the docstring says."""
    assert (0, 1) == doctest.testmod(edgepack.wire.device_id)[:2]


@pytest.mark.parametrize(
    "host", ["raspberrypi", "a" * 200, "", "-", "ä ö", "blob", "x.y.z", "_", "a\nb", "+/#"]
)
@pytest.mark.parametrize("machine", [MACHINE, "", MACHINE.upper() + "\n"])
def test_a_default_id_is_always_a_valid_one(host, machine):
    """Whatever the device is called."""
    made = default_device_id(host, machine)
    assert made == check_id(made, what="device id")


def test_two_devices_of_one_image_have_two_ids():
    """And one device always has the same."""
    other = default_device_id("raspberrypi", MACHINE.replace("9", "8"))
    assert other != default_device_id("raspberrypi", MACHINE)
    assert default_device_id("raspberrypi", MACHINE) == default_device_id(
        "raspberrypi.local", MACHINE + "\n"
    )


def test_every_file_of_an_installation_lies_under_its_root():
    """So that tests and images touch nothing else."""
    here = Installation(Path("/some/where"))
    names = [name for name in vars(Installation) if isinstance(vars(Installation)[name], property)]
    assert len(names) >= 10
    for name in names:
        assert getattr(here, name).is_relative_to("/some/where"), name


def test_a_signed_wheelhouse_is_read_back(house, keys, tmp_path):
    """With its version, and its wheels can be copied."""
    found = open_wheelhouse(house, Root.load(keys.root_json))
    assert ("0.2.0", 7, 2) == (found.version, found.sequence, len(found.wheels))
    assert found == parse_wheelhouse(render_wheelhouse(found))
    check_wheels(house, found)
    (house / "stranger-1-py3-none-any.whl").write_bytes(b"not signed")
    target = tmp_path / "copied"
    target.mkdir()
    copy_wheels(house, found, target)
    assert [wheel.name for wheel in found.wheels] == sorted(p.name for p in target.iterdir())


@pytest.mark.parametrize("harm", ["changed", "longer", "shorter", "missing"])
def test_a_wheel_that_is_not_the_signed_one_is_refused(house, keys, tmp_path, harm):
    """Whatever was done to it."""
    wheel = house / AGENT_WHEEL
    data = wheel.read_bytes()
    new = {"changed": b"x" + data[1:], "longer": data + b"x", "shorter": data[:-1]}
    if harm == "missing":
        wheel.unlink()
    else:
        wheel.write_bytes(new[harm])
    found = open_wheelhouse(house, Root.load(keys.root_json))
    for check in (lambda: check_wheels(house, found), lambda: copy_wheels(house, found, tmp_path)):
        with pytest.raises(WheelhouseError, match=AGENT_WHEEL):
            check()


@pytest.mark.parametrize("role", ["deploy", "root", "stranger"])
def test_only_the_release_role_signs_wheels(house, keys, tmp_path, role):
    """No other key of ours counts, and no stranger's."""
    signer = {
        "deploy": keys.deploy_key,
        "root": keys.root_key,
        "stranger": keygen(tmp_path / "other").release_key,
    }[role]
    (house / MANIFEST_NAME).unlink()
    sign_wheelhouse(house, [PrivateKey.load(signer)], sequence=7)
    with pytest.raises(SignatureError):
        open_wheelhouse(house, Root.load(keys.root_json))


@pytest.mark.parametrize(
    ("models", "allowed"), [(("press-*",), False), (("press-*", "edgepack-agent"), True)]
)
def test_a_release_role_for_some_models_signs_no_agent(house, keys, models, allowed):
    """Unless it names the agent, too."""
    old = Root.load(keys.root_json)
    roles = {**old.roles, RELEASE: Role(keys=old.roles[RELEASE].keys, threshold=1, models=models)}
    signer = PrivateKey.load(keys.root_key)
    root = Root.parse(sign_root(version=1, keys=old.keys.values(), roles=roles, signers=[signer]))
    if allowed:
        assert "0.2.0" == open_wheelhouse(house, root).version
    else:
        with pytest.raises(SignatureError, match="may sign models press-"):
            open_wheelhouse(house, root)


def test_a_second_key_adds_its_signature(house, keys, tmp_path):
    """So that a threshold of two can be reached; another content begins anew."""
    second = PrivateKey.load(keygen(tmp_path / "second").release_key)
    sign_wheelhouse(house, [second], sequence=7)
    signatures = json.loads((house / MANIFEST_NAME).read_bytes())["signatures"]
    assert 2 == len(signatures)
    sign_wheelhouse(house, [second], sequence=8)
    assert 1 == len(json.loads((house / MANIFEST_NAME).read_bytes())["signatures"])


@pytest.mark.parametrize(
    "field",
    [
        {"wheels": [{"name": "../x-1-py3-none-any.whl", "digest": "sha256:" + "0" * 64}]},
        {"wheels": []},
        {"version": "../../etc"},
        {"format": 2},
        {"requirements": ["--index-url=x"]},
        {"requirements": ["edgepack @ file:///x"]},
    ],
)
def test_a_malformed_manifest_is_refused(house, keys, field):
    """No path leaves the folder, no option reaches pip."""
    good = open_wheelhouse(house, Root.load(keys.root_json))
    document = {**json.loads(render_wheelhouse(good)), **field}
    for wheel in document["wheels"]:
        wheel.setdefault("size_bytes", 1)
    with pytest.raises(WheelhouseError):
        parse_wheelhouse(json.dumps(document).encode())


def test_a_folder_without_the_agent_is_not_signed(tmp_path, keys):
    """Nor one with two versions of it, nor one without a manifest read."""
    key = PrivateKey.load(keys.release_key)
    with pytest.raises(WheelhouseError, match="got none"):
        sign_wheelhouse(tmp_path, [key], sequence=1)
    for version in ("0.1.0", "0.2.0"):
        (tmp_path / f"edgepack-{version}-py3-none-any.whl").write_bytes(b"x")
    with pytest.raises(WheelhouseError, match=r"got 0\.1\.0, 0\.2\.0"):
        sign_wheelhouse(tmp_path, [key], sequence=1)
    with pytest.raises(EdgepackError, match="got none"):
        open_wheelhouse(tmp_path, Root.load(keys.root_json))
