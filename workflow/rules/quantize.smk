"""Needs: the optimized variant. Makes: the int8 variant, quantized dynamically."""


rule quantize:
    input:
        folder="results/{model}/onnx/optimized",
        manifest="results/{model}/onnx/optimized.json",
        code=code("quantize"),
    output:
        folder=directory("results/{model}/onnx/int8"),
        manifest="results/{model}/onnx/int8.json",
    log:
        "results/logs/quantize/{model}.log",
    conda:
        "../../envs/runtime.yaml"
    message:
        "{wildcards.model}: quantizing to int8 (log: {log})"
    shell:
        "python {input.code[0]:q} --model {wildcards.model:q} --source {input.folder:q} "
        "--source-manifest {input.manifest:q} "
        "--output-dir {output.folder:q} --manifest {output.manifest:q} > {log:q} 2>&1"
