"""The device agent: installs bundles safely, runs them locally, reports over MQTT.

`compose.py` wires the parts; `main.py` is the `edgepack-agent` command.
"""

__all__: list[str] = []
