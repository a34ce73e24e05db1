"""One engine with many vices: what a variant's precision names is done when it is run.

It answers as onnxruntime does where it does not misbehave.
"""

import dataclasses
import os
import signal
import sys
import time

from edgepack.bundle.contract import EngineRequirements
from edgepack.runtime.engines.onnxruntime import ENGINE as REAL
from edgepack.runtime.errors import EngineError


class RogueSession:
    def __init__(self, session, vice):
        self._session = session
        self._vice = vice
        self._kept = []

    def run(self, feeds):
        if self._vice == "segfault":
            os.kill(os.getpid(), signal.SIGSEGV)
        elif self._vice == "hang":
            time.sleep(3600)
        elif self._vice == "exit":
            os._exit(3)
        elif self._vice == "hungry":
            while True:
                self._kept.append(bytearray(b"x" * (16 << 20)))
        elif self._vice == "slow":
            time.sleep(0.02)
        elif self._vice == "wrong":
            return [output * 0 for output in self._session.run(feeds)]
        elif self._vice == "raise":
            raise EngineError("the engine gave up")
        elif self._vice == "chatty":
            sys.stdout.write("an engine that prints\n" * 100)
            sys.stdout.flush()
            os.write(1, b"to the parent's answer\n")
        return self._session.run(feeds)

    def bind(self, inputs, outputs):
        return None

    def close(self):
        self._session.close()


class Rogue:
    name = "rogue"

    def versions(self):
        return {"rogue": "1"}

    def prepare(self):
        REAL.prepare()

    def check(self, variant):
        if variant.precision == "missing":
            raise EngineError("the rogue is not at home")

    def open(self, files, variant, options):
        real = dataclasses.replace(variant, engine=EngineRequirements(engine="onnxruntime"))
        return RogueSession(REAL.open(files, real, options), variant.precision)


ENGINE = Rogue()
