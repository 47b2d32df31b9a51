"""The runtimes that a benchmark times: loading a model into each, with every setting that changes its speed.

A runtime is imported only where it is asked for: a process, and an environment, needs the one it times and no other.
"""

import inspect
import json
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxproof.benchmark.writing import TorchWriter, Writer, can_write, make_onnx_writer
from onnxproof.cli import UserError
from onnxproof.files import read_json
from onnxproof.graph.generation import empty_cache
from onnxproof.graph.sessions import check_provider, options_of_provider
from onnxproof.inputs.prompts import PAST
from onnxproof.tasks.registry import TASKS

BYTES_PER_MB = 1_000_000
ONNX_DTYPES: dict[str, type[np.generic]] = {
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(float)": np.float32,
    "tensor(bool)": np.bool_,
    "tensor(uint8)": np.uint8,
}
#: Types of inputs that graphs of others have, which are made from float32.
FROM_FLOAT32: dict[str, type[np.generic]] = {"tensor(float16)": np.float16, "tensor(double)": np.float64}

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class LoadedModel:
    """A loaded model: how to call it and what loading it took.

    ``prepare`` turns numpy inputs into the runtime's own, outside the timed part; ``read`` takes one output, by its
    name, from what ``predict`` returned. ``input_types`` maps input names to ONNX types, ``input_ranks`` to their
    numbers of axes; both are None for PyTorch, which takes what the ONNX graph takes. ``cache`` is the empty cache of
    one text, where a graph takes one: see ``empty_cache``. ``seeing`` makes prompts, where it writes about images.
    ``writer`` writes token by token, where it goes on with texts alone. ``dtype`` is the type of PyTorch's weights.
    """

    predict: Callable[[Any], Any]
    prepare: Callable[[Arrays], Any]
    read: Callable[[Any, str], NDArray[Any]]
    input_types: dict[str, str] | None
    input_ranks: dict[str, int] | None
    load_ms: float
    rss_before_load_mb: float
    cache: Arrays = field(default_factory=dict)
    seeing: "Seeing | None" = None
    writer: Writer | None = None
    dtype: str | None = None


@dataclass(frozen=True)
class Seeing:
    """What makes a prompt with images for a model: its image token, and how many of them the images in a feed take."""

    image_token: int
    count: Callable[[Arrays], int]


def status_mb(field: str) -> float | None:
    """Return a memory field of ``/proc/self/status`` (such as VmHWM) in MB of 1e6 bytes, None without it."""
    status = Path("/proc/self/status")
    if not status.exists():
        return None
    for line in status.read_text(encoding="utf-8").splitlines():
        key, _, value = line.partition(":")
        if key == field:
            return int(value.split()[0]) * 1024 / BYTES_PER_MB
    return None


def peak_rss_mb() -> float:
    """Return this process's peak resident memory in MB of 1e6 bytes.

    ``VmHWM`` comes first: ``ru_maxrss`` may hold the peak of the parent that forked this process. The latter
    counts KiB on Linux and bytes on macOS.
    """
    peak = status_mb("VmHWM")
    if peak is not None:
        return peak
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / BYTES_PER_MB


def current_rss_mb() -> float:
    """Return this process's resident memory in MB of 1e6 bytes; where only the peak is known, the peak."""
    current = status_mb("VmRSS")
    return peak_rss_mb() if current is None else current


def has_several_graphs(folder: Path) -> bool:
    """Tell whether a folder holds the graphs of an encoder-decoder, or of a model that writes about images."""
    return any((folder / name).is_file() for name in ("encoder_model.onnx", "vision_encoder.onnx"))


def open_graph(
    folder: Path, options: Any, provider: tuple[str, dict[str, str]], graphs: dict[str, str] | None = None
) -> Any:
    """Open ``folder/model.onnx``, or the graphs of a model of several; ``graphs`` has their paths, if they differ."""
    import onnxruntime

    def open_session(file: Path) -> Any:
        return onnxruntime.InferenceSession(str(file), options, providers=[provider])

    if graphs is None and not has_several_graphs(folder):
        return open_session(folder / "model.onnx")
    from onnxproof.graph.encoder_decoder import files_of_variant, open_graphs

    files = {part: folder / name for part, name in graphs.items()} if graphs else files_of_variant(folder)
    return open_graphs(files, folder, open_session)


