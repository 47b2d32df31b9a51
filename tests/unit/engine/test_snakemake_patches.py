"""What is replaced in Snakemake: only in the version it was written for, and only while that works as it did."""

import importlib.metadata
import inspect
import subprocess
import sys
import threading
import time
import tomllib
from pathlib import Path
from types import SimpleNamespace

import pytest
import snakemake.api  # noqa: F401 - some of its modules cannot be imported first
from snakemake import common, io, iocontainers, output_index, rules
from snakemake.dag import DAG
from snakemake.jobs import Job
from snakemake.persistence import PersistenceBase
from snakemake.scheduling.job_scheduler import JobScheduler

from onnxproof.engine import patches

ROOT = Path(__file__).parents[3]
DELAY_S = 0.02


@pytest.fixture
def scheduler() -> SimpleNamespace:
    return SimpleNamespace(_open_jobs=threading.Semaphore(0), _schedule_reevalutation="Snakemake's own")


def test_the_locked_snakemake_is_the_one_that_the_patches_are_for():
    dependencies = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    assert f"snakemake=={patches.SNAKEMAKE}" in dependencies
    assert importlib.metadata.version("snakemake") == patches.SNAKEMAKE


def test_snakemake_still_starts_a_timer_after_each_look():
    """Once this fails, measure whether the patch is still needed."""
    body = inspect.getsource(JobScheduler._schedule_reevalutation)
    assert [line.strip() for line in body.splitlines()[1:]] == [
        *("threading.Timer(", "delay,", "lambda: self._open_jobs.release(),", ").start()")
    ]
    loop = inspect.getsource(JobScheduler.schedule)
    assert "if self.job_rate_limiter is not None:" in loop
    assert "self._schedule_reevalutation(self.job_rate_limiter.timespan)" in loop


def test_many_looks_start_one_timer_and_each_that_follows_the_next(scheduler):
    assert patches.keep_one_timer(scheduler)
    for woken in (1, 2):
        for _ in range(10):
            scheduler._schedule_reevalutation(DELAY_S)
        assert scheduler._open_jobs.acquire(timeout=10)
        time.sleep(3 * DELAY_S)
        assert not scheduler._open_jobs.acquire(blocking=False), f"woken more than {woken} times"


@pytest.mark.parametrize(
    ("function", "does"),
    [
        (Job.log_info, "shellcmd=self.shellcmd"),
        (common.get_function_params, "inspect.signature(func)"),
        (io.is_flagged, "isinstance(value, AnnotatedStringInterface)"),
        (io._IOFile.is_storage.fget, 'is_flagged(self._file, "storage_object")'),
        (io.get_flag_value, "isinstance(value, AnnotatedString) or isinstance(value, _IOFile)"),
        (io._IOFile.__eq__, "self._file == f"),
        (io._IOFile.__hash__, "self._file.__hash__()"),
        (io._IOFile.__new__, "isfunction(file) or ismethod(file)"),
        (io._IOFile.clone_flags, 'self._file.flags = getattr(other._file, "flags", {}).copy()'),
        (rules.Rule.name.fget, "return self._name"),
        (io.ExistsDict.__contains__, "parent in self.has_inventory or super().__contains__(path)"),
        (output_index.OutputIndex.match_producers, "rule.is_producer(targetfile)"),
        (io.check, "_double_slash_regex.search(iofile)"),
        (io.apply_wildcards, "WILDCARD_REGEX.sub(format_match, pattern)"),
        (rules.Rule.apply_input_function, "Wildcards(fromdict=wildcards)"),
        (Job.is_valid, "self.rule.expand_log(self.wildcards_dict)"),
        (Job.check_protected_output, "tg.create_task(f.protected())"),
        (JobScheduler._finish_jobs, "self._free_resources(job)"),
        (JobScheduler._free_resources, "job.scheduler_resources.items()"),
        (Job.conda_env_spec.fget, "self.wildcards_dict, self.params, self.input"),
        (DAG.check_directory_outputs, "(Path(f).absolute(), job)"),
        (DAG.collect_potential_dependencies, "PotentialDependency(file, known_producers[file], True)"),
        (DAG.update_, "producer[res.file] = res.jobs[0]"),
        (DAG.handle_temp, 'is_flagged(f, "temp")'),
        (DAG.handle_pipes_and_services, "if not has_pipe_or_service and not has_nodelocal:"),
        (DAG.handle_update_flags, 'is_flagged(f, "update")'),
        (DAG.update_ready, 'logger.debug(f"{job.output}: {self._ready(job)} {self._n_until_ready[job]}")'),
        (DAG.stats, "self.toposorted(relevant_jobs)"),
        (Job.missing_output, "async for f in handle_file(f)"),
        (Job.output_mintime.fget, "tg.create_task(get_mtime(f))"),
        (io._IOFile.inventory, "asyncio.gather(*tasks)"),
        (io._IOFile.exists, "await self.exists_local()"),
        (iocontainers.Namedlist.__init__, "setattr(self, name, AttributeGuard(name))"),
        (PersistenceBase._serialize_param_pandas, "import pandas as pd"),
    ],
)
def test_snakemake_still_does_what_a_plan_can_do_without(function, does):
    """Once this fails, measure whether the patch is still needed."""
    assert does in inspect.getsource(function)


