"""Needs: `evaluation` of the configuration. Makes: how good the original and the variants are on labelled data.

As with parity, measuring and judging are separate rules, so that the evidence survives a verdict against a variant.
"""


rule fetch_evaluation:
    output:
        "results/{model}/evaluation/data.{suffix}",
    log:
        "results/logs/fetch_evaluation/{model}.{suffix}.log",
    conda:
        "../../envs/export.yaml"
    resources:
        **needs("fetch_evaluation"),
    params:
        script=script_path("fetch_evaluation"),
        code=script_digest("fetch_evaluation"),
        place=dataset_arguments,
    message:
        "{wildcards.model}: downloading the labelled data (log: {log})"
    shell:
        "python {params.script:q} --model {wildcards.model:q} {params.place:q} --output {output:q} > {log:q} 2>&1"


rule keep_aside:
    input:
        folder="results/{model}/source",
        manifest="results/{model}/source.json",
        data=labelled_data,
        documents=evaluation_documents,
    output:
        "results/{model}/evaluation/kept_aside.json",
    log:
        "results/logs/keep_aside/{model}.log",
    conda:
        "../../envs/export.yaml"
    resources:
        **needs("keep_aside"),
    params:
        script=script_path("keep_aside"),
        code=script_digest("keep_aside"),
        task=task_argument,
        settings=search_settings,
        documents=documents_argument,
    message:
        "{wildcards.model}: keeping labelled rows aside for the search (log: {log})"
    shell:
        "python {params.script:q} --model {wildcards.model:q} --source {input.folder:q} {params.task:q} "
        "--data {input.data:q} {params.documents:q} --settings {params.settings:q} --output {output:q} > {log:q} 2>&1"


rule record_evaluation:
    input:
        files_of_evaluation,
        folder="results/{model}/source",
        manifest="results/{model}/source.json",
        data=labelled_data,
        documents=evaluation_documents,
    output:
        answers="results/{model}/evaluation/answers/pytorch.jsonl",
        manifest="results/{model}/evaluation/answers/pytorch.json",
    log:
        "results/logs/record_evaluation/{model}.log",
    benchmark:
        "results/{model}/cost/record_evaluation.tsv"
    priority: PYTORCH_PRIORITY
    conda:
        "../../envs/export.yaml"
    threads: PARITY_THREADS
    resources:
        **needs("record_evaluation"),
    params:
        start=script_path("onnxproof/engine/fork_client"),
        script=script_path("record_evaluation"),
        code=script_digest("record_evaluation"),
        task=task_argument,
        settings=evaluation_settings,
        documents=documents_argument,
        threads=PARITY_THREADS,
    message:
        "{wildcards.model}: PyTorch answers the labelled data (log: {log})"
    shell:
        "python {params.start:q} {params.script:q} --model {wildcards.model:q} --source {input.folder:q} {params.task:q} "
        "--data {input.data:q} {params.documents:q} --settings {params.settings:q} --threads {params.threads} "
        "--output {output.answers:q} --manifest {output.manifest:q} > {log:q} 2>&1"


rule evaluate:
    input:
        files_of_evaluation,
        folder="results/{model}/onnx/{variant}",
        manifest="results/{model}/onnx/{variant}.json",
        original="results/{model}/evaluation/answers/pytorch.json",
        reference="results/{model}/reference.json",
        data=labelled_data,
        documents=evaluation_documents,
    output:
        answers="results/{model}/evaluation/answers/{variant}.jsonl",
        manifest="results/{model}/evaluation/answers/{variant}.json",
    log:
        "results/logs/evaluate/{model}.{variant}.log",
    benchmark:
        "results/{model}/cost/evaluate.{variant}.tsv"
    conda:
        "../../envs/export.yaml"  # the program of an image model needs transformers' image processors
    threads: PARITY_THREADS
    resources:
        **needs("evaluate"),
    params:
        script=script_path("evaluate"),
        code=script_digest("evaluate"),
        settings=evaluation_settings,
        documents=documents_argument,
        threads=PARITY_THREADS,
    message:
        "{wildcards.model}: {wildcards.variant} answers the labelled data (log: {log})"
    shell:
        "python {params.script:q} --onnx-dir {input.folder:q} --onnx-manifest {input.manifest:q} "
        "--original {input.original:q} --reference-manifest {input.reference:q} --data {input.data:q} "
        "{params.documents:q} --settings {params.settings:q} --threads {params.threads} "
        "--output {output.answers:q} --manifest {output.manifest:q} > {log:q} 2>&1"


rule score_evaluation:
    input:
        original="results/{model}/evaluation/answers/pytorch.jsonl",
        original_manifest="results/{model}/evaluation/answers/pytorch.json",
        answers="results/{model}/evaluation/answers/{variant}.jsonl",
        manifest="results/{model}/evaluation/answers/{variant}.json",
    output:
        scores="results/{model}/evaluation/{variant}.jsonl",
        record="results/{model}/evaluation/{variant}.json",
    log:
        "results/logs/score_evaluation/{model}.{variant}.log",
    conda:
        "../../envs/evaluation.yaml"
    threads: PARITY_THREADS
    resources:
        **needs("score_evaluation"),
    params:
        start=script_path("onnxproof/engine/fork_client"),
        script=script_path("score_evaluation"),
        code=script_digest("score_evaluation"),
    message:
        "{wildcards.model}: scoring {wildcards.variant} on the labelled data (log: {log})"
    shell:
        "python {params.start:q} {params.script:q} --original {input.original:q} --original-manifest {input.original_manifest:q} "
        "--variant {input.answers:q} --variant-manifest {input.manifest:q} "
        "--scores {output.scores:q} --output {output.record:q} > {log:q} 2>&1"


rule gate_evaluation:
    input:
        "results/{model}/evaluation/{variant}.json",
    output:
        "results/{model}/evaluation/{variant}.ok",
    log:
        "results/logs/gate_evaluation/{model}.{variant}.log",
    conda:
        "../../envs/evaluation.yaml"
    resources:
        **needs("gate_evaluation"),
    params:
        script=script_path("gate_evaluation"),
        code=script_digest("gate_evaluation"),
        limit=worse_argument,
    message:
        "{wildcards.model}: judging {wildcards.variant} on the labelled data (log: {log})"
    shell:
        "python {params.script:q} --evaluation {input:q} {params.limit:q} --output {output:q} > {log:q} 2>&1"
