// The reader of a heat map: one part of the text at a time. Everything that comes from a book is
// written with textContent. It draws into the frame of heatmap.py, and can be shown other data later.
//
//   prefix   of the ids of its frame, where a page has several
//   within   the element whose keys it hears and whose columns of a curve it marks
//   beyond   called with -1 or 1 where a key turns to a page before the first or after the last
//   keep     told the words of its address, ["ch=3", "by=rank", "at=120"], and whether a page was turned
const heatmap = (options) => {
  "use strict";
  const { prefix = "", within = document, keep, beyond = () => {} } = options;
  const { make, both, list, chinese, shown, digits, share } = dom;
  const root = document.documentElement;
  const at = (id) => document.getElementById(prefix + id);
  const state = { page: 0, by: "bits", a: 0, b: 1, offset: null };
  let data = { models: [], pages: [], scales: {} }; // as Book.data of heatmap.py
  let parts = null; // the unpacked columns of the page that is shown
  let view = null; // its units in this colouring: start, end, spans
  let chosen = -1; // the unit under the cursor of the keyboard
  let pointed = -1; // the unit under the mouse
  let mouse = ""; // where the mouse was seen last
  let turn = 0; // counts page turns: a slow one may not overwrite a later one

  // --- what a colour shows ---

  function value(i) {
    const model = parts.models[state.a];
    const known = (column, scale) => (model[column] && model[column][i] !== null ? model[column][i] / scale : null);
    if (state.by === "bits") return known("b", 1000);
    if (state.by === "rank") return known("r", 1);
    if (state.by === "entropy") return known("e", 100);
    if (state.by === "copied") return known("c", 1);
    if (state.by === "ngram") return known("b", 1000) === null || known("g", 100) === null ? null : known("b", 1000) - known("g", 100);
    const [from, to] = [view.start[i], view.end[i]];
    const other = parts.models[state.b];
    return units.bits(model, units.inside(model, from, to)) - units.bits(other, units.inside(other, from, to));
  }
  function colour(i) {
    const scale = data.scales[state.by], v = value(i);
    return v === null ? "" : `${scale.palette}-${scale.edges.filter((edge) => edge <= v).length}`;
  }

  // --- drawing ---

  function drawText() {
    const [a, b] = [parts.models[state.a], parts.models[state.b]];
    view = { ...(state.by === "difference" ? units.stretches(a, b) : { start: a.start, end: a.end }), spans: [] };
    const box = at("text"), all = document.createDocumentFragment();
    let paragraph = make("p"), place = 0;
    const put = (node, text) => {
      paragraph.append(node);
      if (text.endsWith("\n")) {
        all.append(paragraph);
        paragraph = make("p");
      }
    };
    view.start.forEach((start, i) => {
      const gap = parts.slice(place, start), text = parts.slice(start, view.end[i]);
      if (gap) put(document.createTextNode(gap), gap);
      const span = make("span", "", text);
      span.unit = i;
      view.spans.push(span);
      put(span, text);
      place = view.end[i];
    });
    const rest = parts.slice(place);
    if (rest) put(document.createTextNode(rest), rest);
    all.append(paragraph);
    box.replaceChildren(all);
    paint();
  }
  function paint() {
    view.spans.forEach((span, i) => {
      const end = span.textContent === "\n" ? " end" : "";
      span.className = colour(i) + end + (i === chosen ? " on" : "");
    });
  }
  function drawKey() {
    const scale = data.scales[state.by];
    const items = scale.names.map((name, i) => make("li", `${scale.palette}-${i}`, name));
    const models = data.models.length > 1 && state.by === "difference"
      ? make("p", "", both(`A: ${data.models[state.a]}; B: ${data.models[state.b]}.`, `甲：${data.models[state.a]}；乙：${data.models[state.b]}。`))
      : "";
    at("key").replaceChildren(make("p", "", both(...scale.note)), models, make("ul", "", ...items));
    for (const button of at("colourings").querySelectorAll("button")) button.setAttribute("aria-pressed", String(button.value === state.by));
  }
  function drawWarning() {
    const page = data.pages[state.page];
    const used = state.by === "difference" ? [...new Set([state.a, state.b])] : [state.a];
    const trained = used.filter((m) => page.splits[m] === "train");
    const named = (all, word) => (data.models.length > 1 ? all.map((m) => data.models[m]) : [word]);
    const gap = data.models.length > 1 ? " " : ""; // after a name in Latin letters
    const counted = parts.models[state.a].g && trained.includes(state.a) ? [" (and so was the 5-gram)", "（五元模型亦然）"] : ["", ""];
    const lines = trained.length === 0 ? [] : [make("p", "warning", both(
      `${named(trained, "The model").join(" and ")} ${trained.length > 1 ? "were" : "was"} trained on this text${counted[0]}. What you see is memory, not reading.`,
      `${named(trained, "模型").join("、")}${gap}曾以这段文字训练${counted[1]}：所示是记忆，不是阅读。`))];
    const partly = used.filter((m) => page.splits[m] !== "train" && page.copied[m] !== null);
    for (const m of partly) {
      const copied = digits(100 * page.copied[m], 0);
      lines.push(make("p", "warning", both(
        `${copied}\u00a0% of this text stands word for word in what ${named([m], "the model")[0]} was trained on.`,
        `这段文字有 ${copied}\u00a0% 逐字见于${named([m], "模型")[0]}${gap}的训练文本。`)));
    }
    const kinds = { val: ["validation chapter", "验证"], test: ["test chapter", "测试"], outside: ["outside the book", "书外"] };
    const unseen = used.filter((m) => kinds[page.splits[m]] && !partly.includes(m));
    if (unseen.length) {
      const split = kinds[page.splits[unseen[0]]];
      lines.push(make("p", "muted", both(
        `${named(unseen, "The model").join(" and ")} ${unseen.length > 1 ? "were" : "was"} not trained on this text (${split[0]}).`,
        `${named(unseen, "模型").join("、")}${gap}未以这段文字训练（${split[1]}）。`)));
    }
    at("warnings").replaceChildren(...lines);
  }
  function drawFacts() {
    const model = parts.models[state.a], n = model.b.length, chars = parts.chars.length;
    const facts = data.models.length > 1 ? [[data.models[state.a], data.models[state.a]]] : [];
    facts.push([`${chars.toLocaleString("en")} characters`, `${chars.toLocaleString("en")} 字`]);
    const unit = data.units[state.a] === "char" ? ["character", "字"] : ["token", "词元"];
    if (unit[0] === "token") facts.push([`${n.toLocaleString("en")} tokens`, `${n.toLocaleString("en")} 词元`]);
    const each = digits(units.sum(model.b) / 1000 / chars);
    facts.push([`${each} bits per character`, `每字 ${each} 比特`]);
    if (model.g && !model.g.includes(null)) facts.push([`5-gram ${digits(units.sum(model.g) / 100 / chars)}`, `五元模型 ${digits(units.sum(model.g) / 100 / chars)}`]);
    if (model.r) {
      const near = digits(100 * model.r.filter((rank) => rank !== null && rank <= 10).length / n, 0);
      facts.push([`rank ≤ 10:\u00a0${near}\u00a0%`, `名次 ≤ 10：${near}\u00a0%`]);
    }
    if (model.c) {
      const long = digits(100 * units.sum(model.c.map((length, i) => (length >= 15 ? model.n[i] : 0))) / chars, 1);
      facts.push([`copied (15+ characters): ${long}\u00a0%`, `重合（15 字以上）：${long}\u00a0%`]);
    }
    at("facts").replaceChildren(both(facts.map((f) => f[0]).join(" · "), facts.map((f) => f[1]).join(" · ")));
  }
  function drawPlace() {
    const page = data.pages[state.page], last = data.pages.length - 1;
    for (const id of ["before", "before2"]) at(id).disabled = state.page === 0;
    for (const id of ["after", "after2"]) at(id).disabled = state.page === last;
    at("chapter").value = String(state.page);
    at("place").textContent = page.name;
    for (const column of within.querySelectorAll(".column")) {
      const here = column.dataset.x === String(page.x);
      column.classList.toggle("here", here);
      if (here) column.parentNode.setAttribute("aria-current", "true"); else column.parentNode.removeAttribute("aria-current");
    }
  }
  function drawChoices() {
    const mark = (page) => (page.splits.includes("train") ? "▨ " : "");
    at("chapter").replaceChildren(...data.pages.map((page, i) => new Option(mark(page) + page.name, String(i))));
    at("marked").hidden = data.pages.length < 2 || !data.pages.some((page) => page.splits.includes("train"));
    at("turning").hidden = at("turning2").hidden = data.pages.length < 2;
    at("colourings").replaceChildren(...Object.entries(data.scales).map(([key, scale]) => {
      const button = make("button", "", both(...scale.label));
      button.type = "button";
      button.value = key;
      button.addEventListener("click", () => recolour(key));
      return button;
    }));
    at("models").hidden = data.models.length < 2;
    for (const side of ["a", "b"]) at(side).replaceChildren(...data.models.map((name, i) => new Option(name, String(i))));
  }

  // --- what stands behind one unit ---

  function drawPanel(i) {
    pointed = -1;
    const panel = at("panel");
    panel.classList.toggle("idle", i < 0);
    if (i < 0) {
      at("details").replaceChildren(make("p", "muted", both("Point at the text, tap it, or move with the arrow keys.", "指向、点按文字，或用方向键移动。")));
      return;
    }
    const text = parts.slice(view.start[i], view.end[i]);
    const unit = make("p", "unit", shown(text));
    unit.lang = "zh";
    at("details").replaceChildren(unit, ...(state.by === "difference" ? compared(i) : explained(i)));
  }
  function explained(i) {
    const model = parts.models[state.a], rows = [];
    const has = (column) => model[column] && model[column][i] !== null;
    if (model.w && model.w[i]) rows.push([["tokens", "词元"], String(model.w[i])]);
    if (has("b")) rows.push([["p", "概率"], share(2 ** (-model.b[i] / 1000))], [["bits", "比特"], digits(model.b[i] / 1000)]);
    if (has("r")) rows.push([["rank", "名次"], String(model.r[i])]);
    if (has("e")) rows.push([["entropy", "熵"], digits(model.e[i] / 100)]);
    if (has("g")) rows.push([["5-gram bits", "五元模型比特"], digits(model.g[i] / 100)]);
    if (has("u")) rows.push([["frequency bits", "字频比特"], digits(model.u[i] / 100)]);
    if (has("x")) rows.push([["context", "上文词元"], String(model.x[i])]);
    if (has("c")) rows.push([["copied", "重合（字）"], String(model.c[i])]);
    if (has("s")) rows.push([["speech", "对话"], both(model.s[i] ? "yes" : "no", model.s[i] ? "是" : "否")]);
    rows.push([["place (character of the text)", "位置（第几字）"], (data.pages[state.page].from + model.start[i]).toLocaleString("en")]);
    const nodes = [list(rows)];
    explain(nodes[0], rows.findIndex(([label]) => label[0] === "frequency bits"));
    const choices = model.a ? alternatives(model, i) : [];
    if (choices.length) nodes.push(make("h3", "", both("The model expected", "模型的预期")), make("ol", "", ...choices));
    return nodes;
  }
  function explain(all, i) {
    if (i >= 0) all.children[2 * i].title = chinese() ? "只按字在训练文本中的频率计算的比特数，不看上文" : "bits by how often each character stands in the training text, without context";
  }
  function alternatives(model, i) {
    const text = parts.slice(model.start[i], model.end[i]), found = [];
    for (let j = i * data.top; j < (i + 1) * data.top; j++) {
      if (model.a[j] < 0) continue;
      const word = data.words[model.a[j]], p = model.p[j] / 1000;
      const bar = make("i");
      bar.style.width = `${100 * p}%`;
      const name = make("span", "word", shown(word));
      name.lang = "zh";
      found.push(make("li", word === text ? "hit" : "", bar, name, make("span", "", p > 0 ? digits(p, 3) : "< 0.001")));
    }
    return found;
  }
  function compared(i) {
    const [from, to] = [view.start[i], view.end[i]], totals = [], nodes = [];
    for (const m of [state.a, state.b]) {
      const model = parts.models[m], cells = units.inside(model, from, to);
      totals.push(units.bits(model, cells));
      const items = cells.map((cell) => {
        const word = make("span", "word", shown(parts.slice(model.start[cell], model.end[cell])));
        const rank = model.r && model.r[cell] !== null ? ` · ${model.r[cell]}` : "";
        return make("li", "", word, make("span", "", `${digits(model.b[cell] / 1000)}${rank}`));
      });
      nodes.push(make("h3", "", both(`${"AB"[totals.length - 1]}: ${data.models[m]}`, `${"甲乙"[totals.length - 1]}：${data.models[m]}`)), make("ol", "", ...items));
    }
    const signed = (v) => (v < 0 ? "−" : "+") + digits(Math.abs(v));
    const rows = [[["A", "甲"], digits(totals[0])], [["B", "乙"], digits(totals[1])], [["A − B", "甲 − 乙"], signed(totals[0] - totals[1])]];
    return [list(rows), ...nodes, make("p", "muted", both("bits · rank", "比特 · 名次"))];
  }

  // --- moving ---

  function choose(i, byKey) {
    if (chosen >= 0 && view.spans[chosen]) view.spans[chosen].classList.remove("on");
    chosen = i;
    if (i >= 0) {
      view.spans[i].classList.add("on");
      if (byKey) view.spans[i].scrollIntoView({ block: "nearest" });
    }
    state.offset = i < 0 ? null : view.start[i];
    drawPanel(i);
    tell(false);
  }
  function neighbour(step) {
    const box = (i) => view.spans[i].getClientRects()[0] || view.spans[i].getBoundingClientRect();
    const here = box(chosen), middle = (here.left + here.right) / 2;
    let line = null, best = chosen, least = Infinity;
    for (let i = chosen + step; i >= 0 && i < view.spans.length; i += step) {
      const there = box(i);
      if (Math.abs(there.top - here.top) < here.height / 2) continue;
      if (line === null) line = there.top;
      if (Math.abs(there.top - line) > here.height / 2) break;
      const distance = Math.abs((there.left + there.right) / 2 - middle);
      if (distance < least) [best, least] = [i, distance];
    }
    return best;
  }
  function move(key) {
    if (!view.spans.length) return;
    if (chosen < 0) return choose(0, true);
    const last = view.spans.length - 1;
    const to = {
      ArrowRight: () => chosen + 1, ArrowLeft: () => chosen - 1, Home: () => 0, End: () => last,
      ArrowDown: () => neighbour(1), ArrowUp: () => neighbour(-1),
    }[key]();
    choose(Math.max(0, Math.min(last, to)), true);
  }
  function recolour(by) {
    state.by = by;
    redraw();
  }
  function redraw() {
    const offset = state.offset;
    chosen = -1;
    drawText();
    at("a").value = String(state.a);
    at("b").value = String(state.b);
    drawKey();
    drawWarning();
    drawFacts();
    choose(offset === null ? -1 : Math.min(units.first(view.end, offset + 1), view.spans.length - 1), false);
  }
  async function open(page, push) {
    const mine = ++turn;
    let fresh;
    try {
      fresh = units.opened(await units.unpack(data.pages[page].z));
    } catch (error) {
      at("text").textContent = `This browser cannot show the text: it needs Chrome 80, Firefox 113 or Safari 16.4. 此浏览器过旧。 (${error})`;
      return;
    }
    if (mine !== turn) return;
    parts = fresh;
    state.page = page;
    tell(push); // first: what follows writes over the address that stands
    drawPlace();
    redraw();
    root.dataset.ready = String(page);
  }
  function turnTo(page) {
    if (page === state.page) return;
    if (page < 0 || page >= data.pages.length) return void beyond(Math.sign(page - state.page));
    state.offset = null;
    open(page, true).then(() => at("place").scrollIntoView({ block: "start" }));
  }

  // --- the address: ch=3&by=rank&at=120, with a and b where there are several models ---

  function tell(push) {
    const words = [`ch=${data.pages[state.page].id}`, `by=${state.by}`];
    if (data.models.length > 1) words.push(`a=${state.a + 1}`, `b=${state.b + 1}`);
    if (state.offset !== null) words.push(`at=${data.pages[state.page].from + state.offset}`);
    keep(words, push);
  }
  // The part that an address names; colours, models and place are set as it says.
  function follow(address) {
    const words = new URLSearchParams(address.replace(/^#/, ""));
    const model = (name) => Math.max(0, Math.min(data.models.length - 1, Number(words.get(name)) - 1 || 0));
    if (data.scales[words.get("by")]) state.by = words.get("by");
    for (const side of ["a", "b"]) if (words.has(side)) state[side] = model(side);
    const place = Number.parseInt(words.get("at"), 10);
    let page = data.pages.findIndex((one) => one.id === words.get("ch"));
    if (page < 0) page = data.pages.findLastIndex((one) => one.x === words.get("ch") && one.from <= (place || 0));
    if (page < 0) page = state.page;
    const offset = place - data.pages[page].from;
    state.offset = offset >= 0 ? offset : null;
    return page;
  }

  // --- listening ---

  const unitOf = (event) => (event.target.unit === undefined ? -1 : event.target.unit);
  function keys(event) {
    const busy = event.target.closest("select, input, textarea");
    if (busy || event.ctrlKey || event.metaKey || event.altKey || !parts) return;
    const inText = event.target === at("text");
    const scales = Object.keys(data.scales);
    if (inText && /^(Arrow|Home$|End$)/.test(event.key)) move(event.key);
    else if (event.key === "n") turnTo(state.page + 1);
    else if (event.key === "p") turnTo(state.page - 1);
    else if (event.key === "c") recolour(scales[(scales.indexOf(state.by) + 1) % scales.length]);
    else if (scales[Number(event.key) - 1]) recolour(scales[Number(event.key) - 1]);
    else if (event.key === "Escape") choose(-1, false);
    else return;
    event.preventDefault();
  }
  function listen() {
    const text = at("text");
    // A text that is drawn or scrolled below a resting mouse is not pointed at.
    root.addEventListener("pointermove", (event) => {
      const here = `${event.screenX} ${event.screenY}`;
      if (event.pointerType === "touch" || here === mouse) return;
      mouse = here;
      const unit = text.contains(event.target) ? unitOf(event) : -1;
      if (unit >= 0 && unit !== pointed) drawPanel(unit);
      pointed = unit;
    });
    text.addEventListener("pointerleave", () => view && drawPanel(chosen));
    text.addEventListener("click", (event) => unitOf(event) >= 0 && choose(unitOf(event), false));
    text.addEventListener("copy", (event) => {
      // Exactly the characters: a browser would add line ends between paragraphs.
      event.clipboardData.setData("text/plain", getSelection().getRangeAt(0).toString());
      event.preventDefault();
    });
    within.addEventListener("keydown", keys);
    within.addEventListener("click", (event) => {
      const link = event.target.closest('a[href^="#ch="]');
      if (!link) return;
      event.preventDefault(); // in a notebook's frame the address would be that of the notebook
      const page = follow(link.getAttribute("href"));
      open(page, true).then(() => at("place").scrollIntoView({ block: "start" }));
    });
    for (const id of ["before", "before2"]) at(id).addEventListener("click", () => turnTo(state.page - 1));
    for (const id of ["after", "after2"]) at(id).addEventListener("click", () => turnTo(state.page + 1));
    at("chapter").addEventListener("change", () => turnTo(Number(at("chapter").value)));
    at("close").addEventListener("click", () => choose(-1, false));
    for (const side of ["a", "b"]) {
      at(side).addEventListener("change", () => {
        state[side] = Number(at(side).value);
        redraw();
      });
    }
    root.addEventListener("look", () => at("chapter").setAttribute("aria-label", chinese() ? "章回" : "chapter"));
  }

  // Draws other data, at the place and in the colours that the address names.
  function show(fresh, address) {
    data = fresh;
    const last = data.models.length - 1;
    Object.assign(state, { page: 0, offset: null, a: Math.min(state.a, last), b: Math.min(state.b, last) });
    if (!data.scales[state.by]) state.by = Object.keys(data.scales)[0];
    drawChoices();
    root.dispatchEvent(new Event("look"));
    return open(follow(address), false);
  }
  const turnToAddress = (address) => open(follow(address), false);

  listen();
  return { show, turnToAddress };
};
