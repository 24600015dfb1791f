// The panels Read and Compare: a chapter or another text in the heat map, by one model or by two.
(() => {
  "use strict";
  const { make, both, digits } = dom;
  const { at, known, say } = app;
  const LINKED = 1500; // characters of a text of one's own that an address carries
  const TOP = 5; // alternatives of a unit
  const EXACT = 5000; // characters that are read by character at once
  const UNKNOWN = [
    "Many characters of this text are unknown to the model: it reads them byte by byte. It knows the script of its book, such as simplified characters.",
    "此文有许多字是模型不认识的，只能逐字节读。模型只认其书所用的字形，如简体字。",
  ];
  const STRANGE = 0.2; // of the characters are read byte by byte: more than that is said

  // The chapters of a model's book; a book that is not at hand is a sentence.
  const lists = new Map();
  async function chapters(model) {
    if (!lists.has(model)) {
      const found = await app.json(app.query("chapters", { model, scores: "false" }));
      lists.set(model, found.chapters);
    }
    return lists.get(model);
  }

  function panel(name) {
    const compares = name === "compare";
    const part = (id) => at(`${name}-${id}`);
    const reader = heatmap({ prefix: `${name}-`, within: at(name), keep: kept, beyond: step });
    const shown = { ch: "", text: "", by: "", place: "", words: "" }; // what is drawn
    let asked = null; // the AbortController of the request in work
    let last = ""; // what was drawn last, so that coming back to the panel draws nothing twice

    const model = () => (compares ? part("first").value : known.model.id);
    const unit = () => (compares ? "token" : part("unit").value);
    function body(format) {
      const what = shown.ch ? { chapters: shown.ch } : { text: shown.text, clean: true };
      const of = compares ? { models: [part("first").value, part("second").value] } : { model: model(), unit: unit() };
      return { ...of, ...what, format, ...(format === "heat" ? { top: TOP } : {}) };
    }

    // --- the address ---

    function kept(words) {
      const found = new URLSearchParams(words.join("&"));
      shown.words = words.join("&");
      shown.by = found.get("by") || "";
      shown.place = found.get("at") || "";
      app.keep(false);
    }
    function state() {
      const words = { ch: shown.ch, text: shown.text.length <= LINKED ? shown.text : "", by: shown.by, at: shown.place };
      if (unit() !== "token") words.unit = unit();
      if (compares) Object.assign(words, { first: part("first").value, second: part("second").value });
      return words;
    }
    const dropped = () => shown.text.length > LINKED;
    // What the address names and is not there is returned as a Trouble.
    async function restore(words) {
      if (compares && known.models.length < 2) return null;
      if (words.has("unit") && !compares) part("unit").value = words.get("unit") === "char" ? "char" : "token";
      for (const side of compares ? ["first", "second"] : []) {
        if (known.models.some((one) => one.id === words.get(side))) part(side).value = words.get(side);
      }
      const list = await listed();
      const own = words.get("text") || "";
      const first = list.find((one) => one.split === "val") || list[0];
      const number = list.some((one) => String(one.number) === words.get("ch")) ? words.get("ch") : "";
      Object.assign(shown, { by: words.get("by") || shown.by, place: words.get("at") || "" });
      if (own && !number) await show({ text: own });
      else if (number) await show({ ch: number }, words.has("at"));
      else if (!shown.text && first) await show({ ch: String(first.number) });
      else if (!first) part("own").open = true;
      const absent = compares ? [words.get("first"), words.get("second")].find((id) => id && !known.models.some((one) => one.id === id)) : undefined;
      if (absent) return new app.Trouble(404, `No model “${absent}” is served here: ${part("first").value} and ${part("second").value} are shown.`, `此服务器没有模型“${absent}”：现在显示的是 ${part("first").value} 与 ${part("second").value}。`);
      const ch = words.get("ch");
      if (!ch || number || !first || own || shown.text) return null;
      return new app.Trouble(404, `The book has no chapter “${ch}”: chapter ${first.number} is shown.`, `书中没有第“${ch}”回：现在显示第 ${first.number} 回。`);
    }

    // --- the list of chapters ---

    async function listed() {
      const select = part("of");
      const mark = (one) => `${one.split === "train" ? "▨ " : ""}${one.number} · ${one.heading}`;
      let list = [];
      try {
        list = await chapters(model());
        part("nobook").hidden = true;
      } catch (error) {
        if (error.code !== "no_book") say(error);
        part("nobook").replaceChildren(both(error.english || String(error), "此模型的书不在手边：请粘贴文字。"));
        part("nobook").hidden = false;
      }
      select.replaceChildren(...list.map((one) => new Option(mark(one), String(one.number))));
      select.parentNode.hidden = !list.length;
      part("hatch").hidden = !list.some((one) => one.split === "train");
      return list;
    }
    // What the list of chapters shows where the text is none of them.
    function another() {
      const option = new Option(dom.chinese() ? "另一段文字" : "another text", "");
      option.dataset.label = "another text|另一段文字";
      return option;
    }
    function step(by) {
      const select = part("of"), to = select.selectedIndex + by;
      if (to >= 0 && to < select.options.length) turnTo({ ch: select.options[to].value });
    }
    function turnTo(what) {
      shown.place = "";
      Object.assign(shown, { ch: "", text: "", ...what });
      app.keep(true);
      show(what);
    }

    // --- scoring and drawing ---

    async function show(what, toPlace) {
      Object.assign(shown, { ch: "", text: "", ...what });
      const select = part("of"), none = select.options[0];
      if (none && !none.value) none.remove();
      if (!shown.ch) select.prepend(another());
      select.value = shown.ch;
      part("previous").disabled = select.selectedIndex <= 0;
      part("next").disabled = select.selectedIndex < 0 || select.selectedIndex === select.options.length - 1;
      if (shown.text) {
        part("words").value = shown.text;
        part("own").open = true;
      }
      if (!compares) limit();
      part("dropped").hidden = !dropped();
      if (compares && part("first").value === part("second").value) {
        unlike();
        return;
      }
      const request = body("heat"), words = [`by=${shown.by || (compares ? "difference" : "bits")}`, `ch=${shown.ch || "1"}`, shown.place ? `at=${shown.place}` : ""].join("&");
      if (last === JSON.stringify(request)) {
        await reader.turnToAddress(words);
        toPlace && see();
        return;
      }
      if (asked) asked.abort();
      const mine = asked = new AbortController();
      say(null);
      part("box").setAttribute("aria-busy", "true");
      part("status").replaceChildren(both("Scoring the text…", "正在计算……"));
      try {
        const found = await app.json(compares ? "compare" : "surprisal", { body: request, signal: mine.signal });
        if (asked !== mine) return;
        const unknown = await strange(found.heat);
        if (asked !== mine) return;
        await draw(found, words);
        last = JSON.stringify(request);
        part("status").replaceChildren(unknown ? both(...UNKNOWN) : "");
        if (toPlace) see();
      } catch (error) {
        if (asked !== mine) return;
        last = "";
        part("status").replaceChildren();
        part("box").hidden = true;
        say(error);
      }
      part("csv").disabled = part("box").hidden;
      part("box").removeAttribute("aria-busy");
    }
    // A long text cannot be read by character: the choice goes back to tokens, and says so.
    function limit() {
      const chapter = (lists.get(model()) || []).find((one) => String(one.number) === shown.ch);
      const long = (chapter ? chapter.chars : Array.from(shown.text).length) > EXACT;
      if (long) part("unit").value = "token";
      part("unit").options[1].disabled = long;
      at("read-limit").hidden = !long;
      part("unit").title = long ? at("read-limit").querySelector(dom.chinese() ? ".zh" : ".en").textContent : "";
    }
    function unlike() {
      if (asked) asked.abort();
      asked = null;
      last = "";
      part("box").hidden = part("csv").disabled = true;
      part("box").removeAttribute("aria-busy");
      part("status").replaceChildren();
      say(new app.Trouble(400, "Choose two different models.", "请选择两个不同的模型。"));
    }
    // Whether a model has no tokens for many of the characters, as of another script.
    async function strange({ pages }) {
      let characters = 0, strangers = 0;
      for (const page of pages) {
        const { t, m } = await units.unpack(page.z);
        characters += m.length * Array.from(t).length;
        for (const { n, w } of m) strangers += Object.keys(w || {}).filter((i) => n[i] === 1).length;
      }
      return strangers > STRANGE * characters;
    }
    async function draw(found, words) {
      part("box").hidden = false;
      const notes = compares ? found.models.flatMap((one) => one.notes) : found.notes;
      part("notes").replaceChildren(...[...new Set(notes)].map((one) => make("p", "muted", one)));
      if (compares) sums(found);
      await reader.show(found.heat, words);
    }
    function see() {
      const unit = at(name).querySelector(".heat-text .on");
      if (unit) unit.scrollIntoView({ block: "center" });
    }
    // Both models' sums in a table, and the difference.
    function sums(found) {
      const cell = (value) => make("td", "number", value === null ? "–" : digits(value, 3));
      const head = (label) => {
        const title = make("th", "", label);
        title.scope = "col";
        return title;
      };
      const rows = found.models.map((one, i) => make("tr", "", make("td", "", both(`${"AB"[i]} · ${one.model}`, `${"甲乙"[i]} · ${one.model}`)), cell(one.sums.bits_per_char), cell(one.sums.ngram_bits_per_char), make("td", "", trained(one))));
      rows.push(make("tr", "", make("td", "", both("A − B", "甲 − 乙")), cell(found.difference_bits_per_char), make("td"), make("td")));
      const title = make("tr", "", head(both("model", "模型")), head(both("bits per character", "每字比特数")), head(both("5-gram", "五元模型")), head(both("text", "文字")));
      part("sums").replaceChildren(make("div", "scroll", make("table", "", make("thead", "", title), make("tbody", "", ...rows))));
    }
    function trained(one) {
      const [text] = one.documents, copied = text.copied && text.split !== "train" ? ` ${digits(100 * text.copied, 0)} %` : "";
      const split = { train: ["trained on", "训练所用"], val: ["validation", "验证"], test: ["test", "测试"], outside: ["outside its book", "书外"] }[text.split] || ["not known", "不详"];
      return both(split[0] + (copied && `, copied${copied}`), split[1] + (copied && `，重合${copied}`));
    }

    function fileName() {
      const of = compares ? [part("first").value, part("second").value] : [model()];
      const kind = compares ? "difference" : unit() === "char" ? "surprisal-by-character" : "surprisal";
      return app.named([...of, shown.ch ? `chapter-${shown.ch}` : shown.text.slice(0, 12), kind], "csv");
    }

    // --- listening ---

    function modelled() {
      if (!compares) return;
      const two = known.models.length > 1;
      at("compare-one").hidden = two;
      at("compare-form").hidden = !two;
      if (!two || part("first").options.length) return;
      for (const side of ["first", "second"]) part(side).replaceChildren(...known.models.map((one) => new Option(one.id, one.id)));
      part("second").value = known.models[1].id;
    }
    part("form").addEventListener("submit", (event) => {
      event.preventDefault();
      const text = part("words").value;
      if (text.trim()) turnTo({ text });
      else say(new app.Trouble(400, "Paste a text first.", "请先粘贴文字。"));
    });
    part("of").addEventListener("change", () => turnTo({ ch: part("of").value }));
    part("previous").addEventListener("click", () => step(-1));
    part("next").addEventListener("click", () => step(1));
    part("csv").addEventListener("click", () => app.download(fileName(), compares ? "compare" : "surprisal", { body: body("csv") }));
    for (const id of compares ? ["first", "second"] : ["unit"]) {
      part(id).addEventListener("change", async () => {
        if (id === "first") await listed();
        if (shown.ch || shown.text) show(shown.ch ? { ch: shown.ch } : { text: shown.text });
      });
    }
    app.panels[name] = { state, restore, modelled, dropped };
  }

  panel("read");
  panel("compare");
})();
