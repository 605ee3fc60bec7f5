// ARC's grids. A grid is a text: rows of digits with a slash between them.
const COLOUR_CODES = ["#000000", "#0074D9", "#FF4136", "#2ECC40", "#FFDC00", "#AAAAAA", "#F012BE", "#FF851B", "#7FDBFF", "#870C25"];

function grid(text, words, right = null) {
  const rows = text.split("/");
  const [height, width] = [rows.length, rows[0].length];
  const cell = Math.max(5, Math.min(16, Math.floor(120 / Math.max(height, width))));
  const paths = new Map();
  rows.forEach((row, y) => [...row].forEach((colour, x) => paths.set(colour, `${paths.get(colour) ?? ""}M${x} ${y}h1v1h-1z`)));
  const lines = [...Array(height + 1).keys()].map((y) => `M0 ${y}h${width}`).concat([...Array(width + 1).keys()].map((x) => `M${x} 0v${height}`)).join("");
  const kind = right === null ? "soft" : right ? "won" : "lost";
  return h("span", { class: "grid" },
    svg("svg", { width: width * cell, height: height * cell, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `${words}: grid of ${height} x ${width} cells`, "shape-rendering": "crispEdges" },
      [...paths].map(([colour, path]) => svg("path", { fill: COLOUR_CODES[Number(colour)], d: path })),
      svg("path", { fill: "none", stroke: "#555555", "stroke-width": 0.06, d: lines })),
    h("small", { class: kind }, words + (right === null ? "" : right ? ", right ✓" : ", wrong ✗")));
}

// A grid without lines and words, for a list.
function thumbnail(text) {
  const rows = text.split("/");
  const paths = new Map();
  rows.forEach((row, y) => [...row].forEach((colour, x) => paths.set(colour, `${paths.get(colour) ?? ""}M${x} ${y}h1v1h-1z`)));
  return svg("svg", { class: "thumbnail", viewBox: `0 0 ${rows[0].length} ${rows.length}`, role: "img", "aria-label": `grid ${text}`, "shape-rendering": "crispEdges" },
    [...paths].map(([colour, path]) => svg("path", { fill: COLOUR_CODES[Number(colour)], d: path })));
}

const demonstrations = (parts) =>
  parts.demos?.length
    ? h("div", { class: "grids" }, parts.demos.map(([input, output]) => h("span", { class: "pair" }, grid(input, "input"), h("span", { class: "soft" }, "→"), grid(output, "output"))))
    : null;

// The attempts of one run at each test input, and its best candidates.
function attempts(parts) {
  return (parts.tests ?? []).map((test, number) =>
    h("div", { class: "test" },
      h("div", { class: "grids" },
        grid(test.query, `test input ${number + 1}`),
        test.sides.map((side) => h("span", { class: "side" }, h("b", {}, side.name),
          side.attempts.length ? side.attempts.map((attempt, at) => grid(attempt.grid, `attempt ${at + 1}`, attempt.right)) : h("i", {}, "no attempt"))),
        test.solution ? h("span", { class: "side" }, grid(test.solution, "solution")) : null),
      test.candidates.length
        ? h("details", {}, h("summary", {}, `${test.found} candidate${test.found === 1 ? "" : "s"}${test.found > test.candidates.length ? `, the best ${test.candidates.length}` : ""}`),
            h("div", { class: "grids" }, test.candidates.map((each) => grid(each.grid, `${each.score === null ? "not scored" : `score ${each.score.toFixed(2)}`}, found under ${each.views}`, each.right))))
        : null));
}
