"""The attacks that The Update Framework lists (TUF 1.0.33, section 1.5.2), each against the agent.

The whole agent in this process, with its real child processes, journal and store; what a broker
would bring is handed to it.
"""

import asyncio
import contextlib
import json
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from support.device_here import Device, desired, signed, wish
from support.roots import Authority
from support.tiny_bundle import write_tiny_bundle

from edgepack.trust import (
    DEPLOY,
    DESIRED_PAYLOAD_TYPE,
    RELEASE,
    ROOT,
    PrivateKey,
    Role,
    dsse,
    keygen,
    sign_root,
)
from edgepack.wire.desired import (
    MAX_GENERATION,
    render_desired,
)

STRANGER = PrivateKey(bytes([9]) * 32)


@pytest.fixture
def authority(tmp_path):
    return Authority.of(keygen(tmp_path / "keys"))


def attack(tmp_path, authority, story):
    async def main():
        async with Device(tmp_path / "device", authority.versions[0]) as device:
            await story(device)

    asyncio.run(main())


def bundle_of(tmp_path, authority, version="1.0.0", *, key=None, **options):
    key = authority.keys[RELEASE] if key is None else key
    return write_tiny_bundle(tmp_path, version=version, key=key, **options)


def test_arbitrary_installation(tmp_path, authority):
    """Neither a bundle nor a wish of somebody else's is followed; what runs goes on."""
    good = wish(bundle_of(tmp_path, authority))
    theirs = wish(bundle_of(tmp_path, authority, "9.9.9", key=STRANGER, seed=3))

    async def story(device):
        await device.confirms(good, authority)
        device.deliver(signed(desired(theirs, generation=2), authority.keys[DEPLOY]))
        slot = await device.phase("rejected", theirs.digest)
        assert ("not_trusted", good.digest) == (slot.reason, slot.active.digest)
        device.deliver(signed(desired(theirs, generation=3), STRANGER))
        await device.refuses("role deploy: must be signed by")
        device.deliver(b'{"payload":"","payloadType":"x","signatures":[]}')
        await device.refuses("payloadType")
        assert (2, good.digest) == (device.generation, device.slot.active.digest)

    attack(tmp_path, authority, story)


def test_rollback(tmp_path, authority):
    """An old wish does not come back, nor an old release below the floor; a wanted one does."""
    old = wish(bundle_of(tmp_path, authority, "1.0.0", sequence=10))
    middle = wish(bundle_of(tmp_path, authority, "1.1.0", sequence=20, seed=1))
    new = wish(bundle_of(tmp_path, authority, "1.2.0", sequence=30, seed=2), floor=20)

    async def story(device):
        first = signed(desired(old), authority.keys[DEPLOY])
        device.deliver(first)
        await device.phase("confirmed", old.digest)
        slot = await device.confirms(new, authority, 2)
        assert 20 == slot.floor
        device.deliver(first)
        await device.refuses("generation must be above 2, got 1 (a replay?)")
        device.deliver(signed(desired(old, generation=2), authority.keys[DEPLOY]))
        await device.refuses("generation must be above 2, got 2 (a replay?)")
        device.deliver(signed(desired(old, generation=3), authority.keys[DEPLOY]))
        slot = await device.phase("rejected", old.digest)
        assert ("below_floor", new.digest) == (slot.reason, slot.active.digest)
        slot = await device.confirms(middle, authority, 4)
        assert 20 == slot.floor

    attack(tmp_path, authority, story)


def test_a_floor_counts_only_once_its_version_is_confirmed(tmp_path, authority):
    """A version that fails its self-test takes no older one away from the device."""
    old = wish(bundle_of(tmp_path, authority, "1.0.0", sequence=10))
    bad = wish(
        bundle_of(tmp_path, authority, "1.1.0", sequence=20, model=b"not onnx at all"), floor=20
    )

    async def story(device):
        await device.confirms(old, authority)
        device.deliver(signed(desired(bad, generation=2), authority.keys[DEPLOY]))
        slot = await device.phase("rejected", bad.digest)
        assert (0, old.digest) == (slot.floor, slot.active.digest)

    attack(tmp_path, authority, story)


