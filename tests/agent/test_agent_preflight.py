"""What is refused before the first byte of weights, and why."""

import asyncio
import os
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from support.fetching import fetcher, model_of
from support.servers import Answering, head
from support.tiny_bundle import write_tiny_bundle

from edgepack.agent.config import FetchConfig
from edgepack.agent.errors import FetchError, RejectedError
from edgepack.agent.install import device_facts
from edgepack.agent.install.device_facts import Device
from edgepack.agent.install.fetch import start_delay_s
from edgepack.agent.install.preflight import (
    DeviceFacts,
    EngineFacts,
    Need,
    Refusal,
    judge_contract,
    judge_space,
)
from edgepack.agent.install.worker import Worker
from edgepack.bundle import open_bundle, render_contract
from edgepack.bundle.contract import DeviceRequirements, EngineRequirements
from edgepack.runtime.engine import Abilities

GB = 10**9
FACTS = DeviceFacts(free_bytes=GB, free_inodes=10_000, memory_bytes=GB)
ABILITIES = Abilities(opsets={"": 17, "ai.onnx.ml": 3}, operators=frozenset({"ai.onnx::MatMul"}))


@pytest.fixture(scope="module")
def contract(tmp_path_factory):
    return open_bundle(write_tiny_bundle(tmp_path_factory.mktemp("bundle"))).contract


def variant(contract, **changes):
    return replace(contract.variants[0], **changes)


def judged(contract, **facts):
    found = judge_contract(contract, replace(FACTS, **facts))
    return None if found is None else found.reason


@pytest.mark.parametrize(
    ("need", "facts", "reason"),
    [
        (Need(size_bytes=900_000_000, files=10), {}, None),
        (Need(size_bytes=990_000_000, files=10), {}, "disk_full"),
        (Need(size_bytes=0, files=0), {"free_bytes": 1_000_000}, "disk_full"),
        (Need(size_bytes=1000, files=10), {"free_inodes": 83}, "inodes"),
        (Need(size_bytes=1000, files=10), {"free_inodes": 84}, None),
        (Need(size_bytes=1000, files=10), {"free_inodes": None}, None),
    ],
)
def test_space_with_headroom(need, facts, reason):
    """What is left over must do for the journal and for what children unpack."""
    found = judge_space(need, replace(FACTS, **facts))
    assert reason == (found.reason if found else None)


@pytest.mark.parametrize(
    ("wanted", "classes", "reason"),
    [
        ((), set(), None),
        (("pi4", "pi5"), {"pi5", "aarch64"}, None),
        (("pi4",), {"aarch64"}, "device_class"),
    ],
)
def test_device_classes(contract, wanted, classes, reason):
    """A bundle that asks for a class goes to devices that have it."""
    asking = replace(contract, device=DeviceRequirements(device_classes=wanted))
    assert reason == judged(asking, classes=frozenset(classes))


def test_memory(contract):
    """What the contract asks for, and at least the weights of one variant."""
    asking = replace(contract, device=DeviceRequirements(min_memory_bytes=2 * GB))
    assert "memory" == judged(asking)
    assert None is judged(asking, memory_bytes=2 * GB)
    large = replace(contract, variants=(variant(contract, size_bytes=3 * GB),))
    assert "memory" == judged(large, memory_bytes=2 * GB)


@pytest.mark.parametrize(
    ("engine", "facts", "reason"),
    [
        ({}, EngineFacts(missing="not installed"), "engine_missing"),
        ({}, EngineFacts(unsupported="another format"), "unsupported"),
        ({}, EngineFacts(), None),
        ({"opsets": {"": 17}}, EngineFacts(abilities=ABILITIES), None),
        ({"opsets": {"": 18}}, EngineFacts(abilities=ABILITIES), "unsupported"),
        ({"opsets": {"com.acme": 1}}, EngineFacts(abilities=ABILITIES), "unsupported"),
        ({"operators": ("ai.onnx::MatMul",)}, EngineFacts(abilities=ABILITIES), None),
        ({"operators": ("ai.onnx::New",)}, EngineFacts(abilities=ABILITIES), "unsupported"),
    ],
)
def test_engines(contract, engine, facts, reason):
    """An engine that is not there, or too old for the model."""
    needs = EngineRequirements(engine="onnxruntime", **engine)
    asking = replace(contract, variants=(variant(contract, engine=needs),))
    assert reason == judged(asking, engines={"onnx-fp32": facts})


