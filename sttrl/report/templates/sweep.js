// A sweep: the gain of every row, its numbers, and which of its runs are shown side by side.
const MOST_SHOWN = 4;

function sweepPage(sweep) {
  const runs = new Map(page.index.runs.map((run) => [run.name, run.key]));
  const box = (name) => {
    const key = runs.get(name);
    return key && h("label", { class: "choice" }, h("input", { type: "checkbox", checked: page.shown.includes(key), onchange: (event) => choose(key, event.target.checked) }), name);
  };
  if (!sweep.rows.length) {
    return h("section", {}, h("h2", {}, sweep.name), h("p", { class: "soft" }, "The sweep has not ended: its table and its plot are not written yet. Its runs so far:"), [...runs.keys()].map(box));
  }
  const cost = (value) => (value === null ? "-" : Math.round(value).toLocaleString("en"));
  const rows = sweep.rows.map((row) => [
    h("td", { class: "text", title: row.label }, cut(row.label)), ...[row.base_mean, row.vote_majority, row.vote_confidence, row.adapted_mean].map((value) => decimal(value)),
    row.gain_mean === null ? "-" : `${row.gain_mean.toFixed(3)} [${row.gain_low.toFixed(2)}, ${row.gain_high.toFixed(2)}]`, decimal(row.p_value), cost(row.tokens_per_question), cost(row.seconds_per_question),
    h("td", { class: "text" }, row.by_seed.map((seed) => box(seed.run))),
  ]);
  return h("section", {}, h("h2", {}, sweep.name), gains(sweep.rows),
    table(["", "base", "vote", "conf.", "adapted", "gain", "p", "tokens", "seconds", `shown side by side, at most ${MOST_SHOWN}`], rows),
    h("p", { class: "soft" }, `base, adapted, gain: ${sweep.rows[0].metric}; tokens and seconds: a question. sweep.md beside the runs explains all columns.`));
}

function choose(key, wanted) {
  const others = page.shown.filter((each) => each !== key);
  go({ runs: wanted ? [...others, key].slice(-MOST_SHOWN) : others.length ? others : page.shown });
}
