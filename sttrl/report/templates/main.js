// The state of the page, its address, its keys, and what is drawn when.
const page = {
  index: null, version: "", runs: new Map(), versions: new Map(), details: new Map(),
  shown: [], views: [], entries: [], kept: [], letters: "ABCDEFGHIJKLMNOPQRSTUVWXYZ",
  chosen: { tab: null, q: null, filter: "all", sort: "order", find: "", runs: null },
  columns: [], sampleSort: "order", open: null, answer: null, error: null, updated: null, drawn: null,
};
const KEYS = [["n or j", "next question"], ["p or k", "previous question"], ["w", "next won"], ["l", "next lost"], ["Esc", "back to the list"], ["/", "search"], ["?", "these keys"]];
const root = document.getElementById("page");
const parts = Object.fromEntries(["head", "note", "body"].map((name) => [name, h("div", { id: name })]));
const panes = { list: h("div", { class: "list" }), question: h("article", { class: "question", tabindex: "-1" }) };

const addressOf = (changes) => {
  const chosen = { ...page.chosen, ...changes };
  if (chosen.q) chosen.tab = "questions";
  const usual = { filter: "all", sort: "order", find: "" };
  return `#${new URLSearchParams(Object.entries(chosen).filter(([name, value]) => value !== null && value !== usual[name] && value.length))}`;
};

function readAddress() {
  const found = Object.fromEntries(new URLSearchParams(location.hash.slice(1)));
  const known = (name, table, usual) => (found[name] in table ? found[name] : usual);
  page.chosen = {
    tab: found.tab ?? null, q: found.q ?? null, find: found.find ?? "", runs: found.runs?.split(",") ?? null,
    filter: known("filter", FILTERS, "all"), sort: known("sort", SORTS, "order"),
  };
}

// Go where these changes lead. The browser's own back button goes back.
function go(changes) {
  const address = addressOf(changes);
  if (address === (location.hash || "#")) return;
  history.pushState(null, "", address);
  arrive();
}

// A search is no place to go back to, so letters typed do not make new places.
function search(text) {
  history.replaceState(null, "", addressOf({ find: text }));
  readAddress();
  renderList();
}

// ``quiet``: nobody asked, so what has not changed is not drawn again.
async function arrive(quiet = false) {
  const before = page.chosen.q;
  readAddress();
  if (page.chosen.q !== before) Object.assign(page, { answer: null, open: null });
  try {
    await load();
    await render(quiet);
    page.error = null;
  } catch (error) {
    page.error = error.message;
  }
  renderNote();
}

// Fetch what the address asks for and is not there yet.
async function load() {
  const known = new Map(page.index.runs.map((run) => [run.key, run]));
  const wanted = (page.chosen.runs ?? page.index.shown).filter((key) => known.has(key));
  page.shown = wanted.length ? wanted : page.index.shown;
  const before = page.views;
  page.views = await Promise.all(page.shown.map(async (key) => {
    if (page.versions.get(key) !== known.get(key).version) {
      const view = await source.run(key);
      page.runs.set(key, view);
      page.versions.set(key, known.get(key).version);
      [...page.details.keys()].filter((each) => each.startsWith(`${key} `)).forEach((each) => page.details.delete(each));
    }
    return page.runs.get(key);
  }));
  if (page.views.length !== before.length || page.views.some((view, at) => view !== before[at])) page.entries = paired(page.views);
}

const tabs = () => [...(page.index.sweep ? [["sweep", "Sweep"]] : []), ["results", "Results"], ["questions", "Questions"], ["settings", "Settings"]];

async function render(quiet) {
  const tab = tabs().some(([name]) => name === page.chosen.tab) ? page.chosen.tab : tabs()[0][0];
  const under = page.views.flatMap((view) => view.questions).filter((row) => row.status === "running").length;
  parts.head.replaceChildren(
    h("h1", {}, page.index.sweep && tab === "sweep" ? page.index.sweep.name : page.views.map((view, number) => h("span", { class: "name" }, letterOf(number), view.name))),
    h("nav", {}, tabs().map(([name, words]) => h("a", { href: addressOf({ tab: name, q: null }), "aria-current": name === tab ? "page" : null }, words)),
      h("small", { class: "soft", id: "state" }, source.live ? `${under ? `${under} under way, ` : ""}updated ${page.updated ?? "now"}` : ""),
      h("button", { class: "help", title: "keys (?)", onclick: help }, "?")));
  document.body.classList.toggle("reading", tab === "questions");
  if (tab === "questions") {
    if (panes.list.parentElement?.parentElement !== parts.body) parts.body.replaceChildren(h("div", { class: "panes" }, panes.list, panes.question));
    renderList();
    await renderQuestion(quiet);
  } else {
    parts.body.replaceChildren(h("div", { class: tab }, tab === "sweep" ? sweepPage(page.index.sweep) : tab === "results" ? results(page.views) : settings(page.views)));
  }
}

