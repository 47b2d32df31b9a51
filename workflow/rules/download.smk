"""Needs: a model's source in the configuration. Makes: a pinned snapshot of it, described file by file.

``check`` makes nothing: it says what every model is, what it would cost, and what is in the way.
"""


rule check:
    log:
        "results/logs/check/check.log",
    localrule: True
    conda:
        "../../envs/export.yaml"
    params:
        script=script_path("check"),
        code=script_digest("check"),
        settings=check_settings,
    message:
        "checking the small files of every model"
    shell:
        "printf %s {params.settings:q} | python {params.script:q} --models /dev/stdin 2>&1 | tee {log:q}"


rule download:
    input:
        local_files,
    output:
        folder=directory("results/{model}/source"),
        manifest="results/{model}/source.json",
    log:
        "results/logs/download/{model}.log",
    priority: DOWNLOAD_PRIORITY
    conda:
        "../../envs/export.yaml"
    resources:
        **needs("download") | {"mem_mb": download_mem_mb},
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
