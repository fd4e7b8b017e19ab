// A picture in a frame of its shape, so that labels stay at the picture; its name and size on demand (key i).

import { ask, store, stored } from "./api.js";
import { element, fileName } from "./dom.js";

let named = stored("named", () => false);
const known = new Map(); // path -> { width, height, bytes }

// Returns the frame of a decoded image; `parts` stand in the picture's corners.
export function framed(image, ...parts) {
  const frame = element("span", "frame");
  frame.style.setProperty("--ratio", image.naturalWidth / image.naturalHeight || 1);
  frame.append(image, ...parts, captionOf(image.dataset.path));
  return frame;
}

function captionOf(path) {
  const caption = element("span", "caption");
  caption.hidden = !named;
  if (named) describe(caption, path);
  caption.dataset.path = path;
  return caption;
}

async function describe(caption, path) {
  caption.textContent = fileName(path);
  if (!known.has(path)) {
    const { details } = await ask("details", { picture: path }).catch(() => ({}));
    if (!details) return;
    known.set(path, details);
  }
  const { width, height, bytes } = known.get(path);
  caption.textContent = `${path} · ${width} × ${height} · ${fileSize(bytes)}`;
}

const fileSize = (bytes) => (bytes < 1e6 ? `${Math.ceil(bytes / 1000)} kB` : `${(bytes / 1e6).toFixed(1)} MB`);

// Shows or hides names and sizes, here and on the pictures to come.
export function toggleNames() {
  named = !named;
  store("named", named);
  for (const caption of document.querySelectorAll(".caption")) {
    caption.hidden = !named;
    if (named) describe(caption, caption.dataset.path);
  }
}
