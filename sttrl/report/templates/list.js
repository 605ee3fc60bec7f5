// The list of questions, with filters, search and sort.
const MARKS = { won: ["▲", "won"], lost: ["▼", "lost"], unchanged: ["=", "soft"], failed: ["!", "lost"], diverged: ["!", "lost"], running: ["…", "soft"] };

function mark(row) {
  const flag = row ? ["diverged", "failed", "running", "won", "lost", "unchanged"].find((each) => row.flags.includes(each)) : null;
  const [sign, kind] = MARKS[flag] ?? ["·", "soft"];
  return h("span", { class: `mark ${kind}`, title: row ? flag ?? "no label" : "not in this run" }, sign);
}

function toolbar(entries, kept) {
  const { filter, sort, find } = page.chosen;
  const chips = Object.entries(FILTERS).map(([name, [words, holds]]) => [name, words, entries.filter(holds).length])
    .filter(([name, , count]) => count || name === filter || name === "all")
    .map(([name, words, count]) => h("button", { class: "chip", title: EXPLAINED[name], "aria-pressed": String(name === filter), "data-filter": name, onclick: () => go({ filter: name }) }, words, " ", h("small", {}, String(count))));
  return h("div", { class: "toolbar" },
    h("div", { class: "chips" }, chips),
    h("div", { class: "tools" },
      h("input", { type: "search", id: "find", placeholder: "search text, id, label, answers", "aria-label": "search", value: find, oninput: (event) => search(event.target.value) }),
      h("select", { "aria-label": "sort", onchange: (event) => go({ sort: event.target.value }) },
        Object.entries(SORTS).map(([name, [words]]) => h("option", { value: name, selected: name === sort }, words))),
      h("small", { class: "soft", id: "count" }, kept.length === entries.length ? `${kept.length}` : `${kept.length} of ${entries.length}`)));
}

function item(entry) {
  const answers = entry.rows.map((row, number) => {
    const said = row?.said ?? {};
    const [before, after] = [said.base, said.adapted];
    return h("span", { class: "said" }, letterOf(number), mark(row),
      before ? [saidText(before), verdict(before.verdict)] : null, after ? [h("span", { class: "soft" }, "→"), saidText(after), verdict(after.verdict)] : null,
      row ? spark(row.ratios) : null);
  });
  return h("li", {}, h("a", { href: addressOf({ q: entry.key }), "data-key": entry.key, "aria-current": entry.key === page.chosen.q ? "true" : null },
    h("span", { class: "line" }, h("b", {}, entry.id), " ", h("span", { class: "soft" }, entry.text ?? "")), answers));
}
