/* Pictures of what people ask about the mask itself: how it is read, region numbers, and regions along an axis. */
"use strict";

const AskMask = (() => {
  const byId = (id) => document.getElementById(id);
  const PUBLISHED = [0, 1, 2, 3, 4, 5, 6, 7, 8];
  let numbers = PUBLISHED;

  /** One cell of the mask, and its row in the shape of the window. */
  function cell(now, of) {
    const mask = Windows.mask(of, now.kind);
    const places = Windows.places(of);
    const [row, column] = now.pair;
    const chosen = `row ${row}, column ${column}, ${mask[row][column]}`;
    const label = `The mask of a window of the kind ${Kinds.NAMES[now.kind]}. Chosen: ${chosen}.`;
    Draw.table(byId("figure-cell"), mask, { label, row, column });
    const [rows, columns] = of.window;
    const hidden = places.filter((_, i) => mask[row][i] !== 0);
    Draw.board(
      byId("figure-row"),
      {
        rows,
        columns,
        label: `What place ${row} of the window sees: ${places.length - hidden.length} of ${places.length} places.`,
        margin: 2,
      },
      ...Kinds.pieces(of, now.kind).map((piece) => Draw.scene(piece.from, piece.size, piece.within)),
      Draw.cells(hidden, "masked large"),
      Draw.grid(rows, columns),
      ...places.map((place, i) => Draw.chip(place, [1, 1], i, Math.min(0.34, 2.2 / columns))),
      Draw.chosen(places[row]),
      Draw.group(
        { class: "second" },
        Draw.rect(places[column], [1, 1], "under"),
        Draw.rect(places[column], [1, 1], "over"),
      ),
    );
  }

  function cellCaption(now, of) {
    const window = Windows.windowOf(of, now.kind);
    const [one, other] = now.pair.map((place) => Windows.tokenAt(of, window, Windows.places(of)[place]));
    const value = Windows.mask(of, now.kind)[now.pair[0]][now.pair[1]];
    const what =
      value === 0
        ? "They come from the same piece: <b>0</b>, they see each other."
        : "They come from different pieces: <b>−100</b>, masked.";
    const home = (token) =>
      Windows.isPadding(of, token) ? "which is padding" : `from ${Steps.name(token)} of the picture`;
    const [row, column] = now.pair;
    const homes = [one, other].map(home);
    const both =
      `Row ${row} of the mask is token ${row} of the window, ${homes[0]}; its column ${column} is token ${column}, ` +
      `${homes[1]} (where rows and columns are counted from 1).`;
    return `${both} ${what}`;
  }

  /** The regions after the shift, with a number on each, and the mask that the numbers give. */
  function regions(now, of) {
    const [rows, columns] = of.padded;
    const along = (axis) => {
      const [length, window, by] = [of.padded[axis], of.window[axis], of.shift[axis]];
      return [
        [0, length - window],
        [length - window, window - by],
        [length - by, by],
      ].filter(([, size]) => size > 0);
    };
    const name = (at) => numbers[Windows.regionOf(of, at)];
    const areas = along(0).flatMap(([row, height]) =>
      along(1).map(([column, width]) => ({ from: [row, column], size: [height, width] })),
    );
    Draw.board(
      byId("figure-regions"),
      {
        rows,
        columns,
        label: `${areas.length} regions after the shift, numbered ${areas.map(({ from }) => name(from)).join(", ")}.`,
      },
      rolledPicture(of),
      Draw.rect([0, 0], of.padded, "veil light"),
      Draw.borders([along(0), along(1)], "dashed"),
      Draw.borders(Draw.even(of)),
      ...areas.map(({ from, size }) =>
        Draw.chip(from, size, name(from), Math.min(rows / 13, 0.75 * Math.min(...size))),
      ),
    );
    const last = of.counts.map((windows) => windows - 1);
    const mask = Windows.maskByNumbers(of, last, name);
    Draw.table(byId("figure-numbered"), mask, { label: "The mask of the last window, made from the numbers." });
  }

  /** The picture after the cyclic shift. */
  const rolledPicture = (of) =>
    Draw.group({}, ...Windows.moved(of).map(({ from, size, to }) => Draw.scene(from, size, to)));

  function otherNumbers() {
    numbers = PUBLISHED.map((number) => [Math.random(), number])
      .sort(([a], [b]) => a - b)
      .map(([, number]) => 3 * number + 1);
    State.draw();
  }

  function regionsCaption(now, of) {
    const last = of.counts.map((windows) => windows - 1);
    const same =
      JSON.stringify(Windows.maskByNumbers(of, last, (at) => numbers[Windows.regionOf(of, at)])) ===
      JSON.stringify(Windows.mask(of, Windows.kindOf(of, last)));
    const result = same ? "<b>is the same</b> as" : "differs from";
    const lines = "Lines: windows; dashed: further borders of regions.";
    return `${lines} The mask from these numbers ${result} the one of step 7.`;
  }

  /** One axis after the shift: tokens, three names, two names, and windows. */
  function strip(now, of) {
    const axis = of.shift[1] > 0 || of.shift[0] === 0 ? 1 : 0;
    const [length, window, by] = [of.padded[axis], of.window[axis], of.shift[axis]];
    const first = Math.max(0, length - 3 * window);
    const shown = Array.from({ length: length - first }, (_, i) => first + i);
    const token = (at) => (at + by) % length;
    const rows = [
      ["place", (at) => at, ""],
      ["token there", token, "faint"],
      ["three names", (at) => Windows.regionAlong(of, axis, at), "region"],
      ["two names", (at) => (at < length - by ? 0 : 1), "region"],
    ];
    const names = 3.6;
    const cellsOf = ([title, value, cls], row) => [
      Draw.text([row, -0.9], title, { size: 0.5, cls: "strip-name", anchor: "end" }),
      ...shown.flatMap((at, i) => [
        Draw.rect([row, i], [1, 1], `cell ${cls} ${cls === "region" ? `r${value(at)}` : ""}`, 0.8),
        Draw.text([row, i], value(at), { size: 0.5 }),
      ]),
    ];
    const svg = byId("figure-strip");
    const label = `The last windows of an axis of ${length} tokens after a shift of ${by}.`;
    const lines = [0, ...shown.map((at, i) => ((at + 1) % window === 0 ? i + 1 : -1))].filter((at) => at >= 0);
    const d = lines.map((at) => `M${at * Draw.T} -6V${rows.length * Draw.T + 6}`).join("");
    Draw.board(
      svg,
      { rows: rows.length, columns: shown.length, label, margin: 8 },
      ...rows.flatMap(cellsOf),
      Draw.el("path", { class: "strip-line", d }),
    );
    const width = (shown.length + names) * Draw.T + 16;
    svg.setAttribute("viewBox", `${-names * Draw.T - 8} -8 ${width} ${rows.length * Draw.T + 16}`);
  }

  function stripCaption(now, of) {
    const axis = of.shift[1] > 0 || of.shift[0] === 0 ? 1 : 0;
    if (of.shift[axis] === 0)
      return "There is nothing to shift: move the sliders until there are two windows and a shift.";
    const last = of.counts.map((windows) => windows - 1);
    const three = Windows.maskByNumbers(of, last, (at) => Windows.regionAlong(of, axis, at[axis]));
    const two = Windows.maskByNumbers(of, last, (at) => (at[axis] < of.padded[axis] - of.shift[axis] ? 0 : 1));
    const same = JSON.stringify(three) === JSON.stringify(two);
    return (
      "The last windows along one axis, between the thick lines: places after the shift, the tokens there, and " +
      `regions named in two ways. The masks of the last window by three names and by two are ` +
      `${same ? "<b>the same</b>" : "different"}. On two axes, 4 names do what 9 do.`
    );
  }

  function captions() {
    Live.say("cellCaption", cellCaption);
    Live.say("regionsCaption", regionsCaption);
    Live.say("stripCaption", stripCaption);
  }

  function connect() {
    Draw.choosable(byId("figure-cell"), {
      limits: () => [State.setting.window ** 2, State.setting.window ** 2],
      current: () => State.setting.pair,
      choose: (pair) => State.change({ pair }),
    });
    byId("other-numbers").addEventListener("click", otherNumbers);
    captions();
    for (const drawIt of [cell, regions, strip]) State.figure(drawIt);
  }

  return { connect };
})();