def named_by_original(values: Iterable[Any], names: dict[str, str]) -> list[Any]:
    """Return the inputs of a graph under the original's names, with float32 in the place of other floats.

    Args:
        values: the inputs of a session.
        names: the original's name of each.
    """
    return [
        SimpleNamespace(
            name=names.get(value.name, value.name),
            type="tensor(float)" if value.type in FROM_FLOAT32 else value.type,
            shape=value.shape,
        )
        for value in values
    ]


def feed_under_own_names(arrays: Arrays, values: Iterable[Any], names: dict[str, str]) -> Arrays:
    """Return inputs under the names of a graph, and in its types, from those under the original's names."""
    feed = {value.name: (arrays[names.get(value.name, value.name)], FROM_FLOAT32.get(value.type)) for value in values}
    return {name: array if dtype is None else array.astype(dtype) for name, (array, dtype) in feed.items()}


def load_onnx(
    folder: Path,
    threads: int,
    *,
    provider: str = "CPUExecutionProvider",
    spinning: bool = True,
    arena: bool = True,
    parallel: bool = False,
    graphs: dict[str, str] | None = None,
    names: dict[str, str] | None = None,
) -> LoadedModel:
    """Open the model of a folder: ``threads`` within an operator, operators one after another unless ``parallel``.

    ``spinning`` is whether idle threads wait actively, ``arena`` whether freed memory is kept for the next call; the
    defaults are onnxruntime's own. For files of others, ``graphs`` has the path in the folder of each of
    ``graph_files``, and ``names`` the original's name of each input that has another.

    Raises:
        UserError: this onnxruntime has no such execution provider.
    """
    import onnxruntime

    check_provider(provider)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = threads if parallel else 1
    mode = onnxruntime.ExecutionMode
    options.execution_mode = mode.ORT_PARALLEL if parallel else mode.ORT_SEQUENTIAL
    options.enable_cpu_mem_arena = arena
    options.add_session_config_entry("session.intra_op.allow_spinning", str(int(spinning)))
    if graphs is not None or has_several_graphs(folder):
        import onnxproof.graph.encoder_decoder  # noqa: F401 - what it imports is not the model's memory
    rss = current_rss_mb()
    start = time.perf_counter_ns()
    session = open_graph(folder, options, (provider, options_of_provider(provider, threads)), graphs)
    load_ms = (time.perf_counter_ns() - start) / 1e6
    outputs = [node.name for node in session.get_outputs()]
    inputs = session.get_inputs() if names is None else named_by_original(session.get_inputs(), names)

    def predict(feeds: Arrays) -> list[NDArray[Any]]:
        made: list[NDArray[Any]] = session.run(None, feeds)
        return made

    def prepare(arrays: Arrays) -> Arrays:
        return dict(arrays) if names is None else feed_under_own_names(arrays, session.get_inputs(), names)

    def read(made: list[NDArray[Any]], name: str) -> NDArray[Any]:
        return made[outputs.index(name)]

    return LoadedModel(
        predict=predict,
        prepare=prepare,
        read=read,
        input_types={node.name: node.type for node in inputs},
        input_ranks={node.name: len(node.shape) for node in inputs},
        load_ms=load_ms,
        rss_before_load_mb=rss,
        cache=empty_cache(inputs),
        seeing=Seeing(session.image_token, lambda feed: len(session.look(feed))) if hasattr(session, "look") else None,
        writer=(
            make_onnx_writer(session)
            if graphs is None and not has_several_graphs(folder) and can_write(session)
            else None
        ),
    )


