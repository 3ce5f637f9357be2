# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: it may change at any time.
"""The controller's half of a module that takes minutes: it runs in the background of the box, and the terminal shows what it does.

The module writes what it is doing into a file (see _progress.py). This side reads that file and the job's result file with one command a
look, which costs a box next to nothing while it is measured, and which may fail for a while without losing the work.
"""

from __future__ import annotations

import json
import os
import secrets
import shlex
from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

from ansible.errors import AnsibleConnectionFailure
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display
from ansible_collections.dgx.spark.plugins.module_utils._talk import HEARD, TOLD
from ansible_collections.dgx.spark.plugins.plugin_utils._background_job import LOST_S, NotReached, answers, ended, every, question, wait
from ansible_collections.dgx.spark.plugins.plugin_utils._carry import Carrier

display = Display()
# What a job may take beyond its own bounds: to begin, to end, and to write its result.
GRACE_S = 60
_OF_THE_JOB = ("ansible_job_id", "started", "finished", "results_file", "stdout", "stdout_lines", "stderr", "stderr_lines")


class Background(ActionBase):
    """An action plugin that can run the module of its name in the background of the box, as often and with the arguments that it wants."""

    _supports_check_mode = True
    _supports_diff = True

    def in_background(
        self, args: Mapping[str, Any], task_vars: dict[str, Any], bound: float, answer: Callable[[Mapping[str, Any]], str] | None = None
    ) -> dict[str, Any]:
        """The module's result with these arguments, which ends by its own options within C(bound) seconds.

        At every look C(answer) hears what the module tells its controller (see _talk.py; empty at first) and says a word to it. In check
        mode, which changes nothing that could be lost, it runs in the foreground. Raises AnsibleConnectionFailure, and what C(answer) does.
        """
        if self._task.check_mode:
            found: dict[str, Any] = self._execute_module(module_args=dict(args), task_vars=task_vars)
            return found
        seconds = int(bound + GRACE_S)
        job, file = self._begin(args, seconds, task_vars)
        if "results_file" not in job:
            return job
        host = task_vars.get("inventory_hostname", "")
        interval = every(self._setting(task_vars), len(task_vars.get("ansible_play_batch") or ()))
        look = self._look(job["results_file"], file, answer)
        try:
            last = wait(look, seconds + GRACE_S, interval, lambda words: display.display(f"{host}: {words}"), lost=self._lost(task_vars))
        except NotReached as exc:
            raise AnsibleConnectionFailure(f"lost while {self._task.action} worked there: {exc}") from exc
        if last is not None:
            words = f"it was last seen {last}" if last else "it never said what it does"
            message = f"no result within {seconds} s: {words}. Did the box restart? Its record is {job['results_file']} there"
            return {"failed": True, "msg": message}
        return self._end(job, file, task_vars)

    def carrier(self, task_vars: Mapping[str, Any], total: int, done: int = 0) -> Carrier:
        """What carries so many bytes in all between here and the box, of which some are there."""
        return Carrier(self, task_vars, self._setting(task_vars), display.display, total, done)

    def _begin(self, args: Mapping[str, Any], seconds: int, task_vars: dict[str, Any]) -> tuple[dict[str, Any], str]:
        """Start the job: what Ansible says of it, and the path of its progress file on the box."""
        name = f"dgx-spark-{secrets.token_hex(6)}.progress"
        directory = self.get_shell_option("async_dir", default="~/.ansible_async")
        # Ansible's wrapper takes its limit from here.
        self._task.async_val = seconds
        try:
            job: dict[str, Any] = self._execute_module(
                module_args={**args, "progress_file": f"{directory}/{name}"}, task_vars=task_vars, wrap_async=True
            )
        finally:
            self._task.async_val = 0
        return job, os.path.join(os.path.dirname(job.get("results_file", "")), name)

    def _look(self, results: str, file: str, answer: Callable[[Mapping[str, Any]], str] | None) -> Callable[[], tuple[bool, str]]:
        """A function that looks at the job: has it ended, and what it said last. Raises NotReached."""
        mark = f"dgx-spark-{secrets.token_hex(6)}"
        commands = [f"head -c 300 {shlex.quote(results)}", f"cat {shlex.quote(file)}", f"cat {shlex.quote(file + TOLD)}"]
        command = f"{question(commands, mark)}; cat > {shlex.quote(file + HEARD) if answer else '/dev/null'}"
        word = ""

        def look() -> tuple[bool, str]:
            nonlocal word
            try:
                # What has input gets no terminal, on which sudo's warnings and messages to all users would be mixed with the answer.
                said = self._low_level_execute_command(command, in_data=f"{word}\n".encode())["stdout"]
            except AnsibleConnectionFailure as exc:
                raise NotReached(str(exc)) from exc
            record, words, told = answers(str(said), mark, len(commands))
            if not record:
                raise NotReached(f"it has no record of the job, {results}")
            if answer:
                try:
                    document = json.loads(told or "{}")
                except ValueError as exc:
                    raise NotReached(f"the module told {told[:300]!r}") from exc
                word = answer(document)
            return ended(record), words

        return look

    def _end(self, job: Mapping[str, Any], file: str, task_vars: dict[str, Any]) -> dict[str, Any]:
        """The module's result; the job's files are removed."""
        about = {"jid": job["ansible_job_id"], "_async_dir": os.path.dirname(job["results_file"])}
        result: dict[str, Any] = self._execute_module("ansible.legacy.async_status", about, task_vars=task_vars)
        self._low_level_execute_command(f"rm -f {shlex.quote(job['results_file'])} {shlex.quote(file)}*")
        return {key: value for key, value in result.items() if key not in _OF_THE_JOB}

    def _setting(self, task_vars: Mapping[str, Any]) -> Any:
        return self._templar.template(task_vars.get("spark_progress_seconds"))

    def _lost(self, task_vars: Mapping[str, Any]) -> float:
        """The seconds after which a box that cannot be reached is lost."""
        return float(self._templar.template(task_vars.get("spark_lost_seconds", LOST_S)))


class LongTask(Background):
    """An action plugin that only runs its module in the background, once. Subclasses say how long it may take."""

    @abstractmethod
    def bound(self, args: Mapping[str, Any]) -> float:
        """The seconds within which the module ends by its own options."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        return self.in_background(self._task.args, task_vars or {}, self.bound(self._task.args))
