"""The repository itself: its layers, its type check, its documents."""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from support.repository import REPOSITORY

PYPROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
MAKEFILE = (REPOSITORY / "Makefile").read_text()
ROOTS = re.search(r"^ROOTS := (.+)$", MAKEFILE, re.MULTILINE)[1].split()


def packages() -> dict[str, Path]:
    """Every subpackage of the namespace, by its dotted name."""
    folders = [path for root in ROOTS for path in (REPOSITORY / root / "edgepack").iterdir()]
    return {f"edgepack.{path.name}": path for path in folders if path.is_dir()}


def test_the_namespace_has_no_init():
    """PEP 420: one `__init__.py` in `edgepack/` would hide every other root."""
    assert [] == [str(r) for r in ROOTS if (REPOSITORY / r / "edgepack/__init__.py").exists()]


def test_every_package_is_typed():
    """Each subpackage has its `py.typed`."""
    assert [] == [name for name, path in packages().items() if not (path / "py.typed").exists()]


def test_the_layer_table_names_every_package():
    """A package that import-linter does not know is not held to any layer."""
    settings = PYPROJECT["tool"]["importlinter"]
    assert set(packages()) == set(settings["root_packages"])
    held = {name for contract in settings["contracts"] for name in contract["source_modules"]}
    assert set(packages()) - {"edgepack.cli"} == held  # the command line may import everything


def test_build_and_type_check_know_every_root():
    """The build and mypy list the same roots as the Makefile."""
    build = PYPROJECT["tool"]["hatch"]["build"]
    assert ROOTS == build["dev-mode-dirs"] == build["targets"]["wheel"]["sources"]
    assert ROOTS == PYPROJECT["tool"]["mypy"]["files"] == PYPROJECT["tool"]["mypy"]["mypy_path"]
    assert [f"{root}/edgepack" for root in ROOTS] == build["targets"]["wheel"]["only-include"]


def test_mypy_sees_an_error_planted_in_any_package(tmp_path):
    """`mypy -p edgepack` skips parts of a namespace without a word; our call does not."""
    shutil.copy(REPOSITORY / "pyproject.toml", tmp_path)
    for path in packages().values():
        folder = tmp_path / path.relative_to(REPOSITORY)
        folder.mkdir(parents=True)
        (folder / "__init__.py").touch()
        (folder / "planted.py").write_text('number: int = "text"\n')
    (command,) = re.findall(r"^\t\$\(BIN\)/(mypy .+)$", MAKEFILE, re.MULTILINE)
    arguments = command.replace("$(ROOTS)", " ".join(ROOTS)).split()
    done = subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    found = {
        line.partition("/planted.py")[0] for line in done.stdout.splitlines() if "error" in line
    }
    assert {str(path.relative_to(REPOSITORY)) for path in packages().values()} <= found


def test_ruff_and_mypy_exceptions_have_reasons():
    """An ignored rule says why."""
    text = (REPOSITORY / "pyproject.toml").read_text()
    block = text.partition("\nignore = [\n")[2].partition("\n]")[0]
    assert [] == [line for line in block.splitlines() if "#" not in line]


def test_every_reason_of_a_rejection_is_documented():
    """Whoever reads `reason` on a dashboard finds it in the operations manual."""
    source = "\n".join(p.read_text() for p in (REPOSITORY / "device_agent").rglob("*.py"))
    used = set(re.findall(r'RejectedError\(\s*"([a-z_]+)"', source))
    used |= set(re.findall(r'(?:roll_back|rolled_back)\(\s*(?:slot, )?"([a-z_]+)"', source))
    used |= {"not_trusted", "bundle_invalid", "self_test_crashed", "self_test_timeout"}
    table = (REPOSITORY / "docs/operations.md").read_text().partition("| reason | meaning |")[2]
    documented = set(re.findall(r"`([a-z_]+)`", table.partition("\n\n")[0]))
    assert set() == used - documented


def test_exit_codes_are_documented_as_they_are():
    """The manual's table and the one that --help prints name the same codes."""
    from edgepack.cli.exit_codes import EXIT_CODES

    table = (REPOSITORY / "docs/operations.md").read_text().partition("| code | meaning |")[2]
    documented = {int(code) for code in re.findall(r"^\| (\d+) \|", table, re.MULTILINE)}
    assert documented == set(EXIT_CODES)


@pytest.mark.parametrize(
    "document", sorted(REPOSITORY.glob("*.md")) + sorted(REPOSITORY.glob("docs/**/*.md"))
)
def test_links_between_documents_lead_somewhere(document):
    """No document points to a file or a heading that is not there."""
    for target in re.findall(r"\]\(([^)#\s]+)?(#[^)\s]+)?\)", document.read_text()):
        path, anchor = target
        if path.startswith(("http:", "https:")):
            continue
        other = (document.parent / path) if path else document
        assert other.exists(), path
        if anchor:
            headings = re.findall(r"^#+ (.+)$", other.read_text(), re.MULTILINE)
            anchors = {re.sub(r"[^a-z0-9 -]", "", h.lower()).replace(" ", "-") for h in headings}
            assert anchor[1:] in anchors


def test_nothing_of_this_machine_is_in_the_repository():
    """No path of a developer's machine and no registry's host name."""
    names = subprocess.run(
        ["git", "ls-files"], cwd=REPOSITORY, capture_output=True, text=True, check=True
    ).stdout.split()
    words = ["/" + "root/", "/" + "work/", "py" + "pi.org"]
    # not the MQTT topic blob/root/1
    words = re.compile("|".join(rf"(?<![a-z]){re.escape(word)}" for word in words).encode())
    found = [name for name in names if words.search((REPOSITORY / name).read_bytes())]
    assert [] == found
