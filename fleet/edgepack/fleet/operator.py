"""What every change to a fleet has in common: find, plan, publish, follow."""

import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

import aiomqtt

from edgepack.fleet.blobs import UploadProgress
from edgepack.fleet.connection import BrokerUrl, connect
from edgepack.fleet.desired_state import Change, MergePolicy, Plan, Signer, plan
from edgepack.fleet.devices import DeviceState
from edgepack.fleet.errors import DeviceRefusedError
from edgepack.fleet.follow import DeviceProgress, Follower, Goal, Verdict
from edgepack.fleet.publish import write_desired
from edgepack.wire.desired import DEFAULT_LIFETIME_S
from edgepack.wire.topics import DEFAULT_PREFIX


def _ignore(_: object) -> None:
    pass


@dataclass(frozen=True, slots=True, kw_only=True)
class Operator:
    """Who changes the fleet, and through which broker.

    Attributes:
        broker: Where the broker is.
        signer: Who signs.
        prefix: Topic prefix.
        lifetime_s: How long devices may start what is signed now, in seconds.
        wait_s: How long to follow the devices, in seconds; None publishes and returns.
        on_upload: Called while blobs go to the broker.
        on_device: Called when a device gets on.
        on_note: Called with one line that a person should read.
    """

    broker: BrokerUrl
    signer: Signer
    prefix: str = DEFAULT_PREFIX
    lifetime_s: int = DEFAULT_LIFETIME_S
    wait_s: float | None = None
    on_upload: Callable[[UploadProgress], None] = field(default=_ignore, repr=False)
    on_device: Callable[[DeviceProgress], None] = field(default=_ignore, repr=False)
    on_note: Callable[[str], None] = field(default=_ignore, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a change came to.

    Attributes:
        model: The model's name.
        digest: The bundle that devices shall run; None when it was removed.
        version: Its version, or "".
        generations: Generation of the desired state, by device id.
        devices: How each device ended, by id; empty when nobody waited.
        sent_bytes: What went to the broker as blobs.
    """

    model: str
    digest: str | None
    version: str
    generations: dict[str, int]
    devices: tuple[DeviceProgress, ...] = ()
    sent_bytes: int = 0

    def raise_refusals(self) -> None:
        """Turn refusals into the error that they are.

        Raises:
            DeviceRefusedError: At least one device refused.
        """
        refused = [one for one in self.devices if one.verdict is Verdict.REFUSED]
        if refused:
            told = "; ".join(
                f"{one.device} {one.phase} ({one.reason or 'no reason given'}): "
                f"{one.detail or 'no detail given'}"
                for one in refused
            )
            share = f"{len(refused)} of {len(self.devices)} devices did not take"
            raise DeviceRefusedError(f"{share} {self.model} {self.version}: {told}")


@asynccontextmanager
async def connections(
    operator: Operator,
) -> AsyncIterator[tuple[aiomqtt.Client, Follower | None]]:
    """One connection to work with, and one to follow devices where that is wanted."""
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(connect(operator.broker))
        follower = None
        if operator.wait_s is not None:
            second = await stack.enter_async_context(connect(operator.broker))
            follower = Follower(second, operator.prefix, operator.on_device)
        yield client, follower


def plan_all(
    operator: Operator,
    states: tuple[DeviceState, ...],
    change: Change,
    *,
    model: str,
    policy: MergePolicy,
) -> list[Plan]:
    """Plan for every device before anything is written: one that cannot be stops all."""
    now_s = int(time.time())
    return [
        plan(
            state,
            change,
            model=model,
            signer=operator.signer,
            prefix=operator.prefix,
            now_s=now_s,
            lifetime_s=operator.lifetime_s,
            policy=policy,
        )
        for state in states
    ]


async def carry_out(
    operator: Operator,
    client: aiomqtt.Client,
    follower: Follower | None,
    plans: list[Plan],
    goals: list[Goal],
) -> tuple[DeviceProgress, ...]:
    """Write the plans and, where wanted, follow the devices until each is through."""
    if follower is not None:
        await follower.subscribe([plan.device for plan in plans])
    await write_desired(client, operator.prefix, plans)
    if follower is None or operator.wait_s is None:
        return ()
    return await follower.wait(goals, timeout_s=operator.wait_s)
