# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""The gateway before four scripted boxes: no stream is lost that need not be, and no box takes part that does not generate sense."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.dgx.spark.plugins.modules import haproxy_agent
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from integration.gateway import CALM, Gateway, boxes, module, more_streams, under_load, until
from load.streams import BROKEN, Load

BOXES = ("spark-1", "spark-2", "spark-3", "spark-4")


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Gateway]:
    with boxes(*BOXES) as made, Gateway(tmp_path, made) as running:
        running.admit()
        yield running


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Gateway]:
    """Two boxes, and nobody was admitted yet."""
    with boxes("spark-1", "spark-2", flags=("--max-num-seqs", "2")) as made, Gateway(tmp_path, made) as running:
        yield running


def test_no_stream_is_lost_by_reloads_and_a_drained_box_stays_drained(gateway: Gateway, capsys: pytest.CaptureFixture[str]) -> None:
    drained = gateway.boxes[0]
    with under_load(gateway) as load:
        assert module(gateway, capsys, drained, "drained")["changed"]
        more_streams(load, 1)
        before = load.tokens_of(drained.name)
        for _time in range(2):
            gateway.reload()
            more_streams(load, 6)
            assert gateway.server(drained).state == "drained"
        assert load.tokens_of(drained.name) == before > 0
    result = load.result()
    assert result["failures"] == []
    assert result["streams"] > 12


def test_a_drain_waits_for_streams_that_a_worker_has_from_before_a_reload(gateway: Gateway, capsys: pytest.CaptureFixture[str]) -> None:
    box = gateway.boxes[0]
    with under_load(gateway, tokens=(60, 80)) as load:
        gateway.reload()
        result = module(gateway, capsys, box, "drained", timeout=60)
        assert (result["changed"], result["server"]["state"], result["server"]["sessions"]) == (True, "drained", 0)
        assert not module(gateway, capsys, box, "drained")["changed"]
        more_streams(load, 1)
        drained = load.tokens_of(box.name)
        more_streams(load, 3)
        assert load.tokens_of(box.name) == drained > 0
        assert module(gateway, capsys, box, "ready")["changed"]
        until("it takes part again", lambda: load.tokens_of(box.name) > drained)
    assert load.result()["failures"] == []


def test_only_the_streams_of_a_box_that_dies_break(gateway: Gateway) -> None:
    dying, *others = gateway.boxes
    with under_load(gateway) as load:
        dying.die()
        gateway.until_status(dying, "DOWN")
        until("the others do its work", lambda: sum(box.running for box in others) >= 12)
    result = load.result()
    assert result["failures"] != []
    assert {failure["box"] for failure in result["failures"]} == {dying.name}
    assert BROKEN in {failure["kind"] for failure in result["failures"]}
    assert len(result["failures"]) <= 4


@pytest.mark.parametrize(("fault", "why"), [({"hung": True}, "may hang although /health answers"), ({"garbage": "gibberish"}, "garbage")])
def test_a_box_that_does_not_generate_sense_is_put_out_and_comes_back(small: Gateway, fault: dict[str, Any], why: str) -> None:
    box, other = small.boxes
    small.admit()
    box.play({**CALM, "fault": fault})
    small.until_status(box, "DOWN")
    assert box.health() == 200
    assert small.server(other).status == "UP"
    assert why in small.agent_log.read_text()
    box.play(CALM)
    small.until_status(box, "UP")


def test_a_configuration_that_no_worker_has_read_yet_is_seen(small: Gateway) -> None:
    def stale() -> bool:
        started = haproxy_agent.haproxy_started(small.socket)
        return started is not None and started < haproxy_agent.written([str(small.configuration)])

    def written_anew_and_stale() -> bool:
        small.configure()
        return stale()

    assert not stale()
    until("the worker's uptime, in whole seconds, tells it", written_anew_and_stale)
    small.reload()
    assert not stale()


def test_failures_that_end_in_time_put_no_box_out(tmp_path: Path) -> None:
    with boxes("spark-1") as only, Gateway(tmp_path, only, gateway_probe_failures=60) as running:
        box = only[0]
        running.admit()
        box.play({**CALM, "fault": {"http_status": 500}})
        until("the agent saw it", lambda: "spark-1: up; bad" in running.agent_log.read_text())
        box.play(CALM)
        until("the agent saw that it is over", lambda: "spark-1: up; good" in running.agent_log.read_text().rpartition("up; bad")[2])
        assert "spark-1: down" not in running.agent_log.read_text().partition("up; bad")[2]
        assert running.server(box).status == "UP"


