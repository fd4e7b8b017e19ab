// The mode that shows two to four pictures: one is chosen, or all are equal.

import { button, element } from "./dom.js";
import { framed } from "./frames.js";

const ARROWS = { 2: ["←", "→"], 3: ["←", "↓", "→"], 4: ["←", "↑", "↓", "→"] };
const ARROW_KEYS = {
  2: [["ArrowLeft", "ArrowUp"], ["ArrowRight", "ArrowDown"]],
  3: [["ArrowLeft"], ["ArrowUp", "ArrowDown"], ["ArrowRight"]],
  4: [["ArrowLeft"], ["ArrowUp"], ["ArrowDown"], ["ArrowRight"]],
};
const PLACES = { 2: ["left", "right"], 3: ["left", "middle", "right"], 4: ["first", "second", "third", "fourth"] };

const FLASH_MS = 260;
const DOUBLE_CLICK_MS = 250;

export function pairMode({ number }, { give, shownFor }) {
  let group = null;
  // With three or four pictures, 3 is the third picture, so only the space bar says that they are equal.
  const equalKeys = number === 2 ? ["digit 3", " "] : [" "];
  const equalShown = number === 2 ? "3 or space" : "space";

  function choose(place) {
    const { pictures } = group ?? {};
    if (pictures && place >= pictures.length) return;
    if (give("choice", { pictures, winner: pictures?.[place] })) flash([place]);
  }

  function equal() {
    const { pictures } = group ?? {};
    if (give("tie", { pictures })) flash(pictures.map((_, place) => place));
  }

  // The second click of a double click would choose among pictures that nobody has seen yet.
  function click(event, place) {
    const again = event.detail > 1 || event.pointerType === "touch";
    if (!again || shownFor() > DOUBLE_CLICK_MS) choose(place);
  }

  function show(shown) {
    group = shown;
    const box = element("div", "group");
    box.dataset.number = group.images.length;
    box.append(...group.images.map((image, place) => choiceOf(image, place, group.images.length, (event) => click(event, place))));
    return box;
  }

  return {
    kinds: ["choice", "tie"],
    zooms: true,
    cell: longestSide,
    show,
    buttons: [button("Equal", { id: "equal", key: number === 2 ? "3" : "space", shortcuts: number === 2 ? "3 Space" : "Space", does: equal })],
    hint: hintOf(number, equalShown),
    keys: [
      ...PLACES[number].map((name, place) => ({
        keys: [`digit ${place + 1}`, ...ARROW_KEYS[number][place]],
        shown: `${place + 1} or ${ARROWS[number][place]}`,
        says: `choose the ${name} picture`,
        does: () => choose(place),
      })),
      { keys: equalKeys, shown: equalShown, says: number === 2 ? "both are equally good" : "all are equally good", does: equal },
    ],
  };
}

// Returns the longest side of the part of the stage in which one of the pictures is shown, as score.css divides it.
function longestSide({ clientWidth, clientHeight }, count) {
  if (count === 4) return Math.max(clientWidth, clientHeight) / 2;
  const isUpright = window.innerHeight > window.innerWidth; // as orientation in CSS
  return Math.max(clientWidth / (isUpright ? 1 : count), clientHeight / (isUpright ? count : 1));
}

function choiceOf(image, place, count, does) {
  const made = element("button", "choice");
  made.type = "button";
  made.setAttribute("aria-label", `Choose picture ${place + 1}, ${image.alt}`);
  made.append(framed(image, label(String(place + 1), ARROWS[count][place])));
  made.addEventListener("click", does);
  return made;
}

function label(number, arrow) {
  const made = element("kbd", "label", number);
  made.append(element("span", "arrow", ` ${arrow}`));
  return made;
}

// Marks for a moment where the chosen picture was; the next pictures are on screen already.
function flash(places) {
  const cells = document.querySelectorAll(".group .choice");
  for (const place of places) {
    const ring = element("span", "flash");
    ring.append(element("span", "", places.length > 1 ? "=" : "✓"));
    ring.setAttribute("aria-hidden", "true");
    cells[place]?.querySelector(".frame").append(ring);
    setTimeout(() => ring.remove(), FLASH_MS);
  }
}

function hintOf(number, equalShown) {
  const picture = number === 2 ? "1 2 or ← →" : `1 to ${number}`;
  return [
    element("kbd", "", picture), " choose · ", element("kbd", "", equalShown), " equal · ", element("kbd", "", "0"),
    " skip · ", element("kbd", "", "u"), " undo · hold a picture or ", element("kbd", "", "z"),
    " for 100 % · ", element("kbd", "", "?"), " all keys",
  ];
}
