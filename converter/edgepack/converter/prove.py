"""The original's answers, the float variant that gives the same, and the golden samples."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from edgepack.bundle.contract import (
    Contract,
    Datatype,
    Nonfinite,
    Parity,
    Task,
    TensorSpec,
    Variant,
)
from edgepack.bundle.contract_rules import problems_of
from edgepack.converter.draft import Candidate, Draft, output_specs
from edgepack.converter.errors import (
    RequestError,
    ToleranceError,
    UnfitDataError,
    UnsupportedModelError,
)
from edgepack.converter.export import export, run_original
from edgepack.converter.match import (
    MatchedInputs,
    match_inputs,
    nan_columns,
    nan_probe,
    narrow,
    widened,
)
from edgepack.converter.parity import HeldOut, judge, takes_nan
from edgepack.converter.report import Rows, VariantReport
from edgepack.converter.request import ConvertRequest, Stage, Teller
from edgepack.converter.sources.source import ExportWish, ModelFacts
from edgepack.converter.split import Split, split_rows
from edgepack.converter.truth import fit_truth, looks_like_classes
from edgepack.converter.worker_process import WorkerProcess
from edgepack.runtime.dataset import Dataset
from edgepack.runtime.golden import Golden
from edgepack.runtime.tensors import DTYPES, Array

_OPTIONAL_OUTPUTS = ("scores",)  # a label is enough; converters differ in what scores they give


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ProvenModel:
    """A model with at least one variant that answers as the original does.

    Attributes:
        draft: Of the contract.
        split: Which rows did what.
        rows: Their numbers.
        inputs: All rows, as the original takes them.
        held_out: What candidates are compared on.
        golden: What devices will be tested with.
        kept: The variants' files, in the order of preference.
        variants: The same as the contract describes them.
        reports: On every variant that was tried.
        messages: What a person should know.
    """

    draft: Draft
    split: Split
    rows: Rows
    inputs: dict[str, Array]
    held_out: HeldOut
    golden: Golden
    kept: tuple[Candidate, ...]
    variants: tuple[Variant, ...]
    reports: tuple[VariantReport, ...]
    messages: tuple[str, ...]

    def contract(self) -> Contract:
        """The contract as it stands."""
        return self.draft.contract(self.variants)


def prove(
    worker: WorkerProcess,
    *,
    facts: ModelFacts,
    dataset: Dataset,
    request: ConvertRequest,
    identity: tuple[str, str],
    tell: Teller,
) -> ProvenModel:
    """Export the model and compare it with the original on held-out rows.

    Args:
        worker: Holds the original.
        facts: What it is.
        dataset: All rows.
        request: Tolerances, and the task if it was given.
        identity: Name and version for the contract.
        tell: Takes progress.

    Raises:
        ToleranceError: Neither float variant answers as the original does.
        ConvertError: The data does not do, or the model has no ONNX form.
        DatasetError: The data does not fit the model's inputs.
    """
    matched = match_inputs(facts, dataset)
    task = _task(facts, dataset, request)
    row_bytes = sum(array[:1].size * 4 for array in matched.arrays.values())
    split = split_rows(dataset.rows, digest=dataset.digest, row_bytes=row_bytes)
    inputs = _take(matched.arrays, split.held_out)
    expected = _ask_original(worker, facts, task, matched, inputs)
    class_names = facts.class_names
    truth: Array | None = None
    notes: tuple[str, ...] = ()
    if dataset.truth is not None:
        whole, notes = fit_truth(dataset.truth, task, expected, class_names)
        truth = None if whole is None else whole[split.held_out]
    draft = Draft(
        name=identity[0],
        version=identity[1],
        task=task,
        inputs=_with_ranges(matched),
        outputs=output_specs(expected, as_given=bool(facts.outputs)),
        class_names=class_names,
        tolerances=request.tolerances,
    )
    held_out = HeldOut(inputs=inputs, expected=expected, truth=truth)
    has_nan = bool(nan_columns(matched.specs, matched.arrays))
    if has_nan:
        draft = draft.with_nonfinite(Nonfinite.NAN)
    tell(Stage.PARITY, f"{len(split.held_out)} held-out rows against the original")
    found = _float_variant(worker, facts, draft, held_out)
    if not has_nan:
        found = _settle_nan(worker, found, matched)
    problems = problems_of(found.draft.contract([found.candidate.variant(found.parity)]))
    if problems:
        raise UnsupportedModelError(f"the model does not fit a contract: {'; '.join(problems[:3])}")
    rows = Rows(
        total=dataset.rows,
        calibration=len(split.calibration),
        held_out=len(split.held_out),
        golden=len(split.golden),
    )
    return ProvenModel(
        draft=found.draft,
        split=split,
        rows=rows,
        inputs=matched.arrays,
        held_out=found.held_out,
        golden=_golden(found, split),
        kept=(found.candidate,),
        variants=(found.candidate.variant(found.parity),),
        reports=found.reports,
        messages=(*matched.messages, *notes, *found.messages),
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Float:
    """The float variant that met its tolerance, and what was tried on the way."""

    draft: Draft
    held_out: HeldOut
    candidate: Candidate
    parity: Parity
    reports: tuple[VariantReport, ...]
    messages: tuple[str, ...] = ()


def _float_variant(
    worker: WorkerProcess, facts: ModelFacts, draft: Draft, held_out: HeldOut
) -> _Float:
    """The first float variant that answers as the original does: fp32, else fp64."""
    drafts = {"fp32": draft}
    if not facts.inputs and any(spec.datatype is Datatype.FP32 for spec in draft.inputs):
        drafts["fp64"] = replace(draft, inputs=widened(draft.inputs))
    failed: list[VariantReport] = []
    for precision, tried in drafts.items():
        wish = ExportWish(
            task=tried.task,
            inputs=tried.inputs,
            outputs=tuple(held_out.expected),
            precision=precision,
        )
        try:
            candidate = export(worker, wish)
        except UnsupportedModelError as exc:
            if not failed:
                raise
            failed.append(_not_exported(precision, str(exc)))
            continue
        found, report = _try(tried, held_out, candidate)
        if found is None:
            failed.append(report)
            continue
        found = _settle_ties(worker, found, wish)
        if not failed:
            return found
        note = (
            f"the model needs float64 (in float32 {failed[0].reason}): its inputs are FP64 and "
            "int8 is left out"
        )
        return replace(found, reports=(*failed, *found.reports), messages=(*found.messages, note))
    tried_all = "; ".join(f"{report.name}: {report.reason}" for report in failed)
    raise ToleranceError(f"no variant met its tolerance: {tried_all}")


def _settle_ties(worker: WorkerProcess, found: _Float, wish: ExportWish) -> _Float:
    """Make labels agree on rows where the original's classes tie, if they do not."""
    before = found.parity.figures.get("agreement", 1.0)
    if before == 1.0 or "probabilities" not in found.held_out.expected:
        return found
    try:
        candidate = export(worker, replace(wish, settle_ties=True))
    except UnsupportedModelError:
        return found
    settled, _ = _try(found.draft, found.held_out, candidate)
    if settled is None or settled.parity.figures.get("agreement", 0.0) <= before:
        return found
    return settled


