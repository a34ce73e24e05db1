"""The OCI image's definition, as far as it can be checked without a container engine."""

import json
import re
import subprocess

import pytest
from support.repository import REPOSITORY

from edgepack.agent.commands.table import VERBS
from edgepack.agent.systemd.unit import unit_text
from edgepack.wire.installation import USER, Installation

TEXT = (REPOSITORY / "packaging/Containerfile").read_text()
KNOWN = {"FROM", "WORKDIR", "COPY", "ARG", "RUN", "USER", "VOLUME", "STOPSIGNAL", "HEALTHCHECK",
         "ENTRYPOINT", "CMD"}  # fmt: skip


def instructions():
    """Each instruction with its words; continued lines are one."""
    joined = re.sub(r"\\\n\s*", "", TEXT)
    lines = [line for line in joined.splitlines() if line.strip() and not line.startswith("#")]
    return [tuple(line.split(maxsplit=1)) for line in lines]


def of(kind):
    return [rest for name, rest in instructions() if name == kind]


def test_it_has_known_instructions_in_two_stages():
    """The second begins clean and takes only the environment from the first."""
    assert {name for name, _ in instructions()} <= KNOWN
    stages = of("FROM")
    assert 2 == len(stages)
    assert stages[0].endswith(" AS build")
    assert ["--from=build /opt/edgepack /opt/edgepack"] == [c for c in of("COPY") if "--from" in c]


def test_every_file_that_it_copies_is_there():
    """And everything that the wheel is built of is copied."""
    sources = [word for rest in of("COPY") if "--from" not in rest for word in rest.split()[:-1]]
    for name in sources:
        assert (REPOSITORY / name).exists(), name
    project = (REPOSITORY / "pyproject.toml").read_text()
    roots = re.search(r"^sources = \[(.*)\]", project, re.MULTILINE)[1]
    assert set(re.findall(r'"(\w+)"', roots)) <= set(sources)
    assert {"pyproject.toml", "README.md", "LICENSE", "constraints.txt"} <= set(sources)


@pytest.mark.parametrize("command", of("RUN"))
def test_every_step_is_shell(command):
    """Each part ends the build when it fails."""
    subprocess.run(["sh", "-n", "-c", command], check=True)
    assert ";" not in command


def test_its_layout_is_that_of_a_device():
    """The places, the user and the command that everything else counts on."""
    steps, here = "\n".join(of("RUN")), Installation()
    assert f"ln -s {here.current}/bin/edgepack-agent {here.command}" in steps
    assert f"-o {USER} -g {USER} {here.state}" in steps
    assert [USER] == of("USER")
    assert [str(here.state)] == of("VOLUME")
    assert f"{here.current}/bin/edgepack-agent run" in unit_text()


def test_what_it_runs_are_verbs_of_ours():
    """With the options that they have."""
    assert ["edgepack-agent"] == json.loads(of("ENTRYPOINT")[0])
    verbs = {verb.name for verb in VERBS}
    assert set(json.loads(of("CMD")[0])) <= verbs
    check = json.loads(of("HEALTHCHECK")[0].partition("CMD ")[2])
    assert ["edgepack-agent", "status", "--running"] == check
