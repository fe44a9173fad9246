/* Step 9: what attention costs, in the paper's equations, and in a picture. */
"use strict";

const Cost = (() => {
  const byId = (id) => document.getElementById(id);
  const HEIGHT = 320;
  const FRAME = { left: 62, right: 34, top: 16, bottom: 44 };
  const SIDES = [4, 8, 16, 32, 64, 128]; // tokens along a side of a square picture

  /** Both equations, with letters, with numbers, and what comes out. */
  function equations(now, of) {
    const { dim, window } = now;
    const [own, full] = [Live.count(Windows.size(of.grid)), Live.count(Windows.size(of.padded))];
    const line = (title, cls, letters, numbers, macs) =>
      `<div class="equation ${cls}"><b>${title}</b><span>${letters}</span><span>${numbers}</span>` +
      `<strong>${Live.big(macs)}</strong></div>`;
    const tables = "4<var>NC</var>²";
    return (
      line(
        "All pairs",
        "all",
        `${tables} + 2<var>N</var>²<var>C</var>`,
        `4·${own}·${dim}² + 2·${own}²·${dim}`,
        Windows.globalMacs(of, dim),
      ) +
      line(
        "Windows",
        "windows",
        `${tables} + 2<var>M</var>²<var>NC</var>`,
        `4·${full}·${dim}² + 2·${window}²·${full}·${dim}`,
        Windows.windowMacs(of, dim),
      )
    );
  }

  /** Where so many tokens are, on a chart of this width. */
  const across = (width) => (tokens) => {
    const [least, most] = [SIDES[0] ** 2, SIDES[SIDES.length - 1] ** 2].map(Math.log);
    return FRAME.left + ((Math.log(tokens) - least) / (most - least)) * (width - FRAME.left - FRAME.right);
  };

  function chart(now, of) {
    const { dim } = now;
    const svg = byId("figure-cost");
    const width = Math.max(300, Math.min(svg.clientWidth, 640));
    const x = across(width);
    const square = (side) => Windows.cut({ ...of, grid: [side, side], shift: [0, 0] });
    const sides = Array.from({ length: 61 }, (_, i) => Math.round(SIDES[0] * 2 ** ((i / 60) * 5)));
    const aligned = [...new Set(sides.map((side) => Math.ceil(side / now.window) * now.window))].filter(
      (side) => side <= 128,
    );
    const [least, most] = [Windows.windowMacs(square(now.window), dim) / 4, Windows.globalMacs(square(128), dim)].map(
      Math.log,
    );
    const y = (macs) =>
      FRAME.top + (1 - (Math.log(macs) - least) / (most - least)) * (HEIGHT - FRAME.top - FRAME.bottom);
    const curve = (macs, at, cls) =>
      Draw.el("polyline", {
        class: `curve ${cls}`,
        points: at.map((side) => `${x(side * side)},${y(macs(square(side), dim))}`).join(" "),
      });
    const label = (words, cls, right, bottom) =>
      Draw.el("text", { class: `curve-name ${cls}`, x: right, y: bottom, "text-anchor": "end" }, words);
    // below the lower curve: where the words begin, the curve is lowest
    const end = width - FRAME.right;
    const start = aligned.find((side) => x(side * side) > end - 70);
    svg.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
    const [all, windows] = [Windows.globalMacs(of, dim), Windows.windowMacs(of, dim)];
    Draw.describe(
      svg,
      `Multiply-adds against tokens. Here: ${Live.big(all)} for all pairs, ${Live.big(windows)} in windows.`,
    );
    const here = Math.min(Math.max(x(Windows.size(of.grid)), FRAME.left), width - FRAME.right);
    svg.replaceChildren(
      ...axes(x, y, width, [least, most]),
      curve(Windows.globalMacs, sides, "all"),
      curve(Windows.windowMacs, aligned, "windows"),
      label("all pairs", "all", x(90 ** 2) - 8, y(Windows.globalMacs(square(90), dim)) - 6),
      label("windows", "windows", end, y(Windows.windowMacs(square(start), dim)) + 18),
      Draw.el("line", { class: "here", x1: here, x2: here, y1: y(windows), y2: y(all) }),
      Draw.el("circle", { class: "point all", cx: here, cy: y(all), r: 6 }),
      Draw.el("rect", { class: "point windows", x: here - 5.5, y: y(windows) - 5.5, width: 11, height: 11 }),
    );
  }

  function axes(x, y, width, [least, most]) {
    const parts = [];
    for (const side of SIDES) {
      const at = x(side * side);
      parts.push(Draw.el("line", { class: "tick", x1: at, x2: at, y1: FRAME.top, y2: HEIGHT - FRAME.bottom }));
      parts.push(
        Draw.el(
          "text",
          { class: "tick-name", x: at, y: HEIGHT - FRAME.bottom + 17, "text-anchor": "middle" },
          width < 480 ? `${side}²` : `${side} × ${side}`,
        ),
      );
    }
    parts.push(
      Draw.el(
        "text",
        { class: "tick-name", x: (FRAME.left + width) / 2, y: HEIGHT - 8, "text-anchor": "middle" },
        "tokens",
      ),
    );
    for (let power = Math.ceil(least / Math.log(10)); power * Math.log(10) < most; power++) {
      const at = y(10 ** power);
      const name =
        power >= 9 ? `${10 ** (power - 9)} bn` : power >= 6 ? `${10 ** (power - 6)} M` : Live.count(10 ** power);
      parts.push(Draw.el("line", { class: "tick", x1: FRAME.left, x2: width - FRAME.right, y1: at, y2: at }));
      parts.push(Draw.el("text", { class: "tick-name", x: FRAME.left - 7, y: at + 4, "text-anchor": "end" }, name));
    }
    return parts;
  }

  function connect() {
    Live.say("equations", equations);
    Live.say("costCaption", (now, of) => {
      const ratio = Windows.globalMacs(of, now.dim) / Windows.windowMacs(of, now.dim);
      const here =
        ratio >= 1 ? `${Live.times(ratio)} fewer multiply-adds` : `${Live.times(1 / ratio)} more, since of padding`;
      return (
        `Multiply-adds of one block’s attention. With your setting, windows need ${here}. The larger the picture, ` +
        "the more they save: " +
        "their curve is a straight line of slope 1, and the other bends up to slope 2. Both axes are logarithmic."
      );
    });
    State.figure(chart);
  }

  return { connect };
})();
