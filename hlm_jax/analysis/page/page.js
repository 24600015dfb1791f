// The two buttons of every page: language and theme. A choice is kept where the browser allows it.
(() => {
  "use strict";
  const root = document.documentElement;
  const kept = (key, value) => {
    try {
      if (value !== undefined) localStorage.setItem("hlm-" + key, value);
      return localStorage.getItem("hlm-" + key);
    } catch { return null; } // a sandboxed frame or a file without storage
  };
  const dark = () => (root.dataset.theme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
  const say = () => root.dispatchEvent(new Event("look"));
  if (kept("lang")) root.lang = kept("lang");
  if (kept("theme")) root.dataset.theme = kept("theme");
  document.getElementById("language").addEventListener("click", () => {
    root.lang = root.lang.startsWith("zh") ? "en" : "zh";
    kept("lang", root.lang);
    say();
  });
  document.getElementById("theme").addEventListener("click", () => {
    root.dataset.theme = dark() ? "light" : "dark";
    kept("theme", root.dataset.theme);
    say();
  });
})();
