"""A log of predictions on the device: JSON lines, bounded, written in groups.

Off by default. Lines wait in memory until `flush_s` is over or there are many, and are written on a
thread: a flash is written to rarely, and inference never waits for a disk. A power cut costs what
was not written yet.
"""

import asyncio
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import numpy as np

from edgepack.agent.config import LogConfig
from edgepack.agent.serve.inference import Prediction
from edgepack.agent.serve.policy import prediction_fields
from edgepack.bundle.contract import TensorSpec
from edgepack.runtime.tensors import Array
from edgepack.trust.strict_json import JsonValue
from edgepack.wire.messages import Scalar, render_flat

logger = logging.getLogger(__name__)

_GROUP_BYTES: Final = 64 * 1024
_MOST_BYTES: Final = 1024 * 1024  # that wait for a slow disk
_MAX_VALUES: Final = 256  # of an input; of a larger one only the shape is written
REDACTED: Final = "redacted"


class PredictionLog:
    """Writes `predictions.jsonl`, and moves it to `predictions.jsonl.1` at half of `max_mb`.

    Args:
        config: `[log]`, with a path.

    Attributes:
        dropped: Lines that were not written: the disk was too slow, or took nothing.
    """

    def __init__(self, config: LogConfig) -> None:
        self._config = config
        self._path = Path(config.path or "")
        self._lines: list[bytes] = []
        self._bytes = 0
        self._full = asyncio.Event()
        self._was_unwritable = False
        self.dropped = 0

    def take(self, prediction: Prediction, specs: tuple[TensorSpec, ...] = ()) -> None:
        """Keep a prediction; returns at once.

        Args:
            prediction: What was predicted.
            specs: The contract's inputs, for the names of their features.
        """
        fields: dict[str, Scalar | None] = {
            "model": prediction.model,
            **prediction_fields(prediction),
        }
        fields = {name: self._shown(name, value) for name, value in fields.items()}
        if self._config.inputs:
            fields |= self._inputs(prediction.inputs, specs)
        line = render_flat(fields) + b"\n"
        if self._bytes + len(line) > _MOST_BYTES:
            self.dropped += 1
            return
        self._lines.append(line)
        self._bytes += len(line)
        if self._bytes >= _GROUP_BYTES:
            self._full.set()

    async def run(self) -> None:
        """Write until cancelled."""
        while True:
            try:
                async with asyncio.timeout(self._config.flush_s):
                    await self._full.wait()
            except TimeoutError:
                pass
            self._full.clear()
            lines = self._taken()
            if lines:
                await asyncio.to_thread(self._write, lines)

    def close(self) -> None:
        """Write what waits: the agent stops."""
        lines = self._taken()
        if lines:
            self._write(lines)

    def _taken(self) -> list[bytes]:
        lines, self._lines, self._bytes = self._lines, [], 0
        return lines

    def _shown(self, name: str, value: Scalar | None) -> Scalar | None:
        return REDACTED if value is not None and name in self._config.redact else value

    def _inputs(
        self, inputs: Mapping[str, Array], specs: tuple[TensorSpec, ...]
    ) -> dict[str, Scalar | None]:
        """The first sample's values by feature name; of a large input its shape."""
        names = {spec.name: spec.feature_names for spec in specs}
        shown: dict[str, Scalar | None] = {}
        for name, array in inputs.items():
            sample = np.ravel(array[0])
            features = names.get(name, ())
            if array.ndim == 2 and len(features) == sample.size:
                for feature, value in zip(features, sample.tolist(), strict=True):
                    shown[f"input.{feature}"] = self._shown(feature, _scalar(value))
            elif sample.size == 1:
                shown[f"input.{name}"] = self._shown(name, _scalar(sample.tolist()[0]))
            elif sample.size <= _MAX_VALUES and not set(features) & set(self._config.redact):
                text = " ".join(str(value) for value in sample.tolist())
                shown[f"input.{name}"] = self._shown(name, text)
            else:
                shown[f"input.{name}.shape"] = "x".join(map(str, array.shape[1:]))
        return shown

    def _write(self, lines: list[bytes]) -> None:
        data = b"".join(lines)
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._rotate(len(data))
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW
            with os.fdopen(os.open(self._path, flags, 0o640), "ab") as log:
                log.write(data)
        except OSError as exc:
            self.dropped += len(lines)
            if not self._was_unwritable:
                logger.warning("log.unusable path=%s error=%s", self._path, exc)
            self._was_unwritable = True
        else:
            self._was_unwritable = False

    def _rotate(self, coming_bytes: int) -> None:
        try:
            size_bytes = self._path.stat().st_size
        except FileNotFoundError:
            return
        if size_bytes + coming_bytes > self._config.max_mb * 1e6 / 2:
            self._path.replace(self._path.with_name(f"{self._path.name}.1"))


def _scalar(value: JsonValue) -> Scalar | None:
    return value if isinstance(value, bool | int | float | str) else None