def test_one_variant_that_runs_is_enough(contract):
    """The others' reasons matter only when none is left; then the most telling comes first."""
    two = replace(contract, variants=(variant(contract), variant(contract, name="other")))
    missing, old = EngineFacts(missing="not here"), EngineFacts(unsupported="too new")
    assert None is judged(two, engines={"onnx-fp32": missing})
    refused = judge_contract(two, replace(FACTS, engines={"onnx-fp32": missing, "other": old}))
    assert Refusal(reason="unsupported", detail="onnx-fp32: not here; other: too new") == refused


def test_the_engine_here_tells_its_operators(tmp_path, contract):
    """Asked in a child process: every operator of the model is among them."""
    worker = Worker(tmp_path / "root.json", tmp_path / "roots", self_test_timeout_s=60)
    device = Device(tmp_path, ("pi4",), worker)
    needs = EngineRequirements(
        engine="onnxruntime",
        opsets={"": 17, "ai.onnx.ml": 3},
        operators=("ai.onnx::ArgMax", "ai.onnx::MatMul", "ai.onnx.ml::Scaler"),
    )
    asking = replace(contract, variants=(variant(contract, engine=needs),))
    facts = asyncio.run(device.facts(asking))
    assert None is judge_contract(asking, facts)
    assert {"pi4", os.uname().machine} == facts.classes
    newer = replace(needs, opsets={"": 1000})
    asking = replace(contract, variants=(variant(contract, engine=newer),))
    assert "unsupported" == judge_contract(asking, facts).reason


class Serves:
    """An honest server of ranges that remembers how much it gave."""

    def __init__(self, data):
        self.data = data
        self.sent = 0

    def __call__(self, asked, connection, number):
        first, _, last = asked.headers["Range"].removeprefix("bytes=").partition("-")
        body = self.data[int(first) : int(last) + 1]
        end = int(first) + len(body) - 1
        said = [f"Content-Range: bytes {first}-{end}/{len(self.data)}"]
        self.sent += len(body)
        connection.sendall(
            head("206 Partial Content", *said, f"Content-Length: {len(body)}") + body
        )


def rejected(tmp_path, data, model, **how):
    inner = Serves(data)
    with Answering(inner) as server, pytest.raises(RejectedError) as caught:
        asked = replace(model, sources=(f"{server.url}/b",))
        asyncio.run(fetcher(tmp_path / "state", **how).fetch(asked))
    return caught.value.reason, inner.sent


def rewritten(path, contract):
    """The bundle with another contract, which any signer could have made."""
    from edgepack.bundle import Part, media_types, write_bundle

    bundle = open_bundle(path)
    parts = [
        Part(path=layer.path, media_type=layer.media_type, data=bundle.read(layer.path))
        for layer in bundle.manifest.layers
        if layer.media_type in (media_types.WEIGHTS, media_types.DATASET)
    ]
    made = path.with_name("rewritten.edgepack")
    write_bundle(made, contract, parts)
    return made


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda c: replace(c, device=DeviceRequirements(device_classes=("x",))), "device_class"),
        (lambda c: replace(c, device=DeviceRequirements(min_memory_bytes=10**15)), "memory"),
        (
            lambda c: replace(
                c,
                variants=(replace(c.variants[0], engine=EngineRequirements(engine="nobodys")),),
            ),
            "unsupported",
        ),
    ],
)
def test_nothing_of_the_weights_is_fetched(tmp_path, change, reason):
    """Manifest and contract are all that a device looks at of what it cannot run."""
    path = write_tiny_bundle(tmp_path, model=np.random.default_rng(0).bytes(300_000))
    other = rewritten(path, change(open_bundle(path).contract))
    got, sent = rejected(tmp_path, other.read_bytes(), model_of(other))
    assert reason == got
    assert sent < 60_000


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda c: c, None),
        (lambda c: replace(c, device=DeviceRequirements(device_classes=("x",))), "device_class"),
    ],
)
def test_a_file_that_somebody_brings_is_looked_at_too(tmp_path, change, reason):
    """Before it is unpacked; what is no bundle is said to be none."""
    path = write_tiny_bundle(tmp_path)
    other = rewritten(path, change(open_bundle(path).contract))
    made = fetcher(tmp_path / "state")
    if reason is None:
        asyncio.run(made.check_file(other))
    else:
        with pytest.raises(RejectedError) as caught:
            asyncio.run(made.check_file(other))
        assert reason == caught.value.reason
    for wrong in (tmp_path / "none", tmp_path):
        with pytest.raises(RejectedError) as caught:
            asyncio.run(made.check_file(wrong))
        assert "bundle_invalid" == caught.value.reason


