"""`edgepack root`: a key is lost or stolen, thresholds, several signers, and the broker."""

import pytest
from support.fake_device import FakeDevice, in_background

from edgepack.trust import DEPLOY, RELEASE, ROOT, PrivateKey, Root, keygen
from edgepack.wire.topics import root_topic


def public(path):
    return PrivateKey.load(path).public.key_id


def broker_options(broker, prefix):
    return ["--broker", broker.url, "--prefix", prefix]


def test_a_stolen_deploy_key_is_replaced_in_two_commands(edgepack, keys, bundle, broker, prefix):
    """Rotate and publish; then the new key deploys, and the old one is put away, not deleted."""
    old = public(keys / "deploy.key")
    rotated = edgepack("root", "rotate", "--new", "deploy", "--keys", keys)
    assert (0, True) == (rotated.code, "root.json version 2, signed" in rotated.out), rotated
    assert old == public(keys / "deploy.key")
    options = ["--keys", keys, *broker_options(broker, prefix)]
    published = edgepack("root", "publish", *options, "--json")
    assert (0, 2, [2]) == (
        published.code,
        published.document["version"],
        published.document["sent"],
    ), published.err
    root = Root.load(keys / "root.json")
    assert (public(keys / "deploy.key"),) == root.roles[DEPLOY].keys
    assert (old, 1) == (public(keys / "deploy.1.key"), Root.load(keys / "root.1.json").version)
    assert [] == edgepack("root", "publish", *options, "--json").document["sent"]
    with in_background(FakeDevice(broker.url, prefix)):
        one = ["--device", "dev-1", "--wait", "--timeout", "20"]
        assert 0 == edgepack("deploy", bundle, *options, *one).code


def test_what_a_retired_key_has_signed_is_taken_over_only_when_asked(
    edgepack, keys, bundle, broker, prefix
):
    """After a planned rotation nobody has to list every model again; after a theft one must."""
    options = ["--keys", keys, *broker_options(broker, prefix), "--device", "dev-1"]
    assert 0 == edgepack("deploy", bundle, *options).code
    edgepack("root", "rotate", "--new", "deploy", "--keys", keys)
    assert 0 == edgepack("root", "adopt", keys / "root.2.json", "--keys", keys).code
    refused = edgepack("remove", "tiny", *options)
    assert (5, True) == (refused.code, "--keep-retired takes over" in refused.err)
    assert 0 == edgepack("deploy", bundle, *options, "--keep-retired").code
    assert 0 == edgepack("deploy", bundle, *options).code


def test_thresholds_need_signers_on_several_machines(edgepack, keys, tmp_path):
    """Two of two root keys: each machine adds its signature, and the tool says what lacks."""
    second = keygen(tmp_path / "second").root_key
    add = ["--add", f"root={second}", "--threshold", "root=2", "--models", "press-*,digits"]
    rotated = edgepack("root", "rotate", *add, "--keys", keys, "--json")
    assert (0, {"old": 0, "new": 1}) == (rotated.code, rotated.document["lacking"]), rotated.err
    early = edgepack("root", "adopt", keys / "root.2.json", "--keys", keys)
    assert (5, True) == (early.code, "must be signed by 2 of the trusted keys" in early.err)
    shown = edgepack("root", "show", keys / "root.2.json", "--keys", keys)
    assert "version 2, lacks 1 signature of the new root role" in shown.out
    assert "release  1 of 1 key, models press-*, digits" in shown.out
    stranger = keygen(tmp_path / "stranger").root_key
    sign = ["root", "sign", keys / "root.2.json", "--keys", keys, "--sign-with"]
    refused = edgepack(*sign, stranger)
    assert (5, True) == (refused.code, "is in no root role" in refused.err)
    signed = edgepack(*sign, second, "--json")
    assert (0, {"old": 0, "new": 0}) == (signed.code, signed.document["lacking"])
    assert 0 == edgepack("root", "adopt", keys / "root.2.json", "--keys", keys).code
    alone = edgepack("root", "rotate", "--new", "release", "--keys", keys, "--json")
    assert {"old": 1, "new": 1} == alone.document["lacking"]


