"""What is replaced in Snakemake while this workflow runs by itself, for the one version that it was written for.

As a module of another workflow it replaces nothing.
"""

import contextlib
import dis
import gc
import importlib.metadata
import itertools
import logging
import operator
import re
import sys
import threading
from collections.abc import AsyncIterator, Collection, Iterable
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import psutil
from snakemake_interface_logger_plugins.common import LogEvent

from onnxproof.engine.fork_client import job_name

#: The version of Snakemake that the patches were written for and measured with.
SNAKEMAKE = "9.27.1"
#: How many more objects than before Python holds when it looks for garbage, and how many such looks there are until it
#: looks at older objects too.
GARBAGE = (100_000, 20, 20)
#: By how much the resident memory of a job has to grow for its pages to be counted anew.
GROWTH = 1.02


@cache
def plan_with_less_work(has_storage: bool) -> bool:
    """Let Snakemake do once what it does several times for each job that it plans, and not at all what nobody sees.

    The plan stays the same. Python looks for garbage after each 700 new objects, and finds none, because a plan keeps
    what it makes.

    Args:
        has_storage: whether results go to object storage.

    Returns:
        Whether anything was replaced, at the first call: another version of Snakemake is left alone.
    """
    if importlib.metadata.version("snakemake") != SNAKEMAKE:
        return False
    gc.set_threshold(*GARBAGE)
    from snakemake import common

    _replace(common.get_function_params, cache(common.get_function_params))
    _log_what_is_shown()
    _ask_for_flags_directly(has_storage)
    _compare_files_as_strings()
    _make_files_directly()
    _read_attributes_directly()
    _match_each_pattern_once()
    _look_into_the_cache_first()
    _check_suspicious_paths_only()
    _find_wildcards_once()
    _expand_once()
    _plan_without_resources()
    _compare_paths_as_lists()
    _find_producers_once()
    _skip_what_no_rule_makes()
    _mark_ready_without_telling()
    _count_jobs_once()
    _name_items_directly()
    _look_at_files_without_tasks(has_storage)
    _import_pandas_for_its_values_only()
    return True


def _replace(old: Any, new: Any) -> None:
    """Put a function or class of Snakemake in the place of another, in all modules that have imported that one."""
    called = old.__name__
    for name, module in list(sys.modules.items()):
        if name.startswith("snakemake") and getattr(module, called, None) is old:
            setattr(module, called, new)


def _log_what_is_shown() -> None:
    """Write a job's message and command for the log once instead of three times, and only if a handler takes them.

    The first job of each rule is written in any case, so that a quiet plan finds the mistakes in a rule too.
    """
    from snakemake import jobs

    command_of, log_info = jobs.Job.shellcmd.fget, jobs.Job.log_info
    written = set()

    def log_with_one_command(job: Any, *arguments: Any, **options: Any) -> None:
        if job.rule.name in written and not any(map(_is_shown, (LogEvent.JOB_INFO, LogEvent.SHELLCMD))):
            return
        written.add(job.rule.name)
        job.command_to_log = command_of(job)
        try:
            log_info(job, *arguments, **options)
        finally:
            del job.command_to_log

    def command(job: Any) -> str | None:
        found: str | None = job.command_to_log if hasattr(job, "command_to_log") else command_of(job)
        return found

    jobs.Job.log_info, jobs.Job.shellcmd = log_with_one_command, property(command)


def _is_shown(event: LogEvent) -> bool:
    """Tell whether any handler of Snakemake's log, or of those above it, takes a message about an event."""
    handlers: list[logging.Handler] = []
    log: logging.Logger | None = logging.getLogger("snakemake.logging")
    while log:
        handlers += log.handlers
        log = log.parent if log.propagate else None
    return _takes_any(event, tuple(handlers))


@lru_cache(maxsize=100)
def _takes_any(event: LogEvent, handlers: tuple[logging.Handler, ...]) -> bool:
    """Tell whether any of these handlers takes a message about an event, which does not change while it is there."""
    record = logging.makeLogRecord({"levelno": logging.INFO, "levelname": "INFO", "event": event})
    return any(handler.filter(record) for handler in handlers)


