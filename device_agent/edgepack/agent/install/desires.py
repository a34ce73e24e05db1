"""Accepting a desired state: signature, audience, generation. What follows from it is `reconcile`.

The last accepted one is kept, so that a device that starts without a network still knows it, and
so that an older one that a broker or a thief replays is recognised.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping

from edgepack.agent.config import AgentConfig
from edgepack.agent.errors import RejectedError, StoreError
from edgepack.agent.install.chain import ENVELOPE, GENERATION, SIGNERS
from edgepack.agent.install.clock import DeviceClock
from edgepack.agent.install.findings import TrustedRoot, VerifiedDesired
from edgepack.agent.install.journal import Journal
from edgepack.agent.install.worker import Worker
from edgepack.trust import dsse
from edgepack.trust.errors import EdgepackError
from edgepack.trust.payload_types import DESIRED_PAYLOAD_TYPE
from edgepack.wire.audit import payload_hash
from edgepack.wire.desired import Desired, parse_desired
from edgepack.wire.errors import WireError
from edgepack.wire.topics import MAX_CONTROL_BYTES

logger = logging.getLogger(__name__)

ROOT_DIGEST = "root_digest"
_DELIVERIES_KEPT = 16
_RETRY_S = 30.0


class Desires:
    """Takes desired states from the broker, one after the other.

    Args:
        config: Who this device is.
        journal: Keeps the accepted one.
        worker: Checks signatures in a child process.
        clock: Told of what is accepted.
        accepted: Called with each newly accepted state.
        unchanged: Called when the broker still has the state that was accepted.
        abandoned: Called when the accepted state is no longer vouched for.
        refused: Called with one line when a state is not accepted, with "" when it is.

    Attributes:
        trust: Held while something that the root of trust decides is decided.
    """

    def __init__(
        self,
        config: AgentConfig,
        journal: Journal,
        worker: Worker,
        clock: DeviceClock,
        *,
        accepted: Callable[[Desired], None],
        unchanged: Callable[[], None],
        abandoned: Callable[[], None],
        refused: Callable[[str], None],
    ) -> None:
        self._config = config
        self._journal = journal
        self._worker = worker
        self._clock = clock
        self._accepted = accepted
        self._unchanged = unchanged
        self._abandoned = abandoned
        self._refused = refused
        self._deliveries: asyncio.Queue[bytes] = asyncio.Queue(_DELIVERIES_KEPT)
        self._envelope = journal.meta(ENVELOPE) or None
        self._turned_down: bytes | None = None
        self._root_digest = (journal.meta(ROOT_DIGEST) or b"").decode()
        self.generation = journal.generation()
        self.trust = asyncio.Lock()

    @property
    def envelope(self) -> bytes | None:
        """The signed desired state that is followed, or None."""
        return self._envelope

    def restore(self) -> None:
        """Follow the state that was accepted before this start; its signature was checked then."""
        if self._envelope is None:
            return
        try:
            desired = parse_desired(dsse.unverified_payload(self._envelope, DESIRED_PAYLOAD_TYPE))
        except EdgepackError as exc:  # what answers goes on; the next deployment mends it
            self._refused(f"the remembered desired state is damaged: {exc}")
            return
        self._accepted(desired)

    def deliver(self, envelope: bytes) -> None:
        """Take what came on `in/desired`; returns at once."""
        if not envelope:  # the topic was cleared: what was accepted stands
            return
        if envelope == self._envelope:
            self._unchanged()
            return
        if self._deliveries.full():
            self._deliveries.get_nowait()  # only the latest matters
        self._deliveries.put_nowait(envelope)

    def rotated(
        self, trusted: TrustedRoot, *, revoked: bool, remember: Mapping[str, bytes]
    ) -> None:
        """Draw the consequences of the root of trust that holds now; the lock is held.

        Args:
            trusted: What holds.
            revoked: Whether the deploy role lost a key. Then the generation starts again, as TUF
                demands (section 5.3.11): whoever stole the key may have made it as large as can be.
            remember: Kept together with that, all or none.

        Raises:
            StoreError: The disk does not take it; nothing has changed then.
        """
        dropped = self._envelope is not None and not trusted.envelope_good
        event = "root" if trusted.digest != self._root_digest or dropped or revoked else ""
        metas = dict(remember)
        if revoked:
            metas |= {GENERATION: b"0", **self._clock.forgetting()}
        if dropped:
            metas |= {ENVELOPE: b"", SIGNERS: b""}
        self._journal.set_metas(metas, event=event, actor="agent", document=trusted.digest)
        self._clock.reread()
        self._root_digest = trusted.digest
        if revoked:
            logger.warning("desired.generation_reset root_version=%d", trusted.version)
            self.generation = 0
        if dropped:
            self._envelope = None
            self._abandoned()
            self._refused(
                "desired state: the deploy role of root.json version "
                f"{trusted.version} does not vouch for it any more"
            )
        if self._turned_down is not None:
            self.deliver(self._turned_down)

    async def run(self) -> None:
        """Judge deliveries until cancelled."""
        envelope = await self._deliveries.get()
        while True:
            try:
                async with self.trust:
                    desired, signers = await self._judge(envelope)
                    self._journal.set_metas(
                        {
                            GENERATION: b"%d" % desired.generation,
                            ENVELOPE: envelope,
                            SIGNERS: " ".join(signers).encode(),
                            **self._clock.accepting(desired),
                        },
                        event="desired",
                        actor="desired",
                        document=payload_hash(envelope),
                    )
                    self._clock.reread()
            except (RejectedError, WireError) as exc:
                self._turned_down = envelope  # another root may see it otherwise
                self._refused(f"desired state: {exc}")
            except StoreError as exc:  # the device's trouble, which may pass
                self._refused(f"desired state: {exc}")
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_RETRY_S):
                        envelope = await self._deliveries.get()
                continue
            else:
                self._envelope = envelope
                self._turned_down = None
                self.generation = desired.generation
                logger.info("desired.accepted generation=%d", desired.generation)
                self._refused("")
                self._accepted(desired)
            envelope = await self._next()

    async def _next(self) -> bytes:
        """What was delivered next, but for what was accepted since: brokers say things twice."""
        while (envelope := await self._deliveries.get()) == self._envelope:
            self._unchanged()
        return envelope

    async def _judge(self, envelope: bytes) -> tuple[Desired, tuple[str, ...]]:
        if len(envelope) > MAX_CONTROL_BYTES:
            raise WireError(f"must be at most {MAX_CONTROL_BYTES} bytes, got {len(envelope)}")
        verified: VerifiedDesired = await self._worker.verify_desired(envelope)
        desired = parse_desired(verified.payload)
        config = self._config
        if not desired.audience.includes(config.prefix, config.device, config.tags):
            audience = desired.audience.device or desired.audience.group
            raise WireError(
                f"audience must be {config.prefix}/{config.device}, "
                f"got {desired.audience.prefix}/{audience}"
            )
        if desired.generation <= self.generation:
            raise WireError(
                f"generation must be above {self.generation}, got {desired.generation} (a replay?)"
            )
        return desired, verified.signers


def remembered(journal: Journal) -> Desired | None:
    """The state that was accepted last, for whoever only reads; None if there is none."""
    envelope = journal.meta(ENVELOPE)
    if not envelope:
        return None
    try:
        return parse_desired(dsse.unverified_payload(envelope, DESIRED_PAYLOAD_TYPE))
    except EdgepackError:  # the agent says so itself
        return None
