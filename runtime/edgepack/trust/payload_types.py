"""One DSSE payload type for each kind of document that is signed.

The type is part of what is signed, so a signature over one kind can never be shown as a signature
over another.
"""

ROOT_PAYLOAD_TYPE = "application/vnd.edgepack.root.v1+json"
STATEMENT_PAYLOAD_TYPE = "application/vnd.in-toto+json"
EVENT_PAYLOAD_TYPE = "application/vnd.edgepack.event.v1+json"
CHECKPOINT_PAYLOAD_TYPE = "application/vnd.edgepack.checkpoint.v1+json"
DESIRED_PAYLOAD_TYPE = "application/vnd.edgepack.desired.v1+json"
WHEELHOUSE_PAYLOAD_TYPE = "application/vnd.edgepack.wheelhouse.v1+json"
