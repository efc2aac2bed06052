// Charts in the page's own colours, drawn again when these change. Their data is in the page, as its .json has it.
"use strict";

const charts = {
  data: JSON.parse(document.getElementById("data").textContent),
  drawers: [],

  colour(name) {
    return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
  },

  // Plotly reads instants as the calendar shows them; all of ours are UTC.
  instant(text) {
    return text.replace("Z", "");
  },

  // The unit in which so many seconds are a handy number.
  unit(seconds) {
    for (const [name, size] of [["days", 86400], ["hours", 3600], ["minutes", 60], ["seconds", 1]]) {
      if (seconds >= 2 * size) return { name, size };
    }
    return { name: "seconds", size: 1 };
  },

  axis(title, more = {}) {
    const grid = charts.colour("line");
    return {
      title: { text: title, standoff: 8 }, automargin: true, gridcolor: grid, zerolinecolor: grid, linecolor: charts.colour("edge"),
      showline: true, ticks: "outside", tickcolor: charts.colour("edge"), ...more,
    };
  },

  layout(more = {}) {
    return {
      paper_bgcolor: charts.colour("back"), plot_bgcolor: charts.colour("back"),
      font: { family: "system-ui, sans-serif", size: 13, color: charts.colour("text") },
      margin: { l: 60, r: 16, t: 12, b: 48 }, hovermode: "closest", showlegend: false, dragmode: "pan",
      hoverlabel: { bgcolor: charts.colour("panel"), font: { color: charts.colour("text") }, bordercolor: charts.colour("edge") },
      modebar: { bgcolor: "rgba(0,0,0,0)", color: charts.colour("soft"), activecolor: charts.colour("link") },
      ...more,
    };
  },

  // Draw now, and whenever the reader's light or dark mode changes.
  draw(kind, make) {
    const place = document.querySelector(`[data-chart="${kind}"]`);
    if (!place) return;
    const drawer = () => {
      const { traces, layout } = make(place.clientWidth);
      return Plotly.react(place, traces, layout, {
        responsive: true, displaylogo: false, modeBarButtons: [["pan2d", "zoom2d", "zoomIn2d", "zoomOut2d", "resetScale2d", "toImage"]],
      });
    };
    charts.drawers.push(drawer);
    return drawer();
  },

  redraw() {
    for (const drawer of charts.drawers) drawer();
  },
};

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => charts.redraw());