function renderList() {
  page.kept = chosen(page.entries, page.chosen);
  const [focused, at] = [document.activeElement?.id === "find", panes.list.querySelector("ol")?.scrollTop ?? 0];
  const place = focused ? document.activeElement.selectionStart : 0;
  const list = h("ol", {}, page.kept.map(item));
  panes.list.replaceChildren(toolbar(page.entries, page.kept), page.kept.length ? list : h("p", { class: "soft" }, "No question is like that."));
  list.scrollTop = at;
  if (focused) document.getElementById("find").focus(), document.getElementById("find").setSelectionRange(place, place);
}

async function renderQuestion(quiet = false) {
  const { q } = page.chosen;
  const entry = page.entries.find((each) => each.key === q);
  panes.list.parentElement?.classList.toggle("open", Boolean(entry));
  if (!entry) {
    panes.question.replaceChildren(h("p", { class: "soft" }, "Choose a question, or press n."));
    page.drawn = null;
    return;
  }
  const details = await Promise.all(page.shown.map(async (run, number) => {
    if (!entry.rows[number]) return null;
    const key = `${run} ${q}`;
    if (!page.details.has(key)) page.details.set(key, await source.question(run, q));
    return page.details.get(key);
  }));
  colourAnswers(details.filter(Boolean));
  if (page.chosen.q !== q) return; // another was opened meanwhile
  const drawn = JSON.stringify([q, page.shown, entry, details]);
  if (quiet && drawn === page.drawn) return;
  page.drawn = drawn;
  const place = page.kept.findIndex((each) => each.key === q);
  const position = place < 0 ? "not in the list" : `${place + 1} of ${page.kept.length}`;
  const top = panes.question.dataset.q === q ? panes.question.scrollTop : 0;
  panes.question.dataset.q = q;
  panes.question.replaceChildren(...[questionPage(entry, details, position)].flat(Infinity).filter(Boolean));
  panes.question.scrollTop = top;
  panes.list.querySelectorAll("a[aria-current]").forEach((link) => link.removeAttribute("aria-current"));
  const link = panes.list.querySelector(`a[data-key="${CSS.escape(q)}"]`);
  link?.setAttribute("aria-current", "true");
  link?.scrollIntoView({ block: "nearest" });
  if (!top) panes.question.parentElement?.classList.contains("open") && narrow.matches && window.scrollTo(0, 0);
}

const narrow = matchMedia("(max-width: 60rem)");

function renderNote() {
  parts.note.replaceChildren(...(page.error ? [h("p", { class: "lost", role: "alert" }, page.error)] : []));
}

// The next question, or the next with a flag, in the order of the list.
function step(by, flag = null) {
  const place = page.kept.findIndex((each) => each.key === page.chosen.q);
  for (let at = place < 0 && by < 0 ? page.kept.length - 1 : place + by; at >= 0 && at < page.kept.length; at += by) {
    if (flag === null || page.kept[at].flags.has(flag)) return go({ q: page.kept[at].key });
  }
}

function help() {
  const box = h("dialog", { onclick: () => box.close(), onclose: () => box.remove() }, h("h2", {}, "Keys"), facts(Object.fromEntries(KEYS)));
  document.body.append(box);
  box.showModal();
}

const ACTIONS = {
  n: () => step(1), j: () => step(1), p: () => step(-1), k: () => step(-1), w: () => step(1, "won"), l: () => step(1, "lost"),
  Escape: () => go({ q: null }), "?": help,
  "/": () => { go({ tab: "questions", q: narrow.matches ? null : page.chosen.q }); document.getElementById("find")?.focus(); },
};

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
  if (/^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName)) {
    if (event.key === "Escape") event.target.blur();
    return;
  }
  if (ACTIONS[event.key]) {
    event.preventDefault();
    if (!page.kept.length) page.kept = chosen(page.entries, page.chosen);
    ACTIONS[event.key]();
  }
});

// What a run has done since. A reader's place, filters and opened question stay.
async function update() {
  try {
    const index = await source.index(page.version);
    if (index) {
      page.index = index;
      page.version = index.version ?? "";
      page.updated = new Date().toLocaleTimeString();
      await arrive(true);
    } else if (page.error) {
      page.error = null;
      renderNote();
    }
  } catch (error) {
    page.error = error instanceof TypeError ? "The server does not answer: it has ended." : error.message;
    renderNote();
  }
}

async function begin() {
  root.replaceChildren(parts.head, parts.note, parts.body);
  window.addEventListener("hashchange", () => arrive());
  await update();
  document.body.dataset.ready = "";
  while (source.live) {
    await new Promise((later) => setTimeout(later, UPDATE_MS));
    if (!document.hidden || !page.index) await update();
  }
}

begin();
