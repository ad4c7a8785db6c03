"""The server's way to a GPU beside a plain ONNX Runtime loop on the same GPU: `python -m benchmarks.gpu`.

The loop is the ceiling: inputs and outputs bound once, pixels copied over, run, results copied back, nothing around it.
Prints one JSON line: pictures a second and the 99th percentile of a request in ms. Without a GPU it exits with 1.
"""

import asyncio
import json
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np

from anther.open_inference import open_inference_pb2 as inference_pb
from benchmarks import load
from benchmarks.subject import photo_option, serving
from bundle.manifest import TF32
from bundle.preprocessing import Limits, Pixels
from bundle.repository import Bundle, Repository
from service.assembly import opener, scheduler
from service.config import Settings
from service.core.classifier import Classifier
from service.core.requests import ImageRequest, PixelsRequest
from service.engines.cuda import CudaOptions, batch_sizes_up_to, open_on_cuda, provider_options
from service.engines.engine import Engine
from service.engines.precision import primary_on
from service.engines.runtime import CPU, CUDA, load_runtime, nodes_by_provider, usable_device
from service.errors import DeviceUnavailable
from service.versions.registry import Registry

_PORT = 18007
_MAX_ROWS = 2048  # of pixels that wait in the server: 300 MB at 224 x 224
_RUNNERS = 2  # threads of the batcher that run an engine

Rate = dict[str, float]


@click.command()
@click.option("--models", default=Path("models"), type=click.Path(path_type=Path), show_default=True)
@click.option("--model", default="flowers", show_default=True)
@photo_option
@click.option("--sizes", default="1,8,32,64", show_default=True, help="Batch sizes, and pictures of a pixel request.")
@click.option("--callers", default="1,16,64,256", show_default=True, help="Closed-loop callers, one at a time.")
@click.option("--seconds", default=5, show_default=True, help="Length of each measurement.")
@click.option("--server/--no-server", default=True, show_default=True, help="Also through gRPC; takes h2load.")
def main(models: Path, model: str, photo: Path, sizes: str, callers: str, seconds: int, server: bool) -> None:
    """Rates and latencies on a GPU: alone, through the engine, through the scheduler, and through the server."""
    try:
        usable_device("cuda")
    except DeviceUnavailable as exc:
        sys.exit(f"this benchmark takes a GPU: {exc}")
    if server:
        load.require_h2load()
    batches, counts = ([int(number) for number in numbers.split(",")] for numbers in (sizes, callers))
    bundle = Repository(models).open(model)
    settings = Settings(
        models=models,
        default_model=model,
        device="cuda",
        max_batch=max(batches),
        queue_limit=_MAX_ROWS,
        queue_bytes=2**30,
    )
    report = {
        "gpu": _gpu(),
        **_plain(bundle, batches, seconds),
        "engine": _engine(bundle, batches, seconds, graphs=False),
        "engine_with_graphs": _engine(bundle, batches, seconds, graphs=True),
        **_in_process(settings, photo, batches, counts, seconds),
        "server": _server(settings, bundle, photo, batches, counts, seconds) if server else None,
    }
    print(json.dumps(report))


def _gpu() -> str:
    query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    return subprocess.run(query, capture_output=True, text=True, check=True).stdout.strip()


def _plain(bundle: Bundle, sizes: list[int], seconds: float) -> dict[str, Any]:
    """The ceiling, and where the session's nodes really are."""
    onnxruntime = load_runtime()
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    tf32 = primary_on(bundle.manifest, CUDA) == TF32
    providers = [(CUDA, provider_options(CudaOptions(tf32=tf32))), CPU]
    session = onnxruntime.InferenceSession(bundle.read(bundle.manifest.model.file), options, providers=providers)
    nodes = nodes_by_provider(session)
    rates = {size: _plain_loop(session, _pixels(bundle, size), seconds) for size in sizes}
    return {"providers": session.get_providers(), "nodes": dict(nodes), "plain": rates}


def _plain_loop(session: Any, pixels: Pixels, seconds: float) -> Rate:
    value = load_runtime().OrtValue.ortvalue_from_numpy(pixels, "cuda")
    binding = session.io_binding()
    binding.bind_ortvalue_input("pixels", value)
    for name in ("probabilities", "logits"):
        binding.bind_output(name, "cuda")

    def step() -> None:
        value.update_inplace(pixels)
        session.run_with_iobinding(binding)
        binding.copy_outputs_to_cpu()

    return _threads(step, len(pixels), seconds, 1)


def _engine(bundle: Bundle, sizes: list[int], seconds: float, graphs: bool) -> dict[int, Rate]:
    """As the batcher's threads run it, which pays where one copies while the other computes."""
    options = CudaOptions(batch_sizes_up_to(max(sizes)), graphs=graphs)
    engine: Engine = open_on_cuda(bundle, options)
    rates = {}
    for size in sizes:
        rates[size] = _threads(partial(engine.run, (_pixels(bundle, size),)), size, seconds, _RUNNERS)
    engine.close()
    return rates


