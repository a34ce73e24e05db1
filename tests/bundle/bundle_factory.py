"""Small bundles made by code, whole and broken in one chosen place."""

import dataclasses
import json
from collections.abc import Callable, Iterable
from pathlib import Path

from edgepack.bundle import Part, digest_of, media_types, write_bundle
from edgepack.bundle.contract import (
    Contract,
    Datatype,
    EngineRequirements,
    Parity,
    Task,
    TensorBinding,
    TensorSpec,
    Variant,
)
from edgepack.bundle.contract_codec import render_contract
from edgepack.bundle.index import LAYOUT
from edgepack.bundle.tar_header import END, padding_bytes, render_header
from edgepack.trust import PrivateKey, Role, Root, sign_root

MODEL = b"the weights of a model"
GOLDEN = b"golden samples"
RELEASE_KEY = PrivateKey(bytes(range(32)))
OTHER_KEY = PrivateKey(bytes(range(1, 33)))
THIRD_KEY = PrivateKey(bytes(range(2, 34)))
STRANGER = PrivateKey(b"s" * 32)


def small_root(
    keys: Iterable[PrivateKey] = (RELEASE_KEY,),
    threshold: int = 1,
    models: tuple[str, ...] | None = None,
) -> Root:
    """A root whose release role has these keys."""
    keys = list(keys)
    role = Role(keys=(RELEASE_KEY.public.key_id,))
    release = Role(
        keys=tuple(key.public.key_id for key in keys), threshold=threshold, models=models
    )
    return Root.parse(
        sign_root(
            version=1,
            keys=[RELEASE_KEY.public, *(key.public for key in keys)],
            roles={"root": role, "deploy": role, "release": release},
            signers=[RELEASE_KEY],
        )
    )


def small_variant(**changes) -> Variant:
    """One fp32 variant of the small contract."""
    variant = Variant(
        name="onnx-fp32",
        files=("onnx-fp32/model.onnx",),
        precision="fp32",
        size_bytes=len(MODEL),
        engine=EngineRequirements(engine="onnxruntime", opsets={"": 17}),
        inputs=(TensorBinding(name="x", tensor="X", dtype=Datatype.FP32),),
        outputs=(TensorBinding(name="value", tensor="variable", dtype=Datatype.FP32),),
        parity=Parity(rows=10, metric="r2", value=1.0, bound=0.99, figures={"r2_original": 0.9}),
    )
    return dataclasses.replace(variant, **changes)


def small_contract(**changes) -> Contract:
    """A regressor of four features."""
    contract = Contract(
        name="pump",
        version="1.2.3",
        task=Task.REGRESSION,
        inputs=(TensorSpec(name="x", datatype=Datatype.FP32, shape=(-1, 4), unit="K"),),
        outputs=(TensorSpec(name="value", datatype=Datatype.FP32, shape=(-1,)),),
        variants=(small_variant(),),
        golden="golden.safetensors",
    )
    return dataclasses.replace(contract, **changes)


def small_parts() -> list[Part]:
    """The files that go with `small_contract`."""
    return [
        Part(path="onnx-fp32/model.onnx", media_type=media_types.WEIGHTS, data=MODEL),
        Part(path="golden.safetensors", media_type=media_types.DATASET, data=GOLDEN),
        Part(path="README.md", media_type=media_types.DOC, data=b"# Pump\n"),
    ]


def write_small(path: Path, **changes) -> Path:
    """Write the small bundle, unsigned."""
    write_bundle(path, small_contract(**changes), small_parts())
    return path


def member(name: str, data: bytes) -> bytes:
    """A canonical tar member."""
    return render_header(name, len(data)) + data + bytes(padding_bytes(len(data)))


def special_member(name: str, kind: bytes, link: str = "") -> bytes:
    """A tar member of another type (b"1" a hard link, b"2" a symbolic one), without content."""
    header = bytearray(render_header(name, 0))
    header[156:157] = kind
    header[157 : 157 + len(link)] = link.encode()
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header)


def blob_member(data: bytes, name: str | None = None) -> bytes:
    """A blob as a tar member, under its digest or another name."""
    return member(name or f"blobs/sha256/{digest_of(data)[7:]}", data)


