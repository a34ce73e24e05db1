import json
from html.parser import HTMLParser

import joblib
import numpy as np
import pytest
from sklearn.datasets import load_diabetes, load_digits
from sklearn.linear_model import Ridge
from sklearn.neural_network import MLPClassifier

from edgepack.bench import BenchError
from edgepack.bench.page import charts, render_page
from edgepack.bundle import Part, media_types, open_bundle, write_bundle
from edgepack.cli.main import main
from edgepack.converter import ConvertRequest, convert


class Seen(HTMLParser):
    """What a page holds: its tags, its text, and every address in it."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text: list[str] = []
        self.addresses: list[str] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        if tag not in ("meta", "br"):
            self.open.append(tag)
        self.addresses += [
            value or "" for name, value in attrs if name in ("src", "href", "xlink:href")
        ]

    def handle_startendtag(self, tag, attrs):
        self.tags.add(tag)
        self.addresses += [
            value or "" for name, value in attrs if name in ("src", "href", "xlink:href")
        ]

    def handle_endtag(self, tag):
        assert tag == self.open.pop()

    def handle_data(self, data):
        self.text.append(data)


@pytest.fixture(scope="module")
def bundle_path(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    x, y = load_digits(return_X_y=True)
    joblib.dump(MLPClassifier((48,), max_iter=30, random_state=0).fit(x, y), folder / "net.joblib")
    np.savez(folder / "rows.npz", X=x[:900], y=y[:900])
    request = ConvertRequest(
        model=folder / "net.joblib",
        data=folder / "rows.npz",
        output=folder,
        formats=("onnx",),
        keys=None,
    )
    return convert(request).path


def test_the_page_shows_all_evidence_and_opens_offline(bundle_path, tmp_path):
    """One file, with every section, no address outside, no script, and this machine's latency."""
    page = tmp_path / "report.html"
    assert 0 == main(["report", str(bundle_path), "-o", str(page)])
    seen = Seen()
    seen.feed(page.read_text())
    text = " ".join(seen.text)
    for section in (
        "Size against quality",
        "Recall of each class",
        "Confusion",
        "Differences from the original",
        "Robustness",
        "Importance of the columns",
        "Latency on this machine",
        "Where it came from",
    ):
        assert section in text
    assert [] == seen.open
    assert "svg" in seen.tags
    assert not {"script", "link", "img", "iframe"} & seen.tags
    assert [] == [address for address in seen.addresses if not address.startswith("#")]


def test_the_figures_of_the_page_are_the_evidence(bundle_path):
    """The accuracy on the page is what the original's answers on the held-out rows give."""
    bundle = open_bundle(bundle_path)
    evidence = json.loads(bundle.read("evidence.json"))
    confusion = evidence["original"]["confusion"]
    right = sum(confusion["counts"][i][i] for i in range(len(confusion["truth"])))
    assert right / evidence["rows"] == pytest.approx(evidence["original"]["accuracy"]["value"])
    page = render_page(bundle)
    assert sorted(map(int, evidence["original"]["recall"])) == list(
        map(int, evidence["original"]["confusion"]["truth"])
    )
    for name, recall in evidence["original"]["recall"].items():
        assert f"<td>{name}</td>" in page
        assert f"{recall['value']:.3f} [{recall['interval'][0]:.3f}" in page
    assert "Latency on this machine" not in page


def changed(bundle_path, tmp_path, evidence: bytes | None):
    bundle = open_bundle(bundle_path)
    contract = bundle.contract
    paths = [path for variant in contract.variants for path in variant.files]
    parts = [Part(path=p, media_type=media_types.WEIGHTS, data=bundle.read(p)) for p in paths]
    parts += [
        Part(path=path, media_type=media_types.DATASET, data=bundle.read(path))
        for path in (contract.golden, contract.reference)
    ]
    if evidence is not None:
        parts.append(Part(path="evidence.json", media_type=media_types.DOC, data=evidence))
    target = tmp_path / "changed.edgepack"
    write_bundle(target, contract, parts)
    return target


def test_what_a_bundle_says_is_text(bundle_path, tmp_path):
    """A bundle of somebody else cannot put markup into the page."""
    evidence = json.loads(open_bundle(bundle_path).read("evidence.json"))
    evidence["candidates"][0]["reason"] = "<script>alert(1)</script>"
    evidence["importance"][0]["feature"] = "<img src=x>"
    evidence["importance"][0]["loss"] = 5.0
    target = changed(bundle_path, tmp_path, json.dumps(evidence).encode())
    page = render_page(open_bundle(target))
    assert "<script" not in page
    assert "<img" not in page
    assert "&lt;script&gt;" in page


@pytest.mark.parametrize(
    ("evidence", "line"),
    [
        (None, "has no evidence.json"),
        (b"{", "evidence.json cannot be read"),
        (b'{"rows": "many"}', "evidence.json cannot be read"),
    ],
)
def test_a_bundle_without_evidence_says_so(evidence, line, bundle_path, tmp_path):
    """One line instead of half a page."""
    with pytest.raises(BenchError, match=line):
        render_page(open_bundle(changed(bundle_path, tmp_path, evidence)))


def test_the_page_of_a_regressor_shows_its_errors(tmp_path):
    """Quality is R² to the truth, the errors stand in a table, and nothing is a Python value."""
    x, y = load_diabetes(return_X_y=True)
    joblib.dump(Ridge().fit(x, y), tmp_path / "ridge.joblib")
    np.savez(tmp_path / "rows.npz", X=x, y=y)
    request = ConvertRequest(
        model=tmp_path / "ridge.joblib",
        data=tmp_path / "rows.npz",
        output=tmp_path,
        formats=("onnx",),
        keys=None,
    )
    page = render_page(open_bundle(convert(request).path))
    assert "R² to the truth" in page
    assert "Errors against the truth" in page
    assert ">None<" not in page


def test_names_that_would_lie_on_each_other_stand_together():
    """Of candidates in one place every name can be read once, those far off apart."""
    sizes = {"a": 1000, "b": 1010, "c": 1020, "d": 4000}
    dots = [
        charts.Dot(name=name, size_bytes=size, value=0.9, low=0.9, high=0.9, kept=True)
        for name, size in sizes.items()
    ]
    assert [["a", "b", "c"], ["d"]] == [
        [dot.name for dot in group] for group in charts.neighbours(dots)
    ]
    assert [] == charts.neighbours([])
