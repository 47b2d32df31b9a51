"""Needs: every model's manifests, parity and benchmarks. Makes: one table and one page over all of them.

The verdicts come from the same judgement as the gates', not from the gates' files, so that a model that failed
its gate is in the report too.
"""


# Where Snakemake itself runs: it reads every model's files, and its settings lie beside them.
localrules:
    summary,


rule summary:
    input:
        expand("results/{model}/source.json", model=MODELS),
        variant_files("results/{model}/onnx/{variant}.json", VARIANTS),
        variant_files("results/{model}/parity/{variant}.json", VARIANTS),
        benchmark_files(MODELS),
        template=own_file("resources/report.html.j2"),
        script=own_file("resources/report.js"),
    output:
        csv=report(
            "results/summary.csv",
            caption="../report/summary.rst",
            category="Summary",
            labels={"what": "table"},
        ),
        html=report(
            "results/report.html",
            caption="../report/summary.rst",
            category="Summary",
            labels={"what": "page"},
        ),
    log:
        "results/logs/summary/summary.log",
    conda:
        "../../envs/report.yaml"
    params:
        script=script_path("summary"),
        code=script_digest("summary"),
        settings_file=SUMMARY_SETTINGS,
        settings_digest=summary_digest,
        place=results_place,
        latest=SUMMARY,
    message:
        "all models: writing the summary and the report (log: {log})"
    shell:
        'python {params.script:q} --results "$(dirname {output.csv:q})" --settings {params.settings_file:q} '
        "--place {params.place:q} --output-csv {output.csv:q} --output-html {output.html:q} "
        "--copy {params.latest:q} > {log:q} 2>&1"
