"""A model with a variant that is proven to answer as the original: what everything later needs."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from edgepack.bundle.contract import Contract, Nonfinite, Task, TensorSpec, Variant
from edgepack.bundle.contract_rules import problems_of
from edgepack.bundle.errors import ContractError
from edgepack.bundle.pre_codec import render_steps
from edgepack.bundle.pre_shapes import specs_after
from edgepack.converter.ask import ask_original, check_nan, check_text, decide_task
from edgepack.converter.category_values import category_values
from edgepack.converter.draft import Candidate, Draft, output_specs
from edgepack.converter.errors import RequestError, UnfitDataError, UnsupportedModelError
from edgepack.converter.float_variant import FloatVariant, find_float_variant, settle_nan
from edgepack.converter.match import MatchedInputs, match_inputs, nan_columns, narrow
from edgepack.converter.parity import HeldOut
from edgepack.converter.raw_inputs import RawInputs, declared_inputs, default_steps
from edgepack.converter.recipe import Recipe
from edgepack.converter.report import Rows, VariantReport
from edgepack.converter.request import ConvertRequest, Stage, Teller
from edgepack.converter.search.original import OriginalModel
from edgepack.converter.sources.source import ModelFacts
from edgepack.converter.split import Split, split_rows
from edgepack.converter.truth import fit_truth, names_of_folders
from edgepack.runtime.dataset import Dataset
from edgepack.runtime.golden import Golden
from edgepack.runtime.parity import several_labels_of
from edgepack.runtime.preprocess import apply_steps
from edgepack.runtime.tensors import DTYPES, Array


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
    original: OriginalModel,
    *,
    facts: ModelFacts,
    dataset: Dataset,
    request: ConvertRequest,
    recipe: Recipe,
    identity: tuple[str, str],
    tell: Teller,
) -> ProvenModel:
    """Export the model and compare it with the original on held-out rows.

    Args:
        original: Answers for itself.
        facts: What it is.
        dataset: All rows.
        request: Tolerances, and the task if it was given.
        recipe: Steps before the model, and how rows are dealt.
        identity: Name and version for the contract.
        tell: Takes progress.

    Raises:
        ToleranceError: Neither float variant answers as the original does.
        ConvertError: The data does not do, or the model cannot be exported.
        DatasetError: The data does not fit the model's inputs.
    """
    raw = _raw_inputs(facts, dataset, recipe)
    matched = match_inputs(replace(facts, inputs=raw.inputs), dataset)
    if raw.steps:
        original.prepare = lambda arrays: apply_steps(raw.steps, narrow(matched.specs, arrays))
    original.categories = category_values(facts, matched.arrays)
    task = decide_task(facts, dataset, request)
    row_bytes = sum(array[:1].size * 4 for array in matched.arrays.values())
    split = split_rows(
        dataset.rows,
        digest=dataset.digest,
        row_bytes=row_bytes,
        calibration=recipe.convert.calibration_rows,
        seed=recipe.convert.seed,
    )
    inputs = _take(matched.arrays, split.held_out)
    expected = ask_original(original, facts, task, matched, inputs)
    check_text(original, facts, task, matched)
    names, named = names_of_folders(dataset.classes, expected, facts.class_names)
    facts = replace(facts, class_names=names)
    truth, notes = _truth(dataset, task, expected, facts, split)
    held_out = HeldOut(inputs=inputs, expected=expected, truth=truth)
    draft = Draft(
        name=identity[0],
        version=identity[1],
        task=task,
        inputs=_with_ranges(matched),
        outputs=_with_columns(
            output_specs(expected, as_given=bool(facts.outputs)), task, expected, dataset
        ),
        class_names=facts.class_names,
        tolerances=request.tolerances,
        pre=render_steps(raw.steps),
    )
    has_nan = bool(nan_columns(matched.specs, matched.arrays))
    if has_nan:
        check_nan(original, task, matched)
        draft = draft.with_nonfinite(Nonfinite.NAN)
        _check_steps_keep_nan(draft, raw)
    tell(Stage.PARITY, f"{len(split.held_out)} held-out rows against the original")
    found = find_float_variant(original, facts, draft, held_out)
    if not has_nan:
        found = settle_nan(original, found, matched)
    variant = found.candidate.variant(found.parity)
    _check_contract(found.draft.contract([variant]))
    return ProvenModel(
        draft=found.draft,
        split=split,
        rows=split.counts(dataset.rows),
        inputs=matched.arrays,
        held_out=found.held_out,
        golden=_golden(found, split),
        kept=(found.candidate,),
        variants=(variant,),
        reports=found.reports,
        messages=(*raw.messages, *matched.messages, *named, *notes, *found.messages),
    )


def _raw_inputs(facts: ModelFacts, dataset: Dataset, recipe: Recipe) -> RawInputs:
    """What callers give, where that is not what the model takes."""
    if not facts.inputs:
        if recipe.pre:
            raise RequestError(
                f"steps of a recipe are for models of tensors; a {facts.framework} model has its "
                "preprocessing in a pipeline"
            )
        return RawInputs(inputs=(), steps=())
    if not recipe.pre:
        return default_steps(facts.inputs, dataset)
    steps = recipe.steps_for([spec.name for spec in facts.inputs])
    return declared_inputs(facts.inputs, dataset, steps)


def _truth(
    dataset: Dataset,
    task: Task,
    expected: Mapping[str, Array],
    facts: ModelFacts,
    split: Split,
) -> tuple[Array | None, tuple[str, ...]]:
    """The truth of the held-out rows; all of it is looked at, so that a bad label is found."""
    truth = dataset.truth_like(expected["label"]) if "label" in expected else dataset.truth
    if truth is None:
        return None, ()
    whole, notes = fit_truth(truth, task, expected, facts.class_names)
    return None if whole is None else whole[split.held_out], notes


def _with_columns(
    specs: tuple[TensorSpec, ...], task: Task, expected: Mapping[str, Array], dataset: Dataset
) -> tuple[TensorSpec, ...]:
    """Several labels a row are called as the columns of their truths are."""
    several = several_labels_of(task, expected)
    columns = dataset.truth_columns
    if several is None or several.shape[1] != len(columns):
        return specs
    return tuple(
        replace(spec, feature_names=columns) if spec.name == "label" else spec for spec in specs
    )


def _check_steps_keep_nan(draft: Draft, raw: RawInputs) -> None:
    try:
        specs_after(draft.inputs, raw.steps)
    except ContractError as exc:
        raise UnfitDataError(f"the data has NaN: {exc.problems[0]}") from exc


def _check_contract(contract: Contract) -> None:
    problems = problems_of(contract)
    if problems:
        raise UnsupportedModelError(f"the model does not fit a contract: {'; '.join(problems[:3])}")


def _with_ranges(matched: MatchedInputs) -> tuple[TensorSpec, ...]:
    specs = []
    for spec in matched.specs:
        array = matched.arrays[spec.name]
        finite = array[np.isfinite(array)] if array.dtype.kind == "f" else array
        if array.dtype.kind in "fiu" and finite.size:
            spec = replace(spec, minimum=float(finite.min()), maximum=float(finite.max()))  # noqa: PLW2901
        specs.append(spec)
    return tuple(specs)


def _golden(found: FloatVariant, split: Split) -> Golden:
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
