"""Needs: the fp32 variant. Makes: the optimized variant, with fused operators where the architecture allows."""


rule optimize:
    input:
        folder="results/{model}/onnx/fp32",
        manifest="results/{model}/onnx/fp32.json",
    output:
        folder=directory("results/{model}/onnx/optimized"),
        manifest="results/{model}/onnx/optimized.json",
    log:
        "results/logs/optimize/{model}.log",
    benchmark:
        "results/{model}/cost/optimize.tsv"
    priority: CHAIN_PRIORITY
    conda:
        "../../envs/runtime.yaml"
    resources:
        **needs("optimize"),
    params:
        script=script_path("optimize"),
        code=script_digest("optimize"),
    message:
        "{wildcards.model}: optimizing the graph (log: {log})"
    shell:
        "python {params.script:q} --model {wildcards.model:q} --source {input.folder:q} "
        "--source-manifest {input.manifest:q} "
        "--output-dir {output.folder:q} --manifest {output.manifest:q} > {log:q} 2>&1"
