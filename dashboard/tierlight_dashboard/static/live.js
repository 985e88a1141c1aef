// The live tail: at most 200 rows, and none added while it is held or being read.
(() => {
  "use strict";
  const body = document.body, rows = document.getElementById("rows");
  const button = document.querySelector("[data-pause]"), state = document.getElementById("live-state"), tally = document.getElementById("live-count");
  let held = false, hovered = false, skipped = 0, arrived = [];
  const reading = () => held || hovered || rows.contains(document.activeElement);
  const show = () => { button.textContent = held ? "Resume (Space)" : "Pause (Space)"; button.setAttribute("aria-pressed", held); };
  const connected = on => { state.className = on ? "dotok" : "dotoff"; state.textContent = on ? "connected" : "reconnecting"; };
  button.addEventListener("click", () => { held = !held; show(); });
  rows.addEventListener("mouseenter", () => { hovered = true; });
  rows.addEventListener("mouseleave", () => { hovered = false; });
  body.addEventListener("htmx:sse:before:message", e => { if (reading()) { e.preventDefault(); skipped += 1; } });
  body.addEventListener("htmx:sse:after:message", () => {
    for (const row of rows.querySelectorAll("tr:not([data-seen])")) { row.dataset.seen = ""; arrived.push(Date.now()); }
    while (rows.children.length > 200) rows.lastElementChild.remove();
  });
  for (const row of rows.children) row.dataset.seen = "";
  let met = false; // htmx connects again by itself, but not where the first attempt failed
  const again = () => setTimeout(() => fetch("/health").then(() => location.reload(), again), 2000);
  body.addEventListener("htmx:sse:after:connection", () => { met = true; connected(true); });
  body.addEventListener("htmx:sse:error", () => connected(false));
  body.addEventListener("htmx:error", () => { connected(false); if (!met) again(); });
  setInterval(() => {
    arrived = arrived.filter(at => at > Date.now() - 60000);
    tally.textContent = `${arrived.length} in the last minute, ${rows.children.length} shown${skipped ? `, ${skipped} updates held back while reading` : ""}`;
  }, 10000);
  show();
})();
