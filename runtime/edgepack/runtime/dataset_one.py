"""One image or WAV file as one sample of a model: what a camera or a recorder leaves behind."""

from pathlib import Path
from typing import Final

import numpy as np

from edgepack.bundle.contract import Contract, TensorSpec
from edgepack.bundle.pre_codec import parse_steps
from edgepack.bundle.pre_steps import Channels, LogMel
from edgepack.runtime.dataset import Array, Dataset
from edgepack.runtime.dataset_folder import FolderDigest, FolderFile, folder_file
from edgepack.runtime.dataset_inputs import arrange, image_size
from edgepack.runtime.errors import DatasetError

MAX_PIXELS: Final = 32_000_000  # 96 MB in colour
_IMAGE_RANK: Final = 4


def read_one(path: Path, contract: Contract) -> dict[str, Array]:
    """Read a file for a model.

    An image gets the size and the channels that the contract's input fixes; where it leaves them
    free, the contract's steps see the image as it is. A signal is cut or filled up with zeros to a
    length that is fixed.

    Returns:
        Contract name → array of one sample.

    Raises:
        DatasetError: The file is damaged, too large, of another kind than the model takes, or of
            another rate than the contract's steps say.
    """
    if len(contract.inputs) != 1:
        raise DatasetError(f"a file is one input, the model takes {len(contract.inputs)}")
    (spec,) = contract.inputs
    file = folder_file(path)
    array = _image(file, spec, contract) if file.kind == "image" else _signal(file, spec, contract)
    dataset = Dataset(
        arrays={spec.name: array}, named=True, truth=None, rows=1, digest="", format=file.kind
    )
    return arrange(dataset, contract.inputs).inputs


def _image(file: FolderFile, spec: TensorSpec, contract: Contract) -> Array:
    if len(spec.shape) != _IMAGE_RANK:
        raise DatasetError(f"{file.name} is an image, the model takes {list(spec.shape)}")
    from edgepack.runtime.dataset_images import read_images  # needs Pillow
    from edgepack.runtime.preprocess_images import recolour

    pixels: Array = read_images(
        [file], FolderDigest(), size=image_size(spec), mixed_size=None, max_pixels=MAX_PIXELS
    )
    wanted = next((size for size in (spec.shape[3], spec.shape[1]) if size in (1, 3)), None)
    steps = parse_steps(contract.pre)
    recolours = any(isinstance(step, Channels) for step in steps if step.input == spec.name)
    if wanted is not None and wanted != pixels.shape[3]:
        pixels = recolour(pixels, Channels(input=spec.name, to=wanted))
    elif wanted is None and not recolours and pixels.shape[3] == 1:
        pixels = np.repeat(pixels, 3, axis=3)
    is_nchw = spec.shape[3] not in (1, 3) and spec.shape[1] in (1, 3)
    return pixels.transpose(0, 3, 1, 2) if is_nchw else pixels


def _signal(file: FolderFile, spec: TensorSpec, contract: Contract) -> Array:
    if len(spec.shape) == _IMAGE_RANK:
        raise DatasetError(f"{file.name} is a WAV file, the model takes images")
    from edgepack.runtime.dataset_wav import read_signals

    samples = spec.shape[1] if len(spec.shape) == 2 and spec.shape[1] > 0 else None
    signals, rate_hz = read_signals([file], FolderDigest(), samples)
    for step in parse_steps(contract.pre):
        if isinstance(step, LogMel) and step.rate != rate_hz:
            raise DatasetError(f"{file.name} must have {step.rate} Hz, got {rate_hz} Hz")
    return signals