def test_indefinite_freeze(tmp_path, authority):
    """Who keeps handing out an old wish cannot start what it asks for once it has expired."""
    model = wish(bundle_of(tmp_path, authority))

    async def story(device):
        device.deliver(signed(desired(model, lifetime_s=-60), authority.keys[DEPLOY]))
        await device.refuses("expired")
        assert device.slot is None
        await device.confirms(model, authority, 2)
        device.deliver(signed(desired(model, generation=3, lifetime_s=-60), authority.keys[DEPLOY]))
        await device.until(lambda: device.generation == 3)
        assert model.digest == device.slot.active.digest  # expiry never stops what runs

    attack(tmp_path, authority, story)


def test_fast_forward_and_recovery(tmp_path, authority):
    """A stolen deploy key made the generation as large as it goes; the next root begins anew."""
    model = wish(bundle_of(tmp_path, authority))
    stolen = authority.keys[DEPLOY]

    async def story(device):
        device.deliver(signed(desired(model, generation=MAX_GENERATION), stolen))
        await device.phase("confirmed")
        device.deliver(signed(desired(model, generation=2), stolen))
        await device.refuses("generation must be above")
        device.deliver_root(2, authority.rotate(DEPLOY))
        await device.until(lambda: device.root_version == 2)
        assert (0, model.digest) == (device.generation, device.slot.active.digest)
        device.deliver(signed(desired(model, generation=1), authority.keys[DEPLOY]))
        await device.until(lambda: device.generation == 1)
        device.deliver(signed(desired(generation=5), stolen))
        await device.refuses("role deploy")

    attack(tmp_path, authority, story)


def test_the_recovery_outlasts_a_restart(tmp_path, authority):
    """A device that is switched off between the next root and the next wish begins anew, too."""
    model = wish(bundle_of(tmp_path, authority))

    async def ahead(device):
        device.deliver(signed(desired(model, generation=MAX_GENERATION), authority.keys[DEPLOY]))
        await device.phase("confirmed")
        device.deliver_root(2, authority.rotate(DEPLOY))
        await device.until(lambda: device.root_version == 2)

    async def again(device):
        assert (0, model.digest) == (device.generation, device.slot.active.digest)
        device.deliver(signed(desired(model, generation=1), authority.keys[DEPLOY]))
        await device.until(lambda: device.generation == 1)

    attack(tmp_path, authority, ahead)
    attack(tmp_path, authority, again)


def test_a_generation_beyond_the_last_is_none(tmp_path, authority):
    """Not even the deploy key can name a number that readers of JSON disagree about."""
    payload = json.loads(render_desired(desired()))
    payload["generation"] = MAX_GENERATION + 1
    envelope = dsse.sign(
        json.dumps(payload).encode(), DESIRED_PAYLOAD_TYPE, [authority.keys[DEPLOY]]
    )

    async def story(device):
        device.deliver(envelope)
        await device.refuses("generation must be >= 1 and < 2**53")

    attack(tmp_path, authority, story)


def test_mix_and_match(tmp_path, authority):
    """Parts of two good bundles do not make a third: name, digest and signature belong together."""
    one = bundle_of(tmp_path, authority, "1.0.0")
    two = bundle_of(tmp_path, authority, "1.1.0", seed=1)
    other = bundle_of(tmp_path, authority, name="other", seed=2)
    deploy = authority.keys[DEPLOY]

    async def story(device):
        crossed = wish(one, sources=(two.as_uri(),))  # the file of another version
        device.deliver(signed(desired(crossed), deploy))
        slot = await device.phase("rejected")
        assert "wrong_bundle" == slot.reason, slot
        renamed = wish(other, name="tiny")  # a release of another model
        device.deliver(signed(desired(renamed, generation=2), deploy))
        slot = await device.phase("rejected", renamed.digest)
        assert "wrong_bundle" == slot.reason, slot
        await device.confirms(wish(two), authority, 3)

    attack(tmp_path, authority, story)


class Endless(BaseHTTPRequestHandler):
    """Says that it sends what was asked for, and never stops."""

    sent = 0

    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        with contextlib.suppress(OSError):
            while Endless.sent < 200_000_000:
                Endless.sent += self.wfile.write(bytes(65536))

    do_HEAD = do_GET

    def log_message(self, *_):
        pass


