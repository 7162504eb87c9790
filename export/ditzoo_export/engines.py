"""Building TensorRT engines.

The same code works with TensorRT 10, TensorRT 11 and TensorRT-RTX 1. The functions take the Python module of one of them as
the argument `trt`. Networks are strongly typed: the precision of an engine is that of its ONNX graph.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from ditzoo.backends import cuda
from ditzoo.backends.loading_engines import check_architecture
from ditzoo.bundle import ENGINE, REUSE_GRAPH, Bundle, Engine, Graph
from ditzoo.errors import ExportError, MissingPackageError, UsageError
from ditzoo.files import cache_dir, remember
from ditzoo.progress import SILENT, Display, Report, silent
from ditzoo.specs import Profile
from ditzoo_export.builder_phases import monitor, stoppable
from ditzoo_export.engine_bundle import finish_engines
from ditzoo_export.settings import EngineSettings, check_precision, conditioning_profile

log = logging.getLogger(__name__)

_LONGEST_LABEL = 80
"""The largest number of characters for the profiles in a file's name. Most file systems limit names to 255 bytes.

The name of the file is also the name of the model's folder in a Triton repository.
"""

_FLAGS = {
    "stripped": "STRIP_PLAN",
    "refittable": "REFIT",
    "version_compatible": "VERSION_COMPATIBLE",
    "weight_streaming": "WEIGHT_STREAMING",
}


def fill_engines(
    folder: Path,
    source: Bundle,
    settings: EngineSettings,
    *,
    key: str,
    made_by: dict[str, str],
    display: Display = SILENT,
) -> None:
    """Fills `folder` with the engines of a bundle's graphs. Each engine is a stage on `display`.

    Raises ExportError, with TensorRT's error messages, if an engine cannot be built.
    """
    trt = load(settings.flavour)
    gpus = targets(settings)
    built = ("backbone", "conditioning", REUSE_GRAPH)
    graphs = {name: graph for name, graph in source.manifest.graphs.items() if name in built}
    engines = {}
    for name, graph in graphs.items():
        profiles = (conditioning_profile(),) if name == "conditioning" else settings.profiles
        for group in (profiles,) if settings.merged else [(profile,) for profile in profiles]:
            with display.stage(f"building the engine of {name} for {', '.join(gpus)}: {'; '.join(map(str, group))}") as report:
                engine = _engine(folder, source.path, name, graph, group, settings, trt=trt, gpus=gpus, report=report)
            engines[engine.file.removesuffix(ENGINE)] = engine
    finish_engines(
        folder,
        source,
        engines,
        key=key,
        made_by=made_by,
        settings={
            "command": settings.command(source.card),
            "flavour": settings.flavour,
            "gpus": ", ".join(gpus),
            **({"built on": cuda.gpu_name()} if cuda.gpu() else {}),
        },
    )


def load(flavour: str) -> Any:
    """The Python module of a flavour of TensorRT. Raises MissingPackageError if it is not installed."""
    try:
        return import_module(flavour)
    except ModuleNotFoundError as error:
        extra = flavour.replace("_", "-")
        raise MissingPackageError(f"building {flavour} engines needs a package: pip install 'ditzoo[{extra}]'") from error


def targets(settings: EngineSettings) -> tuple[str, ...]:
    """The GPUs to build for. Raises UsageError, with a remedy, if the flavour cannot build for them on this machine."""
    here, flavour = cuda.gpu(), settings.flavour
    if settings.gpus is None and here is None:
        hint = (
            "name one, such as --gpu sm89"
            if flavour == "tensorrt_rtx"
            else "build on the GPU that will run it, or use tensorrt_rtx"
        )
        raise UsageError(f"--gpu current: this machine has no GPU; {hint}")
    gpus = settings.gpus or (here or "",)
    if flavour == "tensorrt" and gpus != (here,):
        raise UsageError(
            f"tensorrt builds only for the GPU of this machine ({here or 'it has none'}); use --flavour tensorrt_rtx"
        )
    for gpu in gpus:
        check_architecture(load(flavour), gpu)
        check_precision(gpu, settings.onnx.precision)
    _check_options(settings, here)
    return gpus


def build(
    trt: Any,
    path: Path,
    graph: Graph,
    profiles: Sequence[Profile],
    gpus: Sequence[str],
    options: Sequence[str],
    *,
    workspace: int | None = None,
    report: Report = silent,
) -> bytes:
    """A serialised engine of the ONNX graph at `path`.

    `workspace` is the most device memory for the intermediate results of a layer, in MB; by default all there is. `report` is
    called with each phase of the build. Raises ExportError, with the error messages of the parser or the builder, if the engine
    cannot be built, and KeyboardInterrupt if the user stops it.
    """
    errors_said: list[str] = []
    logger = _logger(trt, errors_said)
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(path)):
        errors = [parser.get_error(i) for i in range(parser.num_errors)]
        said = "; ".join(f"{error.node_name()} ({error.node_operator()}): {error.desc()}" for error in errors)
        raise ExportError(f"{trt.__name__} cannot read {path.name}: {said}")
    config = builder.create_builder_config()
    for profile in profiles:
        config.add_optimization_profile(_optimization_profile(builder, graph, profile))
    _configure(trt, config, gpus, options)
    if workspace is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, workspace * 2**20)
    timing = _timing_cache(trt, config, gpus)
    with stoppable() as stopped:
        config.progress_monitor = monitor(trt, report, stopped)
        engine = builder.build_serialized_network(network, config)
    if engine is None:
        raise ExportError(f"{trt.__name__} cannot build {path.name}: {'; '.join(errors_said) or 'it gives no reason'}")
    if timing is not None:
        _keep_timing(config, timing)
    return bytes(engine)


def _engine(
    folder: Path,
    source: Path,
    name: str,
    graph: Graph,
    profiles: Sequence[Profile],
    settings: EngineSettings,
    *,
    trt: Any,
    gpus: tuple[str, ...],
    report: Report,
) -> Engine:
    """Builds one engine into `folder`."""
    started = time.perf_counter()
    log.info("building %s for %s: %s", name, ", ".join(gpus), "; ".join(map(str, profiles)))
    file = f"{name}-{_labels(profiles)}{ENGINE}"
    built = build(
        trt, source / graph.file, graph, profiles, gpus, settings.options, workspace=settings.workspace, report=report
    )
    (folder / file).write_bytes(built)
    return Engine(
        file=file,
        graph=name,
        flavour=settings.flavour,
        version=trt.__version__,
        gpus=gpus,
        precision=graph.precision,
        profiles=tuple(profiles),
        options=settings.options,
        inputs=graph.inputs,
        outputs=graph.outputs,
        outer_blocks=graph.outer_blocks,
        seconds=round(time.perf_counter() - started, 1),
    )


def _labels(profiles: Sequence[Profile]) -> str:
    """The profiles as a part of a file's name. If that is too long, it is their number and a hash of them."""
    text = "+".join(map(_label, profiles))
    if len(text) <= _LONGEST_LABEL:
        return text
    return f"{len(profiles)}-profiles-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def _label(profile: Profile) -> str:
    """A profile as a part of a file's name, such as "32x32-b8-16"."""
    size = "x".join(str(profile.axes[axis]) for axis in ("height", "width") if axis in profile.axes)
    return f"{size}{'-' if size else ''}b{profile.axes['batch']}"


