"""An agent's inference with one model, in this process."""

from edgepack.agent.config import DriftConfig
from edgepack.agent.install.slot import Installed
from edgepack.agent.serve.inference import Inference
from edgepack.agent.serve.registry import Registry
from edgepack.agent.serve.served import ServedModel
from edgepack.runtime import load
from edgepack.wire.messages import Release


class OneModel(Registry):
    """Serves one bundle; `absent` takes it away."""

    def __init__(self, path):
        super().__init__(DriftConfig())
        release = Release(digest="sha256:" + "a" * 64, version="1", sequence=1)
        installed = Installed(release=release, variant="onnx-fp32")
        self.model = ServedModel(installed, load(path))
        self.absent = False

    def get(self, name):
        return self.model if name == self.model.contract.name and not self.absent else None


def inference_of(path):
    """Inference, its registry, and the list that every prediction is added to."""
    registry = OneModel(path)
    inference = Inference(registry, pending=16, drifted=lambda *_: None)
    predictions = []
    inference.listeners.append(predictions.append)
    return inference, registry, predictions