def _ask_for_flags_directly(has_storage: bool) -> None:
    """Answer whether a file is ``temp()``, in object storage and so on without a look at abstract base classes.

    Snakemake asks this 270 times for each job. No file is in object storage where results do not go there: the rules
    name no storage of their own.
    """
    from snakemake import io

    ask, ask_value = io.is_flagged, io.get_flag_value

    def is_flagged(value: Any, flag: str) -> bool:
        kind = type(value)
        if kind is io._IOFile:
            value = value._file
            kind = type(value)
        if kind is io.AnnotatedString:
            return bool(value._flags.get(flag))
        return kind is not str and bool(ask(value, flag))

    def get_flag_value(value: Any, flag: str) -> Any:
        file = value._file if type(value) is io._IOFile else value
        if type(file) is io.AnnotatedString:
            return file._flags.get(flag)
        return None if type(file) is str else ask_value(value, flag)

    def is_storage(file: Any) -> bool:
        value = file._file
        if type(value) is io.AnnotatedString:
            return bool(value._flags.get("storage_object"))
        return is_flagged(value, "storage_object")

    _replace(ask, is_flagged)
    _replace(ask_value, get_flag_value)
    io._IOFile.is_storage = property(is_storage) if has_storage else False


def _compare_files_as_strings() -> None:
    """Compare files, and look them up, as the strings that they are: Snakemake asks the string that each one holds."""
    from snakemake import io

    del io._IOFile.__eq__, io._IOFile.__hash__


def _make_files_directly() -> None:
    """Make a file of a plain path, and fill the wildcards of one in, without asking what a plain path can not be."""
    from snakemake import io

    make_any, clone_any = io.IOFile, io._IOFile.clone_flags
    plain = (str, io.AnnotatedString)

    def make(file: Any, rule: Any = None) -> Any:
        if type(file) is not str or rule is None or "<" in file or file[-1:] == "/":  # "<" begins a variable
            return make_any(file, rule=rule)
        made = str.__new__(io._IOFile, file)
        made._is_callable, made._file, made.rule = False, file, rule
        made._regex = made._wildcard_constraints = None
        return made

    def clone_flags(file: Any, other: Any, skip_storage_object: bool = False) -> None:
        own, given = file._file, other._file
        flags = given._flags if type(given) is io.AnnotatedString else {}
        if type(own) is not str or type(given) not in plain or "storage_object" in flags:
            clone_any(file, other, skip_storage_object)
            return
        file._file = annotated = str.__new__(io.AnnotatedString, own)
        annotated._flags, annotated.callable = flags.copy(), None

    _replace(make_any, make)
    io._IOFile.clone_flags = clone_flags


def _read_attributes_directly() -> None:
    """Read attributes behind properties that do nothing else without a call of Python: the names of rules and so on."""
    from snakemake import io, jobs, rules, workflow

    for kind in (io._IOFile, io.AnnotatedString, io.IOCache, jobs.Job, rules.Rule, workflow.Workflow):
        for name, member in list(vars(kind).items()):
            attribute = _attribute_behind(member)
            if attribute:
                setattr(kind, name, property(operator.attrgetter(attribute), member.fset, member.fdel, member.__doc__))


def _attribute_behind(member: Any) -> str | None:
    """Return the name of the attribute that a property's getter returns, if that is all that it does."""
    code = getattr(getattr(member, "fget", None), "__code__", None) if type(member) is property else None
    if code is None:
        return None
    steps = [step for step in dis.get_instructions(code) if step.opname not in ("RESUME", "CACHE")]
    if [step.opname for step in steps] != ["LOAD_FAST", "LOAD_ATTR", "RETURN_VALUE"]:
        return None
    return str(steps[1].argval)


