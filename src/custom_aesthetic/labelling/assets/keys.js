// Keys: each view says which it has and what they do; `?` shows them all. Digits are taken by their place on the
// keyboard, so that they work on layouts where digits need Shift.
//
//   addKeys("score", [{ keys: ["u", "Backspace"], shown: "u", says: "undo", does: undo }]);
//
// `keys` are values of KeyboardEvent.key, letters in lower case, or "digit 1" ... "digit 9". `when` (optional) says
// whether the key means anything now. A button with the focus keeps Space and Enter.

import { element } from "./dom.js";
import { currentView } from "./views.js";

const bindings = new Map(); // view -> [{ keys, shown, says, does, when }]
const help = document.getElementById("help");

export function addKeys(view, more) {
  bindings.set(view, [...more, ...(bindings.get(view) ?? [])]);
}

function nameOf(event) {
  const digit = /^(?:Digit|Numpad)(\d)$/.exec(event.code);
  if (digit && !event.shiftKey) return `digit ${digit[1]}`;
  if (event.code === "" && /^\d$/.test(event.key)) return `digit ${event.key}`; // keys of on-screen keyboards
  return event.key.length === 1 ? event.key.toLowerCase() : event.key;
}

// Keys added later come first: those of a mode before those of its view.
const here = () => [...(bindings.get(currentView()) ?? []), ...(bindings.get("") ?? [])];

document.addEventListener("keydown", (event) => {
  if (event.repeat || event.ctrlKey || event.metaKey || event.altKey) return;
  if (document.querySelector("dialog[open]")) return; // it covers the view
  const focused = document.activeElement;
  if (focused?.matches("input:not([type=checkbox]):not([type=radio]):not([type=range]), textarea, select")) return;
  const name = nameOf(event);
  if (focused?.type === "range" && name.startsWith("Arrow")) return; // they move the slider
  if (focused?.tagName === "BUTTON" && (name === " " || name === "Enter")) return;
  const binding = here().find((each) => each.keys.includes(name) && (each.when?.() ?? true));
  if (!binding) return;
  event.preventDefault();
  binding.does(event);
});

export function showHelp() {
  const list = element("dl");
  for (const { shown, says, when } of here()) {
    if (!says || !(when?.() ?? true)) continue;
    const row = element("div");
    row.append(element("dt", "", shown), element("dd", "", says));
    list.append(row);
  }
  const title = element("h2", "", "Keys");
  title.id = "help-title";
  const close = element("button", "", "Close");
  close.type = "button";
  close.addEventListener("click", () => help.close());
  help.replaceChildren(title, list, close);
  help.showModal();
  close.focus();
}

addKeys("", [{ keys: ["?"], shown: "?", says: "show these keys", does: showHelp }]);

help.addEventListener("click", (event) => {
  if (event.target === help) help.close(); // beside the dialog
});