def test_a_full_disk_is_seen_before_the_weights(tmp_path, monkeypatch):
    """What is missing decides, not the size of the file."""
    path = write_tiny_bundle(tmp_path, model=np.random.default_rng(0).bytes(300_000))
    full = replace(FACTS, free_bytes=17_000_000)
    monkeypatch.setattr(Device, "space", lambda self: full)
    assert "disk_full" == rejected(tmp_path, path.read_bytes(), model_of(path))[0]


def test_an_unknown_requirement_is_refused_by_its_name(tmp_path):
    """Before anything else is fetched."""
    path = write_tiny_bundle(tmp_path, model=np.random.default_rng(0).bytes(300_000))
    contract = open_bundle(path).contract
    data = render_contract(contract).replace(b'"requires":[]', b'"requires":["telepathy"]')
    assert b"telepathy" in data
    from edgepack.agent.install.fetch import parsed_contract

    with pytest.raises(RejectedError, match="telepathy") as caught:
        parsed_contract(data)
    assert "unsupported" == caught.value.reason


def test_a_container_has_less_memory_than_its_machine(tmp_path, monkeypatch):
    """The limit of the control group counts where there is one."""
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(device_facts, "_CGROUP_LIMIT", limit)
    whole = device_facts.memory_bytes()
    limit.write_text("max\n")
    assert whole == device_facts.memory_bytes()
    limit.write_text("1000000\n")
    assert 1_000_000 == device_facts.memory_bytes()


def test_a_fleet_is_spread_evenly_and_the_same_each_time():
    """Of 5,000 devices each tenth of the time gets about a tenth, whatever their ids look like."""
    delays = [start_delay_s(100.0, f"press-{number}", "sha256:x") for number in range(5000)]
    again = [start_delay_s(100.0, f"press-{number}", "sha256:x") for number in range(5000)]
    counts = np.histogram(delays, bins=10, range=(0, 100))[0]
    assert delays == again
    assert 5000 == counts.sum()
    assert (counts > 400).all()
    assert (counts < 600).all()
    assert 0.0 == start_delay_s(0.0, "press-1", "sha256:x")
    assert FetchConfig().jitter_s == 0.0


class _Held:
    """A source that gives nothing large before it may."""

    def __init__(self, source, may):
        self._source, self._may = source, may
        self.describe, self.close = source.describe, source.close

    async def get(self, refs, landing):
        if max(ref.size_bytes for ref in refs) > 100_000:
            await self._may.wait()
        await self._source.get(refs, landing)


def test_two_fetches_do_not_share_the_room_on_the_disk(tmp_path, monkeypatch):
    """The second waits, and is not refused: there is room when the first has failed or come."""
    paths = [
        write_tiny_bundle(tmp_path, name=name, model=np.random.default_rng(i).bytes(300_000))
        for i, name in enumerate(("one", "two"))
    ]
    models = [model_of(path, path.as_uri()) for path in paths]
    made = fetcher(tmp_path / "state")
    # for either of them, not for both
    monkeypatch.setattr(Device, "space", lambda self: replace(FACTS, free_bytes=17_300_000))

    async def run():
        may = asyncio.Event()
        opened = made._sources
        made._sources = SimpleNamespace(
            open=lambda text, model: _Held(opened.open(text, model), may),
            max_bundle_bytes=opened.max_bundle_bytes,
        )
        first = asyncio.create_task(made.fetch(models[0]))
        while not made._room._promises:
            await asyncio.sleep(0.01)
        with pytest.raises(FetchError, match="waits for room that other fetches need"):
            await made.fetch(models[1])
        with pytest.raises(RejectedError) as caught:
            await made.check_file(paths[1])
        assert "disk_full" == caught.value.reason
        may.set()
        await first
        await made.fetch(models[1])

    asyncio.run(run())
