/* Pictures of what people ask about the mask's use: lost pairs, blocks that have one, and what if there were none. */
"use strict";

const AskBlocks = (() => {
  const byId = (id) => document.getElementById(id);
  const { count, plural } = Live;

  /** Two strangers: a token at the top or left edge, and the one beyond the opposite edge. */
  function strangers(of) {
    const axis = of.shift[0] > 0 ? 0 : 1;
    const middle = Math.floor(of.grid[1 - axis] / 2);
    const ends = [0, of.grid[axis] - 1];
    return ends.map((at) => (axis === 0 ? [at, middle] : [middle, at]));
  }

  /** Block after block, which tokens have something from one of two strangers, until the other has. */
  function waves(now, of) {
    const host = byId("waves");
    if (!Windows.isShifted(of)) return host.replaceChildren();
    const [from, to] = strangers(of);
    const holders = Windows.spread(of, from, to);
    const last = holders.length - 1;
    const shown = [...holders.keys()].filter((blocks) => last <= 7 || blocks < 6 || blocks === last);
    host.replaceChildren(
      ...shown.map((blocks) => {
        const svg = Draw.el("svg", { class: "board" });
        const [rows, columns] = of.grid;
        Draw.board(
          svg,
          { rows, columns, label: `After ${plural(blocks, "block")}: ${holders[blocks].length} tokens.`, margin: 6 },
          Steps.whole(of.grid),
          Draw.spotlight(rows, columns, holders[blocks]),
          Draw.chosen(from),
          Draw.dot(to, "mark", 0.5),
        );
        const cell = document.createElement("div");
        cell.innerHTML = `<h4>${blocks === 0 ? "At first" : `${blocks % 2 ? "Regular" : "Shifted"}, ${blocks}`}</h4>`;
        cell.append(svg);
        return cell;
      }),
    );
  }

  /** Swin-T: for every stage and block its windows, colored where the mask does something. */
  function stages() {
    byId("stages").replaceChildren(
      ...Tables.swin.map(({ grid, counts, blocks }, i) => {
        const row = document.createElement("div");
        row.className = "stage";
        row.innerHTML = `<h4>Stage ${i + 1} <small>${grid.join(" × ")} tokens</small></h4>`;
        const line = document.createElement("div");
        line.className = "blocks";
        line.append(
          ...blocks.map(({ shift, masked }) => {
            const svg = Draw.el("svg", { class: "board" });
            const of = Windows.cut({ grid: counts.map((n) => 7 * n), window: [7, 7], shift });
            const words = shift.some(Boolean)
              ? `shifted: ${masked} of ${Windows.size(counts)}`
              : Windows.size(counts) === 1
                ? "one window: no mask"
                : "regular: no mask";
            const size = of.padded.map((length) => length);
            Draw.board(
              svg,
              { rows: size[0], columns: size[1], label: words, margin: 2 * counts[0] },
              Draw.windowsByKind(of, "solid"),
            );
            const block = document.createElement("div");
            const [first, second] = words.split(": ");
        block.append(svg, first, document.createElement("br"), second);
            return block;
          }),
        );
        row.append(line);
        return row;
      }),
    );
  }

  /** The mask of a shifted block, in a regular one, where it parts true neighbors. */
  function wrong(now, of) {
    const plain = Windows.regular(of);
    const [rows, columns] = of.padded;
    const [down, across] = [rows - of.shift[0], columns - of.shift[1]];
    const d =
      (of.shift[0] ? `M0 ${down * Draw.T}H${columns * Draw.T}` : "") +
      (of.shift[1] ? `M${across * Draw.T} 0V${rows * Draw.T}` : "");
    const middle = [Math.floor(0.3 * of.grid[0]), Math.floor(0.3 * of.grid[1])];
    const pair = of.shift[1]
      ? [
          [middle[0], across - 1],
          [middle[0], across],
        ]
      : [
          [down - 1, middle[1]],
          [down, middle[1]],
        ];
    Draw.board(
      byId("figure-wrong"),
      { rows, columns, label: "Regular windows, and the lines along which a wrong mask would part the last ones." },
      Steps.whole(of.padded),
      Draw.grid(rows, columns),
      Draw.borders(Draw.even(plain)),
      Draw.group(
        { class: "borders wrong dashed" },
        Draw.el("path", { class: "under", d }),
        Draw.el("path", { class: "over", d }),
      ),
      ...(Windows.isShifted(of)
        ? [Draw.link(...pair, "apart"), ...pair.map((token) => Draw.dot(token, "mark", 0.2))]
        : []),
    );
  }

  /** What a token at the edge sees in the shifted block, with the mask and without. */
  function edge(now, of, masked) {
    const [rows, columns] = of.padded;
    const token = edgeToken(of);
    const seen = Windows.seen(of, token, { masked });
    const own = Windows.seen(of, token);
    const strange = seen.filter((other) => !own.some((one) => String(one) === String(other)));
    Draw.board(
      byId(masked ? "figure-with" : "figure-without"),
      { rows, columns, label: `A token at the edge sees ${seen.length} tokens.` },
      Steps.whole(of.padded),
      Draw.spotlight(rows, columns, seen),
      Draw.borders(Windows.unrolledWindows(of), "thin dashed"),
      Draw.outline(strange, "strange"),
      Draw.outline(own, "mixed"),
      Draw.fan(token, strange, "strange"),
      Draw.fan(token, own),
      Draw.chosen(token),
    );
  }

  /** A token at an edge that the shift carries to the other side. */
  const edgeToken = (of) => (of.shift[0] > 0 ? [0, Math.floor(0.7 * of.grid[1])] : [Math.floor(0.7 * of.grid[0]), 0]);

  const ARMS = {
    shifted_attention: "shift and mask",
    shifted_attention_no_mask: "shift, no mask",
    regular_attention: "no shift",
  };

  function results() {
    const svg = byId("figure-results");
    const [width, line, least, most] = [Math.max(300, Math.min(svg.clientWidth, 640)), 56, 53, 63];
    const x = (value) => 8 + ((value - least) / (most - least)) * (width - 16);
    const rows = Tables.results.flatMap((arm, i) => {
      const y = 40 + line * i;
      return [
        Draw.el("text", { class: "arm", x: 0, y: y - 18 }, ARMS[arm.name]),
        Draw.el("line", { class: "interval", x1: x(arm.top1.low), x2: x(arm.top1.high), y1: y, y2: y }),
        Draw.el("circle", { class: `point arm${i}`, cx: x(arm.top1.mean), cy: y, r: 7 }),
        Draw.el(
          "text",
          { class: "value", x: x(arm.top1.mean), y: y - 14, "text-anchor": "middle" },
          `${arm.top1.mean.toFixed(1)} %`,
        ),
      ];
    });
    svg.setAttribute("viewBox", `0 0 ${width} ${line * Tables.results.length}`);
    Draw.describe(svg, Tables.results.map((arm) => `${ARMS[arm.name]}: ${arm.top1.mean.toFixed(1)} %`).join("; "));
    svg.replaceChildren(...rows);
  }

  function captions() {
    Live.say("touching", (now, of) => {
      const plain = Windows.regular(of);
      const [one, other, either] = [[plain], [of], [plain, of]].map(Windows.touching);
      return (
        `of ${count(either.pairs)} pairs of tokens that touch side by side, ${count(one.together)} see each other in ` +
        `the regular block, ${count(other.together)} in the shifted one, and ` +
        `${either.together === either.pairs ? "every one" : count(either.together)} in one or the other.`
      );
    });
    Live.say("wavesCaption", (now, of) => {
      if (!Windows.isShifted(of)) return "Without a shift, nothing passes from window to window.";
      const [from, to] = strangers(of);
      return (
        `What the token at one edge (framed) knows reaches its stranger at the other (round mark) after ` +
        `${plural(Windows.spread(of, from, to).length - 1, "block")}, along the whole way between them.`
      );
    });
    Live.say("wrongCaption", (now, of) =>
      Windows.isShifted(of)
        ? "Regular windows. Along the dashed lines, the mask of a shifted block would part tokens that touch, such " +
          "as the two marked ones."
        : "There is nothing to shift: move the sliders until there are two windows and a shift.",
    );
    Live.say("withoutCaption", (now, of) => {
      const [seen, all] = [true, false].map((masked) => Windows.seen(of, edgeToken(of), { masked }).length);
      return seen === all
        ? "With this setting the token sees the same either way."
        : `The shifted block. With the mask, the token at the edge sees the ${seen} tokens of its piece. Without, it ` +
            `sees ${all}: ` +
            "the far side of the picture looks like its neighborhood.";
    });
    const [, unmasked] = Tables.results;
    const points = (value) => Math.abs(value).toFixed(1);
    Live.say(
      "lost",
      () =>
        `${points(unmasked.difference.mean)} (with 95&nbsp;% confidence ` +
        `${points(unmasked.difference.high)} to ${points(unmasked.difference.low)})`,
    );
    Live.say("edges", () => {
      const [first] = Tables.swin;
      const { masked } = first.blocks.find(({ shift }) => shift.some(Boolean));
      return (
        `In these networks ${unmasked.edges} of the ${unmasked.windows} windows of the first stage hold strangers. ` +
        `In Swin-T it is ${masked} of ${Windows.size(first.counts)}, so there the mask should matter less; how much ` +
        "less was not measured here."
      );
    });
  }

  function connect() {
    captions();
    stages();
    for (const drawIt of [waves, wrong, results]) State.figure(drawIt);
    State.figure((now, of) => edge(now, of, true));
    State.figure((now, of) => edge(now, of, false));
  }

  return { connect };
})();
