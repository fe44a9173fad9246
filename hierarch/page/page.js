"use strict";
// Draws the windows and masks of a block from the data that the page holds (hierarch/page/cuts.py).

const NAMES = { k00: "inside", k01: "last column", k10: "last row", k11: "corner" };
const MOST = { hairs: 130, letters: 16, pairs: 700 }; // beyond these, lines would only be gray

const times = (count) => Array.from({ length: count }, (_, i) => i);
const rect = (x, y, w, h) => `M${x} ${y}h${w}v${h}h${-w}z`;

function element(name, attributes = {}, text = "") {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.textContent = text;
  return made;
}

// Consecutive positions of an axis that are in one window: [first, length, window].
function runs(axis) {
  const found = [];
  axis.windows.forEach((window, i) => {
    const last = found.at(-1);
    if (last && last[2] === window) last[1] += 1;
    else found.push([i, 1, window]);
  });
  return found;
}

// The kind of each window: kinds differ by the axes along which a window is the last.
function kindOf(cut) {
  const splits = cut.axes.map((_, i) => cut.kinds.some((kind) => kind.last[i]));
  return (places) =>
    cut.kinds.find((kind) =>
      kind.last.every((last, i) => last === (splits[i] && places[i] === cut.axes[i].count - 1)),
    );
}

const nameOf = (kind) => "k" + kind.last.map(Number).join("");

class Viewer {
  constructor(root) {
    this.root = root;
    this.data = JSON.parse(document.getElementById(root.dataset.of).textContent);
    this.slider = root.querySelector("input");
    this.svgs = {};
    for (const name of ["map", "slots", "window", "mask"]) this.svgs[name] = root.querySelector(`.${name} svg`);
    const masked = this.data.blocks.findIndex(
      ({ cut }) => cut !== null && this.data.cuts[cut].kinds.length > 1,
    );
    this.at = [0.97, 0.97]; // the chosen token, as shares of the map's height and width
    this.strip();
    this.slider.value = masked >= 0 ? masked : 1; // where nothing is masked, still a shifted block
    this.slider.addEventListener("input", () => this.draw());
    this.listen();
    root.hidden = false;
    this.draw();
  }

  get block() {
    return this.data.blocks[this.slider.value];
  }

  get token() {
    return this.at.map((share, i) => Math.floor(share * this.block.grid[i]));
  }

  choose(token) {
    this.at = token.map((place, i) => {
      const side = this.block.grid[i];
      return (Math.min(Math.max(place, 0), side - 1) + 0.5) / side;
    });
    this.highlight();
  }

  strip() {
    const strip = this.root.querySelector(".strip");
    const stages = [...new Set(this.data.blocks.map((block) => block.stage))];
    for (const stage of stages) {
      const own = strip.appendChild(document.createElement("div"));
      const cells = own.appendChild(document.createElement("div"));
      cells.className = "cells";
      this.data.blocks.forEach((block, i) => {
        if (block.stage !== stage) return;
        const cell = cells.appendChild(document.createElement("span"));
        const cut = block.cut === null ? null : this.data.cuts[block.cut];
        cell.className = cut ? (cut.kinds.length > 1 ? "masked" : "windowed") : "";
        cell.addEventListener("click", () => {
          this.slider.value = i;
          this.draw();
        });
      });
      own.style.flexGrow = cells.childElementCount;
      own.style.flexBasis = 0;
      const name = own.appendChild(document.createElement("div"));
      name.className = "name";
      name.append(Object.assign(document.createElement("span"), { textContent: "stage " }), stage);
    }
    // the thumb's middle, 20px wide, over the middle of its cell
    const share = 100 / this.data.blocks.length;
    this.slider.style.width = `calc(${100 - share}% + 20px)`;
    this.slider.style.marginLeft = `calc(${share / 2}% - 10px)`;
  }

  listen() {
    const { map, slots } = this.svgs;
    const point = (event) => {
      const place = new DOMPoint(event.clientX, event.clientY).matrixTransform(
        map.getScreenCTM().inverse(),
      );
      this.choose([Math.floor(place.y), Math.floor(place.x)]);
    };
    map.addEventListener("pointermove", (event) => event.pointerType === "mouse" && point(event));
    map.addEventListener("click", point);
    slots.addEventListener("click", (event) => {
      const place = new DOMPoint(event.clientX, event.clientY).matrixTransform(
        slots.getScreenCTM().inverse(),
      );
      const found = this.fromSlot(place);
      if (found) this.choose(found);
    });
    map.addEventListener("keydown", (event) => {
      const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
      if (!step[event.key]) return;
      event.preventDefault();
      this.choose(this.token.map((place, i) => place + step[event.key][i]));
    });
  }

