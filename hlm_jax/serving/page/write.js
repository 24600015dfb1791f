// The panel Write: a text as the server streams it, what was copied in it, and ways to go on.
(() => {
  "use strict";
  const { make, both, chinese, shown, digits, share } = dom;
  const { at, known, say } = app;
  const SETTINGS = ["max_tokens", "seed", "temperature", "top_p", "top_k", "min_p", "repetition_penalty", "stop"];
  const TOKENS = 200; // that are written unless told otherwise
  const SHOWN = 10; // alternatives of a token
  const field = (name) => at("write-form").querySelector(`[name="${name}"]`); // an id may be such a name too
  let text = empty(); // what is shown
  let running = null; // the AbortController of the text that is being written
  let failed = ""; // how a request ended before it wrote anything: what was written is still shown
  let chosen = -1; // the token whose alternatives are shown
  const before = []; // the texts that "Back" returns to

  function empty() {
    return { prompt: "", settings: {}, chars: [], tokens: [], copied: new Map(), seed: null, recitation: "", note: null, done: null };
  }

  // --- settings ---

  function settings() {
    const found = Object.fromEntries(SETTINGS.map((name) => [name, field(name).value.trim()]).filter(([, value]) => value));
    if (field("chapter_end").checked) found.chapter_end = "1";
    return found;
  }
  function set(words) {
    for (const name of SETTINGS) field(name).value = words.get(name) || "";
    field("chapter_end").checked = words.get("chapter_end") === "1";
    count();
  }
  function count() {
    const changed = Object.keys(settings()).length;
    at("changed").replaceChildren(changed ? both(`(${changed} changed)`, `（改了 ${changed} 项）`) : "");
  }
  function defaults(model) {
    for (const [name, value] of Object.entries(model.sampling)) if (field(name)) field(name).placeholder = String(value);
    field("max_tokens").placeholder = String(TOKENS);
    field("max_tokens").max = String(model.max_tokens);
  }
  function request(prompt, given) {
    const body = { model: known.model.id, prompt, stream: true, clean: true, add_special_tokens: false, logprobs: SHOWN, max_tokens: TOKENS };
    if (known.model.book) body.copied = true;
    for (const [name, value] of Object.entries(given)) {
      if (name === "stop") body.stop = [value];
      else if (name === "chapter_end") body.stop_at_chapter_end = true;
      else body[name] = Number(value);
    }
    return body;
  }

  // --- writing ---

  async function write() {
    if (!known.model || !possible()) return;
    if (running) running.abort();
    const mine = running = new AbortController();
    const own = { ...empty(), prompt: at("prompt").value, settings: settings() };
    app.keep(false);
    say(null);
    failed = "";
    status();
    try {
      for await (const event of stream(own, mine.signal)) {
        if (running !== mine) return;
        if (text !== own) begin(own);
        take(own, event);
      }
      own.done = own.done || "length";
    } catch (error) {
      own.done = error.name === "AbortError" ? "stopped" : error.status >= 400 && error.status < 500 ? "refused" : "broken";
      if (running === mine) say(error);
    }
    if (running !== mine) return; // another text was begun
    running = null;
    if (text === own) finish();
    else {
      failed = own.done;
      status();
    }
  }
  // The first event of a text has come: it takes the place of what was written before.
  function begin(own) {
    if (text.chars.length) before.push(text);
    text = own;
    draw();
  }
  // Whether the settings are what they may be; the first that is not is said.
  function possible() {
    const folded = !at("settings").open;
    at("settings").open = true; // so that the field at fault can take the focus
    const fine = SETTINGS.every((name) => app.valid(field(name), app.label(name)));
    if (fine && folded) at("settings").open = false;
    return fine;
  }
  // The events of the answer. A prompt that does not fit is read by its last tokens, as generation slides.
  async function* stream(own, signal) {
    const body = request(own.prompt, own.settings);
    let answer;
    try {
      answer = await app.ask("v1/completions", { body, signal });
    } catch (error) {
      if (error.code !== "context_length_exceeded") throw error;
      const kept = Math.max(1, Math.floor(known.model.max_model_len / 2));
      own.note = [`The prompt is too long for the model: it goes on from the last ${kept} tokens.`, `提示过长：模型由最后 ${kept} 个词元续写。`];
      answer = await app.ask("v1/completions", { body: { ...body, truncate_prompt_tokens: kept }, signal });
    }
    yield* events(answer.body.getReader());
  }
  async function* events(reader) {
    const decoder = new TextDecoder();
    let held = "", ended = false;
    while (!ended) {
      let part;
      try {
        part = await reader.read();
      } catch (error) {
        throw error.name === "AbortError" ? error : app.gone();
      }
      held += decoder.decode(part.value, { stream: !part.done });
      const blocks = held.split("\n\n");
      held = blocks.pop();
      for (const block of blocks) {
        const data = block.replace(/^data: ?/, "");
        if (data === "[DONE]") return;
        const event = JSON.parse(data);
        if (event.error) throw app.refused(500, event.error);
        yield event;
      }
      ended = part.done;
    }
    throw app.gone(); // no [DONE]: the server went away
  }
  function take(own, event) {
    if (event.seed !== undefined) own.seed = event.seed;
    const choice = (event.choices || [])[0];
    if (!choice) return;
    const first = own.tokens.length, scores = choice.logprobs;
    own.chars.push(...choice.text);
    if (scores) {
      scores.tokens.forEach((name, i) => own.tokens.push({
        name, start: scores.text_offset[i], p: Math.exp(scores.token_logprobs[i]), top: Object.entries(scores.top_logprobs[i] || {}),
      }));
    }
    let from = first;
    for (const [start, end, chapter] of choice.copied || []) {
      own.copied.set(start, { start, end, chapter });
      while (from > 0 && own.tokens[from - 1] && endOf(own, from - 1) > start) from--;
    }
    if (choice.recitation) own.recitation = choice.recitation;
    if (choice.finish_reason) own.done = choice.finish_reason;
    if (own === text) paint(Math.max(0, from - 1));
  }
  const endOf = (own, i) => (i + 1 < own.tokens.length ? own.tokens[i + 1].start : own.chars.length);
  function finish() {
    paint(Math.max(0, text.tokens.length - 1));
    status();
    app.keep(false);
  }

  // --- drawing ---

  function draw() {
    choose(-1);
    at("written").replaceChildren();
    at("write-box").hidden = !running && !text.done;
    paint(0);
    status();
  }
  // The tokens from the first that changed; each is a span, what was copied of it is marked.
  function paint(first) {
    const box = at("written");
    if (!box.firstChild) box.append(make("span", "given", text.prompt));
    while (box.childNodes.length > first + 1) box.lastChild.remove();
    for (let i = first; i < text.tokens.length; i++) {
      const span = make("span", `token${i === chosen ? " on" : ""}`, ...pieces(text.tokens[i].start, endOf(text, i)));
      span.token = i;
      box.append(span);
    }
    const [chars, tokens] = [text.chars.length, text.tokens.length];
    at("count").replaceChildren(tokens ? both(`${chars} characters · ${tokens} tokens`, `${chars} 字 · ${tokens} 词元`) : "");
    at("write-key").hidden = !text.copied.size;
  }
  function pieces(start, end) {
    const found = [];
    for (let i = start; i < end; i++) {
      const span = spanAt(i), last = found[found.length - 1];
      if (last && last.span === span) last.text += text.chars[i];
      else found.push({ span, text: text.chars[i] });
    }
    return found.map((piece) => {
      if (!piece.span) return piece.text;
      const node = make("span", "copied", piece.text);
      node.title = chinese() ? `也见于第 ${piece.span.chapter} 回` : `also in chapter ${piece.span.chapter}`;
      return node;
    });
  }
  function spanAt(place) {
    for (const span of text.copied.values()) if (span.start <= place && place < span.end) return span;
    return null;
  }
  function status() {
    const kept = text.chars.length > 0;
    const none = {
      refused: [`The request was refused.${kept ? " The text is the one before it." : ""}`, `请求被拒绝。${kept ? "下面仍是此前的文字。" : ""}`],
      broken: [`Broken off${kept ? ": the text is the one before it" : ""}.`, `中断${kept ? "：下面仍是此前的文字" : ""}。`],
      stopped: ["Stopped.", "已停止。"],
    };
    const ends = { stop: ["Finished.", "写完。"], length: ["Finished at the number of tokens asked for.", "已写满所要的词元数。"], stopped: ["Stopped.", "已停止。"], broken: ["Broken off.", "中断。"] };
    const [english, translation] = running ? ["Writing…", "正在写……"] : none[failed] || ends[text.done] || ["", ""];
    const seed = text.seed === null || running || failed ? ["", ""] : [` Seed ${text.seed}: it writes this text again.`, `随机种子 ${text.seed}：可重写此文。`];
    const note = (!failed && (!running || !text.done) && text.note) || ["", ""];
    at("write-status").replaceChildren(both(`${note[0]} ${english}${seed[0]}`.trim(), `${note[1]}${translation}${seed[1]}`));
    at("stop").disabled = !running;
    at("back").disabled = !before.length;
    at("save").disabled = !text.chars.length;
    at("recitation").textContent = text.recitation;
    at("recitation").hidden = !text.recitation;
    at("written").setAttribute("aria-busy", String(Boolean(running)));
  }

  // --- the alternatives of a token ---

  function choose(i) {
    const box = at("written"), old = box.childNodes[chosen + 1], node = box.childNodes[i + 1];
    if (chosen >= 0 && old) old.classList.remove("on");
    chosen = i;
    at("token").classList.toggle("idle", i < 0);
    if (i < 0) {
      at("token-details").replaceChildren();
      return;
    }
    node.classList.add("on");
    const token = text.tokens[i], span = spanAt(token.start);
    const unit = make("p", "unit", shown(text.chars.slice(token.start, endOf(text, i)).join("") || token.name));
    unit.lang = "zh";
    const nodes = [unit, dom.list([[["p", "概率"], share(token.p)], [["bits", "比特"], digits(-Math.log2(token.p))]])];
    if (span) {
      const link = make("a", "", both(`chapter ${span.chapter}`, `第 ${span.chapter} 回`));
      link.href = app.link("read", { ch: span.chapter });
      nodes.push(make("p", "", both(`${span.end - span.start} characters copied from `, `重合 ${span.end - span.start} 字，见`), link));
    }
    const choices = [...token.top].sort((a, b) => b[1] - a[1]).map(([name, score]) => alternative(i, name, Math.exp(score)));
    if (choices.length) nodes.push(make("h3", "", both("Write on from here with", "由此改写为")), make("ol", "choices", ...choices));
    at("token-details").replaceChildren(...nodes);
  }
  function alternative(i, name, p) {
    const button = make("button", name === text.tokens[i].name ? "hit" : "", make("span", "word", shown(name)), make("span", "", share(p)));
    button.type = "button";
    button.firstChild.lang = "zh";
    button.disabled = Boolean(running) || /^(<[^<>]+>)+$/.test(name); // bytes and the separator are no text
    const bar = make("i");
    bar.style.width = `${100 * p}%`;
    button.prepend(bar);
    button.addEventListener("click", () => branch(i, name));
    return make("li", "", button);
  }
  // Cuts the text before token i, puts another in its place, and writes on.
  function branch(i, name) {
    at("prompt").value = text.prompt + text.chars.slice(0, text.tokens[i].start).join("") + name;
    fit();
    write();
    at("written").focus();
  }
  function move(key) {
    const visible = text.tokens.map((_, i) => i).filter((i) => endOf(text, i) > text.tokens[i].start);
    const here = visible.indexOf(chosen), last = visible.length - 1;
    if (last < 0) return;
    const to = { ArrowRight: here + 1, ArrowLeft: here < 0 ? 0 : here - 1, Home: 0, End: last }[key];
    choose(visible[Math.max(0, Math.min(last, to))]);
    at("written").childNodes[chosen + 1].scrollIntoView({ block: "nearest" });
  }

  // --- listening ---

  function stop() {
    if (running) running.abort();
  }
  function back() {
    stop();
    running = null;
    failed = "";
    text = before.pop() || empty();
    at("prompt").value = text.prompt;
    set(new URLSearchParams(text.settings));
    fit();
    draw();
    app.keep(false);
  }
  function fit() {
    const box = at("prompt");
    box.rows = Math.max(3, Math.min(10, Math.ceil(Array.from(box.value).length / 36)));
  }
  function keys(event) {
    if (known.panel !== "write" || !at("key-form").hidden) return;
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) write();
    else if (event.key === "Escape" && running) stop();
    else if (event.key === "Escape" && chosen >= 0) choose(-1);
    else if (event.target === at("written") && /^(ArrowLeft|ArrowRight|Home|End)$/.test(event.key)) move(event.key);
    else if (event.target === at("written") && event.key === "Enter" && chosen >= 0) (at("token-details").querySelector("button:enabled") || at("written")).focus();
    else return;
    event.preventDefault();
  }
  // A text that was written with a seed of its own is found again by it.
  function state() {
    const seed = text.seed !== null && text.prompt === at("prompt").value && JSON.stringify(text.settings) === JSON.stringify(settings()) ? { seed: String(text.seed) } : {};
    return { prompt: at("prompt").value, ...settings(), ...seed };
  }
  function restore(words) {
    if ((words.get("prompt") || "") === at("prompt").value && (text.done || running)) return;
    at("prompt").value = words.get("prompt") || "";
    set(words);
    if (Object.keys(settings()).length) at("settings").open = true;
    fit();
  }

  at("write-form").addEventListener("submit", (event) => {
    event.preventDefault();
    write();
  });
  document.addEventListener("keydown", keys);
  at("write-form").addEventListener("input", () => {
    count();
    app.keep(false);
  });
  at("prompt").addEventListener("input", fit);
  at("stop").addEventListener("click", () => {
    stop();
    at("go").focus(); // a disabled button loses the focus
  });
  at("back").addEventListener("click", back);
  at("save").addEventListener("click", () => app.save(app.named([known.model.id, text.prompt.trim(), text.seed === null ? "" : text.seed], "txt"), text.prompt + text.chars.join("")));
  at("reset").addEventListener("click", () => {
    set(new URLSearchParams());
    app.keep(false);
  });
  at("written").addEventListener("click", (event) => {
    const node = event.target.closest(".token");
    if (node) choose(node.token);
  });
  at("token-close").addEventListener("click", () => choose(-1));
  app.panels.write = { state, restore, modelled: defaults };
})();
