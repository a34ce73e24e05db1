"""The demo's course: what is done, in which order, and what must be seen for it to succeed."""

import argparse
import contextlib
import functools
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from edgepack.cli.demo.processes import Commands, Ended
from edgepack.cli.demo.screen import DemoError, Screen
from edgepack.cli.demo.stream import Stream
from edgepack.wire.topics import DEFAULT_PREFIX, DeviceTopics

if TYPE_CHECKING:
    from edgepack.cli.demo.models import Trained

DEVICE = "demo-device"
LABEL = "digit"
MODEL = "digits"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `edgepack demo`."""
    parser.add_argument(
        "--folder",
        type=Path,
        metavar="DIR",
        help="keep everything there (default: a temporary one)",
    )
    parser.add_argument(
        "--rate",
        type=float,
        default=20.0,
        metavar="HZ",
        help="samples a second (default: %(default)s)",
    )
    parser.add_argument(
        "--seconds",
        type=float,
        default=6.0,
        metavar="S",
        help="how long to watch each version, in seconds (default: %(default)s)",
    )


def run(args: argparse.Namespace) -> int:
    """Run the demo; 0 only if everything that it promises was observed."""
    kept = args.folder is not None
    if kept:
        args.folder.mkdir(parents=True, exist_ok=True)
    folder = args.folder.absolute() if kept else Path(tempfile.mkdtemp(prefix="edgepack-demo-"))
    try:
        Demo(Console(highlight=False), folder, rate_hz=args.rate, watch_s=args.seconds).run()
    except DemoError:  # its logs tell why
        kept = True
        raise
    finally:
        if not kept:
            shutil.rmtree(folder)
    return 0


class Demo:
    """One run.

    Args:
        console: Where to tell it.
        folder: For keys, models, bundles, the device's state, and logs.
        rate_hz: Samples a second.
        watch_s: How long to watch each version, in seconds.
    """

    def __init__(self, console: Console, folder: Path, *, rate_hz: float, watch_s: float) -> None:
        self._screen = Screen(console, folder)
        self._folder = folder
        self._rate_hz = rate_hz
        self._watch_s = watch_s
        self._commands = Commands(folder)

    def run(self) -> None:
        """Everything, in order.

        Raises:
            DemoError: Something that was promised was not observed.
        """
        from edgepack.cli.demo.models import train  # scikit-learn: not for `demo --help`

        self._screen.say("train two versions on the handwritten digits that scikit-learn ships")
        trained = train(self._folder, label=LABEL)
        self._convert_all(trained)
        config = self._write_agent_config
        with self._commands.broker() as (host, port), self._commands.device(config(port)):
            self._screen.say(f"edgepack broker on {host}:{port}, edgepack-agent run as {DEVICE!r}")
            url = f"mqtt://{host}:{port}"
            self._deploy("1.0.0", url)
            topics = DeviceTopics(DEFAULT_PREFIX, DEVICE)
            stream = Stream(
                (host, port), topics, MODEL, x=trained.x, y=trained.y, rate_hz=self._rate_hz
            )
            with contextlib.closing(stream):
                self._live(stream, url)
        bench = self._bench("1.1.0", trained)
        self._screen.tables(f"{MODEL} 1.1.0", stream, bench)
        self._screen.say("everything was observed", done=True)

    def _convert_all(self, trained: "Trained") -> None:
        self._screen.say("edgepack keygen keys; edgepack keygen stranger")
        for keys in ("keys", "stranger"):
            self._must(self._commands.edgepack("keygen", keys), f"keygen {keys}")
        self._screen.say(
            "edgepack convert MODEL --data digits.csv --label digit   (four bundles, signed)"
        )
        jobs = [
            ("1.0.0", trained.first, "keys"),
            ("1.1.0", trained.second, "keys"),
            ("1.2.0", trained.first, "keys"),
            ("1.3.0", trained.second, "stranger"),
        ]

        def convert(job: tuple[str, Path, str]) -> None:
            version, model, keys = job
            ended = self._commands.edgepack(
                *("convert", model, "--data", trained.data, "--label", LABEL),
                *("--name", MODEL, "--version", version, "--keys", keys, "-o", "bundles"),
            )
            self._must(ended, f"convert {version}")
            if version in ("1.0.0", "1.1.0"):
                self._screen.quote(ended.out)

        with ThreadPoolExecutor(2) as pool:
            list(pool.map(convert, jobs))

    def _live(self, stream: Stream, url: str) -> None:
        """From the first request to the last, one unbroken stream."""
        stream.start()
        self._screen.say(f"stream held-out samples at {self._rate_hz:g} a second")
        self._screen.watch(stream, self._watch_s, until=lambda: "accuracy" in stream.metrics)
        self._screen.say("upgrade to 1.1.0 while requests go on")
        self._screen.watch(stream, 0, during=functools.partial(self._deploy, "1.1.0", url))
        switched_s = time.monotonic()
        self._screen.watch(stream, self._watch_s, until=lambda: stream.metrics.get("truths", 0) > 0)
        self._screen.say("a bundle with one flipped byte, fetched over HTTP")
        self._screen.watch(stream, 0, during=functools.partial(self._refuse_flipped, url))
        self._screen.say("a bundle signed by a stranger, carried to the device")
        self._screen.watch(stream, 0, during=functools.partial(self._refuse_stranger, url))
        refused_s = time.monotonic()
        self._screen.watch(stream, 2.0)
        stream.stop()
        self._check_stream(stream, switched_s, refused_s)

    def _check_stream(self, stream: Stream, switched_s: float, refused_s: float) -> None:
        count = stream.count
        self._screen.observe(not count.unanswered, f"all {len(count.sent)} requests were answered")
        self._screen.observe(
            count.versions_since(0) == {"1.0.0", "1.1.0"}, "1.0.0 and 1.1.0 answered, nothing else"
        )
        self._screen.observe(
            count.versions_since(switched_s) == {"1.1.0"}, "after the upgrade 1.1.0 answered"
        )
        self._screen.observe(
            count.versions_since(refused_s) == {"1.1.0"},
            "after both refusals 1.1.0 went on answering",
        )
        accuracy = stream.metrics.get("accuracy", 0.0)
        self._screen.observe(accuracy > 0.9, f"accuracy on the device is {accuracy:.3f}, above 0.9")

    def _deploy(self, version: str, url: str) -> None:
        bundle = self._bundle(version)
        ended = self._commands.edgepack(
            *("deploy", bundle, "--broker", url, "--device", DEVICE, "--wait"),
            *("--keys", "keys", "--root", "keys/root.json"),
        )
        self._screen.observe(ended.code == 0, f"{version} was deployed and confirmed", ended)

    def _refuse_flipped(self, url: str) -> None:
        bundle = self._bundle("1.2.0")
        web = self._folder / "web"
        web.mkdir(exist_ok=True)
        (web / bundle.name).write_bytes(
            _flipped(bundle, [self._bundle("1.0.0"), self._bundle("1.1.0")])
        )
        check = self._commands.edgepack("verify", web / bundle.name, "--root", "keys/root.json")
        self._screen.observe(check.code in (4, 5), f"workstation refused it: {check.error}", check)
        with _web_server(web) as address:
            ended = self._commands.edgepack(
                *("deploy", bundle, "--broker", url, "--device", DEVICE, "--wait"),
                *("--via", f"{address}/{bundle.name}"),
                *("--keys", "keys", "--root", "keys/root.json"),
            )
        self._screen.observe(ended.code == 8, f"device refused it: {ended.error}", ended)

    def _refuse_stranger(self, url: str) -> None:
        bundle = self._bundle("1.3.0")
        check = self._commands.edgepack(
            *("deploy", bundle, "--broker", url, "--device", DEVICE),
            *("--keys", "keys", "--root", "keys/root.json"),
        )
        self._screen.observe(check.code == 5, f"workstation refused it: {check.error}", check)
        ended = self._commands.agent("install", "--config", self._config_path, bundle)
        self._screen.observe(
            ended.code == 8 and "not_trusted" in ended.error,
            f"device refused it: {ended.error}",
            ended,
        )

    def _bench(self, version: str, trained: "Trained") -> dict[str, Any]:
        self._screen.say(f"edgepack bench run digits-{version}.edgepack")
        ended = self._commands.edgepack(
            *("bench", "run", self._bundle(version), "--data", trained.data),
            *("--label", LABEL, "--json"),
        )
        self._must(ended, "bench run")
        return ended.document

    def _must(self, ended: Ended, what: str) -> None:
        if ended.code != 0:
            raise DemoError(f"{what} must succeed, got exit code {ended.code}: {ended.error}")

    def _bundle(self, version: str) -> Path:
        return self._folder / "bundles" / f"{MODEL}-{version}.edgepack"

    @property
    def _config_path(self) -> Path:
        return self._folder / "agent.toml"

    def _write_agent_config(self, port: int) -> Path:
        self._config_path.write_text(
            f'device = "{DEVICE}"\nstate = "device"\nroot = "keys/root.json"\n'
            f'[broker]\nurl = "mqtt://127.0.0.1:{port}"\n'
            "[metrics]\ninterval_s = 1\nslow_s = 1\n"
            "[probation]\nrequests = 20\nseconds = 2\n"
        )
        return self._config_path


def _flipped(path: Path, before: list[Path]) -> bytes:
    """A bundle with one bit flipped, in a part that a device with those `before` has to fetch."""
    from edgepack.bundle import open_bundle

    there = {blob.digest for one in before for blob in open_bundle(one).blobs()}
    bundle = open_bundle(path)
    new = [blob for blob in bundle.blobs() if blob.digest not in there]
    part = bundle.read_blob(max(new, key=lambda blob: blob.size_bytes).digest)
    data = bytearray(path.read_bytes())
    data[data.index(part) + len(part) // 2] ^= 0x01
    return bytes(data)


@contextlib.contextmanager
def _web_server(folder: Path) -> Iterator[str]:
    handler = functools.partial(_QuietHandler, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


class _QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the base class's name)
        """Say nothing: the console belongs to the demo."""
