"""One conversion from end to end: the order of the stages, and nothing of how each works.

While the child process imports the model's framework, this one reads the data and imports what it
needs itself.
"""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edgepack.bundle import bundle_filename
from edgepack.converter import card, provenance
from edgepack.converter.errors import RequestError
from edgepack.converter.export import receive_facts, send_load
from edgepack.converter.naming import model_name, model_version
from edgepack.converter.pack import (
    check_free,
    check_output,
    data_part,
    document_part,
    model_part,
    pack,
)
from edgepack.converter.prove import ProvenModel, prove
from edgepack.converter.reference import render_reference
from edgepack.converter.report import ConvertReport
from edgepack.converter.request import ConvertRequest, Precision, Progress, ProgressCallback, Stage
from edgepack.converter.shrink import shrink
from edgepack.converter.sign import Signer, find_signer, signing_key
from edgepack.converter.sources.find import Recognised, recognise
from edgepack.converter.sources.source import ModelFacts
from edgepack.converter.worker_process import WorkerProcess, default_memory_bytes
from edgepack.runtime.dataset import Dataset, read_dataset
from edgepack.runtime.engines import engine_named
from edgepack.runtime.golden import render_golden

_STAGES = list(Stage)


def convert(request: ConvertRequest, progress: ProgressCallback | None = None) -> ConvertReport:
    """Convert a model to a signed bundle.

    Args:
        request: What to convert, and how.
        progress: Called when a stage begins.

    Returns:
        Where the bundle is, what is in it, what was left out and why.

    Raises:
        ConvertError: See `edgepack.converter.errors` for which and why.
        DatasetError: The data cannot be read, or does not fit the model.
        KeyFileError: The key that was named cannot be used.
        BundleError: The bundle cannot be written.
        KeyboardInterrupt: Nothing is left behind.
    """
    if request.data is None:
        raise RequestError(
            "data is needed: at least 64 real rows prove that the converted model answers as the "
            "original does (--data FILE: CSV, Parquet, npz, npy or safetensors)"
        )
    tell = _teller(progress)
    check_output(request.output)
    name = model_name(request.name, request.model)
    version = model_version(request.version, name, request.output)
    check_free(request.output, f"{name}-{version}.edgepack", overwrite=request.overwrite)
    recognised = recognise(request.model)
    tell(Stage.SOURCE, f"{request.model.name}: {recognised.description}")
    with tempfile.TemporaryDirectory(prefix="edgepack-") as scratch:
        with _worker(request, recognised.module, scratch) as worker:
            send_load(worker, request.model, trust_pickle=request.trust_pickle)
            ground = _lay_ground(request, request.data)
            facts = receive_facts(worker)
            tell(Stage.EXPORT, f"{facts.framework} {facts.description}")
            proven = prove(
                worker,
                facts=facts,
                dataset=ground.dataset,
                request=request,
                identity=(name, version),
                tell=tell,
            )
        if request.precision is Precision.AUTO:
            proven = shrink(proven, request, scratch, tell)
    return _write(
        request=request,
        ground=ground,
        facts=facts,
        recognised=recognised,
        proven=proven,
        tell=tell,
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Ground:
    """What is known before the model is.

    Attributes:
        dataset: All rows.
        data_path: Their file.
        signer: Who will sign.
        model_digest: Of the model file.
        git: State of the work tree that the model file lies in.
        licence: Text to pack, or None.
    """

    dataset: Dataset
    data_path: Path
    signer: Signer
    model_digest: str
    git: provenance.GitState | None
    licence: bytes | None


def _lay_ground(request: ConvertRequest, data: Path) -> _Ground:
    """Everything that does not need the model, while the child is busy importing."""
    ground = _Ground(
        dataset=read_dataset(data, label=request.label),
        data_path=data,
        signer=find_signer(request),
        model_digest=provenance.file_sha256(request.model),
        git=provenance.git_state(request.model.absolute().parent),
        licence=_licence(request.license_file),
    )
    engine_named("onnxruntime").prepare()  # parity needs it later: now it costs nothing
    return ground


def _write(
    *,
    request: ConvertRequest,
    ground: _Ground,
    facts: ModelFacts,
    recognised: Recognised,
    proven: ProvenModel,
    tell: "Teller",
) -> ConvertReport:
    contract = proven.contract()
    tell(Stage.PACK, bundle_filename(contract))
    messages = (*facts.messages, *proven.messages)
    parts = [model_part(candidate.path, candidate.data) for candidate in proven.kept]
    parts += [
        data_part(contract.golden, render_golden(proven.golden)),
        document_part(
            card.PATH,
            card.render_card(
                contract,
                facts=facts,
                dataset=ground.dataset,
                rows=proven.rows,
                variants=proven.reports,
                messages=messages,
            ),
        ),
        document_part(
            provenance.PATH,
            provenance.render_provenance(
                facts=facts,
                model_path=request.model,
                model_digest=ground.model_digest,
                data_path=ground.data_path,
                dataset=ground.dataset,
                git=ground.git,
                command=request.command,
            ),
        ),
    ]
    if contract.reference is not None:
        parts.append(data_part(contract.reference, render_reference(proven)))
    if ground.licence is not None:
        parts.append(document_part("LICENSE", ground.licence))
    tell(Stage.SIGN, "with development keys" if ground.signer.keys else "with the release key")
    key = signing_key(ground.signer)
    if ground.signer.keys is not None:
        messages = (
            f"development keys were made in {ground.signer.keys}: for devices of others, make your "
            "own with edgepack keygen and keep root.key offline",
            *messages,
        )
    bundle = pack(request.output, contract, parts, key=key, sequence=ground.signer.sequence)
    path = request.output / bundle_filename(contract)
    return ConvertReport(
        path=path,
        name=contract.name,
        version=contract.version,
        digest=bundle.digest,
        size_bytes=path.stat().st_size,
        sequence=ground.signer.sequence,
        key_id=key.public.key_id,
        keys=ground.signer.keys,
        source=f"{recognised.description}: {facts.framework} {facts.description}",
        task=contract.task,
        rows=proven.rows,
        variants=proven.reports,
        messages=messages,
    )


Teller = Callable[[Stage, str], None]


def _teller(progress: ProgressCallback | None) -> Teller:
    furthest = 0

    def tell(stage: Stage, message: str) -> None:
        nonlocal furthest  # parity comes again for every variant
        if progress is not None:
            step = furthest = max(furthest, _STAGES.index(stage) + 1)
            progress(Progress(stage=stage, step=step, steps=len(_STAGES), message=message))

    return tell


def _worker(request: ConvertRequest, source: str, scratch: str) -> WorkerProcess:
    return WorkerProcess(
        source,
        timeout_s=request.timeout_s,
        memory_bytes=request.memory_bytes or default_memory_bytes(),
        file_bytes=0,
        scratch=scratch,
        trust_pickle=request.trust_pickle,
    )


def _licence(path: Path | None) -> bytes | None:
    if path is None:
        return None
    try:
        return path.read_bytes()
    except OSError as exc:
        raise RequestError(f"licence {path.name} cannot be read: {exc.strerror}") from exc
