"""Needs: the optimized variant, or fp32 where operators must be plain. Makes: a quantized variant.

Its recipe is the fastest one that reaches the targets. What its search finds out is left to the searches that would find
out the same.
"""


rule quantize:
    input:
        folder=quantized_from,
        manifest=manifest_quantized_from,
        texts=calibration_texts,
        labelled=rows_for_search,
        known=searched_before,
    output:
        folder=directory("results/{model}/onnx/{quantized}"),
        manifest="results/{model}/onnx/{quantized}.json",
        found="results/{model}/onnx/{quantized}.search.safetensors",
    log:
        "results/logs/quantize/{model}.{quantized}.log",
    benchmark:
        "results/{model}/cost/quantize.{quantized}.tsv"
    priority: CHAIN_PRIORITY
    conda:
        "../../envs/runtime.yaml"
    threads: search_threads
    resources:
        **needs("quantize"),
    params:
        script=script_path("quantize"),
        code=script_digest("quantize"),
        targets=targets,
        labelled=labelled_argument,
        known=known_argument,
    message:
        "{wildcards.model}: finding the recipe of {wildcards.quantized} (log: {log})"
    shell:
        "python {params.script:q} --model {wildcards.model:q} --variant {wildcards.quantized} "
        "--source {input.folder:q} --source-manifest {input.manifest:q} "
        "--targets {params.targets:q} --texts {input.texts:q} {params.labelled:q} "
        "{params.known:q} --found {output.found:q} "
        "--output-dir {output.folder:q} --manifest {output.manifest:q} > {log:q} 2>&1"
