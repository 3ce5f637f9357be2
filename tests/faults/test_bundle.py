# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""A bundle that is made of a connected box, and a box that has nothing and reaches nobody but the controller."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from faults.box import BOX, ROOT, Box, Run
from faults.test_way_back import changed
from sim.names import GATEWAY

RECIPE = "gemma4-26b-a4b-nvfp4"
WEIGHTS = "model-00002-of-00002.safetensors"
DAEMON = ROOT / "tests/sim/box/files/etc/docker/daemon.json"
# As it was delivered, and more: apt does not even know what there is.
EMPTY = f"""
docker ps -aq | xargs -r docker rm -f; docker system prune -af; rm -rf /srv/models /var/lib/dgx-spark
dpkg-query -Wf '${{db:Status-Abbrev}} ${{Package}}\\n' python3-docker aria2 'nvidia-container-*' 'libnvidia-container*' \\
  | awk '/^ii/ {{print $2}}' | xargs -r apt-get purge -y --auto-remove
rm -rf /etc/apt/sources.list.d/nvidia* /etc/apt/preferences.d/nvidia* /var/lib/apt/lists/*
cat > /etc/docker/daemon.json <<'END'
{DAEMON.read_text()}
END
systemctl restart docker
"""
BLOCK = f"""
ip route show > /run/routes; cp /etc/resolv.conf /run/resolv.conf; echo nameserver 127.0.0.1 > /etc/resolv.conf
ip route replace {GATEWAY}/32 dev eth0; ip route del default; ip route del 172.30.99.0/24; ip route add unreachable default
"""
UNBLOCK = f"""
ip route del unreachable default; grep -v default /run/routes | grep eth0 | while read route; do ip route replace $route; done
ip route replace default via {GATEWAY}; ip route del {GATEWAY}/32 dev eth0; cat /run/resolv.conf > /etc/resolv.conf; apt-get update
"""


class Bundle:
    """A bundle of the article's recipe, made of the box, and how to deploy from it."""

    def __init__(self, box: Box, folder: Path) -> None:
        self.box, self.path, self.lock = box, folder / "bundle", folder / "gemma4.lock.yml"

    def make(self) -> Run:
        return self.box.play("bundle", bundle_dir=str(self.path), lock_file=str(self.lock))

    def deploy(self, **variables: Any) -> Run:
        lock = {"lock_file": str(self.lock)}
        return self.box.play(**{**lock, "supply_source": "bundle", "bundle_dir": str(self.path), **variables})

    def sums(self) -> str:
        return (self.path / "SHA256SUMS").read_text()

    def sha256(self, path: Path) -> str:
        return next(line.split()[0] for line in self.sums().splitlines() if line.endswith(f"  {path.relative_to(self.path)}"))

    def weights(self) -> Path:
        return next(self.path.glob(f"models/*/*/*/{WEIGHTS}"))

    def digest(self) -> str:
        found: str = yaml.safe_load(self.lock.read_text())["recipes"][RECIPE]["image"]["digest"]
        return found


