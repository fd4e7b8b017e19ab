// The message at the bottom of the page. Screen readers read it out; a click puts it away.

const place = document.getElementById("message");
let timer = 0;
place.addEventListener("click", () => say(""));

// Shows a message; an empty one hides it. A passing message goes away by itself.
export function say(text, passing = false) {
  clearTimeout(timer);
  place.textContent = text;
  place.hidden = text === "";
  if (passing) timer = setTimeout(() => say(""), 2500);
}
