"""The child process of an install: everything that only installing needs, and all that may hang.

Signatures are checked here, so that the agent itself never loads `cryptography`; and a model that
is new to this device is loaded and run here first, so that an engine that crashes or hangs takes
nothing with it. One job in on standard input, one answer out on standard output, both JSON.

The parent's side is `worker.py`.
"""

import contextlib
import hashlib
import json
import math
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgepack.agent.disk import fsync_folder, write_durably
from edgepack.agent.errors import RejectedError, StoreError
from edgepack.trust.decode import decode, encode
from edgepack.trust.errors import EdgepackError, TrustError

if TYPE_CHECKING:
    from edgepack.trust import Root

MAX_JOB_BYTES = 1024 * 1024
_LONGEST_LINE = 160
_MOST_LINES = 16


def verify_desired(job: dict[str, Any]) -> dict[str, Any]:
    """Check the signature of a desired state; gives its payload as text, and who signed it."""
    from edgepack.trust import DEPLOY, DESIRED_PAYLOAD_TYPE

    root, envelope = _root(job), job["envelope"].encode()
    payload = root.verify(DEPLOY, envelope, DESIRED_PAYLOAD_TYPE)
    signers = root.signers(DEPLOY, envelope, DESIRED_PAYLOAD_TYPE)
    return {"payload": payload.decode(), "signers": list(signers)}


def take_roots(job: dict[str, Any]) -> dict[str, Any]:
    """Follow the root of trust: keep what follows from it, and say what it demands then."""
    from edgepack.trust import DEPLOY, DESIRED_PAYLOAD_TYPE
    from edgepack.trust.root_chain import chain_file

    root = _root(job)
    for data in (text.encode() for text in job["next"]):
        root = root.update(data)
        write_durably(chain_file(Path(job["roots"]), root.version), data)
    follows = False
    if job["envelope"] is not None:
        with contextlib.suppress(TrustError):
            root.verify(DEPLOY, job["envelope"].encode(), DESIRED_PAYLOAD_TYPE)
            follows = True
    deploy = sorted(root.roles[DEPLOY].keys)
    return {
        "version": root.version,
        "digest": f"sha256:{hashlib.sha256(root.data).hexdigest()}",
        "deploy_keys": deploy,
        "envelope_good": follows,
    }


def seal(job: dict[str, Any]) -> dict[str, Any]:
    """Sign documents with the device's own key; the key is made when there is none."""
    from edgepack.trust import PrivateKey, dsse

    path = Path(job["key"])
    if not path.exists():
        fresh = path.with_name(f"{path.name}.new")  # a kill leaves no half of a key
        fresh.unlink(missing_ok=True)
        PrivateKey.generate().save(fresh)
        fresh.replace(path)
        fsync_folder(path.parent)
    key = PrivateKey.load(path)
    envelopes = [
        dsse.sign(text.encode(), payload_type, [key]).decode()
        for payload_type, text in job["documents"]
    ]
    return {"key": key.public.raw.hex(), "envelopes": envelopes}


def verify_file(job: dict[str, Any]) -> dict[str, Any]:
    """Check a `.edgepack` file, whole, and put its blobs into the staging layout."""
    from edgepack.bundle import open_bundle

    bundle = open_bundle(job["file"])
    answer = _verified(bundle, job)
    folder = Path(job["staging"]) / "blobs" / "sha256"
    for blob in bundle.blobs():
        with (folder / blob.digest.removeprefix("sha256:")).open("wb") as handle:
            handle.writelines(bundle.stream_blob(blob.digest))
    return answer


def verify_layout(job: dict[str, Any]) -> dict[str, Any]:
    """Check a bundle whose blobs were fetched one by one into the staging layout."""
    from edgepack.bundle import open_layout

    bundle = open_layout(job["layout"], job["digest"], signatures=job["signatures"])
    return _verified(bundle, job)


