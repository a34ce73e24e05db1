"""What a device loads to open a bundle."""

import subprocess
import sys

from bundle_factory import RELEASE_KEY, write_small

from edgepack.bundle import sign_bundle

SCRIPT = """
import sys
from edgepack.bundle import extract_bundle, open_bundle
bundle = open_bundle(sys.argv[1])
assert bundle.signatures
bundle.read("golden.safetensors")
extract_bundle(bundle, sys.argv[2])
heavy = {"cryptography", "numpy", "onnx", "onnxruntime", "sklearn", "torch", "ssl", "tarfile"}
print(sorted(heavy & set(sys.modules)))
print(sorted(name for name in sys.modules if name.startswith("edgepack.") and name.count(".") == 1))
"""


def test_opening_a_signed_bundle_loads_neither_cryptography_nor_numpy(tmp_path):
    """Only trust and bundle are loaded, and no library but the decoder."""
    path = write_small(tmp_path / "a.edgepack")
    sign_bundle(path, RELEASE_KEY, sequence=1)

    result = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(path), str(tmp_path / "out")],
        capture_output=True,
        text=True,
        check=True,
    )

    assert ["[]", "['edgepack.bundle', 'edgepack.trust']"] == result.stdout.splitlines()
