"""Needs: PyTorch's recorded answers of a model, and ONNX files that others made of it. Makes: what is wrong with them.

A finding fails no job: the files are not ours, and what is wrong with them is the result.
"""


rule audit:
    input:
        audited_files,
        source="results/{model}/source",
        source_manifest="results/{model}/source.json",
        reference="results/{model}/reference",
        reference_manifest="results/{model}/reference.json",
    output:
        record="results/{model}/audits/{audit}/audit.json",
        page="results/{model}/audits/{audit}/audit.md",
    log:
        "results/logs/audit/{model}.{audit}.log",
    benchmark:
        "results/{model}/cost/audit.{audit}.tsv"
    conda:
        "../../envs/export.yaml"
    threads: PARITY_THREADS
    resources:
        **needs("audit"),
    params:
        script=script_path("audit"),
        code=script_digest("audit"),
        place=audited_place,
        thresholds=all_thresholds,
        batch_size=parity_batch_size,
        threads=PARITY_THREADS,
    message:
        "{wildcards.model}: auditing {wildcards.audit} (log: {log})"
    shell:
        'python {params.script:q} {params.place:q} --results "$(dirname {input.reference:q})" '
        "--thresholds {params.thresholds:q} --batch-size {params.batch_size} --threads {params.threads} --exit-zero "
        '--known --output "$(dirname {output.record:q})" > {log:q} 2>&1'
