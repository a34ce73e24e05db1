"""The order in which hosts become devices; one that fails stops no other."""

import asyncio
import json
import re
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from edgepack.fleet.setup.agent_toml import AgentToml, agent_toml
from edgepack.fleet.setup.decide import (
    clock_note,
    platform_of,
    python_note,
    shortcomings,
    space_shortcoming,
)
from edgepack.fleet.setup.errors import (
    FullError,
    InstallError,
    OfflineError,
    ReachError,
    SettingsError,
    SetupError,
    UnfitError,
)
from edgepack.fleet.setup.folder import InstallFolder, install_folder
from edgepack.fleet.setup.hosts import Host
from edgepack.fleet.setup.options import SetupOptions
from edgepack.fleet.setup.outcome import HostOutcome
from edgepack.fleet.setup.probe import Facts, probe
from edgepack.fleet.setup.ssh import Answer, Ssh, logged_in
from edgepack.fleet.setup.wheels import WheelSet, WheelShop
from edgepack.trust.errors import EdgepackError
from edgepack.wire.device_id import default_device_id

# What `install.sh` and the agent there say by their exit codes, besides InstallError's.
_ENDED_WITH: dict[int, type[SetupError]] = {2: SettingsError, 9: FullError}
_UPLOAD_S = 3600.0
_INSTALL_S = 1800.0
_ROOT_S = 60.0
_LOOK_S = 0.5
_FOLDER = re.compile(r"/var/tmp/edgepack-[A-Za-z0-9]{8}")  # noqa: S108 (made by mktemp, mode 0700)
_UNPACK = (
    'umask 077; folder=$(mktemp -d /var/tmp/edgepack-XXXXXXXX) && tar -xf - -C "$folder" '
    '&& printf "%s\\n" "$folder"'
)

Tell = Callable[[str, str], None]


async def set_up(
    hosts: Sequence[Host], options: SetupOptions, *, tell: Tell
) -> tuple[HostOutcome, ...]:
    """Set hosts up.

    Args:
        hosts: Where.
        options: What the caller wants of each.
        tell: Called with a host and what is done with it now.
    """
    shop = WheelShop(options.cache, refresh=options.refresh)
    ids: dict[str, Host] = {}
    places = asyncio.Semaphore(options.jobs)

    async def one(host: Host) -> HostOutcome:
        async with places:
            return await _HostSetup(host, options, shop, ids, tell).run()

    return tuple(await asyncio.gather(*(one(host) for host in hosts)))


