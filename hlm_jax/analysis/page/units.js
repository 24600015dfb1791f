// The units of a part of the text, from its packed columns (hlm_jax/analysis/page/heatmap.py). No page
// is needed here, so that tests can run this file alone.
const units = (() => {
  "use strict";

  async function unpack(text) {
    const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
    return JSON.parse(await new Response(stream).text());
  }
  // Offsets count characters, as in the table: a JavaScript string counts half of a rare one.
  function opened(raw) {
    const chars = Array.from(raw.t);
    const models = raw.m.map((columns) => {
      const start = [], end = [];
      let place = 0;
      columns.n.forEach((length, i) => {
        place += (columns.gaps || {})[i] || 0;
        start.push(place);
        end.push(place += length);
      });
      return { ...columns, start, end };
    });
    return { chars, models, slice: (a, b) => chars.slice(a, b).join("") };
  }
  // Borders that both models have cut the text into the shortest stretches that can be compared.
  function stretches(a, b) {
    const ends = new Set(b.end), starts = new Set(b.start), found = { start: [], end: [] };
    let start = null;
    a.start.forEach((from, i) => {
      if (start === null && starts.has(from)) start = from;
      if (start !== null && ends.has(a.end[i])) {
        found.start.push(start);
        found.end.push(a.end[i]);
        start = null;
      }
    });
    return found;
  }
  function inside(model, start, end) {
    const found = [];
    for (let i = first(model.start, start); i < model.start.length && model.start[i] < end; i++) found.push(i);
    return found;
  }
  function first(sorted, value) {
    let low = 0, high = sorted.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (sorted[middle] < value) low = middle + 1; else high = middle;
    }
    return low;
  }
  const sum = (values) => values.reduce((total, value) => total + (value || 0), 0);
  const bits = (model, cells) => sum(cells.map((i) => model.b[i])) / 1000;

  return { unpack, opened, stretches, inside, first, sum, bits };
})();
