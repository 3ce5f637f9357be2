# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: it may change at any time.
"""How two resolved specs differ, in words that a user reads. No secret can show: the specs hold hashes, and even these stay out."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ansible_collections.dgx.spark.plugins.module_utils._container_spec import TO_BE_STAGED

# Without meaning of their own for a reader.
_SILENT = ("schema", "salt")
_SET = "(set)"
_CHANGED = "(set to something else)"


@dataclass(frozen=True)
class Change:
    """One difference. C(what) is a dotted name; None means that it is not set."""

    what: str
    before: Any
    after: Any

    def __str__(self) -> str:
        return f"{self.what}: {_words(self.what, self.before)} → {_words(self.what, self.after)}"


def _words(what: str, value: Any) -> str:
    if value is None:
        return "not set"
    if what == "shm_size":
        return f"{value / 1024**3:g} GiB"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True)


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Change]:
    """What differs between two resolved specs, by name: the image and the models as one thing each, args and env one by one."""
    old, new = _facets(before), _facets(after)
    found = []
    for what in sorted(old.keys() | new.keys()):
        was, will = old.get(what), new.get(what)
        if was == will:
            continue
        if what == "api_key.guard" and None in (was, will):
            continue  # it comes and goes with the key
        if what.startswith("env.") or what == "api_key":
            was, will = (None if was is None else _SET), (None if will is None else (_SET if was is None else _CHANGED))
        found.append(Change(what, was, will))
    return found


def _facets(spec: Mapping[str, Any]) -> dict[str, Any]:
    image = spec["image"]
    facets: dict[str, Any] = {
        "image": TO_BE_STAGED if image["id"] == TO_BE_STAGED else f"vLLM {image['vllm_version']} ({_short(image['id'])})",
    }
    for key, value in spec.items():
        if key in ("image", *_SILENT):
            continue
        if key in ("model", "draft"):
            facets |= {
                key: TO_BE_STAGED if value["commit"] == TO_BE_STAGED else f"{value['repo']}@{_short(value['commit'])}",
                f"{key}.path": value["path"],
                f"{key}.mount": value["mount"],
            }
        elif key == "api_key":
            facets |= {"api_key": value["hash"], "api_key.guard": value["guard"]}
        elif key == "patches":
            facets |= {f"patches.{module}": _patch(patch) for module, patch in value.items()}
        elif isinstance(value, Mapping):
            facets |= {f"{key}.{name}": item for name, item in value.items()}
        else:
            facets[key] = value
    return facets


def _patch(patch: Mapping[str, Any]) -> str:
    return f"{patch['file']} ({_short(patch['sha256'])}) on {patch['target']}"


def _short(identifier: str) -> str:
    """An id as people quote it: a hash cut to 12 digits, its kind in front."""
    if identifier == TO_BE_STAGED:
        return identifier
    kind, colon, digits = identifier.rpartition(":")
    return f"{kind}{colon}{digits[:12]}"


def text(spec: Mapping[str, Any] | None, against: Mapping[str, Any] | None = None, **state: str) -> str:
    """A resolved spec as sorted lines for a diff, with C(state) at the top. None is a container that is not there, or not ours.

    C(against) is the spec on the diff's other side: a secret that differs from it is shown to do so, but not shown.
    """
    lines = [f"{name}: {value}" for name, value in state.items()]
    if spec is not None:
        shown = {name: value for name, value in spec.items() if name not in _SILENT}
        other = against["env"] if against else {}
        shown["env"] = {name: _SET if other.get(name, value) == value else _CHANGED for name, value in spec["env"].items()}
        if key := spec.get("api_key"):
            same = ((against or {}).get("api_key") or key)["hash"] == key["hash"]
            shown["api_key"] = {"key": _SET if same else _CHANGED, "guard": key["guard"]}
        lines += _lines(shown, "")
    return "".join(f"{line}\n" for line in lines)


def _lines(mapping: Mapping[str, Any], indent: str) -> list[str]:
    lines = []
    for name, value in sorted(mapping.items()):
        if isinstance(value, Mapping) and value:
            lines += [f"{indent}{name}:", *_lines(value, indent + "  ")]
        else:
            lines.append(f"{indent}{name}: {value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True)}")
    return lines
