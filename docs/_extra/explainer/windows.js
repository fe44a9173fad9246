/* Shifted windows as plain functions: cut, cyclic shift, pieces, masks, mixing and cost.
 *
 * Nothing here draws. The same arithmetic is in hierarch/nn/cut.py, hierarch/nn/window_mixer.py and
 * hierarch/spec/grid.py, and tests/test_explainer.py compares the two. From Liu et al. 2021,
 * arXiv:2103.14030, section 3.2.
 *
 * A pair is [of the rows, of the columns]. A token is [row, column] of the padded grid.
 */
"use strict";

const Windows = (() => {
  const OTHER_PIECE = -100; // added, as published, to the score of a pair from two pieces
  const AXES = [0, 1];
  const KINDS = { inner: [false, false], right: [false, true], bottom: [true, false], corner: [true, true] };

  /** How a grid is padded, shifted and cut. An axis that one window covers is not shifted. */
  function cut({ grid, window, shift }) {
    const counts = AXES.map((axis) => Math.ceil(grid[axis] / window[axis]));
    return Object.freeze({
      grid,
      window,
      counts, // windows along each axis
      shift: AXES.map((axis) => (counts[axis] > 1 ? shift[axis] : 0)),
      padded: AXES.map((axis) => counts[axis] * window[axis]),
    });
  }

  /** The same grid in the same windows, not shifted. */
  const regular = (of) => cut({ ...of, shift: [0, 0] });

  const isShifted = (of) => of.shift.some((by) => by > 0);
  const isPadding = (of, token) => AXES.some((axis) => token[axis] >= of.grid[axis]);
  const size = ([rows, columns]) => rows * columns;

  /** Where a token is after the cyclic shift: the first `shift` rows and columns go to the end. */
  const rolled = (of, token) => AXES.map((axis) => (token[axis] - of.shift[axis] + of.padded[axis]) % of.padded[axis]);

  /** The token that is at a place after the cyclic shift. */
  const unrolled = (of, place) => AXES.map((axis) => (place[axis] + of.shift[axis]) % of.padded[axis]);

  /** The window of a token, and its place in that window. */
  function place(of, token) {
    const at = rolled(of, token);
    return {
      window: AXES.map((axis) => Math.floor(at[axis] / of.window[axis])),
      within: AXES.map((axis) => at[axis] % of.window[axis]),
    };
  }

  /** The token at a place in a window. */
  const tokenAt = (of, window, within) =>
    unrolled(
      of,
      AXES.map((axis) => window[axis] * of.window[axis] + within[axis]),
    );

  /** The kind of a window: only the last one of a shifted axis holds both ends of the picture. */
  function kindOf(of, window) {
    const last = AXES.map((axis) => of.shift[axis] > 0 && window[axis] === of.counts[axis] - 1);
    return Object.keys(KINDS).find((kind) => AXES.every((axis) => KINDS[kind][axis] === last[axis]));
  }

  /** The kinds of windows that a cut has, each with its number of windows. */
  function kinds(of) {
    const alongAxis = (axis, isLast) =>
      of.shift[axis] === 0 ? (isLast ? 0 : of.counts[axis]) : isLast ? 1 : of.counts[axis] - 1;
    return Object.entries(KINDS)
      .map(([kind, last]) => ({ kind, count: alongAxis(0, last[0]) * alongAxis(1, last[1]) }))
      .filter(({ count }) => count > 0);
  }

  /** A window of a kind: the last one of that kind. */
  const windowOf = (of, kind) =>
    AXES.map((axis) =>
      KINDS[kind][axis] || of.shift[axis] === 0 ? of.counts[axis] - 1 : Math.max(of.counts[axis] - 2, 0),
    );

  /** The parts of one axis of a window, each from one end of the picture: [[start, length], ...]. */
  function parts(of, kind, axis) {
    const first = of.window[axis] - (KINDS[kind][axis] ? of.shift[axis] : 0);
    return first === of.window[axis]
      ? [[0, first]]
      : [
          [0, first],
          [first, of.shift[axis]],
        ];
  }

  /** The number, from 0, of the piece that a place in a window is part of. Pieces were apart before the shift. */
  const pieceOf = (of, kind, within) =>
    AXES.reduce(
      (number, axis) => 2 * number + (KINDS[kind][axis] && within[axis] >= of.window[axis] - of.shift[axis] ? 1 : 0),
      0,
    );

  /** The places in a window, row by row: the order of a mask's rows and columns. */
  function places(of) {
    const all = [];
    for (let row = 0; row < of.window[0]; row++)
      for (let column = 0; column < of.window[1]; column++) all.push([row, column]);
    return all;
  }

  /** The mask of a kind of window: a row for each token that looks, a column for each that it looks at. */
  function mask(of, kind) {
    const pieces = places(of).map((within) => pieceOf(of, kind, within));
    return pieces.map((one) => pieces.map((other) => (one === other ? 0 : OTHER_PIECE)));
  }

  /** The region of a place along one axis after the shift, as in the published code: 0, 1 or 2. */
  function regionAlong(of, axis, at) {
    if (at < of.padded[axis] - of.window[axis]) return 0;
    return at < of.padded[axis] - of.shift[axis] ? 1 : 2;
  }

  /** The region of a place after the shift, as the published code numbers them: 0 to 8. */
  const regionOf = (of, at) => 3 * regionAlong(of, 0, at[0]) + regionAlong(of, 1, at[1]);

  /** The mask of a window by the published rule: pairs whose numbers differ. `number` takes a place after the shift. */
  function maskByNumbers(of, window, number) {
    const all = places(of).map((within) => number(AXES.map((axis) => window[axis] * of.window[axis] + within[axis])));
    return all.map((one) => all.map((other) => (one - other === 0 ? 0 : OTHER_PIECE)));
  }

  /** The tokens that a token looks at in one block, itself included, and the padding as well. */
  function seen(of, token, { masked = true } = {}) {
    const { window, within } = place(of, token);
    const kind = kindOf(of, window);
    const piece = pieceOf(of, kind, within);
    return places(of)
      .filter((other) => !masked || pieceOf(of, kind, other) === piece)
      .map((other) => tokenAt(of, window, other));
  }

  /** Whether two tokens look at each other in a block. */
  function together(of, one, other) {
    const [a, b] = [place(of, one), place(of, other)];
    const kind = kindOf(of, a.window);
    return String(a.window) === String(b.window) && pieceOf(of, kind, a.within) === pieceOf(of, kind, b.within);
  }

  /** The tokens that look at one of `tokens` in a block. Padding holds nothing, and is left out. */
  function lookingAt(of, tokens) {
    const found = new Set(); // numbers of tokens: a token is in one piece, so a piece is found whole or not at all
    const number = ([row, column]) => row * of.grid[1] + column;
    for (const token of tokens)
      if (!found.has(number(token)))
        for (const other of seen(of, token)) if (!isPadding(of, other)) found.add(number(other));
    return [...found].map((n) => [Math.floor(n / of.grid[1]), n % of.grid[1]]);
  }

  /** The tokens that a token has taken something from after some blocks, the first block first. */
  const gathered = (blocks, token) => blocks.reduceRight((tokens, block) => lookingAt(block, tokens), [token]);

  /** What a token knows spreads, by regular and shifted blocks in turn: the tokens that have it after 0, 1, 2, ... of
   * them, until `other` has it. Without a shift it may never have it: the list ends where nothing changes any more. */
  function spread(of, token, other) {
    const turns = [regular(of), of];
    const holders = [[token]];
    const has = () => holders[holders.length - 1].some(([row, column]) => row === other[0] && column === other[1]);
    const grows = () => holders.length < 3 || holders[holders.length - 1].length > holders[holders.length - 3].length;
    while (!has() && grows()) holders.push(lookingAt(turns[(holders.length - 1) % 2], holders[holders.length - 1]));
    return holders;
  }

  /** The pieces that the cyclic shift moves, all tokens of one by the same way: where each is before, its size, and
   * where it is after. */
  function moved(of) {
    const [down, across] = AXES.map((axis) => {
      const [by, rest] = [of.shift[axis], of.padded[axis] - of.shift[axis]];
      const body = { from: by, size: rest, to: 0 };
      return by === 0 ? [body] : [body, { from: 0, size: by, to: rest }];
    });
    const both = (row, column, key) => [row[key], column[key]];
    return down.flatMap((row) =>
      across.map((column) => ({
        from: both(row, column, "from"),
        size: both(row, column, "size"),
        to: both(row, column, "to"),
      })),
    );
  }

  /** The shifted windows as they lie on the picture, cut off at its edges: along each axis [[start, length], ...]. */
  function unrolledWindows(of) {
    return AXES.map((axis) => {
      const borders = [0];
      for (let at = of.shift[axis] || of.window[axis]; at < of.padded[axis]; at += of.window[axis]) borders.push(at);
      return borders.map((start, i) => [start, (borders[i + 1] ?? of.padded[axis]) - start]);
    });
  }

  /** Of the pairs of tokens that touch side by side, how many look at each other in some block of `blocks`. */
  function touching(blocks) {
    const { grid } = blocks[0];
    const count = { pairs: 0, together: 0 };
    for (const axis of AXES)
      for (let at = 0; at < grid[axis] - 1; at++) {
        const pair = [at, at + 1].map((along) => (axis === 0 ? [along, 0] : [0, along]));
        const lines = grid[1 - axis]; // in each of them, the same
        count.pairs += lines;
        if (blocks.some((block) => together(block, ...pair))) count.together += lines;
      }
    return count;
  }

  /** Scores -> shares that add up to 1. */
  function softmax(scores) {
    const highest = Math.max(...scores);
    const powers = scores.map((score) => Math.exp(score - highest));
    const sum = powers.reduce((a, b) => a + b);
    return powers.map((power) => power / sum);
  }

  /** Pairs of tokens that look at each other: all of them, or those in one window. */
  const globalPairs = (of) => size(of.grid) ** 2;
  const windowPairs = (of) => size(of.padded) * size(of.window);

  /** Multiply-adds of global attention. Eq. (1), with N = hw tokens: 4NC^2 + 2N^2C. */
  const globalMacs = (of, dim) => 4 * size(of.grid) * dim ** 2 + 2 * size(of.grid) ** 2 * dim;

  /** Multiply-adds of attention in windows. Eq. (2), N = hw after padding, M^2 = tokens of a window: 4NC^2 + 2M^2NC. */
  const windowMacs = (of, dim) => 4 * size(of.padded) * dim ** 2 + 2 * size(of.window) * size(of.padded) * dim;

  return {
    OTHER_PIECE,
    KINDS,
    cut,
    regular,
    isShifted,
    isPadding,
    size,
    rolled,
    unrolled,
    place,
    tokenAt,
    kindOf,
    kinds,
    windowOf,
    parts,
    pieceOf,
    places,
    mask,
    regionOf,
    regionAlong,
    maskByNumbers,
    seen,
    gathered,
    spread,
    moved,
    unrolledWindows,
    together,
    touching,
    softmax,
    globalPairs,
    windowPairs,
    globalMacs,
    windowMacs,
  };
})();
