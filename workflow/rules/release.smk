"""Needs: the variants, their parity and their benchmarks. Makes: graphs with fixed shapes, and what is shipped, verified.

The release is judged by the measurements, as the gates are, and not by the gates' files: Snakemake deletes what a job
made before when the job fails, but does not start a job whose inputs are missing. So a variant that misses a limit also
takes an older release away, on disk or in object storage.
"""


# Asked for by `release` where `release.fixed_shapes` has the variant.
rule fix_shapes:
    input:
        folder="results/{model}/onnx/{variant}",
        manifest="results/{model}/onnx/{variant}.json",
        reference="results/{model}/reference",
        reference_manifest="results/{model}/reference.json",
    output:
        folder=directory("results/{model}/fixed/{variant}/{shape}"),
        manifest="results/{model}/fixed/{variant}/{shape}.json",
    log:
        "results/logs/fix_shapes/{model}.{variant}.{shape}.log",
    benchmark:
        "results/{model}/cost/fix_shapes.{variant}.{shape}.tsv"
    conda:
        "../../envs/runtime.yaml"
    threads: PARITY_THREADS
    resources:
        **needs("fix_shapes"),
    params:
        script=script_path("fix_shapes"),
        code=script_digest("fix_shapes"),
        threads=PARITY_THREADS,
        lengths=lengths,
    message:
        "{wildcards.model}: fixing the shapes of {wildcards.variant} to {wildcards.shape} (log: {log})"
    shell:
        "python {params.script:q} --onnx-dir {input.folder:q} --onnx-manifest {input.manifest:q} "
        "--reference {input.reference:q} --reference-manifest {input.reference_manifest:q} "
        "--shape {params.lengths:q} --threads {params.threads} "
        "--output-dir {output.folder:q} --manifest {output.manifest:q} > {log:q} 2>&1"


rule release:
    input:
        proof_of_variants,
        exported="results/{model}/onnx/fp32.json",
        source_folder="results/{model}/source",
        source="results/{model}/source.json",
        reference_folder="results/{model}/reference",
        reference="results/{model}/reference.json",
        resources=release_resources(),
        tables=target_tables,
        fixed=fixed_files,
        browser=browser_record,
        evaluation=evaluation_records,
        scores=evaluation_scores,
    output:
        folder=directory("results/{model}/release"),
        manifest="results/{model}/release.json",
    log:
        "results/logs/release/{model}.log",
    benchmark:
        "results/{model}/cost/release.tsv"
    conda:
        "../../envs/report.yaml"
    resources:
        **needs("release"),
    params:
        script=script_path("release"),
        code=script_digest("release"),
        shipped=shipped_digest,
        resources=release_resources_digest(),
        variants=released_variants,
        thresholds=released_thresholds,
        machines=released_machines,
        browser=browser_argument,
        evaluation=evaluation_argument,
        copies=copies_argument,
        targets=targets_argument,
        fixed=fixed_argument,
    message:
        "{wildcards.model}: building the release (log: {log})"
    shell:
        'python {params.script:q} --model {wildcards.model:q} --results "$(dirname {input.source:q})" '
        "--variants {params.variants:q} --thresholds {params.thresholds:q} {params.machines:q} {params.browser:q} "
        "{params.evaluation:q} "
        "{params.copies:q} {params.targets:q} {params.fixed:q} --output-dir {output.folder:q} --manifest {output.manifest:q} > {log:q} 2>&1"


rule verify_release:
    input:
        folder="results/{model}/release",
        manifest="results/{model}/release.json",
    output:
        report(
            "results/{model}/verified.json",
            caption="../report/verified.rst",
            category="Releases",
            labels={"model": "{model}"},
        ),
    log:
        "results/logs/verify_release/{model}.log",
    conda:
        "../../envs/export.yaml"  # the program of an image model needs transformers' image processors
    threads: PARITY_THREADS
    resources:
        **needs("verify_release"),
    params:
        script=script_path("verify_release"),
        code=script_digest("verify_release"),
        threads=PARITY_THREADS,
    message:
        "{wildcards.model}: verifying the release on this machine (log: {log})"
    shell:
        "python {params.script:q} {input.folder:q} --threads {params.threads} --json {output:q} > {log:q} 2>&1"
