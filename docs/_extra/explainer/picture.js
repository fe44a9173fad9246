/* The picture: one drawn by code at first, then the reader's own. It never leaves the browser. */
"use strict";

const Picture = (() => {
  const MOST = 1440; // pixels along a side that are kept of the reader's picture
  const canvas = document.createElement("canvas");
  const listeners = [];
  const known = { grid: "", colors: [] }; // of the grid that was asked for last
  let name = Lake.NAME;

  /** The picture that the page starts with. */
  function showLake() {
    Lake.draw(canvas);
    name = Lake.NAME;
    publish();
  }

  /** Takes a picture of the reader's: a file. */
  async function load(file) {
    const status = document.getElementById("picture-status");
    try {
      const bitmap = await createImageBitmap(file);
      const scale = Math.min(1, MOST / Math.max(bitmap.width, bitmap.height));
      canvas.width = Math.max(1, Math.round(bitmap.width * scale));
      canvas.height = Math.max(1, Math.round(bitmap.height * scale));
      canvas.getContext("2d", { willReadFrequently: true }).drawImage(bitmap, 0, 0, canvas.width, canvas.height);
      name = file.name;
      status.textContent = `Showing ${file.name}.`;
      publish();
    } catch {
      status.textContent = `${file.name} is not a picture that this browser can read. Try a PNG or a JPEG.`;
    }
  }

  function publish() {
    document.getElementById("image").setAttribute("href", canvas.toDataURL("image/jpeg", 0.9));
    known.grid = "";
    listeners.forEach((tell) => tell());
  }

  /** Fits the picture to the grid: it fills it, and what sticks out is cut off. */
  function fit(of) {
    const { T } = Draw;
    const image = document.getElementById("image");
    for (const [key, value] of Object.entries({ width: of.grid[1] * T, height: of.grid[0] * T }))
      image.setAttribute(key, value);
    const around = document.getElementById("padding-area");
    for (const [key, value] of Object.entries({ width: of.padded[1] * T, height: of.padded[0] * T }))
      around.setAttribute(key, value);
  }

  /** The mean color of each token of a grid, as [red, green, blue] from 0 to 1; row by row. */
  function colors(grid) {
    if (known.grid !== String(grid)) Object.assign(known, { grid: String(grid), colors: measure(grid) });
    return known.colors;
  }

  function measure([rows, columns]) {
    const small = document.createElement("canvas");
    [small.width, small.height] = [columns * 4, rows * 4];
    const draw = small.getContext("2d", { willReadFrequently: true });
    const scale = Math.max(small.width / canvas.width, small.height / canvas.height);
    const [width, height] = [canvas.width * scale, canvas.height * scale];
    draw.imageSmoothingQuality = "high";
    draw.drawImage(canvas, (small.width - width) / 2, (small.height - height) / 2, width, height);
    const { data } = draw.getImageData(0, 0, small.width, small.height);
    const mean = (row, column, channel) => {
      let sum = 0;
      for (let y = 0; y < 4; y++)
        for (let x = 0; x < 4; x++) sum += data[4 * ((4 * row + y) * small.width + 4 * column + x) + channel];
      return sum / 16 / 255;
    };
    return Array.from({ length: rows }, (_, row) =>
      Array.from({ length: columns }, (_, column) => [0, 1, 2].map((channel) => mean(row, column, channel))),
    );
  }

  function connect() {
    const input = document.getElementById("file");
    input.addEventListener("change", () => input.files[0] && load(input.files[0]));
    document.getElementById("default-picture").addEventListener("click", showLake);
    const page = document.documentElement;
    const isFile = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files");
    document.addEventListener("dragover", (event) => {
      if (!isFile(event)) return;
      event.preventDefault();
      page.classList.add("dropping");
    });
    document.addEventListener("dragleave", (event) => event.relatedTarget || page.classList.remove("dropping"));
    document.addEventListener("drop", (event) => {
      if (!isFile(event)) return;
      event.preventDefault();
      page.classList.remove("dropping");
      load(event.dataTransfer.files[0]);
    });
    document.addEventListener("paste", (event) => event.clipboardData?.files[0] && load(event.clipboardData.files[0]));
    showLake();
  }

  return { connect, fit, colors, onChange: (tell) => listeners.push(tell), name: () => name };
})();
