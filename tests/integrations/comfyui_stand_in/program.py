"""Load nodes and run a prompt (a workflow in API form) as ComfyUI does: names, checks, lists, blockers, its cache."""

import importlib.util
import os
import sys
from typing import Any

import torch
from comfy_execution.graph_utils import ExecutionBlocker

Prompt = dict[str, dict[str, Any]]


def load_custom_node(module_path: str) -> Any:
    """Import a folder of `custom_nodes` under the name that ComfyUI gives it: its path, without dots."""
    name = module_path.replace(".", "_x_")
    spec = importlib.util.spec_from_file_location(name, f"{module_path}{os.sep}__init__.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def check(prompt: Prompt, nodes: dict[str, Any]) -> list[str]:
    """What ComfyUI would refuse of a prompt: missing inputs, links of another type, values outside lists and bounds."""
    wrong = []
    for number, node in prompt.items():
        for name, (kind, *options) in nodes[node["class_type"]].INPUT_TYPES().get("required", {}).items():
            where = f"{number} {node['class_type']}.{name}"
            value = node["inputs"].get(name)
            bounds = options[0] if options else {}
            if value is None:
                wrong.append(f"{where} is missing")
            elif isinstance(value, list):
                given = nodes[prompt[value[0]]["class_type"]].RETURN_TYPES[value[1]]
                wrong += [f"{where} takes {kind}, not {given}"] if kind not in (given, "*") else []
            elif isinstance(kind, list):
                wrong += [f"{where}: {value!r} is not in the list"] if value not in kind else []
            elif kind in ("INT", "FLOAT"):
                low, high = bounds.get("min", value), bounds.get("max", value)
                wrong += [f"{where}: {value} is out of bounds"] if not low <= value <= high else []
            elif kind != "STRING":
                wrong.append(f"{where} takes a link")
        unknown = set(node["inputs"]) - set(nodes[node["class_type"]].INPUT_TYPES().get("required", {}))
        wrong += [f"{number} has no input {name}" for name in unknown]
    return wrong


class Program:
    """Runs prompts one after the other, and executes again only what has changed."""

    def __init__(self, nodes: dict[str, Any]) -> None:
        self.nodes = nodes
        self.executed: list[str] = []
        """Class types in the order of their execution, of the last prompt."""
        self._cache: dict[Any, list[list[Any]]] = {}

    def run(self, prompt: Prompt) -> dict[str, list[list[Any]]]:
        """The outputs of each node: a list of values for each output."""
        assert not check(prompt, self.nodes), check(prompt, self.nodes)
        self.executed = []
        found: dict[str, list[list[Any]]] = {}
        with torch.inference_mode():
            for number in prompt:
                self._outputs(number, prompt, found)
        return found

    def _outputs(self, number: str, prompt: Prompt, found: dict[str, list[list[Any]]]) -> list[list[Any]]:
        if number not in found:
            node = self.nodes[prompt[number]["class_type"]]
            given = {
                name: self._outputs(value[0], prompt, found)[value[1]] if isinstance(value, list) else [value]
                for name, value in prompt[number]["inputs"].items()
            }
            key = self._signature(number, prompt)
            if key not in self._cache:
                self._cache[key] = self._execute(node, prompt[number]["class_type"], given)
            found[number] = self._cache[key]
        return found[number]

    def _signature(self, number: str, prompt: Prompt) -> Any:
        node, inputs = self.nodes[prompt[number]["class_type"]], prompt[number]["inputs"]
        constants = {name: value for name, value in inputs.items() if not isinstance(value, list)}
        linked = {name: (self._signature(v[0], prompt), v[1]) for name, v in inputs.items() if isinstance(v, list)}
        changed = node.IS_CHANGED(**constants, **dict.fromkeys(linked)) if hasattr(node, "IS_CHANGED") else None
        return number, str(constants), tuple(sorted(linked.items())), changed

    def _execute(self, node: Any, name: str, given: dict[str, list[Any]]) -> list[list[Any]]:
        """One call for each item of the longest list; the last item of a shorter list is repeated."""
        calls = []
        for i in range(max((len(values) for values in given.values()), default=1)):
            inputs = {name: values[min(i, len(values) - 1)] for name, values in given.items()}
            blocked = [value for value in inputs.values() if isinstance(value, ExecutionBlocker)]
            if blocked:
                calls.append(tuple(blocked[:1] * len(node.RETURN_TYPES)))
                continue
            self.executed.append(name)
            result = getattr(node(), node.FUNCTION)(**inputs)
            calls.append(result["result"] if isinstance(result, dict) else result)
        lists = getattr(node, "OUTPUT_IS_LIST", (False,) * len(node.RETURN_TYPES))
        return [
            [
                value
                for call in calls
                for value in (
                    call[output] if is_list and not isinstance(call[output], ExecutionBlocker) else [call[output]]
                )
            ]
            for output, is_list in enumerate(lists)
        ]
