// What the page at the end offers besides scoring: the best pictures, the training, the commands.

import { copyCommands } from "./train.js";
import { addOffer } from "./summary.js";
import { showView } from "./views.js";

addOffer("Look at the best", () => showView("gallery"));
addOffer("Train", () => showView("train"));
addOffer("Copy the commands", copyCommands);
