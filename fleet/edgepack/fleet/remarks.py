"""What an operator should know about a device before trusting that a deployment will do. Pure.

All of it is the device's own word through the broker: it is told, and decides nothing.
"""

from collections.abc import Iterator, Sequence

from edgepack.fleet.devices import DeviceState
from edgepack.wire.desired import DesiredModel


def remarks(
    state: DeviceState,
    old: Sequence[DesiredModel],
    *,
    root_version: int,
    model: str = "",
    sequence: int | None = None,
) -> Iterator[str]:
    """One line each.

    Args:
        state: What the broker retains about the device.
        old: The models of the desired state that stands there.
        root_version: Of the operator's own root of trust.
        model: The model that is deployed.
        sequence: When it was signed; None if nobody looked.

    Yields:
        Lines for a person.
    """
    device, reported = state.device, state.reported
    if state.info is not None and state.info.replaces:
        floors = [f"{one.name} {one.floor}" for one in old if one.floor]
        again = f"; sent again: {', '.join(floors)}" if floors else ""
        yield f"{device}: was installed anew and has forgotten its floors{again}"
    if reported is None:
        return
    if 0 < reported.root_version < root_version:
        yield (
            f"{device}: follows root.json version {reported.root_version}, this workstation "
            f"{root_version}; `edgepack root publish` puts it on the broker"
        )
    if reported.root_version > root_version:
        yield (
            f"{device}: follows root.json version {reported.root_version}, this workstation only "
            f"{root_version}; `edgepack root adopt` follows"
        )
    for kind, detail in sorted(reported.notices.items()):
        if kind != "reinstalled":
            yield f"{device}: {kind}: {detail}"
    yield from _floors(state, old, model, sequence)


def _floors(
    state: DeviceState, old: Sequence[DesiredModel], model: str, sequence: int | None
) -> Iterator[str]:
    if state.reported is None:
        return
    demanded = {one.name: one for one in old if one.floor}
    for one in state.reported.models:
        wanted = demanded.get(one.name)
        confirmed = one.confirmed.digest if one.confirmed is not None else ""
        if wanted is not None and confirmed == wanted.digest and one.floor < wanted.floor:
            yield (
                f"{state.device}: its floor of {one.name} went down from {wanted.floor} to "
                f"{one.floor}; it is sent again"
            )
        if one.name == model and sequence is not None and one.floor > sequence:
            yield (
                f"{state.device}: takes nothing of {model} that was signed before {one.floor}; "
                f"this bundle was at {sequence}"
            )
