// The samples of a question: columns of one run's evaluation or step each, side by side.
const OPEN_TOKENS = 30000; // of a group; a larger group's samples are closed at first
const AT_ONCE = 100;

const SAMPLE_SORTS = {
  order: ["as sampled", () => 0],
  likely: ["likeliest first", (sample) => -(sample.logprob ?? -Infinity) / Math.max(1, sample.tokens)],
  reward: ["highest reward first", (sample) => -(sample.reward ?? -Infinity)],
  length: ["longest first", (sample) => -sample.tokens],
};

// The tokens of a sample, each coloured by how improbable it was: level 0 (p > .9) to 9 (p < .1).
function tokens(sample) {
  if (!sample.pieces) return h("pre", {}, sample.text);
  return h("pre", { class: "tokens", onpointerover: explain }, sample.pieces.map((piece, at) => {
    const p = Math.exp(-sample.nll[at] / 100);
    const token = h("span", { class: `t${Math.min(9, Math.floor(10 * (1 - p)))}` }, piece);
    token.probability = p;
    return token;
  }));
}

function explain(event) {
  const { probability } = event.target;
  if (probability !== undefined) event.target.title = `probability ${probability < 0.001 ? probability.toExponential(1) : decimal(probability)}, log-prob ${Math.log(probability).toFixed(2)}`;
}

function card(sample, number, detail, open) {
  const answer = sample.answer === null ? null : detail.answers[sample.answer];
  const facts = [
    sample.reward !== undefined ? `reward ${short(sample.reward)}` : null,
    sample.logprob === null ? null : `log-prob ${sample.logprob.toFixed(1)}, ${(sample.logprob / Math.max(1, sample.tokens)).toFixed(2)} a token`,
    `${sample.tokens} tokens`, sample.finish === "stop" ? null : `ended by ${sample.finish}`, sample.test === undefined ? null : `test input ${sample.test + 1}`,
    sample.view === undefined ? null : `view ${sample.view || "identity"}`,
  ].filter(Boolean).join(", ");
  const noAnswer = sample.invalid ? h("i", { class: "soft" }, `no answer (${sample.invalid})`) : sample.view !== undefined ? null : answerText(null);
  const head = h("summary", {}, h("i", { class: `swatch ${detail.colourOf(sample.answer)}` }), sample.greedy ? "greedy" : `#${number + 1}`, " ",
    answer ? [answerText(answer.text, sample.said), " ", verdict(answer.verdict)] : noAnswer, h("small", { class: "soft" }, facts));
  const made = h("details", { class: "sample", open }, head);
  const fill = () => made.open && made.children.length === 1 && made.append(tokens(sample));
  made.addEventListener("toggle", fill);
  fill();
  return made;
}

// A column. ``choice``: {run, group}; ``options``: all there are.
function column(choice, options, details, change) {
  const detail = details[choice.run];
  const group = detail?.groups.find((each) => each.name === choice.group);
  const select = h("select", { "aria-label": "samples of", onchange: (event) => change(options[event.target.value]) },
    options.map((option, number) => h("option", { value: number, selected: option.run === choice.run && option.group === choice.group },
      page.shown.length > 1 ? `${page.letters[option.run]}: ${option.group}` : option.group)));
  if (!group) return h("div", { class: "column" }, select, h("p", { class: "soft" }, "There are no samples."));
  const place = page.answer?.run === choice.run ? page.answer.place : undefined;
  const numbered = group.samples.map((sample, number) => [sample, number]);
  const kept = numbered.filter(([sample]) => place === undefined || sample.answer === place);
  const key = SAMPLE_SORTS[page.sampleSort][1];
  kept.sort(([a], [b]) => key(a) - key(b) || 0);
  const open = page.open ?? group.samples.reduce((sum, sample) => sum + sample.tokens, 0) <= OPEN_TOKENS;
  const body = h("div", {});
  const more = (from) => {
    body.append(...kept.slice(from, from + AT_ONCE).map(([sample, number]) => card(sample, number, detail, open)));
    if (kept.length > from + AT_ONCE) body.append(h("button", { onclick: (event) => { event.target.remove(); more(from + AT_ONCE); } }, `${kept.length - from - AT_ONCE} more`));
  };
  more(0);
  const count = kept.length === group.samples.length ? `${kept.length} samples` : `${kept.length} of ${group.samples.length} samples`;
  return h("div", { class: "column" }, h("div", { class: "tools" }, select, h("small", { class: "soft" }, count)), body);
}
