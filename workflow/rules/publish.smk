"""Needs: verified releases and a repository for each. Makes: pull requests or branches on the Hub; only when asked to.

The passed gates are inputs, so that Snakemake itself refuses a release whose gate no longer passes, also where an older
release still lies in object storage.
"""


rule publish_release:
    input:
        folder="results/{model}/release",
        manifest="results/{model}/release.json",
        verified="results/{model}/verified.json",
        passed=passed_gates,
    output:
        "results/{model}/published.json",
    log:
        "results/logs/publish_release/{model}.log",
    conda:
        "../../envs/export.yaml"
    resources:
        **needs("publish_release"),
    params:
        script=script_path("publish_release"),
        code=script_digest("publish_release"),
        arguments=publish_arguments,
    message:
        "{wildcards.model}: publishing the release (log: {log})"
    shell:
        'python {params.script:q} --model {wildcards.model:q} --results "$(dirname {input.manifest:q})" '
        "{params.arguments:q} --output {output:q} > {log:q} 2>&1"