def test_a_threshold_of_deploy_keys_needs_them_all(edgepack, keys, bundle, mosquitto, prefix):
    """One key is not enough; two are."""
    second = keygen(keys.parent / "second").deploy_key
    add = ["--add", f"deploy={second}", "--threshold", "deploy=2"]
    assert 0 == edgepack("root", "rotate", *add, "--keys", keys).code
    assert 0 == edgepack("root", "adopt", keys / "root.2.json", "--keys", keys).code
    options = ["--keys", keys, *broker_options(mosquitto, prefix), "--device", "dev-1"]
    alone = edgepack("deploy", bundle, *options)
    assert (5, True) == (alone.code, "must be signed by 2 of" in alone.err)
    assert 0 == edgepack("deploy", bundle, *options, "--sign-with", second).code


def test_a_lost_root_key_is_replaced_with_the_other_one(edgepack, keys, tmp_path):
    """With two root keys of which one is enough, losing one is mended with the other."""
    second = keygen(tmp_path / "second").root_key
    edgepack("root", "rotate", "--add", f"root={second}", "--keys", keys)
    edgepack("root", "adopt", keys / "root.2.json", "--keys", keys)
    lost = public(keys / "root.key")
    (keys / "root.key").unlink()
    without = edgepack("root", "rotate", "--remove", lost[:10], "--keys", keys)
    assert (5, True) == (without.code, "no root key is at hand" in without.err)
    rotate = ["root", "rotate", "--new", "root", "--remove", lost[:10], "--sign-with", second]
    assert 0 == edgepack(*rotate, "--keys", keys).code
    adopted = edgepack("root", "adopt", keys / "root.3.json", "--keys", keys)
    assert (0, True) == (adopted.code, "the new root key is in use" in adopted.out)
    root = Root.load(keys / "root.json")
    assert {public(keys / "root.key"), public(second)} == set(root.roles[ROOT].keys)
    assert lost not in root.keys


def test_an_interrupted_adoption_is_finished_by_the_next_one(edgepack, keys):
    """root.json was exchanged and the power went: the keys follow later."""
    edgepack("root", "rotate", "--new", "deploy", "--new", "release", "--keys", keys)
    (keys / "root.json").write_bytes((keys / "root.2.json").read_bytes())
    again = edgepack("root", "adopt", keys / "root.2.json", "--keys", keys, "--json")
    assert (0, {"deploy", "release"}) == (again.code, set(again.document["keys"])), again.err
    root = Root.load(keys / "root.json")
    for role in (DEPLOY, RELEASE):
        assert (public(keys / f"{role}.key"),) == root.roles[role].keys


@pytest.mark.parametrize(
    ("options", "code", "expected"),
    [
        (["--threshold", "deploy=3"], 5, "threshold must be 1 to 1, got 3"),
        (["--threshold", "deploy"], 2, "--threshold must be ROLE=…"),
        (["--threshold", "deploy=x"], 2, "--threshold must be ROLE=N"),
        (["--remove", "ab"], 5, "named by 8 or more characters"),
        (["--remove", "0" * 64], 5, "that only one key of the root has"),
        (["--add", "deploy=" + "x" * 64], 2, "must name a key in hex"),
        (["--add", "nobody=1"], 2, "--add must be ROLE=…"),
        (["--models", "a b"], 5, "models must be 1 to 64 patterns"),
        ([], 5, "must change something"),
    ],
)
def test_a_change_that_cannot_be_is_one_line(edgepack, keys, options, code, expected):
    """And nothing is written."""
    ended = edgepack("root", "rotate", *options, "--keys", keys)
    assert (code, True) == (ended.code, expected in ended.err), ended
    assert not (keys / "root.2.json").exists()


def test_preparing_a_version_twice_overwrites_nothing(edgepack, keys):
    """The second rotate names the file that stands in its way."""
    edgepack("root", "rotate", "--new", "deploy", "--keys", keys)
    before = (keys / "root.2.json").read_bytes()
    again = edgepack("root", "rotate", "--new", "deploy", "--keys", keys)
    assert (5, True) == (again.code, "version 2 is being prepared" in again.err)
    assert before == (keys / "root.2.json").read_bytes()


def test_the_first_root_is_not_published(edgepack, keys, mosquitto, prefix):
    """Devices are given it by hand; a broker that could hand it out could hand out another."""
    options = ["--keys", keys, *broker_options(mosquitto, prefix)]
    ended = edgepack("root", "publish", *options)
    assert (2, True) == (ended.code, "nothing to publish" in ended.err)
    assert f"{prefix}/blob/root/1" == root_topic(prefix, 1)
