"""PyTorch's files are told apart by their content; hostile ones are refused. No torch is needed."""

import io
import json
import os
import pickle
import zipfile
from collections import OrderedDict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgepack.converter.errors import ConvertError, ModelFileError, UnsafeModelError
from edgepack.converter.sources.find import recognise
from edgepack.converter.sources.pickle_names import names_in
from edgepack.converter.sources.torch_kind import OLD_MAGIC
from edgepack.converter.sources.torch_program import checked_copy

WEIGHTS = (
    b"\x80\x02ccollections\nOrderedDict\nq\x00)Rq\x01X\x01\x00\x00\x00wq\x02ctorch._utils\n"
    b"_rebuild_tensor_v2\nq\x030s."
)
MODULE = b"\x80\x02c__main__\nNet\nq\x00)\x81q\x01ctorch.nn.modules.linear\nLinear\nq\x020."


class Hostile:
    """A pickle of it runs a command when it is loaded."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


def zipped(path, members):
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def torch_zip(path, **members):
    return zipped(path, {f"m/{name}": data for name, data in members.items()})


def old_file(path, pickled):
    protocol, machine = pickle.dumps(1001, 2), pickle.dumps({"little_endian": True}, 2)
    path.write_bytes(OLD_MAGIC + protocol + machine + pickled + pickle.dumps([], 2) + b"raw")
    return path


def program(path, *, document=None, config=None, more=None):
    """A `.pt2` whose graph is `document`."""
    members = {
        "m/archive_format": b"pt2",
        "m/models/model.json": json.dumps(document or {"graph_module": {}}).encode(),
        "m/data/weights/model_weights_config.json": json.dumps({"config": config or {}}).encode(),
        **(more or {}),
    }
    return zipped(path, members)


def kind(path):
    found = recognise(path)
    assert "torch_file" == found.module
    return found.description


def test_a_zip_of_weights_is_told(tmp_path):
    """A state dict that torch.save wrote is weights, whatever it is called."""
    path = torch_zip(tmp_path / "model.bin", **{"data.pkl": WEIGHTS, "version": b"3"})
    assert "PyTorch weights" == kind(path)


def test_a_pickled_module_is_told_from_weights(tmp_path):
    """A pickle that asks for a class of its own is no state dict."""
    path = torch_zip(tmp_path / "model.pt", **{"data.pkl": MODULE})
    assert "pickled PyTorch object" == kind(path)


def test_torchscript_is_told_by_its_code(tmp_path):
    """A zip with code is TorchScript."""
    path = torch_zip(
        tmp_path / "m.pt", **{"data.pkl": MODULE, "code/__torch__.py": b"", "constants.pkl": b""}
    )
    assert "TorchScript module" == kind(path)


def test_an_exported_program_is_told(tmp_path):
    """A `.pt2` is told by its archive format, also under another name."""
    assert "PyTorch ExportedProgram" == kind(program(tmp_path / "model.pt"))


def test_files_of_old_versions_are_told(tmp_path):
    """What torch.save wrote before zip files: weights and modules."""
    weights = old_file(tmp_path / "w.pth", WEIGHTS)
    module = old_file(tmp_path / "m.pth", MODULE)
    assert "PyTorch weights, old format" == kind(weights)
    assert "pickled PyTorch object, old format" == kind(module)


def test_a_plain_pickle_of_a_module_is_told_from_scikit_learns(tmp_path):
    """pickle.dump of a module is PyTorch's; a pickle without torch is not."""
    (tmp_path / "m.pkl").write_bytes(MODULE)
    assert "pickled PyTorch object, plain pickle" == kind(tmp_path / "m.pkl")
    (tmp_path / "s.pkl").write_bytes(b"\x80\x04\x8c\x0csklearn.base\x8c\x04Nope\x93.")
    assert "scikit_learn" == recognise(tmp_path / "s.pkl").module


