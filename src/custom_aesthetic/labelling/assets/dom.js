// Small helpers to build the page: elements, addresses of pictures, numbers as text.

export function element(kind, name = "", text = "") {
  const made = document.createElement(kind);
  if (name) made.className = name;
  made.textContent = text;
  return made;
}

// A real button; `key` is shown on it, and `shortcuts` are the keys as ARIA names them.
export function button(text, { id = "", key = "", shortcuts = "", title = "", does }) {
  const made = element("button", "", text);
  made.type = "button";
  if (id) made.id = id;
  if (title) made.title = title;
  if (shortcuts) made.setAttribute("aria-keyshortcuts", shortcuts);
  if (key) made.append(" ", element("kbd", "", key));
  made.addEventListener("click", does);
  return made;
}

// A file name that is not UTF-8 cannot be part of a URL as it is: it is sent as JSON.
function inAddress(path) {
  try {
    return encodeURIComponent(path);
  } catch {
    return encodeURIComponent(JSON.stringify(path));
  }
}

export const WHOLE = 100000; // asks for a picture in its full size

// The address of a picture whose longest side is about `size` pixels.
export const pictureAddress = (path, size) => `/picture?path=${inAddress(path)}&size=${Math.ceil(size)}`;

export const fileName = (path) => path.split("/").pop();

export const percent = (share) => `${Math.round(100 * share)}\u00a0%`;

export const counted = (number, noun) => `${number} ${noun}${number === 1 ? "" : "s"}`;

export const wait = (ms) => new Promise((done) => setTimeout(done, ms));
