"""`edgepack inspect`, `verify`, `sign`, `extract` and `import`."""

import argparse
from collections.abc import Mapping
from pathlib import Path

from edgepack.bundle import (
    Bundle,
    bundle_filename,
    extract_bundle,
    import_layout,
    open_bundle,
    sign_bundle,
    signing_sequence,
    verify_bundle,
)
from edgepack.bundle.contract import TensorSpec, Variant
from edgepack.cli.config import add_keys_argument, add_root_argument, settings
from edgepack.cli.console import count, plain, print_json, print_table, say, size
from edgepack.cli.errors import UsageError
from edgepack.cli.parity_text import figures, verdict
from edgepack.trust import RELEASE, PrivateKey, Root
from edgepack.trust.generate import key_path


def add_inspect(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of inspect."""
    _add_bundle(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run_inspect(args: argparse.Namespace) -> int:
    """Show what a bundle holds; the signature is NOT verified."""
    bundle = open_bundle(args.bundle)
    if args.json:
        print_json(_facts(bundle))
        return 0
    contract = bundle.contract
    say(f"{contract.name} {contract.version}: {contract.task.value}, format {contract.format}")
    say(f"digest   {bundle.digest}")
    signatures = count(len(bundle.signatures), "signature")
    say(f"size     {size(bundle.size_bytes)}, {signatures} (not verified)")
    for spec in contract.inputs:
        say(f"input    {_spec(spec)}")
    for step in contract.pre:
        say(f"step     {_step(step)}")
    for spec in contract.outputs:
        say(f"output   {_spec(spec)}")
    if contract.class_names:
        say(f"classes  {', '.join(contract.class_names)}")
    print()
    head = ("VARIANT", "PRECISION", "SIZE", "ENGINE", "PARITY")
    print_table(head, [_variant(variant) for variant in contract.variants])
    print()
    files = [(layer.path, size(layer.blob.size_bytes)) for layer in bundle.manifest.layers]
    print_table(("FILE", "SIZE"), files)
    return 0


def add_verify(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of verify."""
    _add_bundle(parser)
    add_root_argument(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run_verify(args: argparse.Namespace) -> int:
    """Check that the root's release role has signed a bundle."""
    root = Root.load(settings(args).root)
    statement = verify_bundle(open_bundle(args.bundle), root)
    if args.json:
        print_json(statement)
    else:
        say(
            f"{statement.name} {statement.version} is signed as root version {root.version} "
            f"demands (sequence {statement.sequence})"
        )
        say(statement.digest)
    return 0


def add_sign(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of sign."""
    _add_bundle(parser)
    add_keys_argument(parser)
    parser.add_argument(
        "--sequence",
        type=int,
        metavar="SECONDS",
        help="signing time in seconds since 1970; keys that reach a threshold together use the "
        "same (default: $SOURCE_DATE_EPOCH, now)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run_sign(args: argparse.Namespace) -> int:
    """Add a signature to a bundle; its digest stays."""
    try:
        sequence = signing_sequence() if args.sequence is None else args.sequence
        key = PrivateKey.load(key_path(settings(args).keys, RELEASE))
        sign_bundle(args.bundle, key, sequence=sequence)
    except ValueError as exc:
        raise UsageError(str(exc)) from exc
    bundle = open_bundle(args.bundle)
    if args.json:
        number = len(bundle.signatures)
        print_json({"digest": bundle.digest, "sequence": sequence, "signatures": number})
    else:
        signatures = count(len(bundle.signatures), "signature")
        say(f"{args.bundle}: {signatures}, sequence {sequence}")
    return 0


def add_extract(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of extract."""
    _add_bundle(parser)
    parser.add_argument("folder", type=Path, metavar="DIR", help="must not exist or be empty")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run_extract(args: argparse.Namespace) -> int:
    """Write a bundle's files as ordinary files."""
    files = extract_bundle(open_bundle(args.bundle), args.folder)
    if args.json:
        print_json({"files": files})
    else:
        for path in files:
            say(str(path))
    return 0


def add_import(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of import."""
    parser.add_argument(
        "layout", type=Path, metavar="LAYOUT", help="OCI layout: a folder, or a tar of one"
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="FILE",
        help="the bundle to write; must not exist (default: NAME-VERSION.edgepack here)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run_import(args: argparse.Namespace) -> int:
    """Make a bundle of an OCI layout that another tool has written."""
    bundle, path = _imported(args.layout, args.output)
    if args.json:
        print_json({"path": path, "digest": bundle.digest, "signatures": len(bundle.signatures)})
    else:
        say(f"{path}: {bundle.contract.name} {bundle.contract.version}, {bundle.digest}")
    return 0


def _imported(layout: Path, output: Path | None) -> tuple[Bundle, Path]:
    if output is not None:
        _check_free(output)
        return import_layout(layout, output), output
    # The name is known only when the layout has been read.
    here = Path(f".import-{layout.resolve().name}.edgepack")
    try:
        bundle = import_layout(layout, here)
        path = Path(bundle_filename(bundle.contract))
        _check_free(path)
        here.rename(path)
    finally:
        here.unlink(missing_ok=True)
    return open_bundle(path), path


def _check_free(path: Path) -> None:
    if path.exists():
        raise UsageError(f"{path} is there already", hint="name another file with -o")


def _add_bundle(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="NAME-VERSION.edgepack")


def _facts(bundle: Bundle) -> dict[str, object]:
    return {
        "digest": bundle.digest,
        "size_bytes": bundle.size_bytes,
        "signatures": [ref.manifest.digest for ref in bundle.signatures],
        "files": {layer.path: layer.blob.size_bytes for layer in bundle.manifest.layers},
        "contract": plain(bundle.contract),
    }


def _step(step: Mapping[str, object]) -> str:
    told = {key: value for key, value in step.items() if key not in ("step", "input")}
    parameters = ", ".join(f"{key} {value}" for key, value in told.items())
    return f"{step.get('input')}: {step.get('step')} {parameters}"


def _spec(spec: TensorSpec) -> str:
    names = ", ".join(spec.feature_names[:6]) + (", …" if len(spec.feature_names) > 6 else "")
    shown = f": {names}" if names else ""
    return f"{spec.name} {spec.datatype.value} {list(spec.shape)}{shown}"


def _variant(variant: Variant) -> tuple[str, ...]:
    parity = variant.parity
    return (
        variant.name,
        variant.precision,
        size(variant.size_bytes),
        variant.engine.engine,
        f"{verdict(parity)} on {parity.rows} rows; {figures(parity)}",
    )