def _match_each_pattern_once() -> None:
    """Find the rules that make a file by those patterns alone that fit its path.

    Snakemake finds the rules of such patterns, and then matches all patterns of these rules, log files included. Which
    patterns fit what stands behind ``results/{model}/`` is looked up, because models have that in common.
    """
    from snakemake import io, output_index

    def behind_model(pattern: str) -> Any:
        """Return what matches a path from its third part on, as the pattern does; None where that says nothing."""
        first = io.WILDCARD_REGEX.search(pattern)
        if first is None or pattern[: first.start()] != "results/" or first.group("name") != "model":
            return None
        rest = pattern[first.end() :]
        return re.compile(io.regex_from_filepattern(rest[1:])).match if rest.startswith("/") else None

    class OutputIndex(output_index.OutputIndex):
        """Look up structure for rules by what they make."""

        def __init__(self, rules: list[Any]) -> None:
            super().__init__(rules)
            self._patterns = [
                (
                    rule,
                    str(pattern.constant_prefix()),
                    str(pattern.constant_suffix()),
                    pattern.match,  # which compiles the pattern once it is asked: with all models' names it is long
                    behind_model(str(pattern)),
                )
                for rule in rules
                for pattern in rule.products()
            ]
            self._fitting = lru_cache(maxsize=10_000)(self._find_fitting)

        def _find_fitting(self, end: str) -> list[tuple[Any, str, str, Any]]:
            """Return the patterns that a path may match that goes on like this from its third part on."""
            return [
                (rule, prefix, suffix, match)
                for rule, prefix, suffix, match, rest in self._patterns
                if (rest(end) if rest else end.endswith(suffix[-len(end) :] if end else ""))
            ]

        def match_producers(self, targetfile: str) -> set[Any]:
            return {
                rule
                for rule, prefix, suffix, match in self._fitting(targetfile.split("/", 2)[-1])
                if targetfile.startswith(prefix) and targetfile.endswith(suffix) and match(targetfile)
            }

    _replace(output_index.OutputIndex, OutputIndex)


def _look_into_the_cache_first() -> None:
    """Ask whether it is known of a file that it exists before asking whether its folder was listed."""
    from snakemake import io

    def is_known(cache: Any, path: Any) -> bool:
        if dict.__contains__(cache, path):
            return True
        return type(path) is io._IOFile and path.get_inventory_parent() in cache.has_inventory

    io.ExistsDict.__contains__ = is_known


def _check_suspicious_paths_only() -> None:
    """Search a path for what Snakemake warns of only if it holds one of the characters that are necessary for it."""
    from snakemake import io

    check_all = io.check

    def check(iofile: str, *arguments: Any, **options: Any) -> None:
        fine = iofile and iofile[0] not in " ./" and iofile[-1] != " "
        if not fine or "//" in iofile or "{" in iofile or "\n" in iofile:
            check_all(iofile, *arguments, **options)

    _replace(check_all, check)


def _find_wildcards_once() -> None:
    """Search a pattern for its wildcards once, not for each job that fills them in."""
    from snakemake import io
    from snakemake.exceptions import WildcardError

    @lru_cache(maxsize=1000)
    def pieces_of(pattern: str) -> tuple[list[str], list[str]]:
        """Return what stands before, between and behind the wildcards, and their names."""
        found = list(io.WILDCARD_REGEX.finditer(pattern))
        ends = [0, *(match.end() for match in found)]
        starts = [*(match.start() for match in found), len(pattern)]
        texts = [pattern[start:end] for start, end in zip(ends, starts, strict=True)]
        return texts, [match.group("name") for match in found]

    def apply_wildcards(pattern: str, wildcards: Any) -> str:
        if "{" not in pattern:
            return str(pattern)
        (first, *others), names = pieces_of(str(pattern))
        try:
            filled = [str(wildcards[name]) + text for name, text in zip(names, others, strict=True)]
        except KeyError as error:
            raise WildcardError(str(error)) from error
        return "".join([first, *filled])

    _replace(io.apply_wildcards, apply_wildcards)


