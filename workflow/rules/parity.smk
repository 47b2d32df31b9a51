"""Needs: the snapshot and a variant. Makes: PyTorch's recorded answers, the variant's differences, the verdict.

With ``parity.browser`` also what the variants answer in Node and in a browser, which the release announces.

Measuring and judging are separate rules: Snakemake deletes what a failed job wrote, and the evidence of a
missed threshold must survive.
"""


rule record_reference:
    input:
        folder="results/{model}/source",
        manifest="results/{model}/source.json",
        texts=evaluation_texts,
    output:
        folder=directory("results/{model}/reference"),
        manifest="results/{model}/reference.json",
    log:
        "results/logs/record_reference/{model}.log",
    benchmark:
        "results/{model}/cost/record_reference.tsv"
    priority: PYTORCH_PRIORITY
    conda:
        "../../envs/export.yaml"
    threads: PARITY_THREADS
    resources:
        **needs("record_reference"),
    params:
        start=script_path("onnxproof/engine/fork_client"),
        script=script_path("record_reference"),
        code=script_digest("record_reference"),
        task=task_argument,
        batch_size=parity_batch_size,
        threads=PARITY_THREADS,
    message:
        "{wildcards.model}: recording PyTorch's answers (log: {log})"
    shell:
        "python {params.start:q} {params.script:q} --model {wildcards.model:q} --source {input.folder:q} {params.task:q} "
        "--texts {input.texts:q} --threads {params.threads} --batch-size {params.batch_size} "
        "--output-dir {output.folder:q} --manifest {output.manifest:q} > {log:q} 2>&1"


rule measure_parity:
    input:
        folder="results/{model}/onnx/{variant}",
        manifest="results/{model}/onnx/{variant}.json",
        reference="results/{model}/reference",
        reference_manifest="results/{model}/reference.json",
    output:
        report(
            "results/{model}/parity/{variant}.json",
            caption="../report/parity.rst",
            category="Parity",
            subcategory="{model}",
            labels={"variant": "{variant}"},
        ),
    log:
        "results/logs/measure_parity/{model}.{variant}.log",
    benchmark:
        "results/{model}/cost/measure_parity.{variant}.tsv"
    conda:
        "../../envs/runtime.yaml"
    threads: PARITY_THREADS
    resources:
        **needs("measure_parity"),
    params:
        script=script_path("measure_parity"),
        code=script_digest("measure_parity"),
        threads=PARITY_THREADS,
        batch_size=parity_batch_size,
        provider=provider_argument,
    message:
        "{wildcards.model}: comparing {wildcards.variant} with PyTorch (log: {log})"
    shell:
        "python {params.script:q} --onnx-dir {input.folder:q} --onnx-manifest {input.manifest:q} "
        "--reference {input.reference:q} --reference-manifest {input.reference_manifest:q} "
        "--batch-size {params.batch_size} --threads {params.threads} {params.provider:q} "
        "--output {output:q} > {log:q} 2>&1"


# Where other execution providers are timed, their answers are measured too. No gate judges them.
use rule measure_parity as measure_parity_on_provider with:
    output:
        report(
            "results/{model}/parity/{provider}/{variant}.json",
            caption="../report/parity.rst",
            category="Parity",
            subcategory="{model}",
            labels={"variant": "{variant}", "provider": "{provider}"},
        ),
    log:
        "results/logs/measure_parity/{model}.{variant}.{provider}.log",
    benchmark:
        "results/{model}/cost/measure_parity.{variant}.{provider}.tsv"
    message:
        "{wildcards.model}: comparing {wildcards.variant} on {wildcards.provider} with PyTorch (log: {log})"


rule gate_parity:
    input:
        parity="results/{model}/parity/{variant}.json",
        manifest="results/{model}/onnx/{variant}.json",
    output:
        "results/{model}/parity/{variant}.ok",
    log:
        "results/logs/gate_parity/{model}.{variant}.log",
    conda:
        "../../envs/runtime.yaml"
    resources:
        **needs("gate_parity"),
    params:
        script=script_path("gate_parity"),
        code=script_digest("gate_parity"),
        thresholds=thresholds,
    message:
        "{wildcards.model}: judging {wildcards.variant} (log: {log})"
    shell:
        "python {params.script:q} --parity {input.parity:q} --onnx-manifest {input.manifest:q} "
        "--thresholds {params.thresholds:q} --output {output:q} > {log:q} 2>&1"


# Asked for by `release` where `parity.browser` is set. It needs Node, Chromium, and transformers.js of `make setup-browser`.
rule measure_browser:
    input:
        browser_variants,
        reference="results/{model}/reference",
        reference_manifest="results/{model}/reference.json",
        pages=browser_pages(),
    output:
        "results/{model}/parity/browser.json",
    log:
        "results/logs/measure_browser/{model}.log",
    benchmark:
        "results/{model}/cost/measure_browser.tsv"
    conda:
        "../../envs/runtime.yaml"
    threads: PARITY_THREADS
    resources:
        **needs("measure_browser"),
    params:
        script=script_path("measure_browser"),
        code=script_digest("measure_browser"),
        variants=released_variants,
        batch_size=parity_batch_size,
    message:
        "{wildcards.model}: comparing the variants in transformers.js with PyTorch (log: {log})"
    shell:
        'python {params.script:q} --model {wildcards.model:q} --results "$(dirname {input.reference:q})" '
        "--variants {params.variants:q} --batch-size {params.batch_size} --output {output:q} > {log:q} 2>&1"
