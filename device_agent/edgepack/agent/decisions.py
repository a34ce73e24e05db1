"""What people decide about a device, on it or over `in/cmd`: two small tables of operations.

Everything that a person may do over the network was signed before: `in/cmd/install` only presses
the button of an offer. What needs no signature (a file, a rollback, letting go) takes a command on
the device itself.
"""

from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgepack.agent.install.chain import acting
from edgepack.agent.install.slot import Slot
from edgepack.trust.decode import encode
from edgepack.wire.commands import InstallCommand, parse_install
from edgepack.wire.messages import Scalar

if TYPE_CHECKING:
    from edgepack.agent.install.installing import Installing

LOCAL = "local"
REMOTE = "cmd"

Command = Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]
Operation = Callable[[bytes], Awaitable[dict[str, Scalar]]]


class Decisions:
    """Carries out decisions.

    Args:
        installing: Gives what changes what is installed; made when it is first needed.
    """

    def __init__(self, installing: "Callable[[], Installing]") -> None:
        self._installing = installing

    def local(self) -> Mapping[str, Command]:
        """Of a person on the device, by the name of the command."""
        return {
            "install": self._install,
            "install_offered": self._install_offered,
            "rollback": self._roll_back,
            "release": self._release,
        }

    def remote(self) -> Mapping[str, Operation]:
        """Of whoever may write to `in/cmd/<op>`, by op."""
        return {"install": self._button}

    async def _install(self, request: dict[str, Any]) -> dict[str, Any]:
        path = Path(str(request.get("path")))
        installer = self._installing().installer
        with acting(LOCAL):
            slot = await installer.by_hand.install_file(path)
        installer.reconsider()  # a challenger may have lost its place, or got one
        return _told(slot)

    async def _install_offered(self, request: dict[str, Any]) -> dict[str, Any]:
        installer = self._installing().installer
        with acting(LOCAL):
            slot = await installer.by_hand.take_offer(str(request.get("model")), by=LOCAL)
        installer.reconsider()
        return {**_told(slot), "digest": slot.consent}

    async def _roll_back(self, request: dict[str, Any]) -> dict[str, Any]:
        to = request.get("to")
        name = str(request.get("model"))
        installer = self._installing().installer
        with acting(LOCAL):
            slot = await installer.by_hand.roll_back(name, None if to is None else str(to))
        installer.reconsider()
        return _told(slot)

    async def _release(self, request: dict[str, Any]) -> dict[str, Any]:
        installer = self._installing().installer
        with acting(LOCAL):
            slot = await installer.by_hand.release(str(request.get("model")))
        installer.reconsider()
        return _told(slot)

    async def _button(self, payload: bytes) -> dict[str, Scalar]:
        command: InstallCommand = parse_install(payload)
        installer = self._installing().installer
        with acting(REMOTE):
            await installer.by_hand.take_offer(command.model, command.digest, by=REMOTE)
        installer.reconsider()
        return {"model": command.model, "digest": command.digest}


def _told(slot: Slot) -> dict[str, Any]:
    return {"model": encode(slot.reported())}