def _expand_once() -> None:
    """Keep what was made of a job's wildcards: the object that its functions are given, its log and its benchmark.

    Snakemake makes the object for each function, and expands the two files once more to see that this can be done. It
    also starts a task for each output to see whether that is protected.
    """
    from snakemake import iocontainers, jobs, rules
    from snakemake.exceptions import ProtectedOutputException

    @lru_cache(maxsize=1)
    def made_of(items: tuple[tuple[str, str], ...]) -> Any:
        return iocontainers.Wildcards(fromdict=dict(items))

    def wildcards(fromdict: dict[str, str]) -> Any:
        return made_of(tuple(fromdict.items()))

    def is_valid(job: Any) -> None:
        job.benchmark, job.log  # noqa: B018 - properties that expand and keep them

    async def check_protected_output(job: Any) -> None:
        protected = [file for file in job.output if await file.protected()]
        if protected:
            raise ProtectedOutputException(job, protected)

    rules.Wildcards = wildcards
    jobs.Job.is_valid, jobs.Job.check_protected_output = is_valid, check_protected_output


def _plan_without_resources() -> None:
    """Leave out what only a job that runs has need of: a plan that shows no jobs takes and frees no resources.

    A rule's environment, where it is known already, is not asked for with the parameters of each of its jobs.
    """
    from snakemake import jobs, rules
    from snakemake.scheduling.job_scheduler import JobScheduler

    free, environment_of = JobScheduler._free_resources, jobs.Job.conda_env_spec.fget

    def free_resources(scheduler: Any, job: Any) -> None:
        if not scheduler.dryrun:
            free(scheduler, job)

    def conda_env_spec(job: Any) -> Any:
        known = job.rule._expanded_conda_env
        return environment_of(job) if known is rules._NOT_CACHED else known

    JobScheduler._free_resources = free_resources
    jobs.Job.conda_env_spec = property(conda_env_spec)


def _compare_paths_as_lists() -> None:
    """Look for outputs within outputs in sorted lists of strings: to sort ``Path`` takes a multiple of the time."""
    from snakemake import dag
    from snakemake.exceptions import ChildIOException

    def parts_of(folder: Path, path: str) -> list[str]:
        whole = path if path.startswith("/") else f"{folder}/{path}"
        return [part for part in whole.split("/") if part not in ("", ".")]

    def check_directory_outputs(plan: Any) -> None:
        folder = Path.cwd()
        outputs = sorted(
            ((parts_of(folder, file), str(file), job) for job in plan.jobs for file in job.output),
            key=lambda each: each[0],
        )
        for (parent, outer, owner), (child, inner, other) in itertools.pairwise(outputs):
            if parent != child and child[: len(parent)] == parent and owner != other:
                raise ChildIOException(parent=(Path(outer).absolute(), owner), child=(Path(inner).absolute(), other))

    dag.DAG.check_directory_outputs = check_directory_outputs


def _find_producers_once() -> None:
    """Remember which job makes a file: Snakemake looks for it again for each job that reads the file."""
    from snakemake.dag import DAG

    find = DAG.update

    async def update(plan: Any, jobs: Any, file: Any = None, **options: Any) -> Any:
        job = await find(plan, jobs, file=file, **options)
        if file is not None and options.get("known_producers") is not None:
            options["known_producers"][file] = [job]
        return job

    DAG.update = update


def _skip_what_no_rule_makes() -> None:
    """Look for files that are ``temp()``, ``pipe()`` and so on only where a rule makes such files."""
    from snakemake.dag import DAG
    from snakemake.jobs import Job

    handle_temp, handle_pipes, handle_updates = DAG.handle_temp, DAG.handle_pipes_and_services, DAG.handle_update_flags
    find_missing = Job.missing_output

    @cache
    def is_made(plan: Any, *flags: str) -> bool:
        """Tell whether any rule makes files with one of these flags."""
        return any(file.flags.get(flag) for rule in plan.workflow.rules for file in rule.output for flag in flags)

    async def handle_temp_files(plan: Any, job: Any) -> None:
        if is_made(plan, "temp"):
            await handle_temp(plan, job)

    def handle_pipes_and_services(plan: Any) -> None:
        if is_made(plan, "pipe", "service", "nodelocal"):
            handle_pipes(plan)

    def handle_update_flags(plan: Any) -> None:
        if is_made(plan, "update"):
            handle_updates(plan)

    async def missing_output(job: Any, requested: Iterable[Any]) -> AsyncIterator[Any]:
        if is_made(job.dag, "pipe", "service"):
            async for file in find_missing(job, requested):
                yield file
            return
        for path in requested:
            file = job.output_by_path.get(str(path), path)
            if not await file.exists():
                yield file

    DAG.handle_temp, Job.missing_output = handle_temp_files, missing_output
    DAG.handle_pipes_and_services, DAG.handle_update_flags = handle_pipes_and_services, handle_update_flags


