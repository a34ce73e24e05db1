"""Words of texts: counted, weighted, or hashed.

A text is cut by onnxruntime's Tokenizer. Each word that the vocabulary knows becomes a number;
n-grams are counted over those. What a text has besides counts as 0, which no n-gram holds.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from edgepack.converter.errors import UnsupportedModelError
from edgepack.converter.sklearn_model.converters.methods import writes
from edgepack.converter.sklearn_model.converters.writer import ML, Value, Writer

MOST_HASHED = 1 << 16
_PAD = "\x00"
_MICROSOFT = "com.microsoft"
_LETTER = r"\p{L}\p{N}_"  # RE2's own \w knows only ASCII
_UNKNOWN, _STOPPED = 0, -1


@writes("transform", "CountVectorizer")
def counts(writer: Writer, model: Any, x: Value) -> Value:  # noqa: ANN401
    """How often each n-gram of the vocabulary occurs."""
    return _counts(writer, model, x).floats()


@writes("transform", "TfidfVectorizer")
def weighted(writer: Writer, model: Any, x: Value) -> Value:  # noqa: ANN401
    """Counts, by how rare each n-gram is."""
    found = _counts(writer, model, x).floats()
    inner = model._tfidf
    if inner.sublinear_tf:
        found = writer.where(found > 0.0, found.at_least(1.0).log() + 1.0, found)
    if inner.use_idf:
        found = found * writer.const(np.asarray(inner.idf_, dtype=np.float64).reshape(1, -1))
    return _normal(writer, found, inner.norm)


@writes("transform", "HashingVectorizer")
def hashed(writer: Writer, model: Any, x: Value) -> Value:  # noqa: ANN401
    """Signs of words, added up at the places that MurmurHash3 gives them."""
    size = int(model.n_features)
    if size > MOST_HASHED:
        raise UnsupportedModelError(
            f"HashingVectorizer(n_features={size}) would take {size * 4 // 1024} KB for each text: "
            f"at most {MOST_HASHED} do (n_features=2**16)"
        )
    if tuple(model.ngram_range) != (1, 1):
        raise UnsupportedModelError(
            f"HashingVectorizer(ngram_range={tuple(model.ngram_range)}) has no ONNX form here: "
            "use (1, 1), or TfidfVectorizer"
        )
    words = _words(writer, model, x, locale="C.UTF-8")
    ignored = [_PAD, *sorted(model.get_stop_words() or ())]
    counted = _numbers(writer, words, dict.fromkeys(ignored, 0), default=1).floats()
    code = writer.op("MurmurHash3", words, dtype=np.int64, domain=_MICROSOFT, positive=0, seed=0)
    code = writer.op("Cast", code, to=7, dtype=np.int64)
    place = writer.op("Mod", code.unary("Abs"), writer.const(np.array(size)))
    sign = writer.where(code < 0, writer.const(np.array(-1.0)), 1.0)
    rows = writer.op("Shape", words, dtype=np.int64).take(np.array([0]))
    shape = writer.concat([rows, writer.const(np.array([size]))], axis=0)
    zeros = writer.op("Expand", writer.const(np.zeros((1, 1))), shape)

    def added(values: Value) -> Value:
        return writer.op("ScatterElements", zeros, place, values, axis=1, reduction="add")

    if model.binary:
        found = (added(counted) > 0.0).floats()
    else:
        found = added(counted * sign if model.alternate_sign else counted)
    return _normal(writer, found, model.norm)


def _normal(writer: Writer, x: Value, norm: str | None) -> Value:
    if norm is None:
        return x
    size = x.unary("Abs").sum(keep=True) if norm == "l1" else (x * x).sum(keep=True).sqrt()
    return x / writer.where(size > 0.0, size, 1.0)


def _counts(writer: Writer, model: Any, x: Value) -> Value:  # noqa: ANN401
    """Counts of the vocabulary's n-grams, floats (N, V)."""
    grams = sorted(model.vocabulary_, key=model.vocabulary_.__getitem__)
    least, most = (int(item) for item in model.ngram_range)
    parts = [_split(gram, least, most) for gram in grams]
    locale = "C" if all(gram.isascii() for gram in grams) else "C.UTF-8"
    words = _words(writer, model, x, locale=locale)
    known = {word: 0 for part in parts for word in part}
    numbers = {word: number for number, word in enumerate(known, start=1)}
    stopped = {} if most == 1 else dict.fromkeys(model.get_stop_words() or (), _STOPPED)
    ids = _numbers(writer, words, {**numbers, **stopped, _PAD: _STOPPED}, default=_UNKNOWN)
    if stopped:
        ids = _closed_up(writer, ids)
    found = _ngram_counts(writer, ids, [[numbers[word] for word in part] for part in parts])
    return (found > 0.0).floats() if model.binary else found


