"""Every parser that a stranger's bytes reach: a value or its documented error, nothing else.

`support.fuzz.INPUTS` says for how many inputs each.
"""

import json
import re
from pathlib import Path

import pytest
from support.fuzz import INPUTS, nearly_right

from edgepack.fleet.audit import Expected, prove
from edgepack.fleet.errors import AuditError
from edgepack.trust import DEPLOY, RELEASE, ROOT, PrivateKey, Role, Root, dsse, sign_root
from edgepack.trust.errors import DocumentError, RootError, SignatureError
from edgepack.trust.payload_types import EVENT_PAYLOAD_TYPE
from edgepack.trust.root_document import read_document
from edgepack.wire import parse_desired, parse_info, parse_reported, parse_request, parse_truth
from edgepack.wire.audit import (
    Checkpoint,
    parse_checkpoint,
    parse_event,
    render_checkpoint,
)
from edgepack.wire.errors import WireError
from edgepack.wire.messages import parse_flat
from edgepack.wire.topics import model_of, parse_out_topic

PAGE = (Path(__file__).parents[2] / "docs" / "mqtt.md").read_text(encoding="utf-8")
KEY = PrivateKey(bytes([1]) * 32)
ROLE = Role(keys=(KEY.public.key_id,))
ROOT_JSON = sign_root(
    version=1,
    keys=[KEY.public],
    roles=dict.fromkeys((ROOT, RELEASE, DEPLOY), ROLE),
    signers=[KEY],
)
EVENT = dsse.sign(b'{"a":1}', EVENT_PAYLOAD_TYPE, [KEY])
TRUSTED = Root.parse(ROOT_JSON)


def example(section, index=0):
    text = re.search(rf"^## `{re.escape(section)}`\n(.*?)(?=^## )", PAGE, re.DOTALL | re.MULTILINE)
    return re.findall(r"```json\n(.*?)```", text.group(1), re.DOTALL)[index].encode()


CHECKPOINT = render_checkpoint(
    Checkpoint(
        device="d", prefix="p", instance="ab", number=3, hash="sha256:" + "0" * 64, ts=1,
        serving={"m": "sha256:" + "1" * 64},
    )
)  # fmt: skip


def verify_desired(data):
    return TRUSTED.verify(DEPLOY, data, EVENT_PAYLOAD_TYPE)


def prove_line(data):
    return prove({"a": [data]}, Expected(keys=(KEY.public,)))


@pytest.mark.parametrize(
    ("name", "parse", "document", "errors"),
    [
        ("desired", parse_desired, example("in/desired"), (WireError,)),
        ("flat request", parse_request, example("in/infer/<model>"), (WireError,)),
        ("oip request", parse_request, example("in/infer/<model>", 1), (WireError,)),
        ("truth", parse_truth, example("in/truth/<model>"), (WireError,)),
        ("info", parse_info, example("out/info"), (WireError,)),
        ("reported", parse_reported, example("out/reported"), (WireError,)),
        ("event", parse_event, example("out/audit/<place>"), (WireError,)),
        ("checkpoint", parse_checkpoint, CHECKPOINT, (WireError,)),
        ("root", Root.parse, ROOT_JSON, (RootError,)),
        ("root document", read_document, ROOT_JSON, (RootError,)),
        ("envelope", lambda d: dsse.parse(d, EVENT_PAYLOAD_TYPE), EVENT, (DocumentError,)),
        ("verified", verify_desired, EVENT, (SignatureError,)),
        ("history", prove_line, EVENT, (AuditError,)),
    ],
)
def test_nearly_right_documents_end_in_a_value_or_the_documented_error(
    name, parse, document, errors
):
    """Damaged bytes and exchanged values, the same ones on every machine."""
    taken = refused = 0
    for data in nearly_right(document, seed=name):
        try:
            parse(data)
        except errors as exc:
            refused += 1
            assert "\n" not in str(exc), (data, str(exc))
        except Exception as exc:
            raise AssertionError(f"{name}: {type(exc).__name__} for {data!r}") from exc
        else:
            taken += 1
    assert (INPUTS, True) == (taken + refused, refused > 0)


@pytest.mark.parametrize("parse", [lambda t: parse_out_topic("p", t), model_of])
def test_topics_end_in_a_value_or_the_documented_error(parse):
    """Whatever levels a topic has."""
    source = json.dumps({"t": "p/press-7/out/metrics/digits"}).encode()
    for data in nearly_right(source, seed="topic"):
        try:
            parse(data.decode("utf-8", "replace"))
        except WireError as exc:
            assert "\n" not in str(exc)


def test_flat_documents_of_any_size_are_bounded():
    """What is larger than a request may be is not even parsed."""
    with pytest.raises(WireError, match="must be at most"):
        parse_flat(b'{"a":"' + b"x" * 200_000 + b'"}', what="request")
