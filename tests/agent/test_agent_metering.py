"""When figures are told, and what is told of the device."""

import asyncio
import json
import os
import shutil
from types import SimpleNamespace

import pytest

from edgepack.agent.config import MetricsConfig
from edgepack.agent.report.metering import Metering
from edgepack.agent.report.resources import Resources, Ticks, first_number, shares, ticks
from edgepack.wire.commands import MAX_WATCH_S, parse_watch
from edgepack.wire.errors import WireError


class Served:
    """A model that counts requests."""

    def __init__(self):
        self.requests = 0
        self.latest = None

    def metrics(self):
        return {"requests": self.requests}


class Told:
    """Remembers what was told."""

    def __init__(self):
        self.is_connected = True
        self.documents = []

    def metrics(self, model, fields):
        self.documents.append(("metrics", dict(fields)))

    def agent(self):
        self.documents.append(("agent", {}))

    async def latest(self, model, fields):
        self.documents.append(("latest", dict(fields)))

    def take(self):
        kinds = [kind for kind, _ in self.documents]
        self.documents.clear()
        return kinds


@pytest.fixture
def parts():
    """A model, where figures go, and a clock that is set by hand."""
    served, told, now_s = Served(), Told(), [1000.0]
    registry = SimpleNamespace(all=lambda: {"m": served}, mirrors={})
    config = MetricsConfig(interval_s=10, slow_s=100)

    def make():
        return Metering(config, registry, told, lambda _: {}, clock=lambda: now_s[0])

    return make, served, told, now_s


def test_what_did_not_change_is_told_rarely(parts):
    """Everything at first and every `slow_s`; in between only what changed."""
    make, served, told, now_s = parts

    async def main():
        metering = make()
        seen = []
        for tick in range(12):
            served.requests += tick == 3
            await metering.tell(now_s[0], in_full=False)
            seen.append(told.take())
            now_s[0] += 10
        return seen

    full = ["metrics", "latest", "agent"]
    expected = [full, [], [], ["metrics"], [], [], [], [], [], [], full, []]
    assert expected == asyncio.run(main())


def test_a_lease_raises_the_rate_and_ends_by_itself(parts):
    """While it holds everything is told at its pace; afterwards as before."""
    make, _, told, now_s = parts

    async def main():
        metering = make()
        answer = await metering.watched(b'{"seconds": 20, "interval_s": 4}')
        assert {"seconds": 20.0, "interval_s": 4.0} == answer
        answer = await metering.watched(b'{"seconds": 5, "interval_s": 5}')  # another one looks
        assert {"seconds": 5.0, "interval_s": 4.0} == answer
        delays_s = []
        for _ in range(8):
            delays_s.append(await metering.step())
            now_s[0] += delays_s[-1]
        return delays_s

    assert [4, 4, 4, 4, 4, 10, 10, 10] == asyncio.run(main())
    assert 5 == told.take().count("agent")


def test_a_lease_is_followed_at_once(parts):
    """Whoever opens a dashboard does not wait for a quarter of an hour."""
    make, _, told, _ = parts

    async def main():
        metering = make()
        await metering.step()
        told.take()
        task = asyncio.create_task(metering.run())
        await asyncio.sleep(0)  # it waits now
        await metering.watched(b"{}")
        async with asyncio.timeout(20):
            while not told.documents:
                await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return told.take()

    assert ["metrics", "latest", "agent"] == asyncio.run(main())


def test_nobody_looks_at_a_device_that_is_away(parts):
    """A lease ends with the connection: nothing is piled up for the way back."""
    make, _, told, now_s = parts

    async def main():
        metering = make()
        await metering.tell(now_s[0], in_full=False)
        await metering.watched(b"{}")
        told.is_connected = False
        return metering._current(now_s[0])

    assert asyncio.run(main()) is None


@pytest.mark.parametrize(
    "payload",
    [
        b'{"seconds": 901}',
        b'{"seconds": 0}',
        b'{"seconds": -5}',
        b'{"interval_s": 0.5}',
        b'{"seconds": 5, "interval_s": 6}',
        b'{"seconds": "long"}',
        b'{"seconds": NaN}',
        b"[]",
        b"",
    ],
)
def test_only_leases_within_bounds_are_given(payload):
    """Nobody makes a device talk without end, or without a pause."""
    with pytest.raises(WireError, match="command"):
        parse_watch(payload)


