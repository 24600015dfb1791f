// The panel Chapters: bits per character of every chapter beside the 5-gram, as a curve and a table.
(() => {
  "use strict";
  const { make, both, chinese, digits } = dom;
  const { at, known, say } = app;
  const POLL = 1500; // milliseconds between two looks at a curve that is being computed
  let timer = null, asked = null;

  async function load() {
    clearTimeout(timer);
    if (asked) asked.abort();
    const mine = asked = new AbortController();
    const model = known.model.id;
    try {
      const found = await app.json(app.query("chapters", { model, chart: "true" }), { signal: mine.signal });
      if (asked !== mine) return;
      say(null);
      draw(found);
      if (found.pending && known.panel === "chapters") timer = setTimeout(load, POLL);
    } catch (error) {
      if (asked !== mine || error.name === "AbortError") return;
      at("chapters-status").replaceChildren();
      if (error.code === "no_book") empty(error);
      else say(error);
      if (error.status === 0 || error.status === 429 || error.status === 503) timer = setTimeout(load, 4 * POLL);
    }
  }
  function empty(error) {
    at("curve").replaceChildren(make("p", "", both(error.english, "此模型的书不在手边：启动服务器时请加 --corpus BOOK。")));
    for (const id of ["chapters-svg", "chapters-csv"]) at(id).disabled = true;
    at("chapters-more").hidden = at("curve-hint").hidden = true;
  }
  function draw(found) {
    const done = found.chapters.length - found.pending;
    at("chapters-status").replaceChildren(found.pending
      ? both(`Scored ${done} of ${found.chapters.length} chapters; the curve grows as they come.`, `已计算 ${found.chapters.length} 回中的 ${done} 回，曲线随之补全。`)
      : both(`${app.title(found.book)[0]}: ${found.chapters.length} chapters.`, `${app.title(found.book)[1]}：共 ${found.chapters.length} 回。`));
    // The figure is the server's own drawing; a document that is parsed runs no script.
    const figure = new DOMParser().parseFromString(found.chart, "text/html").body.firstElementChild;
    const focused = document.activeElement && document.activeElement.closest("#curve a");
    const address = focused && focused.getAttribute("href");
    at("curve").replaceChildren(document.adoptNode(figure));
    if (known.models.length > 1) for (const link of at("curve").querySelectorAll("a")) link.setAttribute("href", `${link.getAttribute("href")}&model=${encodeURIComponent(found.model)}`);
    if (address) for (const link of at("curve").querySelectorAll("a")) if (link.getAttribute("href") === address) link.focus();
    at("curve").querySelector(".scroll").tabIndex = 0;
    label();
    for (const id of ["chapters-svg", "chapters-csv"]) at(id).disabled = false;
    table(found);
  }
  function label() {
    const box = at("curve").querySelector(".scroll");
    if (!box) return;
    box.setAttribute("role", "group");
    box.setAttribute("aria-label", chinese() ? "曲线" : "curve");
  }
  function table(found) {
    const splits = { train: ["trained on", "训练"], val: ["validation", "验证"], test: ["test", "测试"] };
    const head = [["chapter", "回"], ["split", "划分"], ["characters", "字数"], ["bits per character", "每字比特数"], ["5-gram", "五元模型"]].map((label) => {
      const title = make("th", "", both(...label));
      title.scope = "col";
      return title;
    });
    const number = (value, n) => make("td", "number", value === null ? "" : digits(value, n));
    const rows = found.chapters.map((one) => {
      const link = make("a", "", `${one.number} · ${one.heading}`);
      link.href = app.link("read", { ch: one.number });
      link.lang = "zh";
      return make("tr", "", make("td", "", link), make("td", "", both(...splits[one.split])), number(one.chars, 0), number(one.bits_per_char, 3), number(one.ngram_bits_per_char, 3));
    });
    at("chapters-table").replaceChildren(make("thead", "", make("tr", "", ...head)), make("tbody", "", ...rows));
    at("chapters-more").hidden = at("curve-hint").hidden = false;
  }
  const save = (format) => app.download(app.named([known.model.id, "chapters"], format), app.query("chapters", { model: known.model.id, format, lang: chinese() ? "zh" : "en" }));

  at("chapters-svg").addEventListener("click", () => save("svg"));
  at("chapters-csv").addEventListener("click", () => save("csv"));
  document.documentElement.addEventListener("look", label);
  app.panels.chapters = { state: () => ({}), restore: load, left: () => clearTimeout(timer) };
})();