@pytest.fixture(scope="module")
def bundle(box: Box, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    made = Bundle(box, tmp_path_factory.mktemp("bundle"))
    run = made.make()
    assert run.rc == 0, run.why
    return made


@pytest.fixture
def alone(bundle: Bundle) -> Iterator[Box]:
    """The box, emptied, with no way but to the controller, and no name but its own."""
    box = bundle.box
    box.sh(EMPTY)
    box.sh(BLOCK)
    assert box.sh("curl -sS -m 3 http://172.30.99.3:8080/ 2>&1 || true").startswith("curl: (7)")
    yield box
    box.sh(UNBLOCK)


@pytest.mark.long
def test_a_bundle_is_whole_and_making_it_again_changes_nothing(bundle: Bundle) -> None:
    subprocess.run(["sha256sum", "--quiet", "--check", "SHA256SUMS"], cwd=bundle.path, check=True)
    assert (bundle.path / "gemma4.lock.yml").read_text() == bundle.lock.read_text()
    sums = bundle.sums()
    again = bundle.make()
    assert (again.rc, changed(again), bundle.sums()) == (0, 0, sums), again.why

    # What an interrupted run left is taken up: no sums, half of a file.
    weights = bundle.weights()
    content = weights.read_bytes()
    weights.with_name(f"{WEIGHTS}.part").write_bytes(content[: len(content) // 2])
    weights.unlink()
    (bundle.path / "SHA256SUMS").unlink()
    mended = bundle.make()
    assert (mended.rc, changed(mended), bundle.sums()) == (0, 1, sums), mended.why
    assert weights.read_bytes() == content


@pytest.mark.long
def test_a_box_without_a_network_is_deployed_and_proven_from_a_bundle(bundle: Bundle, alone: Box) -> None:
    weights = bundle.weights()
    content = weights.read_bytes()
    try:
        weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        broken = bundle.deploy()
        weights.unlink()
        lacking = bundle.deploy()
    finally:
        weights.write_bytes(content)
    assert broken.rc != 0
    broken.says(f"{weights.relative_to(bundle.path)} is not what SHA256SUMS says", "No box was touched.")
    assert lacking.rc != 0
    lacking.says(f"lacks {weights.relative_to(bundle.path)}", "No box was touched.")
    other = bundle.deploy(recipe_name="gemma4-tiny-cpu")
    assert other.rc != 0
    other.says(f"has no recipe gemma4-tiny-cpu (it has: {RECIPE})")
    assert alone.sh("ls /srv/models /var/lib/dgx-spark 2>/dev/null || true") == ""

    check = bundle.deploy(arguments=["--check"])
    assert check.rc == 0, check.why
    assert alone.sh("ls /srv/models /var/lib/dgx-spark 2>/dev/null || true") == ""

    # What an interrupted run left of the image.
    archive = bundle.path / "images" / bundle.digest().partition(":")[2] / "image.tar"
    sha256, size = bundle.sha256(archive), archive.stat().st_size
    staging = f"/var/lib/dgx-spark/bundle/{sha256}.tar"
    alone.sh("mkdir -p /var/lib/dgx-spark/bundle")
    subprocess.run(["docker", "exec", "-i", BOX, "dd", f"of={staging}"], input=archive.read_bytes()[: size // 2], check=True)

    run = bundle.deploy(arguments=["-v"])
    assert run.rc == 0, run.why
    run.says(f"bytes_fetched: {size - size // 2}")
    assert "Paris" in alone.answer()
    evidence = json.loads(alone.sh("cat /var/lib/dgx-spark/evidence/gemma4-nvfp4.json"))
    assert (evidence["verdict"], evidence["image"]["digest"]) == ("proven", bundle.digest())
    assert alone.sh("dpkg-query -Wf '${Version}' nvidia-container-toolkit") == "1.19.0-1"
    # What was carried and is used up is gone, and no source was added that nobody can reach.
    assert alone.sh("ls /var/lib/dgx-spark/bundle; ls /etc/apt/sources.list.d") == ""

    again = bundle.deploy()
    assert (again.rc, changed(again)) == (0, 0), again.why
    again.says("current, nothing to do")

    # A file that went bad is the only one that is carried again.
    path = alone.sh(f"ls /srv/models/{RECIPE}/*/{WEIGHTS}")
    alone.sh(f"truncate -s 1000 {path}")
    mended = bundle.deploy(arguments=["-v"])
    assert mended.rc == 0, mended.why
    mended.says(f"bytes_fetched: {len(content)}")
    assert alone.sh(f"sha256sum < {path}").split()[0] in bundle.sums()


@pytest.mark.long
def test_a_bundle_of_another_lock_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    lock = tmp_path / "gemma4.lock.yml"
    lock.write_text(bundle.lock.read_text().replace(bundle.digest(), "sha256:" + "0" * 64))
    run = bundle.deploy(lock_file=str(lock))
    assert run.rc != 0
    run.says(f"was made for another lock than {lock}: they differ in {RECIPE}", "No box was touched.")
    asked = bundle.box.play("lock", supply_source="bundle", bundle_dir=str(bundle.path))
    assert asked.rc != 0
    asked.says("supply_source is bundle: this playbook asks the registry and the Hub")


@pytest.mark.long
def test_a_directory_that_is_none_or_not_complete_is_no_bundle(bundle: Bundle, tmp_path: Path) -> None:
    run = bundle.deploy(bundle_dir=str(tmp_path / "none"))
    assert run.rc != 0
    run.says(f"there is no bundle at {tmp_path / 'none'}")
    empty = bundle.deploy(bundle_dir=str(tmp_path))
    assert empty.rc != 0
    empty.says("is no complete bundle (SHA256SUMS, which is written last, is not there)")
