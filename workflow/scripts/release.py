"""Put together what is shipped: the proven ONNX files, the tokenizer, a model card and the evidence.

A release is made only of a model of which every variant is within its limits, and it holds only files that are still
what was judged.
"""

import argparse
import itertools
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from onnxproof.benchmark.other_providers import read_provider_answers
from onnxproof.benchmark.recommend import Recommendation, recommend
from onnxproof.checkpoint.sentence_modules import settle_modules
from onnxproof.checkpoint.untrusted import stays_inside
from onnxproof.cli import UserError, run_script
from onnxproof.engine.code_digest import files_of_script
from onnxproof.evaluation.gate import judge_record
from onnxproof.files import (
    describe_files,
    read_json,
    sha256_of,
    staged_folder,
    versions_of,
    write_json,
    write_text,
)
from onnxproof.formatting import format_shape
from onnxproof.graph.exported_model import write_export_file
from onnxproof.graph.external_data import rename_weights, weight_files
from onnxproof.graph.files import MODEL_FILE, decoder_file, graph_files
from onnxproof.graph.folder import check_external_data, proven_sha256
from onnxproof.graph.providers import Judged, judge_graph, provider_names, read_provider
from onnxproof.graph.single_file import read_without_weights
from onnxproof.graph.support_files import DOCUMENTS, copy_support_files
from onnxproof.inputs.reference import read_reference
from onnxproof.parity.gate import Verdict, judge, limits_of_few
from onnxproof.places import SCRIPTS
from onnxproof.records.benchmark import BenchmarkRecord, RecordedCase, Writing, read_benchmark
from onnxproof.records.browser import read_browser
from onnxproof.records.common import Limits
from onnxproof.records.evaluation import read_evaluated_original, read_evaluation
from onnxproof.records.fixed import read_fixed
from onnxproof.records.parity import read_parity
from onnxproof.records.reference import Usage, read_reference_record
from onnxproof.records.release import (
    AnswersElsewhere,
    BrowserResults,
    Copied,
    Evidence,
    FixedFile,
    Headline,
    NamedFiles,
    PreparedRelease,
    Quality,
    RecommendedFile,
    ReleasedBenchmark,
    ReleasedCase,
    ReleaseDescription,
    ReleasedParity,
    ReleasedQuality,
    ReleasedSpeed,
    ReleasedStep,
    ReleasedVariant,
    ReleaseManifest,
    ReleaseRecord,
    TargetVerdict,
)
from onnxproof.records.source import Origin, Place, SourceRecord, read_source
from onnxproof.records.variant import read_variant
from onnxproof.release.announcement import (
    DTYPE_FILES,
    DTYPES,
    announce_dtypes,
    check_measured,
    failures,
    present_dtypes,
    reasons_by_variant,
    recommended_dtypes,
    sentences,
    tell_transformers_js,
)
from onnxproof.release.browser_page import PAGE, render_page
from onnxproof.release.card import read_metadata, render_model_card
from onnxproof.release.genai import write_genai_config
from onnxproof.release.golden import QUALITY_FILE, write_golden
from onnxproof.release.tokenizer import settle_tokenizer, tell_limits
from onnxproof.tasks.heads import NONE, SIGMOID
from onnxproof.vocabulary import METRICS

#: Where each variant goes, in the layout that transformers.js and the Hub use. ``optimized`` only takes the
#: place of ``fp32`` where that is not asked for: onnxruntime fuses the plain graph by itself when it loads it,
#: and every other runtime can load it too.
RELEASED_AS = {
    **{variant: DTYPE_FILES[dtype] for variant, dtype in DTYPES.items() if variant != "optimized"},
    "int8-invariant": "onnx/model_quantized_invariant.onnx",
    "int8-static": "onnx/model_int8_static.onnx",
    "int8-symmetric": "onnx/model_int8_symmetric.onnx",
    "w8a16": "onnx/model_w8a16.onnx",
    "w8": "onnx/model_w8.onnx",
    "q4-cpu": "onnx/model_q4_cpu.onnx",
}

#: The second name of a variant. transformers.js loads ``int8`` by two dtypes, ``q8`` and ``int8``, which are one file
#: in the releases of others too. ``q8`` is what a page gets that names no dtype, so ``uint8`` stands in for it.
ALSO_AS = {"int8": DTYPE_FILES["int8"], "uint8": DTYPE_FILES["q8"]}

