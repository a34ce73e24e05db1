"""The stages of a conversion in their order, and nothing of how each works.

While the child imports the model's framework, this process reads the data and imports what it
needs itself.
"""

from dataclasses import dataclass
from pathlib import Path

from edgepack.bundle import Part, bundle_filename
from edgepack.converter import card, provenance
from edgepack.converter.child import Child
from edgepack.converter.errors import RequestError
from edgepack.converter.pack import data_part, document_part, model_part, pack
from edgepack.converter.prove import ProvenModel, prove
from edgepack.converter.reference import render_reference
from edgepack.converter.report import ConvertReport
from edgepack.converter.request import ConvertRequest, Stage, Teller
from edgepack.converter.search import evidence
from edgepack.converter.search.cache import AnswerCache, state_of
from edgepack.converter.search.evidence import Proof, gather
from edgepack.converter.search.original import OriginalModel
from edgepack.converter.search.pool import ToolPool
from edgepack.converter.search.widen import widen
from edgepack.converter.sign import Signer, find_signer, signing_key
from edgepack.converter.sources.find import Recognised
from edgepack.converter.sources.source import ArrayShape, LoadOptions, ModelFacts
from edgepack.converter.worker_process import WorkerProcess
from edgepack.runtime.dataset import Dataset, read_dataset
from edgepack.runtime.engines import engine_named
from edgepack.runtime.golden import render_golden
from edgepack.trust.strict_json import JsonValue


@dataclass(frozen=True, slots=True, kw_only=True)
class Pipeline:
    """One conversion, from a child that was started to a report.

    Attributes:
        request: What to convert, and how.
        recognised: What the model file is.
        scratch: Folder for temporary files; the caller removes it.
        tell: Takes progress.
    """

    request: ConvertRequest
    recognised: Recognised
    scratch: str
    tell: Teller

    def run(self, child: Child, *, name: str, version: str) -> ConvertReport:
        """Convert: see `edgepack.converter.convert`."""
        request = self.request
        cache = AnswerCache(request.cache)
        digest = provenance.path_sha256(request.model)
        dataset = self._read_data() if self.recognised.needs_data else None
        original = OriginalModel(
            WorkerProcess(child),
            request.model,
            _load_options(request, dataset),
            cache=AnswerCache(None) if request.runs_own_code else cache,
            context=(self.recognised.module, digest, state_of(request.model)),
        )
        original.begin()
        ground = _lay_ground(request, dataset or self._read_data(), digest)
        facts = original.facts()
        self.tell(Stage.EXPORT, f"{facts.framework} {facts.description}")
        proven = prove(
            original,
            facts=facts,
            dataset=ground.dataset,
            request=request,
            identity=(name, version),
            tell=self.tell,
        )
        with ToolPool(
            timeout_s=request.timeout_s,
            memory_bytes=request.memory_bytes,
            scratch=self.scratch,
            cache=cache,
            workers=request.workers,
        ) as pool:
            proven = widen(proven, original, facts, pool, request=request, tell=self.tell)
        self.tell(Stage.PARITY, "evidence: robustness, importance, per class")
        proof = Proof(draft=proven.draft, held_out=proven.held_out, original=original)
        found = gather(proof, proven.kept)
        child.kill()  # its memory is free before the bundle is tested
        return self._write(ground, facts, proven, found)

    def _read_data(self) -> Dataset:
        if self.request.data is None:
            raise RequestError("data is needed")
        return read_dataset(self.request.data, label=self.request.label)

    def _write(
        self,
        ground: "_Ground",
        facts: ModelFacts,
        proven: ProvenModel,
        found: dict[str, JsonValue],
    ) -> ConvertReport:
        request = self.request
        contract = proven.contract()
        self.tell(Stage.PACK, bundle_filename(contract))
        messages = (*facts.messages, *proven.messages)
        parts = _parts(request, ground, facts, proven, messages)
        parts.append(document_part(evidence.PATH, evidence.render(found, proven)))
        self.tell(
            Stage.SIGN, "with development keys" if ground.signer.keys else "with the release key"
        )
        key = signing_key(ground.signer)
        if ground.signer.keys is not None:
            messages = (
                f"development keys were made in {ground.signer.keys}: for real devices, make your "
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
            source=f"{self.recognised.description}: {facts.framework} {facts.description}",
            task=contract.task,
            rows=proven.rows,
            variants=proven.reports,
            messages=messages,
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


def _lay_ground(request: ConvertRequest, dataset: Dataset, digest: str) -> _Ground:
    """Everything that does not need the model, while the child is busy importing."""
    if request.data is None:
        raise RequestError("data is needed")
    ground = _Ground(
        dataset=dataset,
        data_path=request.data,
        signer=find_signer(request),
        model_digest=digest,
        git=provenance.git_state(request.model.absolute().parent),
        licence=_licence(request.license_file),
    )
    engine_named("onnxruntime").prepare()  # parity needs it later: now it costs nothing
    return ground


def _load_options(request: ConvertRequest, dataset: Dataset | None) -> LoadOptions:
    arrays = {} if dataset is None else dataset.arrays
    return LoadOptions(
        trust_pickle=request.trust_pickle,
        model_factory=request.model_factory,
        input_shapes=request.input_shapes,
        data=tuple(
            ArrayShape(name=name, dtype=str(array.dtype), shape=array.shape)
            for name, array in arrays.items()
        ),
    )


def _parts(
    request: ConvertRequest,
    ground: _Ground,
    facts: ModelFacts,
    proven: ProvenModel,
    messages: tuple[str, ...],
) -> list[Part]:
    """Every file of the bundle but the contract."""
    contract = proven.contract()
    parts = [
        model_part(path, data)
        for candidate in proven.kept
        for path, data in candidate.files.items()
    ]
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
    return parts


def _licence(path: Path | None) -> bytes | None:
    if path is None:
        return None
    try:
        return path.read_bytes()
    except OSError as exc:
        raise RequestError(f"licence {path.name} cannot be read: {exc.strerror}") from exc
