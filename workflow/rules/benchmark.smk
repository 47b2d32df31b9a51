"""Needs: a variant (or the snapshot, for PyTorch) and the fp32 variant. Makes: how fast it is, beside fp32.

A benchmark claims every core, so that nothing runs beside it; on a cluster the profile gives it a node for itself.
Of the kinds of machines in the configuration, the first is measured by the first two rules, the others by the last two.
"""


rule benchmark:
    input:
        folder="results/{model}/onnx/{variant}",
        manifest="results/{model}/onnx/{variant}.json",
        baseline="results/{model}/onnx/fp32",
        baseline_manifest="results/{model}/onnx/fp32.json",
    output:
        report(
            "results/{model}/benchmark/{variant}.json",
            caption="../report/benchmark.rst",
            category="Speed",
            subcategory="{model}",
            labels={"variant": "{variant}"},
        ),
    log:
        "results/logs/benchmark/{model}.{variant}.log",
    priority: CHAIN_PRIORITY
    conda:
        "../../envs/runtime.yaml"
    threads: benchmark_threads
    resources:
        **NODE_KIND,
        **needs("benchmark"),
    params:
        script=script_path("benchmark"),
        code=script_digest("benchmark"),
        cases=benchmark_arguments,
    message:
        "{wildcards.model}: benchmarking {wildcards.variant} (log: {log})"
    shell:
        "python {params.script:q} --model {wildcards.model:q} --variant {wildcards.variant} "
        "--contender {input.folder:q} --baseline {input.baseline:q} {params.cases:q} "
        "--output {output:q} > {log:q} 2>&1"


rule benchmark_pytorch:
    input:
        folder="results/{model}/source",
        manifest="results/{model}/source.json",
        baseline="results/{model}/onnx/fp32",
        baseline_manifest="results/{model}/onnx/fp32.json",
    output:
        report(
            "results/{model}/benchmark/pytorch.json",
            caption="../report/benchmark.rst",
            category="Speed",
            subcategory="{model}",
            labels={"variant": "pytorch"},
        ),
    log:
        "results/logs/benchmark/{model}.pytorch.log",
    priority: CHAIN_PRIORITY
    conda:
        "../../envs/export.yaml"
    threads: benchmark_threads
    resources:
        **NODE_KIND,
        **needs("benchmark_pytorch"),
    params:
        script=script_path("benchmark"),
        code=script_digest("benchmark"),
        cases=benchmark_arguments,
        task=task_argument,
    message:
        "{wildcards.model}: benchmarking PyTorch (log: {log})"
    shell:
        "python {params.script:q} --model {wildcards.model:q} --variant pytorch "
        "--contender {input.folder:q} --baseline {input.baseline:q} {params.task:q} {params.cases:q} "
        "--output {output:q} > {log:q} 2>&1"


use rule benchmark as benchmark_on_machine with:
    output:
        report(
            "results/{model}/benchmark/{machine}/{variant}.json",
            caption="../report/benchmark.rst",
            category="Speed",
            subcategory="{model}",
            labels={"variant": "{variant}", "machine": "{machine}"},
        ),
    log:
        "results/logs/benchmark/{machine}/{model}.{variant}.log",
    message:
        "{wildcards.model}: benchmarking {wildcards.variant} on {wildcards.machine} (log: {log})"


use rule benchmark_pytorch as benchmark_pytorch_on_machine with:
    output:
        report(
            "results/{model}/benchmark/{machine}/pytorch.json",
            caption="../report/benchmark.rst",
            category="Speed",
            subcategory="{model}",
            labels={"variant": "pytorch", "machine": "{machine}"},
        ),
    log:
        "results/logs/benchmark/{machine}/{model}.pytorch.log",
    message:
        "{wildcards.model}: benchmarking PyTorch on {wildcards.machine} (log: {log})"
