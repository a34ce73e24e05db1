"""Commands to a device."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgepack.wire.commands import InstallCommand, parse_install, request_id_of
from edgepack.wire.errors import WireError

DIGEST = "sha256:" + "a" * 64


def test_a_command_parses():
    """What a panel sends; keys that it adds for itself are ignored."""
    payload = b'{"model":"m","digest":"%b","request_id":"r","panel":3}' % DIGEST.encode()
    expected = InstallCommand(model="m", digest=DIGEST, request_id="r")
    assert expected == parse_install(payload)


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"[]",
        b'{"model":"m"}',
        b'{"model":"m","digest":"sha256:00"}',
        b'{"model":"a/b","digest":"%b"}' % DIGEST.encode(),
        b'{"model":"m","digest":"%b","request_id":"a b"}' % DIGEST.encode(),
        b'{"model":"m","digest":"%b","x":"%b"}' % (DIGEST.encode(), b"y" * 9000),
    ],
)
def test_what_is_no_command_is_refused(payload):
    """Nothing is guessed."""
    with pytest.raises(WireError):
        parse_install(payload)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_command_or_refused(payload):
    """What comes back is a value or the documented error."""
    with contextlib.suppress(WireError):
        parse_install(payload)
    assert isinstance(request_id_of(payload), str)
