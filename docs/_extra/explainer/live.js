/* The numbers and captions in the text: every element with data-live="name" gets what `name` is now. */
"use strict";

const Live = (() => {
  const words = {};
  const count = (n) => Math.round(n).toLocaleString("en-US");
  const times = (ratio) => `${ratio < 10 ? ratio.toFixed(1) : count(ratio)} times`;
  const plural = (n, one, many = `${one}s`) => `${count(n)} ${n === 1 ? one : many}`;

  /** Says what `name` is, by a function of the setting and the cut. It may return HTML of our own making. */
  const say = (name, tell) => (words[name] = tell);

  function show(now, of) {
    for (const element of document.querySelectorAll("[data-live]")) {
      const text = words[element.dataset.live](now, of);
      if (element.innerHTML !== text) element.innerHTML = text;
    }
  }

  say("summary", (now) => `${now.rows} × ${now.columns}, windows of ${now.window}, shift ${now.shift}`);
  say("grid", (now) => `${now.rows} × ${now.columns}`);
  say("tokens", (now) => count(now.rows * now.columns));
  say("places", (now) => now.window ** 2);
  say("windowSize", (now) => `${now.window} × ${now.window}`);
  say("windowProduct", (now, of) => `${count(Windows.size(of.padded))} × ${now.window ** 2}`);
  const move = (of, [down, across]) => {
    const ways = [of.shift[0] && down, of.shift[1] && across].filter(Boolean);
    if (!ways.length) return "nowhere, since there is nothing to shift";
    return `${ways.join(" and ")}, by ${plural(Math.max(...of.shift), "token")}`;
  };
  say("borderMove", (now, of) => move(of, ["down", "to the right"]));
  say("pictureMove", (now, of) => move(of, ["up", "to the left"]));
  say("globalPairs", (now, of) => count(Windows.globalPairs(of)));
  say("windowPairs", (now, of) => count(Windows.windowPairs(of)));
  const big = (n) =>
    n >= 1e9 ? `${(n / 1e9).toPrecision(3)} bn` : n >= 1e6 ? `${(n / 1e6).toPrecision(3)} M` : count(n);
  say("globalMacs", (now, of) => big(Windows.globalMacs(of, now.dim)));
  say("windowMacs", (now, of) => big(Windows.windowMacs(of, now.dim)));
  say("windowCount", (now, of) => count(Windows.size(of.counts)));
  const cutCount = (of) => Windows.size(Windows.unrolledWindows(of).map((along) => along.length));
  say("cutWindows", (now, of) => count(cutCount(of)));
  say("shapes", (now, of) => {
    const [down, across] = Windows.unrolledWindows(of).map((along) => new Set(along.map(([, length]) => length)).size);
    return plural(down * across, "shape", "different shapes");
  });
  say("naive", (now, of) => times(cutCount(of) / Windows.size(of.counts)));

  return { say, show, count, times, plural, big };
})();
