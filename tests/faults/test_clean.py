# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""Room is made on request, and nothing that serves is lost for it."""

from __future__ import annotations

import re

from faults.box import Served

LEFT = "/srv/models/old/main/.dgx-spark-partial"


def test_what_is_left_over_is_listed_and_goes_only_when_that_is_asked(served: Served) -> None:
    served.box.sh(f"mkdir -p {LEFT} && head -c 3000000 /dev/urandom > {LEFT}/{'a' * 64}")
    listed = served.box.play("clean")
    assert listed.rc == 0, listed.why
    listed.says("3.0 MB: snapshot /srv/models/old/main (a download that did not end): nothing uses it")
    listed.says("Nothing was removed: -e clean=true does it", "changed=0")
    # Earlier tests may have left a container beside it.
    assert re.search(r"containers? gemma4-nvfp4(?: uses it|, )", " ".join(listed.output.split())), listed.why

    checked = served.box.play("clean", arguments=["--check"], clean=True)
    checked.says("changed=0")
    assert served.box.sh(f"ls {LEFT}")

    cleaned = served.box.play("clean", clean=True)
    assert cleaned.rc == 0, cleaned.why
    cleaned.says("changed=1")
    assert served.box.sh("ls /srv/models") == "gemma4-26b-a4b-nvfp4"
    served.still_serves()
    # All that the recipe needs is still there.
    again = served.box.play()
    assert again.rc == 0, again.why
    again.says("changed=0")
