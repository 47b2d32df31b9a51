"""Makes: what is told at the start and at the end of a run.

Snakemake calls these functions only where this workflow is not a module of another one. The jobs need none of them.
"""

import subprocess

from onnxproof.engine.fork_server import start_server
from onnxproof.engine.patches import count_forked_jobs, keep_one_timer
from onnxproof.engine.run_lock import lock_folder

#: From so many jobs on it pays to import PyTorch once for all of them.
LEAST_FORKED_JOBS = 2


def import_pytorch_once() -> None:
    """Start the process that forks the jobs of this run that import PyTorch, if they run here and not in containers.

    Where it is started, it forks those that score labelled data too. Benchmarks are none of them: they measure the
    memory of a process that has imported what it needs and no more.
    """
    waiting = set(workflow.dag.needrun_jobs())
    jobs = count_jobs(waiting, rules.export, rules.record_reference, rules.record_evaluation)
    scoring = count_jobs(waiting, rules.score_evaluation)
    elsewhere = workflow.non_local_exec or workflow.deployment_settings.deployment_method or workflow.touch
    if jobs >= LEAST_FORKED_JOBS and not elsewhere and workflow.is_main_process and count_forked_jobs():
        start_server(jobs + scoring, PARITY_THREADS)


def count_jobs(waiting: set, *proxies) -> int:
    """Return how many of the jobs that this run has to do are of some rules."""
    return sum(job in waiting for proxy in proxies for job in jobs_of(proxy))


def jobs_of(proxy) -> list:
    """Return the jobs that this run has of a rule, done or not."""
    return [job for job in workflow.dag.jobs if job.rule is proxy.rule]


def failed_jobs() -> list:
    """Return the jobs of single models that this run tried in vain."""
    failed = [each for job in workflow.scheduler.failed for each in (job.jobs if job.is_group() else [job])]
    of_models = (job for job in failed if "model" in job.rule.wildcard_names)
    return sorted(of_models, key=workflow.dag.jobid)


def describe_failure(job) -> dict[str, str]:
    """Return the model, rule, variant and log of a job that was tried in vain."""
    return {
        "model": job.wildcards.model,
        "rule": job.rule.name,
        "variant": job.wildcards.get("variant") or job.wildcards.get("quantized") or "",
        "log": str(job.log[0]),
    }


def refused_models() -> set[str]:
    """Return the models of which this run refused a variant at its gate."""
    gates = [*jobs_of(rules.gate_parity), *jobs_of(rules.gate_evaluation)]
    return {job.wildcards.model for job in failed_jobs() if job in gates}


def released_models() -> list[str]:
    """Return the models whose releases are verified, as far as this run looked at them."""
    unfinished = set(workflow.dag.needrun_jobs())
    verified = {job.wildcards.model for job in jobs_of(rules.verify_release) if job not in unfinished}
    return sorted(verified - refused_models())


def withdraw_releases() -> None:
    """Delete the release of every model of which a gate failed, on disk or in object storage: it would look proven.

    The rule ``release`` withdraws a release too, but not where it is no part of the run, or the run stops at the first
    failure; and no rule deletes the records of jobs that are not started because the release failed. Nothing that is
    still good is lost: a gate that is judged again has its release made anew.
    """
    for model in refused_models():
        for proxy in (rules.publish_release, rules.verify_release, rules.release):
            files, _ = proxy.rule.expand_output({"model": model})
            for file in reversed(files):  # the manifest first, then the folder that it describes
                workflow.async_run(file.remove())


def tell(script: str, run: object, *options: str) -> None:
    """Start a script that tells the user about this run; it reads what it needs to know of it from standard input."""
    command = [sys.executable, script_path(script), *map(str, options)]
    subprocess.run(command, input=json.dumps(run), text=True, check=True)


def show_summary() -> bool:
    """Print the table of results and return True, unless this run wrote no new one."""
    written = [job for job in jobs_of(rules.summary) if workflow.dag.finished(job)]
    for job in written:
        table = job.output.csv
        if table.is_storage:
            workflow.async_run(table.retrieve_from_storage())
        for name in ("partial.csv", "partial.html", "failures.csv"):
            (results_folder() / "logs/summary" / name).unlink(missing_ok=True)
        page = f"{results_place()}/report.html"
        tell("show_summary", released_models(), "--csv", table, "--report", page, "--released", "-")
    return bool(written)


def show_failures() -> None:
    """Print what a failed run achieved nevertheless, and each failed job with its reason and its log."""
    partial = [] if show_summary() else ["--partial"]
    run = {
        "settings": json.loads(summary_settings()),
        "released": released_models(),
        "failed": [describe_failure(job) for job in failed_jobs()],
    }
    results = results_folder()
    places = ("--results", results, "--output-dir", results / "logs/summary")
    tell("show_failures", run, "--run", "-", *places, *partial)
