"""Needs: a model's source in the configuration. Makes: a pinned snapshot of it, described file by file."""


rule download:
    input:
        local_files,
    output:
        folder=directory("results/{model}/source"),
        manifest="results/{model}/source.json",
    log:
        "results/logs/download/{model}.log",
    conda:
        "../../envs/export.yaml"
    resources:
        mem_mb=download_mem_mb,
        disk_mb=disk_mb,
        runtime=runtime,
    params:
        script=script_path("download"),
        code=script_digest("download"),
        source=source_arguments,
        package_version=package_version,
    message:
        "{wildcards.model}: downloading the snapshot (log: {log})"
    shell:
        "python {params.script:q} --model {wildcards.model:q} {params.source:q} "
        "--output-dir {output.folder:q} --manifest {output.manifest:q} > {log:q} 2>&1"
