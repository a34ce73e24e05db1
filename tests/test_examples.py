"""The examples, run as their README says."""

import os
import subprocess
import sys

import pytest
from support.agent_process import wait_until
from support.repository import REPOSITORY

EXAMPLES = REPOSITORY / "examples"
EDGEPACK = (sys.executable, "-m", "edgepack.cli.main")
AGENT = (sys.executable, "-m", "edgepack.agent.main")


def run(folder, *command):
    done = subprocess.run(
        list(map(str, command)),
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert 0 == done.returncode, done.stdout + done.stderr
    return done.stdout


@pytest.mark.timeout(180)
def test_the_examples_lead_from_training_to_answers(tmp_path, mosquitto):
    """Train, convert, predict in-process, deploy, ask over MQTT."""
    assert "accuracy on 228 rows" in run(tmp_path, sys.executable, EXAMPLES / "train.py")
    convert = ("convert", "tumour.joblib", "--data", "tumour.csv", "--label", "malignant")
    run(tmp_path, *EDGEPACK, "keygen", "keys")
    run(tmp_path, *EDGEPACK, *convert, "--keys", "keys")
    bundle = "tumour-0.1.0.edgepack"
    said = run(tmp_path, sys.executable, EXAMPLES / "predict.py", bundle)
    assert "label" in said
    assert "refused: " in said
    config = (EXAMPLES / "agent.toml").read_text().replace(":1883", f":{mosquitto.port}")
    (tmp_path / "agent.toml").write_text(config)
    with (tmp_path / "agent.log").open("w") as log:
        agent = subprocess.Popen(
            [*AGENT, "run", "--config", "agent.toml"], cwd=tmp_path, stderr=log
        )
    try:
        deploy = (
            "deploy",
            bundle,
            "--device",
            "bench-1",
            "--keys",
            "keys",
            "--broker",
            mosquitto.url,
        )
        run(tmp_path, *EDGEPACK, *deploy)
        watch = ("watch", "--broker", mosquitto.url, "--once", "--json")
        wait_until(lambda: "probation" in run(tmp_path, *EDGEPACK, *watch), "the device switched")
        ask = ("127.0.0.1", mosquitto.port, "bench-1", "tumour")
        assert " of 10 right" in run(tmp_path, sys.executable, EXAMPLES / "ask.py", *ask)
    finally:
        agent.terminate()
        assert 0 == agent.wait(20)


def test_the_readme_names_every_example():
    """No example is left out, and none is made up."""
    text = (EXAMPLES / "README.md").read_text()
    assert all(name in text for name in os.listdir(EXAMPLES) if name != "README.md")
