"""Keeps out of the agent's memory what it never uses: 2.7 MB of 84, measured in the footprint.

paho imports `urllib.request`, and with it http.client, the email package and more, only to look for
a proxy when PySocks is installed; the agent uses no proxy for MQTT. (`edgepack.runtime.version`
does the same for importlib.metadata.)
"""

import sys
import urllib
from types import ModuleType

_REQUEST = "urllib.request"


def import_paho() -> None:
    """Import paho without `urllib.request`; whoever imports that later gets the real one."""
    if _REQUEST in sys.modules or "paho.mqtt.client" in sys.modules:
        return
    stand_in = ModuleType(_REQUEST)
    stand_in.__dict__["getproxies"] = dict
    stand_in.__dict__["proxy_bypass"] = lambda _: True
    sys.modules[_REQUEST] = stand_in
    urllib.__dict__["request"] = stand_in
    try:
        import paho.mqtt.client  # noqa: F401
    finally:
        del sys.modules[_REQUEST]
