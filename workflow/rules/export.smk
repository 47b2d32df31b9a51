"""Needs: a snapshot. Makes: the fp32 variant, its plain ONNX export."""


rule export:
    input:
        folder="results/{model}/source",
        manifest="results/{model}/source.json",
    output:
        folder=directory("results/{model}/onnx/fp32"),
        manifest="results/{model}/onnx/fp32.json",
    log:
        "results/logs/export/{model}.log",
    benchmark:
        "results/{model}/cost/export.tsv"
    priority: max(CHAIN_PRIORITY, DOWNLOAD_PRIORITY)
    conda:
        "../../envs/export.yaml"
    resources:
        **needs("export"),
    params:
        start=script_path("onnxproof/engine/fork_client"),
        script=script_path("export"),
        code=script_digest("export"),
        task=task_argument,
        exporter=exporter,
    message:
        "{wildcards.model}: exporting to ONNX (log: {log})"
    shell:
        "python {params.start:q} {params.script:q} --model {wildcards.model:q} --source {input.folder:q} {params.task:q} "
        "--exporter {params.exporter:q} --output-dir {output.folder:q} --manifest {output.manifest:q} > {log:q} 2>&1"
