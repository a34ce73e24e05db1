"""Packages whose public names are imported when asked for."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from edgepack.trust.lazy_exports import lazy_exports

PACKAGES = (
    "edgepack.bundle",
    "edgepack.monitor",
    "edgepack.runtime",
    "edgepack.trust",
    "edgepack.wire",
)


def checked_imports(package: str) -> set[str]:
    """The names that a type checker sees: those imported under TYPE_CHECKING."""
    source = Path(importlib.import_module(package).__file__).read_text()
    guards = [node for node in ast.parse(source).body if isinstance(node, ast.If)]
    return {alias.name for node in guards[0].body for alias in node.names}


@pytest.mark.parametrize("package", PACKAGES)
def test_every_public_name_is_there_and_is_what_the_type_checker_sees(package):
    """The table, `__all__` and the checked imports agree."""
    module = importlib.import_module(package)
    for name in module.__all__:
        assert getattr(module, name) is not None
    assert checked_imports(package) <= set(module.__all__)


@pytest.mark.parametrize("package", PACKAGES)
def test_a_name_that_is_not_there_is_an_attribute_error(package):
    """As of any module."""
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        importlib.import_module(package).nothing  # noqa: B018


@pytest.mark.parametrize("package", PACKAGES)
def test_no_module_hides_an_exported_name(package):
    """Importing a submodule sets an attribute of its package; it must not be a public function."""
    module = importlib.import_module(package)
    modules = {path.stem for path in Path(module.__file__).parent.glob("*.py")}
    hidden = {
        n for n in modules & set(module.__all__) if not hasattr(getattr(module, n), "__path__")
    }
    assert all(getattr(module, name).__name__ == f"{package}.{name}" for name in hidden)


def test_importing_a_package_imports_little():
    """What only a workstation needs stays out until it is asked for."""
    code = (
        "import sys, edgepack.bundle, edgepack.runtime\n"
        "before = {m for m in sys.modules if m.startswith('edgepack.')}\n"
        "from edgepack.bundle import write_bundle\n"
        "print('edgepack.bundle.pack' in before, 'edgepack.bundle.pack' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "False True\n" == done.stdout


def test_a_table_finds_names_in_their_modules():
    """One name, one module."""
    find = lazy_exports("edgepack.trust", {"errors": ("TrustError",)})
    assert "TrustError" == find("TrustError").__name__
