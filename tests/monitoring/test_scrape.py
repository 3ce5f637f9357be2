# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""A real Prometheus reads the role's files: targets are found, rules give series, an alert wakes up.

vLLM is the scripted one, HAProxy is what it once printed.
"""

from __future__ import annotations

import json
import socket
import subprocess
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from monitoring.fleet import CORPUS, ROOT, box, publish
from monitoring.promtool import program, promtool
from sim.vllm_scripted.server import ScriptedServer

TIMEOUT = 90.0  # seconds for a series to appear, on a busy machine


class Exporter(BaseHTTPRequestHandler):
    """What HAProxy printed once, with one box up, one down and one in maintenance, served again."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(next(CORPUS.glob("haproxy-*.txt")).read_bytes())

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
    return port


def configuration(folder: Path) -> dict[str, Any]:
    """What docs/monitoring.md shows, with the role's files in another directory."""
    text = (ROOT / "docs" / "monitoring.md").read_text().split("```yaml\n")[1].split("```")[0]
    config: dict[str, Any] = yaml.safe_load(text.replace("/etc/prometheus/dgx-spark", str(folder)))
    return config


class Prometheus:
    """A running one."""

    def __init__(self, port: int, log: Path) -> None:
        self.base = f"http://127.0.0.1:{port}/api/v1"
        self.log = log

    def series(self, expression: str, at_least: int = 1) -> list[dict[str, Any]]:
        """Labels and values once there are so many. Fails when they don't come."""
        end = time.monotonic() + TIMEOUT
        while len(found := self._series(expression)) < at_least:
            assert time.monotonic() < end, f"{expression} has {len(found)} series:\n{self.log.read_text()[-3000:]}"
            time.sleep(0.5)
        return found

    def _series(self, expression: str) -> list[dict[str, Any]]:
        try:
            query = urllib.parse.urlencode({"query": expression})
            with urllib.request.urlopen(f"{self.base}/query?{query}", timeout=20) as answer:
                result: list[dict[str, Any]] = json.load(answer)["data"]["result"]
        except OSError:  # it is not there yet
            return []
        return result


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    folder = tmp_path_factory.mktemp("prometheus")
    files = folder / "dgx-spark"
    files.mkdir()
    exporter = ThreadingHTTPServer(("127.0.0.1", 0), Exporter)
    threading.Thread(target=exporter.serve_forever, daemon=True).start()
    gateway = {"address": "127.0.0.1", "port": exporter.server_address[1], "labels": {"gateway": "gw-1"}}
    with ScriptedServer({"base": "fast"}) as server:
        port = urllib.parse.urlsplit(server.base_url).port
        assert port
        publish(files, [box("spark-1", port), box("spark-2", free_port())], [gateway])
        config = configuration(files)
        config["scrape_configs"][0]["scrape_interval"] = "1s"
        (folder / "prometheus.yml").write_text(yaml.safe_dump({**config, "global": {"evaluation_interval": "1s"}}))
        own = free_port()
        command = [program("prometheus") or "prometheus", "--config.file=prometheus.yml", f"--storage.tsdb.path={folder / 'data'}"]
        with (folder / "log").open("w") as log:
            process = subprocess.Popen([*command, f"--web.listen-address=127.0.0.1:{own}"], cwd=folder, stdout=log, stderr=log)
        stop = threading.Event()
        asking = threading.Thread(target=keep_asking, args=(server.base_url, stop), daemon=True)
        asking.start()
        try:
            yield Prometheus(own, folder / "log")
        finally:
            stop.set()
            process.terminate()
            process.wait(timeout=60)
            asking.join(timeout=60)
            exporter.shutdown()


def keep_asking(base_url: str, stop: threading.Event) -> None:
    """One request after the other."""
    body = json.dumps({"model": "gemma-4-26b", "messages": [{"role": "user", "content": "Tell me a story."}], "max_tokens": 50}).encode()
    while not stop.is_set():
        request = urllib.request.Request(f"{base_url}/v1/chat/completions", body, {"Content-Type": "application/json"})
        urllib.request.urlopen(request, timeout=60).read()


def test_the_documented_configuration_is_one(tmp_path: Path) -> None:
    files = tmp_path / "dgx-spark"
    files.mkdir()
    publish(files, [box("spark-1")])
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(configuration(files)))
    code, said = promtool("check", "config", "prometheus.yml", cwd=tmp_path)
    assert code == 0, said
    assert "2 rule files found" in said


def test_every_box_is_a_target_with_its_labels(prometheus: Prometheus) -> None:
    found = {row["metric"]["box"]: (row["metric"]["recipe"], row["value"][1]) for row in prometheus.series('up{job="dgx-spark-vllm"}', 2)}
    assert found == {"spark-1": ("gemma4-26b-a4b-nvfp4", "1"), "spark-2": ("gemma4-26b-a4b-nvfp4", "0")}


def test_the_speed_of_a_stream_is_beside_its_threshold(prometheus: Prometheus) -> None:
    (decode,) = prometheus.series("box:vllm_decode_tok_s:rate5m")
    assert decode["metric"]["box"] == "spark-1"
    assert float(decode["value"][1]) > 0
    (threshold,) = prometheus.series('box:decode_tok_s:threshold{box="spark-1"}')
    assert threshold["value"][1] == "46.8"
    # The scripted server's thousand tok/s are above it; compared the other way round the two series match.
    assert prometheus.series("box:vllm_decode_tok_s:rate5m > on (box) group_left () box:decode_tok_s:threshold")


def test_what_the_gateway_does_with_a_box_has_the_box_name(prometheus: Prometheus) -> None:
    found = {(row["metric"]["box"], row["metric"]["state"]) for row in prometheus.series("box:gateway_state:max == 1", 3)}
    assert {("spark-1", "UP"), ("spark-2", "DOWN"), ("spark-3", "MAINT")} <= found


def test_an_alert_wakes_up_for_the_box_that_is_down(prometheus: Prometheus) -> None:
    (alert,) = prometheus.series('ALERTS{alertname="SparkBoxDown"}')
    assert (alert["metric"]["box"], alert["metric"]["severity"]) == ("spark-2", "critical")