def _mark_ready_without_telling() -> None:
    """Mark the jobs that wait for no other, without a text about each job for a log that nobody keeps."""
    from snakemake.dag import DAG

    update_groups = DAG.update_ready

    def update_ready(plan: Any, jobs: Iterable[Any] | None = None) -> bool:
        if plan._group:
            return bool(update_groups(plan, jobs))
        ready = [
            job
            for job in (plan.needrun_jobs() if jobs is None else jobs)
            if plan._n_until_ready[job] == 0
            and job not in plan._ready_jobs
            and job not in plan._running
            and not plan.finished(job)
            and not job.has_unfinished_queue_input()
        ]
        plan._ready_jobs.update(ready)
        return bool(ready)

    DAG.update_ready = update_ready


def _count_jobs_once() -> None:
    """Count the jobs of a plan once: they are printed at its start and at its end, and their order is sorted for it."""
    from snakemake.dag import DAG

    count, count_planned = DAG.stats, cache(DAG.stats)

    def stats(plan: Any) -> Any:
        return count_planned(plan) if plan.workflow.dryrun else count(plan)

    DAG.stats = stats


def _name_items_directly() -> None:
    """Make a list of inputs, outputs or log files without an import, and with the two guards that all may share."""
    from snakemake.iocontainers import AttributeGuard, Namedlist

    make_any, guarded = Namedlist.__init__, ["index", "sort"]
    guards = {name: AttributeGuard(name) for name in guarded}

    def make(items: Any, toclone: Any = None, fromdict: dict[str, Any] | None = None, **options: Any) -> None:
        if options:
            make_any(items, toclone, fromdict, **options)
            return
        list.__init__(items, toclone or ())
        vars(items).update(guards, _names={}, _allowed_overrides=guarded)
        if isinstance(toclone, Namedlist):
            items._take_names(toclone._get_names())
        for name, item in (fromdict or {}).items():
            items.append(item)
            items._add_name(name)

    Namedlist.__init__ = make


def _look_at_files_without_tasks(has_storage: bool) -> None:
    """Ask for files on a disk one after the other: Snakemake starts a task for each, which is for files elsewhere."""
    from snakemake import io, jobs

    look = io._IOFile.exists

    async def exists(file: Any) -> bool:
        known = file.rule.workflow.iocache.exists_local
        return bool(dict.__getitem__(known, file) if dict.__contains__(known, file) else await look(file))

    async def inventory(file: Any) -> None:
        files = file.rule.workflow.iocache
        if files.active and not io.ON_WINDOWS and file not in files.exists_local:
            await file._local_inventory(files)

    async def output_mintime(job: Any) -> float | None:
        files = [*job.output, *([job.benchmark] if job.benchmark else [])]
        return min([(await file.mtime()).local_or_storage() for file in files if await file.exists()], default=None)

    if not has_storage:
        io._IOFile.exists, io._IOFile.inventory = exists, inventory
        jobs.Job.output_mintime = property(output_mintime)


def _import_pandas_for_its_values_only() -> None:
    """Write down parameters without pandas as long as nothing has imported it: none of them is a table of pandas then.

    Snakemake imports it where it is installed, at its first job: that takes half a second, and 60 MB until it ends.
    """
    from snakemake.persistence import PersistenceBase

    def serialize(persistence: Any) -> Any:
        is_there = "pandas" in sys.modules
        return persistence._serialize_param_pandas if is_there else persistence._serialize_param_builtin

    PersistenceBase._serialize_param = property(serialize)