def test_a_lease_has_defaults():
    """A minute, every two seconds."""
    command = parse_watch(b"{}")
    assert (60.0, 2.0) == (command.seconds, command.interval_s)
    assert MAX_WATCH_S == parse_watch(json.dumps({"seconds": MAX_WATCH_S}).encode()).seconds


PROC = {
    "proc/self/statm": "20000 15000 3000 1 0 9000 0\n",
    "proc/loadavg": "0.52 0.58 0.59 3/602 11206\n",
    "proc/uptime": "351735.47 1400102.11\n",
    "proc/meminfo": "MemTotal:        3884136 kB\nMemAvailable:    3115016 kB\n",
    "proc/stat": "cpu  100 0 50 800 50 0 0 0 0 0\ncpu0 1 2 3\n",
    "proc/self/stat": "812 (edgepack (x) y) S 1 812 812 0 -1 4194304 1 0 0 0 30 12 0 0 20 0 9 0\n",
}
PI = PROC | {
    "sys/class/thermal/thermal_zone0/type": "cpu-thermal\n",
    "sys/class/thermal/thermal_zone0/temp": "61342\n",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": "1500000\n",
    "sys/devices/platform/soc/soc:firmware/get_throttled": "50005\n",
}
PC = PROC | {
    "sys/class/thermal/thermal_zone0/type": "acpitz\n",
    "sys/class/thermal/thermal_zone0/temp": "27800\n",
    "sys/class/thermal/thermal_zone1/type": "x86_pkg_temp\n",
    "sys/class/thermal/thermal_zone1/temp": "54000\n",
    "sys/class/thermal/thermal_zone2/type": "iwlwifi_1\n",
    "sys/class/thermal/thermal_zone2/temp": "-274000\n",
    "sys/devices/system/cpu/cpu0/thermal_throttle/package_throttle_count": "17\n",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": "2400123\n",
}
CONTAINER = PROC | {
    "sys/fs/cgroup/memory.max": "268435456\n",
    "sys/fs/cgroup/memory.current": "100000000\n",
}
RUBBISH = dict.fromkeys({*PI, *PC, *CONTAINER}, "\x00 -- \xff nan 1e999999\n")


def figures_of(tree, folder):
    """What is said of a tree of files."""
    for path, text in tree.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
    resources = Resources(folder, folder)
    if tree.get("proc/stat", "").startswith("cpu "):
        (folder / "proc/stat").write_text("cpu  140 0 60 880 60 0 0 0 0 0\n")
    found = {name: value for name, value in resources.figures().items() if value is not None}
    assert shutil.disk_usage(folder).total > found.pop("disk_free_bytes") > 0
    return found


COMMON = {
    "cpu_percent": 0.0,
    "device_cpu_percent": 35.71,
    "device_memory_available_bytes": 3115016 * 1024,
    "device_load_1m": 0.52,
    "device_uptime_s": 351735.47,
}


@pytest.mark.parametrize(
    ("tree", "expected"),
    [
        (
            PI,
            COMMON
            | {"temperature_c": 61.3, "cpu_mhz": 1500.0}
            | {"undervoltage": True, "throttled": True}
            | {"undervoltage_seen": True, "throttled_seen": True},
        ),
        (
            PC,
            COMMON
            | {"temperature_c": 54.0, "temperature_acpitz_c": 27.8, "cpu_mhz": 2400.123}
            | {"temperature_x86_pkg_temp_c": 54.0, "throttle_count": 17},
        ),
        (CONTAINER, COMMON | {"device_memory_available_bytes": 168435456}),
        ({}, {}),
        (RUBBISH, {}),
    ],
    ids=["raspberry pi", "pc", "container", "nothing there", "rubbish"],
)
def test_resources_of_a_device(tmp_path, tree, expected):
    """What is there, in plain units; what is not there is left out."""
    found = figures_of(tree, tmp_path)
    if tree and tree is not RUBBISH:
        assert 15000 * os.sysconf("SC_PAGE_SIZE") == found["memory_bytes"]
    found.pop("memory_bytes", None)
    assert expected == found


def test_shares_are_of_what_passed_and_never_negative():
    """A counter that went back, as after a migration, gives no nonsense."""
    before = Ticks(process=10, busy=100, total=1000)
    assert {} == shares(None, before)
    assert {} == shares(before, before)
    assert {"cpu_percent": 0.0, "device_cpu_percent": 0.0} == shares(
        before, Ticks(process=5, busy=50, total=2000)
    )
    assert ticks("", "") is None
    assert first_number("nan 1") is None
