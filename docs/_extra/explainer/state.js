/* What the reader has set, and who draws it: sliders, presets, and figures that are drawn anew on a change. */
"use strict";

const State = (() => {
  const MOST = { rows: 56, columns: 56, window: 8 };
  const setting = {
    rows: 12,
    columns: 12,
    window: 4,
    shift: 2,
    dim: 96,
    token: [6, 6], // the chosen one
    kind: "bottom", // the chosen kind of window
    slot: 5, // the chosen place in a window of that kind
    pair: [5, 10], // a row and a column of its mask
  };
  const figures = [];
  let scheduled = false;

  /** The windows of the shifted block. */
  const cut = () =>
    Windows.cut({
      grid: [setting.rows, setting.columns],
      window: [setting.window, setting.window],
      shift: [setting.shift, setting.shift],
    });

  const within = (value, least, most) => Math.min(Math.max(Math.round(value), least), most);

  /** Changes some of the setting, keeps the rest possible, and draws. */
  function change(part) {
    const before = [setting.rows, setting.columns];
    Object.assign(setting, part);
    for (const name of ["rows", "columns"]) setting[name] = within(setting[name], 2, MOST[name]);
    setting.window = within(setting.window, 2, MOST.window);
    setting.shift = within(setting.shift, 0, setting.window - 1);
    // the chosen token stays at its place in the picture
    setting.token = [setting.rows, setting.columns].map((size, axis) =>
      within(Math.floor(((setting.token[axis] + 0.5) / before[axis]) * size), 0, size - 1),
    );
    const kinds = Windows.kinds(cut()).map(({ kind }) => kind);
    if (!kinds.includes(setting.kind)) setting.kind = kinds[kinds.length - 1];
    const places = setting.window ** 2;
    setting.slot = within(setting.slot, 0, places - 1);
    setting.pair = setting.pair.map((place) => within(place, 0, places - 1));
    draw();
  }

  /** Registers a figure: a function of the setting and the cut. */
  function figure(drawIt) {
    figures.push(drawIt);
  }

  /** Draws every figure, once a frame. */
  function draw() {
    if (scheduled) return;
    scheduled = true;
    requestAnimationFrame(() => {
      scheduled = false;
      drawNow();
    });
  }

  function drawNow() {
    const of = cut();
    for (const drawIt of figures) drawIt(setting, of);
    document.documentElement.dataset.drawn = String(Number(document.documentElement.dataset.drawn || 0) + 1);
  }

  const byId = (id) => document.getElementById(id);

  /** Padding for whole windows, along each axis. */
  const padding = () => cut().padded.map((length, axis) => length - cut().grid[axis]);

  /** The sizes that leave so much padding in as many windows. */
  function padded(by) {
    const size = (tokens) => Math.max(Math.ceil(tokens / setting.window) * setting.window - by, 2);
    return { rows: size(setting.rows), columns: size(setting.columns) };
  }

  function connect() {
    for (const name of ["rows", "columns", "window", "shift"])
      byId(name).addEventListener("input", (event) => change({ [name]: Number(event.target.value) }));
    byId("padding").addEventListener("input", (event) => change(padded(Number(event.target.value))));
    byId("dim").addEventListener("input", (event) => change({ dim: Number(event.target.value) }));
    const presets = byId("presets");
    presets.append(new Option("your own", ""), ...Tables.presets.map(({ name }, i) => new Option(name, i)));
    presets.addEventListener("change", () => {
      if (presets.value === "") return;
      const { grid, window, shift, dim } = Tables.presets[presets.value];
      change({ rows: grid[0], columns: grid[1], window: window[0], shift: shift[0], dim });
    });
    figure(show);
  }

  /** The sliders, as the setting has them. */
  function show(now, of) {
    byId("shift").max = now.window - 1;
    byId("padding").max = now.window - 1;
    for (const name of ["rows", "columns", "window", "shift", "dim"]) {
      byId(name).value = now[name];
      byId(`${name}-value`).textContent = now[name];
    }
    const [bottom, right] = padding();
    byId("padding").value = Math.max(bottom, right);
    byId("padding").setAttribute("aria-valuetext", `${bottom} rows and ${right} columns`);
    byId("padding-value").textContent = bottom === right ? bottom : `${bottom} / ${right}`;
    const isSet = ({ grid, window, shift }) =>
      grid[0] === now.rows && grid[1] === now.columns && window[0] === now.window && shift[0] === now.shift;
    const found = Tables.presets.findIndex(isSet);
    byId("presets").value = found < 0 ? "" : String(found);
    byId("warning").textContent = warning(now, of);
  }

  function warning(now, of) {
    if (of.counts.every((count) => count === 1)) return "One window covers the whole picture, so nothing is shifted.";
    if (now.shift === 0) return "Without a shift, windows never meet: see step 3.";
    if (of.counts.some((count) => count === 1))
      return "One window covers this side of the picture, so it is shifted along the other alone.";
    return "";
  }

  return { setting, cut, change, figure, draw, drawNow, connect };
})();
