"""`edgepack setup`: from a machine that one can log in to, to a device that is online.

`hosts` reads what a person typed, `ssh` is the way there, `probe` looks, `decide` says what fits
(pure), `wheels` gets it on the workstation, `agent_toml` writes the configuration, `folder` is what
goes over, `install.sh` does it there, and `setup` is the order in which all this happens.
"""

from edgepack.fleet.setup.options import SetupOptions
from edgepack.fleet.setup.outcome import HostOutcome
from edgepack.fleet.setup.setup import set_up
from edgepack.fleet.setup.stick import write_stick

__all__ = ["HostOutcome", "SetupOptions", "set_up", "write_stick"]
