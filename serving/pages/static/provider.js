// The charts of a provider: delays over time and as a histogram, outages, revisions.
"use strict";

(() => {
  const { habits, outages, freshness } = charts.data;
  const times = habits.over_time.map((each) => charts.instant(each.start));
  const since = habits.delay_of === "issue" ? "from issue to arrival" : "from event to arrival";
  const across = () => charts.axis(`event time (UTC), by ${habits.every}`, { type: "date" });
  // The time that the charts of delays show, and outages that reach beyond it; one that goes on leaves it at its end.
  const span = () => {
    const shown = [...times, ...outages.flatMap((each) => [each.start, each.end ?? each.start]).map(charts.instant)].map((each) => Date.parse(`${each}Z`));
    const [first, last] = [Math.min(...shown), Math.max(...shown)];
    const room = Math.max((last - first) / 25, 60_000);
    return [first - room, last + room].map((each) => charts.instant(new Date(each).toISOString()));
  };
  const greatest = Math.max(...habits.over_time.map((each) => Math.abs(each.q95)));

  charts.draw("delays", () => {
    const { name, size } = charts.unit(greatest);
    const line = (quantile) => habits.over_time.map((each) => each[quantile] / size);
    const bound = (quantile, fill, label) => ({
      x: times, y: line(quantile), mode: "lines", line: { width: 0 }, name: label, hoverinfo: "skip", showlegend: false,
      ...(fill ? { fill: "tonexty", fillcolor: charts.colour(fill), showlegend: true } : {}),
    });
    const words = habits.over_time.map((each) => `${each.keys.toLocaleString("en")} keys<br>nine in ten: ${(each.q05 / size).toPrecision(3)} to ${(each.q95 / size).toPrecision(3)}`);
    return {
      traces: [
        bound("q05"), bound("q95", "band", "nine in ten keys"), bound("q25"), bound("q75", "half", "half of the keys"),
        {
          x: times, y: line("q50"), mode: times.length > 60 ? "lines" : "lines+markers", name: "median", text: words,
          line: { color: charts.colour("blue"), width: 2 }, marker: { size: 5 },
          hovertemplate: `%{x|%Y-%m-%d %H:%M} UTC<br>median %{y:.3~g} ${name}<br>%{text}<extra></extra>`,
        },
      ],
      layout: charts.layout({
        xaxis: across(), yaxis: charts.axis(`${since}, ${name}`, { rangemode: "tozero" }),
        showlegend: true, legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom" }, margin: { l: 60, r: 16, t: 36, b: 48 },
      }),
    };
  });

  charts.draw("histogram", () => {
    const bins = habits.histogram;
    const last = bins[bins.length - 1];
    const { name, size } = charts.unit(Math.abs(last.from));
    const width = bins.length > 1 ? (bins[0].until - bins[0].from) / size : 1;
    const told = bins.map((each) => (each.until === null
      ? `${(each.from / size).toPrecision(3)} ${name} and more`
      : `${(each.from / size).toPrecision(3)} to ${(each.until / size).toPrecision(3)} ${name}`));
    return {
      traces: [{
        type: "bar", x: bins.map((each) => each.from / size + width / 2), y: bins.map((each) => each.keys), width: bins.map(() => width * 0.92),
        text: told, textposition: "none", marker: { color: bins.map((each) => charts.colour(each.until === null ? "orange" : "blue")) },
        hovertemplate: "%{text}<br>%{y:,} keys<extra></extra>",
      }],
      layout: charts.layout({
        xaxis: charts.axis(`${since}, ${name}`, { rangemode: "tozero" }), yaxis: charts.axis("keys", { rangemode: "tozero" }), bargap: 0,
      }),
    };
  });

  charts.draw("outages", () => {
    const now = charts.instant(freshness.now);
    const ends = outages.map((each) => (each.end === null ? now : charts.instant(each.end)));
    const x = outages.flatMap((each, i) => [charts.instant(each.start), ends[i], null]);
    const words = outages.flatMap((each, i) => {
      const said = `${charts.instant(each.start).replace("T", " ").slice(0, 19)} to ${each.end === null ? "now" : ends[i].replace("T", " ").slice(0, 19)} UTC<br>${each.catch_up_rows.toLocaleString("en")} rows with its end`;
      return [said, said, ""];
    });
    return {
      traces: [{
        x, y: x.map((each) => (each === null ? null : 0)), mode: "lines+markers", text: words, line: { color: charts.colour("orange"), width: 16 },
        marker: { color: charts.colour("orange"), size: 4, symbol: "square" }, connectgaps: false, hovertemplate: "%{text}<extra></extra>",
      }],
      layout: charts.layout({
        xaxis: charts.axis("time (UTC)", { type: "date", range: span() }),
        yaxis: { visible: false, range: [-1, 1], fixedrange: true }, margin: { l: 16, r: 16, t: 8, b: 48 },
      }),
    };
  });

  charts.draw("revisions", () => ({
    traces: [{
      type: "bar", x: times, y: habits.over_time.map((each) => each.revisions), marker: { color: charts.colour("blue") },
      hovertemplate: "%{x|%Y-%m-%d %H:%M} UTC<br>%{y:.3~g} revisions per key<extra></extra>",
    }],
    layout: charts.layout({ xaxis: across(), yaxis: charts.axis("revisions per key", { rangemode: "tozero" }) }),
  }));
})();