def keep_one_timer(scheduler: Any) -> bool:
    """Let one timer at a time wake Snakemake's scheduler, which is all that its limit of jobs a second needs.

    Snakemake starts another timer after each look at the ready jobs, and each of them leads to the next look: one more
    a second for every job that has ended, as long as jobs wait for a core. Its options do not turn the limit off.

    Args:
        scheduler: the ``JobScheduler`` of this run.

    Returns:
        Whether it was replaced: another version of Snakemake is left alone.
    """
    if importlib.metadata.version("snakemake") != SNAKEMAKE:
        return False
    waiting = threading.Event()

    def wake() -> None:
        waiting.clear()  # first: the look that follows starts the next timer
        scheduler._open_jobs.release()

    def wake_once_after(delay: float) -> None:
        if not waiting.is_set():
            waiting.set()
            threading.Timer(delay, wake).start()

    scheduler._schedule_reevalutation = wake_once_after
    return True


def count_forked_jobs() -> bool:
    """Have ``benchmark:`` of a rule count what jobs take that ``fork_server`` forks.

    Snakemake looks at the process of a job's command and its descendants. A forked job is a child of the server; its
    name tells whose it is.

    Returns:
        Whether they will be counted. In another version of Snakemake they are not: they would seem to take nothing.
    """
    if importlib.metadata.version("snakemake") != SNAKEMAKE:
        return False
    from snakemake import benchmark

    class Command(Watched):
        """The process of a job's command, which has forked jobs among its descendants."""

        def children(self, recursive: bool = False) -> list[psutil.Process]:
            found = super().children(recursive)
            names = {job_name(process.pid) for process in found}
            forked = (process for process in psutil.Process().children(recursive=True) if is_named(process, names))
            return watched(found + [each for job in forked for each in (job, *job.children(recursive=True))])

    class Timer(benchmark.BenchmarkTimer):
        """Looks at a command now and then."""

        def __init__(self, pid: int, *arguments: Any) -> None:
            super().__init__(pid, *arguments)
            self.main = Command(pid)

    benchmark.BenchmarkTimer = Timer
    return True


class Watched(psutil.Process):
    """A process whose pages are counted anew only when it has more of them resident than before.

    Snakemake looks twice a second and keeps the largest figures. To count the pages takes 10 ms for each GB, which was
    more than half of all that Snakemake itself took.
    """

    _pages: Any = None
    _resident = 0

    def memory_full_info(self) -> Any:
        """Return the memory; what the process shares with others is that of its last growth."""
        now = self.memory_info()
        if self._pages is None or now.rss > self._resident * GROWTH:
            self._resident, self._pages = now.rss, super().memory_full_info()
        return self._pages._replace(rss=now.rss, vms=now.vms)


def watched(processes: Iterable[psutil.Process]) -> list[psutil.Process]:
    """Return processes that have not ended as such whose pages are seldom counted."""
    found: list[psutil.Process] = []
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            found.append(Watched(process.pid))
    return found


def is_named(process: psutil.Process, names: Collection[str]) -> bool:
    """Tell whether a process has one of some names; one that has ended has none."""
    try:
        return process.name() in names
    except psutil.NoSuchProcess:
        return False


def forget_removed_folders() -> bool:
    """Let the S3 plugin see that a folder is no longer there, once it was removed.

    The plugin remembers that a name was a folder's. A job that fails after its old output was removed then seems to
    have it still, and Snakemake ends the whole run when it asks how old that is.

    Returns:
        Whether the plugin is in use.
    """
    plugin = sys.modules.get("snakemake_storage_plugin_s3")
    if plugin is None:
        return False
    remove = plugin.StorageObject.remove

    def remove_and_forget(self: Any) -> None:
        remove(self)
        self._is_dir = None

    plugin.StorageObject.remove = remove_and_forget
    return True
