// Plots, drawn as SVG or as boxes, in the page's own colours.
const spark = (ratios) => {
  if (!ratios.length) return null;
  const width = 4 * ratios.length;
  const bars = ratios.map((ratio, at) => svg("rect", { x: 4 * at, y: 14 - 14 * ratio, width: 3, height: Math.max(0.7, 14 * ratio) }));
  const words = `share of the elected answer by step: ${ratios.map((ratio) => ratio.toFixed(2)).join(", ")}`;
  return svg("svg", { class: "spark", width: Math.min(width, 96), height: 14, viewBox: `0 0 ${width} 14`, preserveAspectRatio: "none", role: "img" },
    svg("title", {}, words), bars);
};

// Round numbers between two ends, at most about six.
function ticks(low, high) {
  const rough = (high - low) / 5 || 1;
  const power = 10 ** Math.floor(Math.log10(rough));
  const size = [1, 2, 5, 10].map((factor) => factor * power).find((each) => each >= rough);
  const found = [];
  for (let at = Math.ceil(low / size - 1e-9) * size; at <= high + 1e-9 * size; at += size) found.push(Number(at.toPrecision(10)));
  return found;
}

const short = (value) => String(Number(value.toPrecision(4)));

// Curves of numbers from 0 to 1 over steps.
function lines(curves) {
  const known = curves.filter((curve) => curve.points.length);
  if (!known.length) return null;
  const [width, height, left, bottom] = [640, 220, 36, 28];
  const last = Math.max(1, ...known.flatMap((curve) => curve.points.map(([step]) => step)));
  const x = (step) => left + ((width - left - 8) * step) / last;
  const y = (value) => 8 + (height - 8 - bottom) * (1 - value);
  const grid = [0, 0.25, 0.5, 0.75, 1].map((value) => [
    svg("line", { class: "grid-line", x1: left, x2: width - 8, y1: y(value), y2: y(value) }),
    svg("text", { x: left - 6, y: y(value) + 4, "text-anchor": "end" }, decimal(value, 2)),
  ]);
  const under = ticks(0, last).filter(Number.isInteger).map((step) => svg("text", { x: x(step), y: height - 8, "text-anchor": "middle" }, String(step)));
  const drawn = known.map((curve, number) => [
    svg("polyline", { class: `stroke c${number}`, points: curve.points.map(([step, value]) => `${x(step)},${y(value)}`).join(" ") }),
    curve.points.map(([step, value]) => svg("circle", { class: `fill c${number}`, cx: x(step), cy: y(value), r: 3 },
      svg("title", {}, `${curve.label} after ${step} steps: ${decimal(value)}`))),
  ]);
  return h("figure", {},
    svg("svg", { class: "plot", viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": "the numbers of the table by step" }, grid, under, drawn),
    h("figcaption", { class: "legend" }, known.map((curve, number) => h("span", {}, h("i", { class: `swatch c${number}` }), curve.label))));
}

// The gain of each row of a sweep with its interval: a line for each row.
function gains(rows) {
  const known = rows.filter((row) => row.gain_mean !== null);
  if (!known.length) return h("p", {}, "No row has a gain: nothing was adapted, or there are no labels.");
  const numbers = numeric(known);
  return h("figure", {}, numbers ? gainCurve(known, numbers) : gainRows(known),
    h("figcaption", { class: "soft" }, `gain in ${known[0].metric}, with 95 % intervals by question${known.some((row) => row.by_seed.length > 1) ? "; faint: single seeds" : ""}`));
}

// The values of the one setting in which rows differ, if they are numbers.
function numeric(rows) {
  const values = rows.map((row) => Object.values(row.settings));
  return rows.length > 1 && values.every((each) => each.length === 1 && typeof each[0] === "number") ? values.map(([value]) => value) : null;
}

const LABEL = 70;
const cut = (text) => (text.length > LABEL ? `${text.slice(0, LABEL)}…` : text);
const singles = (row) => (row.by_seed.length > 1 ? row.by_seed.filter((seed) => seed.gain_mean !== null) : []);
const ends = (rows) => {
  const all = rows.flatMap((row) => [row.gain_low, row.gain_high, ...singles(row).map((seed) => seed.gain_mean)]);
  const [low, high] = [Math.min(0, ...all), Math.max(0, ...all)];
  const room = 0.05 * (high - low);
  return [low - room, high + room];
};

function gainRows(rows) {
  const [low, high] = ends(rows);
  const reach = high - low || 1;
  const at = (value) => `${(100 * (value - low)) / reach}%`;
  const lines = rows.map((row) => [
    h("span", { class: "text", title: row.label }, cut(row.label)),
    h("div", { class: "gain-row", title: `${row.label}: ${row.gain_mean.toFixed(3)} [${row.gain_low.toFixed(2)}, ${row.gain_high.toFixed(2)}]` },
      h("i", { class: "zero", style: { left: at(0) } }),
      h("i", { class: "reach", style: { left: at(row.gain_low), width: `${(100 * (row.gain_high - row.gain_low)) / reach}%` } }),
      singles(row).map((seed) => h("i", { class: "dot faint", style: { left: at(seed.gain_mean) } })),
      h("i", { class: "dot", style: { left: at(row.gain_mean) } })),
  ]);
  const scale = ticks(low, high).map((value) => h("small", { style: { left: at(value) } }, short(value)));
  return h("div", { class: "gains" }, lines, h("span"), h("div", { class: "scale" }, scale));
}

function gainCurve(rows, numbers) {
  const [width, height, left, bottom] = [640, 260, 48, 40];
  const order = rows.map((row, number) => [numbers[number], row]).sort(([a], [b]) => a - b);
  const [first, last] = [order[0][0], order.at(-1)[0]];
  const logs = first > 0 && last / first >= 10;
  const place = (value) => (logs ? Math.log(value) : value);
  const x = (value) => left + 16 + ((width - left - 40) * (place(value) - place(first))) / (place(last) - place(first) || 1);
  const [low, high] = ends(rows);
  const y = (value) => 10 + ((height - 10 - bottom) * (high - value)) / (high - low || 1);
  const marks = order.map(([value, row]) => [
    svg("line", { class: "stroke c0", x1: x(value), x2: x(value), y1: y(row.gain_low), y2: y(row.gain_high) }),
    singles(row).map((seed) => svg("circle", { class: "fill c0 faint", cx: x(value), cy: y(seed.gain_mean), r: 3 })),
    svg("circle", { class: "fill c0", cx: x(value), cy: y(row.gain_mean), r: 4.5 },
      svg("title", {}, `${row.label}: ${row.gain_mean.toFixed(3)} [${row.gain_low.toFixed(2)}, ${row.gain_high.toFixed(2)}]`)),
    svg("text", { x: x(value), y: height - 22, "text-anchor": "middle" }, short(value)),
  ]);
  const scale = ticks(low, high).map((value) => [
    svg("line", { class: value === 0 ? "zero-line" : "grid-line", x1: left, x2: width - 8, y1: y(value), y2: y(value) }),
    svg("text", { x: left - 6, y: y(value) + 4, "text-anchor": "end" }, short(value)),
  ]);
  return svg("svg", { class: "plot", viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": "gain by the value of the setting" }, scale,
    svg("polyline", { class: "stroke c0", points: order.map(([value, row]) => `${x(value)},${y(row.gain_mean)}`).join(" ") }), marks,
    svg("text", { x: (left + width) / 2, y: height - 4, "text-anchor": "middle" }, Object.keys(rows[0].settings)[0]));
}

const COLOURS = 7; // the most frequent answers have a colour each; all others share one

// Gives each answer the same colour in every vote, column and run of a question.
function colourAnswers(details) {
  const counts = new Map();
  for (const detail of details) {
    for (const vote of detail.course) for (const [place, count] of vote.counts ?? []) counts.set(detail.answers[place].text, (counts.get(detail.answers[place].text) ?? 0) + count);
  }
  const order = [...counts.keys()].sort((a, b) => counts.get(b) - counts.get(a));
  const colours = new Map(order.map((text, rank) => [text, rank < COLOURS ? `c${rank}` : "other"]));
  for (const detail of details) detail.colourOf = (place) => (place === null || place === undefined ? "none" : colours.get(detail.answers[place].text) ?? "other");
}

// The votes of a question in order: which answers the samples gave, who was elected, and what followed.
const course = (detail) =>
  h("div", { class: "course" }, detail.course.map((vote) => [
    h("span", { class: "when" }, vote.name),
    vote.counts ? bar(vote, detail) : h("span", { class: "soft" }, "no vote"),
    h("span", { class: "what" }, elected(vote, detail.answers)),
  ]));

// The loss of each step, for a method that holds no vote.
function losses(steps) {
  const points = steps.map((each, at) => [at + 1, each.update?.loss]).filter(([, loss]) => loss !== undefined);
  const skipped = steps.filter((each) => each.gate).map((each) => `${each.name}: ${each.gate}`);
  const gates = skipped.length ? h("p", { class: "flag" }, `gated: ${skipped.join(", ")}`) : null;
  if (!points.length) return [h("p", { class: "soft" }, `${steps.length} steps without an update`), gates];
  const [width, height, left, bottom] = [640, 150, 52, 24];
  const values = points.map(([, loss]) => loss);
  const [low, high] = [Math.min(0, ...values), Math.max(...values)];
  const x = (at) => left + ((width - left - 16) * (at - 1)) / Math.max(1, steps.length - 1);
  const y = (loss) => 8 + ((height - 8 - bottom) * (high - loss)) / (high - low || 1);
  return [h("figure", {}, svg("svg", { class: "plot", viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": "loss by step" },
    ticks(low, high).map((value) => [svg("line", { class: "grid-line", x1: left, x2: width - 8, y1: y(value), y2: y(value) }), svg("text", { x: left - 6, y: y(value) + 4, "text-anchor": "end" }, short(value))]),
    ticks(1, steps.length).filter((at) => Number.isInteger(at) && at > 0).map((at) => svg("text", { x: x(at), y: height - 6, "text-anchor": "middle" }, String(at))),
    svg("polyline", { class: "stroke c0", points: points.map(([at, loss]) => `${x(at)},${y(loss)}`).join(" ") }),
    points.map(([at, loss]) => svg("circle", { class: "fill c0", cx: x(at), cy: y(loss), r: 2.5 }, svg("title", {}, `step ${at}: loss ${short(loss)}`)))),
    h("figcaption", { class: "soft" }, "loss by step")), gates];
}

function bar(vote, detail) {
  const missing = vote.samples - vote.counts.reduce((sum, [, count]) => sum + count, 0);
  const reasons = Object.entries(vote.invalid).map(([reason, count]) => `${reason} ${count}`).join(", ");
  return h("div", { class: "stack" },
    vote.counts.map(([place, count]) => h("i", { class: `${detail.colourOf(place)}${place === vote.winner ? " winner" : ""}`, style: { "flex-grow": count }, title: `${detail.answers[place].text}: ${count} of ${vote.samples}` })),
    missing ? h("i", { class: "none", style: { "flex-grow": missing }, title: `no answer: ${missing} of ${vote.samples} (${reasons})` }) : null);
}

function elected(vote, answers) {
  const parts = [];
  if (vote.counts) {
    if (vote.winner !== null) parts.push(h("span", {}, answerText(answers[vote.winner].text), " ", verdict(answers[vote.winner].verdict)));
    else parts.push(h("i", {}, vote.tied.length ? `tie of ${vote.tied.length} answers` : "nobody elected"));
    if (vote.winner !== null) parts.push(h("small", { class: "soft" }, `${Math.round(vote.ratio * vote.samples)} of ${vote.samples}, margin ${decimal(vote.margin, 2)}`));
  }
  if (vote.reward !== undefined && vote.reward !== null) parts.push(h("small", { class: "soft" }, `mean reward ${decimal(vote.reward, 2)}`));
  if (vote.gate) parts.push(h("small", { class: "flag" }, `gated: ${vote.gate}`));
  else if (vote.update && !Object.keys(vote.update).length) parts.push(h("small", { class: "soft" }, "no update"));
  else if (vote.update) parts.push(h("small", { class: "soft", title: Object.entries(vote.update).map(([key, value]) => `${key} ${value}`).join("\n") }, `updated, loss ${short(vote.update.loss ?? 0)}${vote.update.kl_to_base === undefined ? "" : `, KL ${short(vote.update.kl_to_base)}`}`));
  return parts;
}
