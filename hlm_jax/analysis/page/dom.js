// Small makers of elements. What comes from a book or a model becomes a text node, never markup.
const dom = (() => {
  "use strict";

  function make(tag, name, ...inside) {
    const node = document.createElement(tag);
    if (name) node.className = name;
    node.append(...inside);
    return node;
  }
  // Text in two languages; the language of the page shows one of them (page.css).
  function both(english, chinese) {
    const spans = [["en", english], ["zh", chinese]].map(([tag, text]) => {
      const span = make("span", tag, text);
      span.lang = tag;
      return span;
    });
    const all = document.createDocumentFragment();
    all.append(...spans);
    return all;
  }
  // Pairs of a label, [English, Chinese], and its content.
  function list(rows) {
    return make("dl", "", ...rows.flatMap(([label, content]) => [make("dt", "", both(...label)), make("dd", "", content)]));
  }
  const chinese = () => document.documentElement.lang.startsWith("zh");
  const shown = (text) => text.replaceAll("\n", "↵").replaceAll(" ", "␣").replaceAll("\u3000", "␣");
  const digits = (value, n = 2) => value.toFixed(n);
  function share(p) {
    if (p >= 0.001 || p === 0) return digits(p, p >= 0.1 || p === 0 ? 3 : 4);
    return `1 / ${Number((1 / p).toPrecision(2)).toLocaleString("en")}`;
  }

  return { make, both, list, chinese, shown, digits, share };
})();
