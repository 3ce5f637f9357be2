# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""Filter dgx.spark.recipe: a recipe file's content, checked and completed."""

from __future__ import annotations

DOCUMENTATION = r"""
name: recipe
short_description: Check a recipe and fill in its defaults
version_added: "0.1.0"
description:
  - Takes the content of a recipe file, checks every key against the schema and fills in what was left out.
  - Fails with all problems at once, each naming the key and, where one is near, the key that was probably meant.
positional: models_root, engine
options:
  _input:
    description: The content of the recipe file.
    type: dict
    required: true
  models_root:
    description: The directory on a box under which models are stored.
    type: str
    required: true
  engine:
    description: The engine that the recipe must be for. One for the other engine is refused.
    type: str
    choices: [vllm, ollama]
    default: vllm
  overrides:
    description: What is wanted instead, with the recipe's own keys. A V(null) in it says nothing.
    type: dict
    default: {}
"""

EXAMPLES = r"""
- name: Load a recipe
  ansible.builtin.set_fact:
    recipe_spec: "{{ lookup('ansible.builtin.file', 'my-recipe.yml') | from_yaml | dgx.spark.recipe('/srv/models') }}"
"""

RETURN = r"""
_value:
  description: The recipe with every default filled in. One for vLLM has C(model.path) too, and an empty C(lock).
  type: dict
"""

from collections.abc import Callable, Mapping
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.dgx.spark.plugins.module_utils._recipe import RecipeError, load


def recipe(raw: Mapping[str, Any], models_root: str, engine: str = "vllm", overrides: Mapping[str, Any] | None = None) -> dict[str, Any]:
    try:
        return load(raw, models_root, engine, overrides)
    except RecipeError as error:
        raise AnsibleFilterError(f"The recipe {error}. See roles/recipe/vars for recipes that work.") from error


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"recipe": recipe}
