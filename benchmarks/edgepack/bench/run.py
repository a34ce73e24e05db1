"""Measures a bundle: each variant in a process of its own, so that none pollutes another."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from time import monotonic_ns
from typing import Final

from edgepack.bench.errors import BenchError, BenchTimeoutError
from edgepack.bench.machine import describe_machine
from edgepack.bench.report import BenchReport, VariantFailure, VariantReport
from edgepack.bench.request import MeasureRequest
from edgepack.bundle import open_bundle
from edgepack.runtime import choose_variant, parse_golden
from edgepack.trust import strict_json
from edgepack.trust.decode import decode, encode
from edgepack.trust.errors import DocumentError

DEFAULT_CALLS: Final = 2000
DEFAULT_SECONDS: Final = 5.0
DEFAULT_TIMEOUT_S: Final = 600.0
_MAX_ANSWER_BYTES: Final = 1 << 20


def bench_bundle(
    path: Path,
    *,
    data: Path | None = None,
    label: str | None = None,
    variants: tuple[str, ...] = (),
    threads: int = 1,
    calls: int = DEFAULT_CALLS,
    seconds: float = DEFAULT_SECONDS,
    timeout_s: float = DEFAULT_TIMEOUT_S,
    progress: Callable[[str], None] | None = None,
) -> BenchReport:
    """Measure every variant of a bundle on this machine.

    Args:
        path: The bundle.
        data: Rows to score: CSV, Parquet, npz, npy, safetensors, or a folder of images or WAV
            files.
        label: Column of the truth in `data`.
        variants: Names; by default all.
        threads: Of the engine.
        calls: Largest number of timed calls for each variant.
        seconds: Largest time for them, in seconds.
        timeout_s: Largest time for all that is done with one variant, in seconds.
        progress: Called with a variant's name before it is measured.

    Raises:
        BundleError: The file is not a bundle.
        VariantError: The bundle has no such variant.
        BenchError: No variant could be measured.
    """
    bundle = open_bundle(path)
    contract = bundle.contract
    names = variants or tuple(variant.name for variant in contract.variants)
    for name in names:
        choose_variant(contract, name)
    measured: list[VariantReport] = []
    failures: list[VariantFailure] = []
    for name in names:
        if progress is not None:
            progress(name)
        request = MeasureRequest(
            bundle=str(path),
            variant=name,
            threads=threads,
            calls=calls,
            seconds=seconds,
            started_ns=monotonic_ns(),
            data=None if data is None else str(data),
            label=label,
        )
        try:
            measured.append(_measure(request, timeout_s))
        except BenchError as exc:
            failures.append(VariantFailure(variant=name, error=str(exc)))
    if not measured:
        raise BenchError(f"no variant could be measured: {failures[0].error}")
    return BenchReport(
        name=contract.name,
        version=contract.version,
        digest=bundle.digest,
        golden_rows=parse_golden(bundle.read(contract.golden), contract).rows,
        machine=describe_machine(),
        variants=tuple(measured),
        failures=tuple(failures),
    )


def _measure(request: MeasureRequest, timeout_s: float) -> VariantReport:
    try:
        done = subprocess.run(
            [sys.executable, "-m", "edgepack.bench.measure"],
            input=strict_json.render(encode(request)),
            capture_output=True,
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired as exc:
        raise BenchTimeoutError(
            f"variant {request.variant!r} must be measured within {timeout_s:g} s"
        ) from exc
    try:
        answer = strict_json.parse(done.stdout, what="answer", max_bytes=_MAX_ANSWER_BYTES)
    except DocumentError as exc:
        last = (done.stderr.decode(errors="replace").strip() or "no message").splitlines()[-1]
        raise BenchError(
            f"measuring variant {request.variant!r} ended with {_ending(done.returncode)}: "
            f"{last[:200]}"
        ) from exc
    if isinstance(answer, dict) and "error" in answer:
        raise BenchError(str(answer["error"]))
    return decode(VariantReport, answer, what="answer", ignore_unknown=False)


def _ending(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit code {code}"
