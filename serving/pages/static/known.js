// "What was known when": the picture, and moving t without loading the page again. Addresses and values come from the server.
"use strict";

(() => {
  const { picture, kind } = charts.data;
  const columns = picture.columns;
  let t = charts.data.t;

  // ------------------------------------------------------------------------------------------------------- the picture

  const words = (mark) => {
    const lines = [`event ${readable(mark.event)}`, `arrived ${readable(mark.arrival)}`];
    if (mark.issue) lines.splice(1, 0, `issued ${readable(mark.issue)}`);
    lines.push(mark.retraction ? "retraction" : `revision ${mark.revision} of ${mark.revisions}`);
    for (const name of columns) lines.push(`${plainly(name)} ${plainly(mark.values[name])}`);
    return lines.join("<br>");
  };
  const readable = (instant) => `${instant.replace("T", " ").replace("Z", "").slice(0, 19)} UTC`;
  // Plotly understands a little markup in labels; what came from a provider is not to be understood.
  const plainly = (text) => text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
  const after = (one, other) => Date.parse(one) > Date.parse(other);

  const marks = (chosen, name, marker) => ({
    x: chosen.map((mark) => charts.instant(mark.event)), y: chosen.map((mark) => charts.instant(mark.arrival)),
    text: chosen.map(words), customdata: chosen.map((mark) => mark.arrival), mode: "markers", name, marker,
    hovertemplate: "%{text}<extra></extra>",
  });

  // From each arrival on, the newest event known.
  const stairs = (() => {
    const steps = { x: [], y: [], arrivals: [] };
    let newest = null;
    const rows = picture.marks.filter((mark) => !mark.retraction && mark.event);
    for (const mark of [...rows].sort((a, b) => Date.parse(a.arrival) - Date.parse(b.arrival))) {
      if (newest !== null && !after(mark.event, newest)) continue;
      newest = mark.event;
      steps.x.push(charts.instant(mark.event));
      steps.y.push(charts.instant(mark.arrival));
      steps.arrivals.push(mark.arrival);
    }
    return steps;
  })();

  // What arrived outside of the picture would lie on its edge as if it had arrived there.
  const within = picture.marks.filter((mark) => !after(picture.top, mark.arrival) && !after(mark.arrival, picture.bottom));

  const make = (width) => {
    const known = within.filter((mark) => !after(mark.arrival, t));
    const counts = (mark) => mark.current.some(([begin, end]) => !after(begin, t) && (end === null || after(end, t)));
    const current = known.filter((mark) => !mark.retraction && counts(mark));
    const replaced = known.filter((mark) => !mark.retraction && !counts(mark));
    const withdrawn = known.filter((mark) => mark.retraction);
    const coming = within.filter((mark) => after(mark.arrival, t));
    const reached = stairs.arrivals.filter((arrival) => !after(arrival, t)).length;
    const stair = (from, until, more) => ({
      x: stairs.x.slice(from, until), y: stairs.y.slice(from, until), mode: "lines", hoverinfo: "skip", showlegend: false, ...more,
    });
    const now = charts.instant(t);
    const green = charts.colour("green");
    const size = picture.marks.length > 600 ? 5 : 8;
    const done = stair(0, reached, { line: { shape: "vh", color: green, width: 2 }, name: "newest event that arrived", showlegend: reached > 0 });
    if (reached) {
      done.x.push(done.x[done.x.length - 1]);
      done.y.push(now);
    }
    const line = { type: "line", layer: "below" };
    return {
      traces: [
        stair(Math.max(reached - 1, 0), undefined, { line: { shape: "vh", color: charts.colour("grey"), width: 1.5, dash: "dot" } }),
        done,
        marks(replaced, "replaced", { symbol: "circle", size: size - 2, color: charts.colour("grey") }),
        marks(coming, "not yet arrived", { symbol: "circle-open", size, color: charts.colour("orange"), line: { width: 1.6 } }),
        marks(current, "current", { symbol: "circle", size, color: charts.colour("blue") }),
        marks(withdrawn, "retraction", { symbol: "x", size: size + 1, color: charts.colour("orange") }),
      ].filter((trace) => trace.mode !== "markers" || trace.x.length),
      layout: charts.layout({
        xaxis: charts.axis("event time (UTC)", {
          type: "date", range: range().x.map(charts.instant), nticks: width < 500 ? 4 : 8,
        }),
        yaxis: charts.axis("arrival time (UTC), later is lower", { type: "date", range: range().y.map(charts.instant), nticks: 10 }),
        showlegend: true, legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom", itemclick: false, itemdoubleclick: false },
        margin: { l: 70, r: 12, t: width < 500 ? 70 : 40, b: 48 }, uirevision: "kept",
        shapes: [
          { type: "rect", layer: "below", xref: "paper", x0: 0, x1: 1, y0: charts.instant(picture.top), y1: now, fillcolor: charts.colour("arrived"), line: { width: 0 } },
          { ...line, layer: "above", xref: "paper", x0: 0, x1: 1, y0: now, y1: now, line: { color: green, width: 2 } },
          { ...line, yref: "paper", y0: 0, y1: 1, x0: now, x1: now, line: { color: charts.colour("soft"), width: 1, dash: "dash" } },
        ],
        annotations: [
          {
            x: now, xanchor: Number(slider.value) * 2 > Number(slider.min) + Number(slider.max) ? "right" : "left", yref: "paper", y: 1, yanchor: "top",
            text: "event time t", showarrow: false, font: { color: charts.colour("soft"), size: 12 },
          },
          { xref: "paper", x: 1, xanchor: "right", y: now, yanchor: "top", text: "t", showarrow: false, font: { color: green, size: 15 } },
        ],
      }),
    };
  };
  const slider = document.getElementById("slider");
  const iso = (seconds) => new Date(seconds * 1000).toISOString().replace(".000Z", "Z");
  // A little room at the edges, so that marks there are whole.
  const range = () => {
    const [begin, end] = [Number(slider.min), Number(slider.max)];
    const [top, bottom] = [Date.parse(picture.top) / 1000, Date.parse(picture.bottom) / 1000];
    const [across, down] = [(end - begin) / 60, (bottom - top) / 30];
    return { x: [iso(begin - across), iso(end + across)], y: [iso(bottom + down), iso(top - down)] };
  };

  const drawn = charts.draw("known", make);
  if (drawn) {
    drawn.then((place) => place.on("plotly_click", (event) => {
      const arrival = event.points[0].customdata;
      if (arrival) go(arrival, false);
    }));
  }

  // ------------------------------------------------------------------------------------------------------------ moving

  const byId = (id) => document.getElementById(id);
  const STILL = 700; // milliseconds after which the slider has settled
  let wanted = null;
  let busy = false;
  let before = t; // where t had settled: what the features are compared with, and where Back leads to
  let sliding = false;
  let settling = 0;

  // One question at a time; of those that come meanwhile the last.
  const go = async (instant, slid) => {
    wanted = { instant, slid };
    if (slid) clearTimeout(settling);
    if (busy) return;
    busy = true;
    try {
      while (wanted !== null) {
        const { instant: asked, slid } = wanted;
        wanted = null;
        if (asked === t) continue;
        const goesOn = slid && sliding; // one move of the slider is one step back, whatever lies between
        if (!goesOn) before = t;
        const link = new URL(byId("json").href);
        link.searchParams.set("t", asked);
        link.searchParams.set("was", before);
        link.searchParams.set("part", "vector");
        const answer = await fetch(link);
        if (!answer.ok) throw new Error(`status ${answer.status}`);
        show(await answer.json(), goesOn);
        sliding = slid;
        clearTimeout(settling);
        if (slid) settling = setTimeout(() => { sliding = false; }, STILL);
      }
    } catch {
      location.assign(pageAt(wanted === null ? instant : wanted.instant));
    } finally {
      busy = false;
    }
  };

  const pageAt = (instant) => {
    const link = new URL(byId("self").href);
    link.searchParams.set("was", before);
    link.searchParams.set("t", instant);
    return link;
  };

  const show = (told, goesOn) => {
    t = told.t;
    byId("now").textContent = readable(t).replace(" UTC", "");
    byId("was").textContent = readable(told.was);
    byId("t").value = t;
    slider.setAttribute("aria-valuetext", readable(t));
    if (document.activeElement !== slider) slider.value = Date.parse(t) / 1000;
    for (const input of document.querySelectorAll('input[name="was"]')) input.value = t;
    for (const cell of [...told.vector.features, ...told.vector.ages]) change(cell);
    const changed = told.vector.features.filter((cell) => cell.changed).length;
    byId("said").textContent = `t is ${readable(t)}; ${changed} of ${told.vector.features.length} features changed`;
    byId("provisional").hidden = !told.vector.provisional;
    for (const [name, href] of Object.entries(told.links)) move(byId(name), href);
    if (goesOn) history.replaceState(null, "", told.links.self);
    else history.pushState(null, "", told.links.self);
    charts.redraw();
    if (new URL(location).searchParams.has("feature")) explainSoon();
  };

  const change = (cell) => {
    const row = document.querySelector(`tr[data-feature="${CSS.escape(cell.feature)}"]`);
    const part = (name) => row.querySelector(`[data-part="${name}"]`);
    part("text").textContent = cell.text;
    part("status").textContent = cell.status;
    part("status").className = cell.status;
    part("was").textContent = cell.changed ? cell.was : "same";
    row.className = cell.changed ? (cell.href ? "changed" : "moved") : "";
    if (cell.href) row.querySelector("a").href = `${cell.href}#explanation`;
  };

  // A link that leads nowhere any more is none, and the other way round.
  const move = (element, href) => {
    if (!element) return;
    if ((href !== null) === (element.localName === "a")) {
      if (href !== null) element.href = href;
      return;
    }
    const other = document.createElement(href === null ? "span" : "a");
    other.id = element.id;
    other.className = href === null ? "button off" : "button";
    other.textContent = element.textContent;
    if (href !== null) other.href = href;
    element.replaceWith(other);
  };

  // --------------------------------------------------------------------------------------------------------- explaining

  let soon = 0;
  const explainSoon = () => {
    clearTimeout(soon);
    soon = setTimeout(() => explain(byId("self").href), 150);
  };

  const explain = async (href) => {
    try {
      const answer = await fetch(href);
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      for (const id of ["explanation", "features"]) byId(id).replaceChildren(...page.getElementById(id).childNodes);
      for (const id of ["self", "json"]) byId(id).href = page.getElementById(id).getAttribute("href");
      return true;
    } catch {
      location.assign(href);
      return false;
    }
  };

  document.addEventListener("click", async (event) => {
    const link = event.target.closest("a");
    if (!link || event.ctrlKey || event.metaKey || event.shiftKey || event.button) return;
    if (link.closest("#features")) {
      event.preventDefault();
      if (await explain(link.href)) {
        history.pushState(null, "", byId("self").href);
        byId("explanation").focus();
      }
    } else if (["arrival_before", "earlier", "later", "arrival_after", "last_arrival"].includes(link.id)) {
      const instant = new URL(link.href).searchParams.get("t");
      const seconds = Date.parse(instant) / 1000;
      if (seconds >= Number(slider.min) && seconds <= Number(slider.max)) {
        event.preventDefault();
        go(instant, false);
      }
    }
  });
  slider.addEventListener("input", () => go(iso(Number(slider.value)), true));
  const bare = (href) => new URL(href).href.replace(/#.*/, "");
  addEventListener("popstate", () => {
    if (bare(location.href) !== bare(byId("self").href)) location.reload();
  });
  history.replaceState(null, "", byId("self").href + location.hash);
})();
