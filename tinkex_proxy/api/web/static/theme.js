// Light, dark, or what the system says; before anything is painted, so that nothing flashes.
"use strict";
(() => {
  const NAMES = ["system", "light", "dark"];
  let kept = null;
  try {
    kept = localStorage.getItem("tinkex-theme");
  } catch {
    // Storage may be closed to us; then a choice holds until the page is left.
  }
  let chosen = NAMES.includes(kept) ? kept : "system";

  function apply() {
    if (chosen === "system") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = chosen;
  }

  window.theme = {
    get chosen() {
      return chosen;
    },
    next() {
      chosen = NAMES[(NAMES.indexOf(chosen) + 1) % NAMES.length];
      try {
        localStorage.setItem("tinkex-theme", chosen);
      } catch {
        // See above.
      }
      apply();
    },
  };
  apply();
})();
