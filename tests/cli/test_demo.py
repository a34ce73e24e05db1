"""The demo, as a user runs it."""

import subprocess
import sys

import pytest

EDGEPACK = (sys.executable, "-m", "edgepack.cli.main")


@pytest.mark.timeout(240)
def test_the_demo_observes_everything_it_promises(tmp_path):
    """Exit code 0, and each promise in its own line."""
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "edgepack.cli.main",
            "demo",
            "--seconds",
            "2",
            "--folder",
            str(tmp_path / "demo"),
        ],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert 0 == done.returncode, done.stdout + done.stderr
    seen = [line.strip() for line in done.stdout.splitlines() if "✓" in line]
    promises = (
        "1.0.0 was deployed and confirmed",
        "1.1.0 was deployed and confirmed",
        "requests were answered",
        "after the upgrade 1.1.0 answered",
        "after both refusals 1.1.0 went on answering",
        "accuracy on the device is",
    )
    for promise in promises:
        assert any(promise in line for line in seen), promise
    assert 2 == sum("workstation refused it" in line for line in seen)
    assert 2 == sum("device refused it" in line for line in seen)
    assert "onnx-fp32" in done.stdout.partition("parity with the original model")[2]


def test_an_observation_that_fails_ends_the_demo(tmp_path):
    """Exit code 0 only if everything was observed: a device that never answers ends it."""
    from rich.console import Console

    from edgepack.cli.demo.processes import Ended
    from edgepack.cli.demo.screen import DemoError, Screen

    screen = Screen(Console(quiet=True), tmp_path)
    with pytest.raises(DemoError, match="not observed: that was deployed"):
        screen.observe(False, "that was deployed", Ended(8, "", "device refused"))
