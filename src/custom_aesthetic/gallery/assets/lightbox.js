// One picture of the gallery, large: arrows go to the next, space keeps, x rejects, escape closes.

import { button, element, fileName, pictureAddress, WHOLE } from "./dom.js";

export function openLightbox({ item, place, at, total, marks }) {
  const box = element("dialog", "lightbox");
  box.setAttribute("aria-label", "Picture");
  const image = new Image();
  const caption = element("p");
  const original = element("a", "button", "Original size");
  original.target = "_blank";
  original.rel = "noopener";
  const keep = button("Keep", { key: "space", does: () => mark("keep") });
  const reject = button("Reject", { key: "x", does: () => mark("reject") });
  const line = element("div", "lightbox-line");
  line.append(
    button("‹", { title: "Previous", does: () => go(-1) }), button("›", { title: "Next", does: () => go(1) }),
    caption, keep, reject, original, button("Close", { key: "esc", does: () => box.close() }),
  );
  box.append(image, line);
  document.body.append(box);
  box.addEventListener("close", () => box.remove());
  box.addEventListener("click", (event) => {
    if (event.target === box) box.close();
  });
  box.addEventListener("keydown", (event) => {
    const does = {
      ArrowRight: () => go(1), ArrowDown: () => go(1), ArrowLeft: () => go(-1), ArrowUp: () => go(-1),
      " ": () => mark("keep"), x: () => mark("reject"),
    }[event.key];
    if (!does || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    event.stopPropagation();
    does();
  });

  function show() {
    image.alt = fileName(item.path);
    image.src = pictureAddress(item.path, Math.max(innerWidth, innerHeight) * Math.min(devicePixelRatio, 2));
    original.href = pictureAddress(item.path, WHOLE);
    const score = item.score === null ? "" : ` · ${item.score.toFixed(2)}`;
    caption.textContent = `${place + 1} of ${total().toLocaleString("en")} · ${item.path}${score}`;
    keep.setAttribute("aria-pressed", item.mark === "keep");
    reject.setAttribute("aria-pressed", item.mark === "reject");
  }

  function go(step) {
    const next = at(place + step);
    if (!next) return;
    place += step;
    item = next;
    show();
  }

  async function mark(name) {
    await marks(item, name);
    show();
  }

  show();
  box.showModal();
  keep.focus();
}