class _HostSetup:
    """One host on its way; `ids` says which device ids the others of this call have."""

    def __init__(
        self,
        host: Host,
        options: SetupOptions,
        shop: WheelShop,
        ids: dict[str, Host],
        tell: Tell,
    ) -> None:
        self._host = host
        self._options = options
        self._shop = shop
        self._ids = ids
        self._tell = tell
        self._sudo_password: str | None = None
        self._outcome = HostOutcome(host=str(host), result="failed")

    async def run(self) -> HostOutcome:
        try:
            async with logged_in(self._host, self._options.login) as ssh:
                await self._set_up(ssh)
        except EdgepackError as exc:
            self._know(
                result="failed",
                error=" ".join(str(exc).split()),
                hint=getattr(exc, "hint", "") or None,
                exit_code=exc.exit_code,
            )
        return self._outcome

    async def _set_up(self, ssh: Ssh) -> None:
        options = self._options
        self._sudo_password = options.secrets.sudo(host=self._host.name)
        facts = await probe(ssh, self._sudo_password)
        if facts.python is not None:
            self._know(platform=str(facts.python))
        wrong = shortcomings(facts, needs_systemd=options.start)
        if wrong or facts.python is None:
            raise UnfitError("; ".join(wrong))
        platform = platform_of(facts.python, options.engines)
        device = options.wanted.device or default_device_id(facts.host_name, facts.machine_id)
        secrets = options.secrets.read(host=self._host.name, device=device)
        config = agent_toml(facts.agent_toml, options.wanted, secrets, default_device=device)
        notes = [clock_note(facts, time.time()), python_note(facts.python)]
        if facts.root_json is not None and facts.root_json != options.root:
            notes.append(
                "it trusts another root.json, which stays: `edgepack root publish` moves it"
            )
        self._know(device=config.device, notes=tuple(note for note in notes if note))
        self._claim(config)
        self._say(f"gets wheels for {platform}")
        wheels = await self._shop.get(platform)
        self._know(release=wheels.release)
        has_release = facts.release == wheels.release
        if not has_release and (short := space_shortcoming(facts, wheels.size_bytes)):
            raise UnfitError(short)
        if options.dry_run:
            self._know(result=f"would be {_result(facts, wheels, config.changed)}")
            return
        folder = install_folder(
            wheels,
            root=options.root,
            config=config.text,
            secrets=secrets,
            with_wheels=not has_release,
        )
        done = await self._install(ssh, facts, folder)
        self._know(result=_result(facts, wheels, config.changed, done))
        if options.start:
            await self._wait(ssh, facts, config)

    def _claim(self, config: AgentToml) -> None:
        if config.device is None:
            return
        other = self._ids.setdefault(config.device, self._host)
        if other != self._host:
            raise UnfitError(
                f"{other} is device {config.device} already",
                hint="copies of one disk image: `rm /etc/machine-id; systemd-machine-id-setup`, "
                "or --id",
            )

    async def _install(self, ssh: Ssh, facts: Facts, folder: InstallFolder) -> set[str]:
        """Send the folder, run it there, delete it; what it told."""
        with tempfile.TemporaryFile() as archive:
            folder.write_tar(archive)
            size = archive.tell()
            archive.seek(0)
            self._say(f"sends {size / 1e6:.1f} MB")
            sent = await ssh.run("sh", "-c", _UNPACK, stdin=archive, timeout_s=_UPLOAD_S)
        place = sent.stdout.strip()
        if sent.code != 0 or not _FOLDER.fullmatch(place):
            raise InstallError(f"files cannot be put there: {_last(sent)}")
        assert facts.python is not None
        words = ["sh", f"{place}/install.sh", "--python", facts.python.path, "--replace-config"]
        words += ["--wait", str(max(1, round(self._options.timeout_s)))]
        if not self._options.start:
            words.append("--no-start")
        try:
            self._say("installs")
            done = await self._as_root(ssh, facts, *words, timeout_s=_INSTALL_S)
        finally:
            await asyncio.shield(self._as_root(ssh, facts, "rm", "-rf", place))
        if done.code != 0:
            kind = _ENDED_WITH.get(done.code, InstallError)
            raise kind(_last(done).rpartition(": error: ")[2])
        return {line.replace("\t", " ") for line in done.stdout.splitlines()}

    async def _wait(self, ssh: Ssh, facts: Facts, config: AgentToml) -> None:
        """Until the agent says that it reached its broker."""
        self._say("waits for it to come online")
        deadline = time.monotonic() + self._options.timeout_s
        words = ("/usr/local/bin/edgepack-agent", "status", "--json")
        status: dict[str, object] = {}
        while True:
            answer = await self._as_root(ssh, facts, *words)
            if answer.code == 0:
                status = _json(answer.stdout)
            if status.get("running") and (status.get("connected") or not config.has_broker):
                self._know(online=bool(status.get("connected")))
                return
            if time.monotonic() > deadline:
                self._know(online=False)
                raise OfflineError(
                    "it runs, and has not reached the broker within "
                    f"{self._options.timeout_s:.0f} s"
                    if status.get("running")
                    else "the agent does not answer",
                    hint="on it: edgepack-agent doctor; journalctl -u edgepack-agent",
                )
            await asyncio.sleep(_LOOK_S)

    async def _as_root(
        self, ssh: Ssh, facts: Facts, *words: str, timeout_s: float = _ROOT_S
    ) -> Answer:
        """Run a command as root; sudo's password is never on a command line."""
        if facts.root == "told" and self._sudo_password is not None:
            told = f"{self._sudo_password}\n".encode()
            asking = ("sudo", "-k", "-S", "-p", "")
            return await ssh.run(*asking, *words, stdin=told, timeout_s=timeout_s)
        sudo = ("sudo", "-n") if facts.root == "sudo" else ()
        return await ssh.run(*sudo, *words, timeout_s=timeout_s)

    def _know(self, **facts: object) -> None:
        self._outcome = replace(self._outcome, **facts)  # type: ignore[arg-type]

    def _say(self, text: str) -> None:
        self._tell(str(self._host), text)


def _result(
    facts: Facts, wheels: WheelSet, changed: Sequence[str], done: set[str] | None = None
) -> str:
    if facts.release is None:
        return "installed"
    if facts.release != wheels.release:
        return "upgraded"
    if changed or (done is not None and "service started" in done):
        return f"reconfigured ({', '.join(changed)})" if changed else "reconfigured"
    return "unchanged"


def _last(answer: Answer) -> str:
    lines = [line for line in answer.stderr.splitlines() if line.strip()]
    errors = [line for line in lines if "error:" in line]
    return (errors or lines or [f"exit code {answer.code}"])[-1][:300]


def _json(text: str) -> dict[str, object]:
    try:
        value = json.loads(text)
    except ValueError as exc:
        raise ReachError("the agent's status there is not JSON") from exc
    return value if isinstance(value, dict) else {}