def _check_options(settings: EngineSettings, here: str | None) -> None:
    """Raises UsageError if the flavour does not have an option, or if the option needs a GPU and this machine has none."""
    rtx, options = settings.flavour == "tensorrt_rtx", settings.options
    if rtx and "version_compatible" in options:
        raise UsageError(
            "tensorrt_rtx has no version-compatible engines; build again for each version, or use --flavour tensorrt"
        )
    if rtx and "hardware_compatible" in options:
        raise UsageError(
            "tensorrt_rtx engines run on the GPUs that they were built for; name all of them: --gpu sm86,sm89,sm120"
        )
    for option in ("stripped", "refittable"):
        if rtx and here is None and option in options:
            raise UsageError(f"tensorrt_rtx builds {option} engines only on a machine with a GPU; this machine has none")


def _configure(trt: Any, config: Any, gpus: Sequence[str], options: Sequence[str]) -> None:
    if "tf32" not in options:
        config.clear_flag(trt.BuilderFlag.TF32)  # it is set by default
    for flag in _flags(trt, options):
        config.set_flag(flag)
    if "hardware_compatible" in options:
        config.hardware_compatibility_level = trt.HardwareCompatibilityLevel.AMPERE_PLUS
    if not hasattr(trt, "ComputeCapability"):
        return
    config.num_compute_capabilities = len(gpus)
    for i, gpu in enumerate(gpus):
        config.set_compute_capability(getattr(trt.ComputeCapability, gpu.upper()), i)


def _flags(trt: Any, options: Sequence[str]) -> list[Any]:
    """The builder's flags of these options. An engine without weights needs one more, unless it takes any weights.

    TensorRT then expects the weights that it was built from. TensorRT-RTX has no such engines: there they take any weights.
    """
    names = [_FLAGS[option] for option in options if option in _FLAGS]
    if "stripped" in options and "refittable" not in options:
        names.append("REFIT" if hasattr(trt, "ComputeCapability") else "REFIT_IDENTICAL")
    return [getattr(trt.BuilderFlag, name) for name in names]


def _optimization_profile(builder: Any, graph: Graph, sizes: Profile) -> Any:
    optimization = builder.create_optimization_profile()
    for spec in graph.inputs:
        optimization.set_shape(spec.name, *sizes.shapes(spec))
    return optimization


def _logger(trt: Any, errors_said: list[str]) -> Any:
    """A logger of TensorRT. It adds errors to `errors_said`, and passes all messages to the log of this module."""

    class Logger(trt.ILogger):  # type: ignore[misc]  # mypy does not know the module
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.INTERNAL_ERROR, trt.ILogger.ERROR):
                errors_said.append(message)
            log.debug("%s: %s", trt.__name__, message)

    return Logger()


def _timing_cache(trt: Any, config: Any, gpus: Sequence[str]) -> Path | None:
    """Gives the builder the kernel timings that earlier builds measured on this GPU. Returns the path of their file.

    Returns None for TensorRT-RTX, which measures no timings when it builds.
    """
    if hasattr(trt, "ComputeCapability"):
        return None
    path = cache_dir() / "timing" / f"{trt.__name__}-{trt.__version__}-{'-'.join(gpus)}"
    cache = config.create_timing_cache(path.read_bytes() if path.is_file() else b"")
    config.set_timing_cache(cache, False)
    return path


def _keep_timing(config: Any, path: Path) -> None:
    remember(path, bytes(config.get_timing_cache().serialize()))
