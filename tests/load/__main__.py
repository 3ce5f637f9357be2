# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""`python -m tests.load URL`: a constant load of streams, and as JSON how each of them ended. Ends with 1 when one of them failed.

`python -m tests.load URL --during COMMAND …` loads as long as a command runs, and says in one line how they ended.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
import urllib.request
from typing import Any

from .streams import WHOLE, Load, Second


def served(base_url: str, api_key: str) -> str:
    """The first model that is served there."""
    asked = urllib.request.Request(f"{base_url}/v1/models", headers={"Authorization": f"Bearer {api_key}"} if api_key else {})
    with urllib.request.urlopen(asked, timeout=30) as answer:
        return str(json.load(answer)["data"][0]["id"])


def show(at: int, second: Second) -> None:
    boxes = "  ".join(f"{box or 'endpoint'} {count}" for box, count in sorted(second.tokens.items()))
    print(f"{at:4} s  {second.running} streams  {second.tokens.total()} tok/s  {boxes}", file=sys.stderr, flush=True)


async def load(arguments: argparse.Namespace) -> Load:
    api_key = os.environ.get("OPENAI_API_KEY", "")
    model = arguments.model or served(arguments.url, api_key)
    least, most = (round(seconds * arguments.tok_s) for seconds in arguments.length)
    made = Load(arguments.url, model, streams=arguments.streams, tokens=(least, most), api_key=api_key)
    asyncio.get_running_loop().add_signal_handler(signal.SIGINT, made.stop)
    job = asyncio.create_task(command(arguments.during, made)) if arguments.during else None
    await made.run(None if job else arguments.seconds, show if arguments.watch else lambda at, second: None)
    if job and (code := await job):
        raise SystemExit(code)
    return made


async def command(argv: list[str], made: Load) -> int:
    """Run it; the load stops with it."""
    try:
        return await (await asyncio.create_subprocess_exec(*argv)).wait()
    finally:
        made.stop()


def summary(result: dict[str, Any]) -> str:
    """How the streams ended, in a line."""
    boxes = ", ".join(f"{box} {sum(kinds.values())}" for box, kinds in sorted(result["boxes"].items()) if box)
    told = f"{result['streams']} streams: {result['whole']} whole, {result['refused']} refused, {result['broken']} broken off"
    return f"{told}{f' ({boxes})' if boxes else ''}"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.load", description=__doc__)
    parser.add_argument("url", help="the endpoint, without /v1; OPENAI_API_KEY in the environment is its key")
    parser.add_argument("--streams", type=int, default=12, help="how many run at once")
    parser.add_argument("--seconds", type=float, default=60, help="how long streams are begun; those that run then go on to their end")
    parser.add_argument(
        "--length", type=float, nargs=2, default=(5, 20), metavar=("LEAST", "MOST"), help="how long a stream takes, in seconds"
    )
    parser.add_argument("--tok-s", type=float, default=38, help="at this decode rate")
    parser.add_argument("--model", default="", help="the first that is served if left out")
    parser.add_argument("--watch", action="store_true", help="one line a second on stderr")
    parser.add_argument("--during", nargs=argparse.REMAINDER, default=[], metavar="COMMAND", help="load as long as this command runs")
    arguments = parser.parse_args()
    result = asyncio.run(load(arguments)).result()
    print(summary(result) if arguments.during else json.dumps(result, indent=2))
    return 0 if result["streams"] == result[WHOLE] else 1


if __name__ == "__main__":
    sys.exit(main())
