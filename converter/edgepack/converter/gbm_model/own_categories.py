"""The categories that XGBoost and LightGBM learned from pandas columns of that type.

Trees ask for the number of a category; which text (or number) has which number is kept beside
them. What a column has besides those counts as missing.
"""

import json
import re
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np

from edgepack.converter.errors import ModelFileError, UnsupportedModelError
from edgepack.runtime.tensors import Array

_LISTED = re.compile(r"^\[categorical_feature: ([0-9,]*)\]$", re.MULTILINE)


def xgboost_categories(booster: Any) -> dict[int, Array]:  # noqa: ANN401
    """Categories by the number of the column; none where the caller numbers them itself."""
    if "c" not in (booster.feature_types or ()):
        return {}
    stored = _cats_of(json.loads(bytes(booster.save_raw("json")))).get("enc") or ()
    return {
        column: _texts(item) if "offsets" in item else np.asarray(item["values"])
        for column, item in enumerate(stored)
        if item["values"]
    }


def without_xgboost_categories(booster: Any) -> Any:  # noqa: ANN401
    """A copy that takes the numbers of categories instead."""
    document = json.loads(bytes(booster.save_raw("json")))
    _cats_of(document).update(enc=[], feature_segments=[], sorted_idx=[])
    bare = type(booster)()
    bare.load_model(bytearray(json.dumps(document).encode()))
    return bare


def lightgbm_categories(booster: Any) -> dict[int, Array]:  # noqa: ANN401
    """Categories by the number of the column.

    Raises:
        UnsupportedModelError: The model does not tell of which columns they are.
    """
    lists = booster.pandas_categorical or ()
    if not lists:
        return {}
    found = _LISTED.search(booster.model_to_string())
    columns = [int(item) for item in found[1].split(",") if item] if found else []
    if len(columns) != len(lists):
        raise UnsupportedModelError(
            f"LightGBM has {len(lists)} lists of pandas categories for {len(columns)} categorical "
            "columns: encode such columns in a scikit-learn pipeline before the model "
            "(OrdinalEncoder)"
        )
    return {
        column: np.array(items, dtype=np.object_ if _has_text(items) else None)
        for column, items in zip(columns, lists, strict=True)
    }


def _cats_of(document: Mapping[str, Any]) -> dict[str, Any]:
    part = document["learner"]["gradient_booster"]
    found: dict[str, Any] = part.get("gbtree", part).get("model", {}).setdefault("cats", {})
    return found


def _texts(stored: Mapping[str, Any]) -> Array:
    """Texts, from their bytes one after the other."""
    data = np.asarray(stored["values"], dtype=np.int64).astype(np.uint8).tobytes()
    ends = [int(item) for item in stored["offsets"]]
    if ends != sorted(ends) or ends[0] < 0 or ends[-1] > len(data):
        raise ModelFileError("the XGBoost model's categories are damaged")
    pairs = pairwise(ends)
    return np.array([data[a:b].decode(errors="replace") for a, b in pairs], np.object_)


def _has_text(items: Any) -> bool:  # noqa: ANN401
    return any(isinstance(item, str) for item in items)