def test_a_busy_box_stays_in_although_probes_wait_for_their_turn(small: Gateway) -> None:
    box = small.boxes[0]
    small.admit()
    body = {"model": "gemma-4-26b", "messages": [{"role": "user", "content": "A long story."}], "max_tokens": 100_000, "ignore_eos": True}
    asked = urllib.request.Request(f"{box.base_url}/v1/chat/completions", json.dumps({**body, "stream": True}).encode())
    with contextlib.ExitStack() as held:
        for _slot in range(2):
            held.enter_context(urllib.request.urlopen(asked, timeout=60))
        until("two requests fill it", lambda: box.running == 2)
        busy = f"{box.name}: up; busy"
        until("a probe got no answer", lambda: busy in small.agent_log.read_text())
        # As long as it takes to put a box out that hangs.
        time.sleep(20)
        assert f"{box.name}: down" not in small.agent_log.read_text().partition(busy)[2]
        assert small.server(box).status == "UP"


def test_a_box_that_is_new_takes_no_part_until_it_is_admitted(small: Gateway, capsys: pytest.CaptureFixture[str]) -> None:
    proven, new = small.boxes
    assert small.server(proven).state == small.server(new).state == "maintenance"
    assert module(small, capsys, proven, "ready")["changed"]
    small.reload()
    assert (small.server(proven).state, small.server(new).state) == ("ready", "maintenance")
    assert not module(small, capsys, new, "drained")["changed"]
    assert small.server(new).state == "maintenance"


def test_a_box_that_fails_its_checks_is_not_admitted_and_the_error_says_why(small: Gateway, capsys: pytest.CaptureFixture[str]) -> None:
    box, before = small.boxes[0], len(small.agent_log.read_text())
    box.play({**CALM, "fault": {"garbage": "empty"}})
    until("the agent saw it", lambda: f"{box.name}: down" in small.agent_log.read_text()[before:])
    result = module(small, capsys, box, "ready", timeout=4)
    assert result["failed"]
    assert "garbage" in result["msg"]
    assert result["server"]["checks"]["agent"]["status"] == "L7STS"


def test_a_drain_that_takes_too_long_says_how_many_streams_are_left(small: Gateway, capsys: pytest.CaptureFixture[str]) -> None:
    box = small.boxes[0]
    small.admit(box)
    with under_load_of_one(small):
        until("it answers", lambda: small.server(box).sessions == 1)
        result = module(small, capsys, box, "drained", timeout=1)
    assert result["failed"]
    assert f"1 streams run on {box.name} after 1 s" in result["msg"]
    assert (result["server"]["state"], result["server"]["sessions"]) == ("drained", 1)
    assert small.server(box).state == "drained"


def test_a_new_port_in_the_configuration_is_the_one_that_counts_after_a_reload(small: Gateway) -> None:
    moved = small.boxes[0]
    small.admit(moved)
    with boxes("spark-1") as (new,):
        small.boxes[0] = new
        small.configure()
        moved.die()
        small.reload()
        until("the new port answers", lambda: small.server(new).health.status == "L7OK")
        assert small.server(new).state == "ready"


def test_the_gateway_ends_tls_and_hands_on_the_clients_key(tmp_path: Path) -> None:
    certificate = self_signed(tmp_path)
    with boxes("spark-1", flags=("--api-key", "sk-1")) as made:
        (tmp_path / "key").write_text("sk-1\n")
        with Gateway(tmp_path, made, key_file=str(tmp_path / "key"), gateway_tls_certificate=str(certificate)) as running:
            running.admit()
            trusted = ssl.create_default_context(cafile=str(certificate))
            address = running.base_url.replace("http://127.0.0.1", "https://localhost")

            def asked(key: str) -> int:
                request = urllib.request.Request(f"{address}/v1/models", headers={"Authorization": f"Bearer {key}"})
                with contextlib.suppress(urllib.error.HTTPError), urllib.request.urlopen(request, timeout=10, context=trusted) as answer:
                    return int(answer.status)
                return 401

            assert (asked("sk-1"), asked("sk-2")) == (200, 401)
            asyncio.run(loaded(Load(address, "gemma-4-26b", streams=2, tokens=(10, 10), api_key="sk-1", verify=False)))


async def loaded(load: Load) -> None:
    await load.run(1)
    assert load.result()["failures"] == []
    assert load.result()["whole"] >= 2


def self_signed(home: Path) -> Path:
    """A PEM file with a certificate for localhost and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now - timedelta(1), now + timedelta(1))
    builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path = home / "gateway.pem"
    path.write_bytes(builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM) + private)
    return path


@contextlib.contextmanager
def under_load_of_one(gateway: Gateway) -> Iterator[None]:
    """One long stream through the gateway."""
    body = {"model": "gemma-4-26b", "messages": [{"role": "user", "content": "A long story."}], "max_tokens": 10_000, "ignore_eos": True}
    asked = urllib.request.Request(f"{gateway.base_url}/v1/chat/completions", json.dumps({**body, "stream": True}).encode())
    with urllib.request.urlopen(asked, timeout=60):
        yield
