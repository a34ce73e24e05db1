"""Real data as a sensor would send it: the same predictions as on what a file holds."""

import json
import os
import socket
import subprocess

import numpy as np
import pytest
from PIL import Image
from support.agent_process import AgentProcess, wait_until
from support.har_bundle import CHANNELS, LENGTH, write_har_bundle
from support.image_bundle import colour_images, write_image_bundle

from edgepack.agent.config.inputs import FeatureConfig, InputConfig, WindowConfig
from edgepack.agent.feed.mapping import Mapper, Message
from edgepack.agent.feed.plan import make_plan
from edgepack.runtime import load
from edgepack.runtime.tensors import DTYPES
from edgepack.trust import PrivateKey, keygen

RATE_HZ = 50
HAR = InputConfig(
    model="activity",
    name="phone",
    socket="x",
    stream="phone",
    window=WindowConfig(stride=LENGTH // 2, rate_hz=RATE_HZ, time="t"),
)
COLUMNS = {
    "Type": "kind",
    "Air temperature [K]": "air_c",
    "Process temperature [K]": "process_c",
    "Rotational speed [rpm]": "rpm",
    "Torque [Nm]": "torque",
    "Tool wear [min]": "wear",
}
KINDS = {"L": "low", "M": "medium", "H": "high"}
MACHINES = InputConfig(
    model="machines",
    name="mill",
    stdin=True,
    features={
        "Type": FeatureConfig(path="kind", map={word: kind for kind, word in KINDS.items()}),
        "Air temperature [K]": FeatureConfig(path="air_c", offset=273.15),
        "Process temperature [K]": FeatureConfig(path="process_c", offset=273.15),
        "Rotational speed [rpm]": FeatureConfig(path="spindle.rpm"),
        "Torque [Nm]": FeatureConfig(path="spindle.torque"),
        "Tool wear [min]": FeatureConfig(path="wear[0]"),
    },
)


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    return keygen(tmp_path_factory.mktemp("keys"))


@pytest.fixture(scope="module")
def har(shared_data, tmp_path_factory, keys):
    """A model fitted to six subjects, and windows and activities of one that it never saw."""
    with np.load(shared_data / "uci_har" / "har.npz") as packed:
        signals, activity, subject = (packed[k] for k in ("signals", "activity", "subject"))
    seen = np.isin(subject, np.unique(subject)[:6])
    key = PrivateKey.load(keys.release_key)
    folder = tmp_path_factory.mktemp("har")
    path = write_har_bundle(folder, signals[seen], activity[seen], key)
    mine = subject == np.unique(subject)[-1]
    return path, signals[mine], activity[mine]


def raw_stream(windows):
    """The samples that half-overlapping windows were cut from; a pause where they do not follow."""
    half = LENGTH // 2
    second = 0.0
    for number, window in enumerate(windows):
        follows = number and np.array_equal(windows[number - 1][half:], window[:half])
        if number and not follows:
            second += 5
        for sample in window[half:] if follows else window:
            values = dict(zip(CHANNELS, map(float, sample), strict=True))
            yield {"t": round(second, 6), "phone": "p1", **values}
            second += 1 / RATE_HZ


def test_a_raw_stream_gives_the_windows_that_the_model_was_tested_on(har):
    """Every one, bit by bit, so the accuracy is the same; pauses part them, nothing else does."""
    path, windows, activity = har
    with load(path) as model:
        mapper = Mapper(HAR, make_plan(HAR, model.contract))
        found = [
            sample.inputs["signal"][0]
            for document in raw_stream(windows)
            for sample in mapper.take(Message(document=document), now_s=0.0)
        ]
        assert len(windows) == len(found)
        assert np.array_equal(windows, np.stack(found))
        names = np.array(model.contract.class_names, dtype=object)
        on_stream = (model.predict({"signal": np.stack(found)})["label"] == names[activity]).mean()
        on_windows = (model.predict({"signal": windows})["label"] == names[activity]).mean()
    assert on_windows == on_stream
    assert on_windows > 0.7  # else it says nothing


@pytest.fixture(scope="module")
def machines(shared_data, tmp_path_factory, keys):
    """A converted model of AI4I 2020, and its rows."""
    pandas = pytest.importorskip("pandas")
    joblib = pytest.importorskip("joblib")
    from sklearn.compose import ColumnTransformer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    from edgepack.converter import ConvertRequest, Precision, convert

    source = shared_data / "ai4i2020" / "ai4i2020.csv"
    frame = pandas.read_csv(source, encoding="utf-8-sig")
    rows = frame[list(COLUMNS)]
    folder = tmp_path_factory.mktemp("machines")
    numbers = [name for name in COLUMNS if name != "Type"]
    pipeline = make_pipeline(
        ColumnTransformer([("kind", OneHotEncoder(), ["Type"]), ("n", StandardScaler(), numbers)]),
        LogisticRegression(max_iter=500, class_weight="balanced"),
    ).fit(rows, frame["Machine_failure"])
    joblib.dump(pipeline, folder / "machines.joblib")
    data = folder / "rows.csv"
    frame[[*COLUMNS, "Machine_failure"]].to_csv(data, index=False)
    report = convert(
        ConvertRequest(
            model=folder / "machines.joblib",
            data=data,
            label="Machine_failure",
            output=folder / "out",
            name="machines",
            precision=Precision.FP32,
            formats=("onnx",),
            key=keys.release_key,
        )
    )
    return report.path, rows


def documents(rows):
    """Rows as a machine would send them: other names, other units, nested."""
    for kind, air, process, rpm, torque, wear in rows.itertuples(index=False):
        yield {
            "kind": KINDS[kind],
            "air_c": air - 273.15,
            "process_c": process - 273.15,
            "spindle": {"rpm": str(rpm), "torque": torque},
            "wear": [wear],
            "n": 1,
        }


def batch(rows, contract):
    return {
        spec.name: rows[spec.name].to_numpy().astype(DTYPES[spec.datatype])[:, None]
        for spec in contract.inputs
    }


def test_rows_one_by_one_are_predicted_as_the_file_is(machines):
    """10,000 of them, in other units and under other names."""
    path, rows = machines
    with load(path) as model:
        mapper = Mapper(MACHINES, make_plan(MACHINES, model.contract))
        samples = [
            sample.inputs
            for document in documents(rows)
            for sample in mapper.take(Message(document=document), now_s=0.0)
        ]
        stacked = {name: np.concatenate([one[name] for one in samples]) for name in samples[0]}
        expected = model.predict(batch(rows, model.contract))["label"].tolist()
        assert expected == model.predict(stacked)["label"].tolist()
    assert 2 == len(set(expected))


END_TO_END = """
[log]
predictions = true
flush_s = 0.2

[[input]]
model = "activity"
name = "phone"
socket = "phone.sock"
stream = "phone"
window = { stride = 64, rate_hz = 50, time = "t" }

[[input]]
model = "colours"
files = { path = "spool", settle_s = 0, poll_s = 0.1 }

[[input]]
model = "machines"
name = "mill"
stdin = true

[input.features]
Type = { path = "kind", map = { low = "L", medium = "M", high = "H" } }
"Air temperature [K]" = { path = "air_c", offset = 273.15 }
"Process temperature [K]" = { path = "process_c", offset = 273.15 }
"Rotational speed [rpm]" = { path = "spindle.rpm" }
"Torque [Nm]" = { path = "spindle.torque" }
"Tool wear [min]" = { path = "wear[0]" }
"""


def test_a_device_without_any_broker_is_fed(har, machines, keys, tmp_path):
    """Rows on standard input, a 50 Hz stream on a socket, images in a folder; all are logged."""
    har_path, windows, _ = har
    machines_path, rows = machines
    windows, rows = windows[:12], rows.iloc[::400]
    agent = AgentProcess(tmp_path / "device", keys, None, feed=END_TO_END)
    images, colours = colour_images(3, side=12, seed=7)
    spool = tmp_path / "device/spool"
    spool.mkdir()
    for number, image in enumerate(images):
        Image.fromarray(image).save(spool / f"{number}.png")
        os.utime(spool / f"{number}.png", (number, number))
    key = PrivateKey.load(keys.release_key)
    for path in (har_path, machines_path, write_image_bundle(tmp_path, key=key)):
        done = agent.command("install", str(path))
        assert 0 == done.returncode, done.stderr
    try:
        agent.start(stdin=subprocess.PIPE)
        lines = b"".join(json.dumps(one).encode() + b"\n" for one in documents(rows))
        agent.process.stdin.write(b"no JSON\n" + lines)
        agent.process.stdin.close()
        door = tmp_path / "device/phone.sock"
        wait_until(door.exists, "the socket")
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(door))
            for document in raw_stream(windows):
                client.sendall(json.dumps(document).encode() + b"\n")
        log = tmp_path / "device/state/predictions.jsonl"

        def logged(model):
            text = log.read_text() if log.exists() else ""
            found = [json.loads(line) for line in text.splitlines()]
            return [one for one in found if one["model"] == model]

        wait_until(lambda: len(logged("activity")) == len(windows), "all windows", 60)
        wait_until(lambda: len(logged("machines")) == len(rows), "all rows", 60)
        with load(har_path) as model:
            expected = model.predict({"signal": windows})["label"].tolist()
        assert expected == [one["label"] for one in logged("activity")]
        assert {"p1"} == {one["source"] for one in logged("activity")}
        with load(machines_path) as model:
            labels = model.predict(batch(rows, model.contract))["label"]
        expected = [str(label) for label in labels]
        assert expected == [one["label"] for one in logged("machines")]
        wait_until(lambda: len(logged("colours")) == len(colours), "all images", 60)
        assert [(f"{number}.png", colour) for number, colour in enumerate(colours)] == [
            (one["request_id"], one["label"]) for one in logged("colours")
        ]
        assert "reason=not_json" in agent.text()
        assert 0 == agent.stop()
    finally:
        agent.kill()
