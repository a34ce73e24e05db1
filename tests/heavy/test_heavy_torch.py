"""PyTorch models of every kind of file, to both formats, against torch's own answers."""

import contextlib
import os
import pickle
import sys
import zipfile
from dataclasses import replace

import numpy as np
import pytest

from edgepack.bundle import open_bundle
from edgepack.bundle.contract import Task
from edgepack.converter import ConvertRequest, convert
from edgepack.converter.errors import (
    ModelFileError,
    RequestError,
    UnfitDataError,
    UnsafeModelError,
    UnsupportedModelError,
)
from edgepack.converter.sources.find import recognise
from edgepack.converter.sources.source import ArrayShape, ExportWish, LoadOptions
from edgepack.converter.sources.torch_file import SOURCE
from edgepack.runtime import load
from edgepack.runtime.tensors import DTYPES

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(900)]

HAR_NET = """
import torch


class HarNet(torch.nn.Module):
    \"\"\"A 1D CNN over windows (N, 128, 9): the channels come last, as the data has them.\"\"\"

    def __init__(self, channels=24):
        super().__init__()
        nn = torch.nn
        self.body = nn.Sequential(
            nn.Conv1d(9, channels, 5, padding=2), nn.BatchNorm1d(channels), nn.ReLU(),
            nn.MaxPool1d(2),
            nn.Conv1d(channels, 2 * channels, 5, padding=2), nn.BatchNorm1d(2 * channels),
            nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Dropout(0.3),
            nn.Linear(2 * channels, 6),
        )

    def forward(self, signals):
        return self.body(signals.transpose(1, 2))


def broken():
    raise ValueError("no weights today")


def no_module():
    return {}


wide = lambda: HarNet(32)
"""
WINDOW = LoadOptions(data=(ArrayShape(name="signals", dtype="float32", shape=(400, 128, 9)),))


@pytest.fixture(scope="module")
def code(tmp_path_factory):
    """A folder with the module that makes the model, as a user has it."""
    folder = tmp_path_factory.mktemp("code")
    (folder / "har_net.py").write_text(HAR_NET)
    sys.path.insert(0, str(folder))
    yield folder
    sys.path.remove(str(folder))
    sys.modules.pop("har_net", None)


@pytest.fixture
def here(code, monkeypatch):
    """The current folder is the one with the user's module."""
    monkeypatch.chdir(code)
    return code


@pytest.fixture(scope="module")
def net(code):
    """An untrained network whose batch statistics are not those of a fresh one."""
    import torch
    from har_net import HarNet

    torch.manual_seed(0)
    network = HarNet()
    network(torch.randn(32, 128, 9) * 2 + 1)
    return network.eval()


@pytest.fixture(scope="module")
def trained(code, shared_data):
    """The network trained on six subjects, and the windows of the other three."""
    import torch
    from har_net import HarNet

    with np.load(shared_data / "uci_har" / "har.npz") as packed:
        signals, activity, subject = (packed[k] for k in ("signals", "activity", "subject"))
    seen = np.isin(subject, np.unique(subject)[:6])
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    torch.manual_seed(0)
    network = HarNet()
    x, y = torch.from_numpy(signals[seen]), torch.from_numpy(activity[seen])
    optimizer = torch.optim.Adam(network.parameters(), 3e-3)
    for _ in range(6):
        for batch in torch.randperm(len(x)).split(64):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(network(x[batch]), y[batch]).backward()
            optimizer.step()
    torch.set_num_threads(threads)
    return network.eval(), signals[~seen], activity[~seen]


def answers_of(network, array):
    import torch

    with torch.no_grad():
        return network(torch.from_numpy(array)).numpy()


def exported(model, task, file_format="onnx"):
    """Answers of an exported file, by name, from a bundle-free run of its engine."""
    outputs = tuple(model.run(task, example_of(model)))
    wish = ExportWish(
        task=task, inputs=model.facts.inputs, outputs=outputs, precision="fp32", format=file_format
    )
    return model.export(wish)


def example_of(model, rows=4):
    rng = np.random.default_rng(0)
    found = {}
    for spec in model.facts.inputs:
        shape = (rows, *(size if size > 0 else 5 for size in spec.shape[1:]))
        if "INT" in spec.datatype.value:
            found[spec.name] = rng.integers(0, 5, shape)
        else:
            found[spec.name] = rng.normal(size=shape).astype(np.float32)
    return found


