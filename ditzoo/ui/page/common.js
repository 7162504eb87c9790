// What both parts of the page use. All text enters the page as textContent.

export const SILENT = "the server does not answer; is `ditzoo ui` still running?";

let said = "";

export const byId = (id) => document.getElementById(id);

export function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

export async function ask(path, options = {}) {
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

export function showError(text) {
  const box = byId("error");
  box.textContent = text;
  box.hidden = !text;
  if (text) box.focus();
}

export function say(text) {
  if (text !== said) byId("said").textContent = said = text;
}

export function fillTable(id, rows) {
  const cell = (text, i) => (i ? make("td", { textContent: text }) : Object.assign(make("th", { textContent: text }), { scope: "row" }));
  byId(id).tBodies[0].replaceChildren(...rows.map((cells) => make("tr", {}, ...cells.map(cell))));
}

export function short(number) {
  return String(Number(number.toPrecision(4)));
}

export function duration(seconds) {
  return seconds < 1 ? `${Number((1000 * seconds).toPrecision(3))} ms` : `${seconds.toFixed(seconds < 10 ? 2 : 1)} s`;
}

