// Makes elements. What a run holds becomes text nodes and attributes, never HTML.
const SVG = "http://www.w3.org/2000/svg";

function filled(element, properties, children) {
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "style") for (const [key, each] of Object.entries(value)) element.style.setProperty(key, each);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false && child !== ""));
  return element;
}

const h = (name, properties = {}, ...children) => filled(document.createElement(name), properties, children);
const svg = (name, properties = {}, ...children) => filled(document.createElementNS(SVG, name), properties, children);

const table = (header, rows) =>
  h("div", { class: "wide" }, h("table", {},
    h("thead", {}, h("tr", {}, header.map((cell) => h("th", {}, cell)))),
    h("tbody", {}, rows.map((cells) => h("tr", {}, cells.map((cell) => (cell instanceof Element && cell.tagName === "TD" ? cell : h("td", { class: "number" }, cell))))))));

const facts = (values) => h("dl", {}, Object.entries(values).map(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]));

// A number from 0 to 1 with three digits, as the tables have it: .250
const decimal = (value, digits = 3) => (value === null || value === undefined ? "-" : value.toFixed(digits).replace(/^(-?)0\./, "$1."));

const VERDICTS = { right: ["won", "✓"], wrong: ["lost", "✗"], "no verdict": ["soft", "?"] };
function verdict(name) {
  const [kind, mark] = VERDICTS[name] ?? [];
  return mark ? h("span", { class: kind, title: name, "aria-label": name }, mark) : null;
}

// What an evaluation answered: a text, or of an ARC task the first attempt as a small grid.
const saidText = (said) => (said.grid ? thumbnail(said.grid) : answerText(said.answer));

const answerText = (answer, said = null) =>
  answer === null || answer === undefined ? h("i", { class: "soft" }, "no answer") : h("span", { class: "answer" }, said ?? answer);
