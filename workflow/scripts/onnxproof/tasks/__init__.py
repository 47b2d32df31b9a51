"""What a model is for: the tasks, how they are told from a model's files, and what is fed, read and compared."""

from onnxproof.tasks.inference import choose_task, tasks_of_snapshot
from onnxproof.tasks.registry import TASKS, Task

__all__ = ["TASKS", "Task", "choose_task", "tasks_of_snapshot"]
