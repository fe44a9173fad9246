/* Starts the page: connects sliders and picture, and draws everything once. */
"use strict";

(() => {
  const page = document.documentElement;
  const panel = document.getElementById("panel");
  const narrow = matchMedia("(max-width: 64rem)");
  const fold = () => (panel.open = !narrow.matches);
  narrow.addEventListener("change", fold);
  fold();

  // in the site this page lies beside the others; in the source tree it does not
  if (!location.pathname.includes("/_extra/")) document.querySelector(".home").hidden = false;

  addEventListener("resize", State.draw);
  addEventListener("beforeprint", () =>
    document.querySelectorAll("#check details").forEach((one) => (one.open = true)),
  );

  State.figure((now, of) => Picture.fit(of));
  Steps.connect();
  Roll.connect();
  Kinds.connect();
  Cost.connect();
  AskMask.connect();
  AskBlocks.connect();
  State.figure(Live.show);
  State.connect();
  Picture.onChange(State.draw);
  Picture.connect();
  State.drawNow();
  page.classList.add("ready");
})();