def load_openvino(folder: Path, threads: int, *, precision: str | None = None) -> LoadedModel:
    """Compile ``folder``'s ``model.xml``, or else ``model.onnx``, for OpenVINO's CPU plugin, tuned for latency.

    ``precision`` is "f32" or "bf16"; None leaves OpenVINO its choice, which is bf16 where the CPU has instructions
    for it.
    """
    import openvino

    from onnxproof.benchmark.peer_writers import OpenVinoWriter

    own = folder / "model.xml"
    settings = {"INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1, "PERFORMANCE_HINT": "LATENCY"}
    if precision is not None:
        settings["INFERENCE_PRECISION_HINT"] = precision
    rss = current_rss_mb()
    start = time.perf_counter_ns()
    model = openvino.Core().compile_model(own if own.is_file() else folder / "model.onnx", "CPU", settings)
    load_ms = (time.perf_counter_ns() - start) / 1e6
    request = model.create_infer_request()

    def read(outputs: Any, name: str) -> NDArray[Any]:
        return np.array(outputs[name])

    kinds = {"i64": "tensor(int64)", "i32": "tensor(int32)", "f32": "tensor(float)", "boolean": "tensor(bool)"}
    cache = {
        node.any_name: np.zeros(
            [size.get_length() if size.is_static else 0 for size in node.partial_shape[1:]], np.float32
        )
        for node in model.inputs
        if node.any_name.startswith(PAST)
    }
    return LoadedModel(
        predict=request.infer,
        prepare=dict,
        read=read,
        input_types={node.any_name: kinds[node.element_type.get_type_name()] for node in model.inputs},
        input_ranks={node.any_name: len(node.partial_shape) for node in model.inputs},
        load_ms=load_ms,
        rss_before_load_mb=rss,
        cache=cache,
        writer=OpenVinoWriter(model, cache) if cache else None,
    )


def load_genai(folder: Path, threads: int) -> LoadedModel:
    """Load a folder with a ``genai_config.json`` into onnxruntime-genai, which writes and does nothing else."""
    import onnxruntime_genai

    from onnxproof.benchmark.peer_writers import GenaiWriter

    decoder = read_json(folder / "genai_config.json")["model"]["decoder"]
    config = onnxruntime_genai.Config(str(folder))
    options = {"intra_op_num_threads": threads, "inter_op_num_threads": 1}
    config.overlay(json.dumps({"model": {"decoder": {"session_options": options}}}))
    rss = current_rss_mb()
    start = time.perf_counter_ns()
    model = onnxruntime_genai.Model(config)
    load_ms = (time.perf_counter_ns() - start) / 1e6
    heads = np.zeros((decoder["num_key_value_heads"], 0, decoder["head_size"]), np.float32)
    cache = {f"{part}.{layer}": heads for part in ("key", "value") for layer in range(decoder["num_hidden_layers"])}
    return _only_writes(GenaiWriter(model), cache, load_ms, rss)


def load_llama(folder: Path, threads: int, *, most_tokens: int, most_texts: int) -> LoadedModel:
    """Load the GGUF file of a folder into llama.cpp, which writes and does nothing else.

    Its cache has room for ``most_tokens`` of ``most_texts`` texts together, and is made when the file is loaded.
    """
    import llama_cpp

    from onnxproof.benchmark.peer_writers import LlamaWriter

    (file,) = folder.glob("*.gguf")
    llama_cpp.llama_backend_init()
    rss = current_rss_mb()
    start = time.perf_counter_ns()
    model = llama_cpp.llama_model_load_from_file(str(file).encode(), llama_cpp.llama_model_default_params())
    if not model:
        raise UserError(f"{file}: llama.cpp cannot load it; its own message is on stderr")
    writer = LlamaWriter(model, threads, most_tokens, most_texts)
    return _only_writes(writer, {}, (time.perf_counter_ns() - start) / 1e6, rss)


def _only_writes(writer: Writer, cache: Arrays, load_ms: float, rss: float) -> LoadedModel:
    def refuse(*asked: Any) -> Any:
        raise UserError(f"{type(writer).__name__} writes token by token and answers no other inputs")

    return LoadedModel(refuse, refuse, refuse, {}, {}, load_ms, rss, cache=cache, writer=writer)


def limit_torch_threads(threads: int) -> None:
    """Give torch ``threads`` within an operator and one between operators; before any other work."""
    import torch

    torch.set_num_threads(threads)
    torch.set_num_interop_threads(1)


def load_pytorch(folder: Path, task: str, *, bfloat16: bool = False, compiled: bool = False) -> LoadedModel:
    """Load the original model for its task, in evaluation mode, from local files only.

    Sentence similarity goes through SentenceTransformer, so that pooling and normalization are timed as they
    are in the ONNX graph. ``load_ms`` includes what transformers imports only once it knows the architecture.
    ``bfloat16`` holds and multiplies the weights in 16 bits; ``compiled`` runs the transformer through
    ``torch.compile``, whose work falls into the first calls of each shape.
    """
    import torch

    from onnxproof.checkpoint.snapshot import remote_code_allowed

    model_class = pytorch_class(task)
    rss = current_rss_mb()
    start = time.perf_counter_ns()
    local = {"local_files_only": True, "trust_remote_code": remote_code_allowed(folder)}
    if task == "sentence-similarity":
        model = model_class(str(folder), device="cpu", **local)
    else:
        model = model_class.from_pretrained(folder, **local)
    model.eval()
    if bfloat16:
        model.to(torch.bfloat16)
    if compiled:
        (model[0].auto_model if task == "sentence-similarity" else model).compile()
    load_ms = (time.perf_counter_ns() - start) / 1e6

    def prepare(arrays: Arrays) -> dict[str, Any]:
        tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
        if bfloat16:
            tensors = {
                name: tensor.bfloat16() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()
            }
        return tensors

    def read(outputs: Any, name: str) -> NDArray[Any]:
        values: NDArray[Any] = outputs[name].float().numpy()
        return values

    def count_image_tokens(arrays: Arrays) -> int:
        from onnxproof.original.image_prompts import IMAGE_INPUTS, image_features

        images = prepare({name: arrays[name] for name in IMAGE_INPUTS if name in arrays})
        with torch.inference_mode():
            return len(image_features(model, images))

    def predict_features(features: dict[str, Any]) -> object:
        with torch.inference_mode():
            return model(dict(features))  # a copy: the model adds its outputs to the mapping it is given

    def predict(features: dict[str, Any]) -> object:
        with torch.inference_mode():
            return model(**features)

    return LoadedModel(
        predict=predict_features if task == "sentence-similarity" else predict,
        prepare=prepare,
        read=read,
        input_types=None,
        input_ranks=None,
        load_ms=load_ms,
        rss_before_load_mb=rss,
        seeing=Seeing(model.config.image_token_id, count_image_tokens) if task == "image-text-to-text" else None,
        writer=(
            TorchWriter(predict, prepare, list(inspect.signature(model.forward).parameters))
            if task == "text-generation"
            else None
        ),
        dtype=str(next(model.parameters()).dtype).removeprefix("torch."),
    )


def pytorch_class(task: str) -> Any:
    """Import and return the class that loads a checkpoint for ``task``, one of TASKS."""
    from onnxproof.original.lean_imports import import_sentence_transformers, import_transformers

    if task == "sentence-similarity":
        return import_sentence_transformers().SentenceTransformer
    return getattr(import_transformers(), TASKS[task].auto_class)


def load_contender(runtime: str, folder: Path, threads: int, task: str | None, options: dict[str, Any]) -> LoadedModel:
    """Load a contender with ``options`` of its runtime: "onnx", "openvino", "genai", "llama" or "pytorch".

    PyTorch needs a ``task``.

    Raises:
        UserError: PyTorch is not timed for this task, or the runtime lacks what the options ask for.
    """
    if runtime == "onnx":
        return load_onnx(folder, threads, **options)
    if runtime == "openvino":
        return load_openvino(folder, threads, **options)
    if runtime == "genai":
        return load_genai(folder, threads)
    if runtime == "llama":
        return load_llama(folder, threads, **options)
    if task not in TASKS:
        raise UserError(f"task {task!r}: PyTorch is timed for {', '.join(TASKS)}")
    limit_torch_threads(threads)
    return load_pytorch(folder, task, **options)
