// The mode that shows a grid, of which the pictures that please are picked.

import { button, element } from "./dom.js";
import { framed } from "./frames.js";

export function pickMode(settings, { give, shownFor }) {
  let group = null;
  let cells = [];
  const done = button("Next", { id: "next", key: "enter", shortcuts: "Enter", does: next });

  const picked = () => cells.filter((cell) => cell.getAttribute("aria-pressed") === "true");

  function next() {
    if (shownFor() < 250) return; // the second click of a double click
    give("pick", { pictures: group?.pictures, picked: picked().map((cell) => cell.dataset.path) });
  }

  function toggle(cell) {
    cell.setAttribute("aria-pressed", String(cell.getAttribute("aria-pressed") !== "true"));
    tell();
  }

  function tell() {
    done.firstChild.textContent = `Next (${picked().length})`;
  }

  // Arrow keys go to the neighbour on screen.
  function go(key) {
    const at = cells.indexOf(document.activeElement);
    const columns = cells.filter((cell) => cell.offsetTop === cells[0].offsetTop).length;
    const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns }[key];
    const to = at < 0 ? 0 : at + step;
    cells[Math.max(0, Math.min(cells.length - 1, to))]?.focus();
  }

  function show(shown) {
    group = shown;
    const box = element("div", "group picks");
    cells = group.images.map((image, place) => {
      const cell = element("button", "choice");
      cell.type = "button";
      cell.dataset.path = image.dataset.path;
      cell.setAttribute("aria-pressed", "false");
      cell.setAttribute("aria-label", `Picture ${place + 1}, ${image.alt}`);
      cell.append(framed(image, element("span", "tick", "✓")));
      cell.addEventListener("click", () => toggle(cell));
      cell.addEventListener("keydown", (event) => {
        if (event.key !== "Enter" || event.repeat) return;
        event.preventDefault(); // Enter goes on; the space bar picks
        event.stopPropagation();
        next();
      });
      return cell;
    });
    box.append(...cells);
    tell();
    return box;
  }

  return {
    kinds: ["pick"],
    zooms: false,
    cell: (stage, count) => Math.max(stage.clientWidth, stage.clientHeight) / (count > 4 ? 3 : 1.5),
    show,
    buttons: [done],
    hint: [
      "Click those you like, or ", element("kbd", "", "arrows"), " and ", element("kbd", "", "space"), " · ",
      element("kbd", "", "enter"), " next · ", element("kbd", "", "0"), " skip · ", element("kbd", "", "u"), " undo · ",
      element("kbd", "", "?"), " all keys",
    ],
    keys: [
      { keys: ["ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown"], shown: "arrows", says: "go to a picture", does: (event) => go(event.key) },
      { keys: [" "], shown: "space", says: "like the picture, or not", does: () => {} },
      { keys: ["Enter"], shown: "enter", says: "go on to the next pictures", does: next },
    ],
  };
}
