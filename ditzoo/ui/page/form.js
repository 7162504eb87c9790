// The fields: what can be chosen, and what is sent. The server checks every field.

import { ask, byId, make, showError } from "./common.js";

const CHIPS = 40; // up to so many classes have a button each; more are found by a search
const FIELDS = ["model", "backend", "other", "classes", "prompts", "num", "solver", "steps", "guidance",
  "guidance_every", "reuse", "seed"];

let models = [];

export function send(path, method) {
  const form = Object.fromEntries(FIELDS.map((name) => [name, fieldIsShown(name) ? byId(name).value : ""]));
  return ask(path, { method, headers: { "Content-Type": "application/json" }, body: JSON.stringify(form) });
}

function fieldIsShown(name) {
  const box = byId(`${name}-field`);
  return !box || !box.hidden;
}

export function model() {
  return models.find((each) => each.name === byId("model").value);
}

function fillModels() {
  byId("model").replaceChildren(...models.map((each) => make("option", { value: each.name, textContent: each.name })));
  chooseModel();
}

function chooseModel() {
  const chosen = model();
  byId("about").textContent = `${chosen.summary}; ${chosen.resolution}×${chosen.resolution} pixels, ${chosen.state}`;
  fillBackends(chosen);
  fillClasses(chosen);
  byId("prompts-field").hidden = !chosen.prompts;
  byId("steps").placeholder = chosen.steps;
  byId("guidance").placeholder = chosen.guidance;
  byId("num").placeholder = chosen.classes.length || chosen.prompts ? "one each" : "10";
  allow("guidance", chosen.guided);
  allow("guidance_every", chosen.guided);
  byId("solver").placeholder = chosen.solver;
  byId("solvers").replaceChildren(...chosen.solvers.map((name) => make("option", { value: name })));
  allow("reuse", chosen.reusable > 0);
  byId("reuse-hint").textContent = chosen.reusable
    ? `every=N,blocks=K or full=0-2,5,blocks=K: all blocks in these steps, else the first K and the last K, at most ${chosen.reusable}`
    : "this model has too few blocks";
}

function allow(name, allowed) {
  byId(name).disabled = !allowed;
  if (!allowed) byId(name).value = "";
}

function fillBackends(chosen) {
  const before = byId("backend").value;
  const runnable = chosen.backends.filter((each) => !each.refusal).map((each) => each.text);
  const options = () => runnable.map((text) => make("option", { value: text, textContent: text }));
  byId("backend").replaceChildren(...options());
  byId("other").replaceChildren(make("option", { value: "", textContent: "nothing" }), ...options());
  if (runnable.includes(before)) byId("backend").value = before;
  const refused = chosen.backends.filter((each) => each.refusal);
  const reasons = [...new Set(refused.map((each) => each.refusal))];
  byId("missing").hidden = !refused.length;
  byId("missing").open = !runnable.length;
  byId("missing").querySelector("summary").textContent = "What cannot run here, and why";
  byId("missing").querySelector("ul").replaceChildren(...reasons.map((text) => make("li", { textContent: text })));
}

function fillClasses(chosen) {
  const few = chosen.classes.length <= CHIPS;
  byId("classes-field").hidden = !chosen.classes.length || chosen.prompts;
  byId("chips").hidden = !few;
  byId("finder").hidden = few;
  byId("classes").value = "";
  const range = `0-${Math.min(chosen.classes.length, 10) - 1}`;
  byId("classes").placeholder = range;
  byId("classes-hint").textContent = `Numbers, ranges and names, such as ${range} or 1,3. Without a list, the first ten.`;
  byId("chips").replaceChildren(...(few ? chosen.classes.map(chip) : []));
  byId("names").replaceChildren(...(few ? [] : chosen.classes.map((each) => make("option", { value: each.name }))));
}

function chip(each) {
  const button = make("button", { type: "button", textContent: each.name });
  button.setAttribute("aria-pressed", "false");
  button.dataset.text = each.text;
  button.addEventListener("click", () => toggleClass(each.text));
  return button;
}

function chosenClasses() {
  return byId("classes").value.split(",").map((part) => part.trim()).filter(Boolean);
}

function toggleClass(text) {
  const chosen = chosenClasses();
  byId("classes").value = (chosen.includes(text) ? chosen.filter((each) => each !== text) : [...chosen, text]).join(", ");
  pressChips();
}

function pressChips() {
  const chosen = chosenClasses();
  for (const button of byId("chips").children) {
    button.setAttribute("aria-pressed", String(chosen.includes(button.dataset.text)));
  }
}

function addFound() {
  const name = byId("search").value.trim().toLowerCase();
  const found = model().classes.find((each) => each.name.toLowerCase() === name);
  if (!found) return showError(`there is no class called ${byId("search").value.trim()}; choose one of the list`);
  showError("");
  byId("classes").value = [...chosenClasses(), found.text].join(", ");
  byId("search").value = "";
}

function newSeed() {
  byId("seed").value = crypto.getRandomValues(new Uint32Array(1))[0];
}

byId("model").addEventListener("change", chooseModel);
byId("classes").addEventListener("input", pressChips);
byId("add").addEventListener("click", addFound);
byId("search").addEventListener("keydown", (event) => {
  if (event.key === "Enter") {
    event.preventDefault();
    addFound();
  }
});
byId("dice").addEventListener("click", newSeed);

ask("api/choices")
  .then((found) => {
    models = found;
    if (!models.length) throw new Error("no model is on this machine; `ditzoo pull NAME` fetches one");
    fillModels();
  })
  .catch((error) => showError(error.message));
