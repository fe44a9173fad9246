/* Steps 6 and 7: the kinds of windows, what is inside them, and their masks. */
"use strict";

const Kinds = (() => {
  const byId = (id) => document.getElementById(id);
  const NAMES = { inner: "inner", right: "right edge", bottom: "bottom edge", corner: "corner" };
  const LETTERS = ["a", "b", "c", "d"];

  /** An entry of the legend: a kind's color, its name and the number of its windows. */
  function entry({ kind, count }) {
    const item = document.createElement("li");
    item.innerHTML = `<span class="swatch ${kind}"></span> ${NAMES[kind]}: ${Live.plural(count, "window")}`;
    return item;
  }

  /** The pieces of a window of a kind: where each is in the window, and the tokens it holds. */
  function pieces(of, kind) {
    const window = Windows.windowOf(of, kind);
    const [down, across] = [0, 1].map((axis) => Windows.parts(of, kind, axis));
    return down.flatMap(([row, rows], i) =>
      across.map(([column, columns], j) => ({
        within: [row, column],
        size: [rows, columns],
        from: Windows.tokenAt(of, window, [row, column]),
        gap: [i, j],
        letter: LETTERS[i * across.length + j],
      })),
    );
  }

  const tokensOf = ({ from, size }) =>
    Array.from({ length: size[0] * size[1] }, (_, i) => [from[0] + Math.floor(i / size[1]), from[1] + (i % size[1])]);

  /** The picture, with the pieces of one window of the chosen kind. */
  function origin(now, of) {
    const [rows, columns] = of.padded;
    const found = pieces(of, now.kind);
    const label = `The picture. The window's pieces are ${found.map(where).join("; ")}.`;
    Draw.board(
      byId("figure-origin"),
      { rows, columns, label },
      Steps.whole(of.padded),
      Draw.spotlight(rows, columns, found.flatMap(tokensOf), now.kind),
      Draw.borders(Windows.unrolledWindows(of), "thin dashed"),
      ...found.map((piece) => Draw.outline(tokensOf(piece), now.kind)),
      ...found.map((piece) => Draw.chip(piece.from, piece.size, piece.letter, chipSize(piece, rows / 14))),
    );
  }

  const chipSize = ({ size }, most) => Math.min(Math.max(most, 0.7), 0.85 * Math.min(...size));
  const where = ({ letter, from, size }) =>
    `${letter}: rows ${from[0] + 1} to ${from[0] + size[0]}, columns ${from[1] + 1} to ${from[1] + size[1]}`;

  /** One window, as it is after the shift, its pieces a little apart. */
  function inside(now, of) {
    const [rows, columns] = of.window;
    const found = pieces(of, now.kind);
    const gap = 0.12;
    const at = ({ within, gap: [i, j] }) => [within[0] + i * gap, within[1] + j * gap];
    const extra = found[found.length - 1].gap.map((gaps) => gaps * gap);
    Draw.board(
      byId("figure-inside"),
      {
        rows: rows + extra[0],
        columns: columns + extra[1],
        label: `A window with ${Live.plural(found.length, "piece")}.`,
        margin: 2,
      },
      ...found.map((piece) => Draw.scene(piece.from, piece.size, at(piece))),
      ...found.map((piece) => Draw.rect(at(piece), piece.size, `piece-frame ${now.kind}`, 0.6)),
      ...found.map((piece) => Draw.chip(at(piece), piece.size, piece.letter, chipSize(piece, rows / 9))),
    );
  }

  /** The shares of the tokens of a window that the chosen one looks at, by how alike their colors are. */
  function shares(now, of, masked) {
    const window = Windows.windowOf(of, now.kind);
    const colors = Picture.colors(of.grid);
    const black = [0, 0, 0]; // padding holds zeros
    const color = ([row, column]) => colors[row]?.[column] ?? black;
    const places = Windows.places(of);
    const mine = color(Windows.tokenAt(of, window, places[now.slot]));
    const line = Windows.mask(of, now.kind)[now.slot];
    const scores = places.map((place, i) => {
      const other = color(Windows.tokenAt(of, window, place));
      const apart = mine.reduce((sum, amount, channel) => sum + (amount - other[channel]) ** 2, 0);
      return -8 * apart + (masked ? line[i] : 0);
    });
    return Windows.softmax(scores);
  }

  function toStrangers(now, of, masked) {
    const line = Windows.mask(of, now.kind)[now.slot];
    return shares(now, of, masked).reduce((sum, share, i) => sum + (line[i] === 0 ? 0 : share), 0);
  }

  /** How much of a token's area a disc takes for a share of 1: the largest of both pictures takes most of it. */
  const area = (now, of) => 0.63 / Math.max(...[false, true].flatMap((masked) => shares(now, of, masked)));

  const percent = (share) => `${Math.round(100 * share)} %`;

  function attention(id, now, of, masked) {
    const [rows, columns] = of.window;
    const found = pieces(of, now.kind);
    const [all, most] = [shares(now, of, masked), area(now, of)];
    const line = Windows.mask(of, now.kind)[now.slot];
    const places = Windows.places(of);
    const strangers = places.filter((_, i) => line[i] !== 0);
    const label = `${percent(toStrangers(now, of, masked))} of the chosen token's attention goes to the other pieces.`;
    Draw.board(
      byId(id),
      { rows, columns, label, margin: 2 },
      ...found.map((piece) => Draw.scene(piece.from, piece.size, piece.within)),
      Draw.rect([0, 0], of.window, "veil light"),
      masked ? Draw.cells(strangers, "masked large") : null,
      Draw.grid(rows, columns),
      ...found.map((piece) => Draw.rect(piece.within, piece.size, `piece-frame ${now.kind}`, 0.3)),
      ...places.map((place, i) =>
        Draw.dot(place, line[i] === 0 ? "share" : "share stranger", all[i] * most),
      ),
      Draw.chosen(places[now.slot]),
    );
  }

  /** A small picture of a window of a kind, and its pieces. */
  function sample(svg, of, kind) {
    const found = pieces(of, kind);
    Draw.board(
      svg,
      {
        rows: of.window[0],
        columns: of.window[1],
        label: `A window of the kind ${NAMES[kind]}: ${Live.plural(found.length, "piece")}.`,
      },
      ...found.map((piece) => Draw.scene(piece.from, piece.size, piece.within)),
      ...found.map((piece) => Draw.rect(piece.within, piece.size, `piece-frame ${kind}`, 0.3)),
      ...found.map((piece) => Draw.chip(piece.within, piece.size, piece.letter, chipSize(piece, of.window[0] / 5))),
    );
  }

  /** The mask of each kind, below a window of that kind. */
  function masks(now, of) {
    const host = byId("masks");
    const kinds = Windows.kinds(of);
    if (host.children.length !== kinds.length)
      host.replaceChildren(
        ...kinds.map(() => {
          const card = document.createElement("div");
          card.innerHTML = "<h3></h3>";
          card.append(Draw.el("svg", { class: "board of-window" }), Draw.el("svg", { class: "board" }));
          return card;
        }),
      );
    kinds.forEach(({ kind, count }, i) => {
      const [title, window, svg] = host.children[i].children;
      title.innerHTML = `<span class="swatch ${kind}"></span> ${NAMES[kind]} <small>× ${Live.count(count)}</small>`;
      sample(window, of, kind);
      const mask = Windows.mask(of, kind);
      const masked = mask.flat().filter((value) => value !== 0).length;
      Draw.table(svg, mask, {
        label: `The mask of the kind ${NAMES[kind]}: ${Live.count(masked)} of ${mask.length ** 2} pairs masked.`,
        row: kind === now.kind ? now.slot : null,
      });
    });
  }

  /** Buttons to choose a kind, wherever the page asks for them. */
  function choices(now, of) {
    const kinds = Windows.kinds(of);
    for (const host of document.querySelectorAll("[data-kinds]")) {
      const wanted = kinds.map(({ kind }) => kind).join();
      if (host.dataset.shown !== wanted) {
        host.dataset.shown = wanted;
        host.replaceChildren(...kinds.map(({ kind }) => button(kind, host)));
      }
      for (const input of host.querySelectorAll("input")) input.checked = input.value === now.kind;
    }
  }

  function button(kind, host) {
    const label = document.createElement("label");
    const group = `kind-${[...document.querySelectorAll("[data-kinds]")].indexOf(host)}`;
    const input = `<input type="radio" name="${group}" value="${kind}">`;
    label.innerHTML = `${input}<span class="swatch ${kind}"></span> ${NAMES[kind]}`;
    label.firstChild.addEventListener("change", () => State.change({ kind }));
    return label;
  }

  function captions() {
    Live.say("strangersCaption", (now, of) => {
      const found = pieces(of, now.kind);
      if (found.length === 1)
        return "An inner window holds one piece, which was together in the picture. No strangers here.";
      const filled = (axis) => (of.padded[axis] > of.grid[axis] ? " with its padding" : "");
      const where = {
        bottom: `the bottom edge of the picture${filled(0)}, and right below it rows from the top edge`,
        right: `the right edge of the picture${filled(1)}, and right beside it columns from the left edge`,
        corner: `all four corners of the picture${filled(0) || filled(1)}`,
      }[now.kind];
      return `This window holds ${found.length} pieces: ${where}. They touch here, and nowhere else.`;
    });
    Live.say("sharesCaption", (now, of) => {
      const found = [false, true].map((masked) => percent(toStrangers(now, of, masked)));
      const line = Windows.mask(of, now.kind)[now.slot];
      if (line.every((value) => value === 0))
        return "This window is a single piece, so the mask changes nothing. Choose another kind in step 6.";
      return (
        "Where one token’s attention goes: the larger a disc, the larger the share. Without the mask " +
        `<b>${found[0]}</b> goes to strangers, with it <b>${found[1]}</b>. Click another token. (Here, tokens get ` +
        "high scores if their colors are alike; a network learns its scores.)"
      );
    });
    Live.say("masksCaption", (now, of) => {
      const [masked, all] = [Windows.kinds(of).filter(({ kind }) => kind !== "inner"), Windows.size(of.counts)];
      const edge = masked.reduce((sum, { count }) => sum + count, 0);
      const have = `${edge === 1 ? "has" : "have"} something to mask`;
      return (
        "Tokens are in reading order; framed is the row of the token chosen above. Here " +
        `${Live.count(edge)} of ${Live.plural(all, "window")} ${have}.`
      );
    });
  }

  function connect() {
    for (const id of ["figure-unmasked", "figure-masked"])
      Draw.choosable(byId(id), {
        limits: () => [State.setting.window, State.setting.window],
        current: () => [
          Math.floor(State.setting.slot / State.setting.window),
          State.setting.slot % State.setting.window,
        ],
        choose: ([row, column]) => State.change({ slot: row * State.setting.window + column }),
      });
    captions();
    State.figure(choices);
    State.figure(origin);
    State.figure(inside);
    State.figure((now, of) => attention("figure-unmasked", now, of, false));
    State.figure((now, of) => attention("figure-masked", now, of, true));
    State.figure(masks);
  }

  return { connect, entry, pieces, NAMES };
})();
