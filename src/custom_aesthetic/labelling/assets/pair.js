// The mode that shows two to four pictures: one is chosen, or all are equal.

import { button, element } from "./dom.js";

const ARROWS = { 2: ["←", "→"], 3: ["←", "↓", "→"], 4: ["←", "↑", "↓", "→"] };
const ARROW_KEYS = {
  2: [["ArrowLeft", "ArrowUp"], ["ArrowRight", "ArrowDown"]],
  3: [["ArrowLeft"], ["ArrowUp", "ArrowDown"], ["ArrowRight"]],
  4: [["ArrowLeft"], ["ArrowUp"], ["ArrowDown"], ["ArrowRight"]],
};
const PLACES = { 2: ["left", "right"], 3: ["left", "middle", "right"], 4: ["first", "second", "third", "fourth"] };

export function pairMode({ number }, { give }) {
  let group = null;
  // With three or four pictures, 3 is the third picture, so only the space bar says that they are equal.
  const equalKeys = number === 2 ? ["digit 3", " "] : [" "];
  const equalShown = number === 2 ? "3 or space" : "space";

  function choose(place) {
    if (group && place >= group.pictures.length) return;
    give("choice", { pictures: group?.pictures, winner: group?.pictures[place] });
  }

  const equal = () => give("tie", { pictures: group?.pictures });

  function show(shown) {
    group = shown;
    const box = element("div", "group");
    box.dataset.number = group.images.length;
    box.append(...group.images.map((image, place) => choiceOf(image, place, group.images.length, () => choose(place))));
    return box;
  }

  return {
    kinds: ["choice", "tie"],
    cell: (stage, count) => Math.max(stage.clientWidth, stage.clientHeight) / (count > 2 ? 1.5 : 1),
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

function choiceOf(image, place, count, does) {
  const made = element("button", "choice");
  made.type = "button";
  made.setAttribute("aria-label", `Choose picture ${place + 1}, ${image.alt}`);
  made.append(image, element("kbd", "label", `${place + 1} ${ARROWS[count][place]}`));
  made.addEventListener("click", does);
  return made;
}

function hintOf(number, equalShown) {
  const picture = number === 2 ? "1 2 or ← →" : `1 to ${number}`;
  return [
    element("kbd", "", picture), " choose · ", element("kbd", "", equalShown), " equal · ", element("kbd", "", "0"),
    " skip · ", element("kbd", "", "u"), " undo · ", element("kbd", "", "?"), " all keys",
  ];
}
