"""Folders name the classes of a model that only numbers them."""

import numpy as np
import pytest

from edgepack.bundle.contract import Task
from edgepack.converter.errors import UnfitDataError
from edgepack.converter.truth import fit_truth, names_of_folders

SCORES = np.zeros((4, 3), np.float32)
NUMBERS = {"label": np.array([0, 1, 2, 0]), "probabilities": SCORES}
FOLDERS = ("cats", "dogs", "owls")


def text(*names: str) -> np.ndarray:
    return np.array(names, dtype=object)


def test_folders_are_numbered_in_the_order_of_their_names():
    """As the loaders that such models are trained with number them; it is said."""
    names, messages = names_of_folders(FOLDERS, NUMBERS, ())
    truth, _ = fit_truth(text("owls", "cats", "dogs", "cats"), Task.CLASSIFICATION, NUMBERS, names)

    assert FOLDERS == names
    assert ("classes are numbered in the order of the folders: 0 cats, 1 dogs, 2 owls",) == messages
    assert [2, 0, 1, 0] == truth.tolist()


@pytest.mark.parametrize(
    ("folders", "outputs", "own", "expected"),
    [
        ((), NUMBERS, (), ()),
        (FOLDERS, NUMBERS, ("a", "b", "c"), ("a", "b", "c")),
        (("0", "1", "2"), NUMBERS, (), ()),
        (("cats", "dogs"), NUMBERS, (), ()),
        (FOLDERS, {**NUMBERS, "label": text("a", "b", "c", "a")}, (), ()),
        (FOLDERS, {"value": SCORES}, (), ()),
    ],
    ids=["no folders", "own names", "numbers", "another number", "text labels", "no classes"],
)
def test_names_are_not_made_up(folders, outputs, own, expected):
    """A model's own names stay, and folders that cannot be its classes name none."""
    assert (expected, ()) == names_of_folders(folders, outputs, own)


def test_a_folder_that_is_no_class_of_the_model_is_said():
    """By its name; where none is one, it is an error."""
    truth, messages = fit_truth(
        text("cats", "dogs", "fish", "cats"), Task.CLASSIFICATION, NUMBERS, FOLDERS
    )
    assert [0, 1, -1, 0] == truth.tolist()
    assert ("the label has classes that the model never gives: 'fish'",) == messages
    with pytest.raises(UnfitDataError, match="none of the model's classes: it has 'a', 'b'"):
        fit_truth(text("a", "b", "a", "b"), Task.CLASSIFICATION, NUMBERS, FOLDERS)


def test_folders_that_cannot_be_the_classes_are_told():
    """Three folders do not say which of another number of classes they are."""
    names, _ = names_of_folders(("cats", "dogs"), NUMBERS, ())
    with pytest.raises(UnfitDataError, match=r"numbers of the model's classes, .*got text 'dogs'"):
        fit_truth(text("dogs", "cats", "dogs", "cats"), Task.CLASSIFICATION, NUMBERS, names)


def test_numbers_are_numbers_of_named_classes():
    """A label column of numbers is for a model whose classes have names, too."""
    truth, messages = fit_truth(np.array([2, 0, 1, 7]), Task.CLASSIFICATION, NUMBERS, FOLDERS)
    assert [2, 0, 1, 7] == truth.tolist()
    assert ("the label has classes that the model never gives: '7'",) == messages
