"""What a job of each rule needs: memory, disk, time and threads, from the size of the model's weights.

Peak memory is resident memory, summed over a job's processes, in MB of 1e6 bytes. ``MEASURED`` holds the points that
were measured, ``MEMORY`` the straight lines over them, whose estimates are between the measurement and 1.5 times it.
Two things change the slope: from ``external_data.BY_REFERENCE_BYTES`` on, or ``WHOLE_BELOW`` of a search, weights stay
in files, and one graph file holds no more than 2 GB.

Snakemake asks these questions for every job: only the Hub's client is imported besides the standard library, and only
where the Hub is asked.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

from onnxproof.vocabulary import QUANTIZED_VARIANTS

#: Where a model's size is not known yet: an encoder of a hundred million parameters.
DEFAULT_WEIGHTS_MB = 500.0
#: Memory of rules that hold no model.
SMALL_JOB_MB = 400
#: What Snakemake itself takes on another machine: two of its processes for each Slurm job, 190 MB each, and for the
#: moment in which it starts the job's command a third.
REMOTE_JOB_MB = 650
#: What a job gets more of with each retry, as a share of the first estimate.
MORE_EACH_ATTEMPT = 0.5
WEIGHT_SUFFIXES = (".safetensors", ".bin")
BYTES_PER_MB = 1_000_000
BYTES_PER_PARAMETER = 4
#: A plan waits no longer for the Hub's word on a model.
HUB_TIMEOUT_S = 10


@dataclass(frozen=True)
class Line:
    """``base + slope * weights``, up to ``until`` MB of weights."""

    base: float
    slope: float
    until: float = float("inf")

    def at(self, weights_mb: float) -> float:
        """Return the line's value for this many MB of weights."""
        return self.base + self.slope * weights_mb


#: Up to here a model is handled whole in memory, from here on by reference, see ``external_data``.
WHOLE_MB = 268.0
#: The same for a graph of which several forms are held at once: in a search, and when it is optimized.
SEVERAL_WHOLE_MB = 33.6
#: Up to here a graph and its weights are one file, which onnxruntime reads into memory; a file of weights is mapped.
SINGLE_FILE_MB = 2130.0

#: Rule → MB of weights → measured peak, in MB. The encoders: a tiny BERT, MiniLM (90.9), multilingual BERT's shape,
#: XLM-R large's shape, and the five of `make bench-memory`, with the bundled texts of up to 512 tokens. Where a rule
#: is not here, it holds no model.
MEASURED: dict[str, dict[float, int]] = {
    "download": {4.5: 55, 18.6: 56, 62.8: 56, 267.8: 56, 438.0: 57},
    "download_local": {4.5: 25, 18.6: 25, 62.8: 25, 267.8: 25, 438.0: 25},
    "download_pickle": {4.5: 238, 18.6: 265, 62.8: 349, 267.8: 750, 438.0: 1086},
    "export": {4.5: 462, 18.6: 497, 62.8: 583, 90.9: 919, 267.8: 1349, 438.0: 2146, 669.4: 3250, 2234.1: 5340},
    "optimize": {4.5: 181, 18.6: 323, 60.1: 400, 90.9: 484, 264.3: 1308, 438.0: 1538, 669.4: 2353, 2234.1: 2336},
    "quantize": {1.3: 109, 4.5: 152, 18.6: 328, 62.8: 548, 90.9: 611, 438.0: 1635},
    "record_reference": {4.5: 482, 18.6: 557, 62.8: 769, 90.9: 715, 267.8: 1038, 438.0: 1218},
    "measure_parity": {4.5: 252, 18.6: 499, 62.8: 808, 267.8: 1083, 438.0: 1652},
    "gate_parity": {4.5: 26, 18.6: 25, 62.8: 25, 267.8: 26, 438.0: 25},
    "benchmark": {1.3: 216, 4.5: 235, 18.6: 306, 62.8: 474, 90.9: 382, 267.8: 1028, 438.0: 1473},
    "benchmark_pytorch": {4.5: 563, 18.6: 622, 62.8: 809, 90.9: 851, 267.8: 1253, 438.0: 1732},
    "release": {4.5: 72, 18.6: 102, 62.8: 244, 90.9: 260, 267.8: 625, 438.0: 966},
    "verify_release": {4.5: 152, 18.6: 214, 62.8: 298, 267.8: 470, 438.0: 779},
}

