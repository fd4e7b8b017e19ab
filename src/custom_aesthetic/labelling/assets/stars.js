// The mode that shows one picture, which gets one to five stars.

import { button, element } from "./dom.js";
import { framed } from "./frames.js";

const STARS = [1, 2, 3, 4, 5];

export function starsMode(settings, { give }) {
  let group = null;

  function rate(stars) {
    if (give("stars", { picture: group?.pictures[0], stars })) flash(stars);
  }

  const row = element("div", "rating");
  row.setAttribute("role", "group");
  row.setAttribute("aria-label", "Stars");
  for (const stars of STARS) {
    const made = button("★".repeat(stars), { key: String(stars), shortcuts: String(stars), does: () => rate(stars) });
    made.setAttribute("aria-label", stars === 1 ? "1 star" : `${stars} stars`);
    made.className = "button";
    row.append(made);
  }

  function flash(stars) {
    row.children[stars - 1].classList.add("given");
    setTimeout(() => row.children[stars - 1].classList.remove("given"), 260);
  }

  function show(shown) {
    group = shown;
    const box = element("div", "group rated");
    const single = element("div", "single");
    const [image] = group.images;
    single.append(framed(image));
    box.append(single, row);
    return box;
  }

  return {
    kinds: ["stars"],
    zooms: true,
    cell: (stage) => Math.max(stage.clientWidth, stage.clientHeight),
    show,
    buttons: [],
    hint: [
      element("kbd", "", "1"), " poor … ", element("kbd", "", "5"), " wonderful · ", element("kbd", "", "0"), " skip · ",
      element("kbd", "", "u"), " undo · hold the picture or ", element("kbd", "", "z"), " for 100 % · ",
      element("kbd", "", "?"), " all keys",
    ],
    keys: STARS.map((stars) => ({
      keys: [`digit ${stars}`],
      shown: String(stars),
      says: stars === 1 ? "1 star" : `${stars} stars`,
      does: () => rate(stars),
    })),
  };
}
