"""Every estimator that scikit-learn lists, through our own export."""

import os
import pickle
from pathlib import Path

import pytest
from coverage_models import Fitted, every_model
from coverage_page import render, same_page
from coverage_walk import Entry, walk_one

from edgepack.converter.errors import UnsafeModelError
from edgepack.converter.sources.unpickle import load_pickle

pytestmark = pytest.mark.timeout(600)  # half a minute, where nothing else runs
_PAGE = Path(__file__).resolve().parents[2] / "docs" / "coverage.md"
# Set to 1, the page is written anew.
_WRITE = os.environ.get("EDGEPACK_WRITE_COVERAGE") == "1"


@pytest.fixture(scope="module")
def models() -> list[Fitted]:
    """One of each."""
    return list(every_model())


@pytest.fixture(scope="module")
def entries(models: list[Fitted]) -> list[Entry]:
    """What came of each."""
    return [walk_one(fitted) for fitted in models]


def test_the_page_says_what_ran(entries: list[Entry]) -> None:
    """docs/coverage.md is what this run found, figures within a power of ten."""
    page = render(entries)
    if _WRITE:
        _PAGE.write_text(page, encoding="utf-8")
    written = _PAGE.read_text(encoding="utf-8")
    if not same_page(written, page):
        assert written.splitlines() == page.splitlines()


def test_everything_that_predicts_new_rows_converts(entries: list[Entry]) -> None:
    """No estimator with answers for new rows is left out."""
    predicting = {"classification", "regression", "clustering", "outlier", "generic"}
    left_out = {
        entry.name
        for entry in entries
        if entry.task in predicting
        and entry.fp32.difference is None
        and entry.fp64.difference is None
    }
    assert set() == left_out


def test_float64_holds_wherever_float32_does_not(entries: list[Entry]) -> None:
    """What needs float64 answers there as the original to ten digits."""
    loose = {
        entry.name: entry.fp64.difference
        for entry in entries
        if entry.fp32.difference is None
        and entry.fp64.difference is not None
        and entry.fp64.difference > 1e-10
    }
    assert {} == loose


def test_every_fitted_model_loads(models: list[Fitted], tmp_path: Path) -> None:
    """The pickle of every fitted estimator asks for nothing that is not on the list."""
    refused = {}
    for fitted in models:
        if fitted.model is None:
            continue
        path = tmp_path / "model.pkl"
        path.write_bytes(pickle.dumps(fitted.model))
        try:
            load_pickle(path, trust_pickle=False)
        except UnsafeModelError as exc:
            refused[fitted.name] = str(exc)
    assert {} == refused


def test_pages_that_differ_are_told_apart() -> None:
    """A figure of two powers of ten more, another result and a missing row are differences."""
    page = "| A | 1e-07 | exact |\n| B | needs float64 | 1e-12 |\n"
    assert same_page(page, page.replace("1e-07", "1e-06"))
    assert not same_page(page, page.replace("1e-07", "1e-05"))
    assert not same_page(page, page.replace("needs float64", "1e-06"))
    assert not same_page(page, page.splitlines(keepends=True)[0])
