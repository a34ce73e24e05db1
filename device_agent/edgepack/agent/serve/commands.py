"""Commands that come over `in/cmd/<op>`, and their answers.

Each is answered on the MQTT 5 response topic, if it has one, and always by an event, which is kept
while the device is offline: who pressed what is not to be lost. A retained command is dropped: it
would be carried out again after every reconnect.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping

from edgepack.agent.decisions import Operation
from edgepack.agent.errors import DecisionError, FetchError, RejectedError
from edgepack.agent.link import Incoming, Link
from edgepack.agent.serve.mqtt import check_response_topic
from edgepack.trust.errors import EdgepackError
from edgepack.wire.commands import WATCH, request_id_of
from edgepack.wire.errors import WireError
from edgepack.wire.messages import Scalar, render_flat
from edgepack.wire.topics import MAX_CONTROL_BYTES, DeviceTopics, check_id

logger = logging.getLogger(__name__)

_PENDING = 16


class CommandServer:
    """Takes commands.

    Args:
        topics: This device's topics.
        operations: What there is to command, by op.
        told: Keeps an event of kind `command`.
    """

    def __init__(
        self,
        topics: DeviceTopics,
        operations: Mapping[str, Operation],
        told: Callable[[Mapping[str, Scalar | None]], None],
    ) -> None:
        self._topics = topics
        self._operations = operations
        self._told = told
        self._tasks: set[asyncio.Task[None]] = set()
        self.link: Link | None = None  # set by compose: the two need each other

    def take(self, message: Incoming) -> None:
        """Take a command; returns at once."""
        if message.retained:
            logger.warning("command.dropped reason=retained topic=%s", message.topic)
            return
        if len(self._tasks) >= _PENDING:
            logger.warning("command.dropped reason=flood waiting=%d", len(self._tasks))
            return
        task = asyncio.create_task(self._answer(message))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, message: Incoming) -> None:
        answer: dict[str, Scalar | None] = {
            "op": message.topic.rpartition("/")[2][:64],
            "request_id": request_id_of(message.payload) or None,
        }
        topic = None
        try:
            topic = self._response_topic(message)
            answer |= await self._carry_out(message)
        except EdgepackError as exc:
            reason = exc.reason if isinstance(exc, DecisionError | RejectedError) else "refused"
            answer |= {"reason": reason, "error": str(exc)}
        except Exception:  # a command must not go unanswered for a defect of ours
            logger.exception("command.defect topic=%s", message.topic)
            answer |= {"reason": "defect", "error": "the device failed; its log tells why"}
        else:
            answer["accepted"] = True
        # who looks asks every half a minute: that is no event to be kept
        if answer["op"] != WATCH or "error" in answer:
            logger.info("command.%s op=%s", answer.get("reason", "accepted"), answer["op"])
            self._told(answer)
        if topic is not None and self.link is not None:
            try:
                await self.link.publish(topic, render_flat(answer), correlation=message.correlation)
            except FetchError as exc:  # the event tells it all the same
                logger.warning("reply.lost topic=%s error=%s", topic, exc)

    async def _carry_out(self, message: Incoming) -> dict[str, Scalar]:
        if len(message.payload) > MAX_CONTROL_BYTES:
            raise WireError(
                f"command must be at most {MAX_CONTROL_BYTES} bytes, got {len(message.payload)}"
            )
        op = check_id(message.topic.rpartition("/")[2], what="operation")
        operation = self._operations.get(op)
        if operation is None:
            known = ", ".join(sorted(self._operations))
            raise DecisionError("unknown_op", f"operation must be one of {known}, got {op!r}")
        return await operation(message.payload)

    def _response_topic(self, message: Incoming) -> str | None:
        if message.response_topic is None:
            return None
        return check_response_topic(self._topics, message.response_topic)
