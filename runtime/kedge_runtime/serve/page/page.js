"use strict";

const $ = (id) => document.getElementById(id);
const FEW = 12;  // classes that fit on buttons; more are typed
const ROWS = 200;
const percent = (share) => `${(100 * share).toFixed(1)} %`;
let after = 0;
let classes = [];

function make(tag, props, ...children) {
  const node = Object.assign(document.createElement(tag), props);
  node.append(...children);
  return node;
}

async function ask(path, options) {
  const answer = await fetch(path, {signal: AbortSignal.timeout(10000), ...options});
  if (answer.status === 401) location.replace("login");
  const body = answer.status === 204 ? {} : await answer.json();
  if (!answer.ok) throw new Error(body.error);
  return body;
}

function say(text, bad) {
  if ($("status").textContent !== text) $("status").textContent = text;
  $("status").classList.toggle("bad", bad);
}

function showResult(result) {
  const name = result.label ?? `unknown (${result.best.name}?)`;
  if ($("label").textContent !== name) $("label").textContent = name;
  $("live").alt = `Live image: ${name}, ${percent(result.best.probability)}`;
  const shown = result.predictions.length ? result.predictions : [result.best];
  $("bars").replaceChildren(...shown.slice(0, 8).map((each) => {
    const fill = make("div", {className: "fill"});
    fill.style.width = `${100 * each.probability}%`;
    return make("li", {}, make("span", {textContent: each.name}),
      make("span", {textContent: percent(each.probability)}),
      make("div", {className: "track", ariaHidden: "true"}, fill));
  }));
}

function row(each) {
  // A video's times count from its first frame, a camera's from 1970.
  const moment = each.time < 1e8 ? `${each.time.toFixed(1)} s`
    : new Date(1000 * each.time).toLocaleTimeString();
  const time = make("time", {textContent: moment});
  if (each.kind) return make("li", {}, time, make("span", {className: "event", textContent: each.text}));
  return make("li", {}, time,
    make("span", {textContent: each.label ?? `unknown (${each.best}?)`}),
    make("span", {className: "share", textContent: percent(each.probability)}));
}

async function refresh() {
  try {
    const state = await ask(`v1/state?after=${after}`);
    if (state.number < after) after = 0;  // a new process counts anew
    else after = state.number;
    $("source").textContent = state.source;
    say(state.live ? "Live" : state.result ? "Source lost" : "Waiting for the source", !state.live);
    if (state.result) showResult(state.result);
    $("history").prepend(...state.history.map(row));
    while ($("history").childElementCount > ROWS) $("history").lastElementChild.remove();
    $("no-history").hidden = $("history").childElementCount > 0;
    if (state.live && $("live").hidden) look();
    if (state.unsure && $("unsure-section").hidden) {
      $("unsure-section").hidden = false;
      watchUnsure();
    }
  } catch (error) {
    say("No connection", true);
  }
  setTimeout(refresh, document.hidden ? 5000 : 500);
}

function look() {
  $("live").hidden = false;
  $("blank").hidden = true;
  $("live").src = `live.mjpg?${Date.now()}`;
}

$("live").addEventListener("error", () => {
  $("live").hidden = true;
  $("blank").hidden = false;
});

function card(name) {
  const item = make("li", {});
  const settle = async (work, told) => {
    try {
      const done = await work();
      $("labelled").textContent = told(done);
    } catch (error) {
      $("labelled").textContent = error.message;
    }
    const next = item.nextElementSibling ?? item.previousElementSibling;
    item.remove();
    (next?.querySelector("button, input") ?? $("unsure-title")).focus();
    unsure();
  };
  const path = `v1/unsure/${encodeURIComponent(name)}`;
  const choose = (id) => settle(
    () => ask(`${path}/label`, {method: "POST", body: JSON.stringify({label: id})}),
    (done) => `Labelled ${done.folder}`);
  const discard = make("button", {className: "quiet", textContent: "Discard", type: "button"});
  discard.addEventListener("click", () => settle(() => ask(path, {method: "DELETE"}), () => "Discarded"));
  item.dataset.name = name;
  item.append(make("img", {src: path, alt: `Unsure image ${name}`, loading: "lazy"}),
    make("div", {className: "choices", role: "group", ariaLabel: `Label of ${name}`},
      ...chooser(choose), discard));
  return item;
}

function chooser(choose) {
  if (classes.length <= FEW) {
    return classes.map((each) => {
      const button = make("button", {textContent: each.name, type: "button"});
      button.addEventListener("click", () => choose(each.id));
      return button;
    });
  }
  const input = make("input", {placeholder: "Label", ariaLabel: "Label"});
  input.setAttribute("list", "classes");
  const button = make("button", {className: "main", textContent: "Label", type: "button"});
  const pick = () => {
    const found = classes.find((each) => each.name === input.value.trim());
    if (found) choose(found.id);
    else $("labelled").textContent = `No class is called ${input.value}`;
  };
  button.addEventListener("click", pick);
  input.addEventListener("keydown", (event) => { if (event.key === "Enter") pick(); });
  return [input, button];
}

async function unsure() {
  try {
    const found = await ask("v1/unsure");
    classes = found.classes;
    $("unsure-title").tabIndex = -1;
    $("unsure-count").textContent = found.count ? `(${found.count})` : "";
    $("no-unsure").hidden = found.count > 0;
    if (classes.length > FEW && !$("classes").childElementCount) {
      $("classes").append(...classes.map((each) => make("option", {value: each.name})));
    }
    const shown = new Map([...$("unsure").children].map((item) => [item.dataset.name, item]));
    for (const [name, item] of shown) if (!found.images.includes(name)) item.remove();
    for (const name of found.images) if (!shown.has(name)) $("unsure").append(card(name));
  } catch (error) {
    $("labelled").textContent = error.message;
  }
}

function watchUnsure() {
  unsure();
  setInterval(unsure, 5000);
}

refresh();