def onnx_answers(model, task, feeds):
    import onnxruntime

    file = exported(model, task)
    session = onnxruntime.InferenceSession(file.data)
    names = [binding.tensor for binding in file.facts.outputs]
    found = session.run(names, {b.tensor: feeds[b.name] for b in file.facts.inputs})
    return {b.name: array for b, array in zip(file.facts.outputs, found, strict=True)}


def tflite_answers(model, task, feeds):
    """One row at a time."""
    from ai_edge_litert.interpreter import Interpreter

    file = exported(model, task, "tflite")
    interpreter = Interpreter(model_content=file.data)
    interpreter.allocate_tensors()
    index = {
        item["name"]: item["index"]
        for item in (*interpreter.get_input_details(), *interpreter.get_output_details())
    }
    rows = []
    for row in range(len(next(iter(feeds.values())))):
        for binding in file.facts.inputs:
            value = feeds[binding.name][row : row + 1].astype(DTYPES[binding.dtype])
            interpreter.set_tensor(index[binding.tensor], value)
        interpreter.invoke()
        rows.append([interpreter.get_tensor(index[b.tensor])[0] for b in file.facts.outputs])
    return {
        b.name: np.stack(column)
        for b, column in zip(file.facts.outputs, zip(*rows, strict=True), strict=True)
    }


def load_model(path, **changes):
    SOURCE.prepare()
    return SOURCE.load(path, replace(WINDOW, **changes))


def test_uci_har_keeps_its_accuracy_in_both_formats(trained, here, tmp_path):
    """A 1D CNN from its weights: fp32 equals torch, every kept variant is within a point."""
    import torch

    network, signals, activity = trained
    torch.save(network.state_dict(), tmp_path / "har.pt")
    np.savez(tmp_path / "test.npz", signals=signals, activity=activity)
    report = convert(
        ConvertRequest(
            model=tmp_path / "har.pt",
            data=tmp_path / "test.npz",
            label="activity",
            output=tmp_path,
            model_factory="har_net:HarNet",
            cache=None,
        )
    )
    expected = answers_of(network, signals)
    accuracy = float((expected.argmax(1) == activity).mean())
    assert accuracy > 0.85
    bundle = open_bundle(report.path)
    names = [variant.name for variant in bundle.contract.variants]
    assert {"onnx-fp32", "tflite-fp32"} <= set(names)
    assert "har.pt" not in report.source
    for name in names:
        got = load(bundle, variant=name).predict({"signals": signals})
        kept = float((got["label"] == activity).mean())
        print(name, bundle.contract.variants[names.index(name)].files, kept, "torch", accuracy)
        assert kept >= accuracy - 0.01, name
        if name.endswith("fp32"):
            np.testing.assert_allclose(expected, got["scores"], rtol=1e-3, atol=1e-4)
            assert (expected.argmax(1) == got["label"]).mean() >= 0.999
    for wanted in ("onnx-int8", "tflite-int8"):
        assert any(name.startswith(wanted) for name in names), report.variants


def save_weights(network, path):
    import torch

    torch.save(network.state_dict(), path)


def save_old_weights(network, path):
    import torch

    torch.save(network.state_dict(), path, _use_new_zipfile_serialization=False)


def save_checkpoint(network, path):
    import torch

    optimizer = torch.optim.Adam(network.parameters())
    state = {f"module.{name}": item for name, item in network.state_dict().items()}
    torch.save({"epoch": 3, "state_dict": state, "optimizer": optimizer.state_dict()}, path)


def save_safetensors(network, path):
    from safetensors.torch import save_file

    save_file(network.state_dict(), path)


def save_script(network, path):
    import torch

    torch.jit.script(network).save(path)


def save_trace(network, path):
    import torch

    torch.jit.trace(network, torch.randn(2, 128, 9)).save(path)


def save_program(network, path):
    import torch

    free = ({0: torch.export.Dim("batch")},)
    program = torch.export.export(network, (torch.randn(2, 128, 9),), dynamic_shapes=free)
    torch.export.save(program, path)


def save_fixed_program(network, path):
    import torch

    torch.export.save(torch.export.export(network, (torch.randn(1, 128, 9),)), path)


