// The timeline of visits, filtered by camera and label, and one visit shown large.
const VISITS_MS = 1000, SHOWN = 200, AGAIN_MS = 1500, TRIES = 3;
const visits = new Map(), cards = new Map(), complete = new Set();  // `complete`: filters without older visits
const newestFirst = (a, b) => b.started_at < a.started_at ? -1 : b.started_at > a.started_at ? 1 : b.number - a.number;
let run = "", changes = 0, today = [], label = "", archive = false, hasOlder = false, opened = null, shows = "crop", tries = 0;

async function timeline() {
  for (;;) {
    const answer = await get(`/visits.json?after=${changes}&run=${run}`).then(response => response.json()).catch(() => null);
    if (answer !== null) takeVisits(answer);
    await sleep(VISITS_MS);
  }
}
function takeVisits(answer) {
  if (answer.run !== run) forgetVisits();
  ({run, number: changes, today, archive} = answer);
  for (const visit of answer.visits) visits.set(visit.id, visit);
  // Who asked for older visits keeps them.
  if (!hasOlder) for (const visit of [...visits.values()].sort(newestFirst).slice(SHOWN)) { visits.delete(visit.id); cards.delete(visit.id); }
  drawVisits();
}
function forgetVisits() {
  for (const kept of [visits, cards, complete]) kept.clear();
  hasOlder = false;
  byId("visits").querySelector(".timeline").replaceChildren();
}
const isChosen = visit => (camera === null || camera === visit.stream) && (label === "" || label === visit.label);
const chosenVisits = () => [...visits.values()].filter(isChosen).sort(newestFirst);
const choice = () => `${camera === null ? "" : camera} ${label}`;

async function askOlder() {
  const button = byId("older"), shown = chosenVisits(), asked = choice();
  // In ms; the store has more digits, and whom we know already is not shown twice.
  const before = shown.length ? Date.parse(shown[shown.length - 1].started_at) / 1000 + 0.001 : Date.now() / 1000 + 86400;
  const query = new URLSearchParams({before});
  if (camera !== null) query.set("camera", camera);
  if (label !== "") query.set("label", label);
  button.disabled = true;
  const answer = await get(`/older.json?${query}`).then(response => response.json()).catch(() => null);
  button.disabled = false;
  if (answer === null) return;
  const fresh = answer.visits.filter(visit => !visits.has(visit.id));
  for (const visit of fresh) visits.set(visit.id, visit);
  hasOlder = true;
  if (!fresh.length) complete.add(asked);
  drawVisits();
}

function drawVisits() {
  const section = byId("visits"), finds = tiles.some(tile => tile.answer && tile.answer.things !== null);
  section.hidden = visits.size === 0 && !finds;
  const counts = new Map();
  for (const [stream, name, n] of today) if (camera === null || camera === stream) counts.set(name, (counts.get(name) || 0) + n);
  const total = [...counts.values()].reduce((sum, n) => sum + n, 0);
  text(section.querySelector("h2"), `${count(total)} ${total === 1 ? "visit" : "visits"} today`);
  const box = section.querySelector(".counts");
  box.hidden = visits.size === 0;
  drawCounts(box, counts, total);
  const list = section.querySelector(".timeline"), newest = chosenVisits(), empty = section.querySelector(".empty");
  empty.hidden = newest.length > 0;
  text(empty, visits.size ? "No visit of this kind is shown." : "Nothing has come yet. The first visit will be here.");
  const nodes = [];
  let day = "";
  for (const visit of newest) {
    if (dayOf(visit) !== day) { day = dayOf(visit); nodes.push(heading(day)); }
    nodes.push(card(visit));
  }
  if (nodes.length !== list.children.length || nodes.some((node, place) => node !== list.children[place])) list.replaceChildren(...nodes);
  byId("older").hidden = !archive || visits.size === 0 || complete.has(choice());
  drawSteps();
}
function drawCounts(box, counts, total) {
  const names = ["", ...[...counts.keys()].sort((a, b) => counts.get(b) - counts.get(a))];
  if (label !== "" && !counts.has(label)) names.push(label);
  while (box.children.length > names.length) box.lastElementChild.remove();
  names.forEach((name, place) => {
    const button = box.children[place] || pick(box, event => { label = event.currentTarget.value; drawVisits(); });
    if (!button.children.length) { make("span", "", button); make("b", "", button); }
    button.value = name; button.title = name;
    text(button.children[0], name || "All labels");
    text(button.children[1], count(name ? counts.get(name) || 0 : total));
    button.setAttribute("aria-pressed", String(label === name));
  });
}
const headings = new Map();
function heading(day) {
  if (!headings.has(day)) {
    const item = document.createElement("li");
    item.className = "day"; item.textContent = day;
    headings.set(day, item);
  }
  return headings.get(day);
}
function dayOf(visit) {
  const at = new Date(visit.started_at), now = new Date(), before = new Date(now.getFullYear(), now.getMonth(), now.getDate() - 1);
  if (at.toDateString() === now.toDateString()) return "Today";
  if (at.toDateString() === before.toDateString()) return "Yesterday";
  return at.toLocaleDateString(undefined, {weekday: "long", day: "numeric", month: "long", year: at.getFullYear() === now.getFullYear() ? undefined : "numeric"});
}
function card(visit) {
  const item = cards.get(visit.id) || addCard(visit.id), [image, what] = item.firstElementChild.children;
  const where = whereOf(visit), shown = `${visit.number} ${where}`;
  if (item.dataset.shown === shown) return item;
  item.dataset.shown = shown;
  item.firstElementChild.dataset.open = visit.event === "started" ? "yes" : "no";
  image.src = cropOf(visit);
  const best = visit.answer || visit.coarser, [name, when] = what.children;
  text(name, visit.label); name.title = visit.label;
  text(when.children[0], timeOf(visit)); text(when.children[1], best ? percent(best.p) : "");
  text(what.children[2], where); what.children[2].hidden = where === "";
  return item;
}
function addCard(id) {
  const item = document.createElement("li"), button = make("button", "visit", item);
  button.type = "button";
  const image = make("img", "", button);
  image.loading = "lazy"; image.alt = "";  // the button says what it is
  const what = make("span", "what", button);
  make("span", "label", what);
  const when = make("span", "soft", what);
  make("span", "when", when); make("span", "p", when);
  make("span", "soft where", what);
  button.addEventListener("click", () => openVisit(id));
  cards.set(id, item);
  return item;
}
const cropOf = visit => `/crop.jpg?id=${encodeURIComponent(visit.id)}&number=${visit.number}`;
const attentionOf = visit => `/attention.jpg?id=${encodeURIComponent(visit.id)}&number=${visit.number}`;
function timeOf(visit) {
  const at = new Date(visit.started_at).toLocaleTimeString(undefined, {hour: "numeric", minute: "2-digit"});
  return `${at} · ${visit.event === "started" ? "here now" : span(1000 * visit.seconds)}`;
}
function whereOf(visit) {
  const name = visit.stream < 0 ? visit.source : state && state.cameras.length > 1 ? `Camera ${visit.stream + 1}` : "";
  return [name, visit.zone].filter(Boolean).join(" · ");
}