def _in_process(settings: Settings, photo: Path, sizes: list[int], counts: list[int], seconds: float) -> dict[str, Any]:
    """Through the registry, which replays the golden pictures, and the scheduler; no gRPC."""
    registry = Registry(Repository(settings.models), opener(settings, "cuda"), settings.default_model)
    registry.load_all()
    live, batches = registry.find(), list[int]()
    batcher = scheduler(settings, "cuda", lambda _, rows: batches.append(rows))
    classifier = Classifier(registry, batcher, Limits())
    request = ImageRequest(photo.read_bytes())
    classify = partial(classifier.classify, live, request)
    jpeg = {count: asyncio.run(_ask(classify, 1, count, seconds)) for count in counts}
    rows_per_batch = round(sum(batches) / len(batches), 1)
    pixels = {}
    for size, count in _affordable(sizes, counts):
        ask = partial(classifier.infer, live, PixelsRequest(_pixels(live.bundle, size)))
        pixels[f"{size} x {count}"] = asyncio.run(_ask(ask, size, count, seconds))
    batcher.close()
    proof = {"provider": live.engine.provider, "golden_difference": live.golden_difference}
    return {**proof, "jpeg": jpeg, "jpeg_rows_per_batch": rows_per_batch, "pixels": pixels}


def _server(
    settings: Settings, bundle: Bundle, photo: Path, sizes: list[int], counts: list[int], seconds: int
) -> dict[str, Any]:
    options = ["--device", settings.device, "--default-model", settings.default_model]
    for name in ("max_batch", "queue_limit", "queue_bytes"):
        options += [f"--{name.replace('_', '-')}", str(getattr(settings, name))]
    with serving(settings.models.resolve(), photo, _PORT, tuple(options)) as server:
        jpeg = {count: _of(load.callers(server, photo, count, seconds), 1) for count in counts}
        pixels = {
            f"{size} x {count}": _of(load.repeated(server, _model_infer(bundle, size), count, seconds), size)
            for size, count in _affordable(sizes, counts)
        }
        return {"jpeg": jpeg, "pixels": pixels, "memory_mb": round(server.memory_mb(), 1)}


def _affordable(sizes: list[int], counts: list[int]) -> list[tuple[int, int]]:
    """Pictures in a request and callers, as far as all that they hold at once fits into memory."""
    return [(size, count) for size in sizes for count in counts if size * count <= _MAX_ROWS]


def _model_infer(bundle: Bundle, size: int) -> load.Call:
    request, pixels = inference_pb.ModelInferRequest(model_name=bundle.name), _pixels(bundle, size)
    request.inputs.add(name="pixels", datatype="UINT8", shape=pixels.shape)
    request.raw_input_contents.append(pixels.tobytes())
    return load.Call("inference.GRPCInferenceService", "ModelInfer", request.SerializeToString())


def _pixels(bundle: Bundle, size: int) -> Pixels:
    side = bundle.manifest.preprocessing.crop
    return np.random.default_rng(0).integers(0, 256, (size, side, side, 3), np.uint8)


def _threads(step: Callable[[], object], rows: int, seconds: float, count: int) -> Rate:
    """`count` threads, each going on as soon as it is done."""
    latencies: list[float] = []

    def work(ends: float) -> None:
        while (started := time.perf_counter()) < ends:
            step()
            latencies.append(time.perf_counter() - started)

    for _ in range(10):
        step()
    began = time.perf_counter()
    threads = [threading.Thread(target=work, args=(began + seconds,)) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return _rate(latencies, rows, time.perf_counter() - began)


async def _ask(call: Callable[[], Awaitable[object]], rows: int, count: int, seconds: float) -> Rate:
    """`count` callers, each asking again as soon as it is answered."""
    latencies: list[float] = []

    async def caller(ends: float) -> None:
        while (started := time.perf_counter()) < ends:
            await call()
            latencies.append(time.perf_counter() - started)

    await asyncio.gather(*(call() for _ in range(count)))
    began = time.perf_counter()
    await asyncio.gather(*(caller(began + seconds) for _ in range(count)))
    return _rate(latencies, rows, time.perf_counter() - began)


def _rate(latencies: list[float], rows: int, elapsed: float) -> Rate:
    p99 = float(np.quantile(latencies, 0.99))
    return {"per_s": round(rows * len(latencies) / elapsed, 1), "p99_ms": round(1000 * p99, 2)}


def _of(found: load.Load, rows: int) -> Rate:
    return {"per_s": round(rows * found.per_s, 1), "p99_ms": round(found.quantile(0.99), 2)}


if __name__ == "__main__":
    main()
