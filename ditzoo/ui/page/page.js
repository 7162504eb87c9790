// The page: it sends the fields as texts, and shows the states that the server streams. All text enters as textContent.
"use strict";

const CHIPS = 40; // up to so many classes have a button each; more are found by a search
const TINY = 16; // pictures up to so many pixels are shown smaller beside each other
const SMALL = 128; // pictures up to so many pixels are enlarged without smoothing
const PATIENCE = 3; // attempts to get the states of a drawing, before it counts as lost
const SILENT = "the server does not answer; is `ditzoo ui` still running?";
const FIELDS = ["model", "backend", "other", "classes", "prompts", "num", "solver", "steps", "guidance", "reuse", "seed"];

const byId = (id) => document.getElementById(id);
let models = [];
let job = null; // the drawing that is shown: its id, its stream, and what was drawn
let said = "";

function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

async function ask(path, options = {}) {
  let answer;
  try {
    answer = await fetch(path, options);
  } catch {
    throw new Error(SILENT);
  }
  const isJson = (answer.headers.get("content-type") || "").startsWith("application/json");
  const content = isJson ? await answer.json() : { error: (await answer.text()).trim() };
  if (!answer.ok) throw new Error(content.error || `the server answered ${answer.status}`);
  return content;
}

function send(path, method) {
  const form = Object.fromEntries(FIELDS.map((name) => [name, fieldIsShown(name) ? byId(name).value : ""]));
  return ask(path, { method, headers: { "Content-Type": "application/json" }, body: JSON.stringify(form) });
}

function fieldIsShown(name) {
  const box = byId(`${name}-field`);
  return !box || !box.hidden;
}

function showError(text) {
  const box = byId("error");
  box.textContent = text;
  box.hidden = !text;
  if (text) box.focus();
}

function say(text) {
  if (text !== said) byId("said").textContent = said = text;
}

// The form