  draw() {
    const { block, slider } = this;
    const [height, width] = block.grid;
    this.cut = block.cut === null ? null : this.data.cuts[block.cut];
    const text =
      `${Number(slider.value) + 1} of ${this.data.blocks.length}: stage ${block.stage}, ` +
      `block ${block.block}, ${block.mixer}, map ${height} × ${width}`;
    this.root.querySelector("output").textContent = text;
    slider.setAttribute("aria-valuetext", text);
    this.root
      .querySelectorAll(".cells span")
      .forEach((cell, i) => cell.classList.toggle("now", i === Number(slider.value)));
    for (const name of ["slots", "window", "mask"]) this.root.querySelector(`.${name}`).hidden = !this.cut;
    this.drawMap(height, width);
    if (this.cut) this.drawSlots();
    this.drawLegend();
    this.highlight();
  }

  drawMap(height, width) {
    const parts = [element("path", { class: "back", d: rect(0, 0, width, height) })];
    if (this.cut) {
      const kind = kindOf(this.cut);
      const [rows, columns] = this.cut.axes.map(runs);
      const paths = {};
      for (const [y, h, wy] of rows)
        for (const [x, w, wx] of columns) {
          const name = nameOf(kind([wy, wx]));
          paths[name] = (paths[name] ?? "") + rect(x, y, w, h);
        }
      for (const [name, d] of Object.entries(paths)) parts.push(element("path", { class: name, d }));
      if (Math.max(height, width) <= MOST.hairs) parts.push(this.hairs(height, width));
      const edges =
        rows.map(([y]) => `M0 ${y}h${width}`).join("") +
        columns.map(([x]) => `M${x} 0v${height}`).join("");
      parts.push(element("path", { class: "edges", d: edges + `M0 ${height}h${width}v${-height}` }));
    } else if (Math.max(height, width) <= MOST.hairs) parts.push(this.hairs(height, width));
    this.fill("map", width, height, parts);
  }

  hairs(height, width) {
    const d =
      times(height).map((y) => `M0 ${y}h${width}`).join("") +
      times(width).map((x) => `M${x} 0v${height}`).join("");
    return element("path", { class: "hairs", d });
  }

  // Where a slot of a window is drawn, along an axis: windows stand a little apart.
  place(i, window, slot) {
    const { window: size, count } = this.cut.axes[i];
    return window * (size + (count > 1 ? this.gap : 0)) + slot;
  }

  fromSlot(point) {
    const token = [point.y, point.x].map((where, i) => {
      const axis = this.cut.axes[i];
      return axis.windows.findIndex((window, position) => {
        const from = this.place(i, window, axis.slots[position]);
        return where >= from && where < from + 1;
      });
    });
    return token.includes(-1) ? null : token;
  }

  drawSlots() {
    const [rows, columns] = this.cut.axes;
    this.gap = Math.max(rows.window, columns.window) * 0.16;
    const windows = times(rows.count).flatMap((wy) => times(columns.count).map((wx) => [wy, wx]));
    const [height, width] = this.cut.axes.map((axis, i) => this.place(i, axis.count - 1, axis.window));
    const letters = Math.max(rows.count, columns.count) <= MOST.letters;
    const at = (places) => places.map((window, i) => this.place(i, window, 0));
    this.fill("slots", width, height, this.drawn(windows, at, letters));
  }

  drawWindow(kind, places) {
    const [rows, columns] = this.cut.axes;
    const parts = this.drawn([places], () => [0, 0], true);
    parts.splice(-1, 0, this.hairs(rows.window, columns.window));
    this.fill("window", columns.window, rows.window, parts);
    this.root.querySelector(".window figcaption").textContent =
      `Window (${places.join(", ")}), enlarged.` + (new Set(kind.regions).size > 1 ? " Letters: its regions." : "");
  }

