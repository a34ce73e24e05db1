"""The stages of a conversion in their order, and nothing of how each works.

While the child imports the model's framework, this process reads the data and imports what it
needs itself.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgepack.bundle import Part, bundle_filename
from edgepack.converter import card, provenance
from edgepack.converter.child import Child
from edgepack.converter.errors import RequestError
from edgepack.converter.pack import data_part, document_part, model_part, pack
from edgepack.converter.prove import ProvenModel, prove
from edgepack.converter.recipe import Recipe
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
from edgepack.runtime.errors import DatasetError
from edgepack.runtime.golden import render_golden
from edgepack.runtime.preprocess import apply_steps, parse_steps
from edgepack.runtime.tensors import Array


@dataclass(frozen=True, slots=True, kw_only=True)
class Pipeline:
    """One conversion, from a child that was started to a report.

    Attributes:
        request: What to convert, and how.
        recognised: What the model file is.
        scratch: Folder for temporary files; the caller removes it.
        tell: Takes progress.
        recipe: What it says has been put into the request, where the request has a place for it.
    """

    request: ConvertRequest
    recognised: Recognised
    scratch: str
    tell: Teller
    recipe: Recipe

    def run(self, child: Child, *, name: str, version: str) -> ConvertReport:
        """Convert: see `edgepack.converter.convert`."""
        request = self.request
        cache = AnswerCache(request.cache)
        digest = provenance.path_sha256(request.model)
        dataset = self._read_data() if self.recognised.needs_data else None
        original = OriginalModel(
            WorkerProcess(child),
            request.model,
            _load_options(request, dataset, self.recipe),
            cache=AnswerCache(None) if request.runs_own_code else cache,
            context=(self.recognised.module, digest, state_of(request.model)),
        )
        original.begin()
        ground = _lay_ground(request, digest)
        try:
            dataset = dataset or self._read_data()
        except DatasetError:
            dataset = self._read_data(_image_size(original.facts()))
        facts = original.facts()
        self.tell(Stage.EXPORT, f"{facts.framework} {facts.description}")
        proven = prove(
            original,
            facts=facts,
            dataset=dataset,
            request=request,
            recipe=self.recipe,
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
            proven = widen(
                proven, original, facts, pool, request=request, recipe=self.recipe, tell=self.tell
            )
        self.tell(Stage.PARITY, "evidence: robustness, importance, per class")
        proof = Proof(draft=proven.draft, held_out=proven.held_out, original=original)
        found = gather(proof, proven.kept)
        child.kill()  # its memory is free before the bundle is tested
        parts = _parts(request, ground, facts, proven, dataset=dataset, recipe=self.recipe)
        parts.append(document_part(evidence.PATH, evidence.render(found, proven)))
        return self._write(ground, facts, proven, parts)

    def _read_data(self, image_size: tuple[int, int] | None = None) -> Dataset:
        """Read the data; images of several sizes need the size to resize them to."""
        if self.request.data is None:
            raise RequestError("data is needed")
        return read_dataset(
            self.request.data,
            label=self.request.label,
            image_size=self.recipe.image_size or image_size,
            audio_samples=self.recipe.data.audio_samples,
        )

    def _write(
        self,
        ground: "_Ground",
        facts: ModelFacts,
        proven: ProvenModel,
        parts: list[Part],
    ) -> ConvertReport:
        request = self.request
        contract = proven.contract()
        self.tell(Stage.PACK, bundle_filename(contract))
        messages = (*facts.messages, *proven.messages)
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
        data_path: The rows' file or folder.
        signer: Who will sign.
        model_digest: Of the model file.
        git: State of the work tree that the model file lies in.
        licence: Text to pack, or None.
    """

    data_path: Path
    signer: Signer
    model_digest: str
    git: provenance.GitState | None
    licence: bytes | None


def _lay_ground(request: ConvertRequest, digest: str) -> _Ground:
    """Everything that does not need the model, while the child is busy importing."""
    if request.data is None:
        raise RequestError("data is needed")
    ground = _Ground(
        data_path=request.data,
        signer=find_signer(request),
        model_digest=digest,
        git=provenance.git_state(request.model.absolute().parent),
        licence=_licence(request.license_file),
    )
    engine_named("onnxruntime").prepare()  # parity needs it later: now it costs nothing
    return ground


def _image_size(facts: ModelFacts) -> tuple[int, int] | None:
    """Height and width of the images that a model takes, if it takes any of a fixed size."""
    shape = facts.inputs[0].shape if len(facts.inputs) == 1 else ()
    if len(shape) != 4:
        return None
    size = shape[1:3] if shape[3] in (1, 3) else shape[2:]
    return (size[0], size[1]) if min(size) > 0 else None


def _load_options(request: ConvertRequest, dataset: Dataset | None, recipe: Recipe) -> LoadOptions:
    arrays = {} if dataset is None else _as_model_takes(dataset, recipe)
    return LoadOptions(
        trust_pickle=request.trust_pickle,
        model_factory=request.model_factory,
        input_shapes=request.input_shapes,
        data=tuple(
            ArrayShape(name=name, dtype=str(array.dtype), shape=array.shape)
            for name, array in arrays.items()
        ),
    )


def _as_model_takes(dataset: Dataset, recipe: Recipe) -> dict[str, Array]:
    """The data's arrays after a recipe's steps; one row tells the shape."""
    tensors = {name: array for name, array in dataset.arrays.items() if array.ndim > 1}
    if not recipe.pre or len(tensors) != 1:
        return dataset.arrays
    ((name, array),) = tensors.items()
    steps = [{**step, "input": name} for step in recipe.pre]
    made = apply_steps(parse_steps(steps), {name: array[:1]})[name]
    return {name: np.broadcast_to(made, (dataset.rows, *made.shape[1:]))}


def _parts(
    request: ConvertRequest,
    ground: _Ground,
    facts: ModelFacts,
    proven: ProvenModel,
    *,
    dataset: Dataset,
    recipe: Recipe,
) -> list[Part]:
    """Every file of the bundle but the contract and the evidence."""
    contract = proven.contract()
    messages = (*facts.messages, *proven.messages)
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
                dataset=dataset,
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
                dataset=dataset,
                recipe=recipe,
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
