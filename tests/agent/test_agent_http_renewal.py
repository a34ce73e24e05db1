"""A new token or certificate of the HTTP server counts without a restart."""

import contextlib
import http.client
import ssl

import pytest
from support.agent_process import wait_until
from support.http_here import http_here
from support.self_signed import write_self_signed

from edgepack.agent.errors import ConfigError
from edgepack.agent.serve.http.renewal import Renewed

OLD, NEW = "0123456789abcdef", "fedcba9876543210"


class Reader:
    """Reads one file; what begins with "bad" cannot be used."""

    def __init__(self, path):
        self.path, self.now_s, self.said = path, 0.0, []
        self.current = Renewed((str(path),), self.read, self.said.append, clock=lambda: self.now_s)

    def read(self):
        try:
            text = self.path.read_text()
        except OSError as exc:
            raise ConfigError("gone") from exc
        if text.startswith("bad"):
            raise ConfigError(text)
        return text

    def later(self):
        self.now_s += 1.0
        return self.current()


def test_a_file_is_read_when_it_changed_and_looked_at_once_a_second(tmp_path):
    """What cannot be used leaves what was there, however often it is asked for; gone is such."""
    path = tmp_path / "file"
    path.write_text("one")
    reader = Reader(path)
    path.write_text("second")
    assert "one" == reader.current()
    assert "second" == reader.later()
    path.write_text("bad luck")
    assert ("second", "second") == (reader.later(), reader.later())
    assert ["", "bad luck; what was read before goes on"] == reader.said
    path.unlink()
    assert "second" == reader.later()
    (tmp_path / "new").write_text("third")
    (tmp_path / "new").replace(path)
    assert "third" == reader.later()
    assert ["gone; what was read before goes on", ""] == reader.said[2:]


def test_what_cannot_be_used_at_the_start_is_an_error(tmp_path):
    """Only a file that once was good is gone on with."""
    with pytest.raises(ConfigError, match="gone"):
        Reader(tmp_path / "none")


def status_of(door, **headers):
    """Of one request on an open connection."""
    door.request("GET", "/v2", headers=headers)
    answer = door.getresponse()
    answer.read()
    return answer.status


def test_a_new_token(tmp_path):
    """Within a second, also on connections that are open; the old one counts no more."""
    path = tmp_path / "token"
    path.write_text(OLD)
    with http_here(token_file=str(path)) as here:
        door = http.client.HTTPConnection("127.0.0.1", here.port, timeout=30)

        def status(token):
            return status_of(door, Authorization=f"Bearer {token}")

        with contextlib.closing(door):
            assert (200, 401) == (status(OLD), status(NEW))
            path.write_text("short")

            def is_told():
                assert 200 == status(OLD)
                return any("must hold a token" in text for _, text in here.notices)

            wait_until(is_told, "that the new one cannot be used is told")
            assert (200, 401) == (status(OLD), status(NEW))
            path.write_text(f"{NEW}\n")
            wait_until(lambda: status(NEW) == 200, "the new token counts")
            assert 401 == status(OLD)
            assert ("http", "") == here.notices[-1]


def test_a_new_certificate(tmp_path):
    """From the next connection on, whichever of its files comes first; others go on."""
    now, new = tmp_path / "now", tmp_path / "new"
    for folder in (now, new):
        folder.mkdir()
    cert, key = write_self_signed(now)
    old = ssl.create_default_context(cadata=cert.read_text())
    new_cert, new_key = write_self_signed(new)
    trusts_new = ssl.create_default_context(cadata=new_cert.read_text())
    with http_here(cert_file=str(cert), key_file=str(key)) as here:

        def ask(context):
            door = http.client.HTTPSConnection("127.0.0.1", here.port, timeout=30, context=context)
            return door, status_of(door)

        def refused(context):
            with pytest.raises(ssl.SSLCertVerificationError):
                ask(context)

        first, code = ask(old)
        with contextlib.closing(first):
            assert 200 == code
            refused(trusts_new)
            new_cert.replace(cert)
            other, code = ask(old)
            with contextlib.closing(other):
                assert 200 == code
            kind, text = here.notices[-1]
            assert ("http", True) == (kind, "cannot be used" in text)
            new_key.replace(key)
            renewed, code = ask(trusts_new)
            with contextlib.closing(renewed):
                assert 200 == code
            refused(old)
            assert ("http", "") == here.notices[-1]
            assert 200 == status_of(first)
