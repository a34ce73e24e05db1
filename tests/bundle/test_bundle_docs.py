"""docs/bundle-format.md says what the code does."""

import inspect
import re
from pathlib import Path

import pytest

from edgepack.bundle import errors, limits, manifest, media_types, part_path, statement
from edgepack.bundle.documents import MAX_DEPTH
from edgepack.bundle.foreign_tar import MAX_FOREIGN_MEMBERS
from edgepack.trust.dsse import MAX_ENVELOPE_BYTES
from edgepack.trust.payload_types import ROOT_PAYLOAD_TYPE, STATEMENT_PAYLOAD_TYPE

TEXT = (Path(__file__).parents[2] / "docs" / "bundle-format.md").read_text()


def test_every_refusal_is_documented_with_its_reason_and_exit_code():
    """Each class that is ever raised stands in the table, and nothing else does."""
    classes = {
        (name, cls.reason, cls.exit_code)
        for name, cls in inspect.getmembers(errors, inspect.isclass)
        if issubclass(cls, errors.BundleError)
        and cls not in (errors.BundleError, errors.UntrustedBundleError)
    }

    rows = re.findall(r"\| `(\w+)` \| `(\w+)` \| (\d) \|", TEXT)

    assert classes == {(name, reason, int(code)) for name, reason, code in rows}


def test_every_reason_is_one_of_its_own():
    """A machine can tell the classes apart, and the module's tree shows them all."""
    classes = [
        cls
        for _, cls in inspect.getmembers(errors, inspect.isclass)
        if issubclass(cls, errors.BundleError)
    ]

    assert len(classes) == len({cls.reason for cls in classes})
    for cls in classes:
        assert cls.__name__ in errors.__doc__


@pytest.mark.parametrize(
    "row",
    [
        f"| the file | {limits.MAX_BUNDLE_BYTES} bytes |",
        f"| a blob | {limits.MAX_BLOB_BYTES} bytes |",
        f"| `oci-layout`, `index.json` | {limits.MAX_INDEX_BYTES} bytes each |",
        f"| a manifest, the model config | {limits.MAX_MANIFEST_BYTES} bytes each |",
        f"| a manifest, the model config | {limits.MAX_CONFIG_BYTES} bytes each |",
        f"| `contract.json` | {limits.MAX_CONTRACT_BYTES} bytes |",
        f"| an envelope | {MAX_ENVELOPE_BYTES} bytes |",
        f"| nesting of arrays and objects in a document | {MAX_DEPTH} deep |",
        f"| files (layers) | {limits.MAX_LAYERS} |",
        f"| signatures | {limits.MAX_SIGNATURES} |",
        f"| members of the archive | {limits.MAX_MEMBERS} |",
        f"| a path | {part_path.MAX_PATH_LENGTH} characters, {part_path.MAX_SEGMENTS} parts",
        f"more than {MAX_FOREIGN_MEMBERS} members",
    ],
)
def test_every_limit_is_documented(row):
    """The figures of the page are the figures of the code."""
    assert row in TEXT


def test_every_type_is_documented():
    """Media types, payload types and predicate stand on the page."""
    names = [
        *media_types.MODEL_LAYERS,
        media_types.MODEL_ARTIFACT,
        media_types.MODEL_CONFIG,
        media_types.CONTRACT,
        media_types.SIGNATURE_ARTIFACT,
        media_types.ENVELOPE,
        media_types.FILEPATH_ANNOTATION,
        statement.STATEMENT_TYPE,
        statement.PREDICATE_TYPE,
        STATEMENT_PAYLOAD_TYPE,
        ROOT_PAYLOAD_TYPE,
        manifest.CONTRACT_PATH,
    ]

    assert [] == [name for name in names if name not in TEXT]
