"""What deploy tells an operator about a device, and what it makes of a device that forgot."""

from dataclasses import replace

import pytest

from edgepack.fleet import TargetError
from edgepack.fleet.desired_state import MergePolicy, Signer, plan
from edgepack.fleet.devices import DeviceState
from edgepack.fleet.remarks import remarks
from edgepack.trust import DEPLOY, RELEASE, ROOT, PrivateKey, Role, Root, sign_root
from edgepack.wire import DesiredModel, Info, Release, Reported, ReportedModel
from edgepack.wire.desired import MAX_GENERATION

A = "sha256:" + "a" * 64
KEY = PrivateKey(bytes([1]) * 32)
ONE = Release(digest=A, version="1.0.0", sequence=70)
MODEL = DesiredModel(name="digits", version="1.0.0", digest=A, floor=50)
REPORTED = Reported(
    device="d",
    generation=4,
    models=(ReportedModel(name="digits", phase="confirmed", active=ONE, confirmed=ONE, floor=50),),
    root_version=1,
)
STATE = DeviceState(
    device="d", info=Info(device="d", agent_version="0", instance="i"), reported=REPORTED
)


def told(state, **options):
    return list(remarks(state, [MODEL], root_version=1, model="digits", sequence=70, **options))


def test_a_device_in_order_is_no_remark():
    """Nothing is said of what is as it should be."""
    assert [] == told(STATE)


def test_a_floor_that_went_down_is_told():
    """The device confirmed the version, and yet does not know the floor that came with it."""
    (model,) = REPORTED.models
    lower = replace(REPORTED, models=(replace(model, floor=10),))
    expected = "d: its floor of digits went down from 50 to 10; it is sent again"
    assert [expected] == told(replace(STATE, reported=lower))
    before = replace(REPORTED, models=(replace(model, floor=10, confirmed=None),))
    assert [] == told(replace(STATE, reported=before))


def test_a_floor_above_the_bundle_is_told():
    """The device would refuse it: better said before the upload."""
    (model,) = REPORTED.models
    higher = replace(REPORTED, models=(replace(model, floor=90),))
    (line,) = told(replace(STATE, reported=higher))
    assert "takes nothing of digits that was signed before 90; this bundle was at 70" in line


def test_a_device_that_was_installed_anew_is_told():
    """With the floors that the signed state carries to it again."""
    info = replace(STATE.info, replaces="0123")
    expected = "d: was installed anew and has forgotten its floors; sent again: digits 50"
    assert [expected] == told(replace(STATE, info=info))


def test_another_root_and_notices_are_told():
    """A device that is behind or ahead of this workstation, and what it says itself."""
    ahead = replace(REPORTED, root_version=3, notices={"clock": "says 1970"})
    assert ["root.json version 3", "d: clock: says 1970"] == [
        line.removeprefix("d: follows ").partition(",")[0]
        for line in told(replace(STATE, reported=ahead))
    ]
    (behind,) = remarks(STATE, [], root_version=2)
    assert "`edgepack root publish`" in behind


def signer_of(version):
    role = Role(keys=(KEY.public.key_id,))
    data = sign_root(
        version=version,
        keys=[KEY.public],
        roles=dict.fromkeys((ROOT, RELEASE, DEPLOY), role),
        signers=[KEY],
    )
    return Signer(key=KEY, root=Root.parse(data))


def planned(reported, *, version=1, policy=None):
    return plan(
        replace(STATE, reported=reported),
        lambda _, models: models,
        model="digits",
        signer=signer_of(version),
        prefix="p",
        now_s=1,
        policy=policy or MergePolicy(keep_reported=True),
    )


def test_what_is_kept_of_a_report_keeps_its_floor():
    """A broker that lost the desired state does not lose the floors with it."""
    (model,) = planned(REPORTED).desired.models
    assert (A, 50) == (model.digest, model.floor)
    (one,) = REPORTED.models
    forged = replace(REPORTED, models=(replace(one, floor=10**9),))
    (model,) = planned(forged).desired.models
    assert 70 == model.floor  # no report makes a floor that bars what runs


def test_the_last_generation_is_overcome_by_a_new_root():
    """A thief used up the numbers: a device that has yet to follow the new root begins again."""
    last = replace(REPORTED, generation=MAX_GENERATION)
    with pytest.raises(TargetError, match="the last there is") as caught:
        planned(last)
    assert "root rotate --new deploy" in caught.value.hint
    assert 1 == planned(last, version=2).desired.generation
