"""The frame of the command: help, errors of one line, exit codes, interruption."""

import os
import signal
import subprocess
import sys

import pytest
from support.fake_device import FakeDevice, in_background

from edgepack.cli import bundles as bundles_module
from edgepack.cli.commands import COMMANDS
from edgepack.cli.exit_codes import EXIT_CODES
from edgepack.cli.failures import explain


def test_help_lists_every_command_and_every_exit_code(edgepack):
    """The first help page names all commands and what the exit codes mean."""
    ended = edgepack("--help")
    assert 0 == ended.code
    assert [] == [one.name for one in COMMANDS if f"    {one.name} " not in ended.out]
    assert [] == [text for text in EXIT_CODES.values() if text not in ended.out]


@pytest.mark.parametrize("name", [command.name for command in COMMANDS])
def test_every_command_has_help(edgepack, name):
    """Each command explains its arguments and the exit codes."""
    ended = edgepack(name, "--help")
    assert 0 == ended.code
    assert f"usage: edgepack {name}" in ended.out
    assert "exit codes:" in ended.out


def test_every_option_with_a_value_says_its_default_or_unit(edgepack):
    """An option that takes a value tells its default, or the command demands it."""
    import argparse

    from edgepack.cli.main import build_parser

    silent = []
    for command in COMMANDS:
        if command.name in ("demo", "bench"):
            continue  # other parts of the repository test these
        parser = build_parser([command.name])
        verbs = next(a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
        for action in verbs.choices[command.name]._actions:
            takes_value = action.option_strings and action.nargs != 0
            text = action.help or ""
            told = "default" in text or action.required or action.default == []
            if takes_value and not told:
                silent.append(f"{command.name} {action.option_strings[-1]}")
    optional = ["convert --license-file", "predict --variant"]
    assert [] == [one for one in silent if one not in optional]


def test_the_first_page_of_help_loads_nothing_heavy():
    """Help needs no numpy, network, cryptography or terminal package."""
    code = (
        "import sys\n"
        "from edgepack.cli.main import main\n"
        "main(['--help'])\n"
        "heavy = {'numpy', 'aiomqtt', 'rich', 'cryptography', 'cattrs', 'amqtt', 'asyncio'}\n"
        "print(sorted(heavy & sys.modules.keys()), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "[]" == done.stderr.strip()


def test_the_version_is_the_distributions(edgepack):
    """--version prints what the installed distribution says."""
    from importlib.metadata import version

    assert f"edgepack {version('edgepack')}\n" == edgepack("--version").out


@pytest.mark.parametrize(
    "arguments", [[], ["nonsense"], ["keygen"], ["inspect", "x", "--nonsense"], ["--nonsense"]]
)
def test_wrong_usage_is_one_line_with_where_to_look(edgepack, arguments):
    """What cannot be parsed ends with 2, one line of error and one that points to help."""
    ended = edgepack(*arguments)
    lines = ended.err.splitlines()
    assert (2, 2) == (ended.code, len(lines))
    assert ": error: " in lines[0]
    assert lines[1].startswith("  see: edgepack")


def test_an_error_of_ours_is_one_line_and_its_code(edgepack, tmp_path):
    """A file that is no bundle is told in one line, with exit code 4 and no traceback."""
    path = tmp_path / "x.edgepack"
    path.write_bytes(b"no bundle" * 100)
    ended = edgepack("inspect", path)
    assert (4, 1) == (ended.code, len(ended.err.splitlines()))
    assert ended.err.startswith("edgepack: error: ")
    assert "" == ended.out


def test_a_traceback_is_shown_with_v_only(edgepack, tmp_path):
    """-v, before or after the command, adds the traceback to the one line."""
    path = tmp_path / "absent.edgepack"
    assert "Traceback" not in edgepack("inspect", path).err
    assert "Traceback" in edgepack("inspect", path, "-v").err
    assert "Traceback" in edgepack("-v", "inspect", path).err


def test_what_nobody_foresaw_is_called_a_defect(edgepack, monkeypatch):
    """An exception that is none of ours ends with 1 and says whose fault it is."""

    def broken(_):
        raise RuntimeError("two\nlines")

    monkeypatch.setattr(bundles_module, "run_inspect", broken)
    ended = edgepack("inspect", "x")
    assert 1 == ended.code
    expected = (
        "edgepack: error: RuntimeError: two lines (this is a defect of edgepack)\n"
        "  hint: run it with -v for the traceback\n"
    )
    assert expected == ended.err


def test_a_missing_package_is_told_with_the_extra_that_has_it(edgepack, monkeypatch):
    """Without an optional package the error says what to install."""

    def needs_rich(_):
        raise ModuleNotFoundError("No module named 'rich'", name="rich.live")

    monkeypatch.setattr(bundles_module, "run_inspect", needs_rich)
    ended = edgepack("inspect", "x")
    assert 2 == ended.code
    assert "hint: pip install 'edgepack[fleet]'" in ended.err


def test_files_and_disks_have_different_codes():
    """A file that is not there is the caller's, a full disk is the disk's."""
    import errno

    absent = explain(FileNotFoundError(errno.ENOENT, "No such file or directory", "x"))
    full = explain(OSError(errno.ENOSPC, "No space left on device", "x"))
    assert (2, "x: No such file or directory") == (absent.code, absent.message)
    assert 9 == full.code


def test_a_reader_that_goes_away_is_no_error(process, bundle):
    """`edgepack inspect … | head -0` ends quietly."""
    running = process("inspect", bundle, "--json")
    running.stdout.close()
    assert 0 == running.wait(20)
    assert "" == running.stderr.read()


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_ctrl_c_ends_with_130(process, embedded_broker, prefix):
    """A command that is interrupted says so in one line."""
    running = process("watch", "--broker", embedded_broker.url, "--prefix", prefix, "--json")
    with in_background(FakeDevice(embedded_broker.url, prefix)):
        assert "dev-1" in running.stdout.readline()
    running.send_signal(signal.SIGINT)
    assert 130 == running.wait(10)
    assert "\nedgepack: interrupted\n" == running.stderr.read()