  // Some windows, each at the place that a function of it says.
  drawn(windows, at, withLetters) {
    const [rows, columns] = this.cut.axes;
    const held = this.cut.axes.map((axis) => new Set(axis.windows.map((w, i) => `${w} ${axis.slots[i]}`)));
    const kind = kindOf(this.cut);
    const paths = { empty: "", regions: "", edges: "" };
    const letters = [];
    for (const places of windows) {
      const own = kind(places);
      const name = nameOf(own);
      const [y, x] = at(places);
      const box = rect(x, y, columns.window, rows.window);
      paths[name] = (paths[name] ?? "") + box;
      paths.edges += box;
      for (const sy of times(rows.window))
        for (const sx of times(columns.window))
          if (!held[0].has(`${places[0]} ${sy}`) || !held[1].has(`${places[1]} ${sx}`))
            paths.empty += rect(x + sx, y + sy, 1, 1);
      paths.regions += this.borders(own, x, y);
      if (withLetters) letters.push(...this.letters(own, x, y));
    }
    const { empty, regions, edges, ...kinds } = paths;
    const parts = Object.entries({ ...kinds, empty, regions, edges }).map(([name, d]) =>
      element("path", { class: name, d }),
    );
    return [...parts, ...letters];
  }

  // The lines between slots of different regions, in a window at (x, y).
  borders(kind, x, y) {
    const [rows, columns] = this.cut.axes;
    let d = "";
    kind.regions.forEach((region, slot) => {
      const [sy, sx] = [Math.floor(slot / columns.window), slot % columns.window];
      if (sx + 1 < columns.window && kind.regions[slot + 1] !== region) d += `M${x + sx + 1} ${y + sy}v1`;
      if (sy + 1 < rows.window && kind.regions[slot + columns.window] !== region)
        d += `M${x + sx} ${y + sy + 1}h1`;
    });
    return d;
  }

  letters(kind, x, y) {
    const sums = [];
    kind.regions.forEach((region, slot) => {
      const sum = (sums[region] ??= [0, 0, 0]);
      sum[0] += Math.floor(slot / this.cut.axes[1].window) + 0.5;
      sum[1] += (slot % this.cut.axes[1].window) + 0.5;
      sum[2] += 1;
    });
    if (sums.length < 2) return [];
    const size = this.cut.axes[1].window * 0.26;
    return sums.map(([sy, sx, count], region) =>
      element(
        "text",
        { class: "letter", x: x + sx / count, y: y + sy / count, "font-size": size },
        String.fromCharCode(65 + region),
      ),
    );
  }

  drawLegend() {
    const legend = this.root.querySelector(".legend");
    legend.replaceChildren();
    const add = (name, text) => {
      const item = legend.appendChild(document.createElement("li"));
      const swatch = item.appendChild(element("svg", { viewBox: "0 0 1 1", "aria-hidden": "true" }));
      swatch.append(element("path", { class: name, d: rect(0, 0, 1, 1) }));
      item.append(text);
    };
    if (!this.cut) return;
    for (const kind of this.cut.kinds) {
      const name = this.cut.kinds.length > 1 ? `${NAMES[nameOf(kind)]}, ` : "";
      add(nameOf(kind), `${name}${kind.count} window${kind.count > 1 ? "s" : ""}`);
    }
    add("token", "the chosen token");
    add("seen", "what it sees");
    if (this.cut.kinds.length > 1) add("apart", "in its window, but masked");
    if (this.cut.axes.some((axis) => axis.windows.length < axis.count * axis.window))
      add("empty", "a slot without a token: zeros");
  }

