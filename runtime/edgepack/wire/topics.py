"""Every MQTT topic of edgepack, in one place.

A device writes only under its `out/`; operators and applications write only under `in/`. This
module builds and takes apart names; it does NOT connect to anything.
"""

import re

from edgepack.trust.values import dataclass
from edgepack.wire.errors import WireError

DEFAULT_PREFIX = "edgepack/v1"
MAX_CONTROL_BYTES = 8 * 1024
MAX_REQUEST_BYTES = 128 * 1024
MAX_REPORT_BYTES = 64 * 1024
CHUNK_BYTES = 64 * 1024
ONLINE = b"online"
OFFLINE = b"offline"

_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_PREFIX = re.compile(r"[A-Za-z0-9_.-]{1,64}(/[A-Za-z0-9_.-]{1,64}){0,3}")  # 3 + 4 slashes = 7
_RESERVED_DEVICES = frozenset({"blob"})


def check_id(value: str, *, what: str) -> str:
    """Return an id that is safe in a topic and in a path.

    Raises:
        WireError: It does not match `[A-Za-z0-9_-]{1,64}`, or is reserved.
    """
    if not _ID.fullmatch(value):
        raise WireError(f"{what} must match [A-Za-z0-9_-]{{1,64}}, got {value[:80]!r}")
    if what == "device id" and value in _RESERVED_DEVICES:
        raise WireError(f"device id {value!r} is reserved for the topics of blobs")
    return value


def check_prefix(value: str) -> str:
    """Return a topic prefix of one to four levels.

    Raises:
        WireError: It has wildcards, empty levels, or too many levels.
    """
    if not _PREFIX.fullmatch(value):
        raise WireError(
            f"prefix must be 1 to 4 levels of [A-Za-z0-9_.-]{{1,64}}, got {value[:80]!r}"
        )
    return value


@dataclass(frozen=True, slots=True)
class DeviceTopics:
    """The topics of one device.

    Attributes:
        prefix: For example "edgepack/v1".
        device: The device's id.
    """

    prefix: str
    device: str

    def __post_init__(self) -> None:
        check_prefix(self.prefix)
        check_id(self.device, what="device id")

    @property
    def base(self) -> str:
        """What all topics of this device begin with, without the last slash."""
        return f"{self.prefix}/{self.device}"

    @property
    def desired(self) -> str:
        """The signed desired state, retained."""
        return f"{self.base}/in/desired"

    def infer(self, model: str) -> str:
        """Requests for one model ("+" for all)."""
        return f"{self.base}/in/infer/{model}"

    def truth(self, model: str) -> str:
        """True answers for earlier requests ("+" for all models)."""
        return f"{self.base}/in/truth/{model}"

    def command(self, op: str) -> str:
        """Commands ("+" for all operations)."""
        return f"{self.base}/in/cmd/{op}"

    @property
    def status(self) -> str:
        """`online` or `offline`, retained; the last will."""
        return f"{self.base}/out/status"

    @property
    def info(self) -> str:
        """What the device is, retained."""
        return f"{self.base}/out/info"

    @property
    def reported(self) -> str:
        """What the device runs, retained."""
        return f"{self.base}/out/reported"

    def metrics(self, model: str) -> str:
        """Flat numbers of one model, one document an interval."""
        return f"{self.base}/out/metrics/{model}"

    @property
    def agent(self) -> str:
        """Flat numbers of the agent itself."""
        return f"{self.base}/out/agent"

    def latest(self, model: str) -> str:
        """Latest metrics and prediction of one model, retained, for dashboards."""
        return f"{self.base}/out/latest/{model}"

    def prediction(self, model: str) -> str:
        """Predictions of one model."""
        return f"{self.base}/out/prediction/{model}"

    def action(self, name: str) -> str:
        """What a configured action publishes that names no topic."""
        return f"{self.base}/out/action/{name}"

    def audit(self, place: str) -> str:
        """Signed events, retained: the last few hundred of the chain ("+" for all)."""
        return f"{self.base}/out/audit/{place}"

    def event(self, kind: str) -> str:
        """Events: transition, drift, quality, rollback, error."""
        return f"{self.base}/out/event/{kind}"


@dataclass(frozen=True, slots=True)
class OutTopic:
    """A topic that a device wrote, taken apart.

    Attributes:
        device: The device's id.
        kind: "status", "info", "reported", "metrics", "agent", "latest", "prediction", "event".
        name: The model or the kind of event, where the topic has one, else "".
    """

    device: str
    kind: str
    name: str


def parse_out_topic(prefix: str, topic: str) -> OutTopic:
    """Take a topic under some device's `out/` apart.

    Raises:
        WireError: It is not such a topic.
    """
    head = f"{prefix}/"
    levels = topic[len(head) :].split("/") if topic.startswith(head) else []
    if len(levels) not in (3, 4) or levels[1] != "out":
        raise WireError(f"topic must be {prefix}/DEVICE/out/KIND[/NAME], got {topic[:120]!r}")
    device = check_id(levels[0], what="device id")
    return OutTopic(device, levels[2], levels[3] if len(levels) == 4 else "")


def model_of(topic: str) -> str:
    """The last level of an `in/infer/` or `in/truth/` topic, checked.

    Raises:
        WireError: It is not a valid model name.
    """
    return check_id(topic.rpartition("/")[2], what="model name")


def blob_topic(prefix: str, digest: str, chunk: int) -> str:
    """The retained topic of one chunk of a blob; `digest` is "sha256:HEX"."""
    return f"{prefix}/blob/{digest.removeprefix('sha256:')}/{chunk}"


def root_topic(prefix: str, version: int) -> str:
    """The retained topic of one version of root.json, which all devices share."""
    return f"{prefix}/blob/root/{version}"


def chunk_count(size_bytes: int) -> int:
    """How many chunks a blob of that size has; an empty blob has one empty chunk."""
    return max(1, -(-size_bytes // CHUNK_BYTES))