def _not_exported(precision: str, reason: str) -> VariantReport:
    return VariantReport(name=f"onnx-{precision}", precision=precision, kept=False, reason=reason)


def _try(
    draft: Draft, held_out: HeldOut, candidate: Candidate
) -> tuple[_Float | None, VariantReport]:
    """Judge a candidate; scores that its converter defines otherwise are left out."""
    judgement = judge(draft, candidate, held_out)
    messages: tuple[str, ...] = ()
    if not judgement.passed:
        for name in _OPTIONAL_OUTPUTS:
            if name not in held_out.expected or len(held_out.expected) < 2:
                continue
            fewer = replace(
                draft, outputs=tuple(spec for spec in draft.outputs if spec.name != name)
            )
            slim = candidate.without(name)
            again = judge(fewer, slim, held_out.without(name))
            if again.passed:
                messages = (
                    f"{name} are left out: the converted ones differ by more than the tolerance",
                )
                draft, candidate, held_out = fewer, slim, held_out.without(name)
                judgement = again
    parity = None if judgement.comparison is None else judgement.comparison.parity
    report = VariantReport(
        name=candidate.name,
        precision=candidate.precision,
        kept=judgement.passed,
        reason=judgement.reason,
        size_bytes=len(candidate.data),
        parity=parity,
    )
    if not judgement.passed or parity is None:
        return None, report
    found = _Float(
        draft=draft,
        held_out=held_out,
        candidate=candidate,
        parity=parity,
        reports=(report,),
        messages=messages,
    )
    return found, report


