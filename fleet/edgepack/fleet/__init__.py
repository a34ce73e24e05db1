"""The operator's side: deploy, remove, roll back, watch, and a broker for a first try."""

from edgepack.fleet.connection import BrokerUrl, connect, parse_broker_url
from edgepack.fleet.deploy import DeployOptions, deploy, desired_model
from edgepack.fleet.desired_state import MergePolicy, Signer
from edgepack.fleet.devices import DeviceState, Targets, find_devices
from edgepack.fleet.errors import (
    BrokerError,
    DeviceRefusedError,
    FleetError,
    OvertakenError,
    TargetError,
    WaitTimeoutError,
)
from edgepack.fleet.operator import Operator, Outcome
from edgepack.fleet.withdraw import remove, rollback

__all__ = [
    "BrokerError",
    "BrokerUrl",
    "DeployOptions",
    "DeviceRefusedError",
    "DeviceState",
    "FleetError",
    "MergePolicy",
    "Operator",
    "Outcome",
    "OvertakenError",
    "Signer",
    "TargetError",
    "Targets",
    "WaitTimeoutError",
    "connect",
    "deploy",
    "desired_model",
    "find_devices",
    "parse_broker_url",
    "remove",
    "rollback",
]
