// The numbers: what runs, how cameras, outputs and the machine do.
const POLL_MS = 400;
const STAGES = {age: "frame age", decode: "decode", find: "find", preprocess: "preprocess", infer: "infer", post: "post"};
const OUTPUTS = {store: "Store", mqtt: "MQTT", webhook: "Webhook", clips: "Clips"};
const shortMs = ms => ms === null || ms === undefined ? "n/a" : ms >= 100 ? ms.toFixed(0) : ms >= 10 ? ms.toFixed(1) : ms.toFixed(2);
let shownState = "";

async function numbers() {
  for (;;) {
    const answer = await get("/state.json").then(response => response.json()).catch(error => error);
    if (answer instanceof Error) trouble = answer.message;
    else {
      // Another version answers at this address now: this page is not its page.
      if (state && state.version !== answer.version) location.reload();
      state = answer; stateAt = performance.now(); trouble = ""; drawState();
    }
    tick();
    await sleep(POLL_MS);
  }
}
function drawState() {
  if (tiles.length > state.cameras.length) location.reload();  // another run of finedge answers at this address now
  while (tiles.length < state.cameras.length) addTile(tiles.length);
  drawTabs(state.cameras);
  const first = state.cameras.find(item => item.file) || state.cameras[0];
  text(byId("title"), state.title); document.title = state.title;
  const runs = [first.variant, first.backend, first.file, `finedge ${state.version}`, `running for ${uptime(state.uptime_s)}`];
  text(byId("model"), runs.filter(Boolean).join(" · "));
  state.cameras.forEach((item, index) => drawCamera(tiles[index], item));
  drawOutputs(state.outputs);
  drawMachine(state.machine);
}
function uptime(s) {
  if (s < 60) return `${s} s`;
  return s < 3600 ? `${Math.floor(s / 60)} min` : span(1000 * s);
}
function drawTabs(cameras) {
  const tabs = byId("tabs"), names = ["All cameras", ...cameras.map((item, index) => `${index + 1} · ${item.name || "no source yet"}`)];
  tabs.hidden = cameras.length < 2;
  if (tabs.children.length !== names.length) {
    tabs.replaceChildren();
    names.forEach((name, place) => {
      const button = pick(tabs, () => { camera = place ? place - 1 : null; drawState(); drawVisits(); tick(); });
      if (place) make("i", "", button);
      make("span", "", button);
    });
  }
  names.forEach((name, place) => {
    const button = tabs.children[place];
    text(button.lastElementChild, name); button.title = name;
    button.setAttribute("aria-pressed", String(camera === (place ? place - 1 : null)));
    if (place) button.firstElementChild.dataset.live = LIVE.includes(cameras[place - 1].status) ? "yes" : "no";
  });
  tiles.forEach(tile => { tile.root.hidden = camera !== null && camera !== tile.index; });
  document.body.classList.toggle("one", cameras.length === 1 || camera !== null);
}
function pick(parent, choose) {
  const button = make("button", "pick", parent);
  button.type = "button";
  button.addEventListener("click", choose);
  button.setAttribute("aria-pressed", "false");
  return button;
}

// One word for everything, and a line for each output that has a problem.
function drawHealth(lost) {
  if (!state) return;
  const bad = tiles.filter(tile => !LIVE.includes(tile.root.dataset.status)).length;
  const broken = state.outputs.filter(output => output.problem);
  const words = lost ? "No connection" : bad ? tiles.length === 1 ? WORDS[tiles[0].root.dataset.status] : `${bad} of ${tiles.length} cameras not live`
    : broken.length ? `${broken.length === 1 ? "1 problem" : `${broken.length} problems`}` : tiles.length === 1 ? "Live" : "All cameras live";
  byId("state").hidden = false;
  byId("state").dataset.state = lost || bad ? "bad" : broken.length ? "warn" : "good";
  if (words !== shownState) { shownState = words; text(byId("state"), words); }
}
function drawOutputs(outputs) {
  const broken = outputs.filter(output => output.problem), list = byId("troubles");
  list.hidden = broken.length === 0;
  while (list.children.length > broken.length) list.lastElementChild.remove();
  broken.forEach((output, place) => {
    const row = list.children[place] || make("li", "", list);
    if (!row.children.length) { make("b", "", row); make("span", "", row); }
    text(row.children[0], `${OUTPUTS[output.name] || output.name}: ${output.problem}. `);
    const waits = output.waiting ? `${count(output.waiting)} ${output.waiting === 1 ? "event waits" : "events wait"}, and it is tried again. ` : "";
    text(row.children[1], `${waits}Since ${uptime(output.problem_s)}.`);
  });
  byId("outputs").hidden = outputs.length === 0;
  facts(byId("outputs").querySelector("dl"), outputs.map(({name, delivered, lost, waiting, problem}) => {
    const more = [waiting ? `${count(waiting)} waiting` : "", lost ? `${count(lost)} lost` : ""].filter(Boolean).join(", ");
    return [OUTPUTS[name] || name, `${count(delivered)} ${delivered === 1 ? "event" : "events"}`, more, Boolean(problem || lost)];
  }));
}

