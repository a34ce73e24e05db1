"""`out/info` and `out/status`: what this device is, that it is here, and who else uses its id."""

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

from edgepack.agent.config import AgentConfig
from edgepack.agent.errors import FetchError, StoreError
from edgepack.agent.link import Link
from edgepack.agent.report.description import describe
from edgepack.agent.report.presence import Presence
from edgepack.wire.errors import WireError
from edgepack.wire.messages import Info, parse_info, render_info
from edgepack.wire.topics import OFFLINE, ONLINE, DeviceTopics

logger = logging.getLogger(__name__)

_REPLACES = "info_replaces"
_GREETED = "info_greeted"
_PROBE_INTERVAL_S = 300.0


class Memory(Protocol):
    """Small values that outlive a restart: the journal."""

    def meta(self, key: str) -> bytes | None:
        """One remembered value, or None."""

    def set_meta(self, key: str, value: bytes) -> None:
        """Remember one value."""


class Introduction:
    """Says what the device is, on every connection and whenever it changes.

    Args:
        config: Device, tags.
        instance: Random id of this installation.
        topics: This device's topics.
        memory: Keeps whether this installation has ever said what it is.
        notice: Told of others under this device's id: kind and one line.
    """

    def __init__(
        self,
        config: AgentConfig,
        instance: str,
        topics: DeviceTopics,
        memory: Memory,
        notice: Callable[[str, str], None],
    ) -> None:
        self._config = config
        self._topics = topics
        self._memory = memory
        self._notice = notice
        self._instance = instance
        self._run = os.urandom(8).hex()
        self._key = ""
        self._replaces = (memory.meta(_REPLACES) or b"").decode()
        self._presence = Presence(instance, self._run, greeted=memory.meta(_GREETED) is not None)
        self._info: Info | None = None
        self._stale = asyncio.Event()
        self._crowded = asyncio.Event()
        self._is_called_offline = False

    async def describe(self) -> None:
        """Find out what the device is; it is said soon after."""
        # on a thread: it imports and reads the metadata of installed packages
        self._info = await asyncio.to_thread(describe, self._config, self._instance)
        self._stale.set()

    def keyed(self, key: str) -> None:
        """The device signs its events with this key: 32 bytes in hex."""
        self._key = key
        self._stale.set()

    def met(self, payload: bytes, *, retained: bool) -> None:
        """Something came on this device's own `out/info`."""
        try:
            info = parse_info(payload)
        except WireError as exc:
            logger.debug("presence.ignored error=%s", exc)
            return
        seen = self._presence.see(info, retained=retained, now_s=time.monotonic())
        if seen.replaces:
            self._replaces = seen.replaces
            self._remember(_REPLACES, seen.replaces.encode())
            self._notice(
                "reinstalled",
                f"installation {seen.replaces[:8]} was here before: its floors and its generation "
                "are not known here",
            )
        if seen.conflict:
            self._notice("conflict", seen.conflict)
            self._crowded.set()
        if seen.replaces or seen.answer:
            self._stale.set()

    def called(self, status: bytes, *, retained: bool) -> None:
        """Something came on this device's own `out/status`.

        The last will of a connection that broke long ago, or of another one under this id, calls a
        device offline that is here.
        """
        if status == OFFLINE and not retained:
            self._is_called_offline = True
            self._stale.set()

    async def say(self, link: Link) -> None:
        """Publish it, if it is known yet.

        Raises:
            FetchError: The broker did not take it.
        """
        if self._info is None:
            return
        info = replace(self._info, key=self._key, run=self._run, replaces=self._replaces)
        await link.publish(self._topics.info, render_info(info), retain=True)
        self._presence.greeted()
        self._remember(_GREETED, b"1")

    async def keep_said(self, link: Link) -> None:
        """Publish it whenever it changed, until cancelled."""
        while True:
            await self._stale.wait()
            await link.connected.wait()
            self._stale.clear()
            with contextlib.suppress(FetchError):  # then the next connection says it
                if self._is_called_offline:
                    await link.publish(self._topics.status, ONLINE, retain=True)
                    self._is_called_offline = False
                await self.say(link)

    async def watch_conflict(self, link: Link) -> None:
        """Ask again and again whether another one is still here, until cancelled."""
        while True:
            await self._crowded.wait()
            await asyncio.sleep(_PROBE_INTERVAL_S)
            if self._presence.is_alone_again:
                self._crowded.clear()
                self._notice("conflict", "")
                continue
            await link.connected.wait()
            with contextlib.suppress(FetchError):  # a probe that nobody heard proves nothing
                await self.say(link)
                self._presence.probed()

    def _remember(self, key: str, value: bytes) -> None:
        try:
            if self._memory.meta(key) != value:
                self._memory.set_meta(key, value)
        except StoreError as exc:  # a full disk must not stop what answers
            logger.warning("presence.storage error=%s", exc)
