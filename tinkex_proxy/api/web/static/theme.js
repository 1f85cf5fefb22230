// Light, dark, or what the system says; before anything is painted, so that nothing flashes.
"use strict";
(() => {
  const NAMES = ["system", "light", "dark"];
  const darkWanted = matchMedia("(prefers-color-scheme: dark)");
  let kept = null;
  try {
    kept = localStorage.getItem("tinkex-theme");
  } catch {
    // Storage may be closed to us; then a choice holds until the page is left.
  }
  let chosen = NAMES.includes(kept) ? kept : "system";

  function apply() {
    const system = darkWanted.matches ? "dark" : "light";
    document.documentElement.dataset.theme = chosen === "system" ? system : chosen;
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
  darkWanted.addEventListener("change", apply);
  apply();
})();
