// Which questions the list has, and in which order. A question of several runs is one entry, paired by its id.
const FILTERS = {
  all: ["all", () => true],
  won: ["won", (entry) => entry.flags.has("won")],
  lost: ["lost", (entry) => entry.flags.has("lost")],
  unchanged: ["unchanged", (entry) => entry.flags.has("unchanged")],
  differ: ["runs differ", (entry) => entry.rows.length > 1 && new Set(entry.rows.map(outcome)).size > 1],
  tie: ["tie", (entry) => entry.flags.has("tie")],
  gated: ["gated", (entry) => entry.flags.has("gated")],
  diverged: ["diverged", (entry) => entry.flags.has("diverged")],
  failed: ["failed", (entry) => entry.flags.has("failed")],
  running: ["under way", (entry) => entry.flags.has("running")],
};

const EXPLAINED = {
  won: "the main metric is higher after adapting",
  lost: "the main metric is lower after adapting",
  unchanged: "the main metric is the same after adapting",
  differ: "one run's final answer is right or its main metric changed, and another's not",
  tie: "a vote was a tie, or adapting stopped at one",
  gated: "a gate prevented an update",
  diverged: "a loss or gradient was not finite",
  failed: "an error ended the question",
  running: "not finished yet",
};

const SORTS = {
  order: ["order of the data set", null],
  gain: ["gain, highest first", (row) => (row.base === null || row.adapted === null ? null : row.base - row.adapted)],
  drop: ["gain, lowest first", (row) => (row.base === null || row.adapted === null ? null : row.adapted - row.base)],
  base: ["base, lowest first", (row) => row.base],
  adapted: ["adapted, lowest first", (row) => row.adapted],
  agreement: ["first vote, least agreed first", (row) => row.ratios[0] ?? null],
  last: ["last vote, least agreed first", (row) => row.ratios.at(-1) ?? null],
  steps: ["steps, most first", (row) => -row.steps],
  id: ["id", (row) => row.id],
};

const outcome = (row) => (row ? `${row.right} ${row.change}` : "missing");

// The entries of some runs: each question with its row in every run, or null.
function paired(views) {
  const entries = new Map();
  views.forEach((view, number) => {
    for (const row of view.questions) {
      if (!entries.has(row.key)) entries.set(row.key, { key: row.key, id: row.id, rows: views.map(() => null) });
      entries.get(row.key).rows[number] = row;
    }
  });
  for (const entry of entries.values()) {
    const known = entry.rows.filter(Boolean);
    entry.flags = new Set(known.flatMap((row) => row.flags));
    entry.text = known.find((row) => row.text)?.text ?? null;
    entry.label = known.find((row) => row.label)?.label ?? null;
    entry.found = [entry.id, entry.text, entry.label, ...known.flatMap((row) => Object.values(row.said).map((said) => said.answer))]
      .filter(Boolean).join("\n").toLowerCase();
  }
  return [...entries.values()];
}

function chosen(entries, { filter, sort, find }) {
  const words = find.toLowerCase().split(/\s+/).filter(Boolean);
  const kept = entries.filter((entry) => FILTERS[filter][1](entry) && words.every((word) => entry.found.includes(word)));
  const value = SORTS[sort][1];
  if (value === null) return kept;
  // What has no value is last; equal values stay in the order of the data set.
  const keyed = kept.map((entry) => [entry.rows[0] ? value(entry.rows[0]) : null, entry]);
  keyed.sort(([a], [b]) => (a === null ? (b === null ? 0 : 1) : b === null ? -1 : a < b ? -1 : a > b ? 1 : 0));
  return keyed.map(([, entry]) => entry);
}
