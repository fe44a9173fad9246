/* The picture that the page starts with: a lake in the evening. Blue above and blue below, and yet not the same. */
"use strict";

const Lake = (() => {
  const NAME = "a lake in the evening, drawn by this page";
  const SIDE = 720;

  /** A polygon, filled. */
  function shape(pen, color, points) {
    pen.fillStyle = color;
    pen.beginPath();
    points.forEach(([x, y]) => pen.lineTo(x * SIDE, y * SIDE));
    pen.closePath();
    pen.fill();
  }

  function gradient(pen, from, to, stops) {
    const colors = pen.createLinearGradient(0, from * SIDE, 0, to * SIDE);
    stops.forEach(([at, color]) => colors.addColorStop(at, color));
    pen.fillStyle = colors;
    pen.fillRect(0, from * SIDE, SIDE, (to - from) * SIDE);
  }

  function disc(pen, color, x, y, across, down = across) {
    pen.fillStyle = color;
    pen.beginPath();
    pen.ellipse(x * SIDE, y * SIDE, across * SIDE, down * SIDE, 0, 0, 2 * Math.PI);
    pen.fill();
  }

  /** Draws it on a canvas. */
  function draw(canvas) {
    canvas.width = canvas.height = SIDE;
    const pen = canvas.getContext("2d", { willReadFrequently: true });
    gradient(pen, 0, 0.62, [
      [0, "#3f7fb8"],
      [0.45, "#86b9dc"],
      [0.8, "#f6dcb4"],
      [1, "#f2b880"],
    ]);
    disc(pen, "rgba(255, 244, 214, .35)", 0.3, 0.4, 0.15);
    disc(pen, "#fff3cf", 0.3, 0.4, 0.085);
    for (const [x, y, width] of [
      [0.62, 0.13, 0.12],
      [0.7, 0.16, 0.14],
      [0.79, 0.14, 0.09],
      [0.13, 0.2, 0.08],
      [0.19, 0.215, 0.09],
    ])
      disc(pen, "rgba(255, 255, 255, .8)", x, y, width, 0.026);
    shape(pen, "#7d8fb3", [
      [0, 0.62],
      [0, 0.47],
      [0.1, 0.4],
      [0.2, 0.5],
      [0.36, 0.33],
      [0.55, 0.52],
      [0.68, 0.42],
      [0.86, 0.53],
      [1, 0.45],
      [1, 0.62],
    ]);
    shape(pen, "#f4f6fa", [
      [0.36, 0.33],
      [0.305, 0.385],
      [0.34, 0.39],
      [0.365, 0.37],
      [0.39, 0.4],
      [0.425, 0.39],
    ]);
    shape(pen, "#5d7a5c", [
      [0, 0.64],
      [0, 0.55],
      [0.15, 0.52],
      [0.34, 0.58],
      [0.55, 0.54],
      [0.76, 0.58],
      [1, 0.5],
      [1, 0.64],
    ]);
    gradient(pen, 0.62, 1, [
      [0, "#e7b483"],
      [0.25, "#8fb4cf"],
      [1, "#3c78ae"],
    ]);
    pen.fillStyle = "rgba(255, 243, 207, .75)";
    for (let i = 0; i < 9; i++)
      pen.fillRect((0.3 - 0.08 + 0.016 * (i % 3)) * SIDE, (0.635 + 0.022 * i) * SIDE, (0.13 - 0.009 * i) * SIDE, 5);
    pen.fillStyle = "rgba(255, 255, 255, .28)";
    for (let i = 0; i < 26; i++)
      pen.fillRect(((i * 0.377) % 0.94) * SIDE, (0.67 + ((i * 0.211) % 0.32)) * SIDE, 34 + (i % 4) * 12, 3);
    // a sailing boat in the middle, across the border of two windows
    shape(pen, "#fbfaf5", [
      [0.665, 0.42],
      [0.665, 0.7],
      [0.54, 0.7],
    ]);
    shape(pen, "#d94f2b", [
      [0.685, 0.47],
      [0.685, 0.7],
      [0.78, 0.7],
    ]);
    shape(pen, "#3a2a25", [
      [0.668, 0.4],
      [0.682, 0.4],
      [0.682, 0.72],
      [0.668, 0.72],
    ]);
    shape(pen, "#5a3825", [
      [0.53, 0.715],
      [0.81, 0.715],
      [0.765, 0.775],
      [0.585, 0.775],
    ]);
    // a lighthouse at the left edge
    shape(pen, "#4c5a4a", [
      [0, 0.8],
      [0, 0.62],
      [0.13, 0.63],
      [0.2, 0.71],
      [0.12, 0.78],
    ]);
    shape(pen, "#f7f4ee", [
      [0.05, 0.66],
      [0.062, 0.36],
      [0.128, 0.36],
      [0.14, 0.66],
    ]);
    for (const y of [0.41, 0.51, 0.61])
      shape(pen, "#c8372d", [
        [0.058, y + 0.045],
        [0.06, y],
        [0.13, y],
        [0.135, y + 0.045],
      ]);
    shape(pen, "#2d3440", [
      [0.055, 0.36],
      [0.06, 0.3],
      [0.13, 0.3],
      [0.135, 0.36],
    ]);
    disc(pen, "#ffe680", 0.095, 0.33, 0.018);
    shape(pen, "#c8372d", [
      [0.05, 0.3],
      [0.095, 0.25],
      [0.14, 0.3],
    ]);
    // reeds at the right edge
    for (let i = 0; i < 15; i++) {
      const [x, top] = [0.86 + 0.0095 * i, 0.66 + ((i * 0.137) % 0.14)];
      shape(pen, i % 2 ? "#4f6b3a" : "#6d8748", [
        [x, 1],
        [x + 0.004 + 0.012 * Math.sin(i), top],
        [x + 0.012, 1],
      ]);
    }
  }

  return { NAME, draw };
})();