function openVisit(id) {
  opened = id;
  drawVisit();
  if (!byId("visit").open) byId("visit").showModal();
}
function drawVisit() {
  const box = byId("visit"), visit = visits.get(opened), part = selector => box.querySelector(selector);
  if (!visit) return;
  const drawn = state && state.attention, mapped = Boolean(drawn) && shows === "attention";
  part(".choice").hidden = !drawn;
  for (const button of part(".choice").children) button.setAttribute("aria-pressed", String(button.value === (mapped ? "attention" : "crop")));
  const image = part("img"), address = mapped ? attentionOf(visit) : cropOf(visit), veil = part(".veil");
  if (image.getAttribute("src") !== address) {
    text(veil, mapped ? "Drawing…" : "");
    image.hidden = mapped; image.src = address; tries = 0;
  }
  image.alt = mapped ? `Where the model looks on the best crop: ${visit.label}` : `Best crop: ${visit.label}`;
  part(".map").hidden = !mapped;
  text(part(".map"), mapped ? `The bright places have the most weight ("${drawn.title}", ${drawn.variant}). Grey is the crop.` : "");
  text(part("h2"), visit.label);
  text(part(".when"), [dayOf(visit), timeOf(visit), `${count(visit.frames)} ${visit.frames === 1 ? "frame" : "frames"}`, visit.source, visit.zone].filter(Boolean).join(" · "));
  drawBars(part(".bars"), visit.top);
  drawSteps();
}
// The visits on both sides of the opened one, as the timeline shows them.
function neighbour(step) {
  const shown = chosenVisits(), place = shown.findIndex(visit => visit.id === opened);
  return place < 0 ? undefined : shown[place + step];
}
function drawSteps() {
  if (opened === null) return;
  byId("visit").querySelector("[value=newer]").disabled = !neighbour(-1);
  byId("visit").querySelector("[value=older]").disabled = !neighbour(1);
}
function stepTo(step) {
  const next = neighbour(step);
  if (next) openVisit(next.id);
}
byId("older").addEventListener("click", askOlder);
byId("visit").addEventListener("close", () => {
  const item = cards.get(opened);
  if (item && item.isConnected) item.firstElementChild.focus();
  opened = null;
});
byId("visit").addEventListener("click", event => {
  const {target} = event, box = byId("visit");
  if (target === box) box.close();  // beside the card
  if (target.value === "newer") stepTo(-1);
  if (target.value === "older") stepTo(1);
  if (target.value === "crop" || target.value === "attention") { shows = target.value; drawVisit(); }
});
byId("visit").addEventListener("keydown", event => {
  if (event.key === "ArrowLeft") stepTo(-1);
  if (event.key === "ArrowRight") stepTo(1);
});
byId("visit").querySelector("img").addEventListener("load", event => { event.target.hidden = false; text(byId("visit").querySelector(".veil"), ""); });
// A busy machine may need longer than one request waits: the drawing is ready at a later one.
byId("visit").querySelector("img").addEventListener("error", async event => {
  const image = event.target, address = image.getAttribute("src");
  image.hidden = true;
  if (tries < TRIES && address.startsWith("/attention")) {
    tries += 1;
    await sleep(AGAIN_MS);
    if (image.getAttribute("src") === address) image.src = address;
    return;
  }
  text(byId("visit").querySelector(".veil"), address.startsWith("/attention") ? "The attention cannot be drawn now." : "This crop is no longer kept.");
});
setInterval(tick, TICK_MS);
numbers();
timeline();
