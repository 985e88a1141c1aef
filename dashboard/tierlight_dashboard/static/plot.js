// Zoom and hover over hourly latency, whose figures are asked for after the page. Without it the SVG above stays.
(async () => {
  "use strict";
  const host = document.getElementById("plot");
  if (!host || !window.uPlot) return;
  const data = await fetch(host.dataset.src).then(answer => answer.ok ? answer.json() : null, () => null);
  if (!data) { host.textContent = "The figures could not be fetched. Reload to try again."; return; }
  const root = document.documentElement;
  const color = name => () => getComputedStyle(root).getPropertyValue(name).trim();
  const months = "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split(" ");
  const two = n => String(n).padStart(2, "0");
  const zoned = ts => uPlot.tzDate(new Date(ts * 1e3), data.zone);
  const clock = ts => { const d = zoned(ts); return `${two(d.getHours())}:${two(d.getMinutes())}`; };
  const day = ts => { const d = zoned(ts); return `${d.getDate()} ${months[d.getMonth()]}`; };
  const span = ms => ms == null ? "–" : ms < 1000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(ms < 10000 ? 2 : 1)} s`;
  const width = () => host.clientWidth;
  const plot = new uPlot({
    width: width(), height: 230, tzDate: zoned, legend: { live: true },
    cursor: { drag: { x: true, y: false, setScale: false } },
    scales: { y: { range: (u, low, high) => [0, (high || 1) * 1.08] } },
    axes: [
      { stroke: color("--mut"), grid: { stroke: color("--line"), width: 1 }, ticks: { show: false }, space: 70,
        values: (u, at) => at.map((t, i) => { const d = zoned(t); return d.getHours() === 0 && d.getMinutes() === 0 || i === 0 ? day(t) : clock(t); }) },
      { stroke: color("--mut"), grid: { stroke: color("--line"), width: 1 }, ticks: { show: false }, size: 56, values: (u, at) => at.map(span) },
    ],
    series: [
      { label: `Time (${data.zone})`, value: (u, t) => t == null ? "–" : `${day(t)} ${clock(t)}` },
      { label: "p95", stroke: color("--acc"), width: 1.5, value: (u, v) => span(v), points: { show: false } },
      { label: "p50", stroke: color("--ctl"), width: 1.5, value: (u, v) => span(v), points: { show: false } },
    ],
    hooks: { setSelect: [u => {
      if (u.select.width < 8) return;
      const at = x => new Date(u.posToVal(x, "x") * 1e3).toISOString().slice(0, 19) + "Z";
      const url = new URL(location.href);
      url.searchParams.set("range", "custom");
      url.searchParams.set("from", at(u.select.left));
      url.searchParams.set("to", at(u.select.left + u.select.width));
      location.assign(url);
    }] },
  }, [data.t, data.p95, data.p50], host);
  new ResizeObserver(() => { if (Math.abs(plot.width - width()) > 1) plot.setSize({ width: width(), height: 230 }); }).observe(host);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => plot.redraw(false));
})();
