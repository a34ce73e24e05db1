"""Writes the bundle beside its place, tries every variant as a device would, and moves it in."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from edgepack.bundle import (
    Bundle,
    Contract,
    Part,
    bundle_filename,
    media_types,
    open_bundle,
    sign_bundle,
    write_bundle,
)
from edgepack.converter.errors import OutputError, ToleranceError
from edgepack.runtime import load
from edgepack.runtime.golden import parse_golden
from edgepack.runtime.selftest import run_selftest
from edgepack.trust import PrivateKey

_HIDDEN = ".edgepack-"


def pack(
    folder: Path,
    contract: Contract,
    parts: Sequence[Part],
    *,
    key: PrivateKey,
    sequence: int,
) -> Bundle:
    """Write, test and sign a bundle; it appears at its place whole or not at all.

    Returns:
        The bundle, opened at its place.

    Raises:
        BundleError: The disk refused, or contract and parts do not make a bundle.
        ToleranceError: A variant fails the self-test that devices make.
        OutputError: The output folder cannot be written.
    """
    path = folder / bundle_filename(contract)
    with _staging(folder) as stage:
        staged = stage / path.name
        write_bundle(staged, contract, parts)
        _self_test(open_bundle(staged))
        sign_bundle(staged, key, sequence=sequence)
        try:
            staged.replace(path)
            _sync(folder)
        except OSError as exc:
            raise OutputError(f"cannot write {path}: {exc.strerror}") from exc
    return open_bundle(path)


def model_part(path: str, data: bytes) -> Part:
    """A model file."""
    return Part(path=path, media_type=media_types.WEIGHTS, data=data)


def data_part(path: str, data: bytes) -> Part:
    """Golden samples or reference statistics."""
    return Part(path=path, media_type=media_types.DATASET, data=data)


def document_part(path: str, data: bytes) -> Part:
    """A model card, licence or provenance."""
    return Part(path=path, media_type=media_types.DOC, data=data)


def _self_test(bundle: Bundle) -> None:
    golden = parse_golden(bundle.read(bundle.contract.golden), bundle.contract)
    for variant in bundle.contract.variants:
        with load(bundle, variant=variant.name) as model:
            result = run_selftest(model, golden)
        if not result.passed:
            raise ToleranceError(f"{variant.name} fails the device's self-test: {result.reason}")


@contextmanager
def _staging(folder: Path) -> Iterator[Path]:
    """A hidden folder beside the bundle; it goes, and so does a new output folder left empty."""
    made = [item for item in (folder, *folder.parents) if not item.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        stage = Path(tempfile.mkdtemp(prefix=_HIDDEN, dir=folder))
    except OSError as exc:
        raise OutputError(f"output folder {folder} cannot be written: {exc.strerror}") from exc
    try:
        yield stage
    finally:
        shutil.rmtree(stage, ignore_errors=True)
        for item in made:
            with contextlib.suppress(OSError):  # not empty: it holds the bundle
                item.rmdir()


def _sync(folder: Path) -> None:
    if os.name != "posix":
        return  # other systems cannot open a folder
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
