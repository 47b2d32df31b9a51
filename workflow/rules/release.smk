"""Needs: the variants, their passed gates and their benchmarks. Makes: the folder that is shipped."""


rule release:
    input:
        proof_of_variants,
        source="results/{model}/source.json",
        template=own_file("resources/model_card.md.j2"),
        code=code("release"),
    output:
        folder=directory("results/{model}/release"),
        manifest="results/{model}/release.json",
    log:
        "results/logs/release/{model}.log",
    conda:
        "../../envs/report.yaml"
    params:
        variants=released_variants,
    message:
        "{wildcards.model}: building the release (log: {log})"
    shell:
        "python {input.code[0]:q} --model {wildcards.model:q} --results results/{wildcards.model:q} "
        "--variants {params.variants:q} "
        "--output-dir {output.folder:q} --manifest {output.manifest:q} > {log:q} 2>&1"
