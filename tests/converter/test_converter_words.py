"""Words of texts in any language, counted, weighted and hashed."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.feature_extraction.text import (
    CountVectorizer,
    HashingVectorizer,
    TfidfVectorizer,
)
from sklearn_parity import both_answers

from edgepack.converter.errors import UnsupportedModelError

WORDS = [
    *("Motor", "läuft", "HEIß", "Öl", "ok", "noise!", "12", "x1", "it's", "re-start", "the"),
    *("of", "a", "I", "日本", "Éa", "_u", "", "  ", "\t\n"),
]


def _texts() -> pd.DataFrame:
    random = np.random.default_rng(0)
    made = [" ".join(random.choice(WORDS, random.integers(0, 9))) for _ in range(200)]
    return pd.DataFrame({"text": [*made, "", "a", "  ", "the of"]}, dtype=object)


VECTORIZERS = {
    "n-grams": TfidfVectorizer(ngram_range=(1, 2), min_df=2),
    "n-grams without stop words": CountVectorizer(stop_words="english", ngram_range=(1, 3)),
    "no single words": TfidfVectorizer(ngram_range=(2, 3), sublinear_tf=True, norm="l1"),
    "case": CountVectorizer(stop_words=["ok"], binary=True, lowercase=False),
    "single letters": TfidfVectorizer(token_pattern=r"(?u)\b\w+\b"),
    "own pattern": TfidfVectorizer(token_pattern=r"[\w']+", use_idf=False, norm=None),
    "hashed": HashingVectorizer(n_features=64),
    "hashed otherwise": HashingVectorizer(
        n_features=512, norm="l1", binary=True, stop_words="english", alternate_sign=False
    ),
}


@pytest.mark.parametrize("kind", VECTORIZERS)
def test_texts(kind: str) -> None:
    """Every text, an empty one too, gives the original's numbers."""
    texts = _texts()
    model = VECTORIZERS[kind].fit(texts.text[:150])
    expected, found = both_answers(model, texts, "fp32")
    np.testing.assert_allclose(found["value"], expected["value"], atol=1e-6)
    assert expected["value"].any()


def test_nothing_but_empty_texts() -> None:
    """Rows without any word give zeros."""
    texts = _texts()
    model = VECTORIZERS["n-grams"].fit(texts.text)
    _, found = both_answers(model, pd.DataFrame({"text": ["", "  "]}, dtype=object), "fp32")
    assert not found["value"].any()


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (HashingVectorizer(), r"at most 65536 do \(n_features=2\*\*16\)"),
        (HashingVectorizer(n_features=16, ngram_range=(1, 2)), r"use \(1, 1\)"),
        (CountVectorizer(analyzer="char"), "only 'word' has"),
        (CountVectorizer(strip_accents="unicode"), "strip_accents='unicode'"),
        (CountVectorizer(tokenizer=str.split), "tokenizer=a function"),
        (CountVectorizer(token_pattern=r"(\w+)\s"), "use one without groups"),
    ],
)
def test_refused(model: Any, reason: str) -> None:
    """What has no ONNX form is refused in one line that tells what does."""
    texts = _texts()
    model.fit(texts.text)
    with pytest.raises(UnsupportedModelError, match=reason):
        both_answers(model, texts, "fp32")
