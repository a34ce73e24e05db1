"""`[http]` in agent.toml."""

import pytest

from edgepack.agent.config import read_config
from edgepack.agent.config.http import HttpConfig, listen_address, read_token
from edgepack.agent.errors import ConfigError
from edgepack.agent.serve.http.build import HttpService

SAFE = 'token_file = "t"\ncert_file = "c"\nkey_file = "k"\n'


def read(tmp_path, section):
    path = tmp_path / "agent.toml"
    path.write_text(f'root = "root.json"\ndevice = "d"\n[http]\n{section}\n')
    return read_config(path).http


def test_absent_means_off(tmp_path):
    """Nothing is served unless it is asked for."""
    assert not read(tmp_path, "").is_on
    assert read(tmp_path, 'socket = "s"').is_on
    assert str(tmp_path / "s") == read(tmp_path, 'socket = "s"').socket


@pytest.mark.parametrize(
    "listen", ["127.0.0.1:8080", "localhost:0", "[::1]:8080", "127.9.9.9:65535"]
)
def test_loopback_needs_nothing(tmp_path, listen):
    """Whoever is on this machine may ask."""
    assert listen == read(tmp_path, f'listen = "{listen}"').listen


@pytest.mark.parametrize("listen", ["0.0.0.0:80", "[::]:80", "192.168.1.2:80", "device:80"])
def test_beyond_loopback_token_and_tls_are_needed(tmp_path, listen):
    """One alone is not enough: a token without TLS is read by everybody on the way."""
    assert listen == read(tmp_path, f'listen = "{listen}"\n{SAFE}').listen
    for line in SAFE.splitlines():
        left = SAFE.replace(f"{line}\n", "")
        with pytest.raises(ConfigError, match="http"):
            read(tmp_path, f'listen = "{listen}"\n{left}')
    with pytest.raises(ConfigError, match="must be on loopback without token_file, cert_file"):
        read(tmp_path, f'listen = "{listen}"\ntoken_file = "t"')


@pytest.mark.parametrize(
    "listen", ["", "8080", ":8080", "host", "host:", "host:x", "host:65536", "::1:80", "[h]:1:2"]
)
def test_an_address_is_host_and_port(tmp_path, listen):
    """Anything else is one clear line."""
    with pytest.raises(ConfigError, match=r"http.listen must be HOST:PORT, got"):
        read(tmp_path, f'listen = "{listen}"')


@pytest.mark.parametrize(
    ("section", "expected"),
    [
        ('cert_file = "c"\nlisten = "[::1]:1"', "must stand together"),
        ('token_file = "t"', "are for http.listen, which is absent"),
        ("max_body_mb = 0", "http.max_body_mb must be > 0"),
        ("max_body_mb = inf", "http.max_body_mb must be > 0 and finite"),
        ("max_connections = 0", "http.max_connections must be >= 1"),
        (f'socket = "{"s" * 120}"', "http.socket must be a path of at most 107 bytes"),
        ("port = 1", "unknown key port"),
    ],
)
def test_what_is_wrong_is_said(tmp_path, section, expected):
    """The configuration's error names the key."""
    with pytest.raises(ConfigError, match=expected):
        read(tmp_path, section)


@pytest.mark.parametrize("text", ["", "short", "with space in the token", "x" * 513, "é" * 20])
def test_a_token_must_be_worth_something(tmp_path, text):
    """Short ones are guessed."""
    (tmp_path / "t").write_text(text)
    with pytest.raises(ConfigError, match=r"http.token_file"):
        read_token(str(tmp_path / "t"))


def test_files_that_cannot_be_used_are_said_before_anything_runs(tmp_path):
    """A missing token or a damaged certificate is a mistake in agent.toml."""
    with pytest.raises(ConfigError, match=r"token_file .*/none cannot be read: No such file"):
        HttpService(
            HttpConfig(listen="127.0.0.1:0", token_file=str(tmp_path / "none")),
            None,
            None,
            notice=print,
        )
    (tmp_path / "bad.pem").write_text("no certificate")
    files = {"cert_file": str(tmp_path / "bad.pem"), "key_file": str(tmp_path / "bad.pem")}
    with pytest.raises(ConfigError, match=r"cert_file .*bad.pem with .* cannot be used"):
        HttpService(HttpConfig(listen="127.0.0.1:0", **files), None, None, notice=print)


def test_an_ipv6_address_loses_its_brackets():
    """They are the URL's, not the socket's."""
    assert ("::1", 80) == (listen_address("[::1]:80").host, listen_address("[::1]:80").port)
