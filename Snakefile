"""Turn every model of config.yaml into an ONNX model that is verified, smaller, faster, and held to the original.

The chain of one model, each step in its own file below workflow/rules:

    download → export → optimize → quantize        the ONNX variants
    record_reference → measure_parity → gate_parity    the proof
    record_evaluation → evaluate → score_evaluation → gate_evaluation    the quality, where there are labelled data
    benchmark                                      the speed
    audit                                          what is wrong with files that others made of the model
    release, verify_release, summary               what is shipped, and one report over all models
"""

from snakemake.utils import min_version

min_version("9.27")


report: "workflow/report/workflow.rst"


include: "workflow/rules/common.smk"
include: "workflow/rules/download.smk"
include: "workflow/rules/export.smk"
include: "workflow/rules/optimize.smk"
include: "workflow/rules/quantize.smk"
include: "workflow/rules/parity.smk"
include: "workflow/rules/audit.smk"
include: "workflow/rules/evaluation.smk"
include: "workflow/rules/benchmark.smk"
include: "workflow/rules/release.smk"
include: "workflow/rules/report.smk"
include: "workflow/rules/publish.smk"
include: "workflow/rules/hooks.smk"


rule all:
    input:
        variant_files("results/{model}/parity/{variant}.ok", VARIANTS),
        evaluation_gates(),
        audit_files("results/{model}/audits/{audit}/audit.json"),
        expand("results/{model}/release.json", model=MODELS),
        expand("results/{model}/verified.json", model=MODELS),
        "results/summary.csv",
        "results/report.html",


rule all_exported:
    input:
        expand("results/{model}/onnx/fp32.json", model=MODELS),


rule all_quantized:
    input:
        variant_files("results/{model}/onnx/{variant}.json", QUANTIZED_VARIANTS),


rule all_parity:
    input:
        variant_files("results/{model}/parity/{variant}.ok", VARIANTS),


rule all_evaluations:
    input:
        evaluation_gates(),


rule all_audits:
    input:
        audit_files("results/{model}/audits/{audit}/audit.json"),


rule all_benchmarks:
    input:
        benchmark_files(MODELS),
        provider_files(MODELS),


# Never part of `all`: it sends files to the Hub, once publish.dry_run is false.
rule publish:
    input:
        expand("results/{model}/published.json", model=PUBLISHED),


onstart:
    checked(lock_folder)
    check_places()
    keep_one_timer(workflow.scheduler)
    import_pytorch_once()


onsuccess:
    show_summary()


onerror:
    withdraw_releases()
    show_failures()
