// A drawing: it is sent, its states arrive as a stream, and its pictures and numbers are shown.

import { SILENT, byId, duration, fillTable, make, say, short, showError } from "./common.js";
import { model, send } from "./form.js";

const TINY = 16; // pictures up to so many pixels are shown smaller beside each other
const SMALL = 128; // pictures up to so many pixels are enlarged without smoothing
const PATIENCE = 3; // attempts to get the states of a drawing, before it counts as lost

let job = null; // the drawing that is shown: its id, its stream, and what was drawn

async function start(event) {
  event.preventDefault();
  if (byId("draw").disabled || !model()) return;
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
  const reused = plan.rows.filter((row) => row.evaluation === "reuse").length;
  const blocks = reused ? `; ${reused} rows run the first ${plan.outer_blocks} and the last ${plan.outer_blocks} blocks only` : "";
  byId("plan-text").textContent =
    `${plan.solver}, ${plan.rows.length} rows, ${order.evaluations} evaluations of the network for each image; guidance on ${plan.guided_channels} of ` +
    `${plan.channels} channels${blocks}; x[0] = ${short(plan.initial)} z`;
  fillTable("rows", plan.rows.map((row, i) => [
    String(i), short(row.time), `${short(row.guidance)}${row.difference ? ", reused" : ""}`, row.evaluation || "all", row.states.map(short).join("  "),
    row.predictions.map(short).join("  "),
    row.log_variance ? `exp ½[${row.log_variance.map(short).join(", ")}]` : short(row.noise),
  ]));
  byId("plan").hidden = false;
  byId("command").textContent = order.command;
  byId("same").hidden = false;
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

byId("form").addEventListener("submit", start);
byId("cancel").addEventListener("click", cancel);
byId("show-plan").addEventListener("click", planOnly);
window.addEventListener("pagehide", cancel);