  // The chosen token, and the tokens of its window.
  highlight() {
    const [y, x] = this.token;
    const told = this.root.querySelector(".told");
    for (const svg of Object.values(this.svgs)) svg.querySelector(".chosen")?.remove();
    if (!this.cut) {
      this.over("map", [["token", rect(x, y, 1, 1)]]);
      told.textContent = `${this.block.mixer} does not work in windows.`;
      return;
    }
    const [rows, columns] = this.cut.axes;
    const [wy, wx] = [rows.windows[y], columns.windows[x]];
    const kind = kindOf(this.cut)([wy, wx]);
    const slotOf = (sy, sx) => sy * columns.window + sx;
    const own = slotOf(rows.slots[y], columns.slots[x]);
    const map = { apart: "", seen: "" };
    const slots = { apart: "", seen: "" };
    const window = { apart: "", seen: "" };
    let held = 0;
    rows.windows.forEach((of, ty) => {
      if (of !== wy) return;
      columns.windows.forEach((other, tx) => {
        if (other !== wx) return;
        const [sy, sx] = [rows.slots[ty], columns.slots[tx]];
        const name = kind.regions[slotOf(sy, sx)] === kind.regions[own] ? "seen" : "apart";
        held += 1;
        map[name] += rect(tx, ty, 1, 1);
        slots[name] += rect(this.place(1, wx, sx), this.place(0, wy, sy), 1, 1);
        window[name] += rect(sx, sy, 1, 1);
      });
    });
    this.over("map", [...Object.entries(map), ["token", rect(x, y, 1, 1)]]);
    const at = rect(this.place(1, wx, columns.slots[x]), this.place(0, wy, rows.slots[y]), 1, 1);
    this.over("slots", [...Object.entries(slots), ["token", at]]);
    this.drawWindow(kind, [wy, wx]);
    this.over("window", [
      ...Object.entries(window),
      ["token", rect(columns.slots[x], rows.slots[y], 1, 1)],
    ]);
    const size = kind.regions.length;
    const sees = kind.regions.filter((region) => region === kind.regions[own]).length;
    const which = this.cut.kinds.length > 1 ? `, a window of the kind “${NAMES[nameOf(kind)]}”` : "";
    const empty = size - held ? ` ${size - held} of them hold zeros, not tokens.` : "";
    told.textContent =
      `The token in row ${y}, column ${x} of the map is in window (${wy}, ${wx}) of ${rows.count} × ` +
      `${columns.count}${which}. It sees ${sees === size ? "all" : `${sees} of`} ${size} slots.${empty}`;
    this.drawMask(kind, own);
  }

  drawMask(kind, own) {
    const size = kind.regions.length;
    const masked = new Set(kind.regions).size > 1;
    if (this.maskOf !== kind) this.drawPairs(kind, size, masked);
    this.maskOf = kind;
    this.over("mask", [["row", rect(0, own, size, 1)]]);
  }

  drawPairs(kind, size, masked) {
    const caption = this.root.querySelector(".mask figcaption");
    const parts = [element("path", { class: "pairs", d: rect(0, 0, size, size) })];
    if (masked && size <= MOST.pairs) {
      let d = "";
      kind.regions.forEach((region, row) => {
        for (const [first, length, same] of runs({ windows: kind.regions.map((r) => r === region) }))
          if (!same) d += rect(first, row, length, 1);
      });
      parts.push(element("path", { class: "never", d }));
    }
    parts.push(element("path", { class: "edges", d: rect(0, 0, size, size) }));
    this.fill("mask", size, size, parts);
    caption.textContent = masked
      ? `The mask of this window: ${size} × ${size} pairs of slots. Dark pairs are kept apart. ` +
        "Outlined: the chosen token's row."
      : `No mask in this window: all ${size} × ${size} pairs of slots are free.`;
    if (masked && size > MOST.pairs) caption.textContent += " It is too large to be drawn.";
  }

  fill(name, width, height, parts) {
    this.svgs[name].setAttribute("viewBox", `0 0 ${width} ${height}`);
    this.svgs[name].replaceChildren(...parts);
  }

  over(name, paths) {
    const group = element("g", { class: "chosen" });
    group.append(...paths.filter(([, d]) => d).map(([of, d]) => element("path", { class: of, d })));
    this.svgs[name].append(group);
  }
}

function theme() {
  const button = document.querySelector(".theme");
  const prefers = matchMedia("(prefers-color-scheme: dark)");
  const root = document.documentElement;
  const isDark = () => (root.dataset.theme ?? (prefers.matches ? "dark" : "light")) === "dark";
  const show = () => {
    button.textContent = isDark() ? "Light" : "Dark";
    button.setAttribute("aria-label", `Show the page ${isDark() ? "light" : "dark"}`);
  };
  button.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    show();
  });
  prefers.addEventListener("change", show);
  button.hidden = false;
  show();
}

theme();
document.querySelectorAll(".viewer").forEach((root) => new Viewer(root));
addEventListener("beforeprint", () => {
  document.querySelectorAll("details").forEach((details) => (details.open = true));
});
