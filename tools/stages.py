# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""Run targets of the Makefile one after the other, all of them even when one fails, and end with what each took and said.

A stage that prints nothing for a while is seen to live; one that exceeds its bound is ended.
"""

from __future__ import annotations

import os
import re
import selectors
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

LOGS = Path(__file__).resolve().parent.parent / ".cache" / "stages"
QUIET = 30.0  # seconds without output after which a stage is said to be running
BOUND = 2400.0  # seconds that a stage may take
# "12 passed, 1 failed in 3.45s", between signs of equality or without, and before it the tests that failed
PYTEST_END = re.compile(
    rb"^(?:=+ )?(\d+ (?:passed|failed|errors?|skipped|deselected|xfailed|xpassed)\b.* in [\d.]+s.*?"
    rb"|(?:FAILED|ERROR) tests/\S+::\S.*?)(?: =+)?$",
    re.MULTILINE,
)


@dataclass(frozen=True)
class Outcome:
    """How one stage ended. `seconds` of wall time; `closing` is pytest's last line and what failed, if it ran pytest."""

    name: str
    code: int
    seconds: float
    closing: tuple[str, ...]


def say(text: str) -> None:
    print(f"── {text}", flush=True)


def end(process: subprocess.Popen[bytes]) -> None:
    """Ask the stage and all it started to go, so that tests can clean up; then end what is left."""
    for number, grace in ((signal.SIGINT, 60), (signal.SIGKILL, 10)):
        os.killpg(process.pid, number)
        try:
            process.wait(timeout=grace)
            return
        except subprocess.TimeoutExpired:
            continue


def follow(process: subprocess.Popen[bytes], name: str, log: Path, *, quiet: float = QUIET, bound: float = BOUND) -> None:
    """Pass the stage's output on as it comes and keep it in `log`, until the stage ends or exceeds `bound` seconds."""
    assert process.stdout is not None
    started = spoke = time.monotonic()
    with log.open("wb") as kept, selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while True:
            if selector.select(timeout=1):
                chunk = os.read(process.stdout.fileno(), 65536)
                if not chunk:
                    break
                kept.write(chunk)
                sys.stdout.buffer.write(chunk)
                sys.stdout.flush()
                spoke = time.monotonic()
            elif process.poll() is not None:
                break  # What it left running in the background holds the pipe open.
            now = time.monotonic()
            if now - started > bound:
                say(f"{name}: still running after {bound:.0f} s, which is its bound; ending it")
                end(process)
                break
            if now - spoke > quiet:
                say(f"{name}: running for {now - started:.0f} s")
                spoke = now


def run(name: str) -> Outcome:
    """Run one target of the Makefile."""
    say(f"{name}")
    log = LOGS / f"{name}.log"
    started = time.monotonic()
    # A session of its own: what it starts can be ended with it, and the terminal's interrupt reaches this program first.
    command = [os.environ.get("MAKE", "make"), "--no-print-directory", name]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True)
    try:
        follow(process, name, log)
        code = process.wait(timeout=60)
    except BaseException:
        end(process)
        raise
    seconds = time.monotonic() - started
    say(f"{name}: {'ok' if code == 0 else f'FAILED ({code})'} after {seconds:.0f} s")
    closing = tuple(match.decode(errors="replace") for match in PYTEST_END.findall(log.read_bytes()))
    return Outcome(name, code, seconds, closing)


def main(names: list[str]) -> int:
    # A shell has jobs in the background ignore it, and stages would inherit that: `end` could not ask them to go.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    LOGS.mkdir(parents=True, exist_ok=True)
    outcomes = [run(name) for name in names]
    width = max(len(name) for name in names)
    say(f"{'stage':{width}}  {'seconds':>7}  result")
    for outcome in outcomes:
        say(f"{outcome.name:{width}}  {outcome.seconds:>7.1f}  {'ok' if outcome.code == 0 else 'FAILED'}")
        for line in outcome.closing:
            print(line)
    failed = [outcome.name for outcome in outcomes if outcome.code]
    total = sum(outcome.seconds for outcome in outcomes)
    say(f"{total:.0f} s in all; " + (f"failed: {', '.join(failed)} (output in .cache/stages)" if failed else "all passed"))
    return 1 if failed else 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
