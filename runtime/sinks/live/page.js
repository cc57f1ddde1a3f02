"use strict";
// Helpers, live pictures and their answers. `numbers.js` and `timeline.js` follow in the same script.
const FRAME_MS = 100, TICK_MS = 250, TIMEOUT_MS = 4000, LOST_MS = 3000, OLD_MS = 3000;
const LIVE = ["ok", "unknown", "idle"];
const WORDS = {ok: "Live", unknown: "Live: unknown", idle: "Live: nothing there", stale: "Stale", no_signal: "No signal", stalled: "No answers", starting: "Starting", lost: "Connection lost", old: "Old picture"};
const REASONS = {
  stale: "answers come too late for this camera", no_signal: "the camera sends no frames; finedge tries again", stalled: "finedge has given no answer for a while",
  starting: "waiting for the first frame", lost: "this page cannot reach finedge", old: "new pictures do not reach this browser",
};
const tiles = [];
let state = null, stateAt = 0, trouble = "";
let camera = null;  // the chosen camera, null for all

const byId = id => document.getElementById(id);
const sleep = ms => new Promise(done => setTimeout(done, document.hidden ? 2000 : ms));
// A label is data: text only, never markup.
function text(node, value) { if (node.textContent !== value) node.textContent = value; }
function make(name, className, parent) {
  const node = document.createElement(name);
  node.className = className; parent.append(node);
  return node;
}
function svg(name, attributes, parent) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const key in attributes) node.setAttribute(key, attributes[key]);
  parent.append(node);
  return node;
}
const percent = p => p >= 0.9995 ? "100 %" : `${(100 * p).toFixed(1)} %`;
const count = n => String(n).replace(/\B(?=(\d{3})+$)/g, " ");
function span(ms) {
  const s = ms / 1000;
  if (s < 60) return `${s.toFixed(1)} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min ${Math.floor(s % 60)} s`;
  return s < 86400 ? `${Math.floor(s / 3600)} h ${Math.floor(s % 3600 / 60)} min` : `${Math.floor(s / 86400)} d ${Math.floor(s % 86400 / 3600)} h`;
}

async function get(address) {
  const answer = await fetch(address, {signal: AbortSignal.timeout(TIMEOUT_MS), cache: "no-store"});
  if (!answer.ok) throw new Error(`status ${answer.status}`);
  return answer;
}

function addTile(index) {
  const root = byId("tile").content.firstElementChild.cloneNode(true);
  byId("tiles").append(root);
  const tile = {root, index, number: 0, takenAt: null, answer: null, image: root.querySelector("img")};
  for (const name of ["view", "veil", "label", "p", "status", "age", "name", "bars", "nothing", "facts", "latency", "roi", "things"]) tile[name] = root.querySelector("." + name);
  tile.strip = root.querySelector(".answer");
  root.querySelector("details").open = state.cameras.length === 1 && matchMedia("(min-width: 900px)").matches;
  tiles.push(tile);
  pictures(tile);
}