#: How to make a release again, in a checkout of onnxproof with ``reproduce.config`` in config.yaml.
COMMANDS = ("make setup", ". .venv/bin/activate", "snakemake --cores all results/{model}/release")

#: What is documented of each ONNX file, by provider.
Verdicts = dict[str, dict[str, TargetVerdict]]

#: Keys of ``evaluation`` that name files of the user's.
LABELLED_FILES = frozenset({"data", "documents"})

#: The script that verifies a release, and the folder in the release for the modules that it imports.
VERIFIER, VERIFIER_MODULES = "verify_release", "verifier"
#: A release has the scores of so many labelled inputs, the first ones.
MOST_SCORES = 1000
#: The module that measures the quality of a release again, for models with labelled data.
QUALITY_MODULE = "onnxproof/release/quality"


def released_files(variants: list[str]) -> dict[str, str]:
    """Return ``{variant: path in the release}`` for the variants that are shipped.

    Raises:
        UserError: none of the variants is one that a release ships.
    """
    files = {variant: RELEASED_AS[variant] for variant in variants if variant in RELEASED_AS}
    if "optimized" in variants and "fp32" not in variants:
        files["optimized"] = RELEASED_AS["fp32"]
    return files


def copied_files(shipped: Mapping[str, str]) -> dict[str, str]:
    """Return ``{variant: its second path in the release}``; a path that another variant has is not taken."""
    return {variant: path for variant, path in ALSO_AS.items() if variant in shipped and path not in shipped.values()}


def released_graphs(target: Path, graphs: list[str]) -> dict[str, Path]:
    """Return where each graph of a variant goes: the one to ``target``, each of several beside it, named alike."""
    if graphs == [MODEL_FILE]:
        return {MODEL_FILE: target}
    suffix = target.stem.removeprefix(Path(MODEL_FILE).stem)
    return {name: target.with_name(f"{Path(name).stem}{suffix}.onnx") for name in graphs}