def save_module(network, path):
    import torch

    torch.save(network, path)


def save_pickle(network, path):
    path.write_bytes(pickle.dumps(network))


KINDS = {
    "w.pt": (save_weights, "PyTorch weights", {"model_factory": "har_net:HarNet"}),
    "old.pth": (
        save_old_weights,
        "PyTorch weights, old format",
        {"model_factory": "har_net:HarNet"},
    ),
    "c.ckpt": (save_checkpoint, "PyTorch weights", {"model_factory": "har_net:HarNet"}),
    "w.safetensors": (save_safetensors, "safetensors weights", {"model_factory": "har_net:HarNet"}),
    "script.pt": (save_script, "TorchScript module", {}),
    "trace.pt": (save_trace, "TorchScript module", {}),
    "free.pt2": (save_program, "PyTorch ExportedProgram", {}),
    "one.pt2": (save_fixed_program, "PyTorch ExportedProgram", {}),
    "m.pt": (save_module, "pickled PyTorch object", {"trust_pickle": True}),
    "m.pkl": (save_pickle, "pickled PyTorch object, plain pickle", {"trust_pickle": True}),
}


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_of_file_answers_as_torch(name, net, here, tmp_path):
    """Each kind is told apart by content and gives torch's answers in both formats."""
    save, description, options = KINDS[name]
    path = tmp_path / "file.bin"
    save(net, path)
    assert description == recognise(path).description
    model = load_model(path, **options)
    assert ("onnx", "tflite") == model.facts.formats
    assert ["signals"] == [spec.name for spec in model.facts.inputs]
    feeds = example_of(model, rows=1 if name == "one.pt2" else 5)
    expected = answers_of(net, feeds["signals"])
    original = model.run(Task.CLASSIFICATION, feeds)
    np.testing.assert_allclose(expected, original["scores"], rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(expected.argmax(1), original["label"])
    for answers in (onnx_answers, tflite_answers):
        got = answers(model, Task.CLASSIFICATION, feeds)["scores"]
        np.testing.assert_allclose(expected, got, rtol=1e-3, atol=1e-5)


def test_an_onnx_export_runs_on_old_engines(net, here, tmp_path):
    """The opset and the file format are those of onnxruntime 1.17; nothing of the maker's disk."""
    import onnx

    save_program(net, tmp_path / "m.pt2")
    file = exported(load_model(tmp_path / "m.pt2"), Task.CLASSIFICATION)
    model = onnx.load_model_from_string(file.data)
    assert model.ir_version <= 9
    assert [("", 18)] == [(item.domain, item.version) for item in model.opset_import]
    assert b"har_net" not in file.data
    assert not [node for node in model.graph.node if node.op_type == "BatchNormalization"]


def test_a_program_that_the_exporter_loses_is_exported_anew(net, here, tmp_path, monkeypatch):
    """Some programs' free sizes are lost on the way (MLflow's): their module still exports."""
    import torch

    from edgepack.converter.torch_model import to_onnx

    newer = to_onnx._newer

    def loses_programs(model, **how):
        if isinstance(model.module, torch.export.ExportedProgram):
            raise AssertionError("vr must not be None for symbol s98")
        return newer(model, **how)

    monkeypatch.setattr(to_onnx, "_newer", loses_programs)
    save_program(net, tmp_path / "m.pt2")
    model = load_model(tmp_path / "m.pt2")
    feeds = example_of(model, rows=5)
    got = onnx_answers(model, Task.CLASSIFICATION, feeds)["scores"]
    np.testing.assert_allclose(answers_of(net, feeds["signals"]), got, rtol=1e-3, atol=1e-5)


def test_a_fixed_batch_is_said(net, here, tmp_path):
    """A program of one row is exported so, and the way to free it is told."""
    save_fixed_program(net, tmp_path / "m.pt2")
    model = load_model(tmp_path / "m.pt2")
    assert "takes 1 row at once" in model.facts.messages[0]
    assert 1 == exported(model, Task.CLASSIFICATION).facts.inputs[0].batch
    rows = example_of(model, rows=3)
    assert (3, 6) == model.run(Task.CLASSIFICATION, rows)["scores"].shape


@pytest.mark.parametrize("name", ["m.pt", "m.pkl"])
def test_a_pickled_module_is_refused_with_what_to_run(name, net, here, tmp_path):
    """Without trust a pickled module is not loaded; the answer holds the lines to run."""
    KINDS[name][0](net, tmp_path / name)
    with pytest.raises(UnsafeModelError, match=r"har_net\.HarNet.*torch\.export\.save") as caught:
        load_model(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_weights_without_a_factory_say_what_to_do(net, here, tmp_path):
    """Weights alone are no model."""
    save_weights(net, tmp_path / "w.pt")
    with pytest.raises(RequestError, match=r"--model-factory module:callable.*torch\.export\.save"):
        load_model(tmp_path / "w.pt")


@pytest.mark.parametrize(
    ("factory", "said"),
    [
        ("har_net", "must be module:callable"),
        ("har_net:HarNet()", "must be module:callable"),
        ("nothing_here:make", "no module 'nothing_here' in the current folder"),
        ("har_net:Missing", "has no 'Missing'"),
        ("har_net:HAR", "has no 'HAR'"),
        ("har_net:broken", "ValueError: no weights today"),
        ("har_net:no_module", r"must give a torch\.nn\.Module, got dict"),
        ("har_net:torch", "must be callable"),
    ],
)
def test_wrong_factories_are_one_line(factory, said, net, here, tmp_path):
    """A factory that is none is answered with what is wrong."""
    save_weights(net, tmp_path / "w.pt")
    with pytest.raises(RequestError, match=said) as caught:
        load_model(tmp_path / "w.pt", model_factory=factory)
    assert "\n" not in str(caught.value)


def test_weights_of_another_model_are_refused(net, here, tmp_path):
    """Missing, unexpected and misshapen weights are told in one line."""
    import torch

    state = dict(net.state_dict())
    state["extra.weight"] = torch.zeros(1)
    del state["body.10.bias"]
    torch.save(state, tmp_path / "w.pt")
    with pytest.raises(ModelFileError, match=r"missing 1 \(body\.10\.bias\); unexpected 1"):
        load_model(tmp_path / "w.pt", model_factory="har_net:HarNet")
    save_weights(net, tmp_path / "w.pt")
    with pytest.raises(ModelFileError, match=r"other shape .*\[24, 9, 5\] for \[32, 9, 5\]"):
        load_model(tmp_path / "w.pt", model_factory="har_net:wide")


class Hostile:
    """Loading a pickle of it runs a command."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


def hostile_weights(path, marker):
    import torch

    torch.save({"w": Hostile(marker)}, path)


def hostile_old_weights(path, marker):
    import torch

    torch.save({"w": Hostile(marker)}, path, _use_new_zipfile_serialization=False)


def hostile_inputs(path, marker):
    """A program whose sample inputs are a pickle that runs a command."""
    import io

    import torch

    program = torch.export.export(torch.nn.Linear(3, 2), (torch.zeros(1, 3),))
    torch.export.save(program, path)
    pickled = io.BytesIO()
    torch.save(((Hostile(marker),), {}), pickled)
    rewritten(path, "sample_inputs/model.pt", pickled.getvalue())


def hostile_size(path, marker):
    """A program with a size that is Python."""
    import torch

    free = ({0: torch.export.Dim("batch")},)
    program = torch.export.export(torch.nn.Linear(3, 2), (torch.zeros(2, 3),), dynamic_shapes=free)
    torch.export.save(program, path)
    with zipfile.ZipFile(path) as archive:
        member = next(name for name in archive.namelist() if name.endswith("models/model.json"))
        text = archive.read(member).decode()
    begin = text.index('"expr_str": "') + len('"expr_str": "')
    end = text.index('"', begin)
    code = f"__import__('os').system('touch {marker}')"
    rewritten(path, "models/model.json", (text[:begin] + code + text[end:]).encode())


def rewritten(path, ending, data):
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    name = next(name for name in members if name.endswith(ending))
    members[name] = data
    with zipfile.ZipFile(path, "w") as archive:
        for member, content in members.items():
            archive.writestr(member, content)


@pytest.mark.parametrize(
    "make", [hostile_weights, hostile_old_weights, hostile_inputs, hostile_size]
)
def test_hostile_files_do_not_run(make, here, tmp_path):
    """A pickle or an expression that would run a command is refused before it runs."""
    marker = tmp_path / "ran"
    make(tmp_path / "m.bin", marker)
    with pytest.raises(UnsafeModelError):
        load_model(tmp_path / "m.bin", model_factory="har_net:HarNet")
    assert not marker.exists()


def test_the_hostile_program_would_run_without_the_check(tmp_path):
    """The danger is real: torch itself runs it."""
    import torch

    marker = tmp_path / "ran"
    hostile_inputs(tmp_path / "m.pt2", marker)
    with contextlib.suppress(Exception):  # whatever comes after it has run
        torch.export.load(tmp_path / "m.pt2").module()(torch.zeros(1))
    assert marker.exists()


@pytest.mark.parametrize(
    "call", ["torch.from_file", "ops.aten.save", "torch.save", "ops.mylib.run", "torch.load"]
)
def test_torchscript_that_reaches_files_is_refused(call, net, here, tmp_path):
    """Operators that open files or come from elsewhere are not run, nor compiled."""
    path = tmp_path / "m.pt"
    save_trace(net, path)
    with zipfile.ZipFile(path) as archive:
        (member,) = [n for n in archive.namelist() if "har_net" in n and n.endswith(".py")]
        code = archive.read(member).decode()
    line = f'    _1 = {call}(signals, "f")\n'
    head, colon, body = code.partition("-> Tensor:\n")
    assert colon
    rewritten(path, member, (head + colon + line + body).encode())
    with pytest.raises(UnsafeModelError, match="reaches outside the model"):
        load_model(path)


def test_a_program_in_training_mode_is_refused(code, here, tmp_path):
    """Dropout that is active would answer otherwise every time."""
    import torch
    from har_net import HarNet

    program = torch.export.export(HarNet().train(), (torch.randn(2, 128, 9),))
    torch.export.save(program, tmp_path / "m.pt2")
    with pytest.raises(UnsupportedModelError, match=r"call model\.eval\(\)"):
        load_model(tmp_path / "m.pt2")


@pytest.mark.parametrize("cut", [30, 400, 20_000])
@pytest.mark.parametrize("name", ["w.pt", "old.pth", "script.pt", "free.pt2", "w.safetensors"])
def test_truncated_files_are_one_line(name, cut, net, here, tmp_path):
    """A file that was cut off is refused when it is recognised or loaded."""
    save, _, options = KINDS[name]
    path = tmp_path / name
    save(net, path)
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(ModelFileError) as caught:
        recognise(path)
        load_model(path, **options)
    assert "\n" not in str(caught.value)


def model_of(module, tmp_path, **options):
    import torch

    torch.save(module, tmp_path / "m.pt")
    SOURCE.prepare()
    return SOURCE.load(tmp_path / "m.pt", LoadOptions(trust_pickle=True, **options))


def test_several_inputs_and_outputs_keep_their_names(here, tmp_path):
    """Inputs are matched by the names of forward, outputs are named by a dictionary's keys."""
    (here / "two_towers.py").write_text(
        "import torch\n"
        "class Towers(torch.nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.words = torch.nn.Embedding(50, 8)\n"
        "        self.head = torch.nn.Linear(11, 4)\n"
        "    def forward(self, tokens, numbers, scale=None):\n"
        "        mean = self.words(tokens).mean(1)\n"
        "        joined = torch.cat([mean, numbers], 1)\n"
        "        return {'kinds': self.head(joined).softmax(1), 'mean': mean}\n"
    )
    import torch
    from two_towers import Towers

    torch.manual_seed(0)
    network = Towers().eval()
    data = (
        ArrayShape(name="numbers", dtype="float64", shape=(99, 3)),
        ArrayShape(name="tokens", dtype="int64", shape=(99, 7)),
    )
    model = model_of(network, tmp_path, data=data)
    assert [("tokens", "INT64"), ("numbers", "FP32")] == [
        (spec.name, spec.datatype.value) for spec in model.facts.inputs
    ]
    feeds = example_of(model)
    with torch.no_grad():
        expected = network(torch.from_numpy(feeds["tokens"]), torch.from_numpy(feeds["numbers"]))
    for answers in (onnx_answers, tflite_answers):
        got = answers(model, Task.GENERIC, feeds)
        assert ["kinds", "mean"] == list(got)
        for name in got:
            np.testing.assert_allclose(expected[name].numpy(), got[name], rtol=1e-4, atol=1e-6)


def test_a_table_becomes_one_matrix(here, tmp_path):
    """Columns of a table feed a network that takes one matrix."""
    import torch

    data = tuple(ArrayShape(name=f"c{i}", dtype="int64", shape=(80,)) for i in range(5))
    model = model_of(torch.nn.Linear(5, 1).eval(), tmp_path, data=data)
    assert [("input", "FP32", (-1, 5))] == [
        (spec.name, spec.datatype.value, spec.shape) for spec in model.facts.inputs
    ]
    assert Task.REGRESSION is model.facts.task


def test_input_shapes_by_hand_replace_the_datas(here, tmp_path):
    """A shape that is given by hand is taken; one too many is refused."""
    import torch

    model = model_of(torch.nn.Linear(5, 3).eval(), tmp_path, input_shapes=((1, 5),))
    assert (-1, 5) == model.facts.inputs[0].shape
    with pytest.raises(RequestError, match="input shapes must be given for input, got 2"):
        model_of(torch.nn.Linear(5, 3).eval(), tmp_path, input_shapes=((1, 5), (1, 5)))


def test_data_that_does_not_fit_is_told_with_its_shape(net, here, tmp_path):
    """Data of another shape is refused with what the model said."""
    save_weights(net, tmp_path / "w.pt")
    data = (ArrayShape(name="signals", dtype="float32", shape=(9, 9, 128)),)
    with pytest.raises(UnfitDataError, match=r"signals \[N, 9, 128\] float32"):
        load_model(tmp_path / "w.pt", model_factory="har_net:HarNet", data=data)
    save_trace(net, tmp_path / "t.pt")
    with pytest.raises(UnfitDataError, match=r"as they were given .*\): Given groups=1") as caught:
        load_model(tmp_path / "t.pt", input_shapes=((1, 9, 128),))
    assert "\n" not in str(caught.value)


def test_a_module_that_torch_export_refuses_is_traced(here, tmp_path):
    """Control flow on values: the older exporter takes what the newer does not, if it agrees."""
    (here / "asks.py").write_text(
        "import torch\n"
        "class Asks(torch.nn.Module):\n"
        "    def forward(self, x):\n"
        "        if x.isnan().any():\n"
        "            raise ValueError('NaN')\n"
        "        return x * 2 + 1\n"
    )
    from asks import Asks

    data = (ArrayShape(name="x", dtype="float32", shape=(80, 4)),)
    model = model_of(Asks().eval(), tmp_path, data=data)
    feeds = example_of(model)
    got = onnx_answers(model, Task.GENERIC, feeds)["output"]
    np.testing.assert_allclose(feeds["x"] * 2 + 1, got, rtol=1e-6)


def test_a_batch_that_is_written_into_the_model_is_fixed(here, tmp_path):
    """A model that works for one row only is exported for one row, and that is said."""
    (here / "one_row.py").write_text(
        "import torch\n"
        "class OneRow(torch.nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.head = torch.nn.Linear(8, 3)\n"
        "    def forward(self, x):\n"
        "        return self.head(x.view(1, 8))\n"
    )
    from one_row import OneRow

    data = (ArrayShape(name="x", dtype="float32", shape=(80, 2, 4)),)
    model = model_of(OneRow().eval(), tmp_path, data=data)
    assert ("the model takes 1 row at once",) == model.facts.messages
    assert 1 == exported(model, Task.CLASSIFICATION).facts.inputs[0].batch
    feeds = example_of(model, rows=7)
    expected = model.run(Task.CLASSIFICATION, feeds)["scores"]
    assert (7, 3) == expected.shape
    got = tflite_answers(model, Task.CLASSIFICATION, feeds)["scores"]
    np.testing.assert_allclose(expected, got, rtol=1e-4, atol=1e-6)


def test_a_branch_on_values_is_refused(here, tmp_path):
    """An export that would follow one branch for ever is no export of the model."""
    (here / "branches.py").write_text(
        "import torch\n"
        "class Branches(torch.nn.Module):\n"
        "    def forward(self, x):\n"
        "        return x * 2 if x.sum() > 0 else x - 1\n"
    )
    from branches import Branches

    data = (ArrayShape(name="x", dtype="float32", shape=(80, 4)),)
    with pytest.raises(UnsupportedModelError, match="cannot export the model to ONNX"):
        model_of(Branches().eval(), tmp_path, data=data)


def test_recurrent_layers_stay_one_operator(here, tmp_path):
    """An LSTM is one ONNX operator; a long one is refused for TFLite before it takes minutes."""
    (here / "memory.py").write_text(
        "import torch\n"
        "class Memory(torch.nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.lstm = torch.nn.LSTM(9, 8, batch_first=True)\n"
        "        self.head = torch.nn.Linear(8, 6)\n"
        "    def forward(self, signals):\n"
        "        return self.head(self.lstm(signals)[0][:, -1])\n"
    )
    from memory import Memory

    data = (ArrayShape(name="signals", dtype="float32", shape=(80, 1000, 9)),)
    model = model_of(Memory().eval(), tmp_path, data=data)
    file = exported(model, Task.CLASSIFICATION)
    assert "ai.onnx::LSTM" in file.facts.summary.operators
    with pytest.raises(UnsupportedModelError, match=r"every step of recurrent layers.*got 1000"):
        exported(model, Task.CLASSIFICATION, "tflite")


def test_what_litert_torch_refuses_is_written_from_onnx(here, tmp_path):
    """A layer without a lowering in litert-torch goes through the ONNX file and our own writer."""
    import torch

    torch.manual_seed(0)
    network = torch.nn.Sequential(
        torch.nn.Conv1d(3, 4, 3, padding=1),
        torch.nn.ReLU(),
        torch.nn.AdaptiveMaxPool1d(4),
        torch.nn.Flatten(),
        torch.nn.Linear(16, 3),
    ).eval()
    data = (ArrayShape(name="x", dtype="float32", shape=(80, 3, 16)),)
    model = model_of(network, tmp_path, data=data)
    feeds = example_of(model)
    expected = answers_of(network, feeds["input"])
    got = tflite_answers(model, Task.CLASSIFICATION, feeds)["scores"]
    np.testing.assert_allclose(expected, got, rtol=1e-4, atol=1e-6)


def test_what_neither_converter_takes_gives_both_reasons(here, tmp_path):
    """A model without a TFLite form says why, once for each way."""
    (here / "spectrum.py").write_text(
        "import torch\n"
        "class Spectrum(torch.nn.Module):\n"
        "    def forward(self, x):\n"
        "        return torch.fft.rfft(x, dim=1).abs().mean(1)\n"
    )
    from spectrum import Spectrum

    data = (ArrayShape(name="x", dtype="float32", shape=(80, 16, 3)),)
    model = model_of(Spectrum().eval(), tmp_path, data=data)
    with pytest.raises(UnsupportedModelError, match=r"litert-torch.*FFT.*from ONNX:.*DFT"):
        exported(model, Task.GENERIC, "tflite")


def test_half_precision_weights_are_widened(net, here, tmp_path):
    """Weights in float16 are taken as float32, and that is said."""
    import copy

    import torch

    torch.save(copy.deepcopy(net).half(), tmp_path / "m.pt")
    model = load_model(tmp_path / "m.pt", trust_pickle=True)
    assert "torch.float16" in model.facts.messages[0]
    assert "FP32" == model.facts.inputs[0].datatype.value


def test_nothing_of_the_exporters_reaches_the_terminal(net, here, tmp_path, capfd):
    """Conversion in its child process prints nothing, and leaves nothing behind."""
    save_program(net, tmp_path / "m.pt2")
    rng = np.random.default_rng(0)
    signals = rng.normal(size=(80, 128, 9)).astype(np.float32)
    np.savez(tmp_path / "d.npz", signals=signals, y=np.arange(80) % 6)
    capfd.readouterr()
    report = convert(
        ConvertRequest(
            model=tmp_path / "m.pt2",
            data=tmp_path / "d.npz",
            label="y",
            output=tmp_path / "out",
            cache=None,
            precision=("fp32",),
        )
    )
    assert ("", "") == tuple(capfd.readouterr())
    assert {"onnx-fp32", "tflite-fp32"} == {v.name for v in report.variants if v.kept}
