// A page of one heat map: its data stand in the page, its address is the page's.
(() => {
  "use strict";
  const keep = (words, push) => {
    const hash = `#${words.join("&")}`;
    if (hash === location.hash) return;
    try {
      if (push) history.pushState(null, "", hash); else history.replaceState(null, "", hash);
    } catch { /* a frame without an address of its own */ }
  };
  const reader = heatmap({ keep });
  reader.show(JSON.parse(document.getElementById("data").textContent), location.hash);
  addEventListener("hashchange", () => reader.turnToAddress(location.hash));
})();
