"""The order of an upgrade, and how an interrupted one is settled.

verify → make the release → its own check → try: switch, restart, watch → keep it, or go back.

Until the switch nothing that runs is touched. From there on, whatever ends this process (a kill, a
power cut), the next start of the service settles it with the OLD release's code: the new release
stays only if it had run well for a minute, else the old one is back.
"""

import hashlib
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from edgepack.agent.config import AgentConfig
from edgepack.agent.errors import UpgradeError
from edgepack.agent.upgrade.environment import make_release
from edgepack.agent.upgrade.health import (
    EVIDENCE,
    Expected,
    asker,
    expected_after,
    healthy_release,
    watch,
)
from edgepack.agent.upgrade.place import Attempt, Place
from edgepack.agent.upgrade.selfcheck import ask_release
from edgepack.agent.upgrade.service import Service, unit_of, write_unit
from edgepack.trust.values import dataclass
from edgepack.wire.wheelhouse import Wheelhouse, open_wheelhouse, render_wheelhouse

logger = logging.getLogger(__name__)

_BACK_S = 120.0  # in which the old release must answer again


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long a new release is watched.

    Attributes:
        timeout_s: Seconds in which it must be healthy.
        steady_s: Seconds that it must stay so.
    """

    timeout_s: float = 120.0
    steady_s: float = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """What came of it: the release before, and the one that runs now; the same when it did."""

    old: str
    new: str
    watched: bool = True


class Upgrader:
    """Brings a new version of the agent to this device.

    Args:
        place: The files.
        config: agent.toml.
        config_path: Where that is.
        service: What runs the agent; None where nothing does, or its keeper restarts it.
        tell: Called with a line for each step.
        patience: How long the new release is watched.
    """

    def __init__(
        self,
        place: Place,
        config: AgentConfig,
        config_path: Path,
        service: Service | None,
        *,
        tell: Callable[[str], None],
        patience: Patience,
    ) -> None:
        self._place = place
        self._config = config
        self._config_path = config_path
        self._service = service
        self._tell = tell
        self._patience = patience
        self._ask = asker(config.state_dir)

    def run(self, folder: Path, *, older: bool) -> Done:
        """Upgrade; whoever calls holds `Place.alone`.

        Args:
            folder: The signed wheelhouse.
            older: Take one that was signed before the one that runs.

        Raises:
            EdgepackError: It is not trusted, does not fit, or did not do well; the old one runs.
        """
        place = self._place
        self._settle_running()
        old = place.current()
        house = self._trusted(folder)
        new = _name(house)
        if new == old:
            return Done(old=old, new=new)
        origin = place.origin(old)
        if origin is not None and house.sequence < origin.sequence and not older:
            raise UpgradeError(
                f"this wheelhouse was signed before the one that runs ({house.version} before "
                f"{origin.version}); --older takes it all the same"
            )
        self._tell(f"edgepack {house.version}: {len(house.wheels)} wheels, signed")
        was_here = place.origin(new) is not None
        make_release(place, new, folder, house)
        self._tell(f"{place.release(new)}: made")
        try:
            return self._change(old, new, is_made=not was_here)
        except BaseException:
            if not was_here and place.attempt() is None:
                place.discard(new)
            raise

    def adopt(self, new: str) -> Done:
        """Upgrade to a release that lies there whole, as `edgepack setup` makes one as root.

        Args:
            new: The release's name.

        Raises:
            EdgepackError: It is not whole, or did not do well; the old one runs.
        """
        place = self._place
        self._settle_running()
        old = place.current()
        if new == old:
            return Done(old=old, new=new)
        if Path(new).name != new or place.origin(new) is None:
            raise UpgradeError(f"{place.installation.releases} holds no whole release {new!r}")
        return self._change(old, new, is_made=False)

    def _change(self, old: str, new: str, *, is_made: bool) -> Done:
        """Check a release that is made, and let it run where it does well."""
        place = self._place
        passed = ask_release(place, new, self._config, self._config_path)
        self._tell(f"checked: agent.toml, state, {passed.models} models on their golden samples")
        attempt = Attempt(old=old, new=new, keeps_state=passed.changes_state, is_made=is_made)
        if self._service is None:
            return self._switch_only(attempt)
        self._try(attempt, self._service)
        return Done(old=old, new=new)

    def _trusted(self, folder: Path) -> Wheelhouse:
        from edgepack.agent.install.roots import ROOTS_FOLDER
        from edgepack.trust import Root
        from edgepack.trust.root_chain import follow_chain

        anchor = Root.load(Path(self._config.root))
        return open_wheelhouse(folder, follow_chain(anchor, self._config.state_dir / ROOTS_FOLDER))

    def _switch_only(self, attempt: Attempt) -> Done:
        if attempt.keeps_state:
            raise UpgradeError(
                f"release {attempt.new} changes the form of the state, and nothing here could "
                "take that back: it needs the agent as a systemd service"
            )
        self._place.switch(attempt.new)
        self._place.prune({attempt.old, attempt.new})
        return Done(old=attempt.old, new=attempt.new, watched=False)

    def _try(self, attempt: Attempt, service: Service) -> None:
        place, state = self._place, self._config.state_dir
        before = self._ask()
        (state / EVIDENCE).unlink(missing_ok=True)
        unit = place.installation.unit
        text, fresh = unit.read_text(encoding="utf-8"), unit_of(place.release(attempt.new))
        if fresh is not None and fresh != text and text == unit_of(place.release(attempt.old)):
            attempt = replace(attempt, unit_before=text)
        place.begin(attempt)
        try:
            if attempt.keeps_state:
                service.stop()
                place.keep_state(state)
            if attempt.unit_before is not None and fresh is not None:
                write_unit(unit, fresh)
                service.reload()
            place.switch(attempt.new)
            self._tell(f"{place.installation.current}: {attempt.new}; restarting")
            service.restart()
            lacks = watch(
                self._ask,
                expected_after(before, attempt.new),
                timeout_s=self._patience.timeout_s,
                steady_s=self._patience.steady_s,
            )
        except BaseException:
            self._go_back(attempt, service, expected_after(before, attempt.old))
            raise
        if lacks:
            back = self._go_back(attempt, service, expected_after(before, attempt.old))
            raise UpgradeError(f"release {attempt.new} was taken back: {lacks}; {back}")
        place.end()
        place.prune({attempt.old, attempt.new})

    def _go_back(self, attempt: Attempt, service: Service, expected: Expected) -> str:
        self._tell(f"going back to {attempt.old}")
        service.stop()
        undo(self._place, attempt, self._config.state_dir)
        service.reload()
        service.start()
        lacks = watch(self._ask, expected, timeout_s=_BACK_S, steady_s=0.0)
        return f"{attempt.old} answers again" if not lacks else f"{attempt.old}: {lacks}"

    def _settle_running(self) -> None:
        """Settle what an earlier upgrade left, while a service may run."""
        place, state = self._place, self._config.state_dir
        attempt = place.attempt()
        if attempt is None or place.current() != attempt.new:
            settle(place, state)
            return
        lacks = "it was not watched"
        if healthy_release(state) != attempt.new and self._service is not None:
            lacks = watch(
                self._ask,
                Expected(release=attempt.new),
                timeout_s=self._patience.steady_s,
                steady_s=self._patience.steady_s / 2,
            )
        if not lacks or healthy_release(state) == attempt.new:
            place.end()
            self._tell(f"the upgrade to {attempt.new} that was interrupted is complete")
        elif self._service is not None:
            back = self._go_back(attempt, self._service, Expected(release=attempt.old))
            self._tell(f"the upgrade to {attempt.new} that was interrupted is undone: {back}")


def settle(place: Place, state: Path) -> str:
    """Decide what an interrupted upgrade left, while no agent runs; one line of what was done.

    A release that ran well for a while is kept; any other is taken back.

    Raises:
        EdgepackError: What is written about it cannot be read, or the disk does not take it.
    """
    attempt = place.attempt()
    if attempt is None:
        place.end()
        return ""
    if place.current() == attempt.new and healthy_release(state) == attempt.new:
        place.end()
        return f"release {attempt.new} is kept: it ran well"
    undo(place, attempt, state)
    return f"release {attempt.new} was not proven: back to {attempt.old}"


def undo(place: Place, attempt: Attempt, state: Path) -> None:
    """Go back to the old release, while no agent runs; again after an interruption.

    Raises:
        StoreError: The disk does not take it.
    """
    (state / EVIDENCE).unlink(missing_ok=True)
    if attempt.keeps_state and place.current() == attempt.new:
        place.bring_state_back(state)
    place.switch(attempt.old)
    if attempt.unit_before is not None:
        write_unit(place.installation.unit, attempt.unit_before)
    if attempt.is_made and attempt.new != attempt.old:
        place.discard(attempt.new)  # an environment takes more room than most models
    place.end()


def _name(house: Wheelhouse) -> str:
    """A release's name: the version, and what it was made of."""
    return f"{house.version}-{hashlib.sha256(render_wheelhouse(house)).hexdigest()[:8]}"