def _split(gram: str, least: int, most: int) -> tuple[str, ...]:
    words = tuple(gram.split(" ")) if most > 1 else (gram,)
    if not least <= len(words) <= most or not all(words):
        raise UnsupportedModelError(
            f"the vocabulary's {gram[:40]!r} cannot be told into words: the token_pattern takes "
            "spaces"
        )
    return words


def _words(writer: Writer, model: Any, x: Value, *, locale: str) -> Value:  # noqa: ANN401
    """The words of each text, text (N, T), filled up.

    Raises:
        UnsupportedModelError: They are cut in a way that has no ONNX form here.
    """
    name = type(model).__name__
    if model.analyzer != "word":
        raise UnsupportedModelError(
            f"{name}(analyzer={_shown(model.analyzer)}) has no ONNX form here: only 'word' has"
        )
    for option in ("preprocessor", "tokenizer", "strip_accents"):
        if getattr(model, option) is not None:
            raise UnsupportedModelError(
                f"{name}({option}={_shown(getattr(model, option))}) has no ONNX form here"
            )
    x = x.reshape(-1)
    if model.lowercase:
        x = writer.op("StringNormalizer", x, case_change_action="LOWER", locale=locale)
    return writer.op(
        "Tokenizer",
        x,
        domain=_MICROSOFT,
        mark=0,
        mincharnum=1,
        pad_value=_PAD,
        tokenexp=_for_re2(model.token_pattern),
    )


def _shown(option: object) -> str:
    return "a function" if callable(option) else repr(option)


def _for_re2(pattern: str) -> str:
    r"""A pattern of Python's as RE2 takes it.

    A run of two or more letters needs no `\b` round it: runs are taken whole.
    """
    plain = pattern.removeprefix("(?u)")
    inner = plain.removeprefix(r"\b").removesuffix(r"\b")
    if inner in (r"\w\w+", r"\w{2,}"):
        return f"[{_LETTER}]{{2,}}"
    if inner == r"\w+":
        return f"[{_LETTER}]+"
    if "(" in plain.replace("(?:", "") or r"\b" in plain:
        raise UnsupportedModelError(
            f"the token_pattern {pattern[:60]!r} has no ONNX form here: use one without groups "
            r"and \b, as '\w+'"
        )
    begin, *rest = plain.split("[")
    parts = [begin.replace(r"\w", f"[{_LETTER}]")]
    for part in rest:
        inside, closed, outside = part.partition("]")
        parts.append(
            "[" + inside.replace(r"\w", _LETTER) + closed + outside.replace(r"\w", f"[{_LETTER}]")
        )
    return "".join(parts)


def _numbers(writer: Writer, words: Value, numbers: dict[str, int], *, default: int) -> Value:
    """A number for each word, int64 (N, T)."""
    return writer.op(
        "LabelEncoder",
        words,
        domain=ML,
        dtype=np.int64,
        keys_strings=list(numbers),
        values_int64s=list(numbers.values()),
        default_int64=default,
    )


def _closed_up(writer: Writer, ids: Value) -> Value:
    """The rows without stop words: scikit-learn makes n-grams of what is left."""
    count = writer.op("Shape", ids, dtype=np.int64).take(np.array([1]))
    last = count.take(np.array(0))
    order = writer.op("Range", writer.const(np.array(0)), last, writer.const(np.array(1)))
    late = ids.equals(_STOPPED).cast(np.int64) * count
    keys = (late + order.unsqueeze(0)) * -1
    places = writer.ops("TopK", keys, count, dtypes=(np.int64, np.int64), axis=1)[1]
    return writer.op("GatherElements", ids, places, axis=1)


def _ngram_counts(writer: Writer, ids: Value, grams: Sequence[Sequence[int]]) -> Value:
    """How often each n-gram occurs, float32 (N, V)."""
    most = max(len(gram) for gram in grams)
    pool: list[int] = []
    starts: list[int] = []
    places: list[int] = []
    for size in range(1, most + 1):
        starts.append(len(pool))
        for place, gram in enumerate(grams):
            if len(gram) == size:
                pool += gram
                places.append(place)
    padded = _never_empty(writer, ids)
    return writer.op(
        "TfIdfVectorizer",
        padded,
        dtype=np.float32,
        mode="TF",
        min_gram_length=min(len(gram) for gram in grams),
        max_gram_length=most,
        max_skip_count=0,
        ngram_counts=starts,
        ngram_indexes=places,
        pool_int64s=pool,
    )


def _never_empty(writer: Writer, ids: Value) -> Value:
    """One more column of no word: rows without any have one at least."""
    rows = writer.op("Shape", ids, dtype=np.int64).take(np.array([0]))
    shape = writer.concat([rows, writer.const(np.array([1]))], axis=0)
    return writer.concat([ids, writer.op("Expand", writer.const(np.array([[_UNKNOWN]])), shape)])
