// An opened question: its text and label, what each run answered, the course of its votes, its grids, its samples.
const SIDES = { base: "base", vote_same_tokens: "vote (same tokens)", adapted: "adapted" };

function questionPage(entry, details, position) {
  const known = details.find(Boolean);
  const text = known?.text ?? entry.text;
  return [
    h("div", { class: "tools" },
      h("button", { class: "back", onclick: () => go({ q: null }) }, "← list"),
      h("button", { onclick: () => step(-1), title: "p" }, "previous"), h("button", { onclick: () => step(1), title: "n" }, "next"),
      h("small", { class: "soft" }, position)),
    h("h2", { class: "id" }, entry.id),
    text ? h("pre", { class: "asked" }, text) : null,
    known?.label ?? entry.label ? h("p", {}, h("span", { class: "soft" }, "label "), h("span", { class: "answer" }, known?.label ?? entry.label)) : null,
    known?.parts.demos ? demonstrations(known.parts) : null,
    answersTable(entry),
    details.map((detail, number) => !detail && entry.rows[number] ? h("p", { class: "remark" }, letterOf(number), "The votes and samples of this question are not in this file.") : detail && [
      detail.remarks.map((remark) => h("p", { class: "remark" }, letterOf(number), remark)),
      detail.parts.tests || detail.course.length ? h("section", {}, page.shown.length > 1 ? h("h3", {}, letterOf(number), page.views[number].name) : null,
        detail.parts.tests ? attempts(detail.parts) : null,
        detail.course.some((vote) => vote.counts) ? [h("h3", {}, "The vote over the steps"), course(detail), legend(detail, number)]
          : detail.course.length ? [h("h3", {}, "The steps"), losses(detail.course)] : null) : null,
    ]),
    samples(entry, details),
  ];
}

function answersTable(entry) {
  const rows = entry.rows.map((row, number) => {
    const first = h("td", { class: "text" }, letterOf(number), page.views[number].name);
    if (!row) return [first, h("td", { class: "soft" }, "not in this run")];
    const said = Object.keys(SIDES).map((side) => h("td", { class: "text" }, row.said[side] ? [saidText(row.said[side]), " ", verdict(row.said[side].verdict)] : "-"));
    const status = [row.status, row.stop].filter(Boolean).join(", ");
    return [first, h("td", { class: "text" }, status, row.error ? h("small", { class: "lost" }, ` ${row.error}`) : null), change(row), ...said];
  });
  return table(["", "status", page.views[0].headline || "score", ...Object.values(SIDES)], rows);
}

function change(row) {
  if (row.base === null || row.base === undefined) return "-";
  if (row.adapted === null) return row.base.toFixed(2);
  return h("span", { class: { 1: "won", "-1": "lost" }[row.change] ?? "soft" }, `${row.base.toFixed(2)} → ${row.adapted.toFixed(2)}`);
}

// The answers by colour; a click shows only the samples with that answer.
function legend(detail, run) {
  const counts = new Map();
  detail.course.forEach((vote) => (vote.counts ?? []).forEach(([place, count]) => counts.set(place, (counts.get(place) ?? 0) + count)));
  const places = [...counts.keys()].sort((a, b) => counts.get(b) - counts.get(a)).slice(0, 24);
  const pressed = (place) => page.answer?.run === run && page.answer.place === place;
  const button = (place, ...words) => h("button", { class: "chip", "aria-pressed": String(pressed(place)), onclick: () => {
    page.answer = pressed(place) ? null : { run, place };
    renderQuestion();
  } }, h("i", { class: `swatch ${detail.colourOf(place)}` }), ...words);
  return h("div", { class: "legend" }, places.map((place) => button(place, detail.answers[place].text, " ", verdict(detail.answers[place].verdict))),
    detail.course.some((vote) => Object.keys(vote.invalid ?? {}).length) ? button(null, "no answer") : null);
}

function samples(entry, details) {
  const options = details.flatMap((detail, run) => (detail?.groups ?? []).map((group) => ({ run, group: group.name })));
  if (!options.length) return null;
  const has = (choice) => options.some((option) => option.run === choice.run && option.group === choice.group);
  // One run: before and after, side by side. Several: the adapted policy of each.
  const usual = details.length === 1 ? [{ run: 0, group: "base" }, { run: 0, group: "adapted" }] : details.map((_, run) => ({ run, group: "adapted" }));
  const choices = usual.map((choice, at) => page.columns[at] ?? choice).map((choice) =>
    has(choice) ? choice : options.find((option) => option.run === choice.run && option.group === "base") ?? options.find((option) => option.run === choice.run)).filter(Boolean);
  const shown = details.length === 1 && choices.length === 2 && choices[0].group === choices[1].group && !page.columns.length ? choices.slice(0, 1) : choices;
  const colours = details.some((detail) => detail?.groups.some((group) => group.samples.some((sample) => sample.pieces)));
  return h("section", {}, h("h3", {}, "Samples"),
    h("div", { class: "tools" },
      h("label", {}, "sort ", h("select", { onchange: (event) => { page.sampleSort = event.target.value; renderQuestion(); } },
        Object.entries(SAMPLE_SORTS).map(([name, [words]]) => h("option", { value: name, selected: name === page.sampleSort }, words)))),
      h("button", { onclick: () => { page.open = true; renderQuestion(); } }, "open all"), h("button", { onclick: () => { page.open = false; renderQuestion(); } }, "close all"),
      colours ? h("small", { class: "soft" }, "token probability ", h("span", { class: "tokens" }, [["t9", "low"], ["t6", "·"], ["t3", "·"], ["t0", "high"]].map(([level, word]) => h("span", { class: level }, ` ${word} `)))) : null),
    h("div", { class: "columns" }, shown.map((choice, at) => column(choice, options, details, (wanted) => {
      page.columns = shown.map((each, number) => (number === at ? wanted : each));
      renderQuestion();
    }))));
}
