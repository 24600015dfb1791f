// What the panels share: the server, its models and its errors; the tabs; the address of the page.
const app = (() => {
  "use strict";
  const { make, both, chinese } = dom;
  const root = document.documentElement;
  const at = (id) => document.getElementById(id);
  const panels = {}; // by name: restore(words), state(), and what happens when it is shown or left
  const tabs = [...document.querySelectorAll('[role="tab"]')];
  const known = { models: [], panel: "write", model: null };

  // --- errors as sentences ---

  // `code` is the server's; 0 is the status of a server that did not answer.
  class Trouble extends Error {
    constructor(status, english, translation, code) {
      super(english);
      Object.assign(this, { status, english, chinese: translation || english, code });
    }
  }
  const gone = () => new Trouble(0, "The server does not answer. Start it again, or wait, then try once more.", "服务器没有回应。请重新启动服务器，或稍候再试。");
  // The label of a field of the API, [English, Chinese], where the page shows the field; else null.
  function label(param) {
    const others = { width: ["width", "宽度"], words: ["words", "词语"], chapters: ["chapters", "章回"], prompt: ["prompt", "提示"], text: ["text", "文字"] };
    const input = at("write-form").querySelector(`[name="${CSS.escape(param)}"]`);
    if (!input) return others[param] || null;
    const of = (tag) => (input.labels[0].querySelector(`.${tag}`) || input.labels[0]).textContent.trim();
    return [of("en"), of("zh")];
  }
  // What a field must be, in two sentences; no `high` is no upper bound.
  function rule(name, whole, low, high) {
    const range = !high ? [`of at least ${low}`, `不小于 ${low} 的`] : [`from ${low} to ${high}`, ` ${low} 到 ${high} 之间的`];
    return [`${name[0]}: ${whole ? "a whole number" : "a number"} ${range[0]}.`, `${name[1]}：应为${range[1]}${whole ? "整数" : "数"}。`];
  }
  // Whether a number field holds what it may; if not, says what it must be.
  function valid(input, name) {
    const { badInput, rangeUnderflow, rangeOverflow, stepMismatch } = input.validity;
    const whole = input.step === "1"; // another step is of the arrows only
    if (!badInput && !rangeUnderflow && !rangeOverflow && !(whole && stepMismatch)) return true;
    say(new Trouble(400, ...rule(name, whole, input.min, input.max && Number(input.max).toLocaleString("en"))));
    input.focus();
    return false;
  }
  const ended = (sentence, stop) => (/[.?!。！？]$/.test(sentence) ? sentence : sentence + stop);
  function refused(status, error) {
    const message = (error && error.message) || `The server answered ${status}.`, param = error && error.param;
    let sentence = ended(`${message[0].toUpperCase()}${message.slice(1)}`, ".");
    let translation = {
      401: "此服务器需要密钥。",
      429: "服务器正忙，请稍候再试。",
      503: "服务器尚未就绪或正在关闭，请稍候再试。",
    }[status] || ended(`服务器答：${message}`, "。");
    const name = param && message.startsWith(`${param} must be `) ? label(param) : null;
    if (name) {
      const of = message.slice(`${param} must be `.length);
      const number = of.match(/^a (whole )?number from ([-\d.,]*\d) to ([-\d.,]*\d)/);
      const said = ended(of, ".");
      [sentence, translation] = number ? rule(name, number[1], number[2], number[3]) : [`${name[0]}: ${said}`, `${name[1]}：服务器答：${said}`];
    }
    const advice = { 429: " Wait a moment and try again.", 503: " Wait a moment and try again." }[status] || "";
    return new Trouble(status, advice && !/again/.test(sentence) ? sentence + advice : sentence, translation, error && error.code);
  }
  function say(trouble) {
    const box = at("trouble");
    if (!trouble) {
      box.hidden = true;
      return;
    }
    if (trouble.name === "AbortError") return;
    if (!(trouble instanceof Trouble)) console.error(trouble);
    const close = make("button", "close", "×");
    close.type = "button";
    close.setAttribute("aria-label", chinese() ? "关闭" : "close");
    close.addEventListener("click", () => say(null));
    box.replaceChildren(make("span", "", both(trouble.english || String(trouble), trouble.chinese || String(trouble))), close);
    box.hidden = false;
    if (trouble.status === 401) askKey();
  }
  function askKey() {
    at("key-form").hidden = false;
    at("key").focus();
  }

  // --- the server ---

  function stored(value) {
    try {
      if (value !== undefined) sessionStorage.setItem("hlm-key", value);
      return sessionStorage.getItem("hlm-key") || "";
    } catch { return stored.here = value === undefined ? stored.here || "" : value; } // no storage here
  }
  // The answer to a request; a body is sent as JSON. Throws a Trouble.
  async function ask(path, { body, signal } = {}) {
    const headers = {};
    if (stored()) headers.Authorization = `Bearer ${stored()}`;
    if (body !== undefined) headers["Content-Type"] = "application/json";
    const text = body === undefined ? undefined : JSON.stringify(body);
    let answer;
    try {
      answer = await fetch(path, { method: text === undefined ? "GET" : "POST", headers, body: text, signal, cache: "no-store" });
    } catch (error) {
      throw error.name === "AbortError" ? error : gone();
    }
    if (answer.ok) return answer;
    let error = null;
    try {
      ({ error } = await answer.json());
    } catch { /* a proxy's page instead of the server's answer: its status tells */ }
    throw refused(answer.status, error);
  }
  // Reads an answer to its end; one that breaks off is a Trouble as well.
  async function read(answer, kind) {
    try {
      return await answer[kind]();
    } catch (error) {
      throw error.name === "AbortError" ? error : gone();
    }
  }
  const json = async (path, options) => read(await ask(path, options), "json");
  // Only what is set travels in an address.
  const pairs = (words) => new URLSearchParams(Object.entries(words).filter(([, value]) => value !== "" && value !== null && value !== undefined));
  const query = (path, words) => `${path}?${pairs(words)}`;
  function save(name, content, type = "text/plain;charset=utf-8") {
    const link = make("a");
    link.href = URL.createObjectURL(content instanceof Blob ? content : new Blob([content], { type }));
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  }
  // The name of a file, of what is in it: letters of any script, digits and a few signs.
  const named = (parts, kind) => `${parts.map((part) => Array.from(String(part).replace(/[^\p{L}\p{N}._@-]+/gu, "_")).slice(0, 40).join("")).filter(Boolean).join("-")}.${kind}`;
  async function download(name, path, options) {
    try {
      const content = await read(await ask(path, options), "blob");
      const mark = name.endsWith(".csv") ? ["\ufeff"] : []; // by which spreadsheets know UTF-8
      save(name, new Blob([...mark, content], { type: content.type }));
      say(null);
    } catch (error) {
      say(error);
    }
  }

  // --- models ---

  async function load() {
    const { data } = await json("v1/models");
    known.models = data;
    known.model = data.find((one) => known.model && one.id === known.model.id) || data[0];
    at("model").replaceChildren(...data.map((one) => new Option(one.id, one.id)));
    at("choose-model").hidden = data.length < 2;
    at("key-form").hidden = true;
    describe();
  }
  // The name of a book, [English, Chinese].
  function title(book) {
    const known = { zhiyanzhai: "脂砚斋" };
    return [book, Object.hasOwn(known, book) ? `${book}（${known[book]}）` : book];
  }
  function describe() {
    const one = known.model;
    at("model").value = one.id;
    const size = one.parameters.toLocaleString("en");
    const names = typeof one.book === "string" && one.book ? title(one.book).map((book) => `${one.id} · ${book}`) : [one.id, one.id];
    const about = make("span", "", both(`${names[0]} · ${size} parameters · reads ${one.max_model_len} tokens`, `${names[1]} · ${size} 参数 · 上文 ${one.max_model_len} 词元`));
    const origin = one.origin ? make("span", "origin", ` ${one.origin}`) : "";
    const none = one.book ? "" : make("span", "", " · ", both("its book is not at hand", "书不在手边"));
    at("about").replaceChildren(about, none, origin);
    for (const panel of Object.values(panels)) if (panel.modelled) panel.modelled(one);
  }
  function choose(id) {
    const found = known.models.find((one) => one.id === id);
    if (!found || found === known.model) return false;
    known.model = found;
    describe();
    return true;
  }

  // --- tabs and the address: #panel=read&ch=3&by=rank ---

  function open(name, focus) {
    const before = panels[known.panel];
    if (known.panel !== name && before && before.left) before.left();
    known.panel = name;
    for (const tab of tabs) {
      const here = tab.id === `tab-${name}`;
      tab.setAttribute("aria-selected", String(here));
      tab.tabIndex = here ? 0 : -1;
      at(tab.getAttribute("aria-controls")).hidden = !here;
      if (here && focus) tab.focus();
    }
    foot();
  }
  function foot() {
    const dropped = Boolean(panels[known.panel].dropped && panels[known.panel].dropped());
    at("address-kept").hidden = dropped;
    at("address-dropped").hidden = !dropped;
  }
  // The address of a panel in a state; the model is named where there are several.
  function link(panel, state) {
    const model = known.models.length > 1 && panel !== "compare" ? { model: known.model.id } : {};
    return `#${pairs({ panel, ...model, ...state })}`;
  }
  function keep(push) {
    foot();
    const hash = link(known.panel, panels[known.panel].state());
    if (hash === location.hash) return;
    if (push) history.pushState(null, "", hash); else history.replaceState(null, "", hash);
  }
  const address = () => new URLSearchParams(location.hash.slice(1));
  const panelOf = (words) => (Object.hasOwn(panels, words.get("panel")) ? words.get("panel") : "write");
  // Brings back what an address names. What it names and is not there is said: `restore` may return
  // a Trouble as well.
  async function follow() {
    const words = address(), name = panelOf(words), id = words.get("model");
    open(name);
    const unknown = id !== null && !known.models.some((one) => one.id === id);
    if (id !== null) choose(id);
    const model = known.model.id, missing = await panels[name].restore(words);
    if (!at("trouble").hidden || known.panel !== name) return; // more is wrong, or something else is read
    if (missing) say(missing);
    else if (unknown) say(new Trouble(404, `No model “${id}” is served here: this is ${model}.`, `此服务器没有模型“${id}”：现在用的是 ${model}。`));
  }
  function turnTo(name, focus) {
    if (name === known.panel) return;
    open(name, focus);
    keep(true);
    if (known.model) panels[name].restore(address());
  }
  function keys(event) {
    const here = tabs.indexOf(event.target);
    const last = tabs.length - 1;
    const to = { ArrowRight: here === last ? 0 : here + 1, ArrowLeft: here === 0 ? last : here - 1, Home: 0, End: last }[event.key];
    if (here < 0 || to === undefined) return;
    event.preventDefault();
    turnTo(tabs[to].getAttribute("aria-controls"), true);
  }

  // --- labels that are attributes, in the language of the page ---

  function look() {
    const word = (pair) => pair.split("|")[chinese() ? 1 : 0];
    for (const node of document.querySelectorAll("[data-label]")) {
      if (node.tagName === "OPTION") node.textContent = word(node.dataset.label);
      else node.setAttribute("aria-label", word(node.dataset.label));
    }
    for (const node of document.querySelectorAll("[data-placeholder]")) node.placeholder = word(node.dataset.placeholder);
    for (const node of document.querySelectorAll("[data-title]")) node.title = word(node.dataset.title);
    document.title = chinese() ? "一部书的模型" : "A model of one book";
  }

  // The language of the browser, until one is chosen.
  function speak() {
    let chosen = null;
    try {
      chosen = localStorage.getItem("hlm-lang");
    } catch { /* no storage here: nothing was chosen */ }
    if (!chosen && navigator.language.startsWith("zh")) root.lang = "zh";
  }
  // Nothing can be sent before the server has told its models.
  function enable(yes) {
    for (const button of document.querySelectorAll("main .primary")) button.disabled = !yes;
  }
  async function start() {
    speak();
    root.addEventListener("look", look);
    look();
    for (const tab of tabs) tab.addEventListener("click", () => turnTo(tab.getAttribute("aria-controls")));
    document.querySelector('[role="tablist"]').addEventListener("keydown", keys);
    at("key-form").addEventListener("submit", (event) => {
      event.preventDefault();
      stored(at("key").value.trim());
      begin();
    });
    at("model").addEventListener("change", () => {
      if (!choose(at("model").value)) return;
      keep(true);
      panels[known.panel].restore(address());
    });
    addEventListener("hashchange", () => known.model && follow());
    enable(false);
    open(panelOf(address()));
    if (known.panel === "write") panels.write.restore(address());
    await begin();
  }
  let told = ""; // what was said of a server that is waited for: once, not at every try
  async function begin() {
    try {
      await load();
    } catch (error) {
      if (error.status === 401) locked(error);
      else if (error.status === 0 || error.status === 503) wait(error);
      else say(error);
      return;
    }
    told = "";
    say(null);
    enable(true);
    root.dataset.begun = "yes";
    await follow();
  }
  function wait(error) {
    const warming = error.code === "warming_up";
    const said = warming ? new Trouble(503, "The server is warming up: it compiles its programs. The page goes on by itself.", "服务器正在预热：正在编译程序。就绪后本页会自动继续。", error.code) : error;
    if (said.english !== told) say(said);
    told = said.english;
    setTimeout(begin, 2000);
  }
  // At first sight a server with a key only asks for it.
  function locked(error) {
    const tried = stored();
    stored("");
    say(tried ? new Trouble(401, "The server did not accept this key.", "服务器不接受此密钥。", error.code) : null);
    askKey();
  }

  return { at, panels, known, Trouble, refused, gone, say, label, valid, title, ask, read, json, query, save, named, download, link, keep, start };
})();
