// Everything here only makes quicker what works without it.
(() => {
  "use strict";
  const root = document.documentElement, body = document.body;
  root.classList.add("js");
  const $ = (sel, from) => (from || document).querySelector(sel);
  const typing = el => el && el.closest("input:not([type=checkbox]):not([type=radio]),textarea,select,[contenteditable]");
  const status = text => { const el = $("#status"); if (el) { el.textContent = text; clearTimeout(status.t); status.t = setTimeout(() => { el.textContent = ""; }, 6000); } };

  const here = $(".nav a[aria-current]"), nav = $(".nav"); // on a narrow screen the row of pages scrolls
  if (here && nav) nav.scrollLeft = here.offsetLeft - (nav.clientWidth - here.offsetWidth) / 2;

  // A request that failed leaves the old content; say so.
  body.addEventListener("htmx:response:error", e => {
    const id = e.detail?.ctx?.response?.headers?.get?.("X-Incident");
    status(`Could not refresh${id ? ` (id ${id})` : ""}. The page shows what it had; reload to retry.`);
  });
  body.addEventListener("htmx:error", () => status("Could not reach the server. The page shows what it had."));

  document.addEventListener("change", e => { if (e.target.matches("[data-submit]")) e.target.form.requestSubmit(); });
  document.addEventListener("click", e => {
    const copy = e.target.closest("[data-copy]");
    if (copy) {
      const text = $(copy.dataset.copy).textContent;
      navigator.clipboard.writeText(text).then(() => status("Copied."), () => status("Copying is not allowed here: select the text."));
    }
    const mark = e.target.closest("svg [data-href]");
    if (mark) location.assign(mark.dataset.href);
    const png = e.target.closest("[data-png]");
    if (png) picture(png.dataset.png).catch(() => status("The picture could not be made; the SVG beside it has the same chart."));
    const opener = e.target.closest("[data-dialog]");
    if (opener) open(opener.dataset.dialog);
    const all = e.target.closest("[data-all]");
    if (all) document.querySelectorAll(all.dataset.all).forEach(box => { box.checked = all.checked; });
    document.querySelectorAll("details.menu[open]").forEach(menu => { if (!menu.contains(e.target)) menu.open = false; });
  });

  // A chart as PNG: the server's SVG on a canvas of twice its size.
  async function picture(address) {
    const answer = await fetch(address), image = new Image(), canvas = document.createElement("canvas");
    if (!answer.ok) throw new Error(answer.status);
    image.src = "data:image/svg+xml," + encodeURIComponent(await answer.text());
    await image.decode();
    canvas.width = image.naturalWidth * 2;
    canvas.height = image.naturalHeight * 2;
    canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
    const blob = await new Promise(done => canvas.toBlob(done, "image/png")), link = document.createElement("a");
    link.href = URL.createObjectURL(blob);
    link.download = (/filename="([^"]+)\.svg"/.exec(answer.headers.get("Content-Disposition")) || [, "chart"])[1] + ".png";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  }

  let came_from = null;
  function open(id) {
    const dialog = document.getElementById(id);
    if (!dialog || dialog.open) return;
    came_from = document.activeElement;
    dialog.showModal();
  }
  document.querySelectorAll("dialog").forEach(dialog => dialog.addEventListener("close", () => came_from?.focus?.()));

  // Keys: off while typing, and altogether where the setting says so.
  let waiting = 0;
  const row = step => {
    const links = [...document.querySelectorAll("tbody [data-row], li [data-row]")];
    if (!links.length) return;
    const at = links.indexOf(document.activeElement);
    links[Math.min(Math.max(at + step, 0), links.length - 1)].focus();
  };
  const go = sel => { const link = $(sel); if (link) link.click(); };
  document.addEventListener("keydown", e => {
    if ((e.ctrlKey || e.metaKey) && e.key.toLowerCase() === "k") { e.preventDefault(); open("palette"); return; }
    const palette = e.target.closest?.("#palette");
    if (palette && e.key === "Escape") { e.preventDefault(); palette.close(); return; } // a search field would take the first one to empty itself
    if (palette && (e.key === "ArrowDown" || e.key === "ArrowUp")) {
      const links = [...palette.querySelectorAll(".found a")], at = links.indexOf(document.activeElement);
      const next = links[at + (e.key === "ArrowDown" ? 1 : -1)];
      (next || (e.key === "ArrowUp" ? $("input", palette) : null))?.focus();
      e.preventDefault();
    }
    if (e.ctrlKey || e.metaKey || e.altKey || body.dataset.keys === "off" || $("dialog[open]")) return;
    if (e.key === "Escape") { document.querySelectorAll("details.menu[open]").forEach(m => { m.open = false; $("summary", m).focus(); }); if (typing(e.target)) e.target.blur(); return; }
    if (typing(e.target)) return;
    const at = e.target.closest?.(".tree [data-row]"), step = at && { ArrowDown: 1, ArrowUp: -1 }[e.key];
    if (step) { e.preventDefault(); row(step); return; }
    if (at && e.key === "ArrowRight") { $("ol [data-row]", at.closest("li"))?.focus(); return; }
    if (at && e.key === "ArrowLeft") { at.closest("ol").closest("li")?.querySelector("[data-row]").focus(); return; }
    if (waiting) { clearTimeout(waiting); waiting = 0; const link = $(`[data-go="${CSS.escape(e.key)}"]`); if (link) { e.preventDefault(); link.click(); } return; }
    if (e.key === "g") waiting = setTimeout(() => { waiting = 0; }, 1200);
    else if (e.key === "/") { const box = $("[data-filter]"); e.preventDefault(); if (box) box.focus(); else open("palette"); }
    else if (e.key === "?") open("keys");
    else if (e.key === "j") row(1);
    else if (e.key === "k") row(-1);
    else if (e.key === "[") go("[data-earlier]");
    else if (e.key === "]") go("[data-later]");
    else if (e.key === "p" || e.key === "n") go(`[data-step="${e.key}"]`);
    else if (e.key === " " && $("[data-pause]") && !e.target.closest("button,a,summary")) { e.preventDefault(); $("[data-pause]").click(); }
  });
})();
