// The panel Find: occurrences of words with their context, and where they stand in the book.
(() => {
  "use strict";
  const { make, both, chinese, digits, shown } = dom;
  const { at, known, say } = app;
  const PAGE = 100; // occurrences that are fetched at once
  const BINS = 240; // of the bar of the book
  let asked = null, drawn = 0, last = "", answer = null;
  let sent = ""; // what the request in work asks for

  const words = () => ({
    words: at("words").value, sort: at("sort").value, width: at("width").value, chapters: at("among").value.trim(), regex: at("regex").checked ? "true" : "",
  });
  function query(more) {
    return app.query("kwic", { model: known.model.id, ...words(), ...more });
  }
  async function find(more) {
    const path = query({ limit: PAGE, offset: more ? drawn : 0 });
    if (asked && path === sent) return; // it is on its way
    const empty = !at("words").value.trim();
    if (!empty && !app.valid(at("width"), app.label("width"))) return;
    if (asked) asked.abort();
    asked = null;
    if (empty) {
      clear();
      at("find-status").replaceChildren(both("Type one or more words, then press Find.", "请输入一个或几个词语，再点“查找”。"));
      return;
    }
    if (!more && path === last) {
      say(null);
      tell();
      return;
    }
    const mine = asked = new AbortController();
    sent = path;
    say(null);
    at("find-status").replaceChildren(both("Searching…", "正在查找……"));
    try {
      const found = await app.json(path, { signal: mine.signal });
      if (asked !== mine) return;
      asked = null;
      if (!more) last = path;
      draw(found, more);
    } catch (error) {
      if (asked !== mine) return;
      asked = null;
      clear();
      say(error);
    }
  }
  function clear() {
    last = "";
    answer = null;
    at("find-status").replaceChildren();
    at("spread").replaceChildren();
    for (const id of ["hits", "more", "find-csv"]) at(id).hidden = true;
  }

  // --- drawing ---

  function draw(found, more) {
    answer = found;
    if (!more) {
      drawn = 0;
      at("spread").replaceChildren(...found.words.map((word) => spread(word, found)));
      at("hits-table").replaceChildren(head(), make("tbody"));
    }
    at("hits-table").lastChild.append(...found.hits.map((hit) => row(hit)));
    drawn += found.hits.length;
    at("hits").hidden = !found.total;
    at("more").hidden = drawn >= found.total;
    at("find-csv").hidden = !found.total;
    tell();
  }
  function tell() {
    const { total } = answer, book = app.title(answer.book), n = total.toLocaleString("en");
    const shownOf = total > drawn ? [`, the first ${drawn} are shown`, `，显示前 ${drawn} 处`] : ["", ""];
    at("find-status").replaceChildren(both(`${n} occurrences in ${book[0]}${shownOf[0]}.`, `${book[1]}：共 ${n} 处${shownOf[1]}。`));
  }
  function head() {
    const titles = [["place", "位置"], ["left", "左文"], ["found", "所查"], ["right", "右文"]].map((label) => {
      const title = make("th", label[0], both(...label));
      title.scope = "col";
      return title;
    });
    return make("thead", "", make("tr", "", ...titles));
  }
  function row(hit) {
    const link = make("a", "", `${hit.chapter}:${hit.offset}`);
    link.href = app.link("read", { ch: hit.chapter, at: hit.offset });
    const cells = [make("td", "place", link), make("td", "left", make("div", "", shown(hit.left))), make("td", "found", shown(hit.match)), make("td", "right", make("div", "", shown(hit.right)))];
    for (const cell of cells.slice(1)) cell.lang = "zh";
    return make("tr", "", ...cells);
  }
  function spread(word, found) {
    const name = make("strong", "", word.word);
    name.lang = "zh";
    const box = make("div", "spread", name, " ");
    if (!word.total) {
      const others = Object.entries(word.variants).map(([other, n]) => {
        const button = make("button", "small", `${other} (${n.toLocaleString("en")})`);
        button.type = "button";
        button.addEventListener("click", () => {
          at("words").value = at("words").value.replace(word.word, other);
          app.keep(true);
          find();
        });
        return button;
      });
      box.append(others.length ? both("is not in the book; in the other script it has ", "书中没有；另一种字形有") : both("is not in the book.", "书中没有。"), ...others);
      return box;
    }
    const number = (value) => (value === null ? "–" : digits(value, 3));
    const rate = digits(word.per_10000, 2), total = word.total.toLocaleString("en"), n = found.chapters.length;
    box.append(both(
      `${total} in ${word.in_chapters} of ${n} chapters, ${rate} per 10,000 characters; DP ${number(word.dp)}, Juilland's D ${number(word.d)}`,
      `${total} 处，见于 ${n} 回中的 ${word.in_chapters} 回，每万字 ${rate}；DP ${number(word.dp)}，Juilland D ${number(word.d)}`,
    ), bar(word, found));
    return box;
  }
  // Where a word stands along the book: a column for each stretch, a number for each tenth chapter.
  function bar(word, found) {
    const counts = new Array(BINS).fill(0);
    for (const place of word.places) counts[Math.min(BINS - 1, Math.floor((BINS * place) / found.chars))]++;
    const whole = at("find").clientWidth || 960, most = Math.max(...counts), wide = whole / BINS;
    const drawing = svg("svg", { class: "spread", viewBox: `0 0 ${whole} 64`, role: "img", "aria-label": chinese() ? `${word.word} 在全书中的分布` : `where ${word.word} stands in the book` });
    drawing.append(svg("path", { class: "axis", d: `M0 44H${whole}` }));
    counts.forEach((count, i) => {
      if (!count) return;
      const height = 4 + (38 * count) / most;
      drawing.append(svg("rect", { class: "fill s0", x: i * wide, y: 44 - height, width: Math.max(wide - 0.8, 0.8), height }));
    });
    let free = 0;
    found.chapters.forEach((chapter, i) => {
      const x = (whole * chapter.start) / found.chars;
      if ((i && chapter.number % 10) || x < free || x + 20 > whole) return;
      drawing.append(svg("path", { class: "axis", d: `M${x} 44v5` }));
      const label = svg("text", { class: "tick", x, y: 61 });
      label.textContent = String(chapter.number);
      drawing.append(label);
      free = x + 34;
    });
    drawing.addEventListener("click", (event) => {
      const box = drawing.getBoundingClientRect(), place = ((event.clientX - box.left) / box.width) * found.chars;
      const near = nearest(word.places, place);
      const chapter = found.chapters.findLast((one) => one.start <= near);
      location.hash = app.link("read", { ch: chapter.number, at: near - chapter.start });
    });
    return drawing;
  }
  const nearest = (places, place) => places.reduce((best, one) => (Math.abs(one - place) < Math.abs(best - place) ? one : best));
  function svg(tag, attributes) {
    const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    return node;
  }

  // --- the address ---

  function state() {
    const all = words();
    if (all.sort === "place") all.sort = "";
    if (all.width === "15") all.width = "";
    return all;
  }
  function restore(given) {
    at("words").value = given.get("words") || "";
    at("sort").value = ["left", "right"].includes(given.get("sort")) ? given.get("sort") : "place";
    at("width").value = given.get("width") || "15";
    at("among").value = given.get("chapters") || "";
    at("regex").checked = given.get("regex") === "true";
    return find();
  }
  function submit(event) {
    if (event) event.preventDefault();
    if (!known.model) return;
    app.keep(true);
    find();
  }

  at("find-form").addEventListener("submit", submit);
  for (const id of ["sort", "width", "among", "regex"]) at(id).addEventListener("change", () => submit());
  at("more").addEventListener("click", () => find(true));
  at("find-csv").addEventListener("click", () => app.download(app.named([known.model.id, at("words").value.trim()], "csv"), query({ format: "csv" })));
  const redraw = () => answer && known.panel === "find" && at("spread").replaceChildren(...answer.words.map((word) => spread(word, answer)));
  document.documentElement.addEventListener("look", redraw);
  addEventListener("resize", redraw);
  app.panels.find = { state, restore };
})();
