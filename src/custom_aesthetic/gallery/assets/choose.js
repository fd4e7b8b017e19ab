// Choosing: a slider for the number or the score, a live count, and what to do with the pictures, first as a dry run.

import { ask } from "./api.js";
import { button, counted, element } from "./dom.js";
import { learnerStatus } from "./learner.js";
import { say } from "./message.js";

const ACTIONS = [
  { kind: "copy", label: "Copy to a folder", does: "Copy", target: "Folder" },
  { kind: "link", label: "Link in a folder", does: "Link", target: "Folder" },
  { kind: "move", label: "Move to a folder", does: "Move", target: "Folder" },
  { kind: "stars", label: "Write stars (XMP)", does: "Write stars for" },
  { kind: "captions", label: "Tag captions", does: "Tag" },
  { kind: "list", label: "Save a list", does: "List", target: "File, .csv or .json" },
];
const STEPS = 1000; // of the slider for scores

export function createChooser({ source, changed, shows }) {
  const form = element("form", "chooser");
  form.setAttribute("aria-label", "Choose pictures");
  const by = select("Choose by", [["top", "Best"], ["above", "Score above"]]);
  const slider = input("range", "How many");
  const number = input("number", "Number of pictures");
  const groups = input("checkbox", "");
  const grouped = element("label", "check");
  grouped.append(groups, " one per group");
  grouped.title = "Of near-duplicates and bursts, the best one only";
  const count = element("output", "chosen");
  count.setAttribute("aria-live", "polite");
  const action = select("What to do", ACTIONS.map(({ kind, label }) => [kind, label]));
  const target = input("text", "Folder");
  target.spellcheck = false;
  const look = button("Look first…", { title: "Shows what would happen", does: () => {} });
  look.type = "submit";
  look.className = "button";
  const undo = button("Undo", { does: takeBack });
  undo.className = "button";
  undo.hidden = true;
  const deed = element("div", "deed");
  deed.append(action, target, look);
  const more = button("Do something with them…", { does: () => form.classList.toggle("unfolded") });
  more.className = "button more";
  form.append(by, slider, number, grouped, count, undo, more, deed);
  const state = { of: 0, low: 0, high: 1, chosen: 0, top: null, above: null };

  function asked() {
    return {
      top: by.value === "top" ? state.top : null,
      above: by.value === "above" ? state.above : null,
      per_group: groups.checked,
      source: source(),
    };
  }

  let running = false;
  let again = false;
  async function refresh() {
    grouped.hidden = !learnerStatus()?.grouped;
    if (running) {
      again = true;
      return;
    }
    running = true;
    try {
      do {
        again = false;
        if (state.top === null) state.top = 20;
        const found = await ask("choose/count", asked());
        const first = state.of === 0;
        Object.assign(state, found);
        if (first) {
          state.above = state.low + 0.8 * (state.high - state.low);
          target.value = found.suggested;
        }
        showUndo(found.undo);
        showCount();
      } while (again);
    } catch (error) {
      say(error.message);
    } finally {
      running = false;
    }
  }

  function showCount() {
    const byTop = by.value === "top";
    slider.max = byTop ? Math.max(state.of, 1) : STEPS;
    slider.min = byTop ? 1 : 0;
    slider.value = byTop ? state.top : Math.round((STEPS * (state.above - state.low)) / (state.high - state.low || 1));
    number.hidden = !byTop;
    number.min = 1;
    number.max = state.of;
    if (document.activeElement !== number) number.value = state.top;
    slider.setAttribute("aria-label", byTop ? "Number of best pictures" : "Lowest score");
    slider.setAttribute("aria-valuetext", byTop ? counted(state.top, "picture") : `above ${state.above?.toFixed(2)}`);
    count.textContent = `${state.chosen.toLocaleString("en")} of ${state.of.toLocaleString("en")} chosen`;
    shows(asked(), state.chosen);
  }

  by.addEventListener("change", refresh);
  groups.addEventListener("change", refresh);
  slider.addEventListener("input", () => {
    if (by.value === "top") state.top = Number(slider.value);
    else state.above = state.low + (Number(slider.value) / STEPS) * (state.high - state.low);
    refresh();
  });
  number.addEventListener("input", () => {
    const wished = Math.round(Number(number.value));
    if (!(wished >= 1)) return;
    state.top = Math.min(wished, Math.max(state.of, 1));
    refresh();
  });
  action.addEventListener("change", showTarget);
  function showTarget() {
    const { target: wants } = ACTIONS.find(({ kind }) => kind === action.value);
    target.hidden = !wants;
    target.placeholder = wants ?? "";
    target.setAttribute("aria-label", wants ?? "");
    const { suggested = "" } = state;
    if (action.value === "list" && target.value === suggested) target.value = `${suggested}.csv`;
    else if (action.value !== "list" && target.value === `${suggested}.csv`) target.value = suggested;
  }
  showTarget();

  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    look.disabled = true;
    try {
      const wish = { ...asked(), kind: action.value, target: target.value };
      const planned = await ask("choose/plan", wish);
      confirm(planned, ACTIONS.find(({ kind }) => kind === action.value));
    } catch (error) {
      say(error.message);
      if (!target.hidden) target.focus();
    } finally {
      look.disabled = false;
    }
  });

  function confirm(planned, { does }) {
    const box = element("dialog", "dry-run");
    const title = element("h2", "", `${does} ${counted(planned.chosen, "picture")}?`);
    title.id = "dry-run-title";
    box.setAttribute("aria-labelledby", title.id);
    const go = button(`${does} ${counted(planned.chosen, "picture")}`, { does: carryOut });
    go.classList.add("main");
    go.addEventListener("keydown", (event) => event.repeat && event.preventDefault()); // a key held since "Look first"
    const buttons = element("div", "dialog-buttons");
    buttons.append(button("Cancel", { does: () => box.close() }), go);
    box.append(title, lines(planned), buttons);
    box.addEventListener("close", () => box.remove());
    document.body.append(box);
    box.showModal();
    go.focus();

    async function carryOut() {
      go.disabled = true;
      go.textContent = "Working…";
      try {
        const done = await ask("choose/do", { name: planned.name });
        say(done.lines.at(-1) ?? "Done.");
        showUndo(done.undo);
      } catch (error) {
        say(error.message);
      }
      box.close();
      changed();
      refresh();
    }
  }

  function lines({ lines: said, more_lines: more }) {
    const list = element("ul", "lines");
    list.tabIndex = 0;
    for (const line of said) list.append(element("li", "", line));
    if (more) list.append(element("li", "", `… and ${more} more`));
    return list;
  }

  function showUndo(file) {
    undo.hidden = !file;
    undo.title = file ? `Takes back what ${file} lists` : "";
  }

  async function takeBack() {
    try {
      const done = await ask("choose/undo");
      say(done.lines.at(-1) ?? "Taken back.");
      showUndo(done.undo);
    } catch (error) {
      say(error.message);
    }
    changed();
    refresh();
  }

  return { element: form, refresh };
}

function select(label, options) {
  const made = element("select", "button");
  made.setAttribute("aria-label", label);
  for (const [value, text] of options) {
    const option = element("option", "", text);
    option.value = value;
    made.append(option);
  }
  return made;
}

function input(type, label) {
  const made = element("input");
  made.type = type;
  if (label) made.setAttribute("aria-label", label);
  return made;
}