def copy_proven_model(variant: str, results: Path, target: Path) -> None:
    """Copy one variant's graphs, see ``released_graphs``, and their weights, checking that their parity was measured.

    Raises:
        UserError: a file changed after it was made, its parity was measured on another one, or it would have its
            weights read from elsewhere.
    """
    folder = results / "onnx" / variant
    files = read_variant(results / "onnx" / f"{variant}.json")["files"]
    parity = read_parity(results / "parity" / f"{variant}.json")
    graphs = graph_files(folder) or [MODEL_FILE]
    judged = {graphs[0]: parity["model_sha256"]} | parity.get("weights_sha256", {})
    for name, judged_as in judged.items():
        made, found = files[name]["sha256"] if name in files else "absent", sha256_of(folder / name)
        if not made == judged_as == found:
            raise UserError(
                f"{folder / name} is not the file that was proven: sha256 {found[:12]}…, made as {made[:12]}…, "
                f"judged as {judged_as[:12]}…; delete {folder} and run again"
            )
    for name, path in released_graphs(target, graphs).items():
        graph = read_without_weights(folder / name)
        check_external_data(graph, folder, name)
        if unproven := ({name} | weight_files(graph)) - judged.keys():
            raise UserError(
                f"{folder / name} reads {sorted(unproven)[0]}, which was not proven; delete {folder} and run again"
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        for part in {name} | weight_files(graph):
            shutil.copyfile(folder / part, path.with_name(part.replace(name, path.name)))
        if path.name != name:
            rename_weights(path, f"{name}_data", f"{path.name}_data")


def add_fixed(
    fixed: Sequence[str],
    variants: Mapping[str, ReleasedVariant],
    results: Path,
    thresholds: Mapping[str, Limits],
    folder: Path,
) -> None:
    """Copy the graphs with fixed shapes into a release, and tell of each in the entry of its variant.

    Args:
        fixed: each as ``variant/shape``, the names of its folder below ``results/{model}/fixed/``.
        variants: those that are shipped.
        results: the model's folder below results/.
        thresholds: the limits of each variant.
        folder: the release.

    Raises:
        UserError: a variant is not shipped, a measured difference is beyond its limit, or a file is not the one that
            was measured.
    """
    for place in fixed:
        variant, _, shape = place.partition("/")
        record = read_fixed(results / "fixed" / f"{place}.json")
        name = f"{record['model']} {variant} with the shape {shape}"
        if variant not in variants:
            raise UserError(f"{name}: release.fixed_shapes names a variant that a release does not ship")
        held = {metric: allowed for metric, allowed in thresholds[variant].items() if allowed is not None}
        verdicts = judge(record, limits_of_few(held, record["fitting"]))
        if missed := [str(verdict) for verdict in verdicts if not verdict.passed]:
            raise UserError(
                f"{name} is not within its limits on the {record['fitting']} inputs that fit: {'; '.join(missed)}"
            )
        made, target = results / "fixed" / place, Path(variants[variant]["file"])
        target = target.with_stem(f"{target.stem}_{shape}")
        for file, entry in record["files"].items():
            if sha256_of(made / file) != entry["sha256"]:
                raise UserError(f"{made / file} is not the file that was measured; delete {made} and run again")
            shutil.copyfile(made / file, folder / target.with_name(file.replace(MODEL_FILE, target.name)))
        if len(record["files"]) > 1:
            rename_weights(folder / target, f"{MODEL_FILE}_data", f"{target.name}_data")
        one: FixedFile = {
            "file": target.as_posix(),
            "shape": record["shape"],
            "fitting": record["fitting"],
            "sha256": sha256_of(folder / target),
            "task_metrics": record["task_metrics"],
            "batch_invariance": record["batch_invariance"],
            "limits": [verdict.as_record() for verdict in verdicts],
        }
        variants[variant].setdefault("fixed", []).append(one)


def judge_variant(variant: str, results: Path, thresholds: Limits) -> list[Verdict]:
    """Return the verdicts on a variant, as its gate gives them.

    Raises:
        UserError: a measured difference is beyond its threshold.
    """
    parity = read_parity(results / "parity" / f"{variant}.json")
    verdicts = judge(parity, thresholds)
    if missed := [str(verdict) for verdict in verdicts if not verdict.passed]:
        raise UserError(f"{parity['model']} {variant} did not pass its gate: {'; '.join(missed)}")
    return verdicts


def evidence(
    variant: str,
    results: Path,
    thresholds: Limits,
    benchmark: BenchmarkRecord,
    machines: Sequence[str] = (),
) -> Evidence:
    """Return how a variant was made and what was measured on it, for the model card and the manifest.

    ``benchmark`` is the content of its record, ``machines`` are the further kinds of machines that it was timed on.

    Raises:
        UserError: a measured difference is beyond its threshold.
    """
    parity = read_parity(results / "parity" / f"{variant}.json")
    elsewhere = [speed(read_benchmark(results / "benchmark" / machine / f"{variant}.json")) for machine in machines]
    manifest = read_variant(results / "onnx" / f"{variant}.json")
    timed = cast(ReleasedBenchmark, speed(benchmark))
    if elsewhere:
        timed["elsewhere"] = elsewhere
    verdicts = judge_variant(variant, results, thresholds)
    return {
        "sha256": proven_sha256(manifest["files"]),
        "settings": manifest["settings"],
        "opset": manifest["opset"],
        "parity": {
            "inputs": parity["inputs"],
            "task_metrics": parity["task_metrics"],
            "batch_invariance": parity["batch_invariance"],
        },
        "gate": {
            "passed": True,
            "limits": [verdict.as_record() for verdict in verdicts],
            "thresholds": {metric: allowed for metric, allowed in thresholds.items() if allowed is not None},
        },
        "benchmark": timed,
        "versions": manifest["versions"],
    }


def judge_quality(variant: str, results: Path, not_worse_by: float | None) -> Quality:
    """Return how good a variant is on labelled data, once it is proven to be as good as the original.

    Raises:
        UserError: it is not.
    """
    record = read_evaluation(results / "evaluation" / f"{variant}.json")
    verdict = judge_record(record, not_worse_by)
    if not verdict.passed:
        raise UserError(f"{record['model']} {variant} did not pass its gate on labelled data: {verdict}")
    return {
        "metric": record["metric"],
        "title": record["title"],
        "original": record["original"],
        "value": record["value"],
        "difference": record["difference"],
        "interval": record["interval"],
        "allowed": verdict.limit,
        "changed": record["changed"],
        "data": record["data"],
    }


def write_quality(results: Path, variants: Sequence[str], evaluation: Mapping[str, Any], folder: Path) -> None:
    """Write what measures the quality of a release again: see ``release/quality.py``.

    Args:
        results: the model's folder below results/.
        variants: those that are shipped.
        evaluation: ``evaluation`` of its configuration.
        folder: the release.
    """
    original = read_evaluated_original(results / "evaluation" / "answers" / "pytorch.json")
    scores = {variant: recorded_scores(results / "evaluation" / f"{variant}.jsonl") for variant in variants}
    quality: ReleasedQuality = {
        "use": original["use"],
        "task": original["task"],
        "labels": original["labels"],
        "rate": original["rate"],
        "new_tokens": original["new_tokens"],
        "settings": evaluation_in_config(evaluation),
        "data": original["data"],
        "scores": scores,
    }
    write_text(folder / QUALITY_FILE, json.dumps(quality, ensure_ascii=False, allow_nan=False) + "\n")


def recorded_scores(file: Path) -> list[float] | None:
    """Return the scores of the first inputs in a file of ``score_evaluation``; None where inputs have none."""
    with file.open(encoding="utf-8") as lines:
        rows = [json.loads(line) for line in itertools.islice(lines, MOST_SCORES)]
    return [round(row["score"], 6) for row in rows] if "score" in rows[0] else None


def speed(benchmark: BenchmarkRecord) -> ReleasedSpeed:
    """Return what a benchmark measured, without raw samples, and the kind of machine where one was asked for."""
    measured: ReleasedSpeed = {
        "cpu": benchmark["cpu"],
        "load_ms": benchmark["load_ms"],
        "peak_rss_mb": benchmark["peak_rss_mb"],
        "size_mb": benchmark["size_mb"],
        "cases": speeds(benchmark),
    }
    if "generation" in benchmark:
        measured["generation"] = writing_speeds(benchmark["generation"])
    return {"machine": benchmark["machine"], **measured} if benchmark["machine"] else measured


def speeds(benchmark: BenchmarkRecord) -> list[ReleasedCase]:
    """Return a benchmark's cases without raw samples, each with fp32's median time in ms in the same run."""
    cases = [without_samples(case) for case in benchmark["cases"]]
    if benchmark["baseline"] is not None:
        for case, baseline in zip(cases, benchmark["baseline"]["cases"], strict=True):
            case["fp32_p50_ms"] = baseline["p50_ms"]
    return cases


def writing_speeds(writing: Writing) -> list[ReleasedStep]:
    """Return how fast a model writes without raw samples, each step with fp32's median time in ms in the same run."""
    steps = [
        cast(ReleasedStep, {key: value for key, value in case.items() if key != "samples_ms"})
        for case in writing["cases"]
    ]
    if writing["baseline"] is not None:
        for step, baseline in zip(steps, writing["baseline"]["cases"], strict=True):
            step["fp32_p50_ms"] = baseline["p50_ms"]
    return steps


def without_samples(case: RecordedCase) -> ReleasedCase:
    """Return a timed case without its raw samples."""
    released: ReleasedCase = {
        "shape": format_shape(case["batch"], case["sequence"]),
        "batch": case["batch"],
        "sequence": case["sequence"],
        "intra_op_threads": case["intra_op_threads"],
        "p50_ms": case["p50_ms"],
        "p90_ms": case["p90_ms"],
        "p99_ms": case["p99_ms"],
        "items_per_s": case["items_per_s"],
        "iterations": case["iterations"],
    }
    if "speedup_vs_fp32" in case:
        released["speedup_vs_fp32"] = case["speedup_vs_fp32"]
        released["speedup_iqr"] = case["speedup_iqr"]
    return released


def name_files(folder: Path, path: str) -> NamedFiles:
    """Return the file of a variant in a release; of several graphs the decoder's, and where each of them is."""
    files = {name: target.as_posix() for name, target in released_graphs(Path(path), graph_files(folder)).items()}
    return {"file": files[decoder_file(files)], "files": files} if len(files) > 1 else {"file": path}


def name_copies(folder: Path, path: str | None) -> Copied:
    """Return the files of a variant's copy in a release, if it has one."""
    return {"copied_as": name_files(folder, path)} if path else {}


def headline(parity: ReleasedParity, benchmark: ReleasedSpeed) -> Headline:
    """Return the one metric, with its meaning, and the cases that the card's first table shows."""
    metric = next(iter(parity["task_metrics"]))
    return {
        "metric": metric,
        "meaning": METRICS[metric].meaning,
        "cases": [case["shape"] for case in benchmark["cases"]],
    }


def without_own_folders(source: SourceRecord) -> SourceRecord:
    """Return a source's record that names no folder above a local model's: a release is read by others.

    A path that stays below the configuration's folder is kept. Of any other, the model's own folder is left.
    """
    if source["kind"] != "path" or stays_inside(source["path"]):
        return source
    return {**source, "path": Path(source["path"]).resolve().name}


def origin_of(source: SourceRecord) -> Origin:
    """Return what a release says of a source: all but its files, and which libraries took part."""
    origin = {key: value for key, value in source.items() if key not in ("files", "versions", "model")}
    return cast(Origin, origin)


def source_in_config(source: Place) -> dict[str, str | None]:
    """Return the ``source`` of config.yaml that gives this snapshot again."""
    if source["kind"] == "hub":
        return {"hub": source["repo"], "revision": source["revision"]}
    if source["kind"] == "package":
        return {"package": source["package"], "path": source["package_path"]}
    return {"path": source["path"]}


def all_limits(thresholds: Limits) -> Limits:
    """Return a variant's limits for every metric, null where it had none: a default would come in its place."""
    return {metric: thresholds.get(metric) for metric in METRICS}


def announce_weight_files(folder: Path) -> dict[str, str]:
    """Tell transformers.js, in ``config.json``, which graphs of a release have their weights in a file beside them.

    It loads ``{graph}_data`` where ``transformers.js_config.use_external_data_format`` names the graph, with the number
    of such files.

    Returns:
        ``{file: what was changed}``, empty where every graph holds its own weights.
    """
    graphs = sorted((folder / "onnx").glob("*.onnx"))
    outside = [path.name for path in graphs if weight_files(read_without_weights(path))]
    if not outside:
        return {}
    tell_transformers_js(folder, {"use_external_data_format": dict.fromkeys(outside, 1)})
    return {"config.json": "transformers.js_config names the graphs whose weights are in a file beside them"}


def read_browser_results(
    results: Path, variants: Mapping[str, ReleasedVariant], thresholds: dict[str, Limits]
) -> BrowserResults:
    """Return what the released files answered in a browser, and what a release announces of it.

    Raises:
        UserError: the browser measured other files than those that are released.
    """
    record = read_browser(results / "parity" / "browser.json")
    check_measured(record, {variant: facts["sha256"] for variant, facts in variants.items()})
    own = read_reference_record(results / "reference.json")["batch_invariance"]
    shipped = {variant: facts["file"] for variant, facts in variants.items()}
    failed = failures(record, thresholds, own)
    return {
        "adapter": record["adapter"],
        "inputs": record["inputs"]["count"],
        "announced": recommended_dtypes(record, failed, shipped),
        "not_announced": sentences(failed, shipped),
        "failed": reasons_by_variant(failed, shipped),
        "versions": record["versions"],
    }


def judge_files(folder: Path, variants: Mapping[str, ReleasedVariant], targets: Sequence[str]) -> Verdicts:
    """Return what is documented of each released ONNX file, by provider: see ``onnxproof/graph/providers.py``.

    Args:
        folder: the release.
        variants: those that are shipped.
        targets: the providers' names.
    """
    found: Verdicts = {}
    for facts in variants.values():
        for file in [
            *facts.get("files", {"": facts["file"]}).values(),
            *(one["file"] for one in facts.get("fixed", [])),
        ]:
            model = read_without_weights(folder / file)
            found[file] = {name: verdict_of(judge_graph(model, read_provider(name)), name) for name in targets}
    return found


def verdict_of(judged: Judged, provider: str) -> TargetVerdict:
    """Return a verdict as the manifest has it: the nodes that are refused for the same reason stand together."""
    refused: dict[tuple[str, str], list[str]] = {}
    for one in judged.refused:
        refused.setdefault((one.operator, one.reason), []).append(one.node)
    return {
        "nodes": judged.nodes,
        "refused": [
            {"operator": operator, "reason": reason, "nodes": nodes} for (operator, reason), nodes in refused.items()
        ],
        "not_fixed": judged.not_fixed,
        "documented": read_provider(provider).documented,
        "sources": list(read_provider(provider).sources),
    }


#: The functions that make a cross-encoder's scores, as configurations name them.
ACTIVATION_NAMES = {SIGMOID: "torch.nn.modules.activation.Sigmoid", NONE: "torch.nn.modules.linear.Identity"}


def settle_activation(folder: Path, usage: Usage) -> dict[str, str]:
    """Name the function that makes a cross-encoder's scores in ``config.json``, where every version looks for it.

    Version 6 of sentence-transformers keeps it in a file of its own, which comes first.

    Returns:
        ``{file: what was changed}``, empty for other models, and where the file names it.
    """
    if usage.get("use") != "reranking":
        return {}
    config = read_json(folder / "config.json")
    settings, name = config.get("sentence_transformers"), ACTIVATION_NAMES[usage["activation"]]
    settings = settings if isinstance(settings, dict) else {}
    if settings.get("activation_fn") == name:
        return {}
    write_json(folder / "config.json", config | {"sentence_transformers": settings | {"activation_fn": name}})
    return {"config.json": f"names {name}, the function that makes the scores, where all versions look for it"}


#: What transformers.js reads of a decoder's cache.
CACHE_SIZES = ("hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads")
#: Keys at the top of Qwen2.5-VL's ``config.json`` that say nothing of its text part.
NOT_OF_TEXT = (
    *("architectures", "dtype", "image_token_id", "model_type", "torch_dtype", "transformers_version"),
    *("video_token_id", "vision_config", "vision_end_token_id", "vision_start_token_id", "vision_token_id"),
)


def announce_cache_sizes(folder: Path) -> dict[str, str]:
    """Tell transformers.js the sizes of the decoder of Qwen2-VL or Qwen2.5-VL where it looks for them.

    The first are to stand at the top of ``config.json``, the second in ``text_config``. transformers 4 wrote both at
    the top, transformers 5 writes both in ``text_config``, and reads either.

    Returns:
        ``{file: what was changed}``, empty for other models, and where they are there.
    """
    config = read_json(folder / "config.json") if (folder / "config.json").is_file() else {}
    text, added = config.get("text_config") or {}, {}
    if config.get("model_type") == "qwen2_vl":
        added = {key: text[key] for key in CACHE_SIZES if key in text and key not in config}
    elif config.get("model_type") == "qwen2_5_vl" and not text:
        text = {key: value for key, value in config.items() if key not in NOT_OF_TEXT}
        added = {"text_config": text | {"model_type": "qwen2_5_vl_text"}}
    if not added:
        return {}
    write_json(folder / "config.json", config | added)
    return {"config.json": "the sizes of the decoder stand where transformers.js looks for them too"}


def recommended_file(choice: Recommendation, file: str) -> RecommendedFile:
    """Return a recommendation with the file of the release that it is about."""
    return {
        "file": file,
        "purpose": choice.purpose,
        "in_float": choice.in_float,
        "variant": choice.variant,
        "provider": choice.provider,
        "session": choice.session,
        "shapes": list(choice.shapes),
        "speedup": choice.speedup,
    }


def evaluation_in_config(evaluation: Mapping[str, Any]) -> dict[str, Any]:
    """Return the ``evaluation`` of config.yaml that asks for the same again.

    A path that stays below the configuration's folder is kept. Of any other, the file's own name is left: a release is
    read by others.

    Args:
        evaluation: a model's settings, with defaults; those that are null or empty are left out.
    """
    asked = {key: value for key, value in evaluation.items() if value not in (None, {})}
    for key in LABELLED_FILES & asked.keys():
        asked[key] = asked[key] if stays_inside(asked[key]) else Path(asked[key]).name
    return asked


def describe_release(
    model: str,
    results: Path,
    shipped: dict[str, str],
    copied: dict[str, str],
    thresholds: dict[str, Limits],
    machines: Sequence[str] = (),
    evaluation: Mapping[str, Any] | None = None,
) -> ReleaseDescription:
    """Return the manifest of a release, without what depends on its files.

    ``shipped`` has the path of each variant, ``copied`` the second path of some. ``evaluation`` says which labelled
    data the model has.
    """
    source = without_own_folders(read_source(results / "source.json"))
    reference = read_reference_record(results / "reference.json")
    benchmarks = {variant: read_benchmark(results / "benchmark" / f"{variant}.json") for variant in shipped}
    variants = {
        variant: cast(
            ReleasedVariant,
            {
                **name_files(results / "onnx" / variant, path),
                **name_copies(results / "onnx" / variant, copied.get(variant)),
                **evidence(variant, results, thresholds[variant], benchmarks[variant], machines),
            },
        )
        for variant, path in shipped.items()
    }
    answered: list[AnswersElsewhere] = [
        {
            "file": variants[variant]["file"],
            "variant": variant,
            "provider": provider,
            "task_metrics": answers.parity["task_metrics"],
            "missed": answers.missed,
        }
        for (variant, provider), answers in read_provider_answers(results, benchmarks, thresholds).items()
    ]
    unfit = {(one["variant"], one["provider"]) for one in answered if one["missed"]}
    first = next(iter(variants.values()))
    described: ReleaseDescription = {
        "model": model,
        "task": reference["task"],
        "source": origin_of(source),
        "reference": {
            "inputs": reference["inputs"],
            "outputs": reference["outputs"],
            "padding": reference["padding"],
            "usage": reference["usage"],
            "versions": reference["versions"],
        },
        "headline": headline(first["parity"], first["benchmark"]),
        "variants": variants,
        "recommended": [
            recommended_file(choice, variants[choice.variant]["file"]) for choice in recommend(benchmarks, unfit)
        ],
        "inputs": {
            "source": source["files"],
            "reference": reference["files"],
            "onnx": {variant: read_variant(results / "onnx" / f"{variant}.json")["files"] for variant in shipped},
        },
        "versions": versions_of("jinja2", "numpy", "pyyaml"),
        "reproduce": {
            "config": {
                "models": {
                    model: {
                        "source": source_in_config(source),
                        "task": reference["task"],
                        "variants": list(thresholds),
                        "release": {"copies": bool(copied)},
                        "parity": {"thresholds": {name: all_limits(own) for name, own in thresholds.items()}},
                        **({"evaluation": evaluation_in_config(evaluation)} if evaluation else {}),
                    }
                }
            },
            "commands": [command.format(model=model) for command in COMMANDS],
        },
    }
    if answered:
        described["other_providers"] = answered
    return described


def copy_verifier(folder: Path, with_quality: bool = False) -> None:
    """Copy the script that verifies a release and the modules that it imports: those of the gate itself, unchanged.

    With ``with_quality``, also those that measure on labelled data.
    """
    script, *modules = map(Path, files_of_script(VERIFIER))
    shutil.copyfile(script, folder / script.name)
    for module in {*modules, *map(Path, files_of_script(QUALITY_MODULE) if with_quality else ())}:
        target = folder / VERIFIER_MODULES / module.relative_to(SCRIPTS)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(module, target)


def write_sums(folder: Path) -> None:
    """Write ``SHA256SUMS`` over every file of a folder, as ``sha256sum --check`` reads it."""
    lines = [f"{entry['sha256']}  {name}\n" for name, entry in describe_files(folder).items()]
    write_text(folder / "SHA256SUMS", "".join(lines))


def release(
    model: str,
    results: Path,
    variants: list[str],
    thresholds: dict[str, Limits],
    folder: Path,
    manifest_file: Path,
    machines: Sequence[str] = (),
    browser: bool = False,
    copies: bool = False,
    evaluation: Mapping[str, Any] | None = None,
    targets: Sequence[str] = (),
    fixed: Sequence[str] = (),
) -> None:
    """Build the release folder of one model and describe it.

    With ``browser``, it announces to transformers.js what ``parity/browser.json`` says that answers there. With
    ``copies``, a variant that transformers.js looks for by two names is there by both. With ``evaluation``, the
    variants are judged on labelled data too, see ``judge_quality``. With ``targets``, the files are held against what
    these execution providers document. With ``fixed``, there are graphs with fixed shapes, see ``add_fixed``.

    Raises:
        UserError: a file is not the one that was proven, or a gate did not pass.
    """
    shipped = released_files(variants)
    copied = copied_files(shipped) if copies else {}
    for variant in variants:  # those too that are not shipped
        judge_variant(variant, results, thresholds[variant])
    quality = {
        variant: judge_quality(variant, results, evaluation["not_worse_by"]) for variant in variants if evaluation
    }
    described = describe_release(model, results, shipped, copied, thresholds, machines, evaluation)
    for variant, facts in described["variants"].items():
        if variant in quality:
            facts["evaluation"] = quality[variant]
    if browser:
        described["browser"] = read_browser_results(results, described["variants"], thresholds)
        described["reproduce"]["config"]["models"][model]["parity"]["browser"] = True
    reference = read_reference(results / "reference", results / "reference.json")
    with staged_folder(folder) as stage:
        copy_support_files(results / "onnx" / next(iter(shipped)), stage)
        for pattern in DOCUMENTS:
            if not pattern.startswith(("README", ".")):
                for document in (results / "source").glob(pattern):
                    shutil.copyfile(document, stage / document.name)
        for variant, path in [*shipped.items(), *copied.items()]:
            copy_proven_model(variant, results, stage / path)
        add_fixed(fixed, described["variants"], results, thresholds, stage)
        if fixed:
            described["reproduce"]["config"]["models"][model]["release"]["fixed_shapes"] = {
                variant: [one["shape"] for one in facts["fixed"]]
                for variant, facts in described["variants"].items()
                if "fixed" in facts
            }
        if targets:
            described["targets"] = judge_files(stage, described["variants"], targets)
            described["reproduce"]["config"]["models"][model]["release"]["targets"] = list(targets)
        exported = read_variant(results / "onnx" / "fp32.json")
        with_export_file = "exported_model" in exported
        if "exported_model" in exported:
            write_export_file(exported["exported_model"], exported["versions"], next(iter(shipped.values())), stage)
        original = described["reference"]
        most_tokens = original["inputs"].get("max_tokens_of_model")  # absent where the inputs are no texts
        cache_sizes = announce_cache_sizes(stage)
        announced = described["browser"]["announced"] if "browser" in described else {}
        changed_files = (
            settle_tokenizer(stage, most_tokens, original["padding"])
            | settle_modules(stage)
            | settle_activation(stage, original["usage"])
            | cache_sizes
            | announce_weight_files(stage)
            | (write_genai_config(stage, shipped) if described["task"] == "text-generation" else {})
            | announce_dtypes(stage, announced | present_dtypes({*shipped.values(), *copied.values()}, announced))
        )
        tell_limits(stage, original["usage"], most_tokens)
        prepared: PreparedRelease = {
            **described,
            "changed_files": changed_files,
            "golden": write_golden(reference, stage),
        }
        copy_verifier(stage, with_quality=bool(evaluation))
        if evaluation:
            write_quality(results, list(shipped), evaluation, stage)
        source_metadata = read_metadata(results / "source" / "README.md")
        model_type = read_json(stage / "config.json").get("model_type")
        card = render_model_card(prepared, source_metadata, with_export_file, model_type)
        write_text(stage / "README.md", card)
        judged_as = reference.manifest["judged_as"]
        write_text(stage / PAGE, render_page(prepared, judged_as, describe_files(stage)))
        manifest: ReleaseManifest = {**prepared, "files": describe_files(stage)}
        write_json(stage / "manifest.json", manifest)
        write_sums(stage)
        files = describe_files(stage)
    named = {variant: facts["file"] for variant, facts in manifest["variants"].items()}
    record: ReleaseRecord = {"model": model, "folder": folder.name, "variants": named, "files": files}
    write_json(manifest_file, record)
    print(json.dumps(named), flush=True)


def main(argv: list[str] | None = None) -> None:
    """Parse the command line and build the release."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True, help="the model's name in config.yaml")
    parser.add_argument("--results", type=Path, required=True, help="the model's folder below results/")
    parser.add_argument("--variants", nargs="+", required=True, help="the model's variants")
    parser.add_argument("--output-dir", type=Path, required=True, help="folder to write the release to")
    parser.add_argument("--manifest", type=Path, required=True, help="JSON file to describe it in")
    parser.add_argument(
        "--thresholds",
        type=json.loads,
        required=True,
        metavar="JSON",
        help='what each variant was allowed to differ: {"int8": {"cosine_min": 0.99}}',
    )
    parser.add_argument("--machines", nargs="+", default=[], help="further kinds of machines it was timed on")
    parser.add_argument(
        "--browser", action="store_true", help="announce what parity/browser.json says that answers in a browser"
    )
    parser.add_argument(
        "--copies", action="store_true", help="add a copy of each variant that transformers.js has two names for"
    )
    parser.add_argument(
        "--evaluation", type=json.loads, metavar="JSON", help="evaluation of config.yaml: judge by labelled data too"
    )
    parser.add_argument(
        "--targets", nargs="+", default=[], choices=provider_names(), help="providers to hold the files against"
    )
    parser.add_argument(
        "--fixed", nargs="+", default=[], metavar="VARIANT/SHAPE", help="graphs with fixed shapes to add: w8a16/1x128"
    )
    args = parser.parse_args(argv)
    release(
        args.model,
        args.results,
        args.variants,
        args.thresholds,
        args.output_dir,
        args.manifest,
        args.machines,
        args.browser,
        args.copies,
        args.evaluation,
        args.targets,
        args.fixed,
    )


if __name__ == "__main__":
    run_script(main)
