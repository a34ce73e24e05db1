"""What goes to a host: one folder, whose `install.sh` needs nothing but what lies beside it."""

import io
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import IO

from edgepack.fleet.setup.agent_toml import CA_NAME, CERT_NAME, KEY_NAME, PASSWORD_NAME, ROOT_NAME
from edgepack.fleet.setup.secret_files import SecretFiles
from edgepack.fleet.setup.wheels import WheelSet

INSTALLER = "install.sh"


@dataclass(frozen=True, slots=True, kw_only=True)
class InstallFolder:
    """A folder that is not written yet.

    Attributes:
        texts: Name → content of what may be read by everybody.
        secrets: Name → content of what only its owner may read.
        wheels: Files that lie there too.
    """

    texts: Mapping[str, bytes]
    secrets: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    wheels: tuple[Path, ...] = ()

    def write_tar(self, file: IO[bytes]) -> None:
        """Write it as a tar archive; the names in it hold no folder."""
        with tarfile.open(fileobj=file, mode="w") as archive:
            for contents, mode in ((self.texts, 0o644), (self.secrets, 0o600)):
                for name, data in contents.items():
                    entry = tarfile.TarInfo(name)
                    entry.size, entry.mode = len(data), mode
                    archive.addfile(entry, io.BytesIO(data))
            for path in self.wheels:
                entry = tarfile.TarInfo(path.name)
                entry.size, entry.mode = path.stat().st_size, 0o644
                with path.open("rb") as wheel:
                    archive.addfile(entry, wheel)


def installer() -> bytes:
    """`install.sh`."""
    return files("edgepack.fleet.setup").joinpath(INSTALLER).read_bytes()


def install_folder(
    wheels: WheelSet, *, root: bytes, config: str, secrets: SecretFiles, with_wheels: bool
) -> InstallFolder:
    """Put a folder together; without wheels for a host that has that release."""
    private = {
        PASSWORD_NAME: None if secrets.password is None else secrets.password + b"\n",
        CA_NAME: secrets.ca,
        CERT_NAME: secrets.cert,
        KEY_NAME: secrets.key,
    }
    return InstallFolder(
        texts={
            INSTALLER: installer(),
            "release": f"{wheels.release}\n".encode(),
            "requirements.txt": "".join(f"{line}\n" for line in wheels.requirements).encode(),
            "agent.toml": config.encode(),
            ROOT_NAME: root,
        },
        secrets={name: data for name, data in private.items() if data is not None},
        wheels=wheels.wheels if with_wheels else (),
    )
