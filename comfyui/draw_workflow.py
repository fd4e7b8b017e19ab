"""Draw a workflow as the picture of the README: `python comfyui/draw_workflow.py > docs/comfyui.svg`."""

import json
import sys
from html import escape
from pathlib import Path
from typing import Any

WORKFLOW = Path(__file__).parent / "workflows" / "best_of_16.json"
API_WORKFLOW = WORKFLOW.with_name("best_of_16_api.json")

MARGIN, TITLE, ROW, TOP = 26, 32, 24, 16
COLOURS = {
    "MODEL": "#b39ddb",
    "CLIP": "#ffd500",
    "VAE": "#ff6e6e",
    "CONDITIONING": "#ffa931",
    "LATENT": "#ff9cf9",
    "IMAGE": "#64b5f6",
    "FLOAT": "#9bb8a3",
    "STRING": "#8ccf9b",
}
STYLE = """
    text { font: 14px system-ui, "Segoe UI", Roboto, Helvetica, Arial, sans-serif; fill: #c9ccd3 }
    .title { font-size: 15.5px; font-weight: 600; fill: #f1f2f5 }
    .value { fill: #f1f2f5 }
    .end { text-anchor: end }
"""

Node = dict[str, Any]


def draw(workflow: dict[str, Any], widgets: dict[str, dict[str, Any]]) -> str:
    """Return the SVG of a workflow; `widgets` are the values of each node by name."""
    nodes = {node["id"]: node for node in workflow["nodes"]}
    left, top = (min(node["pos"][axis] for node in nodes.values()) - MARGIN for axis in (0, 1))
    top -= TITLE
    right = max(node["pos"][0] + node["size"][0] for node in nodes.values()) + MARGIN
    bottom = max(node["pos"][1] + _height(node, widgets) for node in nodes.values()) + MARGIN
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{left} {top} {right - left} {bottom - top}" role="img">',
        "<title>A workflow of ComfyUI: sixteen images are made, Aesthetic Best Of keeps four, they are saved.</title>",
        f"<style>{STYLE}</style>",
        f'<rect x="{left}" y="{top}" width="{right - left}" height="{bottom - top}" rx="14" fill="#1b1d22"/>',
        *(_link(nodes, link) for link in workflow["links"]),
        *(_node(node, widgets) for node in nodes.values()),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _node(node: Node, widgets: dict[str, dict[str, Any]]) -> str:
    (x, y), width, height = node["pos"], node["size"][0], _height(node, widgets)
    is_ours = node["type"].startswith("Aesthetic")
    edge, head = ("#64b5f6", "#24486a") if is_ours else ("#3a3e47", "#353942")
    lines = [
        f'<rect x="{x}" y="{y - TITLE}" width="{width}" height="{height + TITLE}" rx="9" fill="#2a2d34" '
        f'stroke="{edge}" stroke-width="{2 if is_ours else 1}"/>',
        f'<path d="M{x} {y}v{9 - TITLE}q0 -9 9 -9h{width - 18}q9 0 9 9v{TITLE - 9}z" fill="{head}"/>',
        f'<text class="title" x="{x + 13}" y="{y - 10}">{escape(node["title"])}</text>',
    ]
    for side, slots in (("in", node["inputs"]), ("out", node["outputs"])):
        for slot, own in enumerate(slots):
            at, height_of_slot = _slot(node, side, slot)
            lines.append(f'<circle cx="{at}" cy="{height_of_slot}" r="4.5" fill="{COLOURS[own["type"]]}"/>')
            shift, style = (13, "") if side == "in" else (-13, ' class="end"')
            lines.append(f'<text x="{at + shift}" y="{height_of_slot + 4}"{style}>{escape(own["name"])}</text>')
    for row, (name, value) in enumerate(widgets[str(node["id"])].items()):
        lines += _widget(x, y + TOP + ROW * (_n_slots(node) + row) + 2, width, name, value)
    return "\n".join(lines)


def _widget(x: float, y: float, width: float, name: str, value: Any) -> list[str]:
    return [
        f'<rect x="{x + 11}" y="{y - 8}" width="{width - 22}" height="{ROW - 4}" rx="8" fill="#1f2126"/>',
        f'<text x="{x + 20}" y="{y + 6}">{escape(name)}</text>',
        f'<text class="value end" x="{x + width - 20}" y="{y + 6}">{escape(str(value))}</text>',
    ]


def _link(nodes: dict[int, Node], link: list[Any]) -> str:
    _, source, source_slot, target, target_slot, kind = link
    (x1, y1), (x2, y2) = _slot(nodes[source], "out", source_slot), _slot(nodes[target], "in", target_slot)
    bend = max(30, (x2 - x1) / 2)
    return (
        f'<path d="M{x1} {y1}C{x1 + bend:g} {y1} {x2 - bend:g} {y2} {x2} {y2}" fill="none" '
        f'stroke="{COLOURS[kind]}" stroke-width="2.2" opacity="0.85"/>'
    )


def _slot(node: Node, side: str, slot: int) -> tuple[float, float]:
    (x, y), width = node["pos"], node["size"][0]
    return (x if side == "in" else x + width), y + TOP + ROW * slot


def _n_slots(node: Node) -> int:
    return max(len(node["inputs"]), len(node["outputs"]))


def _height(node: Node, widgets: dict[str, dict[str, Any]]) -> float:
    return TOP + ROW * (_n_slots(node) + len(widgets[str(node["id"])]))


def read_and_draw() -> str:
    """Return the SVG of the workflow in this folder."""
    api = json.loads(API_WORKFLOW.read_text(encoding="utf-8"))
    widgets = {
        number: {name: value for name, value in node["inputs"].items() if not isinstance(value, list)}
        for number, node in api.items()
    }
    return draw(json.loads(WORKFLOW.read_text(encoding="utf-8")), widgets)


if __name__ == "__main__":
    sys.stdout.reconfigure(encoding="utf-8", newline="\n")  # type: ignore[union-attr]
    sys.stdout.write(read_and_draw())
