"""Where things lie on a device: what `edgepack setup`, the agent and its packages agree on.

Several versions of the agent lie side by side, each in an environment of its own under `releases`;
the link `current` names the one that runs, so that a switch is one rename.
"""

from pathlib import Path

from edgepack.trust.values import dataclass

USER = "edgepack"  # and the group
UNIT_NAME = "edgepack-agent.service"


@dataclass(frozen=True, slots=True)
class Installation:
    """The files of one installation.

    Attributes:
        root: The root of its file system; anything but "/" is for images and for tests.
    """

    root: Path = Path("/")

    @property
    def base(self) -> Path:
        """Everything that is replaced by an upgrade."""
        return self.root / "opt/edgepack"

    @property
    def releases(self) -> Path:
        """A folder for each version of the agent, a virtual environment each."""
        return self.base / "releases"

    @property
    def current(self) -> Path:
        """Link to the release that runs."""
        return self.base / "current"

    @property
    def command(self) -> Path:
        """What people type; a link through `current`."""
        return self.root / "usr/local/bin/edgepack-agent"

    @property
    def etc(self) -> Path:
        """Folder of the configuration."""
        return self.root / "etc/edgepack"

    @property
    def config(self) -> Path:
        """agent.toml."""
        return self.etc / "agent.toml"

    @property
    def root_json(self) -> Path:
        """The root of trust."""
        return self.etc / "root.json"

    @property
    def password(self) -> Path:
        """The broker's password, one line; mode 0640, the group is the agent's."""
        return self.etc / "mqtt-password"

    @property
    def state(self) -> Path:
        """The agent's state folder."""
        return self.root / "var/lib/edgepack"

    @property
    def unit(self) -> Path:
        """The systemd unit."""
        return self.root / "etc/systemd/system" / UNIT_NAME


def release_of(environment: Path) -> str:
    """The name of the release that an environment (`sys.prefix`) is, or "" where it is none."""
    return environment.name if environment.parent.name == "releases" else ""
