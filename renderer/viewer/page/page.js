// The page of frieze view: all pictures, one, or two side by side. Every text is set as text: names and
// prompts are other people's.
"use strict";

const main = document.getElementById("main");
const published = document.getElementById("published"); // of an export: what a server would tell
let state = null; // what the server told last
let screen = null; // what is on the page: { update(), leave(), key(event) }
const chosen = new Set(); // keys of stores to compare

function make(tag, settings = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(settings)) {
    if (name in element && name !== "list") element[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

function progress(about) {
  if (about.state === "done") return 1;
  if (!about.num_blocks) return 0;
  if (about.blocks) return 0.8 + (0.2 * about.blocks) / about.num_blocks;
  const stages = about.num_stages || 1;
  return (0.8 * (about.stage - 1 + about.step / Math.max(1, about.num_steps))) / stages;
}

function size(about) {
  return about.width ? `${about.width} × ${about.height}${about.frames ? ` × ${about.frames}` : ""}` : "";
}

// All pictures

class Card {
  constructor(about) {
    // Unseen, but there: a browser loads no lazy image that has no place on the page.
    this.beneath = make("img", { alt: "", loading: "lazy", className: "unseen" });
    this.picture = make("img", { alt: "", loading: "lazy", className: "unseen" });
    for (const image of [this.beneath, this.picture]) {
      image.addEventListener("load", () => { image.className = ""; });
      image.addEventListener("error", () => { image.className = "unseen"; });
    }
    this.none = make("div", { className: "none" }, "nothing drawn yet");
    this.name = make("div", { className: "name" });
    this.state = make("span");
    this.size = make("span");
    this.prompt = make("div", { className: "prompt" });
    this.fill = make("i");
    this.box = make("input", { type: "checkbox" });
    this.box.addEventListener("change", () => choose(about.key, this.box.checked));
    this.element = make("article", { className: "card" },
      make("a", { href: `#/store/${about.key}` },
        make("div", { className: "shot" }, this.none, this.beneath, this.picture),
        make("div", { className: "bar" }, this.fill),
        make("div", { className: "text" }, this.name,
          make("div", { className: "row" }, this.state, this.size), this.prompt)),
      make("label", {}, this.box, " compare"));
    this.update(about);
  }

  update(about) {
    setText(this.name, about.name);
    this.name.title = about.name;
    setText(this.state, about.state);
    this.state.className = `state ${about.state}`;
    setText(this.size, size(about));
    setText(this.prompt, about.state === "damaged" ? about.line : about.prompt || about.line || "");
    this.prompt.classList.toggle("fault", about.state === "damaged");
    this.prompt.title = about.line || "";
    this.fill.style.width = about.state === "done" ? "0" : `${100 * progress(about)}%`;
    this.box.checked = chosen.has(about.key);
    this.box.setAttribute("aria-label", `compare ${about.name}`);
    this.box.parentElement.hidden = !about.width;
    this.none.hidden = about.blocks > 0 || about.is_saved;
    if (about.state === "damaged") setText(this.none, "damaged");
    if (about.revision === this.revision) return;
    this.revision = about.revision;
    const frame = Math.floor((about.frames || 1) / 2);
    if (about.is_saved && about.state !== "done") {
      this.beneath.src = `stores/${about.key}/${frame}.preview.png?v=${about.revision}`;
    } else this.beneath.className = "unseen";
    if (about.blocks) {
      this.picture.src = `${tileAddress(about, frame, Math.min(about.top, 9), 0, 0)}&v=${about.revision}`;
    } else this.picture.className = "unseen";
  }
}

function choose(key, isChosen) {
  if (isChosen) chosen.add(key);
  else chosen.delete(key);
  while (chosen.size > 2) chosen.delete(chosen.values().next().value);
  update();
}

function gallery() {
  const cards = new Map();
  const batches = make("div");
  const grid = make("div", { className: "grid" });
  const empty = make("p", { className: "empty" }, "No store is here yet. Renders appear as they begin.");
  main.replaceChildren(batches, grid, empty);
  let told = "";
  return {
    update() {
      for (const about of state.stores) {
        const card = cards.get(about.key);
        if (card) card.update(about);
        else cards.set(about.key, new Card(about));
      }
      const keys = state.stores.map((about) => about.key);
      for (const [key, card] of cards) {
        if (!keys.includes(key)) { card.element.remove(); cards.delete(key); }
      }
      keys.forEach((key, number) => {
        const { element } = cards.get(key);
        if (grid.children[number] !== element) grid.insertBefore(element, grid.children[number] || null);
      });
      empty.hidden = Boolean(keys.length || state.batches.length);
      const now = JSON.stringify(state.batches);
      if (now !== told) {
        told = now;
        const open = new Set([...batches.children].filter((each) => each.open).map((each) => each.dataset.name));
        batches.replaceChildren(...state.batches.map((batch) => batchTable(batch, open.has(batch.name))));
      }
    },
    names() { return []; },
    leave() {},
    key() { return false; },
  };
}

const order = ["done", "running", "stopped", "failed", "queued"];

function batchTable(batch, isOpen) {
  const total = Math.max(1, Object.values(batch.counts).reduce((sum, count) => sum + count, 0));
  const parts = make("span", { className: "parts" });
  const words = [];
  for (const name of order.filter((each) => batch.counts[each])) {
    const part = make("i", { className: name });
    part.style.width = `${(100 * batch.counts[name]) / total}%`;
    parts.append(part);
    words.push(`${batch.counts[name]} ${name}`);
  }
  const rows = batch.items.map((item) => make("tr", {},
    make("td", {}, item.name),
    make("td", {}, make("span", { className: `state ${item.state}` }, item.state)),
    make("td", {}, item.seconds ? `${item.seconds.toFixed(1)} s` : ""),
    make("td", { className: "why" }, item.error || "")));
  const head = make("summary", {}, make("b", {}, `batch ${batch.name}`), parts,
    batch.fault ? make("span", { className: "fault" }, batch.fault)
      : make("span", { className: "note" }, `${words.join(", ")}${batch.at_work ? "" : "; nobody at work"}`));
  const table = make("details", { className: "batch", open: isOpen }, head,
    make("div", { className: "items" }, make("table", {}, make("tbody", {}, ...rows))));
  table.dataset.name = batch.name;
  return table;
}

// One picture or two

function tool(text, title, act) {
  const button = make("button", { type: "button", title }, text);
  button.addEventListener("click", act);
  return button;
}

function pane(title) {
  const osd = make("div", { className: "osd" });
  const name = make("div", { className: "title" }, title);
  const element = make("div", { className: "pane" }, osd, name);
  return { element, osd, name };
}

/** What both have: canvases, tools, frames and keys. */
class View {
  constructor(keys) {
    this.keys = keys;
    this.frame = 0;
    this.canvases = [];
    this.panes = make("div", { className: "panes" });
    this.zoom = make("output", { title: "pixels of the screen to one of the picture" });
    this.slider = make("input", { type: "range", min: 0, value: 0, "aria-label": "frame" });
    this.slider.addEventListener("input", () => this.setFrame(Number(this.slider.value)));
    this.number = make("span");
    this.play = tool("▶", "play (Space)", () => this.setPlaying(!this.timer));
    this.frames = make("label", { hidden: true }, this.play, this.slider, this.number);
    this.own = make("span", { className: "own" });
    this.tools = make("div", { className: "tools", role: "toolbar" },
      tool("+", "zoom in (+)", () => this.act("in")),
      tool("−", "zoom out (-)", () => this.act("out")),
      tool("All", "all of the picture (0)", () => this.act("all")),
      tool("1:1", "full size (1)", () => this.act("full")),
      this.zoom, this.frames, make("span", { className: "gap" }), this.own,
      tool("Full screen", "full screen (f)", () => this.fullScreen()));
    this.stage = make("div", { className: "stage" }, this.panes, this.tools);
    this.element = make("div", { className: "view" }, this.stage);
  }

  abouts() { return this.keys.map((key) => state.stores.find((about) => about.key === key)); }

  names() { return [this.abouts().map((about) => (about ? about.name : "gone")).join(" and ")]; }

  add(osd) {
    const canvas = makeCanvas(osd);
    canvas.addHandler("animation", () => this.tellZoom());
    canvas.addHandler("layer-loaded", () => this.tellZoom());
    this.canvases.push(canvas);
    return canvas;
  }

  lead() { return this.canvases[0]; }

  act(name, ...more) {
    moves[name](this.lead(), ...more);
  }

  tellZoom() {
    const item = this.lead() && topItem(this.lead());
    if (item) setText(this.zoom, `${(100 * pixelRatio(this.lead(), item)).toFixed(0)} %`);
  }

  setFrame(frame) {
    this.frame = Math.min(Math.max(0, frame), Number(this.slider.max));
    this.slider.value = this.frame;
    this.show();
  }

  setPlaying(isPlaying) {
    clearTimeout(this.timer);
    this.timer = null;
    setText(this.play, isPlaying ? "❚❚" : "▶");
    if (!isPlaying) return;
    const [about] = this.abouts();
    const next = () => {
      if (!this.layers.some((layer) => layer.isLoading)) this.setFrame((this.frame + 1) % ((about && about.frames) || 1));
      this.timer = setTimeout(next, 1000 / ((about && about.fps) || 8));
    };
    next();
  }

  tellFrames(frames) {
    this.frames.hidden = !(frames > 1);
    this.slider.max = Math.max(0, (frames || 1) - 1);
    setText(this.number, `frame ${this.frame + 1} of ${frames || 1}`);
  }

  fullScreen() {
    if (document.fullscreenElement) document.exitFullscreen();
    else this.element.requestFullscreen();
  }

  key(event) {
    const acts = {
      "+": () => this.act("in"), "=": () => this.act("in"), "-": () => this.act("out"),
      0: () => this.act("all"), 1: () => this.act("full"),
      ArrowLeft: () => this.act("by", -1, 0), ArrowRight: () => this.act("by", 1, 0),
      ArrowUp: () => this.act("by", 0, -1), ArrowDown: () => this.act("by", 0, 1),
      ",": () => this.setFrame(this.frame - 1), ".": () => this.setFrame(this.frame + 1),
      " ": () => this.space(), f: () => this.fullScreen(), ...this.ownKeys(),
    };
    if (!acts[event.key]) return false;
    acts[event.key]();
    return true;
  }

  ownKeys() { return {}; }
  space() { if (!this.frames.hidden) this.setPlaying(!this.timer); }

  leave() {
    this.setPlaying(false);
    for (const canvas of this.canvases) canvas.destroy();
    this.canvases = [];
  }
}

class StoreView extends View {
  constructor(key) {
    super([key]);
    this.pane = pane("");
    this.pane.name.hidden = true;
    this.panes.append(this.pane.element);
    this.facts = make("aside", { "aria-label": "facts" });
    this.element.append(this.facts);
    this.toggle = tool("Facts", "facts on or off (i)", () => this.setFacts(this.facts.hidden));
    this.own.append(this.toggle);
    main.replaceChildren(this.element);
    this.layers = [new Layer(this.add(this.pane.osd), {})];
    this.setFacts(true);
    this.ask();
  }

  setFacts(isShown) {
    this.facts.hidden = !isShown;
    this.toggle.setAttribute("aria-pressed", String(isShown));
  }

  ownKeys() { return { i: () => this.setFacts(this.facts.hidden) }; }

  async ask() {
    if (published) {
      const about = this.abouts()[0];
      if (about) this.tell(about);
      return;
    }
    const answer = await fetch(`stores/${this.keys[0]}/about.json`, { cache: "no-cache" }).catch(() => null);
    if (answer && answer.ok && this.canvases.length) {
      this.about = await answer.json();
      this.tell(this.about);
    }
  }

  update() {
    const [about] = this.abouts();
    if (!about) { setText(this.pane.name, "this store is gone"); this.pane.name.hidden = false; return; }
    this.show();
    if (about.state !== this.state || about.state === "running" || about.revision !== this.revision) this.ask();
    [this.state, this.revision] = [about.state, about.revision];
  }

  show() {
    const [about] = this.abouts();
    if (!about || !about.width) return;
    this.tellFrames(about.frames);
    this.layers[0].show(about, this.frame);
  }

  tell(about) {
    const rows = [];
    const row = (name, value) => {
      if (value !== null && value !== undefined && value !== "") rows.push(make("dt", {}, name), make("dd", {}, String(value)));
    };
    row("size", size(about));
    if (about.frames) row("frames a second", about.fps);
    if (about.state !== "done" && about.num_stages) {
      row("stage", about.num_stages > 1 ? `${about.stage} of ${about.num_stages}` : "");
      row("step", about.num_steps ? `${about.step} of ${about.num_steps}` : "");
      if (about.seconds_per_step) row("a step", `${about.seconds_per_step.toFixed(2)} s`);
      row("time left", (about.left || "").replace(/ left$/, ""));
    }
    row("blocks", about.num_blocks ? `${about.blocks} of ${about.num_blocks}` : "");
    row("model", about.model);
    row("seed", about.seed);
    row("bits", about.dtype ? about.dtype.replace("uint", "") : "");
    row("resumed", about.num_resumes || "");
    row("recovered", about.num_recovered || "");
    const fill = make("i");
    fill.style.width = `${100 * progress(about)}%`;
    const list = (title, items) => (items && items.length ? [make("h2", {}, title), make("ul", {}, ...items.map((text) => make("li", {}, text)))] : []);
    const preview = about.preview && `Beneath: the latents after step ${about.preview.step} of stage ${about.preview.stage}, `
      + (about.preview.is_fitted ? "in colours fitted to what these weights have drawn." : "in false colours.");
    this.facts.replaceChildren(
      make("h1", {}, about.name),
      make("div", { className: `state ${about.state}` }, about.state),
      make("div", { className: "bar" }, fill),
      ...(about.line && about.state !== "done" ? [make("p", { className: about.state === "damaged" ? "fault" : "note" }, about.line)] : []),
      ...(about.prompt ? [make("h2", {}, "prompt"), make("p", {}, about.prompt)] : []),
      ...(about.negative_prompt ? [make("h2", {}, "negative prompt"), make("p", {}, about.negative_prompt)] : []),
      make("dl", {}, ...rows),
      ...(preview ? [make("p", { className: "note" }, preview)] : []),
      ...list("workers", (about.state === "done" ? [] : about.workers || []).map((w) => `rank ${w.rank}: ${w.device}, pid ${w.pid} on ${w.node}`)),
      ...list(`failures: ${about.num_failures}`, (about.failures || []).map((f) => `${f.clock} ${f.message}`)));
  }
}

const modes = { side: "Side by side", flicker: "Flicker", difference: "Difference" };

class Comparison extends View {
  constructor(keys, mode) {
    super(keys);
    this.buttons = Object.fromEntries(Object.entries(modes).map(([name, text]) =>
      [name, tool(text, `${text.toLowerCase()} (${name === "side" ? "s" : name === "flicker" ? "x" : "d"})`, () => this.setMode(name))]));
    this.gain = make("input", { type: "range", min: 0, max: 5, step: 1, value: 0, "aria-label": "gain of the difference" });
    this.gain.addEventListener("input", () => this.setGain());
    this.gainText = make("span");
    this.gains = make("label", { hidden: true }, this.gain, this.gainText);
    this.own.append(...Object.values(this.buttons));
    this.own.before(this.gains);
    main.replaceChildren(this.element);
    this.setMode(mode in modes ? mode : "side");
  }

  ownKeys() {
    return { s: () => this.setMode("side"), x: () => this.setMode("flicker"), d: () => this.setMode("difference") };
  }

  space() {
    if (this.mode === "flicker") this.turn();
    else super.space();
  }

  lead() { return this.tied ? this.tied.lead() : this.canvases[0]; }

  act(name, ...more) {
    if (this.tied) this.tied.setLead(this.lead());
    super.act(name, ...more);
  }

  setMode(mode) {
    const before = this.lead();
    const place = before && before.world.getItemCount() ? before.viewport.getBounds() : null;
    clearInterval(this.turning);
    this.leave();
    this.mode = mode;
    this.tied = null;
    for (const [name, button] of Object.entries(this.buttons)) button.setAttribute("aria-pressed", String(name === mode));
    const made = mode === "side" ? this.keys.map(() => pane("")) : [pane("")];
    this.made = made;
    this.panes.replaceChildren(...made.map((each) => each.element));
    const canvases = made.map((each) => this.add(each.osd));
    this.layers = this.keys.map((_, number) => new Layer(canvases[number] || canvases[0], {
      compositeOperation: mode === "difference" && number ? "difference" : undefined,
    }));
    if (mode === "side") this.tied = tie(...canvases);
    if (mode === "flicker") {
      this.isSecond = true;
      this.turn();
      this.turning = setInterval(() => this.turn(), 1000);
    }
    this.gains.hidden = mode !== "difference";
    this.setGain();
    for (const canvas of canvases) canvas.firstBounds = place;
    history.replaceState(null, "", `#/compare/${this.keys.join("/")}/${mode}`);
    if (state) this.update();
  }

  setGain() {
    const gain = 2 ** Number(this.gain.value);
    setText(this.gainText, `× ${gain}`);
    for (const each of this.made) each.osd.style.filter = this.mode === "difference" && gain > 1 ? `brightness(${gain})` : "";
  }

  turn() {
    this.isSecond = !this.isSecond;
    this.layers[1].setOpacity(this.isSecond ? 1 : 0);
    this.title();
  }

  title() {
    const abouts = this.abouts();
    const isOneSize = new Set(abouts.map((about) => about && size(about))).size === 1;
    const names = abouts.map((about) => (about ? `${about.name}${isOneSize ? "" : `, ${size(about)}`}` : "gone"));
    if (this.mode === "side") names.forEach((name, number) => setText(this.made[number].name, name));
    else if (this.mode === "flicker") setText(this.made[0].name, names[this.isSecond ? 1 : 0]);
    else setText(this.made[0].name, `${names[0]} − ${names[1]}`);
  }

  update() {
    this.title();
    this.show();
  }

  show() {
    const abouts = this.abouts();
    this.tellFrames(Math.max(...abouts.map((about) => (about && about.frames) || 1)));
    abouts.forEach((about, number) => {
      if (about && about.width) this.layers[number].show(about, Math.min(this.frame, (about.frames || 1) - 1));
    });
  }

  leave() {
    clearInterval(this.turning);
    super.leave();
  }
}

// Where we are, and what is new

function route() {
  if (!state) return;
  const [what, ...keys] = location.hash.replace(/^#\/?/, "").split("/");
  if (screen) screen.leave();
  if (what === "store" && keys[0]) screen = new StoreView(keys[0]);
  else if (what === "compare" && keys[1]) screen = new Comparison(keys.slice(0, 2), keys[2]);
  else if (state.is_store && state.stores.length) screen = new StoreView(state.stores[0].key);
  else screen = gallery();
  update();
}

function update() {
  if (!state || !screen) return;
  setText(document.getElementById("place"), [state.name, ...(state.is_store ? [] : screen.names())].join(" / "));
  const counts = {};
  for (const about of state.stores) counts[about.state] = (counts[about.state] || 0) + 1;
  setText(document.getElementById("tally"), state.is_store ? "" : Object.entries(counts).map(([name, count]) => `${count} ${name}`).join(", "));
  const button = document.getElementById("compare");
  button.hidden = chosen.size === 0 || location.hash.startsWith("#/compare");
  button.disabled = chosen.size !== 2;
  setText(button, chosen.size === 2 ? "Compare two" : "Compare: choose one more");
  document.title = state.name ? `${state.name} · Frieze` : "Frieze";
  screen.update();
}

async function poll() {
  if (published) {
    state = JSON.parse(published.textContent);
    route();
    return;
  }
  let pause = document.hidden ? 10000 : 3000;
  try {
    const answer = await fetch("state.json", { cache: "no-cache" });
    if (!answer.ok) throw new Error(String(answer.status));
    const isFirst = !state;
    state = await answer.json();
    document.getElementById("lost").hidden = true;
    if (isFirst) route();
    else update();
    if (!state.is_live) return;
    if (!document.hidden && state.stores.some((about) => ["running", "unseen"].includes(about.state))) pause = 1000;
  } catch (error) {
    document.getElementById("lost").hidden = false;
  }
  setTimeout(poll, pause);
}

const help = document.getElementById("help");
document.getElementById("keys").addEventListener("click", () => help.showModal());
document.getElementById("compare").addEventListener("click", () => {
  const keys = [...chosen];
  if (keys.length === 2) location.hash = `#/compare/${keys[0]}/${keys[1]}`;
});
addEventListener("hashchange", route);
addEventListener("keydown", (event) => {
  const isTyping = event.target.closest("input, select, summary, dialog, button") && [" ", "Enter", "ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown"].includes(event.key);
  if (event.ctrlKey || event.metaKey || event.altKey || isTyping || help.open) return;
  if (event.key === "?") help.showModal();
  else if (event.key === "Escape" && !document.fullscreenElement) location.hash = "#/";
  else if (!screen || !screen.key(event)) return;
  event.preventDefault();
});
poll();