function model() {
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
  byId("solver").placeholder = chosen.solver;
  byId("solvers").replaceChildren(...chosen.solvers.map((name) => make("option", { value: name })));
  allow("reuse", chosen.reusable > 0);
  byId("reuse-hint").textContent = chosen.reusable
    ? `every=N,blocks=K: all blocks in every N-th step, else the first K and the last K, at most ${chosen.reusable}`
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

// A drawing

async function start(event) {
  event.preventDefault();
  if (byId("draw").disabled) return;
  showError("");
  setWorking(true);
  const shown = { name: model().name, resolution: model().resolution, backends: [byId("backend").value, byId("other").value] };
  try {
    const order = await send("api/jobs", "POST");
    clearResult();
    showPlan(order);
    follow(order, shown);
  } catch (error) {
    setWorking(false);
    showError(error.message);
  }
}

function follow(order, shown) {
  job = { ...shown, id: order.id, file: order.file, previews: [], failures: 0 };
  job.stream = new EventSource(`api/jobs/${order.id}/states`);
  job.stream.onmessage = (message) => {
    job.failures = 0;
    showState(JSON.parse(message.data));
  };
  job.stream.onerror = () => {
    job.failures += 1;
    if (job.stream.readyState === EventSource.CLOSED || job.failures >= PATIENCE) end(SILENT);
  };
  if (byId("result").getBoundingClientRect().top > window.innerHeight / 2) byId("result").scrollIntoView();
}

function showState(state) {
  byId("working").hidden = false;
  const bar = byId("bar");
  if (state.phase === "running" && state.total) {
    bar.max = state.total;
    bar.value = state.done;
  } else {
    bar.removeAttribute("value");
  }
  const counted = state.total && state.done ? `, step ${state.done} of ${state.total}` : "";
  byId("doing").textContent = state.phase === "waiting" ? `waiting, ${state.ahead} in the queue` : `${state.doing}${counted}`;
  if (state.phase === "running") say(state.doing);
  state.previews.forEach((count, side) => showPreview(side, count));
  if (state.phase === "finished") finish(state.summary);
  if (state.phase === "failed") end(state.error);
  if (state.phase === "cancelled") end("", "The drawing was cancelled.");
}

function showPreview(side, count) {
  if (job.previews[side] === count) return;
  job.previews[side] = count;
  let image = byId("sides").querySelector(`[data-side="${side}"] img`);
  if (!image) {
    image = make("img", { className: "preview", alt: `the pictures on ${job.backends[side]} while they are drawn` });
    const box = make("section", { className: "side" }, make("h2", { textContent: job.backends[side] }), image);
    box.dataset.side = side;
    byId("sides").append(box);
  }
  image.src = `api/jobs/${job.id}/previews/${side}?${count}`;
}

function finish(summary) {
  const boxes = summary.sides.map((each, side) => pictureBox(each.backend, summary, (image) => ({
    src: `api/jobs/${job.id}/pictures/${side}/${image}`,
    alt: `${summary.labels[image] || `image ${image}`} by ${job.name} on ${each.backend}`,
  }), side));
  if (summary.measured) {
    const gain = summary.measured.gain;
    const title = summary.measured.psnr === null ? "Difference: none" : `Difference × ${Math.round(gain).toLocaleString("en")}`;
    boxes.push(pictureBox(title, summary, (image) => ({
      src: `api/jobs/${job.id}/differences/${image}`,
      alt: `difference of ${summary.labels[image] || `image ${image}`} between the two backends`,
    }), null));
  }
  byId("sides").replaceChildren(...boxes);
  byId("sides").className = boxes.length > 1 ? "several" : "";
  if (summary.measured) showMeasured(summary);
  showTimes(summary);
  const verdict = summary.measured ? ` ${byId("verdict").textContent}` : "";
  end("", `${summary.images} ${summary.images === 1 ? "image is" : "images are"} finished.${verdict}`);
}

function pictureBox(title, summary, source, side) {
  const size = job.resolution > SMALL ? "large" : job.resolution > TINY ? "small" : "tiny";
  const list = make("ul", { className: `pictures ${size}` });
  for (let image = 0; image < summary.images; image++) {
    const label = make("span", { textContent: summary.labels[image] || image });
    list.append(make("li", {}, make("img", source(image)), label));
  }
  const box = make("section", { className: "side" }, make("h2", { textContent: title }), list);
  if (side !== null) {
    box.dataset.side = side;
    const file = `${job.file}-${title.replaceAll(/[^A-Za-z0-9]+/g, "-")}.png`;
    const link = make("a", { className: "download", href: `api/jobs/${job.id}/sheets/${side}`, download: file });
    link.textContent = "Download PNG";
    box.append(link);
  }
  return box;
}

function showMeasured(summary) {
  const measured = summary.measured;
  const verdict = byId("verdict");
  verdict.textContent = measured.passed ? "Both backends agree within the limits." : "The difference exceeds a limit.";
  verdict.className = measured.passed ? "pass" : "fail";
  fillTable("numbers", [
    ["relative L2 error of the latents", measured.sample.toExponential(1), `≤ ${measured.sample_limit.toExponential(1)}`],
    ["PSNR of the pixels", measured.psnr === null ? "identical" : `${measured.psnr.toFixed(1)} dB`, `≥ ${measured.psnr_limit} dB`],
    ["largest difference of a latent", measured.largest_latent.toExponential(1), ""],
    ["largest difference of a pixel, of 255", measured.largest_pixel.toExponential(1), ""],
  ]);
  byId("compared").hidden = false;
}

function showTimes(summary) {
  fillTable("times", summary.sides.map((side) => [
    side.backend, duration(side.opening), duration(side.sampling), duration(side.sampling / summary.evaluations),
  ]));
  byId("decoding").textContent = `Decoding took ${duration(summary.decoding)}. An export that was made first counts as opening.`;
  byId("timing").hidden = false;
}

function showPlan(order) {
  const plan = order.plan;
  const passes = plan.rows.reduce((sum, row) => sum + (row.guidance === 1 ? 1 : 2), 0);
  const reused = plan.rows.filter((row) => row.evaluation === "reuse").length;
  const blocks = reused ? `; ${reused} rows run the first ${plan.outer_blocks} and the last ${plan.outer_blocks} blocks only` : "";
  byId("plan-text").textContent =
    `${plan.solver}, ${plan.rows.length} rows, ${passes} forward passes for each image; guidance on ${plan.guided_channels} of ` +
    `${plan.channels} channels${blocks}; x[0] = ${short(plan.initial)} z`;
  fillTable("rows", plan.rows.map((row, i) => [
    String(i), short(row.time), short(row.guidance), row.evaluation || "all", row.states.map(short).join("  "),
    row.predictions.map(short).join("  "),
    row.log_variance ? `exp ½[${row.log_variance.map(short).join(", ")}]` : short(row.noise),
  ]));
  byId("plan").hidden = false;
  byId("command").textContent = order.command;
  byId("same").hidden = false;
}

function fillTable(id, rows) {
  const cell = (text, i) => (i ? make("td", { textContent: text }) : Object.assign(make("th", { textContent: text }), { scope: "row" }));
  byId(id).tBodies[0].replaceChildren(...rows.map((cells) => make("tr", {}, ...cells.map(cell))));
}

function short(number) {
  return String(Number(number.toPrecision(4)));
}

function duration(seconds) {
  return seconds < 1 ? `${Number((1000 * seconds).toPrecision(3))} ms` : `${seconds.toFixed(seconds < 10 ? 2 : 1)} s`;
}

function clearResult() {
  for (const id of ["compared", "timing"]) byId(id).hidden = true;
  byId("sides").replaceChildren();
  say("");
}

function end(error, text = "") {
  job.stream.close();
  job.ended = true;
  setWorking(false);
  byId("working").hidden = true;
  say(text);
  if (error) showError(error);
}

function setWorking(working) {
  byId("draw").disabled = working;
  byId("cancel").hidden = !working;
  byId("said").className = working ? "visually-hidden" : "";
}

function cancel() {
  if (job && !job.ended) fetch(`api/jobs/${job.id}`, { method: "DELETE", keepalive: true }).catch(() => {});
}

async function planOnly() {
  showError("");
  try {
    showPlan(await send("api/plan", "POST"));
    byId("plan").open = true;
    say("The plan is shown.");
  } catch (error) {
    showError(error.message);
  }
}

function newSeed() {
  byId("seed").value = crypto.getRandomValues(new Uint32Array(1))[0];
}

byId("form").addEventListener("submit", start);
byId("cancel").addEventListener("click", cancel);
byId("show-plan").addEventListener("click", planOnly);
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
window.addEventListener("pagehide", cancel);

ask("api/choices")
  .then((found) => {
    models = found;
    if (!models.length) throw new Error("no model is on this machine; `ditzoo pull NAME` fetches one");
    fillModels();
  })
  .catch((error) => showError(error.message));
