/* Step 5: the cyclic shift, step by step. The picture is in four pieces that move; the last step brings them back. */
"use strict";

const Roll = (() => {
  const byId = (id) => document.getElementById(id);
  const still = matchMedia("(prefers-reduced-motion: reduce)");
  const STEPS = [
    { rows: false, columns: false, windows: "cut" },
    { rows: true, columns: false, windows: "none" },
    { rows: true, columns: true, windows: "none" },
    { rows: true, columns: true, windows: "kinds" },
    { rows: false, columns: false, windows: "home" },
  ];
  let step = 0;
  let drawn = ""; // the setting that the pieces were made for
  let timer = null;
  const places = new WeakMap(); // of the groups that move: what Windows.moved says of each

  /** The letter of a piece: the corner is A, the other rows at the top are B, the columns at the left are C. */
  function letter(of, { from }) {
    const [above, left] = [0, 1].map((axis) => of.shift[axis] > 0 && from[axis] === 0);
    return above && left ? "A" : above ? "B" : left ? "C" : "";
  }

  function make(of) {
    const moving = Windows.moved(of).map((piece) => {
      const { from, size, to } = piece;
      const name = letter(of, piece);
      const group = Draw.group(
        { class: `piece ${name ? "leaves" : ""}` },
        Draw.scene(from, size, [0, 0]),
        Draw.part(Draw.windowsByKind(of), to, size, [0, 0]),
        name ? Draw.rect([0, 0], size, "edge") : null,
        name ? Draw.chip([0, 0], size, name, Math.min(0.95, 0.8 * Math.min(...size) + 0.1)) : null,
      );
      places.set(group, piece);
      return group;
    });
    const cutOff = Draw.group({ class: "cut-off" }, Draw.borders(Windows.unrolledWindows(of), "dashed"));
    const even = Draw.group({ class: "even" }, Draw.borders(Draw.even(of)));
    const [rows, columns] = of.padded;
    Draw.board(byId("figure-roll"), { rows, columns, label: "" }, ...moving, cutOff, even);
  }

  function draw(now, of) {
    const setting = JSON.stringify(of);
    if (drawn !== setting) make(of);
    drawn = setting;
    const svg = byId("figure-roll");
    const { rows, columns, windows } = STEPS[step];
    svg.dataset.windows = windows;
    for (const group of svg.querySelectorAll(".piece")) {
      const { from, to } = places.get(group);
      const [row, column] = [rows ? to[0] : from[0], columns ? to[1] : from[1]];
      group.style.transform = `translate(${column * Draw.T}px, ${row * Draw.T}px)`;
    }
    const words = text(of);
    Draw.describe(svg, words);
    byId("roll-caption").innerHTML = `<b>${step + 1} of ${STEPS.length}.</b> ${words}`;
    byId("roll-step").value = step;
    byId("roll-back").disabled = step === 0;
    byId("roll-next").disabled = step === STEPS.length - 1;
    byId("roll-play").textContent = timer ? "Stop" : "Play";
    byId("legend").hidden = !["kinds", "home"].includes(windows);
    byId("legend").replaceChildren(...Windows.kinds(of).map(Kinds.entry));
  }

  function text(of) {
    const [down, across] = of.shift;
    if (!Windows.isShifted(of))
      return "There is nothing to shift: move the sliders until there are two windows and a shift.";
    const moved = (by, what, where, letters) =>
      by
        ? `The first ${Live.plural(by, what)} (${letters}) ${by === 1 ? "goes" : "go"} to the ${where}.`
        : `No ${what} moves: one window covers this side.`;
    const strips =
      down && across ? "A, B and C are the strips that will move." : `${down ? "B" : "C"} is the strip that will move.`;
    const pieces = Windows.size(Windows.unrolledWindows(of).map((along) => along.length));
    return [
      `The picture, and dashed the borders of the shifted windows, which cut it into ${pieces} pieces. ${strips}`,
      moved(down, "row", "bottom", across ? "A and B" : "B"),
      moved(across, "column", "right", down ? "A and C" : "C"),
      `Now lay regular windows over it: ${Windows.size(of.counts)}, all of one shape, and colored by their kind. ` +
        "In each, tokens look at each other. Dotted white: where pieces meet that were apart.",
      "Roll back: every token is where it was. The colors show which parts of the picture shared a kind of window.",
    ][step];
  }

  function go(to) {
    step = Math.min(Math.max(to, 0), STEPS.length - 1);
    State.draw();
  }

  function stop() {
    clearInterval(timer);
    timer = null;
    State.draw();
  }

  function play() {
    if (timer) return stop();
    go(step === STEPS.length - 1 ? 0 : step + 1);
    timer = setInterval(() => (step === STEPS.length - 1 ? stop() : go(step + 1)), still.matches ? 3000 : 2200);
  }

  function connect() {
    const by = (change) => () => {
      if (timer) stop();
      go(change());
    };
    byId("roll-back").addEventListener(
      "click",
      by(() => step - 1),
    );
    byId("roll-next").addEventListener(
      "click",
      by(() => step + 1),
    );
    byId("roll-step").addEventListener(
      "input",
      by(() => Number(byId("roll-step").value)),
    );
    byId("roll-step").max = STEPS.length - 1;
    byId("roll-play").addEventListener("click", play);
    State.figure(draw);
  }

  return { connect };
})();
