/* Drawing: SVG elements on a grid of tokens. One token is T units wide. Colors are the style sheet's. */
"use strict";

const Draw = (() => {
  const T = 20;
  const NAMESPACE = "http://www.w3.org/2000/svg";

  /** An SVG element with attributes and children. */
  function el(name, attributes = {}, ...children) {
    const element = document.createElementNS(NAMESPACE, name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    element.append(...children.filter((child) => child !== null));
    return element;
  }

  const group = (attributes, ...children) => el("g", attributes, ...children);

  /** Empties an <svg>, makes it a board of rows x columns tokens, and draws on it. */
  function board(svg, { rows, columns, label, margin = 4 }, ...children) {
    const [width, height] = [columns * T + 2 * margin, rows * T + 2 * margin];
    svg.setAttribute("viewBox", `${-margin} ${-margin} ${width} ${height}`);
    svg.style.setProperty("--ratio", width / height);
    describe(svg, label);
    svg.replaceChildren(...children.filter((child) => child !== null));
    return svg;
  }

  /** What a picture shows, in words, for those who do not see it. */
  function describe(svg, label) {
    if (!svg.hasAttribute("role")) svg.setAttribute("role", "img");
    svg.setAttribute("aria-label", label);
  }

  const box = ([row, column], [rows, columns], inset = 0) => ({
    x: column * T + inset,
    y: row * T + inset,
    width: Math.max(columns * T - 2 * inset, 0),
    height: Math.max(rows * T - 2 * inset, 0),
  });

  /** A rectangle of tokens. */
  const rect = (from, size, cls, inset = 0) => el("rect", { class: cls, ...box(from, size, inset) });

  /** A part of the picture with its padding, from one place on the grid, drawn at another. */
  function scene(from, size, to = from) {
    const source = box(from, size);
    const view = `${source.x} ${source.y} ${source.width} ${source.height}`;
    return el("svg", { ...box(to, size), viewBox: view, class: "scene" }, el("use", { href: "#scene" }));
  }

  /** Something drawn on the whole grid, of which only a part is shown, at another place. */
  function part(drawing, from, size, to) {
    const source = box(from, size);
    const view = `${source.x} ${source.y} ${source.width} ${source.height}`;
    return el("svg", { ...box(to, size), viewBox: view }, drawing);
  }

  /** The lines between tokens. */
  function grid(rows, columns) {
    let d = "";
    for (let row = 0; row <= rows; row++) d += `M0 ${row * T}H${columns * T}`;
    for (let column = 0; column <= columns; column++) d += `M${column * T} 0V${rows * T}`;
    return el("path", { class: "grid", d });
  }

  /** The borders of windows that are given along each axis as [[start, length], ...]. */
  function borders([down, across], cls = "") {
    const ends = (along) => along[along.length - 1][0] + along[along.length - 1][1];
    let d = "";
    for (const [start] of [...down, [ends(down)]]) d += `M0 ${start * T}H${ends(across) * T}`;
    for (const [start] of [...across, [ends(across)]]) d += `M${start * T} 0V${ends(down) * T}`;
    return group({ class: `borders ${cls}` }, el("path", { class: "under", d }), el("path", { class: "over", d }));
  }

  /** Regular windows of a cut, as borders takes them. */
  const even = (of) =>
    of.counts.map((count, axis) => Array.from({ length: count }, (_, i) => [i * of.window[axis], of.window[axis]]));

  /** Tokens filled. */
  function cells(tokens, cls) {
    const d = tokens.map(([row, column]) => `M${column * T} ${row * T}h${T}v${T}h${-T}z`).join("");
    return el("path", { class: cls, d });
  }

  /** The outline of a set of tokens. */
  function outline(tokens, cls) {
    const inside = new Set(tokens.map(String));
    let d = "";
    for (const [row, column] of tokens) {
      const [x, y] = [column * T, row * T];
      if (!inside.has(`${row - 1},${column}`)) d += `M${x} ${y}h${T}`;
      if (!inside.has(`${row + 1},${column}`)) d += `M${x} ${y + T}h${T}`;
      if (!inside.has(`${row},${column - 1}`)) d += `M${x} ${y}v${T}`;
      if (!inside.has(`${row},${column + 1}`)) d += `M${x + T} ${y}v${T}`;
    }
    return group({ class: `outline ${cls}` }, el("path", { class: "under", d }), el("path", { class: "over", d }));
  }

  /** Everything but some tokens, dimmed, and the tokens outlined. */
  function spotlight(rows, columns, tokens, cls = "mixed") {
    const holes = tokens.map(([row, column]) => `M${column * T} ${row * T}v${T}h${T}v${-T}z`).join("");
    const veil = el("path", { class: "veil", d: `M0 0H${columns * T}V${rows * T}H0z${holes}`, "fill-rule": "evenodd" });
    return group({}, veil, outline(tokens, cls));
  }

  const middle = ([row, column]) => [(column + 0.5) * T, (row + 0.5) * T];

  /** Lines from a token to others: it looks at them. */
  function fan(token, tokens, cls = "") {
    const [x, y] = middle(token);
    const d = tokens
      .map((other) => middle(other))
      .map(([to, down]) => `M${x} ${y}L${to} ${down}`)
      .join("");
    return group({ class: `fan ${cls}` }, el("path", { class: "under", d }), el("path", { class: "over", d }));
  }

  /** The chosen token. */
  function chosen(token) {
    return group({ class: "chosen" }, rect(token, [1, 1], "under"), rect(token, [1, 1], "over"));
  }

  /** A round mark on a token. `share` is of the token's area. */
  function dot(token, cls, share = 0.3) {
    const [cx, cy] = middle(token);
    return el("circle", { class: `dot ${cls}`, cx, cy, r: Math.sqrt(share / Math.PI) * T });
  }

  /** Text on a dark chip, in the middle of an area. `size` is in tokens. */
  function chip(from, area, text, size = 0.8) {
    const [x, y] = middle([from[0] + area[0] / 2 - 0.5, from[1] + area[1] / 2 - 0.5]);
    const [height, width] = [size * T * 1.25, size * T * (0.62 * String(text).length + 0.5)];
    return group(
      { class: "chip" },
      el("rect", { x: x - width / 2, y: y - height / 2, width, height, rx: height / 4 }),
      el(
        "text",
        { x, y, "font-size": size * T, "text-anchor": "middle", "dominant-baseline": "central" },
        String(text),
      ),
    );
  }

  /** Text without a chip. */
  function text([row, column], words, { size = 0.7, cls = "", anchor = "middle" } = {}) {
    const [x, y] = middle([row, column]);
    const attributes = {
      x,
      y,
      class: cls,
      "font-size": size * T,
      "text-anchor": anchor,
      "dominant-baseline": "central",
    };
    return el("text", attributes, String(words));
  }

  /** The windows of a cut after the shift, in the color of their kind. */
  function windowsByKind(of, cls = "") {
    const drawn = group({ class: `kinds ${cls}` });
    for (let row = 0; row < of.counts[0]; row++)
      for (let column = 0; column < of.counts[1]; column++) {
        const from = [row * of.window[0], column * of.window[1]];
        drawn.append(
          rect(from, of.window, "wash"),
          rect(from, of.window, `kind ${Windows.kindOf(of, [row, column])}`, 1.6),
        );
      }
    return drawn;
  }

  /** A table of pairs: a row for each token that looks, a column for each that it looks at. */
  function table(svg, mask, { label, row = null, column = null }) {
    const count = mask.length;
    const of = (value) => mask.flatMap((line, i) => line.flatMap((cell, j) => (cell === value ? [[i, j]] : [])));
    return board(
      svg,
      { rows: count, columns: count, label, margin: count / 3 },
      rect([0, 0], [count, count], "free"),
      cells(of(Windows.OTHER_PIECE), "masked"),
      count <= 36 ? grid(count, count) : null,
      row === null
        ? null
        : group({ class: "line" }, rect([row, 0], [1, count], "under"), rect([row, 0], [1, count], "over")),
      row === null || column === null ? null : chosen([row, column]),
    );
  }

  /** A line between the middles of two tokens. */
  function link(one, other, cls) {
    const [[x1, y1], [x2, y2]] = [middle(one), middle(other)];
    return group(
      { class: `link ${cls}` },
      el("line", { class: "under", x1, y1, x2, y2 }),
      el("line", { class: "over", x1, y1, x2, y2 }),
    );
  }

  /** The token of a board under a click. */
  function under(svg, event) {
    const at = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
    return [Math.floor(at.y / T), Math.floor(at.x / T)];
  }

  const ARROWS = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };

  /** Lets a board's tokens be chosen by pointer and by arrow keys. `limits` are its rows and columns now. */
  function choosable(svg, { limits, current, choose }) {
    svg.setAttribute("tabindex", "0");
    svg.setAttribute("role", "application");
    svg.setAttribute("aria-roledescription", "picture to choose from with the arrow keys");
    svg.classList.add("choosable");
    const put = (token) => choose(token.map((at, axis) => Math.min(Math.max(at, 0), limits()[axis] - 1)));
    svg.addEventListener("click", (event) => put(under(svg, event)));
    svg.addEventListener("keydown", (event) => {
      const by = ARROWS[event.key];
      if (!by) return;
      event.preventDefault();
      put(current().map((at, axis) => at + by[axis]));
    });
  }

  return {
    T,
    el,
    group,
    board,
    describe,
    box,
    rect,
    scene,
    part,
    grid,
    borders,
    even,
    cells,
    outline,
    spotlight,
    fan,
    link,
    chosen,
    dot,
    chip,
    text,
    windowsByKind,
    table,
    choosable,
  };
})();
