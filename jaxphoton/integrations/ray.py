"""Captioning with Ray Data: `Captioner`, an asynchronous class for `map_batches`, and `caption_dataset` around it."""

from __future__ import annotations

import asyncio
import dataclasses
import io
import threading
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import Future
from importlib import import_module
from queue import SimpleQueue
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from jaxphoton.batch.exports.parquet import arrow_type
from jaxphoton.batch.retries import retrying
from jaxphoton.config.mesh import MeshError, engine_meshes
from jaxphoton.messages import quoted
from jaxphoton.requests.answer import Answer
from jaxphoton.requests.ask import Ask, Job
from jaxphoton.requests.skills import SKILLS

if TYPE_CHECKING:
    from jaxphoton.config import EngineConfig

Dataset = Any  # a ray.data.Dataset: Ray is an extra, and need not be there for type checkers

# Greedy, so that a block which Ray runs again comes out the same.
GREEDY: Mapping[str, Any] = MappingProxyType({"temperature": 0})


def columns_of(task: str) -> list[pa.Field]:
    """The columns that a task adds."""
    fields = (each for each in SKILLS[task].fields if each.column != "")
    return [pa.field(each.name, arrow_type(each.kind.shape, pa)) for each in fields]


ENDS = (
    pa.field("finish_reason", pa.string()),
    pa.field("error", pa.string()),
    pa.field("input_tokens", pa.int32()),
    pa.field("output_tokens", pa.int32()),
)

_EXAMPLES = {"prompt": "What is this?", "question": "What is this?", "object": "object"}
# Batches that an actor has in hand. While the last rows of one finish, those of the others keep the engine full.
_CALLS = 4


class Captioner:
    """A model that is asked about every row of a Ray dataset; for `map_batches(..., batch_format="pyarrow")`.

    Adds to a table the result of the task (a column `caption`, `answer`, `objects` or `points`; of "segment" `path`,
    `bbox` and `parse_error`) and
      finish_reason: "stop", "length", or "error" where the row could not be answered;
      error: what was wrong then, else null;
      input_tokens, output_tokens: int32, null with an error.
    Rows keep their order. What is wrong with one row (a broken image, a bad question) is its own error; what is wrong
    with the engine is raised. The rows of all batches that Ray hands over wait in one queue, so that the engine stays
    full from one batch to the next; of them, twice the engine's rows are decoded and asked at a time.

    Args:
      model: a folder, a file, a Hugging Face id, or "shapes".
      task: "caption", "query", "detect", "point" or "segment".
      image_column: bytes of an image file, or paths that the actor can open.
      arguments: of the task, the same for every row: `length` or `prompt` (which takes the place of the model's own
        captioning prompt), `question`, `reasoning`, `object`.
      columns: arguments that rows bring along, as {argument: column}; null falls back to `arguments`.
      settings: how to generate, see `Model`, and with which "adapter"; by default greedy.
      retry_loops: how often a text that repeats itself is asked again at most, see `batch.retries`.
      engine: see `EngineConfig`; its `image_workers` decode beside the actor.
      options: more of `Model.from_pretrained`, such as `revision`, `dtype`, `max_pixels` or `adapters`.

    Raises:
      ValueError: an unknown task, or arguments or settings that no row could be asked with.
      WeightsError, ConfigError, TokenizerError: the model cannot be loaded.
    """

    def __init__(
        self,
        model: str,
        *,
        task: str = "caption",
        image_column: str = "bytes",
        arguments: Mapping[str, Any] | None = None,
        columns: Mapping[str, str] | None = None,
        settings: Mapping[str, Any] | None = GREEDY,
        engine: EngineConfig | None = None,
        retry_loops: int = 0,
        **options: Any,
    ):
        from jaxphoton.api import Model  # here: the driver imports this file, and has no use for jax

        if task not in SKILLS:
            raise ValueError(f"task must be one of {', '.join(SKILLS)}, got {task!r}")
        self._task, self._image_column = task, image_column
        self._arguments, self._columns, self._settings = dict(arguments or {}), dict(columns or {}), settings
        self._model = Model.from_pretrained(model, engine=engine, **options)
        self._answerer = retrying(self._model, retry_loops, self._model.family.defaults)
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._pending: set[Future[Answer]] = set()
        self._fault: RuntimeError | None = None  # why no more will be answered
        self._try_out()
        threading.Thread(target=self._work, name="jaxphoton-captioner", daemon=True).start()

    async def __call__(self, batch: pa.Table) -> AsyncIterator[pa.Table]:
        """The batch with the columns added.

        Raises:
          TypeError: the batch is not a table.
          ValueError: a column is missing, or is there already.
          EngineError: the engine has failed.
          RuntimeError: this was closed.
        """
        self._check(batch)
        images = batch.column(self._image_column).to_pylist()
        given = {name: batch.column(column).to_pylist() for name, column in self._columns.items()}
        answers = await asyncio.gather(
            *(self._answer(image, {name: given[name][row] for name in given}) for row, image in enumerate(images))
        )
        rows = [self._row(answer) for answer in answers]
        for field in (*columns_of(self._task), *ENDS):
            batch = batch.append_column(field, pa.array([row.get(field.name) for row in rows], field.type))
        yield batch

    def close(self) -> None:
        """Ends the engine and the image workers; Ray ends the process instead."""
        self._jobs.put(None)
        self._model.close()

    def _try_out(self) -> None:
        """Compiles, and finds out what would be wrong with every row."""
        from PIL import Image

        file = io.BytesIO()
        Image.new("RGB", (32, 32)).save(file, "PNG")
        ask = self._ask({name: _EXAMPLES.get(name) for name in self._columns})
        ask = dataclasses.replace(ask, settings={"max_tokens": 1, **(ask.settings or {})})
        for answer in self._model.answer([Job(None, file.getvalue(), (ask,))]):
            if answer.error is not None:
                raise answer.error

    def _work(self) -> None:
        """The thread that runs all jobs, whichever batch they are of."""
        fault = RuntimeError("this Captioner has been closed")
        try:
            for answer in self._answerer.answer(iter(self._jobs.get, None)):
                assert isinstance(answer.key, Future)
                answer.key.set_result(answer)
        except BaseException as error:
            fault = RuntimeError(f"this Captioner has stopped: {error!r}")
            fault.__cause__ = error
        self._fault = fault
        for future in tuple(self._pending):
            future.set_exception(fault)

    async def _answer(self, image: Any, given: Mapping[str, Any]) -> Answer:
        future: Future[Answer] = Future()
        future.set_running_or_notify_cancel()  # from here on it cannot be cancelled, only left alone
        self._pending.add(future)
        future.add_done_callback(self._pending.discard)
        if self._fault is not None:
            raise self._fault
        self._jobs.put(Job(future, image, (self._ask(given),)))
        return await asyncio.wrap_future(future)

    def _ask(self, given: Mapping[str, Any]) -> Ask:
        arguments = self._arguments | {name: value for name, value in given.items() if value is not None}
        if self._task == "caption" and "prompt" in arguments:
            return Ask("query", {"question": arguments["prompt"], "reasoning": False}, self._settings)
        return Ask(self._task, arguments, self._settings)

    def _row(self, answer: Answer) -> dict[str, Any]:
        from jaxphoton.requests.errors import EngineError

        if isinstance(answer.error, EngineError):
            raise answer.error
        if answer.error is not None:
            return {"finish_reason": "error", "error": str(answer.error)}
        (result,) = answer.results
        found = {"caption": result["answer"]} if self._task == "caption" and "answer" in result else result
        return {
            **{field.name: found.get(field.name) for field in columns_of(self._task)},
            "finish_reason": result.finish_reason,
            "input_tokens": result.metrics.input_tokens,
            "output_tokens": result.metrics.output_tokens,
        }

    def _check(self, batch: pa.Table) -> None:
        if not isinstance(batch, pa.Table):
            raise TypeError(f'expected a table, not {type(batch).__name__}: map_batches needs batch_format="pyarrow"')
        for column in (self._image_column, *self._columns.values()):
            if column not in batch.column_names:
                raise ValueError(f"no column {column!r}; there are: {', '.join(batch.column_names)}")
        for field in (*columns_of(self._task), *ENDS):
            if field.name in batch.column_names:
                raise ValueError(f"there is a column {field.name!r} already: rename it (Dataset.rename_columns)")


