// The views of the page (Score, Gallery, ...): one is shown at a time; the navigation appears when there are two.
//
//   const root = addView({ name: "gallery", label: "Gallery", shows() { ... }, hides() { ... } });
//
// `root` is the view's <section>, to fill as the view likes; `shows` and `hides` are called when the user comes and
// goes. Keys of a view: see keys.js. Buttons beside the progress line: `setActions`, from `shows`.

const navigation = document.getElementById("views");
const main = document.querySelector("main");
const actions = document.getElementById("actions");
const views = new Map();
let current = "";

export function addView({ name, label, shows = () => {}, hides = () => {} }) {
  const root = document.createElement("section");
  root.id = name;
  root.className = "view";
  root.tabIndex = -1;
  root.hidden = true;
  root.setAttribute("aria-label", label);
  main.append(root);
  const link = document.createElement("button");
  link.type = "button";
  link.textContent = label;
  link.addEventListener("click", () => showView(name));
  navigation.append(link);
  views.set(name, { root, link, shows, hides });
  navigation.hidden = views.size < 2;
  return root;
}

export function showView(name) {
  if (name === current) return;
  if (current) views.get(current).hides();
  current = name;
  for (const [each, { root, link }] of views) {
    root.hidden = each !== name;
    if (each === name) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  actions.replaceChildren();
  views.get(name).root.focus({ preventScroll: true });
  views.get(name).shows();
}

export const currentView = () => current;

// Shows these buttons beside the progress line, as long as the view is shown.
export function setActions(buttons) {
  actions.replaceChildren(...buttons);
}
