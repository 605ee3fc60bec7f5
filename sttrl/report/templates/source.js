// Where the page's values come from: this file itself, or the server that sent the page.
const UPDATE_MS = 2000;

const valueOf = (id) => JSON.parse(document.getElementById(id).textContent);

async function unpacked(id) {
  const block = document.getElementById(id);
  if (!block) return null;
  const bytes = Uint8Array.from(atob(block.textContent), (character) => character.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).json();
}

async function asked(address) {
  const reply = await fetch(address, { cache: "no-store" });
  if (reply.status === 204) return null;
  const value = await reply.json();
  if (!reply.ok) throw new Error(value.error);
  return value;
}

const FILE = {
  live: false,
  index: async () => valueOf("index"),
  run: async (run) => valueOf(`run-${run}`),
  question: async (run, question) => unpacked(`question-${run}-${question}`),
};

const SERVER = {
  live: true,
  // Null if nothing has changed after that version.
  index: (after) => asked(`api/index?after=${encodeURIComponent(after)}`),
  run: (run) => asked(`api/runs/${run}`),
  question: (run, question) => asked(`api/runs/${run}/questions/${question}`),
};

const source = document.getElementById("index") ? FILE : SERVER;
