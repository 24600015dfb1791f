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
  function refused(status, error) {
    const message = (error && error.message) || `The server answered ${status}.`;
    const sentence = `${message[0].toUpperCase()}${message.slice(1)}${/[.?!。！？]$/.test(message) ? "" : "."}`;
    const translation = {
      401: "此服务器需要 API 密钥。",
      429: "服务器正忙，请稍候再试。",
      503: "服务器尚未就绪或正在关闭，请稍候再试。",
    }[status];
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
    if (trouble.status === 401) {
      at("key-form").hidden = false;
      at("key").focus();
    }
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
  async function download(name, path, options) {
    try {
      save(name, await read(await ask(path, options), "blob"));
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
  function describe() {
    const one = known.model;
    at("model").value = one.id;
    const size = one.parameters.toLocaleString("en");
    const names = [one.id, typeof one.book === "string" ? one.book : ""].filter(Boolean).join(" · ");
    const about = make("span", "", both(`${names} · ${size} parameters · reads ${one.max_model_len} tokens`, `${names} · ${size} 参数 · 上文 ${one.max_model_len} 词元`));
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
  }
  // The address of a panel in a state; the model is named where there are several.
  function link(panel, state) {
    const model = known.models.length > 1 && panel !== "compare" ? { model: known.model.id } : {};
    return `#${pairs({ panel, ...model, ...state })}`;
  }
  function keep(push) {
    const hash = link(known.panel, panels[known.panel].state());
    if (hash === location.hash) return;
    if (push) history.pushState(null, "", hash); else history.replaceState(null, "", hash);
  }
  // Brings back what an address names.
  function follow() {
    const words = new URLSearchParams(location.hash.slice(1));
    const name = panels[words.get("panel")] ? words.get("panel") : "write";
    open(name);
    if (words.has("model")) choose(words.get("model"));
    panels[name].restore(words);
  }
  function turnTo(name, focus) {
    if (name === known.panel) return;
    open(name, focus);
    keep(true);
    panels[name].restore(new URLSearchParams(location.hash.slice(1)));
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
    document.title = chinese() ? "一部书的模型" : "A model of one book";
  }

  async function start() {
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
      panels[known.panel].restore(new URLSearchParams(location.hash.slice(1)));
    });
    addEventListener("hashchange", () => known.model && follow());
    await begin();
  }
  async function begin() {
    try {
      await load();
      say(null);
      follow();
      root.dataset.begun = "yes";
    } catch (error) {
      const waits = error.status === 0 || error.status === 503;
      if (!waits || at("trouble").hidden) say(error); // told once, not at every try
      if (waits) setTimeout(begin, 2000);
    }
  }

  return { at, panels, known, Trouble, refused, gone, say, ask, read, json, query, save, download, link, keep, start };
})();
