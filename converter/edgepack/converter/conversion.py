"""The way in: looks at the request, starts the child, and hands over to the pipeline.

The child's imports take most of a conversion. It is therefore started before this process has
imported anything but this, and everything else is imported while the child is busy.
"""

import secrets
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from edgepack.converter.child import Child
from edgepack.converter.errors import OutputError, RequestError
from edgepack.converter.naming import model_name, model_version
from edgepack.converter.output import check_free, check_output
from edgepack.converter.report import ConvertReport
from edgepack.converter.request import ConvertRequest, Progress, ProgressCallback, Stage, Teller
from edgepack.converter.sources.find import recognise

_STAGES = list(Stage)
_REMOVALS = 20


def convert(request: ConvertRequest, progress: ProgressCallback | None = None) -> ConvertReport:
    """Convert a model to a signed bundle.

    Args:
        request: What to convert, and how.
        progress: Called when a stage begins.

    Returns:
        Where the bundle is, what is in it, what was left out and why.

    Raises:
        ConvertError: See `edgepack.converter.errors` for which and why.
        DatasetError: The data cannot be read, or does not fit the model.
        KeyFileError: The key that was named cannot be used.
        BundleError: The bundle cannot be written.
        KeyboardInterrupt: Nothing is left behind.
    """
    recipe = None
    if request.recipe is not None:
        from edgepack.converter.recipe import read_recipe  # nobody else has to wait for it
        from edgepack.converter.recipe_request import with_recipe

        recipe = read_recipe(request.recipe)
        request = with_recipe(request, recipe)
    if request.max_drop is not None:
        request = replace(
            request, tolerances=replace(request.tolerances, max_drop=request.max_drop)
        )
    _check(request)
    name = model_name(request.name, request.model)
    version = model_version(request.version, name, request.output)
    check_free(request.output, f"{name}-{version}.edgepack", overwrite=request.overwrite)
    recognised = recognise(request.model)
    tell = _teller(progress)
    # Python tries the folder with a file of its own, which a signal must not leave there
    temporary = _temporary_folder()
    tell(Stage.SOURCE, f"{request.model.name}: {recognised.description}")
    with (
        _scratch(temporary) as scratch,
        Child(
            recognised.module,
            timeout_s=request.timeout_s,
            memory_bytes=request.memory_bytes,
            file_bytes=recognised.scratch_bytes,
            scratch=scratch,
            own_code=request.runs_own_code,
        ) as child,
    ):
        from edgepack.converter.pipeline import Pipeline
        from edgepack.converter.recipe import Recipe

        pipeline = Pipeline(
            request=request,
            recognised=recognised,
            scratch=scratch,
            tell=tell,
            recipe=recipe or Recipe(),
        )
        return pipeline.run(child, name=name, version=version)


def _temporary_folder() -> Path:
    try:
        return Path(tempfile.gettempdir())
    except FileNotFoundError as exc:
        raise OutputError("no folder for temporary files can be written: set TMPDIR") from exc


@contextmanager
def _scratch(temporary: Path) -> Iterator[str]:
    """A folder for temporary files that is gone afterwards, whenever a signal comes.

    `tempfile.TemporaryDirectory` makes the folder before it knows that it must be removed.
    """
    path = temporary / f"edgepack-{secrets.token_hex(8)}"
    try:
        path.mkdir(mode=0o700)
        yield str(path)
    except OSError as exc:
        if exc.filename != str(path):
            raise
        raise OutputError(f"no folder for temporary files can be made: {exc.strerror}") from exc
    finally:
        for _ in range(_REMOVALS):  # a child that was just killed may still have been writing
            shutil.rmtree(path, ignore_errors=True)
            if not path.exists():
                break
            time.sleep(0.1)


def _check(request: ConvertRequest) -> None:
    if request.data is None:
        raise RequestError(
            "data is needed: at least 64 real rows prove that the converted model answers as the "
            "original does (--data FILE: CSV, Parquet, npz, npy or safetensors)"
        )
    tolerances = request.tolerances
    for field in ("rtol", "atol", "max_drop"):
        value = getattr(tolerances, field)
        if not 0 <= value < float("inf"):
            raise RequestError(f"tolerance {field} must be >= 0, got {value}")
    if tolerances.max_drop >= 1:  # 5 means five percent to whoever writes it, and all would pass
        raise RequestError(
            f"tolerance max_drop must be a fraction below 1 (0.01 is one point), "
            f"got {tolerances.max_drop:g}"
        )
    if request.timeout_s <= 0:
        raise RequestError(f"timeout must be > 0 s, got {request.timeout_s:g}")
    check_output(request.output)


def _teller(progress: ProgressCallback | None) -> Teller:
    furthest = 0

    def tell(stage: Stage, message: str) -> None:
        nonlocal furthest  # parity comes again for every variant
        if progress is not None:
            step = furthest = max(furthest, _STAGES.index(stage) + 1)
            progress(Progress(stage=stage, step=step, steps=len(_STAGES), message=message))

    return tell
