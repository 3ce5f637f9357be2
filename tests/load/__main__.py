# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""`python -m tests.load URL`: a constant load of streams, and as JSON how each of them ended. Ends with 1 when one of them failed."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
import urllib.request

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
    await made.run(arguments.seconds, show if arguments.watch else lambda at, second: None)
    return made


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
    result = asyncio.run(load(parser.parse_args())).result()
    print(json.dumps(result, indent=2))
    return 0 if result["streams"] == result[WHOLE] else 1


if __name__ == "__main__":
    sys.exit(main())
