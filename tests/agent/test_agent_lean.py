"""What the agent keeps out of its memory, and that it is there when it is needed."""

import importlib.metadata
import subprocess
import sys

from edgepack.runtime.version import version_of

CODE = """
import sys
from edgepack.agent.lean import import_paho
from edgepack.runtime.version import version_of
import_paho()
import edgepack.agent.compose
version_of("edgepack")
print(sorted({"urllib.request", "http.client", "email", "zipfile"} & set(sys.modules)))
import urllib.request
print(urllib.request.Request("http://x/y").host)
import paho.mqtt.client
print(paho.mqtt.client.urllib.request is urllib.request)
"""


def test_paho_comes_without_what_it_does_not_need():
    """And whoever needs it later has the real one."""
    done = subprocess.run(
        [sys.executable, "-c", CODE], capture_output=True, text=True, check=True, timeout=120
    )
    assert ["[]", "x", "True"] == done.stdout.split("\n")[:3]


def test_a_version_is_that_of_the_installed_package():
    """As importlib.metadata says, with and without a folder of that name."""
    for name in ("edgepack", "pytest", "PyYAML"):
        assert importlib.metadata.version(name) == version_of(name)
