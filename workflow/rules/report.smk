"""Needs: every model's manifests, parity and benchmarks. Makes: one table and one page over all of them.

The verdicts come from the same judgement as the gates', not from the gates' files, so that a model that failed
its gate is in the report too.
"""


rule summary:
    input:
        expand("results/{model}/source.json", model=MODELS),
        variant_files("results/{model}/onnx/{variant}.json", VARIANTS),
        variant_files("results/{model}/parity/{variant}.json", VARIANTS),
        benchmark_files(MODELS),
        provider_files(MODELS),
        [f"results/{model}/evaluation/{variant}.json" for model in MODELS for variant in evaluated(model)],
        template=resource_path("report.html.j2"),
        script=resource_path("report.js"),
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
    localrule: True  # it reads every model's files, most of them small
    conda:
        "../../envs/report.yaml"
    params:
        script=script_path("summary"),
        code=script_digest("summary"),
        settings=summary_settings,  # to the shell's own printf: no command line holds thousands of models
        place=results_place,
    message:
        "all models: writing the summary and the report (log: {log})"
    shell:
        "printf %s {params.settings:q} | "
        'python {params.script:q} --results "$(dirname {output.csv:q})" --settings /dev/stdin '
        "--place {params.place:q} --output-csv {output.csv:q} --output-html {output.html:q} > {log:q} 2>&1"
