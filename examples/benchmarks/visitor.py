"""A visitor of the dashboard without a browser: what a browser asks the server for, over one
connection, with what the page then holds as its memory."""

import http.client
import json
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

JSON = {"Content-Type": "application/json"}
Found = list[dict[str, Any]]


def canonical(name: Any) -> str:
    """An id as Dash writes it into an address: dictionaries as JSON with sorted keys."""
    return (
        name if isinstance(name, str) else json.dumps(name, sort_keys=True, separators=(",", ":"))
    )


def walk(node: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every component with an id in a tree of them, with its props."""
    if isinstance(node, list):
        for child in node:
            yield from walk(child)
    elif isinstance(node, dict) and "props" in node:
        props = node["props"]
        if "id" in props:
            yield canonical(props["id"]), props
        for value in props.values():
            yield from walk(value)


def matches(pattern: Mapping[str, Any], name: Mapping[str, Any]) -> bool:
    """Whether an id is one of a pattern's; a wildcard is a list."""
    return pattern.keys() == name.keys() and all(
        isinstance(wanted, list) or wanted == name[key] for key, wanted in pattern.items()
    )


class Visitor:
    """Opens pages of the dashboard at a port and changes what is on them."""

    def __init__(self, port: int):
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        self._held: dict[str, dict[str, Any]] = {}
        self._callbacks = [
            callback
            for callback in json.loads(self._ask("GET", "/_dash-dependencies"))
            if not callback["clientside_function"]
        ]

    def close(self) -> None:
        self._connection.close()

    def visit(self, address: str) -> int:
        """Open a page as its address bar would; how many callbacks that took."""
        split = urlsplit(address)
        self._ask("GET", address)
        self._held = dict(walk(json.loads(self._ask("GET", "/_dash-layout"))))
        search = split.query and f"?{split.query}"
        self._held["url"] |= {"pathname": split.path, "search": search}
        return self.change("address", "data", {"path": split.path, "search": search})

    def tick(self) -> int:
        """What the page asks every few seconds, to be up to date."""
        url = self._held["url"]
        return self.change("here", "data", {"path": url["pathname"], "search": url["search"]})

    def turn_options(self) -> int:
        """Set every switch of the page to another of its values; how many there were."""
        switches = [
            (name, props)
            for name, props in self._held.items()
            if name.startswith("{") and json.loads(name).get("type") == "option"
        ]
        for name, props in switches:
            values = [choice["value"] for choice in props.get("data", [])]
            others = [value for value in values if value != props.get("value")]
            if others:
                self.change(name, "value", others[0])
        return len(switches)

    def change(self, name: str, prop: str, value: Any) -> int:
        """Set a prop and carry out the callbacks that it is an input of; how many those were."""
        self._held.setdefault(name, {})[prop] = value
        asked = 0
        for callback in self._callbacks:
            inputs = [self._find(entry) for entry in callback["inputs"]]
            changed = any(
                one["id"] == name_of(name) and one["property"] == prop
                for found in inputs
                for one in (found if isinstance(found, list) else [found])
            )
            if changed and self._carry_out(callback, inputs, f"{name}.{prop}"):
                asked += 1
        return asked

    def _find(self, entry: Mapping[str, str]) -> Any:
        """An input, state or output as a request has it: a list of them for a pattern."""
        prop = entry["property"]
        pattern = json.loads(entry["id"]) if entry["id"].startswith("{") else None
        if pattern is None or not any(isinstance(value, list) for value in pattern.values()):
            value = self._held.get(entry["id"], {}).get(prop)
            return {"id": name_of(entry["id"]), "property": prop, "value": value}
        return [
            {"id": json.loads(name), "property": prop, "value": props.get(prop)}
            for name, props in self._held.items()
            if name.startswith("{") and matches(pattern, json.loads(name))
        ]

    def _carry_out(self, callback: Mapping[str, Any], inputs: list[Any], changed: str) -> bool:
        """Ask for a callback and keep what it gives; False where its page is not this one."""
        output = callback["output"]
        parts = output[2:-2].split("...") if output.startswith("..") else [output]
        entries = [
            dict(zip(("id", "property"), part.rsplit(".", 1), strict=True)) for part in parts
        ]
        needed = [*entries, *callback["inputs"], *callback["state"]]
        if any(one["id"] not in self._held for one in needed if not one["id"].startswith("{")):
            return False
        outputs = [self._find(entry) for entry in entries]
        body = {
            "output": output,
            "outputs": outputs if output.startswith("..") else outputs[0],
            "inputs": inputs,
            "state": [self._find(entry) for entry in callback["state"]],
            "changedPropIds": [changed],
        }
        content = self._ask("POST", "/_dash-update-component", json.dumps(body))
        if content:
            answer = json.loads(content)
            for found in (answer.get("response") or {}, answer.get("sideUpdate") or {}):
                for name, props in found.items():
                    self._keep(name, props)
        return True

    def _keep(self, name: str, props: Mapping[str, Any]) -> None:
        for prop, value in props.items():
            self._held.setdefault(name, {})[prop.partition("@")[0]] = value
            self._held |= dict(walk(value))

    def _ask(self, method: str, path: str, body: str | None = None) -> bytes:
        self._connection.request(method, path, body, JSON if body else {})
        answer = self._connection.getresponse()
        content = answer.read()
        if answer.status >= 400 or b"cannot be shown" in content:
            raise RuntimeError(f"{method} {path}: {answer.status} {content[:300]!r}")
        return content


def name_of(written: str) -> Any:
    """An id as a request has it."""
    return json.loads(written) if written.startswith("{") else written