#: Rule → its lines, for ever larger weights. Measuring parity holds all answers three times over, those of the plain
#: encoders a vector a token: it depends on their size more than on the weights, and MiniLM, whose texts are cut at 256
#: tokens, takes half of its estimate.
MEMORY: dict[str, tuple[Line, ...]] = {
    "download": (Line(80, 0),),
    "download_local": (Line(36, 0),),
    "download_pickle": (Line(260, 2.1),),
    "export": (Line(600, 4.3, SINGLE_FILE_MB), Line(700, 2.3)),
    "optimize": (
        Line(175, 8.4, SEVERAL_WHOLE_MB),
        Line(150, 4.7, WHOLE_MB),
        Line(250, 3.5, SINGLE_FILE_MB),
        Line(200, 1.15),
    ),
    "quantize": (Line(145, 12.1, SEVERAL_WHOLE_MB), Line(430, 3.1, SINGLE_FILE_MB), Line(600, 1.9)),
    "record_reference": (Line(650, 2.0),),
    "measure_parity": (Line(335, 9.0, 100), Line(1000, 1.6)),
    "measure_browser": (Line(1500, 6.0),),  # estimated: Chromium's processes hold a file up to four times
    "audit": (Line(400, 6.2, 100), Line(850, 1.8)),  # estimated: as measure_parity, and a file is read once more
    "fix_shapes": (Line(400, 8.0, 100), Line(950, 2.5)),  # estimated: as measure_parity, and a second session
    "gate_parity": (Line(36, 0),),
    "keep_aside": (Line(200, 0),),
    "record_evaluation": (Line(650, 2.0),),  # as record_reference
    "evaluate": (Line(250, 2.0),),  # as measure_parity, without recorded answers
    "score_evaluation": (Line(600, 0),),  # of 100,000 inputs
    "gate_evaluation": (Line(36, 0),),
    "benchmark": (Line(318, 2.7),),
    "benchmark_pytorch": (Line(680, 3.2),),
    "release": (Line(90, 2.5),),
    "verify_release": (Line(205, 1.5),),
}

#: Threads of a quantization: products of small models are too short to share (MiniLM, with the same bytes: 20 s of CPU
#: time with one thread, 33 with two, for the same wall time). A model of 435 MB takes 87 s with one thread and 55 with
#: two. On two cores one is better all the same: the proofs of the float graphs take the other core meanwhile. A model
#: of 1,335 MB has its release after 408 s with one thread. Of larger ones, the search takes fewer inputs.
SHARED_FROM_MB = 200.0
SHARED_FROM_MB_ON_TWO_CORES = 2000.0
LARGE_MODEL_THREADS = 2

#: MB that outputs and temporary files take, for each MB of weights: the files of a search, weights that are written
#: one by one and then joined, a copy that is complete before it replaces the last.
DISK = {
    "download": 2.2,
    "export": 2.2,
    "optimize": 2.6,
    "quantize": 9.0,  # what flows through the model is kept in files while weights are rounded
    "fix_shapes": 2.2,
    "release": 2.5,
}

#: Minutes of a time limit for each GB of weights; 5 for the rules that are not here.
MINUTES_PER_GB = {
    "download": 60,
    "export": 10,
    "optimize": 10,
    "quantize": 90,
    "record_reference": 60,
    "measure_parity": 60,
    "fix_shapes": 60,
    "measure_browser": 240,
    "audit": 240,  # a repository has several files
    "record_evaluation": 240,  # the data may be large
    "evaluate": 240,
    "benchmark": 20,
    "benchmark_pytorch": 20,
}