def caption_dataset(
    ds: Dataset,
    model: str,
    *,
    replicas: int | None = None,
    batch_size: int = 64,
    num_cpus: float | None = None,
    **options: Any,
) -> Dataset:
    """The dataset with the columns of a `Captioner` added, by one actor a GPU, or a mesh of them; on the CPU where Ray
    knows no GPU.

    Args:
      ds: rows with an image each, as from `ray.data.read_binary_files(folder, include_paths=True)`.
      model, options: of the `Captioner`; a mesh is a text.
      replicas: actors; by default as many as the nodes have GPUs for, at least one.
      batch_size: rows that are handed to an actor, and come back, together.
      num_cpus: that Ray sets aside for an actor and its image workers; None for Ray's choice.

    Raises:
      MeshError: the mesh is none, or says how many copies there are.
      TypeError: it is no text.
      ValueError: no node has GPUs for it, and no `replicas` are given.
    """
    ray: Any = import_module("ray")
    import_module("ray.data")
    each = _devices(options.get("mesh"))
    gpus = [int(node["Resources"].get("GPU", 0)) for node in ray.nodes() if node["Alive"]]
    if replicas is None and 0 < max(gpus, default=0) < each:  # with a number Ray waits for larger ones
        raise ValueError(
            f"an actor with the mesh {options['mesh']!r} needs {each} GPUs of one node; none has more than {max(gpus)}"
        )
    pool = ray.data.ActorPoolStrategy(
        size=max(1, sum(count // each for count in gpus)) if replicas is None else replicas,
        max_concurrent_calls_per_actor=_CALLS,
        max_tasks_in_flight_per_actor=2 * _CALLS,
    )
    return ds.map_batches(
        Captioner,
        fn_constructor_kwargs={"model": model, **options},
        compute=pool,
        batch_size=batch_size,
        batch_format="pyarrow",
        num_cpus=num_cpus,
        num_gpus=each if any(gpus) else None,
        udf_modifying_row_count=False,
    )


def _devices(mesh: Any) -> int:
    """Of one actor."""
    if mesh is not None and not isinstance(mesh, str):
        raise TypeError(f'mesh must be a text such as "model=2", not {quoted(mesh)}: each actor has devices of its own')
    meshes = engine_meshes(mesh)
    if meshes.copies > 1:
        raise MeshError(
            f"the mesh has data={meshes.copies}: actors are copies of the model, of which replicas says how many"
        )
    return meshes.devices