def test_safetensors_weights_are_told(tmp_path):
    """A safetensors file as a model is weights."""
    header = json.dumps({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    path = tmp_path / "model.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    assert "safetensors weights" == kind(path)
    path.write_bytes(path.read_bytes()[: len(header)])
    with pytest.raises(ModelFileError, match="truncated safetensors"):
        recognise(path)


@pytest.mark.parametrize("length", [0x0280, 0x0480, 0x0580])
def test_safetensors_whose_length_begins_as_a_pickle_does_are_told(tmp_path, length):
    """The first bytes of a header of 1,152 bytes are those of a pickle of protocol 4."""
    header = json.dumps({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    path = tmp_path / "model.safetensors"
    path.write_bytes(length.to_bytes(8, "little") + header.ljust(length) + bytes(4))
    assert "safetensors weights" == kind(path)


@pytest.mark.parametrize(
    ("members", "said"),
    [
        ({"m/data/aotinductor/model/x.so": b""}, "machine code of AOTInductor"),
        ({"MAR-INF/MANIFEST.json": b"{}"}, "TorchServe archive"),
        ({"m/data.pkl": b"\x80\x02}q"}, "damaged pickle"),
        ({"x.npy": b""}, "a zip file of another kind"),
    ],
)
def test_zips_of_no_use_are_refused_in_one_line(tmp_path, members, said):
    """A zip that cannot become a model is answered with what it is."""
    with pytest.raises(ModelFileError, match=said) as caught:
        recognise(zipped(tmp_path / "m.pt", members))
    assert "\n" not in str(caught.value)


def test_mobile_files_are_refused(tmp_path):
    """ExecuTorch files and flatbuffers of the mobile runtime are named."""
    (tmp_path / "m.pte").write_bytes(b"\x00\x00\x00\x00ET12" + bytes(100))
    with pytest.raises(ModelFileError, match="mobile runtime"):
        recognise(tmp_path / "m.pte")


def test_an_encrypted_zip_is_refused(tmp_path):
    """A zip whose members are encrypted is called so."""
    path = torch_zip(tmp_path / "m.pt", **{"data.pkl": WEIGHTS})
    raw = bytearray(path.read_bytes())
    raw[6] |= 1
    raw[raw.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(raw)
    with pytest.raises(ModelFileError, match="encrypted"):
        recognise(path)


def test_recognising_runs_nothing(tmp_path):
    """Telling a hostile pickle apart does not load it, in any container."""
    marker = tmp_path / "ran"
    hostile = pickle.dumps({"w": Hostile(marker)}, 2)
    zipped_file = torch_zip(tmp_path / "z.pt", **{"data.pkl": hostile})
    assert "pickled PyTorch object" == kind(zipped_file)
    assert "pickled PyTorch object, old format" == kind(old_file(tmp_path / "o.pt", hostile))
    assert not marker.exists()


@pytest.mark.parametrize("protocol", range(6))
def test_names_are_found_in_every_protocol(protocol):
    """Names are read from the opcodes, memoized ones too."""
    data = pickle.dumps([OrderedDict(), OrderedDict(a=OrderedDict)], protocol)
    found = names_in(io.BytesIO(data), what="x")
    assert ("collections", "OrderedDict") in found


@given(st.binary(max_size=200))
def test_any_bytes_give_names_or_the_documented_error(data):
    """Scanning what is no pickle ends in names or in one kind of error."""
    try:
        found = names_in(io.BytesIO(data), what="x")
    except ConvertError:
        return
    assert all(isinstance(part, str) for pair in found for part in pair)


def node(target):
    return {"graph_module": {"graph": {"nodes": [{"target": target, "inputs": []}]}}}


@pytest.mark.parametrize(
    "target",
    [
        "torch.os.system",
        "torch.ops.aten.from_file",
        "torch.ops.aten.from_file.default",
        "torch.hub.load",
        "torch.ops.mylib.run",
        "torch.ops.higher_order.triton_kernel_wrapper_functional",
        "_operator.call",
        "_operator.attrgetter",
        "torch.ops.aten.add\n.Tensor",
        "#registered:op",
        "math.__loader__.load_module",
    ],
)
def test_operators_from_outside_are_refused(tmp_path, target):
    """Torch would look any name up; a program of tensors needs only torch's operators."""
    with pytest.raises(UnsafeModelError, match="the operator"):
        checked_copy(program(tmp_path / "m.pt2", document=node(target)))


@pytest.mark.parametrize(
    "target", ["torch.ops.aten.conv1d.default", "_operator.getitem", "torch.sym_max", "math.ceil"]
)
def test_operators_of_tensors_pass(tmp_path, target):
    """What torch.export.save writes for a network passes."""
    assert checked_copy(program(tmp_path / "m.pt2", document=node(target))).read(2) == b"PK"


@pytest.mark.parametrize(
    "size",
    [
        "__import__('os').system('id')",
        "open('x')",
        "sympify('x')",
        "Symbol('a b')",
        "(lambda: 1)()",
        "s0.__class__",
        "eval",
        "[1][0]",
        "Symbol(eval('x'))",
        'Symbol("x")',
    ],
)
def test_sizes_that_are_code_are_refused(tmp_path, size):
    """Torch evaluates sizes as Python; only numbers, symbols and known functions may be there."""
    document = {"sizes": [{"as_expr": {"expr_str": size}}]}
    with pytest.raises(UnsafeModelError, match="the size"):
        checked_copy(program(tmp_path / "m.pt2", document=document))


@pytest.mark.parametrize(
    "size",
    [
        "Symbol('s63', positive=True, integer=True)",
        "2*s0 + 1",
        "FloorDiv(Symbol('s0', integer=True), Integer(2))",
        "Mul(Integer(4), Symbol('u0', integer=True))",
    ],
)
def test_sizes_of_free_batches_pass(tmp_path, size):
    """Sizes as torch writes them pass."""
    document = {"sizes": [{"as_expr": {"expr_str": size}}]}
    assert checked_copy(program(tmp_path / "m.pt2", document=document)).read(2) == b"PK"


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ({"in_spec": '[1, {"type": "collections.defaultdict", "context": "{}"}]'}, "type"),
        ({"out_spec": '[1, {"type": "mylib.Output", "children_spec": []}]'}, "type"),
        ({"in_spec": '[1, {"type": "builtins.dict", "context": "[{\\"__enum__\\": 1}]"}]'}, "enum"),
        ({"out_spec": '[1, {"type": "builtins.dict", "context": "[\\"a=f()\\"]"}]'}, "of the name"),
        ({"inputs": [{"name": "x\nimport os"}]}, "the name"),
        ({"forward_arg_names": ["x=__import__('os').system('id')"]}, "the name"),
        ({"parameter_name": 'a"), open("x'}, "the name"),
        ({"tensor_values": {"f(x)": {}}}, "the name"),
        ({"tensor_values": {"metadata": {"as_expr": {"expr_str": "open('x')"}}}}, "the size"),
        ({"target": {}, "metadata": {"expr_str": "open('x')"}}, "the size"),
        ({"custom_obj_values": {"metadata": {"class_fqn": "a"}}}, "no tensor"),
        ({"as_strings": [], "buffer_name": "x;y"}, "the name"),
        ({"range_constraints": {"open('x')": {}}}, "the size"),
        ({"as_custom_obj": {"name": "obj"}}, "no tensor"),
    ],
)
def test_structures_that_import_are_refused(tmp_path, document, said):
    """Types, names and objects that make torch import or write Python are refused."""
    with pytest.raises(UnsafeModelError, match=said):
        checked_copy(program(tmp_path / "m.pt2", document=document))


@pytest.mark.parametrize(
    "payload",
    [
        {"path_name": "weight_0", "use_pickle": True},
        {"path_name": "weight_0"},
        {"path_name": "opaque_obj_0", "use_pickle": False},
        {"path_name": "custom_obj_0", "use_pickle": False},
        {"path_name": "weight_0/../../x", "use_pickle": False},
    ],
)
def test_pickled_weights_in_a_program_are_refused(tmp_path, payload):
    """Torch unpickles a weight that says so without any limit."""
    with pytest.raises(UnsafeModelError, match="w1"):
        checked_copy(program(tmp_path / "m.pt2", config={"w1": payload}))


def test_guards_are_emptied(tmp_path):
    """Guards are Python text that torch runs; the copy has none."""
    path = program(tmp_path / "m.pt2", document={"guards_code": ["__import__('os')"], "x": 1})
    with zipfile.ZipFile(checked_copy(path)) as archive:
        assert {"guards_code": [], "x": 1} == json.loads(archive.read("m/models/model.json"))


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_members_of_one_name_are_refused(tmp_path):
    """Torch may read the other one."""
    path = program(tmp_path / "m.pt2")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("m/models/model.json", "{}")
    with pytest.raises(UnsafeModelError, match="two members"):
        checked_copy(path)


def test_machine_code_beside_a_program_is_refused(tmp_path):
    """Torch would load a library that lies in the archive."""
    path = program(tmp_path / "m.pt2", more={"data/aotinductor/model/x.so": b""})
    with pytest.raises(UnsafeModelError, match="machine code"):
        checked_copy(path)


def test_texts_that_are_data_pass(tmp_path):
    """An equation for einsum and where a node came from are not run."""
    node = {"target": "torch.ops.aten.relu.default", "metadata": {"stack_trace": 'File "x", f(y)'}}
    document = {"as_string": "bi,ij->bj", "nodes": [node]}
    assert checked_copy(program(tmp_path / "m.pt2", document=document)).read(2) == b"PK"


def test_a_program_that_is_no_json_is_damaged(tmp_path):
    """A damaged graph is one line."""
    path = program(tmp_path / "m.pt2", more={"m/models/model.json": b"{"})
    with pytest.raises(ModelFileError, match="damaged exported program"):
        checked_copy(path)
