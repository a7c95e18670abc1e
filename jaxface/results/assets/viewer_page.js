// The page around the 3D view: fills it from the data inside the file.
const data = JSON.parse(document.getElementById("data").textContent);
const byId = id => document.getElementById(id);
const still = matchMedia("(prefers-reduced-motion: reduce)").matches;

// ---- small helpers for the page -------------------------------------------------------------------------------------
function element(tag, properties = {}, ...children) {
  const node = Object.assign(document.createElement(tag), properties);
  node.append(...children);
  return node;
}
function choice(box, names, chosen, choose) {
  const buttons = names.map(name => element("button", { textContent: name, type: "button", onclick: () => pick(name) }));
  const pick = name => {
    buttons.forEach((button, i) => button.setAttribute("aria-pressed", names[i] === name));
    choose(name);
  };
  box.replaceChildren(...buttons);
  pick(chosen);
}
function compare(box, before, after) {
  const slider = element("input", { type: "range", min: 0, max: 1000, value: 500, ariaLabel: "compare" });
  slider.oninput = () => box.style.setProperty("--cut", slider.value / 10 + "%");
  if (!box.childElementCount) box.replaceChildren(element("img"), element("img"), slider, element("i"));
  const [below, above] = box.children;
  Object.assign(below, { src: before[1], alt: before[0], draggable: false });
  Object.assign(above, { src: after[1], alt: after[0], draggable: false });
}
function rows(table, entries) {
  table.replaceChildren(...entries.map(cells => element("tr", {}, ...cells.map(cell => element("td", {}, cell)))));
}
function decode(text, Type) {
  return new Type(Uint8Array.from(atob(text), letter => letter.charCodeAt(0)).buffer);
}

// ---- the page -------------------------------------------------------------------------------------------------------
document.title = data.title + " \u00b7 jaxface";
byId("title").textContent = data.title;
byId("subtitle").textContent = data.subtitle;
const view = createView(byId("canvas"), data.topology, data.blendshapes);
if (view) choice(byId("looks"), ["Texture", "Clay", "Parts", "Mesh"], "Texture", name => view.look(name));

// ---- expression: sliders, and a little performance ------------------------------------------------------------------
const expressionPanel = (() => {
  const names = data.blendshapes?.names ?? [], [low, high] = data.blendshapes?.limits ?? [0, 1];
  if (!view || !names.length) { byId("expression").remove(); return null; }
  const plain = name => name.replace(/_L$/, "Left").replace(/_R$/, "Right");
  const find = ending => names.findIndex(name => plain(name).toLowerCase() === ending.toLowerCase());
  const pair = name => [name + "Left", name + "Right"];
  // Each scene: what moves, how far (of the way to the upper limit), for how many seconds.
  const blink = [pair("eyeBlink"), 1, 0.35];
  let scenes = [
    blink, [[...pair("mouthSmile"), ...pair("cheekSquint")], 0.85, 1.6], [["browInnerUp", ...pair("browOuterUp"), ...pair("eyeWide")], 0.9, 1.4],
    [["jawOpen"], 0.6, 1.3], blink, [["mouthPucker"], 0.9, 1.3], [[...pair("browDown"), ...pair("noseSneer")], 0.9, 1.4],
    [["mouthFunnel", "jawOpen"], 0.4, 0.9], [["jawOpen"], 0.35, 0.6], blink, [pair("mouthFrown"), 0.9, 1.4], [["mouthLeft"], 0.7, 1.1],
    [["mouthRight"], 0.7, 1.1], [["cheekPuff"], 0.8, 1.4],
  ].map(([moved, share, seconds]) => [moved.map(find).filter(e => e >= 0), share, seconds]).filter(([moved]) => moved.length);
  if (!scenes.length) scenes = names.slice(0, 12).map((_, e) => [[e], 0.67, 1.5]);
  const starts = [];
  const length = scenes.reduce((time, scene) => { starts.push(time); return time + 0.85 * scene[2]; }, 0) + 0.8;

  let face = null, weights = [], begun = null;
  const inputs = names.map((name, e) => element("input", { type: "range", oninput: () => { stop(); weights[e] = +inputs[e].value; view.express(weights); } }));
  const readable = name => plain(name).replace(/([a-z])([A-Z])/g, "$1 $2").replaceAll("_", " ").toLowerCase();
  byId("sliders").replaceChildren(...names.map((name, e) => element("label", { title: name }, element("span", {}, readable(name)), inputs[e])));
  const express = wanted => {
    weights = wanted;
    inputs.forEach((input, e) => { input.value = weights[e]; });
    view.express(weights);
  };
  const stop = () => { begun = null; byId("play").textContent = "Animate"; byId("play").setAttribute("aria-pressed", false); };
  const tick = time => {
    if (begun === null) return;
    if (Number.isNaN(begun)) begun = time;
    const now = (time - begun) / 1000 % length, next = [...face.weights];
    scenes.forEach(([moved, share, seconds], i) => {
      const phase = (now - starts[i]) / seconds;
      if (phase <= 0 || phase >= 1) return;
      const amount = Math.sin(Math.PI * phase) ** 2;
      for (const e of moved) next[e] += amount * Math.max(0, share * high - next[e]);
    });
    express(next);
    requestAnimationFrame(tick);
  };
  byId("play").onclick = () => {
    if (begun !== null) { stop(); return; }
    begun = NaN;
    byId("play").textContent = "Stop";
    byId("play").setAttribute("aria-pressed", true);
    requestAnimationFrame(tick);
  };
  byId("fitted").onclick = () => { stop(); express([...face.weights]); };
  byId("neutral").onclick = () => { stop(); express(names.map(() => 0)); };
  return {
    show(next) {
      stop();
      face = next;
      inputs.forEach((input, e) => Object.assign(input, { min: Math.min(low, face.weights[e]), max: Math.max(high, face.weights[e]), step: "any", value: face.weights[e] }));
      weights = [...face.weights];
    },
  };
})();

// ---- one face of the photo ------------------------------------------------------------------------------------------
let picture = null;
function show(face) {
  if (view) view.show(face);
  if (expressionPanel) expressionPanel.show(face);
  const [before, ...others] = face.pictures, names = others.map(entry => entry[0]);
  if (!names.includes(picture)) picture = names[0];
  choice(byId("pictures"), names, picture, name => { picture = name; compare(byId("crop"), before, others[names.indexOf(name)]); });
  rows(byId("measures"), face.measures);
  byId("files").replaceChildren(...face.files.map(([name, href]) => element("a", { textContent: name, href })));
  byId("iou").replaceChildren(...face.iou.map(([name, value, color]) => {
    const swatch = element("span", { className: "swatch" }), fill = element("span");
    swatch.style.background = color;
    fill.style.width = 100 * (value ?? 0) + "%";
    return element("tr", {}, element("td", {}, swatch, name), element("td", { className: "meter" }, element("div", {}, fill)),
                   element("td", {}, value === null ? "not visible" : value.toFixed(2)));
  }));
}
const tabs = data.faces.map(face => {
  const tab = element("button", { type: "button", onclick: () => { tabs.forEach(other => other.setAttribute("aria-pressed", other === tab)); show(face); } },
                      element("img", { src: face.pictures[0][1], alt: "" }), face.label);
  return tab;
});
byId("faces").replaceChildren(...tabs);
byId("faces").hidden = tabs.length < 2;
if (tabs.length < 2) byId("faces").style.display = "none";
tabs[0].click();
if (data.photo.length) compare(byId("photo"), ...data.photo); else byId("whole").remove();
rows(byId("settings"), data.settings);
