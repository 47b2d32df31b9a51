"""What is replaced in Snakemake: only in the version it was written for, and only while that works as it did."""

import importlib.metadata
import inspect
import sys
import threading
import time
import tomllib
from pathlib import Path
from types import SimpleNamespace

import pytest
from snakemake import common, rules
from snakemake.jobs import Job
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


def test_snakemake_still_writes_a_command_three_times_to_log_it_and_asks_for_parameters_each_time():
    """Once this fails, measure whether the patch is still needed."""
    assert inspect.getsource(Job.log_info).count("self.shellcmd") == 3
    assert "inspect.signature(func)" in inspect.getsource(common.get_function_params)
    assert rules.get_function_params is common.get_function_params


def test_another_version_is_left_alone(scheduler, monkeypatch):
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "9.28.0")
    assert not patches.keep_one_timer(scheduler)
    assert not patches.plan_with_less_work.__wrapped__()
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
