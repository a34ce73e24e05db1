"""The id that a device gets when nobody names one: readable, and its own after a copied disk image.

The host name alone is not enough: a hundred boards from one image are all called "raspberrypi".
"""

import hashlib
import re

_PURPOSE = b"edgepack device id\0"  # systemd: never show a machine-id, only a hash of it for a use
_HASH_CHARACTERS = 6
_LONGEST_HOST = 64 - 1 - _HASH_CHARACTERS


def default_device_id(host_name: str, machine_id: str) -> str:
    """The default id: the host name and six characters that follow from the machine-id.

    Args:
        host_name: As `hostname` says it; a domain is left out.
        machine_id: What /etc/machine-id holds; with an empty one the id is the host name alone.

    Example:
        >>> default_device_id("press-7.plant.example", "9a1d0c5f7b3e4d2a8c6b0f1e2d3c4b5a")
        'press-7-bce81b'
    """
    host = re.sub(r"[^A-Za-z0-9_-]+", "-", host_name.partition(".")[0]).strip("-")
    host = host[:_LONGEST_HOST] or "device"
    known = machine_id.strip().lower()
    if not known:
        return host if host != "blob" else "blob-device"  # "blob" is no device's id
    digest = hashlib.sha256(_PURPOSE + known.encode()).hexdigest()
    return f"{host}-{digest[:_HASH_CHARACTERS]}"