// Picture, label and bars come in one response and change together: a label never shows on another frame's picture.
async function pictures(tile) {
  for (;;) {
    if (tile.root.hidden) { await sleep(FRAME_MS); continue; }
    const answer = await get(`/frame.jpg?camera=${tile.index}&after=${tile.number}`).catch(() => null);
    if (answer === null) { await sleep(1000); continue; }
    if (answer.status === 200) await picture(tile, answer).catch(() => null);  // a broken picture: wait for the next one
    await sleep(FRAME_MS);
  }
}
async function picture(tile, answer) {
  const arrived = performance.now(), header = name => answer.headers.get(`X-Finedge-${name}`);
  await show(tile, await answer.blob());
  tile.number = Number(header("Number"));
  tile.takenAt = arrived - Number(header("Age-Ms"));
  tile.answer = JSON.parse(header("Answer"));
  drawAnswer(tile);
  tick();
}
function show(tile, blob) {
  return new Promise((loaded, failed) => {
    const address = URL.createObjectURL(blob), old = tile.image.src;
    tile.image.onload = () => { tile.image.hidden = false; if (old) URL.revokeObjectURL(old); loaded(); };
    tile.image.onerror = () => failed(new Error("not a picture"));
    tile.image.src = address;
  });
}
function drawAnswer(tile) {
  const {top, status, things, size} = tile.answer, best = top[0], unknown = status === "unknown";
  tile.view.style.aspectRatio = Math.max(size[0] / size[1], 4 / 3);  // an upright picture has black sides
  text(tile.label, unknown ? "unknown" : best ? best.label : "");
  text(tile.p, best && !unknown ? percent(best.p) : "");
  drawRegion(tile, tile.answer);
  drawThings(tile, tile.answer);
  // With a finder each thing has its label at its box.
  tile.strip.hidden = things !== null;
  tile.bars.classList.toggle("things-now", things !== null);
  tile.nothing.hidden = things === null || things.length > 0;
  const names = things === null ? [unknown ? "unknown" : best ? best.label : ""] : things.map(nameOf);
  tile.image.alt = `Newest frame: ${names.filter(Boolean).join(", ") || "nothing there"}`;
  drawBars(tile.bars, things === null ? top : things.map(thing => ({label: thing.status === "unknown" ? `unknown, perhaps ${thing.label}` : thing.label, p: thing.p})));
}
const nameOf = thing => thing.status === "unknown" ? "unknown" : thing.label;
function drawBars(bars, top) {
  while (bars.children.length > top.length) bars.lastElementChild.remove();
  top.forEach((item, place) => {
    const row = bars.children[place] || addBar(bars);
    text(row.children[0], item.label); row.children[0].title = item.label;
    text(row.children[1], percent(item.p));
    row.children[2].firstElementChild.style.width = `${Math.max(0, Math.min(100, 100 * item.p))}%`;
  });
}
function addBar(bars) {
  const row = make("li", "", bars);
  make("span", "name", row); make("span", "", row); make("i", "", make("div", "track", row));
  return row;
}
// The part of the frame that the model saw; the view box fits as the picture does.
function drawRegion(tile, {size, roi}) {
  tile.roi.toggleAttribute("hidden", !roi);
  if (!roi) return;
  tile.roi.setAttribute("viewBox", `0 0 ${size[0]} ${size[1]}`);
  ["x", "y", "width", "height"].forEach((name, i) => tile.roi.firstElementChild.setAttribute(name, roi[i]));
}
function drawThings(tile, {size, things}) {
  tile.things.replaceChildren();
  if (!things || !tile.view.clientWidth) return;
  tile.things.setAttribute("viewBox", `0 0 ${size[0]} ${size[1]}`);
  const pixel = Math.max(size[0] / tile.view.clientWidth, size[1] / tile.view.clientHeight), letter = 14 * pixel;
  const taken = [];  // [x, end, y] of the labels so far: two things may share a box
  for (const thing of things) {
    const [x, y, width, height] = thing.box, group = svg("g", {class: thing.status}, tile.things);
    svg("rect", {x, y, width, height, rx: 4 * pixel}, group);
    const name = nameOf(thing), short = name.length > 26 ? `${name.slice(0, 25)}…` : name;
    const above = y > 44 * pixel + letter;
    const label = svg("text", {x, y: above ? y - 6 * pixel : y + height + letter + 2 * pixel, "font-size": letter, "stroke-width": 4 * pixel}, group);
    text(label, thing.status === "unknown" ? short : `${short} ${(100 * thing.p).toFixed(0)} %`);
    const extent = label.getComputedTextLength(), left = Math.max(4 * pixel, Math.min(x, size[0] - extent - 6 * pixel));
    let line = Number(label.getAttribute("y"));
    const hits = ([start, end, other]) => start < left + extent && left < end && Math.abs(other - line) < 1.1 * letter;
    for (let i = 0; i < things.length && taken.some(hits); i++) line += (above ? -1.15 : 1.15) * letter;
    taken.push([left, left + extent, line]);
    label.setAttribute("x", left); label.setAttribute("y", line);
  }
}

function statusOf(tile, now) {
  if (!state || now - stateAt > LOST_MS) return state ? "lost" : "starting";
  const {status, picture_age_ms: newestAge} = state.cameras[tile.index];
  if (!LIVE.includes(status) || tile.takenAt === null) return status;
  if (tile.root.hidden) return status;  // its picture is not asked for
  // The program may have newer frames that did not reach this browser: its picture is old all the same.
  return now - tile.takenAt > newestAge + (now - stateAt) + OLD_MS ? "old" : status;
}
function tick() {
  const now = performance.now();
  for (const tile of tiles) {
    const status = statusOf(tile, now), live = LIVE.includes(status) && tile.takenAt !== null;
    const age = tile.takenAt === null ? null : span(now - tile.takenAt);
    tile.root.dataset.status = status; tile.root.dataset.live = live ? "yes" : "no";
    text(tile.status, WORDS[live || status !== "ok" && status !== "unknown" ? status : "starting"] || status);
    tile.age.hidden = age === null; text(tile.age, `${age} old`);
    tile.veil.hidden = live;
    text(tile.veil.children[0], WORDS[status] || status);
    text(tile.veil.children[1], REASONS[status] || "");
    text(tile.veil.children[2], age === null ? "" : `last frame ${age} ago`);
  }
  const lost = trouble !== "" && now - stateAt > LOST_MS;
  byId("alarm").hidden = !lost;
  document.body.classList.toggle("lost", lost);
  drawHealth(lost);
  const hint = trouble === "status 401" ? "finedge was restarted: open its address with the token again." : "Trying again.";
  const [words, since] = byId("alarm").children;  // a screen reader says the words once, and no seconds
  text(words, lost ? `No connection. Nothing below is live. ${hint}` : "");
  text(since, lost && stateAt ? ` Lost ${span(now - stateAt)} ago.` : "");
}
