"""Keys, bundles and an operator for the fleet's tests."""

from dataclasses import dataclass
from pathlib import Path

import pytest
from support.tiny_bundle import write_tiny_bundle

from edgepack.bundle import open_bundle
from edgepack.fleet import Operator, Signer, parse_broker_url
from edgepack.trust import GeneratedKeys, PrivateKey, keygen


@dataclass(frozen=True)
class Keys:
    """What keygen made, and the keys in it."""

    files: GeneratedKeys
    release: PrivateKey
    signer: Signer


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    files = keygen(tmp_path_factory.mktemp("keys") / "keys")
    signer = Signer(key=PrivateKey.load(files.deploy_key), root=files.root)
    return Keys(files, PrivateKey.load(files.release_key), signer)


@pytest.fixture(scope="session")
def bundles(keys: Keys, tmp_path_factory: pytest.TempPathFactory):
    """`bundles("tiny", "1.0.0")`: a signed bundle; versions differ in their weights."""
    folder = tmp_path_factory.mktemp("bundles")

    def make(name: str = "tiny", version: str = "1.0.0", key: PrivateKey | None = keys.release):
        path = folder / f"{name}-{version}.edgepack"
        if key is not keys.release or not path.exists():
            seed = sum(version.encode()) + len(name)
            place = folder if key is keys.release else Path(tmp_path_factory.mktemp("other"))
            path = write_tiny_bundle(
                place, name=name, version=version, seed=seed, key=key, sequence=100
            )
        return open_bundle(path)

    return make


@pytest.fixture
def operator(broker, prefix, keys: Keys) -> Operator:
    """Somebody who may deploy, and waits up to 10 s."""
    return Operator(
        broker=parse_broker_url(broker.url), signer=keys.signer, prefix=prefix, wait_s=10.0
    )