#: Rule → MB of weights → the seconds of CPU that a job took on an AMD EPYC with VNNI: star-rating-tiny, and MiniLM with
#: the bundled texts. Of several variants, the largest counts.
MEASURED_SECONDS: dict[str, dict[float, float]] = {
    "record_reference": {1.3: 8.6, 90.9: 15.6},
    "export": {1.3: 14.0, 90.9: 14.9},
    "optimize": {1.3: 1.3, 90.9: 4.2},
    "quantize": {1.3: 1.3, 90.9: 20.3},
    "measure_parity": {1.3: 1.1, 90.9: 12.4},
    "verify_release": {90.9: 2.1},
}
#: Rule → a line over them. Rules that are not here take about a second. A chain for a BERT of 438 MB took 298 seconds
#: without its benchmarks.
SECONDS: dict[str, Line] = {
    "record_reference": Line(7.0, 0.1),
    "export": Line(10.0, 0.06),
    "optimize": Line(1.5, 0.03),
    "quantize": Line(2.0, 0.3),
    "measure_parity": Line(1.5, 0.1),
    "verify_release": Line(1.5, 0.02),
}
#: What one case of a benchmark takes, in seconds of CPU, until its own limit.
CASE_SECONDS = Line(1.0, 0.09)


def jobs_of_chain(variants: Sequence[str], pytorch: bool = True) -> list[str]:
    """Return the rules of the jobs that one model takes from its source to its verified release, each as often.

    Args:
        variants: those of the configuration.
        pytorch: whether PyTorch is timed too.
    """
    quantized = [variant for variant in variants if variant in QUANTIZED_VARIANTS]
    jobs = ["download", "record_reference", "export", "release", "verify_release"]
    jobs += ["optimize"] * (len(variants) > 1) + ["quantize"] * len(quantized) + ["measure_parity"] * len(variants)
    return jobs + ["benchmark"] * len(variants) + ["benchmark_pytorch"] * pytorch


def estimate_cpu_minutes(weights_mb: float, variants: Sequence[str], benchmark: Mapping[str, Any]) -> float:
    """Return about how many minutes of one core the whole chain takes for a model.

    Args:
        weights_mb: the model's weights in float32.
        variants: those of the configuration.
        benchmark: its settings of the configuration.
    """
    jobs = jobs_of_chain(variants, benchmark["pytorch"])
    timed = [job for job in jobs if job.startswith("benchmark")]
    others = [job for job in jobs if job not in timed]
    cases = len(benchmark["batch_sizes"]) * len(benchmark["sequence_lengths"]) * len(benchmark["threads"])
    case = min(CASE_SECONDS.at(weights_mb), float(benchmark["seconds_per_case"]))
    return (sum(SECONDS.get(job, Line(1, 0)).at(weights_mb) for job in others) + cases * case * len(timed)) / 60


def estimate_memory_mb(rule: str, weights_mb: float, attempt: int = 1, remote: bool = False) -> int:
    """Return the memory, in MB, that a job of a rule needs for a model, half of it again for each further attempt.

    Args:
        rule: the rule's name; one that is not in ``MEMORY`` holds no model.
        weights_mb: the model's weights in float32.
        attempt: 1 for the first try.
        remote: whether the job goes to another machine, where Snakemake itself counts too.
    """
    lines = MEMORY.get(rule, (Line(SMALL_JOB_MB, 0),))
    line = next(line for line in lines if weights_mb <= line.until)
    return round(line.at(weights_mb) * (1 + MORE_EACH_ATTEMPT * (attempt - 1))) + REMOTE_JOB_MB * remote


def estimate_disk_mb(rule: str, weights_mb: float) -> int:
    """Return the room, in MB, that a job's outputs and temporary files take."""
    return round(100 + DISK.get(rule, 0) * weights_mb)


def estimate_minutes(rule: str, weights_mb: float, attempt: int = 1) -> int:
    """Return a time limit in minutes: several times what a job takes on two slow cores."""
    return round((30 + MINUTES_PER_GB.get(rule, 5) * weights_mb / 1000) * attempt)


