"""MQTT topics and messages: what goes over the wire between devices, operators and applications."""

from typing import TYPE_CHECKING

from edgepack.trust.lazy_exports import lazy_exports

if TYPE_CHECKING:
    from edgepack.wire.desired import (
        DESIRED_PAYLOAD_TYPE,
        Audience,
        BlobRef,
        Desired,
        DesiredModel,
        Mode,
        parse_desired,
        render_desired,
    )
    from edgepack.wire.errors import WireError
    from edgepack.wire.infer import Truth, parse_request, parse_truth
    from edgepack.wire.messages import (
        Info,
        Release,
        Reported,
        ReportedModel,
        parse_info,
        parse_reported,
        render_flat,
        render_info,
        render_reported,
    )
    from edgepack.wire.open_inference import InferRequest, WireTensor
    from edgepack.wire.topics import DEFAULT_PREFIX, DeviceTopics, blob_topic, chunk_count
else:
    __getattr__ = lazy_exports(
        __name__,
        {
            "desired": (
                "DESIRED_PAYLOAD_TYPE",
                "Audience",
                "BlobRef",
                "Desired",
                "DesiredModel",
                "Mode",
                "parse_desired",
                "render_desired",
            ),
            "errors": ("WireError",),
            "infer": (
                "Truth",
                "parse_request",
                "parse_truth",
            ),
            "messages": (
                "Info",
                "Release",
                "Reported",
                "ReportedModel",
                "parse_info",
                "parse_reported",
                "render_flat",
                "render_info",
                "render_reported",
            ),
            "open_inference": (
                "InferRequest",
                "WireTensor",
            ),
            "topics": (
                "DEFAULT_PREFIX",
                "DeviceTopics",
                "blob_topic",
                "chunk_count",
            ),
        },
    )

__all__ = [
    "DEFAULT_PREFIX",
    "DESIRED_PAYLOAD_TYPE",
    "Audience",
    "BlobRef",
    "Desired",
    "DesiredModel",
    "DeviceTopics",
    "InferRequest",
    "Info",
    "Mode",
    "Release",
    "Reported",
    "ReportedModel",
    "Truth",
    "WireError",
    "WireTensor",
    "blob_topic",
    "chunk_count",
    "parse_desired",
    "parse_info",
    "parse_reported",
    "parse_request",
    "parse_truth",
    "render_desired",
    "render_flat",
    "render_info",
    "render_reported",
]