#: Compares what is replaced with what it replaces; prints how often they were compared.
COMPARED = """
import itertools, logging, operator, os, re
from types import SimpleNamespace
import snakemake.api
from snakemake import dag, io, iocontainers, output_index, pathvars, rules
from snakemake.exceptions import ChildIOException, WildcardError
from onnxproof.engine import patches

messages = []
io.logger.warning = messages.append
flagged, check, OldIndex = io.is_flagged, io.check, output_index.OutputIndex
stored_by, known_by = io._IOFile.is_storage.fget, io.ExistsDict.__contains__
check_outputs, fill = dag.DAG.check_directory_outputs, io.apply_wildcards
value_of, make, clone = io.get_flag_value, io.IOFile, io._IOFile.clone_flags
are_equal, hash_of = io._IOFile.__eq__, io._IOFile.__hash__
make_list = iocontainers.Namedlist.__init__
assert patches.plan_with_less_work(True)
assert (io.is_flagged, io.check, output_index.OutputIndex) != (flagged, check, OldIndex)
count = 0

def compare(old, new):
    global count
    count += 1
    assert old == new, (old, new)

named = io._IOFile(io.directory(io.temp("results/{model}/a")), None)
values = ["plain", len, named, named.apply_wildcards({"model": "m"}), named._file, io.ancient("b")]
values += [io._IOFile("c", None), io.flag("d", "temp", False), io._IOFile(lambda wildcards: "e", None)]
values += [None, iocontainers.Log()]
for value, flag in itertools.product(values, ("temp", "directory", "ancient", "storage_object")):
    compare(flagged(value, flag), io.is_flagged(value, flag))
    compare(value_of(value, flag), io.get_flag_value(value, flag))

files = [value for value in values if isinstance(value, io._IOFile)]
files += [io._IOFile(io.flag("c", "temp"), None), io._IOFile(len, None), io._IOFile(io.temp("results/m/a"), None)]
for one, other in itertools.product(files, [*files, "c", "results/m/a", 1]):
    compare(are_equal(one, other), one == other)
    if isinstance(other, str) and one == other:
        assert hash(one) == hash(other)
assert len(set(files)) == len(files) - 2

def described(file):
    kind = type(file._file)
    return str(file), kind, getattr(file._file, "flags", None), file._is_callable, file.rule, file.flags

owner = SimpleNamespace(pathvars=pathvars.Pathvars._from_raw({"place": "results"}, 3))
for value in ("a", "a/", "<place>/a", "", io.temp("b"), "x<y"):
    for rule in (None, owner):
        compare(described(make(value, rule)), described(io.IOFile(value, rule)))
for given in (io.temp("t"), "u", io.ancient(io.directory("v"))):
    old, new = io._IOFile("w", None), io._IOFile("w", None)
    clone(old, io._IOFile(given, None))
    new.clone_flags(io._IOFile(given, None))
    compare(described(old), described(new))
    new.flags["more"] = True
    assert "more" not in getattr(given, "flags", {})

for name in ("name", "pathvars", "benchmark"):
    getter = vars(rules.Rule)[name].fget
    assert type(getter) is operator.attrgetter
    compare(getter(SimpleNamespace(**{f"_{name}": name})), name)
for file in (value for value in values if isinstance(value, io._IOFile)):
    compare(bool(stored_by(file)), file.is_storage)

cache = io.ExistsDict(None)
cache.has_inventory.add("listed")
cache.update({"known/a": True, io._IOFile("known/b", None): False, "alone": True})
for path in ("known/a", "known/b", "known/c", "listed/a", "listed/a/b", "listed", "alone", ""):
    for asked in (path, io._IOFile(path, None)):
        compare(known_by(cache, asked), asked in cache)
assert io._IOFile("listed/a", None) in cache and "listed/a" not in cache

def warnings_of(checks, *arguments, **options):
    messages.clear()
    checks(*arguments, **options)
    return list(messages)

paths = ["", "results/m/a", "./a", "../a", " a", "a ", "a\\nb", "a//b", "s3://a/b", "//a", "/a", ".a"]
paths += ["a/{b c}", "{{b c}}", "{b}"]
for path, stored in itertools.product(paths, (False, True)):
    compare(warnings_of(check, path, is_storage=stored), warnings_of(io.check, path, is_storage=stored))
assert sum(bool(warnings_of(io.check, path)) for path in paths) == 7

class Rule:
    def __init__(self, *patterns):
        self.files = [io._IOFile(pattern, None) for pattern in patterns]

    def products(self):
        return self.files

    def is_producer(self, path):
        return any(file.match(path) for file in self.files)

made = [
    Rule("results/{model,a|ab}/source", "logs/{model}.log"),
    Rule("results/{model}/onnx/{variant,x|y}.json", "results/{model}/onnx/{variant}"),
    Rule("results/summary.csv"),
    Rule("{anything}.csv"),
    Rule("results/{model}/a/b.json", "{all}"),
    Rule("{beginning}ults/a/b.json"),
]
old, new = OldIndex(made), output_index.OutputIndex(made)
paths = ["results/a/source", "results/c/source", "results/c/onnx/x.json", "results/c/onnx/z.json"]
paths += ["results/summary.csv", "logs/a.log", "logs/.log", "results/source", "results/onnx/x", "results", "", "x.csv"]
for path in [*paths, "results/x.csv", "results/m/a/b.json", "results/a/b.json", "b.json", "a/", "results//"]:
    compare(old.match_producers(path), new.match_producers(path))
assert len(new.match_producers("results/summary.csv")) == 3
assert len(new.match_producers("results/a/b.json")) == 2

one, two = ({"model": "m", "variant": variant} for variant in "xy")
made_once = rules.Wildcards(fromdict=one)
assert rules.Wildcards(fromdict=dict(one)) is made_once
compare(dict(iocontainers.Wildcards(fromdict=two).items()), dict(rules.Wildcards(fromdict=two).items()))

def seen_in(make, *arguments, **options):
    items = iocontainers.InputFiles.__new__(iocontainers.InputFiles)
    make(items, *arguments, **options)
    assert isinstance(items.sort, iocontainers.AttributeGuard) and items.sort.name == "sort"
    parts = {name: list(part) if isinstance(part, list) else part for name, part in items.items()}
    return list(items), dict(items._names), parts, set(vars(items)), items._allowed_overrides

named = iocontainers.InputFiles(["a", "b", "c"])
named._set_name("first", 0)
named._set_name("others", 1, end=3)
for arguments in ((), (None,), (named,), (["a"],), (("a", "b"), {"c": "d"}), (None, {"index": "x", "e": "f"}), ([],)):
    compare(seen_in(make_list, *arguments), seen_in(iocontainers.Namedlist.__init__, *arguments))
for options in ({"plainstr": True}, {"custom_map": str.upper}, {"strip_constraints": True}):
    compare(seen_in(make_list, named, **options), seen_in(iocontainers.Namedlist.__init__, named, **options))

class Job:
    def __init__(self, output):
        self.output = output

def filled(apply, pattern, wildcards):
    try:
        made = apply(pattern, wildcards)
        return made, type(made)
    except WildcardError as error:
        return str(error)

patterns = ["", "plain", "{a}", "x/{a,[0-9]+}/{b}.y", "{a}{b}{a}", "{{a}}", "{ a }", "{missing}", "{a", "a}"]
patterns += [io.directory("{a}/b"), io.ancient("no wildcard"), io._IOFile("{b}", None), io._IOFile("c", None)]
for pattern in patterns:
    for wildcards in ({"a": "1", "b": "{a}"}, {"a": 1, "b": ""}, {}, {"b": "2"}):
        compare(filled(fill, pattern, wildcards), filled(io.apply_wildcards, pattern, wildcards))
assert filled(io.apply_wildcards, "x/{a,[0-9]+}/{b}.y", {"a": 1, "b": 2})[0] == "x/1/2.y"

def complaint(checks, *outputs):
    try:
        checks(SimpleNamespace(jobs=[Job(output) for output in outputs]))
    except ChildIOException as error:
        return re.sub("0x[0-9a-f]+", "", str(error))

folder = os.getcwd()
cases = [[["a/b"], ["a/c"]], [["a"], ["a/c"]], [["a/c"], ["a"], ["b"]], [["a", "a/c"]], [["a"], ["a.b"], ["a.b/c"]]]
cases += [[["./a"], [f"{folder}/a/b"]], [[f"{folder}/a"], ["a-b", "ab"]], [["a/x"], ["a"], ["a b"]]]
for case in cases:
    compare(complaint(check_outputs, *case), complaint(dag.DAG.check_directory_outputs, *case))
assert [bool(complaint(check_outputs, *case)) for case in cases] == [False, True, True, False, True, True, False, True]
print(count)
"""