def test_endless_data(tmp_path, authority):
    """Whatever is larger than was announced is cut off: a wish, a root, a download."""
    model = wish(bundle_of(tmp_path, authority))
    server = ThreadingHTTPServer(("127.0.0.1", 0), Endless)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    endless = replace(model, sources=(f"http://127.0.0.1:{server.server_port}/x",))

    def told(device):
        return device.slot is not None and (device.slot.detail or device.slot.reason)

    async def story(device):
        device.deliver(bytes(10_000_000))
        await device.refuses("must be at most 8192 bytes, got 10000000")
        await device.until(lambda: device.root_version == 1)
        device.deliver_root(2, b" " * 1_000_000)
        await device.until(lambda: "must be at most 65536 bytes" in device.notices.get("root", ""))
        device.deliver(signed(desired(endless), authority.keys[DEPLOY]))
        await device.until(lambda: told(device))
        on_disk = sum(file.stat().st_size for file in device.staging.rglob("*") if file.is_file())
        assert on_disk <= model.archive_size_bytes + 65536
        assert Endless.sent < 50_000_000

    try:
        attack(tmp_path, authority, story)
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(
    "other",
    [{"device": "d2"}, {"prefix": "edgepack/v2"}, {"group": "line=b"}, {"device": "D1"}],
)
def test_wrong_audience_and_replay_to_another_device(tmp_path, authority, other):
    """A wish for another device, prefix or group is nothing to this one, however well signed."""

    async def story(device):
        device.deliver(signed(desired(generation=7, **other), authority.keys[DEPLOY]))
        await device.refuses("audience must be edgepack/v1/d1, got")
        assert 0 == device.generation

    attack(tmp_path, authority, story)


def test_key_compromise(tmp_path, authority):
    """One stolen key is not enough to run something new; after a rotation it is worth nothing."""
    good = wish(bundle_of(tmp_path, authority))
    release, deploy = authority.keys[RELEASE], authority.keys[DEPLOY]
    theirs = wish(bundle_of(tmp_path, authority, "6.6.6", seed=4))

    async def story(device):
        await device.confirms(good, authority)
        device.deliver(signed(desired(theirs, generation=2), release))  # the release key alone
        await device.refuses("role deploy")
        unsigned = wish(bundle_of(tmp_path, authority, "6.6.7", key=deploy, seed=5))
        device.deliver(signed(desired(unsigned, generation=2), deploy))  # the deploy key alone
        assert "not_trusted" == (await device.phase("rejected", unsigned.digest)).reason
        device.deliver_root(2, authority.rotate(RELEASE, DEPLOY))
        await device.until(lambda: device.root_version == 2)
        device.deliver(signed(desired(theirs, generation=1), authority.keys[DEPLOY]))
        slot = await device.phase("rejected", theirs.digest)  # both keys, but of yesterday
        assert ("not_trusted", good.digest) == (slot.reason, slot.active.digest)
        device.deliver_root(3, authority.rotate(ROOT))
        await device.until(lambda: device.root_version == 3)

    attack(tmp_path, authority, story)


def test_a_threshold_met_twice_by_one_key(tmp_path, authority):
    """Two signatures of one key are one vote, whatever names they give themselves."""
    second = PrivateKey.generate()
    deploy = authority.keys[DEPLOY]
    roles = {role: Role(keys=(key.public.key_id,)) for role, key in authority.keys.items()}
    roles[DEPLOY] = Role(keys=(deploy.public.key_id, second.public.key_id), threshold=2)
    authority.versions[0] = sign_root(
        version=1,
        keys=[*(key.public for key in authority.keys.values()), second.public],
        roles=roles,
        signers=[authority.keys[ROOT]],
    )
    state = desired()
    twice = json.loads(signed(state, deploy))
    (one,) = twice["signatures"]
    variants = [
        [one, one],
        [one, {"sig": one["sig"]}],  # no name: every key is tried
        [one, {"keyid": second.public.key_id, "sig": one["sig"]}],
    ]

    async def story(device):
        for number, signatures in enumerate(variants):
            envelope = json.dumps({**twice, "signatures": signatures}).encode()
            envelope += b" " * number
            device.deliver(envelope)
            await device.until(lambda envelope=envelope: device.turned_down == envelope)
            assert (0, True) == (device.generation, "role deploy" in device.refused)
        device.deliver(signed(state, deploy, second))
        await device.until(lambda: device.generation == 1)

    attack(tmp_path, authority, story)
