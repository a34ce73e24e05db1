"""Roots of trust for tests: keys by role, and the next version of a root."""

from dataclasses import dataclass, field
from pathlib import Path

from edgepack.trust import DEPLOY, RELEASE, ROOT, GeneratedKeys, PrivateKey, Role, Root, sign_root


@dataclass
class Authority:
    """Everybody's keys; `rotate` makes the next root.json, signed by the old and the new role."""

    keys: dict[str, PrivateKey]
    versions: list[bytes] = field(default_factory=list)

    @classmethod
    def of(cls, generated: GeneratedKeys) -> "Authority":
        paths = {
            ROOT: generated.root_key,
            RELEASE: generated.release_key,
            DEPLOY: generated.deploy_key,
        }
        keys = {role: PrivateKey.load(path) for role, path in paths.items()}
        return cls(keys, [generated.root_json.read_bytes()])

    @property
    def root(self) -> Root:
        return Root.parse(self.versions[-1])

    def rotate(self, *roles: str) -> bytes:
        """Give these roles new keys; the next root.json."""
        old_root = self.keys[ROOT]
        self.keys |= {role: PrivateKey.generate() for role in roles}
        data = sign_root(
            version=len(self.versions) + 1,
            keys=[key.public for key in self.keys.values()],
            roles={role: Role(keys=(key.public.key_id,)) for role, key in self.keys.items()},
            signers=[old_root, self.keys[ROOT]],
        )
        self.versions.append(data)
        return data

    def save(self, role: str, folder: Path) -> Path:
        """The private key of a role as a file."""
        path = folder / f"{role}-{self.keys[role].public.key_id[:8]}.key"
        if not path.exists():
            self.keys[role].save(path)
        return path
