// "You chose A, I would have said B": the answer is kept or changed to the other picture.

import { forget, remember } from "./answers.js";
import { ask } from "./api.js";
import { button, element, fileName, pictureAddress } from "./dom.js";
import { say } from "./message.js";

function picture(path, says) {
  const figure = element("figure");
  const image = new Image();
  image.alt = fileName(path);
  image.loading = "lazy";
  image.src = pictureAddress(path, 640);
  figure.append(image, element("figcaption", "", says));
  return figure;
}

export async function showDisagreements(place) {
  const { answers } = await ask("disagreements");
  if (!answers.length) {
    place.replaceChildren(element("p", "waiting", "The model would have given all your answers, or has not learned yet."));
    return;
  }
  place.replaceChildren(...answers.map((one) => {
    const row = element("article", "disagreement");
    row.setAttribute("aria-label", `You chose ${fileName(one.chosen)}, the model would have said ${fileName(one.other)}`);
    const settle = (change) => async () => {
      for (const each of buttons.children) each.disabled = true;
      try {
        const { time } = await ask("settle", { answer: one.time, change });
        if (change) {
          forget((entry) => entry.time === one.time);
          remember({ time, kind: "choice", pictures: [one.chosen, one.other], drawn: "gallery" });
        }
        say(change ? "Your answer is changed." : "Your answer stays.", true);
      } catch (error) {
        say(error.message);
        for (const each of buttons.children) each.disabled = false;
        if (error.status !== 400) return; // it can be tried again
      }
      const next = row.nextElementSibling ?? row.previousElementSibling;
      row.remove();
      if (next) next.querySelector("button").focus();
      else showDisagreements(place);
    };
    const buttons = element("div", "settle");
    buttons.append(
      button("Keep my answer", { does: settle(false) }),
      button("Change my mind", { does: settle(true) }),
    );
    row.append(picture(one.chosen, "You chose this"), picture(one.other, "I would have said this"), buttons);
    return row;
  }));
}
