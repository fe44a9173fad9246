/* Steps 1 to 4 and 8: tokens, attention, regular and shifted windows, and what a token gathers. */
"use strict";

const Steps = (() => {
  const byId = (id) => document.getElementById(id);
  const name = ([row, column]) => `row ${row + 1}, column ${column + 1}`;

  /** The whole picture, as large as its grid with padding or without. */
  const whole = (size) => Draw.scene([0, 0], size);

  /** Two tokens that touch across a border of regular windows, or null if there is none. */
  function neighbors(of) {
    const axis = of.counts[1] > 1 ? 1 : 0;
    if (of.counts[axis] === 1) return null;
    const border = of.window[axis] * (of.counts[axis] - 1);
    const along = Math.floor(0.55 * of.grid[1 - axis]);
    return axis === 1
      ? [
          [along, border - 1],
          [along, border],
        ]
      : [
          [border - 1, along],
          [border, along],
        ];
  }

  function marks(of) {
    const pair = neighbors(of);
    if (!pair) return null;
    const link = Draw.link(...pair, Windows.together(of, ...pair) ? "together" : "apart");
    return Draw.group({ class: "marks" }, link, ...pair.map((token) => Draw.dot(token, "mark", 0.2)));
  }

  function tokens(now, of) {
    const [rows, columns] = of.grid;
    const label = `The picture, ${rows} rows of ${columns} tokens. Chosen: ${name(now.token)}.`;
    Draw.board(
      byId("figure-tokens"),
      { rows, columns, label },
      whole(of.grid),
      Draw.grid(rows, columns),
      Draw.chosen(now.token),
    );
    const one = { rows: 1, columns: 1, label: "The chosen token, enlarged", margin: 1 };
    Draw.board(byId("figure-token"), one, Draw.scene(now.token, [1, 1], [0, 0]), Draw.rect([0, 0], [1, 1], "frame"));
  }

  function all(now, of) {
    const [rows, columns] = of.grid;
    const others = rows * columns <= 900 ? everyToken(of.grid) : [];
    const label = `The chosen token, ${name(now.token)}, looks at all ${rows * columns} tokens.`;
    Draw.board(
      byId("figure-global"),
      { rows, columns, label },
      whole(of.grid),
      Draw.grid(rows, columns),
      Draw.fan(now.token, others),
      Draw.outline(everyToken(of.grid), "mixed"),
      Draw.chosen(now.token),
    );
  }

  const everyToken = ([rows, columns]) =>
    Array.from({ length: rows * columns }, (_, i) => [Math.floor(i / columns), i % columns]);

  function windows(svg, now, of, { borders, label, marked = true }) {
    const [rows, columns] = of.padded;
    const seen = Windows.seen(of, now.token);
    Draw.board(
      svg,
      { rows, columns, label },
      whole(of.padded),
      Draw.grid(rows, columns),
      Draw.spotlight(rows, columns, seen),
      Draw.borders(borders),
      Draw.fan(now.token, seen),
      marked ? marks(of) : null,
      Draw.chosen(now.token),
    );
  }

  function regular(now, of) {
    const plain = Windows.regular(of);
    const looks = `The chosen token looks at ${Windows.size(of.window)} tokens.`;
    const label = `${Live.plural(Windows.size(of.counts), "regular window")}. ${looks}`;
    windows(byId("figure-regular"), now, plain, { borders: Draw.even(plain), label });
  }

  function shifted(now, of) {
    const looks = `The chosen token looks at ${Live.plural(Windows.seen(of, now.token).length, "token")}.`;
    const label = `Shifted windows, cut off at the edges of the picture. ${looks}`;
    windows(byId("figure-shifted"), now, of, { borders: Windows.unrolledWindows(of), label });
  }

  /** What a token has gathered after some blocks, without the padding. */
  function reach(svg, now, of, blocks, borders) {
    const [rows, columns] = of.grid;
    const tokens = Windows.gathered(blocks, now.token);
    const from = `${tokens.length} of ${rows * columns} tokens`;
    const label = `The chosen token, ${name(now.token)}, has gathered from ${from}.`;
    Draw.board(
      svg,
      { rows, columns, label },
      whole(of.grid),
      Draw.spotlight(rows, columns, tokens),
      ...borders.map(([along, cls]) => clipped(of.grid, Draw.borders(along, cls))),
      Draw.outline(tokens, "mixed"),
      Draw.chosen(now.token),
    );
  }

  /** Borders, without what lies in the padding. */
  const clipped = (grid, drawing) => Draw.part(drawing, [0, 0], grid, [0, 0]);

  function twoBlocks(now, of) {
    const plain = Windows.regular(of);
    const [even, cutOff] = [
      [Draw.even(plain), "thin"],
      [Windows.unrolledWindows(of), "thin dashed"],
    ];
    reach(byId("figure-reach-regular"), now, of, [plain], [even]);
    reach(byId("figure-reach-shifted"), now, of, [of], [cutOff]);
    reach(byId("figure-reach-both"), now, of, [plain, of], [even, cutOff]);
  }

  const paddingNote = (of) =>
    Windows.size(of.padded) === Windows.size(of.grid)
      ? ""
      : " Dotted: padding, empty tokens that fill up the last windows. They are looked at as others are, and hold " +
        "nothing.";

  function captions() {
    Live.say("numbers", (now) => {
      const color = Picture.colors([now.rows, now.columns])[now.token[0]][now.token[1]];
      return `[${color.map((amount) => amount.toFixed(2)).join(", ")}, …]`;
    });
    Live.say(
      "globalCaption",
      (now) =>
        `Everything at once: the chosen token (${name(now.token)}) looks at all ` +
        `${Live.count(now.rows * now.columns)}, itself included. ` +
        "So does each of the others.",
    );
    Live.say("regularCaption", (now, of) => {
      const met = neighbors(of) ? " The two marked tokens touch, and do not see each other." : "";
      return (
        `${Live.plural(Windows.size(of.counts), "window")}. The chosen token looks at the ${Windows.size(of.window)} ` +
        "in its window, " +
        `and nowhere else.${met}${paddingNote(of)}`
      );
    });
    Live.say("shiftedCaption", (now, of) => {
      if (!Windows.isShifted(of))
        return "There is nothing to shift: move the sliders until there are two windows and a shift.";
      const pair = neighbors(of);
      const met = Windows.together(of, ...pair) ? " The two marked tokens now share a window." : "";
      return (
        `Shifted windows, where they lie on the picture. The chosen token looks at ` +
        `${Live.plural(Windows.seen(of, now.token).length, "token")} now.${met}${paddingNote(of)}`
      );
    });
    Live.say("gathered", (now, of) => Live.count(Windows.gathered([Windows.regular(of), of], now.token).length));
    Live.say("reachCaption", (now, of) => {
      const [one, other, both] = [[Windows.regular(of)], [of], [Windows.regular(of), of]].map(
        (blocks) => Windows.gathered(blocks, now.token).length,
      );
      return (
        `What the chosen token (${name(now.token)}) has gathered from: ${one}, ${other}, and together ${both} of ` +
        `${Live.count(now.rows * now.columns)} tokens. Lines: borders of regular windows, and dashed those of ` +
        "shifted ones."
      );
    });
  }

  /** Lets the reader choose a token on a board of the whole picture. */
  function choosable(id) {
    Draw.choosable(byId(id), {
      limits: () => [State.setting.rows, State.setting.columns],
      current: () => State.setting.token,
      choose: (token) => State.change({ token }),
    });
  }

  function connect() {
    const boards = ["tokens", "global", "regular", "shifted", "reach-regular", "reach-shifted", "reach-both"];
    boards.forEach((id) => choosable(`figure-${id}`));
    captions();
    for (const drawIt of [tokens, all, regular, shifted, twoBlocks]) State.figure(drawIt);
  }

  return { connect, name, whole, choosable, windows };
})();
