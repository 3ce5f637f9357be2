# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""All of recipe_info: it reads files of the controller, and no box."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail, AnsibleError
from ansible.plugins.action import ActionBase
from ansible_collections.dgx.spark.plugins.module_utils._recipe import ENGINES, RecipeError, load
from ansible_collections.dgx.spark.plugins.plugin_utils._lock import LockError, parse
from ansible_collections.dgx.spark.plugins.plugin_utils._lock_apply import hold

OPTIONS: dict[str, Any] = {
    "name": {"type": "str", "required": True},
    "dirs": {"type": "list", "elements": "str", "required": True},
    "models_root": {"type": "str", "required": True},
    "engine": {"type": "str", "choices": list(ENGINES), "default": "vllm"},
    "overrides": {"type": "dict", "default": {}},
    "lock_file": {"type": "str", "default": ""},
    "toolkit_version": {"type": "str", "default": ""},
}


class ActionModule(ActionBase):
    """See the module of the same name."""

    _supports_check_mode = True
    _supports_diff = False
    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        args = self.validate_argument_spec(argument_spec=OPTIONS)[1]
        try:
            recipe = self._recipe(args["name"], args["dirs"], args["models_root"], args["engine"], args["overrides"])
            if args["lock_file"] and Path(args["lock_file"]).exists():
                lock = parse(self._loader.get_text_file_contents(args["lock_file"]), args["lock_file"])
                recipe = hold(recipe, lock, args["lock_file"], args["toolkit_version"])
        except (RecipeError, LockError) as exc:
            return {"failed": True, "msg": str(exc)}
        return {"changed": False, "recipe": recipe}

    def _recipe(self, name: str, dirs: Sequence[str], models_root: str, engine: str, overrides: Mapping[str, Any]) -> dict[str, Any]:
        raw = self._read(name, self._find(name, [Path(self._loader.path_dwim(folder)) for folder in dirs]))
        try:
            return load(raw, models_root, engine, overrides)
        except RecipeError as exc:
            raise RecipeError(f"The recipe {exc}. See roles/recipe/vars for recipes that work.") from exc

    def _find(self, name: str, folders: Sequence[Path]) -> Path:
        files = [folder / f"{name}.yml" for folder in folders]
        file = next((file for file in files if file.is_file()), None)
        if file is None:
            known = ", ".join(sorted({path.stem for folder in folders for path in folder.glob("*.yml")}))
            looked = ", ".join(map(str, folders))
            raise RecipeError(f"There is no recipe called {name}. Known are {known or 'none'}; they were looked for in {looked}.")
        return file

    def _read(self, name: str, file: Path) -> Mapping[str, Any]:
        try:
            raw = self._templar.template(self._loader.load_from_file(str(file), trusted_as_template=True))
        except AnsibleError as exc:
            raise AnsibleActionFail(f"The recipe {file} cannot be read.") from exc
        if not isinstance(raw, Mapping):
            raise RecipeError(f"{file} is no recipe: it must be a mapping, as those in roles/recipe/vars are.")
        # Its directory on a box, its lock and its evidence go by this name: that of a copied file would mix them with the original's.
        if (own := raw.get("name", name)) != name:
            raise RecipeError(f"{file} calls itself {own}: write 'name: {name}' in it, or rename it.")
        return raw