function facts(list, pairs) {
  const filled = pairs.filter(pair => pair[1] !== null && pair[1] !== undefined && pair[1] !== "");
  while (list.children.length > filled.length) list.lastElementChild.remove();
  filled.forEach(([name, value, extra, bad], place) => {
    const [title, number, small] = list.children[place] ? list.children[place].querySelectorAll("dt, dd span, dd small") : addFact(list);
    text(title, name); text(number, value); text(small, extra ? ` ${extra}` : "");
    number.classList.toggle("bad", Boolean(bad));
  });
}
function addFact(list) {
  const pair = make("div", "", list), title = make("dt", "", pair), value = make("dd", "", pair);
  return [title, make("span", "", value), make("small", "", value)];
}
function drawCamera(tile, item) {
  const {captured, dropped, classified, silences} = item;
  text(tile.name, `${state.cameras.length > 1 ? `${tile.index + 1} · ` : ""}${item.name || "No source yet"}`);
  facts(tile.facts, [
    ["Frames/s", item.fps.toFixed(1)],
    ["Captured", count(captured)],
    ["Classified", count(classified)],
    ["Dropped", count(dropped), captured ? `${(100 * dropped / captured).toFixed(0)} %` : ""],
    ["No signal", silences ? count(silences) : null, silences === 1 ? "time" : "times"],
    ["Picture", tile.answer ? tile.answer.size.join("×") : null],
  ]);
  drawLatency(tile.latency, item.latency);
}
function drawLatency(box, latency) {
  const axis = state.axis, bins = axis.decades * axis.bins_per_decade;
  if (!box.children.length) prepareLatency(box, axis, bins);
  Object.keys(STAGES).forEach((stage, place) => {
    const row = box.children[place + 1], data = latency[stage];
    row.hidden = stage === "find" && data.n === 0;
    const highest = Math.max(1, ...data.counts), bars = row.querySelectorAll("rect");
    data.counts.forEach((n, i) => { bars[i].setAttribute("height", 26 * n / highest); bars[i].setAttribute("y", 26 - 26 * n / highest); });
    ["p50", "p95", "p99"].forEach((name, i) => {
      text(row.children[2 + i], shortMs(data[name]));
      row.children[2 + i].title = data[name] === null ? `needs ${axis.needs[name]} frames, has ${data.n}` : "";
    });
  });
  const few = Object.values(latency).some(data => data.p99 === null) ? "; n/a: too few frames for that percentile" : "";
  text(box.lastElementChild, `In ms, over the last ${count(latency.age.n)} frames${few}`);
}
function prepareLatency(box, axis, bins) {
  const head = make("div", "row head", box);
  for (const word of ["", "", "p50", "p95", "p99"]) text(make("span", "", head), word);
  for (const stage in STAGES) {
    const row = make("div", `row ${stage}`, box);
    text(make("span", "", row), STAGES[stage]);
    const picture = svg("svg", {viewBox: `0 0 ${bins} 26`, preserveAspectRatio: "none", "aria-hidden": "true"}, row);
    for (let i = 0; i <= axis.decades; i++) svg("line", {x1: i * axis.bins_per_decade, x2: i * axis.bins_per_decade, y1: 0, y2: 26}, picture);
    for (let i = 0; i < bins; i++) svg("rect", {x: i + 0.08, width: 0.84, y: 26, height: 0}, picture);
    for (let i = 0; i < 3; i++) make("span", "", row);
  }
  const row = make("div", "row", box);
  make("span", "", row);
  const scale = make("span", "scale", row);
  for (let i = 0; i < axis.decades; i += 2) {
    const ms = axis.lowest_ms * 10 ** i, tick = make("span", "", scale);
    tick.style.left = `${100 * i / axis.decades}%`;
    text(tick, ms >= 1000 ? `${ms / 1000} s` : String(Number(ms.toPrecision(1))));
  }
  make("p", "note", box);
}
function drawMachine(machine) {
  const hottest = Object.entries(machine.temperatures_c || {}).filter(pair => pair[1] !== null).sort((a, b) => b[1] - a[1])[0];
  const number = (value, digits, unit) => typeof value === "number" ? `${value.toFixed(digits)} ${unit}` : null;
  const yes = value => typeof value === "boolean" ? value ? "yes" : "no" : null;
  const pairs = [
    ["Power", number(machine.power_w, 1, "W"), machine.power_from],
    ["Hottest", hottest ? number(hottest[1], 0, "°C") : null, hottest ? hottest[0] : ""],
    ["Power mode", machine.power_mode],
    ["Clocks locked", yes(machine.clocks_locked)],
    ["Throttled", yes(machine.throttled), (machine.throttled_by || []).join(", "), machine.throttled],
    ["GPU in use", typeof machine.gpu_util === "number" ? number(100 * machine.gpu_util, 0, "%") : null],
    ["Fan", typeof machine.fan === "number" ? number(100 * machine.fan, 0, "%") : null],
  ];
  byId("machine").hidden = !pairs.some(pair => pair[1]);
  facts(byId("machine").querySelector("dl"), pairs);
}
