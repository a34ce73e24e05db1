"""The original model in its child process, which is asked only what is not known already."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from edgepack.bundle.contract import Task
from edgepack.converter.draft import Candidate
from edgepack.converter.errors import WorkerError
from edgepack.converter.search.cache import AnswerCache, key_of
from edgepack.converter.sources.source import (
    CategoryValues,
    Exported,
    ExportFacts,
    ExportWish,
    LoadOptions,
    ModelFacts,
)
from edgepack.converter.tools.ask import tool_message, tool_result
from edgepack.converter.tools.tool import ToolJob, ToolResult
from edgepack.converter.worker_messages import FILE, Message
from edgepack.converter.worker_process import WorkerProcess
from edgepack.converter.worker_values import from_fields, to_fields
from edgepack.runtime.tensors import Array


class OriginalModel:
    """Questions to the original, answered from the cache where they were asked before.

    Args:
        worker: The child process; it loads the model when the first question needs it, and is
            started again when a question was its end.
        path: The model.
        options: How to load it.
        cache: Answers.
        context: What every answer depends on besides the question: the model's digest.

    Attributes:
        prepare: From what callers give to what the model takes; nothing is done by default.
        categories: What the data shows, for every export.
    """

    def __init__(
        self,
        worker: WorkerProcess,
        path: Path,
        options: LoadOptions,
        *,
        cache: AnswerCache,
        context: tuple[str, ...],
    ) -> None:
        self._worker = worker
        self._load = Message(
            kind="load", fields={"path": str(path.absolute()), "options": to_fields(options)}
        )
        self._cache = cache
        self._context = (*context, repr(options))
        self.prepare: Callable[[Mapping[str, Array]], dict[str, Array]] = dict
        self.categories: tuple[CategoryValues, ...] = ()
        self._is_sent = False
        self._loaded: Message | None = None

    def begin(self) -> None:
        """Let the child load the model while this process does something else."""
        if self._known_facts() is None:
            self._send()

    def facts(self) -> ModelFacts:
        """What the model is.

        Raises:
            ConvertError: It could not be loaded.
        """
        known = self._known_facts()
        return from_fields(ModelFacts, (known or self._ensure_loaded()).fields)

    def run(self, task: Task, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """The original's answers to what callers give; `prepare` makes the model's inputs of it.

        Raises:
            UnfitDataError: The model refuses the rows.
            ConvertError: The child failed.
        """
        arrays = self.prepare(inputs)
        answer = self._ask(Message(kind="run", fields={"task": task.value}, arrays=arrays))
        return dict(answer.arrays)

    def export(self, wish: ExportWish, *, limit_s: float | None = None) -> Candidate:
        """The model in the format that is wished for.

        Args:
            wish: Which.
            limit_s: When to give up; by default the child's time for a question.

        Raises:
            UnsupportedModelError: It has no such form.
            ConvertError: The child failed.
        """
        wish = replace(wish, categories=self.categories)
        answer = self._ask(Message(kind="export", fields=to_fields(wish)), limit_s=limit_s)
        return Candidate(
            name=f"{wish.format}-{wish.precision}",
            precision=wish.precision.partition("-")[0],
            exported=Exported(
                data=answer.arrays[FILE].tobytes(),
                facts=from_fields(ExportFacts, answer.fields),
            ),
        )

    def use_tool(self, tool: str, job: ToolJob, *, limit_s: float | None = None) -> ToolResult:
        """Use a tool in the original's process, which has most of what it imports already.

        Args:
            tool: Its name.
            job: What it works on.
            limit_s: When to give up; by default the child's time for a question.

        Raises:
            UnsupportedModelError: The tool cannot take this model.
            ConvertError: The child failed.
        """
        message = tool_message(tool, job)
        return tool_result(self._ask(message, needs_model=False, limit_s=limit_s))

    def _ask(
        self, message: Message, *, needs_model: bool = True, limit_s: float | None = None
    ) -> Message:
        context = self._context if needs_model else ()

        def ask() -> Message:
            if needs_model or self._is_sent:
                self._ensure_loaded()
            try:
                return self._worker.ask(message, limit_s=limit_s)
            except WorkerError:
                self._begin_anew()
                raise

        return self._cache.answer(lambda: key_of(message, *context), ask)

    def _begin_anew(self) -> None:
        """Take another child for later questions: this one is gone, or cannot be trusted."""
        self._worker.restart()
        self._is_sent, self._loaded = False, None

    def _known_facts(self) -> Message | None:
        return self._loaded or self._cache.find(self._facts_key)

    def _facts_key(self) -> str:
        return key_of(Message(kind="load"), *self._context)

    def _send(self) -> None:
        if not self._is_sent:
            self._worker.send(self._load)
            self._is_sent = True

    def _ensure_loaded(self) -> Message:
        if self._loaded is None:
            self._send()
            self._loaded = self._worker.receive()
            self._cache.keep(self._facts_key, self._loaded)
        return self._loaded
