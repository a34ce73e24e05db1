"""The text of `edgepack-agent.service`; `python -m edgepack.agent.systemd.unit` prints it.

Whoever installs the agent takes the unit from the very version that it installs. The layout that it
counts on: the program under `/opt/edgepack/current`, `/etc/edgepack/agent.toml`, user `edgepack`.
"""

import sys
from importlib.resources import files

UNIT_NAME = "edgepack-agent.service"
UNIT_PATH = f"/etc/systemd/system/{UNIT_NAME}"


def unit_text() -> str:
    """The unit, as it goes to `UNIT_PATH`."""
    return files("edgepack.agent.systemd").joinpath(UNIT_NAME).read_text(encoding="utf-8")


if __name__ == "__main__":
    sys.stdout.write(unit_text())
