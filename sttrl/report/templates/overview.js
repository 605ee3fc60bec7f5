// The numbers of each run: before and after, over time, facts, settings.
const letterOf = (number) => (page.shown.length > 1 ? [h("b", { class: "letter" }, page.letters[number] ?? String(number + 1)), " "] : null);

function results(views) {
  const compared = page.index.comparison;
  return [
    compared && compared.letters.length === views.length ? comparison(compared) : null,
    h("div", { class: "runs" }, views.map((view, number) => h("section", {}, runTitle(view, number), beforeAfter(view), overTime(view), facts(view.facts)))),
  ];
}

const runTitle = (view, number) => [
  page.shown.length > 1 ? h("h2", {}, letterOf(number), view.name) : null,
  h("p", { class: "soft" }, `${view.model} on ${view.dataset}, ${view.method}`),
];

function comparison(compared) {
  return h("section", {}, h("h2", {}, "Against the first run"),
    compared.warnings.map((text) => h("p", { class: "lost" }, text)),
    compared.notes.map((text) => h("p", {}, text)),
    table(compared.header, compared.rows),
    h("p", { class: "soft" }, compared.legend));
}

function beforeAfter(view) {
  const remarks = view.remarks.map((text) => h("p", { class: "remark" }, text));
  if (!view.rows.length) return [h("p", {}, "No question could be scored: there are no labels for them, or none of them was finished."), remarks];
  const rows = view.rows.map((row) => [h("td", {}, row.label), ...row.cells, h("td", {}, row.bar ? interval(row.bar) : null)]);
  return [table(["", ...view.metrics, `${view.headline}, 0 to 1`], rows), remarks];
}

const percent = (value) => `${(100 * value).toFixed(1)}%`;
const interval = ({ value, ends: [low, high] }) => h("div", { class: "bar", style: { "--value": percent(value), "--low": percent(low), "--high": percent(high) } });

function overTime(view) {
  return view.time && [h("h3", {}, "Over time"), lines(view.time.curves), table(["steps", ...view.time.columns], view.time.rows)];
}

function settings(views) {
  const names = [...new Set(views.flatMap((view) => Object.keys(view.config)))];
  const differing = names.filter((name) => new Set(views.map((view) => view.config[name])).size > 1);
  const rows = (chosen, shown) => chosen.map((name) => [h("td", {}, name), ...shown.map((view) => h("td", { class: "text" }, view.config[name] ?? "-"))]);
  return [
    differing.length ? h("section", {}, h("h2", {}, "Settings that differ"), table(["setting", ...views.map((view, number) => h("span", {}, letterOf(number), view.name))], rows(differing, views))) : null,
    h("section", {}, h("h2", {}, views.length > 1 ? "Settings of all" : "Settings"), table(["setting", "value"], rows(names.filter((name) => !differing.includes(name)), views.slice(0, 1)))),
  ];
}
