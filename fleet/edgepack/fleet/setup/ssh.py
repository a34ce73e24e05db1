"""The way to a host: the system's own ssh, logged in once, with host keys checked as it does.

A remote command is one of the fixed texts of this package; what varies in it is quoted. Scripts and
files go through standard input. Nothing is ever asked (BatchMode): log in by key or agent.
"""

import asyncio
import contextlib
import shlex
import shutil
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from edgepack.fleet.setup.errors import ReachError, SettingsError
from edgepack.fleet.setup.hosts import Host
from edgepack.fleet.setup.options import Login

_MAX_ANSWER_BYTES = 4 * 1024 * 1024
_BROKEN = 255  # ssh's own exit code
_KILL_S = 5.0


@dataclass(frozen=True, slots=True)
class Answer:
    """What a remote command gave."""

    code: int
    stdout: str
    stderr: str


class Ssh:
    """One host, logged in; make it with `logged_in`.

    Args:
        host: Where.
        words: ssh and its options.
    """

    def __init__(self, host: Host, words: Sequence[str]) -> None:
        self.host = host
        self._words = tuple(words)

    async def run(
        self, *remote: str, stdin: bytes | IO[bytes] = b"", timeout_s: float = 60.0
    ) -> Answer:
        """Run a command there.

        Args:
            remote: Its words; each is quoted for the remote shell.
            stdin: What it reads.
            timeout_s: How long it may take, in seconds.

        Raises:
            ReachError: The connection broke, or it took too long.
        """
        command = " ".join(shlex.quote(word) for word in remote)
        return await self._call(["--", self.host.name, command], stdin, timeout_s)

    async def control(self, verb: str) -> None:
        """Tell the master connection something; nobody minds when it is gone."""
        with contextlib.suppress(ReachError):
            await self._call(["-O", verb, "--", self.host.name], b"", 10.0)

    async def _call(
        self, words: Sequence[str], stdin: bytes | IO[bytes], timeout_s: float
    ) -> Answer:
        process = await asyncio.create_subprocess_exec(
            *self._words,
            *words,
            stdin=asyncio.subprocess.PIPE if isinstance(stdin, bytes) else stdin,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            limit=_MAX_ANSWER_BYTES,
        )
        try:
            async with asyncio.timeout(timeout_s):
                out, err = await process.communicate(stdin if isinstance(stdin, bytes) else None)
        except TimeoutError as exc:
            raise ReachError(f"no answer within {timeout_s:.0f} s") from exc
        finally:
            await _end(process)
        code = process.returncode if process.returncode is not None else _BROKEN
        answer = Answer(code, *(text.decode("utf-8", "replace") for text in (out, err)))
        if code == _BROKEN:
            raise _broken(answer.stderr)
        return answer


@asynccontextmanager
async def logged_in(host: Host, login: Login) -> AsyncIterator[Ssh]:
    """Log in, and out again in the end.

    Raises:
        SettingsError: There is no ssh on this machine.
        ReachError: It cannot be reached, is not who it was, or does not let us in.
    """
    program = shutil.which("ssh")
    if program is None:
        raise SettingsError("ssh is not installed here", hint="apt-get install openssh-client")
    with tempfile.TemporaryDirectory(prefix="edgepack-ssh-") as folder:  # mode 0700
        ssh = Ssh(host, _words(program, host, login, Path(folder) / "master"))
        try:
            yield ssh
        finally:
            await asyncio.shield(ssh.control("exit"))


def _words(program: str, host: Host, login: Login, socket: Path) -> list[str]:
    words = [program, "-T"]
    if login.config is not None:
        words += ["-F", str(login.config)]
    options = {
        "BatchMode": "yes",
        "ConnectTimeout": str(login.timeout_s),
        "ControlMaster": "auto",
        "ControlPath": str(socket),
        "ControlPersist": "60",
        "ForwardAgent": "no",
        "ForwardX11": "no",
        "ClearAllForwardings": "yes",
        "ServerAliveInterval": "15",
    }
    for name, value in options.items():
        words += ["-o", f"{name}={value}"]
    if login.port is not None:
        words += ["-p", str(login.port)]
    if login.identity is not None:
        words += ["-i", str(login.identity)]
    if host.user is not None:
        words += ["-l", host.user]
    return words


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is not None:
        return
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    try:
        async with asyncio.timeout(_KILL_S):
            await process.wait()
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def _broken(stderr: str) -> ReachError:
    """Ssh's own words, and what mends it."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    last = lines[-1] if lines else "the connection broke"
    if "REMOTE HOST IDENTIFICATION HAS CHANGED" in stderr:
        return ReachError(
            "its host key is another one than it was",
            hint="find out why; only then `ssh-keygen -R HOST` and `ssh HOST` once",
        )
    if "Host key verification failed" in stderr:
        return ReachError(
            "its host key is not known here", hint="`ssh HOST` once by hand, and compare the key"
        )
    if "Permission denied" in last:
        return ReachError(last[:200], hint="`ssh-copy-id USER@HOST`, or name a key with --identity")
    return ReachError(last[:200])