def archive(members: Iterable[bytes], end: bytes = END) -> bytes:
    """Join members to an archive."""
    return b"".join(members) + end


def dump(document: object) -> bytes:
    """JSON, the way bundles are written."""
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


def descriptor(data: bytes, media_type: str, **more: object) -> dict:
    """An OCI descriptor of some bytes."""
    return {"mediaType": media_type, "digest": digest_of(data), "size": len(data), **more}


def _same(document: dict) -> None:
    pass


class Crafted:
    """A bundle's documents, each of which may be edited before those that name it are made.

    Edits are functions that change a parsed document in place, or return bytes to take instead.
    """

    def __init__(
        self,
        *,
        contract: Contract | bytes | None = None,
        edit_contract: Callable = _same,
        edit_config: Callable = _same,
        edit_manifest: Callable = _same,
        edit_index: Callable = _same,
        envelopes: Iterable[bytes] = (),
        edit_signature: Callable = _same,
        layout: bytes = LAYOUT,
    ) -> None:
        if not isinstance(contract, bytes):
            contract = render_contract(contract or small_contract())
        self.layout = layout
        self.contract = _edited(json.loads(contract), edit_contract)
        files = {
            "contract.json": (media_types.CONTRACT, self.contract),
            "README.md": (media_types.DOC, b"# Pump\n"),
            "golden.safetensors": (media_types.DATASET, GOLDEN),
            "onnx-fp32/model.onnx": (media_types.WEIGHTS, MODEL),
        }
        layers = [
            descriptor(data, kind, annotations={media_types.FILEPATH_ANNOTATION: path})
            for path, (kind, data) in files.items()
        ]
        self.config = _edited(
            {
                "descriptor": {"name": "pump", "version": "1.2.3"},
                "config": {"format": "onnx", "precision": "fp32"},
                "modelfs": {"type": "layers", "diffIds": [layer["digest"] for layer in layers]},
            },
            edit_config,
        )
        self.manifest = _edited(
            {
                "schemaVersion": 2,
                "mediaType": media_types.MANIFEST,
                "artifactType": media_types.MODEL_ARTIFACT,
                "config": descriptor(self.config, media_types.MODEL_CONFIG),
                "layers": layers,
            },
            edit_manifest,
        )
        self.blobs = [self.config, self.manifest, *(data for _, data in files.values())]
        self.signatures = [self._sign(envelope, edit_signature) for envelope in envelopes]
        self.index = _edited(self._index(), edit_index)

    def _sign(self, envelope: bytes, edit: Callable) -> bytes:
        document = {
            "schemaVersion": 2,
            "mediaType": media_types.MANIFEST,
            "artifactType": media_types.SIGNATURE_ARTIFACT,
            "config": descriptor(b"{}", media_types.EMPTY),
            "layers": [descriptor(envelope, media_types.ENVELOPE)],
            "subject": descriptor(self.manifest, media_types.MANIFEST),
        }
        signature = _edited(document, edit)
        self.blobs += [envelope, signature, b"{}"]
        return signature

    def _index(self) -> dict:
        model = descriptor(
            self.manifest,
            media_types.MANIFEST,
            artifactType=media_types.MODEL_ARTIFACT,
            annotations={media_types.REF_NAME_ANNOTATION: "1.2.3"},
        )
        signatures = [
            descriptor(signature, media_types.MANIFEST, artifactType=media_types.SIGNATURE_ARTIFACT)
            for signature in self.signatures
        ]
        return {
            "schemaVersion": 2,
            "mediaType": media_types.INDEX,
            "manifests": [model, *sorted(signatures, key=lambda item: item["digest"])],
        }

    def members(self) -> list[bytes]:
        """The members in their order: oci-layout, index.json, then the blobs."""
        blobs = sorted(blob_member(blob) for blob in set(self.blobs))
        return [member("oci-layout", self.layout), member("index.json", self.index), *blobs]

    def write(self, path: Path) -> Path:
        """Write the archive."""
        path.write_bytes(archive(self.members()))
        return path


def _edited(document: dict, edit: Callable) -> bytes:
    replaced = edit(document)
    return replaced if isinstance(replaced, bytes) else dump(document)