def self_test(job: dict[str, Any]) -> dict[str, Any]:
    """Find the variant and the settings that are right and fastest on this device."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # numpy's threads must not be there to fork
    from edgepack.bundle import open_layout
    from edgepack.monitor.reference import parse_reference
    from edgepack.runtime.contest.contest import run_contest
    from edgepack.runtime.contest.values import ContestLimits
    from edgepack.runtime.fingerprint import fingerprint

    bundle = open_layout(
        job["layout"], job["digest"], signatures=job["signatures"], hash_blobs=False
    )
    contract = bundle.contract
    if contract.reference is not None:
        try:
            parse_reference(bundle.read(contract.reference))
        except ValueError as exc:
            raise RejectedError("bundle_invalid", str(exc)) from exc
    limits = decode(ContestLimits, job["limits"], what="limits", ignore_unknown=False)
    report = run_contest(bundle, limits)
    if report.chosen is None:
        raise RejectedError("self_test_failed", "; ".join(report.failures)[:500])
    return {
        "variant": report.chosen.variant,
        "options": encode(report.chosen.options),
        "figures": _finite(report.figures),
        "failed": [text[:_LONGEST_LINE] for text in report.failures][:_MOST_LINES],
        "fingerprint": fingerprint(),
    }


def describe_engine(job: dict[str, Any]) -> dict[str, Any]:
    """Tell what an engine can run; nothing where it is not installed or does not tell."""
    from edgepack.runtime import EngineError
    from edgepack.runtime.engine import TellingEngine
    from edgepack.runtime.engines import engine_named

    try:
        engine = engine_named(job["engine"])
        if not isinstance(engine, TellingEngine):
            return {}
        abilities = engine.abilities()
    except EngineError:
        return {}
    return {"opsets": dict(abilities.opsets), "operators": sorted(abilities.operators)}


JOBS = {
    job.__name__: job
    for job in (
        verify_desired,
        take_roots,
        seal,
        verify_file,
        verify_layout,
        self_test,
        describe_engine,
    )
}


def main() -> int:
    """Do one job."""
    job = json.loads(sys.stdin.buffer.read(MAX_JOB_BYTES))
    try:
        answer: dict[str, Any] = {"done": JOBS[job["job"]](job)}
    except RejectedError as exc:
        answer = {"reason": exc.reason, "detail": str(exc)}
    except StoreError as exc:
        answer = {"reason": "storage", "detail": str(exc)}
    except EdgepackError as exc:
        reason = "not_trusted" if exc.exit_code == TrustError.exit_code else "bundle_invalid"
        answer = {"reason": reason, "detail": str(exc)}
    except OSError as exc:
        answer = {"reason": "storage", "detail": f"{exc.filename}: {exc.strerror}"}
    sys.stdout.write(json.dumps(answer))
    return 0


def _root(job: dict[str, Any]) -> "Root":
    from edgepack.trust import Root
    from edgepack.trust.root_chain import follow_chain

    return follow_chain(Root.load(job["root"]), Path(job["roots"]))


def _verified(bundle: Any, job: dict[str, Any]) -> dict[str, Any]:  # noqa: ANN401 (lazy import)
    from edgepack.bundle import verify_bundle

    wanted = job.get("digest")
    if wanted is not None and bundle.digest != wanted:
        raise RejectedError("wrong_bundle", f"digest must be {wanted}, got {bundle.digest}")
    statement = verify_bundle(bundle, _root(job))
    name = job.get("name")
    if name is not None and statement.name != name:
        raise RejectedError("wrong_bundle", f"model must be {name!r}, got {statement.name!r}")
    if statement.sequence < job["floors"].get(statement.name, 0):
        floor = job["floors"][statement.name]
        raise RejectedError(
            "below_floor", f"sequence must be at least {floor}, got {statement.sequence}"
        )
    return {
        "digest": bundle.digest,
        "name": statement.name,
        "version": statement.version,
        "sequence": statement.sequence,
        "signatures": [ref.digest for ref in bundle.signatures],
        "blobs": [blob.digest for blob in bundle.blobs()],
    }


def _finite(figures: Mapping[str, float]) -> dict[str, float]:
    """JSON has no NaN: a figure that could not be measured is left out."""
    return {name: value for name, value in figures.items() if math.isfinite(value)}


if __name__ == "__main__":
    sys.exit(main())