def test_what_is_replaced_does_the_same():
    run = subprocess.run(
        [sys.executable, "-c", COMPARED], cwd=ROOT / "workflow/scripts", capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    assert int(run.stdout) == 2 * 11 * 4 + 7 * 10 + 12 + 3 + 3 + 4 + 8 * 2 + 15 * 2 + 18 + 1 + 7 + 3 + 8 + 14 * 4
    assert not run.stderr


#: Files that are removed, piped, updated or made by jobs of one group, none of which this workflow has.
WITH_FLAGS = """
import sys
sys.path.insert(0, config["scripts"])
from onnxproof.engine import patches
patches.SNAKEMAKE = config["version"]
print("replaced:", patches.plan_with_less_work(False), file=sys.stderr)

rule all:
    input: "last", "piped", "before"

rule removed:
    output: temp("removed")
    group: "together"
    shell: "echo removed > {output}"

rule last:
    input: "removed"
    output: "last"
    group: "together"
    shell: "cat {input} > {output}"

rule pipe:
    output: pipe("through")
    shell: "echo through > {output}"

rule piped:
    input: "through"
    output: "piped"
    shell: "cat {input} > {output}"

rule before:
    input: before_update("updated")
    output: "before"
    shell: "sleep 1; cp {input} {output}"

rule updated:
    output: update("updated")
    priority: 1
    shell: "echo more >> {output}"
"""


@pytest.mark.slow
def test_files_with_flags_that_this_workflow_has_not_are_made_as_before(tmp_path):
    made = {}
    for version, replaced in ((patches.SNAKEMAKE, True), ("another", False)):
        folder = tmp_path / version
        folder.mkdir()
        (folder / "Snakefile").write_text(WITH_FLAGS)
        (folder / "updated").write_text("old\n")
        settings = [f"scripts={ROOT / 'workflow/scripts'}", f"version={version}"]
        command = [sys.executable, "-m", "snakemake", "--cores", "2", "--forcerun", "updated"]
        command += ["--config", *settings, "--", "all", "updated"]
        run = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        assert run.returncode == 0, run.stderr
        assert f"replaced: {replaced}" in run.stderr
        files = sorted(path for path in folder.iterdir() if path.is_file() and path.name != "Snakefile")
        made[replaced] = {path.name: path.read_text() for path in files}
    assert made[True] == made[False]
    assert made[True] == {"before": "old\n", "last": "removed\n", "piped": "through\n", "updated": "old\nmore\n"}


def test_pandas_is_imported_for_its_own_values_only():
    written = """
import sys
import snakemake.api
from snakemake.persistence import PersistenceBase
from onnxproof.engine import patches
PersistenceBase.__abstractmethods__ = frozenset()
persistence = PersistenceBase.__new__(PersistenceBase)
before = PersistenceBase._serialize_param.fget.__wrapped__
values = [1, "text", ["a"], {"b": None}, len, object()]
patches.plan_with_less_work(False)
made = [persistence._serialize_param(value) for value in values]
assert "pandas" not in sys.modules
assert made == [before(persistence)(value) for value in values]
import pandas
for table in (pandas.DataFrame({"a": [1, 2]}), pandas.Series([3])):
    assert persistence._serialize_param(table) == before(persistence)(table)
    assert persistence._serialize_param(table) == repr(pandas.util.hash_pandas_object(table).tolist())
"""
    run = subprocess.run([sys.executable, "-c", written], cwd=ROOT / "workflow/scripts", capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


def test_no_file_is_in_storage_where_results_are_not():
    asked = "import snakemake.api\nfrom snakemake import io\nfrom onnxproof.engine import patches\n"
    asked += "patches.plan_with_less_work(False)\nprint(io._IOFile('a', None).is_storage)"
    run = subprocess.run([sys.executable, "-c", asked], cwd=ROOT / "workflow/scripts", capture_output=True, text=True)
    assert run.stdout.strip() == "False", run.stderr


#: Logs a job of two rules twice with a quiet handler or another; prints how often a command was written.
WRITTEN = """
import logging, sys
from types import SimpleNamespace
import snakemake.api
from snakemake.jobs import Job
from snakemake.logging import DefaultFilter
from snakemake.settings.enums import Quietness
from onnxproof.engine import patches

logger, handler = logging.getLogger("snakemake.logging"), logging.StreamHandler()
logger.setLevel(logging.INFO)
logger.handlers = [handler]
quiet = {"rules": {Quietness.RULES}, "reason": {Quietness.REASON}}[sys.argv[1]]
handler.addFilter(DefaultFilter(quiet, False, False, True, False))
written = []
Job.log_info = lambda job: written.append(job.command_to_log)
Job.shellcmd = property(lambda job: "command")
patches.plan_with_less_work(False)
for name in ("one", "two"):
    for _ in range(2):
        job = SimpleNamespace(rule=SimpleNamespace(name=name))
        Job.log_info(job)
print(len(written))
"""


def test_a_job_that_is_not_shown_is_written_once_for_each_rule():
    for quiet, count in (("rules", "2"), ("reason", "4")):
        run = subprocess.run(
            [sys.executable, "-c", WRITTEN, quiet],
            cwd=ROOT / "workflow/scripts",
            capture_output=True,
            text=True,
            check=False,
        )
        assert run.stdout.strip() == count, run.stderr


def test_another_version_is_left_alone(scheduler, monkeypatch):
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "9.28.0")
    assert not patches.keep_one_timer(scheduler)
    assert not patches.plan_with_less_work.__wrapped__(False)
    assert Job.log_info.__module__ == "snakemake.jobs"
    assert scheduler._schedule_reevalutation == "Snakemake's own"


def test_the_s3_plugin_forgets_a_removed_folder(monkeypatch):
    class StorageObject:
        """A folder, as the plugin keeps it in mind."""

        def __init__(self) -> None:
            self._is_dir, self.removed = True, False

        def remove(self) -> None:
            self.removed = True

    monkeypatch.setitem(sys.modules, "snakemake_storage_plugin_s3", SimpleNamespace(StorageObject=StorageObject))
    assert patches.forget_removed_folders()
    folder = StorageObject()
    folder.remove()
    assert folder.removed
    assert folder._is_dir is None


def test_without_the_s3_plugin_nothing_is_replaced(monkeypatch):
    monkeypatch.delitem(sys.modules, "snakemake_storage_plugin_s3", raising=False)
    assert not patches.forget_removed_folders()
