"""The root of trust, and the desired state that it vouches for."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from edgepack.agent.doctor.finding import Finding, fail, ok, warn
from edgepack.agent.doctor.patient import Patient
from edgepack.agent.install.roots import ROOTS_FOLDER
from edgepack.trust.errors import EdgepackError

_SOON_S = 7 * 24 * 3600


def check_trust(patient: Patient) -> Iterator[Finding]:
    """root.json, what followed it, and what the running agent follows."""
    from edgepack.trust import DEPLOY, RELEASE, Root
    from edgepack.trust.root_chain import follow_chain

    config = patient.config
    try:
        anchor = Root.load(config.root)
    except EdgepackError as exc:
        yield fail(
            "trust",
            str(exc),
            "copy root.json from the workstation: `edgepack root show` says where it is",
        )
        return
    root = follow_chain(anchor, config.state_dir / ROOTS_FOLDER)
    roles = ", ".join(
        f"{role} {root.roles[role].threshold} of {len(root.roles[role].keys)}"
        for role in (RELEASE, DEPLOY)
    )
    yield ok("trust", f"root.json version {root.version} ({roles})")
    for path in _newer(config.state_dir / ROOTS_FOLDER, root.version):
        yield warn(
            "trust",
            f"{path.name} is kept, but does not follow from {config.root}",
            "agent.toml names another root than the one that was followed: compare "
            "`edgepack root show`",
        )
    followed = (patient.answer or {}).get("root_version", root.version)
    if followed not in (0, root.version):
        yield warn(
            "trust",
            f"the running agent follows version {followed}, on disk is {root.version}",
            "restart the agent",
        )


def check_desired(patient: Patient) -> Iterator[Finding]:
    """The desired state: refused, expired, or about to."""
    refused = (patient.answer or {}).get("refused", "")
    if refused:
        yield fail(
            "desired", f"refused: {refused}", "deploy again, with keys that root.json trusts"
        )
    desired, now_s = patient.memory.desired, patient.clock.expiry_now_s
    if desired is None:
        yield ok("desired", "none accepted yet")
        return
    day = f"{datetime.fromtimestamp(desired.expires_s, UTC):%Y-%m-%d}"
    names = ", ".join(f"{model.name} {model.version}" for model in desired.models) or "no model"
    text = f"generation {desired.generation} until {day}: {names}"
    if now_s is not None and now_s > desired.expires_s:
        yield warn(
            "desired",
            f"{text}; expired, so that no install begins any more (what serves goes on)",
            "deploy again: `edgepack deploy`",
        )
    elif now_s is not None and now_s > desired.expires_s - _SOON_S:
        yield warn("desired", f"{text}; expires soon", "deploy again: `edgepack deploy`")
    else:
        yield ok("desired", text)


def _newer(folder: Path, version: int) -> list[Path]:
    return [path for path in folder.glob("root.*.json") if path.name == f"root.{version + 1}.json"]