def _settle_nan(worker: WorkerProcess, found: _Float, matched: MatchedInputs) -> _Float:
    """Let NaN in only where the original takes it and the variant answers the same."""
    probe = nan_probe(found.draft.inputs, matched.arrays)
    if probe is None:
        return found
    try:
        expected = run_original(worker, found.draft.task, probe)
    except UnfitDataError:
        return found
    expected = {name: expected[name] for name in found.held_out.expected}
    answered = all(np.isfinite(a).all() for a in expected.values() if a.dtype.kind == "f")
    if found.draft.task is not Task.TRANSFORM and not answered:
        return found
    if takes_nan(found.draft, found.candidate, probe, expected):
        return replace(found, draft=found.draft.with_nonfinite(Nonfinite.NAN))
    note = "NaN is refused: the original answers it, and the converted model would answer otherwise"
    return replace(found, messages=(*found.messages, note))


def _ask_original(
    worker: WorkerProcess,
    facts: ModelFacts,
    task: Task,
    matched: MatchedInputs,
    inputs: Mapping[str, Array],
) -> dict[str, Array]:
    try:
        expected = run_original(worker, task, inputs)
    except UnfitDataError as exc:
        missing = nan_columns(matched.specs, matched.arrays)
        if missing:
            raise UnfitDataError(
                f"the model takes no NaN, and the data has it in {', '.join(missing[:5])}"
            ) from exc
        text = [
            repr(name)
            for index, name in enumerate(n for s in matched.specs for n in s.feature_names)
            if index not in facts.text_features and _is_text(matched, name)
        ]
        if text:
            raise UnfitDataError(f"{exc} (text columns: {', '.join(text[:5])})") from exc
        raise
    rows = next(iter(inputs.values())).shape[0]
    if not expected or any(array.shape[:1] != (rows,) for array in expected.values()):
        raise UnfitDataError(f"the model must answer {rows} rows with as many, got others")
    return expected


def _is_text(matched: MatchedInputs, name: str) -> bool:
    return any(
        spec.datatype is Datatype.BYTES and name in spec.feature_names for spec in matched.specs
    )


def _task(facts: ModelFacts, dataset: Dataset, request: ConvertRequest) -> Task:
    if request.task is not None:
        if facts.task not in (None, request.task) and not facts.outputs:
            raise RequestError(
                f"the model is for {facts.task.value if facts.task else '?'}, "
                f"got task {request.task.value}"
            )
        return request.task
    if facts.task is not None:
        return facts.task
    columns = facts.outputs[0].shape[-1] if facts.outputs else 0
    if dataset.truth is None:
        return Task.GENERIC
    return Task.CLASSIFICATION if looks_like_classes(dataset.truth, columns) else Task.REGRESSION


def _with_ranges(matched: MatchedInputs) -> tuple[TensorSpec, ...]:
    specs = []
    for spec in matched.specs:
        array = matched.arrays[spec.name]
        finite = array[np.isfinite(array)] if array.dtype.kind == "f" else array
        if array.dtype.kind in "fiu" and finite.size:
            spec = replace(spec, minimum=float(finite.min()), maximum=float(finite.max()))  # noqa: PLW2901
        specs.append(spec)
    return tuple(specs)


def _golden(found: _Float, split: Split) -> Golden:
    draft, held_out = found.draft, found.held_out
    inputs = narrow(draft.inputs, _take(held_out.inputs, split.golden))
    outputs = {}
    for spec in draft.outputs:
        array = held_out.expected[spec.name][split.golden]
        outputs[spec.name] = (
            array if array.dtype == np.object_ else array.astype(DTYPES[spec.datatype])
        )
    truth = None if held_out.truth is None else held_out.truth[split.golden]
    return Golden(inputs=inputs, outputs=outputs, truth=truth)


def _take(arrays: Mapping[str, Array], rows: Array) -> dict[str, Array]:
    return {name: array[rows] for name, array in arrays.items()}