def estimate_threads(weights_mb: float, cores: float) -> int:
    """Return how many threads the search for a recipe is given, of the cores of a run."""
    shared_from = SHARED_FROM_MB if cores > LARGE_MODEL_THREADS else SHARED_FROM_MB_ON_TWO_CORES
    return LARGE_MODEL_THREADS if weights_mb >= shared_from else 1


def weights_mb(model: str, source: Mapping[str, str], results: Path = Path("results"), ask_hub: bool = False) -> float:
    """Return the size of a model's weights in float32, from the manifest of its snapshot.

    Before there is one, and where it lies in object storage, the ``source`` of the configuration tells, if it is a
    folder or a package on this machine. For a model on the Hub, the Hub is asked if ``ask_hub``; else it is taken for
    one of ``DEFAULT_WEIGHTS_MB``: on a disk, Snakemake asks again when the snapshot is there.
    """
    manifest = results / model / "source.json"
    try:
        return _weights_mb(manifest, manifest.stat().st_mtime_ns)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):  # absent, or not whole: its own job will tell
        if "hub" not in source:
            return _source_mb(source.get("package"), source["path"])
        return _hub_mb(source["hub"], source.get("revision")) if ask_hub else DEFAULT_WEIGHTS_MB


def _weight_files(names: Iterable[str]) -> list[str]:
    """Return the files of weights that a snapshot takes, of all that are there."""
    from onnxproof.checkpoint.layout import needed_files

    return [name for name in needed_files(names) if name.endswith(WEIGHT_SUFFIXES)]


@cache
def _source_mb(package: str | None, path: str) -> float:
    """Look once at the files of a local source that a snapshot of it would hold."""
    try:
        folder = Path(str(distribution(package).locate_file(path))) if package else Path(path)
        names = (file.relative_to(folder).as_posix() for file in folder.rglob("*"))
        stored = sum((folder / name).stat().st_size for name in _weight_files(names))
    except (OSError, ValueError, PackageNotFoundError):  # as on another machine, whose jobs need no estimate
        return DEFAULT_WEIGHTS_MB
    return float(stored * _expansion(folder / "config.json") / BYTES_PER_MB) or DEFAULT_WEIGHTS_MB


@cache
def _hub_mb(repo: str, revision: str | None) -> float:
    """Ask the Hub once for the files that a snapshot would hold, and for how many parameters they hold."""
    import httpx2
    from huggingface_hub import HfApi, constants

    constants.HF_HUB_DISABLE_TELEMETRY = True  # else the client asks the Hub which programs to look for, and tells it
    try:
        info = HfApi().model_info(repo, revision=revision, files_metadata=True, timeout=HUB_TIMEOUT_S)
    except (OSError, ValueError, httpx2.HTTPError):  # offline, gated, no such name: the download will tell
        return DEFAULT_WEIGHTS_MB
    sizes = {sibling.rfilename: sibling.size or 0 for sibling in info.siblings or []}
    stored = sum(sizes[name] for name in _weight_files(sizes))
    in_float32 = info.safetensors.total * BYTES_PER_PARAMETER if info.safetensors else 0
    return max(stored, in_float32) / BYTES_PER_MB or DEFAULT_WEIGHTS_MB


@cache
def _weights_mb(manifest: Path, changed: int) -> float:
    """Read the manifest once, and again when it was ``changed`` (its time, in ns)."""
    files = json.loads(manifest.read_text(encoding="utf-8"))["files"]
    stored = sum(entry["size"] for name, entry in files.items() if name.endswith(WEIGHT_SUFFIXES))
    return float(stored * _expansion(manifest.with_name("source") / "config.json") / BYTES_PER_MB)


def _expansion(config: Path) -> int:
    """Return what float32 takes in place of the stored type: twice as much where that has 16 bits."""
    try:
        settings = json.loads(config.read_text(encoding="utf-8"))
        return 2 if settings.get("torch_dtype", settings.get("dtype")) in ("float16", "bfloat16") else 1
    except (OSError, ValueError, AttributeError):
        return 1
