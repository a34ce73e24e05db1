"""The parent's side of `child.py`: start it, give it one job, survive whatever it does."""

import asyncio
import contextlib
import json
import logging
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgepack.agent.errors import RejectedError, StoreError
from edgepack.agent.install.findings import (
    Chosen,
    Sealed,
    TrustedRoot,
    Verified,
    VerifiedDesired,
)
from edgepack.agent.install.journal import Stored
from edgepack.runtime.contest.values import ContestLimits
from edgepack.runtime.engine import Abilities
from edgepack.runtime.options import SessionOptions
from edgepack.trust.decode import encode

logger = logging.getLogger(__name__)

_MAX_ANSWER_BYTES = 256 * 1024
_VERIFY_TIMEOUT_S = 120.0
_TESTS = "self_test"
_SELF_TEST_GRACE_S = 5.0  # it ends by itself in its time; this is for one that does not
# systemd and Docker stop every process of a service at once: that says nothing about a bundle.
_INTERRUPTED = (-signal.SIGTERM, -signal.SIGINT, -signal.SIGHUP)


class Worker:
    """Runs jobs in child processes, one process each.

    Args:
        root: Path of root.json, the anchor.
        roots: Folder of the roots that followed it.
        self_test_timeout_s: Seconds that a self-test may take.
        limits: What else is demanded of a self-test and of a model; its `total_s` is not looked at.
    """

    def __init__(
        self,
        root: Path,
        roots: Path,
        *,
        self_test_timeout_s: float,
        limits: ContestLimits | None = None,
    ) -> None:
        self._trust = {"root": str(root), "roots": str(roots)}
        self._limits = replace(limits or ContestLimits(), total_s=self_test_timeout_s)
        self._testing = asyncio.Lock()

    async def verify_desired(self, envelope: bytes) -> VerifiedDesired:
        """The payload of a desired state that the deploy role signed.

        Raises:
            RejectedError: It did not.
        """
        answer = await self._run(
            {"job": "verify_desired", "envelope": envelope.decode("utf-8", "replace")},
            timeout_s=_VERIFY_TIMEOUT_S,
        )
        return VerifiedDesired(
            payload=str(answer["payload"]).encode(), signers=tuple(answer["signers"])
        )

    async def take_roots(self, files: Sequence[bytes], *, envelope: bytes | None) -> TrustedRoot:
        """Follow the root of trust, and keep what follows from it.

        Args:
            files: The next versions of root.json, one after the other; perhaps none.
            envelope: The desired state that is followed now, or None.

        Raises:
            RejectedError: One of them does not follow; those before it are kept.
            StoreError: The disk does not take it.
        """
        answer = await self._run(
            {
                "job": "take_roots",
                "next": [data.decode("utf-8", "replace") for data in files],
                "envelope": None if envelope is None else envelope.decode("utf-8", "replace"),
            },
            timeout_s=_VERIFY_TIMEOUT_S,
        )
        return TrustedRoot(
            version=int(answer["version"]),
            digest=str(answer["digest"]),
            deploy_keys=tuple(answer["deploy_keys"]),
            envelope_good=bool(answer["envelope_good"]),
        )

    async def seal(self, key: Path, documents: Sequence[tuple[str, bytes]]) -> Sealed:
        """Sign documents with the device's own key, which is made when there is none.

        Args:
            key: Its file.
            documents: Payload types and payloads.

        Raises:
            RejectedError: The key file is not such a key, or is open to others.
            StoreError: The disk does not take it.
        """
        answer = await self._run(
            {
                "job": "seal",
                "key": str(key),
                "documents": [(kind, payload.decode()) for kind, payload in documents],
            },
            timeout_s=_VERIFY_TIMEOUT_S,
        )
        envelopes = tuple(str(text).encode() for text in answer["envelopes"])
        return Sealed(key=str(answer["key"]), envelopes=envelopes)

    async def verify_file(
        self,
        file: Path,
        staging: Path,
        *,
        digest: str | None,
        name: str | None,
        floors: dict[str, int],
    ) -> Verified:
        """Check a file and unpack its blobs into `staging`.

        Raises:
            RejectedError: It is damaged, not trusted, or not the wanted bundle.
        """
        return _verified(
            await self._run(
                {
                    "job": "verify_file",
                    "file": str(file),
                    "staging": str(staging),
                    "digest": digest,
                    "name": name,
                    "floors": floors,
                },
                timeout_s=_VERIFY_TIMEOUT_S,
            )
        )

    async def verify_layout(
        self,
        layout: Path,
        *,
        digest: str,
        signatures: tuple[str, ...],
        name: str,
        floors: dict[str, int],
    ) -> Verified:
        """Check a bundle whose blobs are in an OCI layout.

        Raises:
            RejectedError: It is damaged, not trusted, or not the wanted bundle.
        """
        return _verified(
            await self._run(
                {
                    "job": "verify_layout",
                    "layout": str(layout),
                    "digest": digest,
                    "signatures": list(signatures),
                    "name": name,
                    "floors": floors,
                },
                timeout_s=_VERIFY_TIMEOUT_S,
            )
        )

    async def self_test(self, layout: Path, stored: Stored) -> Chosen:
        """Try every variant on the golden samples.

        Raises:
            RejectedError: None passes, or the engine crashed or hung.
        """
        async with self._testing:  # two at a time would measure each other
            answer = await self._run(
                {
                    "job": _TESTS,
                    "layout": str(layout),
                    "digest": stored.digest,
                    "signatures": list(stored.signatures),
                    "limits": encode(self._limits),
                },
                timeout_s=self._limits.total_s + _SELF_TEST_GRACE_S,
            )
        figures = {str(name): float(value) for name, value in answer["figures"].items()}
        return Chosen(
            variant=str(answer["variant"]),
            figures=figures,
            failed=tuple(answer["failed"]),
            options=SessionOptions(**answer["options"]),
            fingerprint=str(answer["fingerprint"]),
        )

    async def describe_engine(self, engine: str) -> Abilities | None:
        """What an engine can run; None where it does not tell.

        Raises:
            RejectedError: It crashed or hung.
            StoreError: No child process can be started.
        """
        answer = await self._run(
            {"job": "describe_engine", "engine": engine}, timeout_s=_VERIFY_TIMEOUT_S
        )
        if not answer:
            return None
        return Abilities(
            opsets={str(domain): int(opset) for domain, opset in answer["opsets"].items()},
            operators=frozenset(map(str, answer["operators"])),
        )

    async def _run(self, job: dict[str, Any], *, timeout_s: float) -> dict[str, Any]:
        name = job["job"]
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "edgepack.agent.install.child",
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                start_new_session=True,  # Ctrl-C in a terminal is for the agent
                limit=_MAX_ANSWER_BYTES,
            )
        except (
            OSError
        ) as exc:  # no memory, no processes left: the device's trouble, not the model's
            raise StoreError(f"a child process cannot be started: {exc.strerror}") from exc
        try:
            async with asyncio.timeout(timeout_s):
                out, _ = await process.communicate(json.dumps({**job, **self._trust}).encode())
        except TimeoutError as exc:
            raise RejectedError(f"{name}_timeout", f"{name} took over {timeout_s:.0f} s") from exc
        finally:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)  # and the processes that it started
                await process.wait()
        if process.returncode in _INTERRUPTED:
            raise StoreError(f"{name} was interrupted by {_ending(process.returncode)}")
        if process.returncode == -signal.SIGKILL and name != _TESTS:
            # the kernel, when memory ran out; a bundle's own doing only where its engine runs
            raise StoreError(f"{name} was killed (no memory left?)")
        if process.returncode != 0:
            raise RejectedError(f"{name}_crashed", f"{name} ended by {_ending(process.returncode)}")
        try:
            answer: dict[str, Any] = json.loads(out)
        except ValueError as exc:
            raise RejectedError(f"{name}_crashed", f"{name} gave no answer that is JSON") from exc
        if "done" in answer:
            done: dict[str, Any] = answer["done"]
            return done
        if answer["reason"] == "storage":
            raise StoreError(answer["detail"])
        raise RejectedError(answer["reason"], answer["detail"])


def _verified(answer: dict[str, Any]) -> Verified:
    stored = Stored(
        digest=answer["digest"],
        name=answer["name"],
        version=answer["version"],
        sequence=answer["sequence"],
        signatures=tuple(answer["signatures"]),
    )
    return Verified(stored=stored, blobs=tuple(answer["blobs"]))


def _ending(code: int | None) -> str:
    if code is not None and code < 0:
        with contextlib.suppress(ValueError):
            return f"signal {signal.Signals(-code).name}"
    return f"exit code {code}"
